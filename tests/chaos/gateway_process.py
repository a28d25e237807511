"""A gateway in a process of its own, and what it holds on to: file descriptors, sockets, threads, children."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from chaos.standin import clean_environment

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds.

    Attributes:
        fds: open file descriptors.
        upstream: connections of its own making.
        clients: connections that were made to it.
        threads, children: of the operating system.
        rss_bytes: resident memory.
    """

    fds: int
    upstream: int
    clients: int
    threads: int
    children: int
    rss_bytes: int


GATEWAY = ("-m", "server", "serve", "--no-tls", "--port", "0", "--grpc-port", "0")
RELAY = Path(__file__).resolve().parents[2] / "load" / "plain_relay.py"


class GatewayProcess:
    """`riva-gateway serve` without TLS on free ports, as an async context manager.

    Attributes:
        port: HTTP and WebSocket.
        grpc_port: the Riva face.
    """

    def __init__(self, endpoints: str = "", **env: str) -> None:
        """`endpoints` go into RIVA_ENDPOINTS; `env` are further settings."""
        self.port = 0
        self.grpc_port = 0
        self._env = env | ({"RIVA_ENDPOINTS": endpoints} if endpoints else {})
        self._command: tuple[str, ...] = GATEWAY
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-gateway-")
        self._process: asyncio.subprocess.Process | None = None
        self._draining: asyncio.Task[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.returncode if self._process is not None else None

    def log(self) -> str:
        """What it has logged."""
        return (Path(self._folder.name) / "log").read_text("utf-8", "replace")

    async def start(self) -> None:
        """Start it and wait for its ports."""
        log = (Path(self._folder.name) / "log").open("wb")
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *self._command,
                stdout=asyncio.subprocess.PIPE, stderr=log, stdin=asyncio.subprocess.DEVNULL,
                cwd=self._folder.name,
                env=clean_environment()
                | {"STATE_DIR": self._folder.name, "LOG_LEVEL": "info", "LOG_FORMAT": "json", **self._env},
            )  # fmt: skip
        finally:
            log.close()
        assert self._process.stdout is not None
        labels = {"page, HTTP and WebSocket: ": "port", "Riva gRPC: ": "grpc_port"}
        async with asyncio.timeout(START_TIMEOUT_S):
            while not (self.port and self.grpc_port):
                line = (await self._process.stdout.readline()).decode()
                if not line:
                    raise RuntimeError(f"the gateway did not start: {self.log()[-500:]}")
                for label, name in labels.items():
                    if line.startswith(label):
                        setattr(self, name, int(line.strip().rsplit(":", 1)[1]))
        self._draining = asyncio.create_task(self._process.stdout.read())

    def terminate(self) -> None:
        """SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    async def ended(self) -> int:
        """Its exit status, awaited within bounds."""
        assert self._process is not None
        async with asyncio.timeout(END_TIMEOUT_S):
            return await self._process.wait()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.terminate()
            try:
                await self.ended()
            except TimeoutError:
                self.kill()
                await self.ended()
        if self._draining is not None:
            await asyncio.gather(self._draining, return_exceptions=True)
        self._folder.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    # --- what it holds

    def footprint(self) -> Footprint:
        """As it is now."""
        process = psutil.Process(self.pid)
        connections = [c for c in process.net_connections("tcp") if c.status != psutil.CONN_LISTEN]
        clients = sum(c.laddr.port in (self.port, self.grpc_port) for c in connections)
        return Footprint(
            fds=process.num_fds(),
            upstream=len(connections) - clients,
            clients=clients,
            threads=process.num_threads(),
            children=len(process.children(recursive=True)),
            rss_bytes=process.memory_info().rss,
        )

    async def leftovers(self, before: Footprint, *, within_s: float = 5.0, upstream_limit: int = 8) -> list[str]:
        """What is still held beyond `before` after so long; connections to the recognizers may stay, to a number."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while True:
            left = self._beyond(before, self.footprint(), upstream_limit)
            if not left or loop.time() > until:
                return left
            await asyncio.sleep(0.1)

    @staticmethod
    def _beyond(before: Footprint, now: Footprint, upstream_limit: int) -> list[str]:
        left = []
        if now.clients:
            left.append(f"{now.clients} client connections")
        if now.upstream > upstream_limit:
            left.append(f"{now.upstream} upstream connections")
        if (fds := (now.fds - now.upstream) - (before.fds - before.upstream)) > FD_SLACK:
            left.append(f"{fds} file descriptors")
        if (threads := now.threads - before.threads) > THREAD_SLACK:
            left.append(f"{threads} threads")
        if (children := now.children - before.children) > 0:
            left.append(f"{children} children")
        return left


class RelayProcess(GatewayProcess):
    """The plain relay in the gateway's place; it has no gRPC face."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._command = (str(RELAY), endpoint)


FD_SLACK = 3
"""gRPC's engine opens a wake-up descriptor or two with its first connection."""
THREAD_SLACK = 8
"""gRPC's and asyncio's thread pools grow to their bound with the first load and stay there."""
