"""The native path of a server in memory: sessions, drivers and lines are real, the connections are `MemorySocket`."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

from asr.engine import Engine
from realtime_cores import PATH, realtime_core
from server.conversation import Conversation
from server.drive import DriveLimits, Driver, Tally
from server.faces.end import EndConversation
from server.faces.native import NativeConversation
from server.faces.native_setup import NativeLimits, NativeSetup
from server.line import Line
from server.sessions import Sessions
from server.sockets import MemorySocket, Oversized, Place

PATIENCE_S = 5.0


class Watch:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.tally: Tally | None = None
        self.lost_sessions: list[str] = []
        self.resumes: list[tuple[str, int]] = []

    def opened(self, face: str, peer: str) -> None:
        pass

    def lost(self, session_id: str, peer: str, window_ms: int) -> None:
        self.lost_sessions.append(session_id)

    def resumed(self, session_id: str, peer: str, missed: int) -> None:
        self.resumes.append((session_id, missed))

    def closed(self, face: str, peer: str, tally: Tally, duration_s: float) -> None:
        self.tally = tally


class OnePlace:
    """Counts how often it was given back."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


class MemoryConnection:
    """A client's view of a `MemorySocket`."""

    def __init__(self, socket: MemorySocket) -> None:
        self.socket = socket
        self.place = OnePlace()
        self._read = 0

    async def say(self, message: str | bytes | Oversized) -> None:
        self.socket.put(message)

    async def hear(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if self._read < len(self.socket.sent):
                    self._read += 1
                    return self.socket.sent[self._read - 1]
                if self.socket.closed is not None:
                    return f"close {self.socket.closed[0]}"
                await self.socket.changed()

    async def cut(self) -> None:
        self.socket.hang_up()

    async def leave(self, code: int) -> None:
        self.socket.hang_up(code)


class MemoryGateway:
    """Serves `asr.v1`, and the `END` dialect, to any number of connections.

    Attributes:
        watch: what the observer was told.
        sessions: the registry under test.
    """

    def __init__(
        self,
        engine: Engine,
        limits: NativeLimits | None = None,
        drive_limits: DriveLimits | None = None,
        line: Callable[[NativeConversation], Line] = Line,
        **bounds: int,
    ) -> None:
        self.engine = engine
        self.watch = Watch()
        self._drive_limits = drive_limits or DriveLimits()
        numbers, tokens = itertools.count(1), itertools.count(1)
        self.sessions = Sessions(
            NativeSetup("test", limits or NativeLimits()),
            self._open_native,
            observer=self.watch,
            new_id=lambda: f"s{next(numbers)}",
            new_token=lambda: f"t{next(tokens)}",
            open_line=line,
            **bounds,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self.connections: list[MemoryConnection] = []

    async def connect(self, path: str = "/v1/stream", *, principal: str = "me") -> MemoryConnection:
        return self.take(MemorySocket(principal=principal), path)

    def take(self, socket: MemorySocket, path: str = "/v1/stream") -> MemoryConnection:
        connection = MemoryConnection(socket)
        self.connections.append(connection)
        if path == "/ws":
            core = EndConversation(start_timeout_ms=10_000, max_session_ms=3_600_000, unix_time=time.time)
            self._tasks.append(asyncio.create_task(self._serve_alone(socket, core)))
            return connection
        if path.startswith(PATH):
            self._tasks.append(asyncio.create_task(self._serve_alone(socket, realtime_core(path, self.engine))))
            return connection
        query = {name: values[-1] for name, values in parse_qs(path.partition("?")[2]).items()}
        turn = self.sessions.exempt(query, socket.principal)

        def keep_place() -> Place | None:
            return turn if turn is not None else connection.place

        serving = self.sessions.serve(socket, hinted="session" in query, keep_place=keep_place)
        self._tasks.append(asyncio.create_task(serving))
        return connection

    async def aclose(self) -> None:
        """Hang up on every connection, and wait until nothing is left."""
        self.sessions.drain(1000)
        for connection in self.connections:
            if connection.socket.closed is None:
                connection.socket.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._tasks)
            while len(self.sessions):
                await asyncio.sleep(0.01)
        await self.sessions.aclose()

    def _open_native(
        self, session_id: str, core: NativeConversation, line: Line, peer: str, opened_at: float
    ) -> Driver:
        limits = self._drive_limits
        return Driver(
            "test",
            line,
            core,
            self.engine,
            limits=limits,
            observer=self.watch,
            peer=peer,
            opened_at=opened_at,
            is_audio=True,
        )

    async def _serve_alone(self, socket: MemorySocket, core: Conversation) -> None:
        line = Line(None)
        line.attach(socket)
        limits = self._drive_limits
        driver = Driver("alone", line, core, self.engine, limits=limits, observer=self.watch, peer=socket.peer)
        await asyncio.gather(driver.run(), driver.attend(socket))
        await line.aclose()


@asynccontextmanager
async def serving(
    engine: Engine,
    limits: NativeLimits | None = None,
    drive_limits: DriveLimits | None = None,
    line: Callable[[NativeConversation], Line] = Line,
    **bounds: int,
) -> AsyncIterator[MemoryGateway]:
    """A gateway at work; on the way out it must be over within a bound and have left nothing behind."""
    before = asyncio.all_tasks()
    gateway = MemoryGateway(engine, limits, drive_limits, line, **bounds)
    try:
        yield gateway
    finally:
        await gateway.aclose()
        assert getattr(engine, "open_streams", 0) == 0
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
