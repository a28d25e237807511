"""What a row of the catalogue is played on: recognizers as its sites say, a gateway before them, and clients."""

from __future__ import annotations

import asyncio
import random
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from chaos.behaviour import Behaviour
from chaos.certificates import self_signed
from chaos.clients import Record, Script, native
from chaos.gateway_process import Footprint, GatewayProcess, RelayProcess
from chaos.h2peer import H2Peer, Mode
from chaos.numbered import FRAME_MS
from chaos.proxy import Proxy, Toxic
from chaos.standin import StandIn

Tls = Literal["", "good", "unknown", "wrong name", "expired"]


@dataclass(frozen=True, slots=True)
class Site:
    """One endpoint: a stand-in, a raw peer (`mode`), a closed port or a name that nobody has (`nobody`).

    Attributes:
        behaviour, arguments: of the stand-in.
        toxic: a proxy stands before it, in this state.
        tls: the stand-in serves TLS, and this is how good its certificate is.
    """

    behaviour: Behaviour = field(default_factory=Behaviour)
    arguments: tuple[str, ...] = ()
    toxic: Toxic | None = None
    mode: Mode | None = None
    nobody: str = ""
    tls: Tls = ""


@dataclass(slots=True)
class Live:
    """A site that has been built."""

    endpoint: str
    standin: StandIn | None = None
    proxy: Proxy | None = None
    peer: H2Peer | None = None


class Stage:
    """Built for one row, and used for nothing else.

    Attributes:
        sites: the endpoints, in the gateway's order.
        gateway: the process under test.
        struck_at: when the fault began, on the loop's clock; 0 for from the start.
        healed_at: when it was over, or 0.
        before: what the gateway held before its clients came.
        peak_rss: the most memory that was seen, in bytes.
        notes: what strikes and checks want to see in the report.
    """

    def __init__(self, *, relay: bool, seed: int) -> None:
        self.sites: list[Live] = []
        self.struck_at = 0.0
        self.healed_at = 0.0
        self.peak_rss = 0
        self.notes: list[str] = []
        self.random = random.Random(seed)
        self._relay = relay
        self._stack = AsyncExitStack()
        self.gateway: GatewayProcess
        self.before: Footprint

    async def build(self, sites: tuple[Site, ...], env: dict[str, str]) -> None:
        """Start everything."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        env = dict(env)
        for number, site in enumerate(sites):
            self.sites.append(await self._build_site(site, folder, number, env))
        endpoints = ",".join(live.endpoint for live in self.sites)
        process = RelayProcess(self.sites[0].endpoint) if self._relay else GatewayProcess(endpoints, **env)
        self.gateway = await self._stack.enter_async_context(process)
        self.before = self.gateway.footprint()

    async def _build_site(self, site: Site, folder: Path, number: int, env: dict[str, str]) -> Live:
        if site.nobody:
            return Live(site.nobody.replace("CLOSED", str(_closed_port())))
        if site.mode is not None:
            peer = await self._stack.enter_async_context(H2Peer(site.mode))
            return Live(peer.endpoint, peer=peer)
        arguments = site.arguments
        if site.tls:
            pair = self_signed(folder, f"site{number}", expired=site.tls == "expired",
                               address="127.0.0.9" if site.tls == "wrong name" else "127.0.0.1")  # fmt: skip
            trusted = self_signed(folder, f"other{number}") if site.tls == "unknown" else pair
            arguments += ("--tls", f"{pair.key},{pair.certificate}")
            env["RIVA_SSL_ROOT_CERT"] = str(trusted.certificate)
        standin = await self._stack.enter_async_context(StandIn(site.behaviour, arguments=arguments))
        if site.toxic is None:
            return Live(standin.endpoint, standin)
        proxy = await self._stack.enter_async_context(Proxy(standin.port, replace(site.toxic)))
        return Live(proxy.endpoint, standin, proxy)

    async def aclose(self) -> None:
        """End everything that was started."""
        await self._stack.aclose()

    # --- the play

    async def play(
        self, scripts: list[Script], *, stagger_s: float, strike: Callable[[Stage], Awaitable[None]] | None,
        strike_at_s: float, spare_s: float,
    ) -> list[Record]:  # fmt: skip
        """All clients from their first message to their last, and the fault in their midst."""
        for script in scripts:
            script.audio()  # made before the clock runs
        begun = _now()

        async def one(script: Script) -> Record:
            await asyncio.sleep(self.random.uniform(0, stagger_s))
            audio_s = sum(count for _, count in script.pauses) * FRAME_MS / 1_000 + sum(s for _, s in script.mutes)
            audio_s += script.frames * FRAME_MS / 1_000 / script.pace
            return await native(self.gateway.port, script, patience_s=audio_s + spare_s)

        async def act() -> None:
            if strike is not None:
                await asyncio.sleep(max(begun + strike_at_s - _now(), 0))
                self.struck_at = _now()
                await strike(self)

        acting = asyncio.create_task(act())
        watching = asyncio.create_task(self._watch())
        try:
            records = list(await asyncio.gather(*map(one, scripts)))
            if not acting.done():
                acting.cancel()
            await asyncio.gather(acting, return_exceptions=True)
            if not acting.cancelled() and acting.exception() is not None:
                raise RuntimeError("the fault could not be injected") from acting.exception()
            return records
        finally:
            acting.cancel()
            watching.cancel()
            await asyncio.gather(acting, watching, return_exceptions=True)

    async def _watch(self) -> None:
        while self.gateway.returncode is None:
            self.peak_rss = max(self.peak_rss, self.gateway.footprint().rss_bytes)
            await asyncio.sleep(0.5)

    # --- what was seen

    async def streams(self) -> list[dict[str, Any]]:
        """The records of all streams at all stand-ins that are alive."""
        found = []
        for live in self.sites:
            if live.standin is not None and live.standin.answers:
                found += (await live.standin.state())["streams"]
        return found

    async def opened(self) -> int:
        """Streams of audio that reached any recognizer."""
        return len(await self.streams()) + sum(live.peer.streams for live in self.sites if live.peer is not None)

    async def open_upstream(self, within_s: float = 5.0) -> int:
        """Streams still open at the stand-ins after so long."""
        until = time.monotonic() + within_s
        while True:
            count = 0
            for live in self.sites:
                hidden = live.proxy is not None and bool(live.proxy.toxic.blackhole)
                if live.standin is not None and live.standin.answers and not hidden:
                    count += (await live.standin.state())["open"]
            if not count or time.monotonic() > until:
                return count
            await asyncio.sleep(0.2)


def _closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def _now() -> float:
    return asyncio.get_running_loop().time()
