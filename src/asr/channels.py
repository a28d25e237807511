"""An engine around an engine: several channels, each recognized on its own, told as one stream.

Engines hear one channel. Audio of N channels is taken apart here and given to N streams of the inner engine, whose
events come back as one timeline (`asr.timeline` has its rules). Audio of one channel goes by without a further step.

The channels keep in step: one that takes its audio slowly stops the others when it is `MAX_LAG_MS` behind, so that
memory stays bounded. The failure of one fails all.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from asr.engine import (
    BYTES_PER_MS,
    AudioInput,
    EndUtterance,
    Engine,
    Features,
    Model,
    Readiness,
    counts_of,
    endpoints_of,
)
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from asr.pipe import Ahead, AudioPipe
from asr.timeline import Timeline

MAX_LAG_MS = 2_000
"""So much audio of each channel waits for its recognizer, at the most (and one chunk more)."""
MAX_UNREAD = 64
"""So many events of all channels wait for the caller before the recognizers do."""
LET_GO_S = 5.0
"""How long the inner streams may take to end."""

_SAMPLE_BYTES = 2
_CUT_BYTES = 64
"""What a waiting `EndUtterance` counts."""
_SLICE_BYTES = 200 * BYTES_PER_MS
"""A longer chunk is handed on piece by piece, so that the bound on what waits holds whatever the caller gives."""


class ChannelsEngine:
    """The engine `inner`, also for `Options.channels` over 1."""

    def __init__(self, inner: Engine) -> None:
        """`inner` is closed with this one."""
        self.inner = inner

    @property
    def name(self) -> str:
        """That of the inner engine."""
        return self.inner.name

    @property
    def features(self) -> Features:
        """See `Engine`."""
        return self.inner.features

    async def models(self) -> Sequence[Model]:
        """See `Engine`."""
        return await self.inner.models()

    async def ready(self) -> Readiness:
        """See `Engine`."""
        return await self.inner.ready()

    def refusal(self) -> ASRError | None:
        """See `Engine`."""
        return self.inner.refusal()

    def endpoints(self) -> list[dict[str, Any]]:
        """See `endpoints_of`."""
        return endpoints_of(self.inner)

    def counts(self) -> dict[str, int]:
        """See `counts_of`."""
        return counts_of(self.inner)

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """Recognize `audio`, interleaved PCM16 of `options.channels` channels."""
        if options.channels == 1:
            return self.inner.stream(audio, options)
        return _Run(self.inner, audio, options).events()

    async def aclose(self) -> None:
        """Close the inner engine."""
        await self.inner.aclose()


def split(pcm: bytes, channels: int) -> list[bytes]:
    """Interleaved PCM16 as the PCM16 of each channel. `pcm` holds whole samples of all of them."""
    samples = array("h", pcm)
    return [samples[channel::channels].tobytes() for channel in range(channels)]


class _Ear(AudioPipe):
    """The audio of one channel, on its way to the stream that recognizes it."""

    def __init__(self, on_taken: Callable[[int], None]) -> None:
        """`on_taken` is told how many bytes the recognizer has taken in all."""
        self.ahead = Ahead(MAX_LAG_MS * BYTES_PER_MS)
        super().__init__(self.ahead)
        self._on_taken = on_taken
        self._taken_bytes = 0
        self._cuts = 0
        self.closed = False

    def put(self, item: AudioInput) -> None:
        """Add audio, or an end of utterance, which counts as some."""
        if isinstance(item, EndUtterance):
            self._cuts += 1
            self.ahead.add(_CUT_BYTES)
        super().put(item)

    async def __anext__(self) -> AudioInput:
        # Whoever asks for more has dealt with what it took before.
        self._on_taken(self._taken_bytes)
        item = await super().__anext__()
        if isinstance(item, EndUtterance):
            self._cuts -= 1
            self.ahead.add(-_CUT_BYTES)
        else:
            self._taken_bytes += len(item)
        return item

    def close(self) -> None:
        """Nobody reads any more, and nobody waits for that."""
        self.abandon()
        self.ahead.add(-_CUT_BYTES * self._cuts)
        self._cuts = 0
        self.closed = True


class _Run:
    def __init__(self, inner: Engine, audio: AsyncIterable[AudioInput], options: Options) -> None:
        self._inner = inner
        self._audio = audio
        self._options = replace(options, channels=1)
        self._timeline = Timeline(options.channels)
        self._ears = [_Ear(partial(self._taken, number)) for number in range(options.channels)]
        self._told: asyncio.Queue[tuple[int, Event | None]] = asyncio.Queue(MAX_UNREAD)
        self._changed = asyncio.Event()
        """There is something to look at: news, or a final that need not wait any more."""
        self._failure: Exception | None = None

    async def events(self) -> AsyncGenerator[Event]:
        """The merged events, until every channel has ended or one has failed."""
        clock = asyncio.get_running_loop().time
        timeline = self._timeline
        listening = len(self._ears)
        tasks = [asyncio.create_task(self._pour(), name="channels: audio")]
        tasks += [asyncio.create_task(self._listen(n), name=f"channels: {n}") for n in range(len(self._ears))]
        try:
            while listening or timeline.wake_at is not None:
                await self._wait(clock)
                while not self._told.empty():
                    number, event = self._told.get_nowait()
                    if event is None:
                        listening -= 1
                        timeline.ended(number)
                    else:
                        timeline.add(number, event, clock())
                if self._failure is not None:
                    for ready in timeline.due(math.inf):
                        yield ready
                    raise self._failure
                for ready in timeline.due(clock()):
                    yield ready
        finally:
            for ear in self._ears:
                ear.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=LET_GO_S)

    async def _wait(self, clock: Callable[[], float]) -> None:
        wake_at = self._timeline.wake_at
        with suppress(TimeoutError):
            async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - clock())):
                await self._changed.wait()
        self._changed.clear()

    def _taken(self, number: int, n_bytes: int) -> None:
        self._timeline.took(number, n_bytes // BYTES_PER_MS)
        if self._timeline.wake_at is not None:
            self._changed.set()

    async def _pour(self) -> None:
        """Read the caller's audio, take it apart and give each channel its own."""
        try:
            rest = b""
            async for item in self._audio:
                if isinstance(item, EndUtterance):
                    await self._give([item] * len(self._ears))
                    continue
                frame_bytes = _SAMPLE_BYTES * len(self._ears)
                for at in range(0, len(item), _SLICE_BYTES):
                    pcm = rest + item[at : at + _SLICE_BYTES]
                    whole = len(pcm) - len(pcm) % frame_bytes
                    rest = pcm[whole:]
                    if whole:
                        await self._give(split(pcm[:whole], len(self._ears)))
            for ear in self._ears:
                ear.end()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled, but something that the caller's audio waited for.
            self._fail(ASRError(Code.INTERNAL, "The audio was cancelled in mid-stream."))
        except Exception as error:
            self._fail(error)

    async def _give(self, items: Sequence[AudioInput]) -> None:
        for ear, item in zip(self._ears, items, strict=True):
            if not ear.closed:
                ear.put(item)
        for ear in self._ears:
            if ear.ahead.full:
                await ear.ahead.room()

    def _fail(self, error: Exception) -> None:
        for ear in self._ears:
            ear.fail(error)

    async def _listen(self, number: int) -> None:
        """Hand on what one channel's stream says."""
        try:
            async with aclosing(self._inner.stream(self._ears[number], self._options)) as events:
                async for event in events:
                    await self._told.put((number, event))
                    self._changed.set()
            self._ears[number].close()
            await self._told.put((number, None))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._failure = self._failure or ASRError(Code.INTERNAL, "A channel's recognizer was cancelled.")
        except Exception as error:
            self._failure = self._failure or error
        self._changed.set()
