"""One `StreamingRecognize` call: audio pulled and written by one task, responses read by another.

The call ends by itself, by the caller's closing of `events`, or by one failure, which is kept and raised after
the events that came before it. Nothing is allocated per chunk but its message; one timer per call looks after
every wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable

import grpc.aio

from asr.config import RivaConfig
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from asr.riva_codec import Phase, ResponseReader, error_from_status, streaming_config
from asr.riva_proto import Message
from asr.riva_proto import asr as pb

MAX_WRITE_BYTES = 256 * 1024
"""A larger chunk of audio is sent in pieces: every server's message limit is above this."""
MAX_INBOX_EVENTS = 64
"""Events waiting for the caller; with more, the server is not read from."""
CLOSE_TIMEOUT_S = 1.0
"""How long tasks that were cancelled are waited for."""

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
            open_call: starts the call.
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
        self._reader = ResponseReader(options)
        self._inbox: deque[Event] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._over = False
        self._sent_bytes = 0
        self._flushes_sent = 0
        # Moments on the loop's clock, for the watch; None where nothing is awaited.
        self._first_write_at: float | None = None
        self._writing_since: float | None = None
        self._half_closed_at: float | None = None
        self._answered_at: float | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    async def events(self) -> AsyncGenerator[Event]:
        """The events of the stream.

        Raises:
            ASRError: as the call failed.
            Exception: whatever the audio iterator raised.
        """
        self._loop = asyncio.get_running_loop()
        self._call = self._open_call()
        tasks = {self._loop.create_task(self._write()), self._loop.create_task(self._read())}
        self._watch()
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
            for timer in self._timers:
                timer.cancel()
            self._call.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)

    # --- audio to the server

    async def _write(self) -> None:
        try:
            first = pb.StreamingRecognizeRequest(streaming_config=streaming_config(self._options))
            if self._options.request_id:
                first.id.value = self._options.request_id
            self._writing_since = self._loop.time()
            await self._call.wait_for_connection()
            # `write` of grpc.aio puts an INTERNAL of its own in the place of the server's status, and drops results
            # that are still to be read, when the server ends the call during a write. One floor down it does not.
            self._put = self._call._cython_call.send_serialized_message
            await self._send(first)
            await self._write_audio()
            self._half_closed_at = self._loop.time()
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
            if self._first_write_at is None:
                self._first_write_at = self._loop.time()
            for start in range(0, len(data), MAX_WRITE_BYTES):
                piece = data[start : start + MAX_WRITE_BYTES] if len(data) > MAX_WRITE_BYTES else data
                await self._send(pb.StreamingRecognizeRequest(audio_content=piece))
                self._sent_bytes += len(piece)

    async def _send(self, request: Message) -> None:
        self._writing_since = self._loop.time()
        await self._put(request.SerializeToString())
        self._writing_since = None

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
        call = self._call
        try:
            await call.initial_metadata()
            if not call.done():
                self._answered_at = self._loop.time()
            while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs forgot it
                self._answered_at = self._loop.time()
                if response.results:
                    self._deliver(self._reader.read(response, self._sent_ms))
                while len(self._inbox) > MAX_INBOX_EVENTS:
                    self._room = self._loop.create_future()
                    await self._room
                    self._room = None
                    self._answered_at = self._loop.time()
            self._ended()
        except grpc.aio.AioRpcError as error:
            self._fail(self._error(error.code().name, error.details() or ""))
        except asyncio.CancelledError:
            if self._over or self._failure is not None or _is_cancelled():
                raise
            # Not us: the server ended it with CANCELLED, or the channel was closed.
            self._fail(self._error("CANCELLED", ""))
        except Exception as error:
            self._fail(error)

    def _ended(self) -> None:
        if self._half_closed_at is None:
            self._fail(
                ASRError(
                    Code.UNAVAILABLE, "The recognizer ended the stream before the audio was over. Open a new stream."
                )
            )
            return
        self._deliver(self._reader.end())
        self._over = True
        _resolve(self._wake)

    def _error(self, status: str, details: str) -> ASRError:
        phase: Phase = "open" if self._answered_at is None else "stream"
        return error_from_status(status, details, phase)

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
        def act() -> None:
            self._timers.discard(timer)
            if not self._over and self._failure is None:
                action()

        timer = self._loop.call_later(delay_s, act)
        self._timers.add(timer)

    def _watch(self) -> None:
        late = self._late(self._loop.time())
        if late is not None:
            self._fail(ASRError(Code.TIMEOUT, late))
            return
        config = self._config
        shortest_ms = min(config.first_response_timeout_ms, config.drain_timeout_ms)
        self._later(min(shortest_ms / 4000, 1.0), self._watch)

    def _late(self, now: float) -> str | None:
        if self._room is not None:
            # The caller is slow, not the server.
            return None
        answered_at = self._answered_at
        first_s = self._config.first_response_timeout_ms / 1000
        if answered_at is None:
            begun_at = self._first_write_at or self._writing_since
            if begun_at is not None and now - begun_at > first_s:
                return f"The recognizer accepted the stream and did not answer within {first_s:g} s. Try again."
        elif self._writing_since is not None and now - max(self._writing_since, answered_at) > first_s:
            return f"The recognizer has taken no audio for {first_s:g} s. Try again."
        drain_s = self._config.drain_timeout_ms / 1000
        if self._half_closed_at is not None and now - max(self._half_closed_at, answered_at or 0.0) > drain_s:
            return f"The recognizer has been silent for {drain_s:g} s after the end of the audio. Try again."
        return None


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
