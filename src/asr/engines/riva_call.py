"""One `StreamingRecognize` call: audio pulled and written by one task, responses read by another.

The call ends by itself, by the caller's closing of `events`, or by one failure, which is kept and raised after
the events that came before it. Nothing is allocated per chunk but its message; one timer per call looks after
every wait (`asr.engines.riva_watch` says what is too long).

Nothing that is written counts as heard: a write succeeds before anybody has read it. What the server has consumed
is told by its results alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable

import grpc.aio

from asr.config import RivaConfig
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance
from asr.engines.riva_watch import Watch
from asr.errors import ASRError, Code
from asr.events import Event, State, Status
from asr.options import Options
from asr.riva_codec import Phase, ResponseReader, error_from_status, streaming_config
from asr.riva_codec.clock import UpstreamClock
from asr.riva_codec.quiet import QuietSpan, quiet_after_ms
from asr.riva_codec.results import parse_response
from asr.riva_proto import Message
from asr.riva_proto import asr as pb

MAX_WRITE_BYTES = 256 * 1024
"""A larger chunk of audio is sent in pieces: every server's message limit is above this."""
MAX_INBOX_EVENTS = 64
"""Events waiting for the caller; with more, the server is not read from."""
CLOSE_TIMEOUT_S = 1.0
"""How long tasks that were cancelled are waited for."""

IDLE_SILENCE_MS = 100
"""How much silence an idle server is sent at a time."""

FORCE_EOU = {"force_eou": "true"}


class RivaCall:
    """The stream behind `RivaEngine.stream`; used once."""

    def __init__(
        self,
        open_call: Callable[[], Message],
        audio: AsyncIterable[AudioInput],
        options: Options,
        config: RivaConfig,
        *,
        force_eou: bool,
    ) -> None:
        """Nothing is sent before `events` is iterated.

        Args:
            open_call: starts the call. Its responses are best left as the bytes they came in: gRPC logs what it
                cannot parse itself.
            audio: as the engine was given it.
            options: agreed ones, as they are to be sent.
            config: the endpoint's timeouts.
            force_eou: whether the server knows `runtime_config.force_eou`.
        """
        self._open_call = open_call
        self._audio = audio
        self._options = options
        self._config = config
        self._force_eou = force_eou
        self._clock = UpstreamClock()
        self._reader = ResponseReader(options, self._clock, config.quiet_final_ms)
        self._quiet = QuietSpan(quiet_after_ms(options, config.quiet_final_ms))
        self._inbox: deque[Event] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._over = False
        self._sent_bytes = 0
        self._flushes_sent = 0
        self._watch = Watch(config)
        self._idle_write: asyncio.Task[None] | None = None
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._timers_set = 0

    async def events(self) -> AsyncGenerator[Event]:
        """The events of the stream.

        Raises:
            ASRError: as the call failed.
            Exception: whatever the audio iterator raised.
        """
        self._loop = asyncio.get_running_loop()
        self._call = self._open_call()
        tasks = {self._loop.create_task(self._write()), self._loop.create_task(self._read())}
        self._look()
        try:
            while True:
                while self._inbox:
                    event = self._inbox.popleft()
                    _resolve(self._room)
                    yield event
                if self._failure is not None:
                    raise self._failure
                if self._over:
                    return
                self._wake = self._loop.create_future()
                await self._wake
        finally:
            self._over = True
            # What refers to itself in a ring keeps gRPC's call, and that its connection, until Python looks for rings.
            self._failure = None
            for timer in self._timers.values():
                timer.cancel()
            self._call.cancel()
            if self._idle_write is not None:
                tasks.add(self._idle_write)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)

    # --- audio to the server

    async def _write(self) -> None:
        try:
            first = pb.StreamingRecognizeRequest(streaming_config=streaming_config(self._options))
            if self._options.request_id:
                first.id.value = self._options.request_id
            self._watch.wrote_at = self._loop.time()
            self._watch.writing = True
            await self._call.wait_for_connection()
            # `write` of grpc.aio puts an INTERNAL of its own in the place of the server's status, and drops results
            # that are still to be read, when the server ends the call during a write. One floor down it does not.
            self._put = self._call._cython_call.send_serialized_message
            await self._send(first)
            await self._write_audio()
            await self._idle_written()
            self._watch.half_closed_at = self._loop.time()
            self._reader.stop(self._sent_ms)
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError):
            # The call is over; the reading side learns its status.
            return
        except asyncio.CancelledError:
            if not self._over and self._failure is None and not _is_cancelled():
                # Either the call was cancelled, which the reading side learns, or the audio iterator.
                if not self._call.done():
                    self._fail(ASRError(Code.INTERNAL, "The audio was cancelled in mid-stream."))
                return
            raise
        except Exception as error:
            self._fail(error)

    async def _write_audio(self) -> None:
        odd = b""
        unheard = self._watch.unheard
        async for item in self._audio:
            if isinstance(item, EndUtterance):
                await self._end_utterance()
                continue
            data = odd + item if odd else item
            if len(data) & 1:
                data, odd = data[:-1], data[-1:]
            else:
                odd = b""
            if not data:
                continue
            if self._watch.first_audio_at is None:
                self._watch.begun(self._loop.time())
            for start in range(0, len(data), MAX_WRITE_BYTES):
                piece = data[start : start + MAX_WRITE_BYTES] if len(data) > MAX_WRITE_BYTES else data
                # Counted before it is on its way: an answer may overtake the end of the write.
                unheard.chunks.append(piece)
                self._sent_bytes += len(piece)
                if self._sent_bytes >= unheard.full_at:
                    unheard.full(self._loop.time(), self._sent_bytes)
                await self._send(pb.StreamingRecognizeRequest(audio_content=piece))

    async def _send(self, request: Message) -> None:
        if self._idle_write is not None:
            await self._idle_written()
        watch = self._watch
        watch.wrote_at = self._loop.time()
        watch.writing = True
        await self._put(request.SerializeToString())
        watch.writing = False

    async def _send_silence(self) -> None:
        silence = pb.StreamingRecognizeRequest(audio_content=bytes(IDLE_SILENCE_MS * BYTES_PER_MS))
        self._clock.inserted(self._sent_bytes, IDLE_SILENCE_MS)
        self._watch.wrote_at = self._loop.time()
        self._watch.writing = True
        await self._put(silence.SerializeToString())
        self._watch.writing = False

    def _silence_sent(self, task: asyncio.Task[None]) -> None:
        self._idle_write = None
        # Counted from its end: the caller's audio, which may have waited for it, goes before the next.
        self._watch.wrote_at = self._loop.time()
        error = None if task.cancelled() else task.exception()
        # Where gRPC fails the call is over; the reading side learns its status.
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AioRpcError | grpc.aio.InternalError):
            self._fail(error)

    async def _idle_written(self) -> None:
        # One write at a time; it ends with the call at the latest.
        while self._idle_write is not None:
            await asyncio.wait({self._idle_write})

    async def _end_utterance(self) -> None:
        number = self._flushes_sent
        self._flushes_sent += 1
        self._reader.finalize(self._sent_ms)
        if not self._sent_bytes:
            self._deliver(self._reader.expire())
            return
        self._deliver(self._reader.settled())
        if self._force_eou:
            await self._send(pb.StreamingRecognizeRequest(audio_content=b"", runtime_config=FORCE_EOU))
        self._later(self._config.finalize_timeout_ms / 1000, lambda: self._expire_flush(number))

    def _expire_flush(self, number: int) -> None:
        while self._flushes_sent - self._reader.flushes <= number:
            self._deliver(self._reader.expire())

    @property
    def _sent_ms(self) -> int:
        return self._sent_bytes // BYTES_PER_MS

    # --- results from the server

    async def _read(self) -> None:
        call, watch = self._call, self._watch
        try:
            await call.initial_metadata()
            if not call.done():
                watch.answered(self._loop.time())
            while (received := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs forgot it
                response = parse_response(received)
                events = self._reader.read(response, self._sent_ms) if response.results else []
                # A server that tells how far it is, and says the same again and again, stands still.
                if events or not any(result.audio_processed for result in response.results):
                    watch.answered(self._loop.time())
                self._deliver(events)
                while len(self._inbox) > MAX_INBOX_EVENTS:
                    self._room = self._loop.create_future()
                    await self._room
                    self._room = None
                    watch.answered(self._loop.time())
            self._ended()
        except grpc.aio.AioRpcError as error:
            self._fail(self._error(error.code().name, error.details() or "", error.trailing_metadata()))
        except asyncio.CancelledError:
            if self._over or self._failure is not None or _is_cancelled():
                raise
            # Not us: the server ended it with CANCELLED, or the channel was closed.
            self._fail(self._error("CANCELLED", ""))
        except Exception as error:
            self._fail(error)

    def _ended(self) -> None:
        if self._watch.half_closed_at is None:
            self._fail(
                ASRError(
                    Code.UNAVAILABLE, "The recognizer ended the stream before the audio was over. Open a new stream."
                )
            )
            return
        self._deliver(self._reader.end())
        self._over = True
        _resolve(self._wake)

    def _error(self, status: str, details: str, trailers: Message = None) -> ASRError:
        phase: Phase = "open" if self._watch.answered_at is None else "stream"
        return error_from_status(status, details, phase, trailers or ())

    # --- between the two

    def _deliver(self, events: list[Event]) -> None:
        if events:
            self._inbox.extend(events)
            _resolve(self._wake)

    def _fail(self, error: Exception) -> None:
        if self._failure is None and not self._over:
            self._failure = error
            self._call.cancel()
            _resolve(self._wake)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._timers_set += 1
        self._timers[self._timers_set] = self._loop.call_later(delay_s, self._act, self._timers_set, action)

    def _act(self, number: int, action: Callable[[], None]) -> None:
        del self._timers[number]
        if not self._over and self._failure is None:
            action()

    def _look(self) -> None:
        now, watch = self._loop.time(), self._watch
        # A caller that does not take its events is slow, not the server.
        if self._room is None:
            failure = watch.look(now, self._sent_bytes)
            if failure is not None:
                self._fail(ASRError(Code.TIMEOUT, failure))
                return
            detail = watch.degraded(now, self._sent_bytes)
            if detail:
                self._deliver([Status(State.DEGRADED, self._sent_ms, detail=detail)])
            if self._quiet.passed(self._reader.changes, int(now * 1000), self._sent_ms):
                self._finish_quiet(now)
        if self._idle_write is None and watch.idle(now):
            self._idle_write = self._loop.create_task(self._send_silence())
            self._idle_write.add_done_callback(self._silence_sent)
        self._later(watch.next_look_s(now), self._look)

    def _finish_quiet(self, now: float) -> None:
        # Speech without an answer is not quiet, but a server that is stuck.
        unheard = self._watch.unheard
        unheard.judge(now, self._sent_bytes)
        if not unheard.is_loud(self._config.quiet_final_ms):
            self._deliver(self._reader.quiet())


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
