"""The one driver: it owns all concurrency of a conversation, and every exit.

The conversation lives in `run`: a *listener* pulls the engine's events one at a time, and a second task wakes the
core when it asked to be. Each connection of the client is read in `attend`, by the task that accepted it, which waits
for room in the current take's audio and then takes the next message to the core. The core's doors and the
commands that come out are carried out without a wait in between, so they need no lock. What the client is sent goes
through the `Line`, which never waits either. Whatever ends first ends the rest, in `Driver.run` and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from asr.engine import BYTES_PER_MS, Agreement, EndUtterance, Engine
from asr.errors import Action, ASRError, Code
from asr.events import Event
from asr.options import Options
from asr.pipe import Ahead, AudioPipe
from server.access.grants import Grant
from server.access.vigil import FLUSH_S, GRACE_S, Vigil
from server.conversation import Begin, Command, Conversation, Cut, Drop, Feed, Finish, Forewarned, Hangup, Seen, Send
from server.line import Line
from server.models import House
from server.refusals import refusal
from server.sockets import Incoming, Oversized, Socket, size_of
from server.telemetry.takes import TakeWatch
from server.telemetry.watch import StreamWatch

log = structlog.get_logger("server.drive")

ENGINE_CLOSE_TIMEOUT_S = 5.0
MESSAGES_PER_TURN = 32
PIECE_BYTES = 12 * 1024
LONGEST_SLEEP_S = 3600.0


@dataclass(frozen=True, slots=True)
class DriveLimits:
    """Bounds that hold for every conversation.

    Attributes:
        max_ahead_ms: audio accepted before the engine has taken it; beyond it the socket is not read.
        idle_ms: no sign of life from the client for so long ends the conversation.
    """

    max_ahead_ms: int = 5_000
    idle_ms: int = 30_000


class _Take:
    def __init__(self, number: int, options: Options, ahead: Ahead, watch: TakeWatch) -> None:
        self.number = number
        self.options = options
        self.watch = watch
        self.pipe = AudioPipe(ahead, watch.taken)
        self.dropped = False


class Driver:
    """Runs one conversation between a client's line, a core and an engine.

    Attributes:
        watch: told of all that happens, and closed at the end.
    """

    def __init__(
        self,
        line: Line,
        core: Conversation,
        engine: Engine,
        *,
        limits: DriveLimits,
        watch: StreamWatch,
        clock: Callable[[], float] | None = None,
        opened_at: float | None = None,
        house: House | None = None,
        is_audio: bool = False,
        vigil: Vigil | None = None,
    ) -> None:
        """Open the conversation; `run` must follow.

        `house`: what is settled for every request. `opened_at`: when the client connected, on the driver's clock; by
        default now. `is_audio`: a binary message is sound and nothing else, so a large one may go to the core in
        pieces. `vigil`: looks whether the client may stay.
        """
        self.watch = watch
        self._face = watch.start.face
        self._line = line
        self._core = core
        self._engine = engine
        self._limits = limits
        self._house = house or House()
        self._is_audio = is_audio
        self._peer = watch.start.peer
        self._clock = clock if clock is not None else asyncio.get_running_loop().time
        self._takes: dict[int, _Take] = {}
        self._ahead = Ahead(limits.max_ahead_ms * BYTES_PER_MS)
        self._take_added = asyncio.Event()
        self._rescheduled = asyncio.Event()
        self._sleeping_until: float | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hangup: Hangup | None = None
        self._arrived_at = self._clock() if opened_at is None else opened_at
        self._error = ""
        self._vigil = vigil
        self._sentence: asyncio.TimerHandle | None = None
        line.on_stalled = self._give_up
        line.over.add_done_callback(self._on_line_over)
        self._act(core.opened(self._arrived_at))

    @property
    def grant(self) -> Grant | None:
        """What the client that is connected may do."""
        return None if self._line.socket is None else self._line.socket.grant

    @property
    def audio_ms(self) -> float:
        """Audio given to the recognizer so far."""
        return self.watch.audio_ms

    async def run(self) -> None:
        """Live the conversation from its opening to its close. Never raises but for cancellation."""
        tasks = [
            asyncio.create_task(self._guard(part), name=f"{self._face} {part.__name__}")
            for part in (self._listen, self._wake)
        ]
        if self._vigil is not None:
            self._vigil.begin(self)
        try:
            await self._over
        finally:
            if self._vigil is not None:
                self._vigil.end(self)
            if self._sentence is not None:
                self._sentence.cancel()
            for take in self._takes.values():
                take.pipe.abandon()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            hangup = self._hangup
            complete = hangup is not None or not self._takes
            try:
                if hangup is not None:
                    self._error = self._error or hangup.reason
                    await self._line.close(hangup.code, hangup.reason)
                else:
                    self._line.end()
            finally:
                self.watch.sent_bytes, self.watch.left_out = self._line.sent_bytes, self._line.left_out
                self.watch.close(self._error, complete=complete, close_code=hangup.code if hangup else None)

    async def attend(self, socket: Socket, first: Incoming = None, *, proven: Callable[[], None] | None = None) -> None:
        """Read a connection of the line until it is lost. Returns then; never raises but for cancellation.

        Args:
            socket: a connection that the line has taken. What it delivers counts as long as no other takes over.
            first: a message of it that has been read before.
            proven: called once when the connection has delivered its first message.
        """
        self._rescheduled.set()
        await self._guard(lambda: self._read(socket, first, proven))
        await socket.gone()
        self._line.lost(socket)

    def drain(self, deadline_ms: int) -> None:
        """The server goes down in `deadline_ms`: let the core bring its last results home."""
        try:
            self._tell(self._core.draining, deadline_ms)
        except Exception:
            log.exception("conversation failed while draining", face=self._face, peer=self._peer)
            self._apologize()
        if self._line.socket is None:
            self._line.end()

    def expiring(self, left_ms: int) -> None:
        """See `server.access.vigil.Subject`."""
        if isinstance(self._core, Forewarned):
            self._tell(self._core.expiring, left_ms)

    def cut_short(self, error: ASRError) -> None:
        """See `server.access.vigil.Subject`. Where another credential may go on with it, the conversation waits."""
        waits = error.code is Code.UNAUTHORIZED and self._line.window_ms > 0
        socket = self._line.socket
        self._tell(self._core.cut_short, error)
        if self._over.done() or socket is None:
            return
        loop = asyncio.get_running_loop()
        if waits:
            self._sentence = loop.call_later(FLUSH_S, self._part_from, socket, error)
        else:
            self._sentence = loop.call_later(GRACE_S, self._tell, self._core.refused, error)

    def _part_from(self, socket: Socket, error: ASRError) -> None:
        if self._line.socket is socket:
            self._line.drop(error)

    def give_up(self) -> None:
        """The time of a drain is over: what is not recognized by now is told as lost."""
        if not self._over.done():
            text = "The gateway had to go down before the recognizer was done. Connect again."
            self._tell(self._core.refused, ASRError(Code.UNAVAILABLE, text))

    # The pumps ------------------------------------------------------------------------------------

    async def _read(self, socket: Socket, message: Incoming, proven: Callable[[], None] | None) -> None:
        count = 0
        while True:
            count += 1
            if count % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)  # a flood of small messages is there at once: others have their turn too
            if self._ahead.full and not await self._room(socket):
                return
            if message is None:
                message = await socket.receive()
            if message is None or self._hangup is not None or self._line.socket is not socket:
                return
            self._arrived_at = socket.arrived_at
            self.watch.received_bytes += len(message) if isinstance(message, bytes) else size_of(message)
            if proven is not None:
                proven()
                proven = None
            if isinstance(message, Oversized):
                text = f"A message is over the limit of {message.limit_bytes} bytes. Send smaller ones."
                self._tell(self._core.refused, ASRError(Code.TOO_LARGE, text))
            elif self._is_audio and isinstance(message, bytes) and len(message) > PIECE_BYTES:
                if not await self._deliver(socket, message):
                    return  # what comes behind a message that was not heard to its end must not be heard either
            else:
                self._tell(self._core.received, message)
            message = None

    async def _deliver(self, socket: Socket, message: bytes) -> bool:
        """A megabyte of compressed sound is minutes of it, which take a second to decode: others have their turn.

        Returns whether all of it was heard.
        """
        for at in range(0, len(message), PIECE_BYTES):
            if at:
                await asyncio.sleep(0)
            if self._ahead.full and not await self._room(socket):
                return False
            if self._hangup is not None or self._line.socket is not socket:
                return False
            self._tell(self._core.received, message[at : at + PIECE_BYTES])
        return True

    async def _room(self, socket: Socket) -> bool:
        """Wait until the engine has taken enough; False when the client goes away before that."""
        room = asyncio.ensure_future(self._ahead.room())
        gone = asyncio.ensure_future(socket.gone())
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
        if take.dropped:  # before its turn came
            return
        try:
            agreement = await self._agree(take.options)
            self.watch.agreed(agreement.options.model, agreement.options.language)
            self._tell(core.begun, number, agreement)
            traced = replace(agreement.options, traceparent=self.watch.start.trace.header())
            events = self._engine.stream(take.pipe, traced)
            try:
                async for event in events:
                    if take.dropped:
                        return
                    self._pass_on(take, event)
            finally:
                await self._close_stream(events.aclose)
        except ASRError as error:
            if take.dropped:
                return
            self._error = error.code.value
            self.watch.happened("error", code=error.code.value)
            where = {"stream_id": self.watch.start.stream_id, "face": self._face, "peer": self._peer}
            log.info("take failed", code=error.code.value, error=error.message, **where)
            self._tell(core.failed, number, error)
            return
        if not take.dropped:
            self._tell(core.finished, number)

    def _pass_on(self, take: _Take, event: Event) -> None:
        """Tell the core what was heard, and the watch what became of it."""
        told = take.watch.heard(event)
        if told is None:
            self._tell(self._core.heard, take.number, event)
            return
        line, watch = self._line, self.watch
        before = line.put_number
        self._tell(self._core.heard, take.number, event)
        if line.put_number == before:
            return
        if line.is_flushed:
            watch.sent(told)
        elif line.socket is not None:
            watch.waits(told, line.put_number)
            line.on_sent = self._on_sent

    def _on_sent(self, number: int) -> None:
        self.watch.flushed(number)
        if not self.watch.is_waiting:
            self._line.on_sent = None

    async def _agree(self, options: Options) -> Agreement:
        return self._house.agree(options, await self._engine.models(), self._engine.features)

    async def _close_stream(self, aclose: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(ENGINE_CLOSE_TIMEOUT_S):
                await aclose()
        except TimeoutError:
            log.error("engine did not let go of a stream", face=self._face, engine=self._engine.name)

    async def _wake(self) -> None:
        idle_s = self._limits.idle_ms / 1000
        warned = False
        while True:
            now = self._clock()
            if self._core.wake_at is not None and self._core.wake_at <= now:
                self._tell(self._core.ticked)
            wake_at = now + LONGEST_SLEEP_S if self._core.wake_at is None else self._core.wake_at
            socket = self._line.socket
            if socket is not None:
                silent_s = now - socket.last_heard
                if silent_s >= idle_s:
                    self._let_go(idle_s)
                elif silent_s < idle_s * 2 / 3:
                    warned = False
                elif not warned:
                    warned = True
                    self._tell(self._core.quiet, int(silent_s * 1000), self._limits.idle_ms)
                wake_at = min(wake_at, socket.last_heard + idle_s * (1 if warned else 2 / 3))
            await self._sleep_until(wake_at)

    def _let_go(self, idle_s: float) -> None:
        """The client is silent: its connection ends, and the conversation too where it cannot wait for another."""
        text = f"Nothing was heard from the client for {idle_s:g} s, not even an answer to a ping."
        if self._line.window_ms > 0:
            self._line.drop(ASRError(Code.IDLE_TIMEOUT, text, action=Action.RESUME))
        else:
            self._tell(self._core.refused, ASRError(Code.IDLE_TIMEOUT, text))

    async def _sleep_until(self, when: float) -> None:
        self._sleeping_until = when
        self._rescheduled.clear()
        try:
            async with asyncio.timeout(max(when - self._clock(), 0.001)):
                await self._rescheduled.wait()
        except TimeoutError:
            pass

    # Commands -------------------------------------------------------------------------------------

    def _tell(self, door: Callable[..., list[Command]], *what: object) -> None:
        self._act(door(*what, self._clock()))

    def _act(self, commands: list[Command]) -> None:
        for command in commands:
            if self._hangup is not None:
                return
            match command:
                case Send():
                    self._line.send(command)
                case Begin(number, options):
                    self._ahead.widen(self._limits.max_ahead_ms * BYTES_PER_MS * options.channels)
                    self._takes[number] = _Take(number, options, self._ahead, self.watch.take(options.channels))
                    self._take_added.set()
                case Seen(seq):
                    self._line.seen(seq)
                case Hangup():
                    self._hangup = command
                    self._end()
                case _:
                    self._act_on_take(command)
        self._reschedule()

    def _act_on_take(self, command: Feed | Cut | Finish | Drop) -> None:
        take = self._takes.get(command.take)
        if take is None:  # its engine has ended before its audio
            return
        match command:
            case Feed(_, pcm):
                take.watch.fed(len(pcm), self._arrived_at)
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

    async def _guard(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part; what it raises becomes the one way out of `run`."""
        try:
            await part()
        except ASRError as error:
            self._give_up(error)
        except Exception:
            log.exception("conversation failed", face=self._face, peer=self._peer)
            self._apologize()

    def _give_up(self, error: ASRError) -> None:
        self._error = error.code.value
        self._hangup = self._hangup or Hangup(refusal(error.code).close_code, error.message)
        self._end()

    def _apologize(self) -> None:
        self._error = Code.INTERNAL.value
        error = ASRError(Code.INTERNAL, "The gateway failed while handling this connection. It has been logged.")
        try:
            self._tell(self._core.refused, error)
        except Exception:
            log.exception("conversation failed while failing", face=self._face)
        self._hangup = self._hangup or Hangup(refusal(Code.INTERNAL).close_code, error.message)
        self._end()

    def _on_line_over(self, _: object) -> None:
        self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
