"""What both ports agree to, told by handshakes; and who is let in where clients must show a certificate."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from asr.config import GatewayConfig
from asr.engines.gateway import GatewayEngine
from asr.errors import ASRError, Code
from asr.options import Options
from authority import Authority
from e2e.gateway import running
from e2e.handshakes import OLD_VERSIONS, Answer, ciphers_known, shake
from server.serve import Addresses
from word_engine import WordEngine

ANY = ":@SECLEVEL=0"
STRONG = {
    "ECDSA": (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    "RSA": ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"),
}
TLS13 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
WEAK_GROUPS = ("X448", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def serving(folder: Path, authority: Authority, *, rsa_bits: int = 0, **more: object) -> AsyncIterator[Addresses]:
    authority.issue(rsa_bits=rsa_bits).write(folder / "a.crt", folder / "a.key")
    (folder / "ca.pem").write_bytes(authority.pem)
    given = {"tls": True, "tls_cert": folder / "a.crt", "tls_key": folder / "a.key", **more}
    async with running(WordEngine(), folder, **given) as addresses:
        yield addresses


async def all_of(port: int, *tries: tuple[str, ...]) -> list[Answer]:
    return list(await asyncio.gather(*(shake(port, *arguments) for arguments in tries)))


@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
async def test_only_strong_suites_on_both_ports(kind: str, tmp_path: Path, authority: Authority) -> None:
    weak = [name for name in await ciphers_known() if name not in STRONG["ECDSA"] + STRONG["RSA"]]
    assert {"AES128-SHA", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256", "ADH-AES256-SHA"} <= set(weak)
    assert len(weak) > 50
    async with serving(tmp_path, authority, rsa_bits=2048 if kind == "RSA" else 0) as addresses:
        assert addresses.grpc_port is not None
        for port, strong in ((addresses.port, STRONG[kind]), (addresses.grpc_port, STRONG[kind][:2])):
            # One handshake that offers all of them: a server that took any would have chosen it.
            families = [
                weak,
                *([name for name in weak if word in name] for word in ("CBC", "SHA256", "PSK", "DHE", "CAMELLIA")),
            ]
            refused = await all_of(port, *(("-tls1_2", "-cipher", ":".join(f) + ANY) for f in families if f))
            assert [answer.cipher for answer in refused] == [""] * len(refused)
            taken = await all_of(port, *(("-tls1_2", "-cipher", name + ANY) for name in strong))
            assert [answer.cipher for answer in taken] == list(strong)
            newest = await all_of(port, *(("-tls1_3", "-ciphersuites", name) for name in sorted(TLS13)))
            assert {answer.cipher for answer in newest} == TLS13
            ccm = await shake(port, "-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256")
            assert not ccm.made


async def test_no_old_version_no_odd_group_and_no_renegotiation(tmp_path: Path, authority: Authority) -> None:
    async with serving(tmp_path, authority) as addresses:
        assert addresses.grpc_port is not None
        for port, protocol in ((addresses.port, "http/1.1"), (addresses.grpc_port, "h2")):
            old = await all_of(port, *((version, "-cipher", "ALL" + ANY) for version in OLD_VERSIONS))
            assert not any(answer.made for answer in old)
            odd = await all_of(port, *(("-tls1_3", "-groups", group) for group in WEAK_GROUPS))
            assert not any(answer.made for answer in odd)
            good = await shake(
                port, "-tls1_3", "-groups", "P-256", "-alpn", f"h3,{protocol}", "-CAfile", tmp_path / "ca.pem"
            )
            assert (good.version, good.alpn) == ("TLSv1.3", protocol)
            assert "Verification: OK" in good.told
            assert "Compression: NONE" in good.told
            again = await shake(port, "-tls1_2", say=b"R\n")
            assert again.made
            assert re.search(r"no renegotiation|unexpected eof|handshake failure", again.told)
        # X25519 first, as browsers and OpenSSL guess it: a second round trip settles on P-256.
        assert (await shake(addresses.port, "-tls1_3", "-groups", "X25519:P-256")).made
        tickets = await shake(addresses.port, "-tls1_2", "-sess_out", tmp_path / "session")
        assert "TLS session ticket:" not in tickets.told


async def test_the_audit_sees_what_python_would_offer_by_itself(tmp_path: Path, authority: Authority) -> None:
    authority.issue(rsa_bits=2048).write(tmp_path / "a.crt", tmp_path / "a.key")
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lax.load_cert_chain(tmp_path / "a.crt", tmp_path / "a.key")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=lax)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert (await shake(port, "-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384" + ANY)).made
        assert (await shake(port, "-tls1_3", "-groups", "ffdhe8192")).made


def test_a_short_key_is_refused_at_the_start(tmp_path: Path, authority: Authority) -> None:
    async def start() -> None:
        async with serving(tmp_path, authority, rsa_bits=1024):
            pass

    with pytest.raises(Exception, match="key too small"):
        asyncio.run(start())


# --- clients that must show a certificate


async def asked(port: int, trust: Path, pair: tuple[Path, Path] | None) -> str:
    """The status line of /healthz, or why there is none."""
    context = ssl.create_default_context(cafile=str(trust))
    if pair is not None:
        context.load_cert_chain(*pair)
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            line = (await reader.readline()).decode().strip()
            writer.close()
    except OSError as error:
        return type(error).__name__
    return line


async def recognizes(port: int, trust: Path, pair: tuple[Path, Path] | None) -> bool:
    """Whether the gRPC port answers; it shows whatever it is given, as our own engine would not."""
    cert, key = (path.read_bytes() for path in pair) if pair is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(trust.read_bytes(), key, cert)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        call = channel.unary_unary("/nvidia.riva.asr.RivaSpeechRecognition/GetRivaSpeechRecognitionConfig")
        try:
            await call(b"", timeout=5)
        except grpc.aio.AioRpcError:
            return False
    return True


async def test_only_clients_of_that_authority_come_in(tmp_path: Path, authority: Authority) -> None:
    clients = Authority("clients")
    (tmp_path / "clients.pem").write_bytes(clients.pem)
    shown: dict[str, tuple[Path, Path] | None] = {"none": None}
    for name, issued in {
        "good": clients.issue("a client"),
        "foreign": authority.issue("a client"),
        "of the same name": Authority("clients").issue("a client"),
        "expired": clients.issue("a client", days=(-9, -1)),
        "early": clients.issue("a client", days=(1, 9)),
    }.items():
        shown[name] = (tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        issued.write(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
    async with serving(tmp_path, authority, tls_client_ca=tmp_path / "clients.pem") as addresses:
        assert addresses.grpc_port is not None
        trust = tmp_path / "ca.pem"
        loud = {name: await asked(addresses.port, trust, pair) for name, pair in shown.items()}
        assert loud.pop("good") == "HTTP/1.1 200 OK"
        assert not any(line.startswith("HTTP") for line in loud.values()), loud
        heard = await asyncio.gather(*(recognizes(addresses.grpc_port, trust, pair) for pair in shown.values()))
        assert dict(zip(shown, heard, strict=True)) == {name: name == "good" for name in shown}


async def test_a_session_of_a_client_that_is_not_trusted_any_more_is_not_resumed(
    tmp_path: Path, authority: Authority
) -> None:
    clients, others = Authority("clients"), Authority("others")
    (tmp_path / "clients.pem").write_bytes(clients.pem)
    clients.issue("a client").write(tmp_path / "c.crt", tmp_path / "c.key")
    shown = ("-cert", tmp_path / "c.crt", "-key", tmp_path / "c.key")
    async with serving(tmp_path, authority, tls_client_ca=tmp_path / "clients.pem") as addresses:
        assert addresses.grpc_port is not None
        kept = [(port, tmp_path / f"session-{port}") for port in (addresses.port, addresses.grpc_port)]
        for port, session in kept:
            await shake(port, "-tls1_2", *shown, "-sess_out", session, say=b"Q\n")
            # Even an honest client need not show it again: that is what ends below.
            assert "Reused, TLSv1.2" in (await shake(port, "-tls1_2", "-sess_in", session, say=b"Q\n")).told
        (tmp_path / "clients.pem").write_bytes(others.pem)
        others.issue("another").write(tmp_path / "o.crt", tmp_path / "o.key")
        async with asyncio.timeout(5):
            while not await recognizes(
                addresses.grpc_port, tmp_path / "ca.pem", (tmp_path / "o.crt", tmp_path / "o.key")
            ):
                await asyncio.sleep(0.2)
        for port, session in kept:
            again = await shake(port, "-tls1_2", "-sess_in", session, say=b"Q\n")
            assert "Reused" not in again.told
            assert re.search(r"alert|unexpected eof", again.told)  # without a certificate it ends in the handshake


async def test_a_client_that_can_show_no_certificate_is_told_what_that_is_about(
    tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "clients.pem").write_bytes(Authority("clients").pem)

    async def audio() -> AsyncIterator[bytes]:
        yield bytes(3200)

    async with serving(tmp_path, authority, tls_client_ca=tmp_path / "clients.pem") as addresses:
        config = GatewayConfig(addresses.url, ca_cert=tmp_path / "ca.pem", resume_window_ms=0)
        engine = GatewayEngine(config)
        with pytest.raises(ASRError, match="asks clients for certificates") as caught:
            _ = [event async for event in engine.stream(audio(), Options())]
        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(ASRError, match="asks clients for certificates"):
            await engine.models()
        await engine.aclose()


async def test_the_self_made_certificate_serves_grpc_where_it_is_asked_to(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, tls=True, grpc_tls=True) as addresses:
        assert addresses.grpc_port is not None
        assert await recognizes(addresses.grpc_port, tmp_path / "tls/localhost.crt", None)
    async with (
        running(WordEngine(), tmp_path, tls=True) as addresses,
        grpc.aio.insecure_channel(f"localhost:{addresses.grpc_port}") as channel,
        asyncio.timeout(5),
    ):
        await channel.channel_ready()
