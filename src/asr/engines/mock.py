"""The `mock` engine: a scripted recognizer in process, for tests, demos and load runs.

What the script says goes through Riva's messages and the reader that the `riva` engine uses, so that the mock
exercises the real mapping. The same audio gives the same events, however it is cut up and at whatever pace;
real time passes only where the plan says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from asr.engine import BYTES_PER_MS, SAMPLE_RATE_HZ, AudioInput, EndUtterance, Features, Model, Readiness
from asr.errors import ASRError, Code
from asr.events import Event
from asr.mock.messages import config_response, request_of, streaming_response
from asr.mock.plan import DEFAULT_PLAN, MockPlan
from asr.mock.recognition import HANGS, fault_status
from asr.mock.responses import RawResponse
from asr.mock.script import ScriptedRecognizer
from asr.mock.sections import Fault
from asr.options import Options
from asr.riva_codec import ResponseReader, error_from_status, read_models, streaming_config

T = TypeVar("T")

_SLICE_BYTES = 1_000 * BYTES_PER_MS
"""More audio than this at once is heard piece by piece, its events handed out in between."""


class MockEngine:
    """A recognizer that says what its plan says. Many streams at a time; nothing to open or close."""

    name = "mock"

    def __init__(
        self, plan: MockPlan = DEFAULT_PLAN, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Play `plan`; `sleep` is how its delays pass, in seconds."""
        self._plan = plan
        self._sleep = sleep
        self._streams = 0
        self._waits: set[asyncio.Timeout] = set()
        self._closed = False

    @property
    def features(self) -> Features:
        """What the script can act out; boosts, masks, written forms and options of Riva's own it cannot."""
        return Features(
            partials=self._plan.shape.partials != "none",
            punctuation=True,
            diarization=True,
            alternatives=True,
            endpointing=True,
            eager_end=True,
        )

    def refusal(self) -> ASRError | None:
        """See `Engine`: it is never full."""
        return None

    async def models(self) -> Sequence[Model]:
        """The plan's models."""
        return read_models(config_response(self._plan.server.models))

    async def ready(self) -> Readiness:
        """Ready, unless the plan says otherwise."""
        if self._closed:
            return Readiness(False, "The engine is closed.")
        if not self._plan.server.serving:
            return Readiness(False, "The mock plan says that the server is not serving.")
        if not self._plan.server.models:
            return Readiness(False, "The mock plan lists no model.")
        return Readiness(True)

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """The plan's next stream: its words, in the plan's shapes, until the audio ends or the plan breaks it."""
        return self._stream(audio, options)

    async def aclose(self) -> None:
        """Streams still open fail at once, also those that wait for audio."""
        self._closed = True
        waits, self._waits = self._waits, set()
        now = asyncio.get_running_loop().time()
        for wait in waits:
            wait.reschedule(now)

    async def _stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self._streams += 1
        stream = _Stream(self._plan, options, self._streams)
        items = aiter(audio)
        item: AudioInput | None = b""
        while item is not None and stream.fault is None:
            self._check_open()
            item = await self._wait(anext(items, None))
            for events in stream.take(item):
                wait_ms = stream.wait_ms()
                if wait_ms:
                    await self._wait(self._sleep(wait_ms / 1000))
                for event in events:
                    yield event
        if stream.fault is not None:
            self._check_open()
            await self._wait(self._act_out(stream.fault, items, stream.begun))
        for event in stream.end():
            yield event

    async def _wait(self, step: Awaitable[T]) -> T:
        """What `step` gives, unless the engine is closed meanwhile. No task of its own: there is a step per chunk."""
        wait = asyncio.timeout(None)
        self._waits.add(wait)
        try:
            async with wait:
                result = await step
        except TimeoutError:
            if not wait.expired():
                raise
            raise _closing() from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled, but something that the caller's audio waited for.
            raise ASRError(Code.INTERNAL, "The audio was cancelled in mid-stream.") from None
        finally:
            self._waits.discard(wait)
        self._check_open()
        return result

    def _check_open(self) -> None:
        if self._closed:
            raise _closing()

    async def _act_out(self, fault: Fault, items: AsyncIterator[AudioInput], begun: bool) -> None:
        if fault.kind in HANGS:
            try:
                async with asyncio.timeout(self._plan.delay.hang_ms / 1000):
                    if fault.kind != "stop_reading":
                        async for _ in items:
                            pass
                    await asyncio.Event().wait()
            except TimeoutError:
                pass
        refusal = fault_status(fault)
        if refusal is None:
            raise ASRError(Code.UNAVAILABLE, "The recognizer ended the stream before its audio was over.")
        raise error_from_status(refusal.status, refusal.message, "stream" if begun else "open")


def _closing() -> ASRError:
    return ASRError(Code.UNAVAILABLE, "The recognizer is shutting down. Open a new stream.")


class _Stream:
    """One stream without its waiting: audio in, events out."""

    def __init__(self, plan: MockPlan, options: Options, number: int) -> None:
        config = streaming_config(options)
        request = request_of(config.config, rate_hz=SAMPLE_RATE_HZ, interim_results=config.interim_results)
        self._answered = False
        self._delay = plan.delay
        self._script = ScriptedRecognizer(plan, request, stream=number)
        self._reader = ResponseReader(options)
        self._bytes = 0

    @property
    def fault(self) -> Fault | None:
        """What the plan broke, or None."""
        return self._script.fault

    @property
    def begun(self) -> bool:
        """Whether a server would have answered by now."""
        return self._script.processed_ms > 0

    def take(self, item: AudioInput | None) -> Iterator[list[Event]]:
        """Hear an item of the audio, None for its end: the events of each step, where there are any."""
        if item is None:
            self._reader.stop(self._audio_ms)
            yield from self._read(self._script.finish())
        elif isinstance(item, EndUtterance):
            self._reader.finalize(self._audio_ms)
            yield from self._read(self._script.force_eou())
            if self._reader.flushes:
                yield self._reader.expire()
        else:
            self._bytes += len(item)
            for at in range(0, len(item), _SLICE_BYTES):
                responses = self._script.feed(item[at : at + _SLICE_BYTES])
                if responses:
                    yield from self._read(responses)

    def wait_ms(self) -> int:
        """How long the plan holds the next events back, in real time."""
        wait_ms = self._delay.response_ms + (0 if self._answered else self._delay.first_response_ms)
        self._answered = True
        return wait_ms

    def end(self) -> list[Event]:
        """The audio is over and everything has been read."""
        return self._reader.end()

    @property
    def _audio_ms(self) -> int:
        return self._bytes // BYTES_PER_MS

    def _read(self, responses: list[RawResponse]) -> Iterator[list[Event]]:
        for response in responses:
            if response.results:
                events = self._reader.read(streaming_response(response))
                if events:
                    yield events
