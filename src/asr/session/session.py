"""The session that a caller holds: one task that keeps a connection, and the caller's own calls.

Every wait has a bound: connecting and its answer, the silence of the gateway, the time without progress, and how
long a lost connection is tried for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from random import random
from typing import Any, Literal

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from asr.errors import ASRError, Code
from asr.events import Event, Flushed, Partial, Progress
from asr.session.core import LinkError, SessionCore, encode
from asr.session.dial import Dialer, closed_early, hang_up

log = logging.getLogger("asr.session")

SILENCE_TIMEOUT_MS = 10_000
"""A gateway says something every five seconds: with none for so long a connection that can be resumed is given up."""

MAX_WAITING = 1000
"""Events that the caller has not taken; with more the gateway is not read on."""

COALESCED_FROM = 100
"""Events that wait; with more a partial takes the place of the one before it."""


class Session:
    """A stream to a riva-gateway that survives the loss of its connection. `asr.connect` makes it.

    Iterate it for `Partial`, `Final`, `SpeechStarted`, `SpeechEnded`, `Gap` and `Status`, in order; it ends after
    `stop`, when the last final is out, and raises `ASRError` when the session has failed. One iterator at a time.
    Sending and iterating belong into two tasks, unless all audio is there before the first event is wanted.

    When the connection breaks, `Status(State.FAILING_OVER)` comes; when it is back, `Status(State.RECOVERED)`.
    Audio is taken on meanwhile, until the ring is full.
    """

    def __init__(
        self,
        dialer: Dialer,
        core: SessionCore,
        *,
        all_events: bool = False,
        patient: bool = False,
        traceparent: str = "",
        random: Callable[[], float] = random,
    ) -> None:
        """For `asr.connect`. `all_events`: also `Progress` and `Flushed`.

        `patient`: audio waits for as long as nobody takes events, for a holder that sends and iterates apart.
        `traceparent`: the W3C trace context that the gateway is told with each connection, or "".
        """
        self._dialer = dialer
        self._core = core
        self._all_events = all_events
        self._patient = patient
        self._traceparent = traceparent
        self._random = random
        self._stopped = False
        self._events: deque[Event] = deque()
        self._answers: deque[asyncio.Future[int] | None] = deque()
        self._outgoing = asyncio.Event()
        self._room = asyncio.Event()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._over = False
        self._failure: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    # What a caller does -------------------------------------------------------------------------------

    async def send(self, pcm: bytes | bytearray | memoryview) -> None:
        """Send audio: 16 kHz mono PCM16, any number of bytes. Waits while the ring is full.

        Raises:
            ASRError: the session has failed, or was stopped or closed; `slow_reader` when nobody takes the events
                (a part of `pcm` may have been taken then).
        """
        self._check_open()
        rest = memoryview(pcm).cast("B")
        while rest:
            room = self._core.room_bytes
            if not room:
                self._room.clear()
                await self._wait_for_room()
                self._check_open()
                continue
            self._core.feed(rest[:room])
            self._outgoing.set()
            rest = rest[room:]

    async def finalize(self) -> int:
        """End the utterance here, and wait until every result of the audio before is out.

        Returns:
            `audio_ms`: how much audio that is.

        Raises:
            ASRError: the session has failed, or was stopped or closed; `slow_reader` when nobody takes the events.
        """
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.end_utterance(answer)
        while not answer.done():
            await asyncio.wait([answer], timeout=self._silence_timeout_ms / 1000)
            if not answer.done() and len(self._events) >= MAX_WAITING:
                answer.cancel()
                raise _slow_reader()
        return answer.result()

    async def _wait_for_room(self) -> None:
        while not self._room.is_set():
            try:
                async with asyncio.timeout(None if self._patient else self._silence_timeout_ms / 1000):
                    await self._room.wait()
            except TimeoutError:
                if len(self._events) >= MAX_WAITING:
                    raise _slow_reader() from None

    def end_utterance(self, answer: asyncio.Future[int] | None = None) -> None:
        """The same without waiting: `answer` gets the result; among all events there is a `Flushed`."""
        self._check_open()
        self._answers.append(answer)
        self._core.finalize()
        self._outgoing.set()

    async def stop(self) -> None:
        """No more audio follows: the remaining finals come, then the iteration ends. A second call does nothing."""
        if self._stopped:
            return
        self._check_open()
        self._stopped = True
        self._core.stop()
        self._outgoing.set()

    def __aiter__(self) -> Session:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._failure is not None:
                raise self._failure
            if self._over:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        self._taken.set()
        return self._events.popleft()

    @property
    def state(self) -> Literal["connected", "reconnecting", "closed"]:
        """How the session is doing."""
        if self._over:
            return "closed"
        return "connected" if self._core.connected else "reconnecting"

    @property
    def resumes(self) -> int:
        """How many times a lost connection was restored, be it with another session of the gateway."""
        return self._core.resumes

    @property
    def summary(self) -> dict[str, Any] | None:
        """The gateway's `summary` message, once a session that was stopped is over."""
        return self._core.summary

    @property
    def ready(self) -> dict[str, Any]:
        """The gateway's last `ready` message: model, language, features, limits."""
        return self._core.ready

    @property
    def _silence_timeout_ms(self) -> int:
        longest_ms = self._dialer.config.answer_timeout_ms
        return min(longest_ms, SILENCE_TIMEOUT_MS) if self._core.resumable else longest_ms

    # Its life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, once.

        Raises:
            ASRError: the gateway cannot be reached, or refuses.
        """
        timeout_s = self._dialer.config.connect_timeout_ms / 1000
        try:
            socket = await self._establish(timeout_s)
        except LinkError as failed:
            raise failed.error from None
        self._task = asyncio.create_task(self._keep(socket))

    async def aclose(self, failure: BaseException | None = None) -> None:
        """Hang up. Whoever still waits gets `failure` (default: the session is closed)."""
        self._end(failure or (None if self._over else ASRError(Code.BAD_REQUEST, "The session is closed.")))
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self, socket: ClientConnection) -> None:
        try:
            while (error := await self._serve(socket)) is not None and not self._over:
                socket = await self._restore(error)
        except ASRError as error:
            self._end(error)
        except Exception as error:
            log.exception("a session failed")
            self._end(ASRError(Code.INTERNAL, f"The session failed: {type(error).__name__}."))
        else:
            self._end(None)

    async def _restore(self, error: ASRError) -> ClientConnection:
        while True:
            pause_s, events = self._core.lost(error, time.monotonic(), self._random)
            self._publish(events)
            await asyncio.sleep(pause_s)
            patience_s = self._core.attempts.patience_s(time.monotonic())
            try:
                return await self._establish(min(self._dialer.config.connect_timeout_ms / 1000, patience_s))
            except LinkError as failed:
                error = failed.error

    async def _establish(self, timeout_s: float) -> ClientConnection:
        """A connection on which audio may flow.

        Raises:
            LinkError: not this time.
            ASRError: never.
        """
        until = time.monotonic() + timeout_s
        try:
            socket = await self._dialer.connect(self._core.session_hint, timeout_s, self._traceparent)
        except ASRError as error:
            raise LinkError(error) from error
        try:
            hello = self._core.hello()
            try:
                async with asyncio.timeout(max(until - time.monotonic(), 0.0)):
                    with contextlib.suppress(ConnectionClosed):  # the next line tells why
                        await socket.send(encode(hello))
                    while not self._core.connected:
                        await self._take_in(socket)
            except TimeoutError:
                text = f"The gateway did not answer `{hello['type']}` within {timeout_s * 1000:.0f} ms."
                raise LinkError(ASRError(Code.TIMEOUT, text)) from None
        except BaseException:
            await hang_up(socket)
            raise
        return socket

    async def _serve(self, socket: ClientConnection) -> ASRError | None:
        """Let audio and events flow until the connection is of no use (why), or the session is done (None)."""
        sender = asyncio.create_task(self._send_on(socket))
        try:
            while not self._core.done:
                while len(self._events) >= MAX_WAITING:
                    self._taken.clear()
                    await self._taken.wait()
                try:
                    async with asyncio.timeout(self._silence_timeout_ms / 1000):
                        await self._take_in(socket)
                except TimeoutError:
                    socket.transport.abort()  # nobody would answer a close either
                    text = f"The gateway said nothing for {self._silence_timeout_ms} ms."
                    return ASRError(Code.TIMEOUT, text)
                self._core.check(time.monotonic())
        except LinkError as failed:
            return failed.error
        finally:
            sender.cancel()
            await asyncio.wait([sender])
            await hang_up(socket)
        return None

    async def _send_on(self, socket: ClientConnection) -> None:
        try:
            while True:
                item = self._core.next_out()
                if item is None:
                    self._outgoing.clear()
                    await self._outgoing.wait()
                    continue
                await socket.send(item if isinstance(item, bytes) else encode(item))
                self._look_for_room()
        except ConnectionClosed:
            return  # whoever receives knows why
        except Exception as error:
            log.exception("a session's audio could not be sent")
            self._end(ASRError(Code.INTERNAL, f"The session failed: {type(error).__name__}."))
            socket.transport.abort()

    async def _take_in(self, socket: ClientConnection) -> None:
        try:
            text = await socket.recv()
        except ConnectionClosed as closed:
            raise LinkError(closed_early(closed)) from closed
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ASRError(Code.INTERNAL, "The gateway sent a message that is not JSON.") from error
        if not isinstance(message, dict):
            raise ASRError(Code.INTERNAL, "The gateway sent a message that is not an object.")
        self._publish(self._core.received(message, time.monotonic()))
        for warning in self._core.warnings:
            log.warning("%s", warning)
        self._core.warnings.clear()
        self._outgoing.set()
        self._look_for_room()

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Flushed) and self._answers:
                answer = self._answers.popleft()
                if answer is not None and not answer.done():
                    answer.set_result(event.audio_ms)
            if isinstance(event, Progress | Flushed) and not self._all_events:
                continue
            if len(self._events) >= COALESCED_FROM and _replaces(event, self._events[-1]):
                self._events.pop()
            self._events.append(event)
            self._arrived.set()

    def _look_for_room(self) -> None:
        if self._core.room_bytes:
            self._room.set()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._stopped or self._over:
            raise ASRError(Code.BAD_REQUEST, "The session was stopped: it takes no more audio.")

    def _end(self, failure: BaseException | None) -> None:
        if self._over:
            return
        self._over = True
        self._failure = failure
        for answer in self._answers:
            if answer is not None and not answer.done():
                answer.set_exception(failure or ASRError(Code.UNAVAILABLE, "The session is over."))
        self._answers.clear()
        for event in (self._room, self._arrived):
            event.set()


def _slow_reader() -> ASRError:
    return ASRError(Code.SLOW_READER, f"{MAX_WAITING} events wait: iterate the session while you send and wait.")


def _replaces(event: Event, last: Event) -> bool:
    return isinstance(event, Partial) and isinstance(last, Partial) and last.utterance == event.utterance
