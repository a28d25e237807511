"""The native path of a server in memory: sessions, drivers and lines are real, the connections are `MemorySocket`."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

from asr.engine import Engine
from asr.errors import Code
from realtime_cores import PATH, realtime_core
from server.conversation import Conversation
from server.drive import DriveLimits, Driver
from server.faces.end import EndConversation
from server.faces.native import NativeConversation
from server.faces.native_setup import NativeLimits, NativeSetup
from server.line import Line
from server.sessions import Sessions
from server.sockets import MemorySocket, Oversized, Place, Socket
from server.telemetry.hub import Telemetry
from server.telemetry.record import StreamRecord, StreamStart
from server.telemetry.watch import StreamWatch

PATIENCE_S = 5.0


class Watch:
    """A telemetry sink that keeps what it was told.

    Attributes:
        record: of the stream that ended last, or None.
        happenings: what happened, in order.
        latencies: by their names, in seconds.
        lost_sessions: sessions that lost their client, in order.
        resumes: sessions that got it back, with the number of messages that it had missed.
        refusals: faces and codes.
    """

    def __init__(self) -> None:
        self.record: StreamRecord | None = None
        self.happenings: list[tuple[str, dict[str, str | int | float]]] = []
        self.latencies: dict[str, list[float]] = {}
        self.lost_sessions: list[str] = []
        self.resumes: list[tuple[str, int]] = []
        self.refusals: list[tuple[str, str]] = []

    def opened(self, start: StreamStart) -> None:
        pass

    def happened(self, start: StreamStart, what: str, at_s: float, **about: str | int | float) -> None:
        self.happenings.append((what, about))
        if what == "lost":
            self.lost_sessions.append(start.session_id)
        elif what == "resumed":
            self.resumes.append((start.session_id, int(about["missed"])))

    def measured(self, start: StreamStart, what: str, seconds: float) -> None:
        self.latencies.setdefault(what, []).append(seconds)

    def closed(self, record: StreamRecord) -> None:
        self.record = record

    def refused(self, face: str, code: Code) -> None:
        self.refusals.append((face, code.value))


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
        watch: what telemetry was told.
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
        self.telemetry = Telemetry([self.watch], clock=asyncio.get_running_loop().time)
        self._drive_limits = drive_limits or DriveLimits()
        numbers, tokens = itertools.count(1), itertools.count(1)
        self.sessions = Sessions(
            NativeSetup("test", limits or NativeLimits()),
            self._open_native,
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
        self, session_id: str, core: NativeConversation, line: Line, socket: Socket, opened_at: float
    ) -> Driver:
        limits = self._drive_limits
        watch = self._watch_over("native", socket, session_id)
        return Driver(line, core, self.engine, limits=limits, watch=watch, opened_at=opened_at, is_audio=True)

    def _watch_over(self, face: str, socket: Socket, session_id: str = "") -> StreamWatch:
        parent, state = socket.trace
        return self.telemetry.open(
            face, kind="live", peer=socket.peer, traceparent=parent, tracestate=state, session_id=session_id
        )

    async def _serve_alone(self, socket: MemorySocket, core: Conversation) -> None:
        line = Line(None)
        line.attach(socket)
        limits = self._drive_limits
        driver = Driver(line, core, self.engine, limits=limits, watch=self._watch_over("end", socket))
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
