"""Certificates are replaced on both sides of a gateway while it carries fifty streams: nobody notices."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import pytest

from asr.build import build_engine
from asr.config import GatewayConfig, ResilienceConfig, ResilientConfig, RivaConfig
from asr.engine import Engine
from asr.engines.gateway import GatewayEngine
from asr.engines.riva import RivaEngine
from asr.errors import ASRError, Code
from asr.events import Event, Final, Gap, Status
from asr.mock.riva_server import MockRivaServer, ServerTls
from asr.options import Options
from authority import Authority, Issued
from e2e.gateway import running
from e2e.handshakes import serial_shown
from timing import in_time
from word_engine import WORD_MS, WordEngine

STREAMS = 25
"""Through each of two doors."""
CHUNK_MS = 200
LEAST = 2
"""Chunks of the shortest stream."""
SEEN_WITHIN_S = 5.0
LOUD = b"\x00\x20" * 1600


class Talk:
    """A stream in real time that goes on until it is told to end, and every word that came back."""

    def __init__(self, engine: Engine, end: asyncio.Event) -> None:
        self._engine, self._end = engine, end
        self._chunks = 0
        self.heard: list[str] = []

    async def run(self) -> Talk:
        async for event in self._engine.stream(self._audio(), Options()):
            match event:
                case Final():
                    self.heard += event.text.split()
                case Status() | Gap():  # of trouble, which is not to be
                    self.heard.append(repr(event))
        return self

    @property
    def said(self) -> list[str]:
        return [f"w{number}" for number in range(1, self._chunks * CHUNK_MS // WORD_MS + 1)]

    async def _audio(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while self._chunks < LEAST or not self._end.is_set():
            self._chunks += 1
            await asyncio.sleep(begun + self._chunks * CHUNK_MS / 1000 - loop.time())
            yield bytes(CHUNK_MS * 32)


async def short(engine: Engine) -> bool:
    """Whether a stream of two words comes through."""
    end = asyncio.Event()
    end.set()
    talk = await Talk(engine, end).run()
    return talk.heard == talk.said != []


async def seen(port: int, issued: Issued, pair: tuple[Path, Path] | None = None) -> float:
    """How long it takes until a new handshake sees that certificate, in seconds."""
    begun = time.monotonic()
    while await serial_shown(port, pair) != issued.serial:
        in_time(time.monotonic() - begun, SEEN_WITHIN_S, "the new certificate is not shown")
        await asyncio.sleep(0.1)
    return time.monotonic() - begun


class Site:
    """The files of a gateway and of the recognizer behind it, and who signs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public, self.inner, self.next_inner = Authority("public"), Authority("inner"), Authority("next inner")
        (folder / "public.pem").write_bytes(self.public.pem)
        self.trust_inner(self.inner)
        self.renew("gateway", self.public)
        self.renew("riva", self.inner)
        self.renew("client", self.inner)

    def renew(self, name: str, authority: Authority) -> Issued:
        issued = authority.issue(name)
        issued.write(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return issued

    def trust_inner(self, *authorities: Authority) -> None:
        new = self.folder / "inner.new"
        new.write_bytes(b"".join(authority.pem for authority in authorities))
        new.rename(self.folder / "inner.pem")

    def pair(self, name: str) -> dict[str, Path]:
        return {"tls_cert": self.folder / f"{name}.crt", "tls_key": self.folder / f"{name}.key"}

    def engine(self, port: int) -> Engine:
        riva = RivaConfig(
            f"localhost:{port}",
            root_cert=self.folder / "inner.pem",
            client_cert=self.folder / "client.crt",
            client_key=self.folder / "client.key",
            streams_per_channel=1,
        )
        # Not adaptive: a machine that is slow at the moment is not what is tried here.
        return build_engine(ResilientConfig((riva,), ResilienceConfig(health_interval_ms=500, adaptive=False)))

    def client(self, port: int, name: str) -> RivaEngine:
        files = {"client_cert": self.folder / f"{name}.crt", "client_key": self.folder / f"{name}.key"}
        return RivaEngine(RivaConfig(f"localhost:{port}", root_cert=self.folder / "inner.pem", **files))


async def test_fifty_streams_while_every_certificate_is_replaced_twice(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "a").mkdir()
    upstream = running(
        WordEngine(), tmp_path / "a", tls=True, **site.pair("riva"), tls_client_ca=tmp_path / "inner.pem", grpc_tls=True
    )
    async with upstream as riva:
        assert riva.grpc_port is not None
        async with running(site.engine(riva.grpc_port), tmp_path, tls=True, **site.pair("gateway")) as gateway:
            trust = tmp_path / "public.pem"
            doors: list[Engine] = [
                GatewayEngine(GatewayConfig(gateway.url, ca_cert=trust, resume_window_ms=0)),
                RivaEngine(RivaConfig(f"localhost:{gateway.grpc_port}", root_cert=trust, streams_per_channel=1)),
            ]
            assert gateway.grpc_port is not None
            ports = (gateway.port, gateway.grpc_port)
            shown = (tmp_path / "client.crt", tmp_path / "client.key")
            end = asyncio.Event()
            talks = [asyncio.create_task(Talk(door, end).run()) for door in doors for _ in range(STREAMS)]
            begun = time.monotonic()
            await asyncio.sleep(0.5)

            # First: all pairs, those inside already from the next authority, which is trusted beside the former.
            site.trust_inner(site.inner, site.next_inner)
            site.renew("newcomer", site.next_inner)
            newcomer = site.client(riva.grpc_port, "newcomer")
            while not (await newcomer.ready()).ready:
                in_time(time.monotonic() - begun, 2 * SEEN_WITHIN_S, "the new authority is not trusted")
                await asyncio.sleep(0.1)
            first = site.renew("gateway", site.public)
            inside = site.renew("riva", site.next_inner)
            site.renew("client", site.next_inner)
            waits = [await seen(port, first) for port in ports]
            waits.append(await seen(riva.grpc_port, inside, shown))
            assert [await short(door) for door in doors] == [True, True]

            # Second: the pairs again, and the former authority is trusted no more.
            site.trust_inner(site.next_inner)
            second = site.renew("gateway", site.public)
            inside = site.renew("riva", site.next_inner)
            waits += [await seen(port, second) for port in ports]
            waits.append(await seen(riva.grpc_port, inside, shown))
            # More at once than the connections of the time before have room for: these are made anew.
            assert await asyncio.gather(*(short(door) for door in doors for _ in range(3))) == [True] * 6
            assert not any(talk.done() for talk in talks)
            end.set()
            ended = await asyncio.gather(*talks)
            assert [talk.heard for talk in ended if talk.heard != talk.said] == []
            assert min(len(talk.heard) for talk in ended) > 15
            in_time(max(waits), SEEN_WITHIN_S)
            # Who shows a certificate of the former authority is not let in any more.
            site.inner.issue("client").write(tmp_path / "old.crt", tmp_path / "old.key")
            former = site.client(riva.grpc_port, "old")
            assert not (await former.ready()).ready
            for engine in (*doors, newcomer, former):
                await engine.aclose()


# --- towards Riva, connection by connection


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
async def mutual(site: Site) -> AsyncGenerator[MockRivaServer]:
    tls = ServerTls((site.folder / "riva.key").read_bytes(), (site.folder / "riva.crt").read_bytes(), site.inner.pem)
    async with MockRivaServer(tls=tls) as server:
        yield server


def towards(site: Site, server: MockRivaServer, clock: Callable[[], float] = time.monotonic) -> RivaEngine:
    files = {"client_cert": site.folder / "client.crt", "client_key": site.folder / "client.key"}
    config = RivaConfig(
        f"localhost:{server.port}", root_cert=site.folder / "inner.pem", connect_timeout_ms=500, **files
    )
    return RivaEngine(config, clock=clock)


async def test_a_stream_ends_where_it_began_and_the_next_one_takes_a_new_connection(
    site: Site, mutual: MockRivaServer
) -> None:
    now_s = [0.0]
    riva = towards(site, mutual, lambda: now_s[0])
    more: asyncio.Queue[bytes] = asyncio.Queue()

    async def fed() -> AsyncIterator[bytes]:
        while chunk := await more.get():
            yield chunk

    heard: list[Event] = []

    async def listen() -> None:
        heard.extend([event async for event in riva.stream(fed(), Options())])

    running_stream = asyncio.create_task(listen())
    for _ in range(5):
        more.put_nowait(LOUD)
    while not mutual.streams:
        await asyncio.sleep(0.01)
    site.renew("client", site.inner)
    now_s[0] = 5.0
    assert (await riva.ready()).ready
    assert riva._channels.connections == 2
    for _ in range(25):
        more.put_nowait(LOUD)
    more.put_nowait(b"")
    async with asyncio.timeout(10):
        await running_stream
    assert any(isinstance(event, Final) for event in heard)
    assert riva._channels.connections == 1
    await riva.aclose()


@pytest.mark.parametrize("shown", [True, False])
async def test_without_the_right_certificate_the_operator_reads_why_and_the_client_does_not(
    site: Site, mutual: MockRivaServer, caplog: pytest.LogCaptureFixture, shown: bool
) -> None:
    site.renew("client", site.public)
    files = {"client_cert": site.folder / "client.crt", "client_key": site.folder / "client.key"} if shown else {}
    riva = RivaConfig(f"localhost:{mutual.port}", root_cert=site.folder / "inner.pem", connect_timeout_ms=500, **files)
    engine = build_engine(ResilientConfig((riva,), ResilienceConfig(start_timeout_ms=300, health_interval_ms=200)))
    for _ in range(3):
        with pytest.raises(ASRError) as caught:
            await short(engine)
        assert caught.value.code is Code.UNAVAILABLE
        assert not re.search(r"localhost|/|pem|crt|SSL|TLS", caught.value.message)
    await engine.ready()
    said = [record.message for record in caplog.records if "in the TLS handshake" in record.message]
    assert len(said) == 1
    assert ("may not accept RIVA_SSL_CLIENT_CERT" in said[0]) is shown
    assert ("RIVA_SSL_CLIENT_CERT is not set" in said[0]) is not shown
    assert mutual.streams == 0
    await engine.aclose()


async def test_a_bad_file_does_not_stop_new_streams(
    site: Site, mutual: MockRivaServer, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [0.0]
    riva = towards(site, mutual, lambda: now_s[0])
    assert (await riva.ready()).ready
    (site.folder / "client.key").write_text("cut of")
    for now_s[0] in (10.0, 20.0, 30.0):
        assert (await riva.ready()).ready
    assert caplog.text.count("the former stays in use") == 1
    await riva.aclose()
