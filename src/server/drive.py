"""The one driver: it owns all concurrency of a conversation, and every exit.

Two pumps and a lock. The *reader* waits for room in the current take's audio, then takes the
client's next message to the core; the *listener* pulls the engine's events one at a time, so a client that
reads slowly slows the engine instead of filling a queue. A third task wakes the core when it asked to be.
Whatever ends first ends the rest, in `Driver.run` and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from asr.engine import BYTES_PER_MS, Agreement, EndUtterance, Engine, agree
from asr.errors import ASRError, Code
from asr.events import Final
from asr.options import Options
from asr.pipe import Ahead, AudioPipe
from server.conversation import Begin, Command, Conversation, Cut, Drop, Feed, Finish, Hangup, Send
from server.refusals import refusal
from server.sockets import Oversized, Socket, SocketClosed

log = structlog.get_logger("server.drive")

ENGINE_CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class DriveLimits:
    """Bounds that hold for every conversation.

    Attributes:
        max_ahead_ms: audio accepted before the engine has taken it; beyond it the socket is not read.
        idle_ms: no sign of life from the client for so long ends the conversation.
    """

    max_ahead_ms: int = 5_000
    idle_ms: int = 30_000


@dataclass(slots=True)
class Tally:
    """What a conversation came to; the log line and the metrics of its end.

    Attributes:
        audio_ms: audio given to the engine.
        finals: finals that the engine gave.
        close_code: the WebSocket close code, or None when the client went away.
        error: the code of the failure that ended it, or "".
    """

    audio_ms: int = 0
    finals: int = 0
    close_code: int | None = None
    error: str = ""


class Observer(Protocol):
    """Where metrics and logs hang themselves on: told of every conversation's beginning and end."""

    def opened(self, face: str, peer: str) -> None:
        """A conversation began."""
        ...

    def closed(self, face: str, peer: str, tally: Tally, duration_s: float) -> None:
        """It ended."""
        ...


class _Take:
    def __init__(self, number: int, options: Options, ahead: Ahead) -> None:
        self.number = number
        self.options = options
        self.pipe = AudioPipe(ahead)
        self.dropped = False


class Driver:
    """Runs one conversation between a socket, a core and an engine."""

    def __init__(
        self,
        face: str,
        socket: Socket,
        core: Conversation,
        engine: Engine,
        *,
        limits: DriveLimits,
        observer: Observer,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._face = face
        self._socket = socket
        self._core = core
        self._engine = engine
        self._limits = limits
        self._observer = observer
        self._clock = clock if clock is not None else asyncio.get_running_loop().time
        self._lock = asyncio.Lock()
        self._takes: dict[int, _Take] = {}
        self._ahead = Ahead(limits.max_ahead_ms * BYTES_PER_MS)
        self._take_added = asyncio.Event()
        self._rescheduled = asyncio.Event()
        self._sleeping_until: float | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hangup: Hangup | None = None
        self._fed_bytes = 0
        self.tally = Tally()

    async def run(self) -> None:
        """Live the conversation from its opening to its close. Never raises but for cancellation."""
        started, peer = self._clock(), self._socket.peer
        self._observer.opened(self._face, peer)
        tasks = [
            asyncio.create_task(self._guard(part), name=f"{self._face} {part.__name__}")
            for part in (self._read, self._listen, self._wake)
        ]
        try:
            await self._tell(self._core.opened)
            await self._over
        finally:
            for take in self._takes.values():
                take.pipe.abandon()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._hangup is not None:
                self.tally.close_code = self._hangup.code
                self.tally.error = self.tally.error or self._hangup.reason
                await self._socket.close(self._hangup.code, self._hangup.reason)
            self._observer.closed(self._face, peer, self.tally, self._clock() - started)

    async def drain(self) -> None:
        """The server goes down: let the core bring its last results home."""
        await self._guard(self._say_draining)

    # The pumps ------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while self._hangup is None:
            if self._ahead.full and not await self._room():
                return
            message = await self._socket.receive()
            if message is None:
                return
            if isinstance(message, Oversized):
                text = f"A message is over the limit of {message.limit_bytes} bytes. Send smaller ones."
                await self._tell(self._core.refused, ASRError(Code.TOO_LARGE, text))
            else:
                await self._tell(self._core.received, message)

    async def _room(self) -> bool:
        """Wait until the engine has taken enough; False when the client goes away before that."""
        room = asyncio.ensure_future(self._ahead.room())
        gone = asyncio.ensure_future(self._socket.gone())
        try:
            await asyncio.wait((room, gone), return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            room.cancel()
            gone.cancel()

    async def _listen(self) -> None:
        number = 0
        while True:
            while number not in self._takes:
                self._take_added.clear()
                await self._take_added.wait()
            take = self._takes[number]
            try:
                await self._play(take)
            finally:
                take.pipe.abandon()
            del self._takes[number]
            number += 1

    async def _play(self, take: _Take) -> None:
        core, number = self._core, take.number
        try:
            agreement = await self._agree(take.options)
            await self._tell(core.begun, number, agreement)
            events = self._engine.stream(take.pipe, agreement.options)
            try:
                async for event in events:
                    if take.dropped:
                        return
                    if isinstance(event, Final):
                        self.tally.finals += 1
                    await self._tell(core.heard, number, event)
            finally:
                await self._close_stream(events.aclose)
        except ASRError as error:
            if error.code is Code.SLOW_READER or take.dropped:
                raise
            self.tally.error = error.code.value
            log.info("take failed", face=self._face, peer=self._socket.peer, code=error.code.value, error=error.message)
            await self._tell(core.failed, number, error)
            return
        if not take.dropped:
            await self._tell(core.finished, number)

    async def _agree(self, options: Options) -> Agreement:
        return agree(options, await self._engine.models(), self._engine.features)

    async def _close_stream(self, aclose: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(ENGINE_CLOSE_TIMEOUT_S):
                await aclose()  # type: ignore[misc]
        except TimeoutError:
            log.error("engine did not let go of a stream", face=self._face, engine=self._engine.name)

    async def _wake(self) -> None:
        idle_s = self._limits.idle_ms / 1000
        warned = False
        while True:
            now = self._clock()
            if self._core.wake_at is not None and self._core.wake_at <= now:
                await self._tell(self._core.ticked)
            silent_s = now - self._socket.last_heard
            if silent_s >= idle_s:
                error = ASRError(
                    Code.IDLE_TIMEOUT,
                    f"Nothing was heard from the client for {idle_s:g} s, not even an answer to a ping.",
                )
                await self._tell(self._core.refused, error)
                return
            if silent_s < idle_s * 2 / 3:
                warned = False
            elif not warned:
                warned = True
                await self._tell(self._core.quiet, int(silent_s * 1000), self._limits.idle_ms)
            wake_at = self._socket.last_heard + idle_s * (1 if warned else 2 / 3)
            if self._core.wake_at is not None:
                wake_at = min(wake_at, self._core.wake_at)
            await self._sleep_until(wake_at)

    async def _sleep_until(self, when: float) -> None:
        self._sleeping_until = when
        self._rescheduled.clear()
        try:
            async with asyncio.timeout(max(when - self._clock(), 0.001)):
                await self._rescheduled.wait()
        except TimeoutError:
            pass

    async def _say_draining(self) -> None:
        await self._tell(self._core.draining)

    # Commands -------------------------------------------------------------------------------------

    async def _tell(self, door: Callable[..., list[Command]], *what: object) -> None:
        # The door is opened under the lock: what the core numbers first must be sent first.
        async with self._lock:
            await self._act(door(*what, self._clock()))

    async def _act(self, commands: list[Command]) -> None:
        for command in commands:
            if self._hangup is not None:
                return
            match command:
                case Send(text):
                    await self._socket.send(text)
                case Begin(number, options):
                    self._takes[number] = _Take(number, options, self._ahead)
                    self._take_added.set()
                case Hangup():
                    self._hangup = command
                    self._end()
                case _:
                    self._act_on_take(command)
        self._reschedule()

    def _act_on_take(self, command: Feed | Cut | Finish | Drop) -> None:
        if isinstance(command, Feed):
            self._fed_bytes += len(command.pcm)
            self.tally.audio_ms = self._fed_bytes // BYTES_PER_MS
        take = self._takes.get(command.take)
        if take is None:  # its engine has ended before its audio
            return
        match command:
            case Feed(_, pcm):
                take.pipe.put(pcm)
            case Cut():
                take.pipe.put(EndUtterance())
            case Finish():
                take.pipe.end()
            case Drop():
                take.dropped = True
                take.pipe.abandon()

    def _reschedule(self) -> None:
        wake_at = self._core.wake_at
        if wake_at is not None and self._sleeping_until is not None and wake_at < self._sleeping_until:
            self._rescheduled.set()

    # Exits ----------------------------------------------------------------------------------------

    async def _guard(self, part: Callable[[], object]) -> None:
        """Run a part; what it raises becomes the one way out of `run`."""
        try:
            await part()  # type: ignore[misc]
        except SocketClosed:
            self._end()
        except ASRError as error:
            self.tally.error = error.code.value
            self._hangup = self._hangup or Hangup(refusal(error.code).close_code, error.message)
            self._end()
        except Exception:
            log.exception("conversation failed", face=self._face, peer=self._socket.peer)
            self.tally.error = Code.INTERNAL.value
            await self._apologize()
        else:
            if part == self._read:
                self._end()

    async def _apologize(self) -> None:
        error = ASRError(Code.INTERNAL, "The gateway failed while handling this connection. It has been logged.")
        try:
            await self._tell(self._core.refused, error)
        except Exception:
            log.exception("conversation failed while failing", face=self._face)
        self._hangup = self._hangup or Hangup(refusal(Code.INTERNAL).close_code, error.message)
        self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
