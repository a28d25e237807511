"""A stand-in for a Riva / Speech NIM container: its gRPC and its HTTP API, played from a mock plan.

Nothing is recognized: the plan says what comes out. `serve_standin` runs it until told to stop; `Standin` is
the same as an async context manager, for tests.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import uvicorn

from asr.mock.plan import DEFAULT_PLAN, MockPlan
from asr.mock.riva_server import MockRivaServer, ServerTls
from server.standin.app import StandinApp

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_BACKLOG = 4096
_START_S = 10.0


@dataclass(frozen=True, slots=True)
class StandinAddress:
    """Where a running stand-in listens."""

    host: str
    grpc_port: int
    http_port: int


class Standin:
    """A running stand-in.

    Attributes:
        riva: its gRPC server.
        app: its HTTP API.
        address: where both listen, once started.
    """

    def __init__(
        self,
        plan: MockPlan = DEFAULT_PLAN,
        *,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        tls: ServerTls | None = None,
    ) -> None:
        """Nothing is opened before `start`; a port of 0 lets the system choose. `tls` is for gRPC alone."""
        self.riva = MockRivaServer(plan, host=host, port=grpc_port, tls=tls)
        self.app = StandinApp(plan)
        self.address = StandinAddress(host, grpc_port, http_port)
        self._uvicorn: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on both ports. Raises `OSError` when one is taken."""
        listener = _listen(self.address.host, self.address.http_port)
        try:
            await self.riva.start()
        except BaseException:
            listener.close()
            raise
        server = _Uvicorn(
            uvicorn.Config(
                self.app.asgi,
                log_level="warning",
                lifespan="off",
                ws="websockets-sansio",
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._uvicorn = server
        self._serving = asyncio.create_task(server.serve(sockets=[listener]), name="standin-http")
        up = asyncio.create_task(server.up.wait())
        await asyncio.wait({up, self._serving}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._serving.done():
            await self._serving
        self.address = StandinAddress(self.address.host, self.riva.port, listener.getsockname()[1])

    async def stop(self, grace_s: float = 0.0) -> None:
        """Stop both; streams and sockets still open after `grace_s` are cut off."""
        server, serving = self._uvicorn, self._serving
        self._uvicorn = self._serving = None
        if server is None or serving is None:
            return
        server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        server.should_exit = True
        await asyncio.gather(self.riva.stop(grace_s), serving)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def serve_standin(
    plan: MockPlan = DEFAULT_PLAN,
    *,
    stop: asyncio.Event,
    started: Callable[[StandinAddress], None] | None = None,
    host: str = "127.0.0.1",
    grpc_port: int = 0,
    http_port: int = 0,
    tls: ServerTls | None = None,
    grace_s: float = 2.0,
) -> None:
    """Run a stand-in until `stop` is set (or the task is cancelled), then end it within `grace_s` and a second.

    Args:
        plan: what it says and does.
        stop: set it to end; the caller owns the signals.
        started: called once with the addresses, when both ports answer.
        host: the address to listen on.
        grpc_port: 0 lets the system choose; a Riva listens on 50051.
        http_port: 0 lets the system choose; a NIM listens on 9000.
        tls: serve gRPC over TLS with these.
        grace_s: how long open streams may go on after `stop`, in seconds.

    Raises:
        OSError: a port is taken or not allowed.
    """
    standin = Standin(plan, host=host, grpc_port=grpc_port, http_port=http_port, tls=tls)
    await standin.start()
    try:
        if started is not None:
            started(standin.address)
        await stop.wait()
    finally:
        await standin.stop(grace_s)


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The signals belong to whoever runs the stand-in.
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
