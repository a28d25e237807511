"""What a silence gate lets through, and where its events lie on the caller's clock. Pure.

Speech and whatever follows it soon goes through untouched. After a while without speech sound is held back: the last
of it waits, to go first when somebody speaks again, and what is older is dropped. The recognizer then hears less than
the caller said; `CutClock` puts its times back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from asr.engine import BYTES_PER_MS
from asr.events import (
    Alternative,
    Event,
    Final,
    Flushed,
    Gap,
    Partial,
    Progress,
    SpeechEnded,
    SpeechStarted,
    Status,
    Word,
)

FRAME_BYTES = 1024
"""What the voice detector judges at a time: 512 samples, 32 ms."""
FRAME_MS = FRAME_BYTES // BYTES_PER_MS
BLOCK_FRAMES = 15
"""Sound is dropped 480 ms at a time, a whole number of any recognizer's frames and chunks (10, 30, 80, 160 ms): they
fall on speech as they would have without the gate."""
MAX_CUTS = 1024
"""Places that are remembered. Of more, the oldest is forgotten: a recognizer does not go back that far."""
ONSET = 0.3
"""The probability of speech that opens the gate. Low: a false alarm costs a little work, a missed word is lost."""
STILL_SPEECH = 0.15
"""The probability that counts as speech while it is open."""
_LOUD = 16
"""A frame without a louder sample (-66 dB of full scale) is silence without being looked at."""
_AIM = 3_000.0
_SOFTEST = 100.0
_FADE = 0.98
"""Sound whose peaks are below `_AIM` is made that loud (30 times at the most) for the detector, which does not hear
soft voices. The peak that was heard fades by this in each frame, to a half in a second."""


class CutClock:
    """The recognizer's times → the caller's, where sound was left out in between.

    At a cut one time of the recognizer is two of the caller's: what ends there ended before it, what begins there
    begins behind it.
    """

    def __init__(self) -> None:
        self._places_ms: list[int] = []
        self._totals: list[int] = []
        self._forgotten = 0

    def cut(self, place_bytes: int, size_bytes: int) -> None:
        """`size_bytes` are left out after `place_bytes` of what the recognizer has heard; places never go back."""
        place_ms = place_bytes // BYTES_PER_MS
        if self._places_ms and self._places_ms[-1] == place_ms:
            self._totals[-1] += size_bytes
            return
        self._totals.append(self.dropped_bytes + size_bytes)
        self._places_ms.append(place_ms)
        if len(self._places_ms) > MAX_CUTS:
            self._forgotten = self._totals.pop(0)
            del self._places_ms[0]

    @property
    def dropped_bytes(self) -> int:
        """How much was left out in all."""
        return self._totals[-1] if self._totals else self._forgotten

    def start_ms(self, ms: int) -> int:
        """Where something that begins at the recognizer's `ms` begins for the caller."""
        return self._moved(ms, bisect_right(self._places_ms, ms))

    def end_ms(self, ms: int) -> int:
        """The same for something that ends there."""
        return self._moved(ms, bisect_left(self._places_ms, ms))

    def _moved(self, ms: int, cuts: int) -> int:
        return ms + (self._totals[cuts - 1] if cuts else self._forgotten) // BYTES_PER_MS


class SilenceFilter:
    """Decides, frame by frame, what the recognizer gets to hear of one stream.

    Attributes:
        clock: for what the recognizer says about it.
        utterance_open: set by the owner while the recognizer is in the middle of an utterance: it is then given its
            silence, so that it can end it.
        heard_bytes: what the caller has said.
        kept_bytes: how much of that went on.
        speech_bytes: `kept_bytes` at the end of the last speech.
    """

    def __init__(self, voice: Callable[[bytes], float], *, after_ms: int, pad_ms: int) -> None:
        """Begin open.

        Args:
            voice: the probability of speech in a frame of `FRAME_BYTES`; it is given frames in order.
            after_ms: without speech for so long, sound is held back.
            pad_ms: how much of it waits at least, to go first when speech begins.
        """
        self._voice = voice
        self._quiet_frames_allowed = -(-after_ms // FRAME_MS)
        self._held_frames = -(-pad_ms // FRAME_MS)
        self._quiet_frames = 0
        self._open = True
        self._frame = bytearray()
        self._passed = 0
        self._held: deque[bytes] = deque()
        self.clock = CutClock()
        self.utterance_open = False
        self.heard_bytes = 0
        self.kept_bytes = 0
        self.speech_bytes = 0
        self._dropped_at_close = 0
        self._peak = _SOFTEST

    def feed(self, pcm: bytes) -> bytes:
        """Hear more PCM16, any number of bytes. Returns what goes on now; it may be more than came, or nothing."""
        out = bytearray()
        at = 0
        while at < len(pcm):
            piece = pcm[at : at + FRAME_BYTES - len(self._frame)]
            at += len(piece)
            self.heard_bytes += len(piece)
            self._frame += piece
            if self._open:
                self._pass(piece, out)
            if len(self._frame) == FRAME_BYTES:
                self._judge(bytes(self._frame), out)
                self._frame.clear()
                self._passed = 0
        return bytes(out)

    def flush(self) -> bytes:
        """The utterance or the audio ends here: what waits goes on, but for half a sample."""
        if self._open:
            return b""
        out = bytearray()
        self._release(out)
        whole = len(self._frame) & ~1
        self._pass(bytes(self._frame[self._passed : whole]), out)
        self._passed = whole
        return bytes(out)

    @property
    def withheld_ms(self) -> int:
        """How much was dropped since the gate last closed; 0 while it is open."""
        return 0 if self._open else (self.clock.dropped_bytes - self._dropped_at_close) // BYTES_PER_MS

    @property
    def dropped_until_ms(self) -> int:
        """Up to here on the caller's clock everything has gone on or been dropped."""
        return (self.kept_bytes + self.clock.dropped_bytes) // BYTES_PER_MS

    def _judge(self, frame: bytes, out: bytearray) -> None:
        probability = self._probability(frame)
        if self._open:
            if probability >= STILL_SPEECH:
                self._quiet_frames = 0
                self.speech_bytes = self.kept_bytes
            else:
                self._quiet_frames += 1
            if self._quiet_frames >= self._quiet_frames_allowed and not self.utterance_open:
                self._open = False
                self._dropped_at_close = self.clock.dropped_bytes
            return
        self._held.append(frame[self._passed :])
        if probability >= ONSET or self.utterance_open:
            self._open = True
            self._release(out)
            if probability >= ONSET:
                self._quiet_frames = 0
                self.speech_bytes = self.kept_bytes
        elif len(self._held) >= self._held_frames + BLOCK_FRAMES:
            size = sum(len(self._held.popleft()) for _ in range(BLOCK_FRAMES))
            self.clock.cut(self.kept_bytes, size)

    def _probability(self, frame: bytes) -> float:
        samples = np.frombuffer(frame, dtype="<i2")
        peak = max(int(samples.max()), -int(samples.min()))
        self._peak = max(peak, self._peak * _FADE, _SOFTEST)
        if peak < _LOUD:
            return 0.0
        if self._peak < _AIM:
            frame = (samples * (_AIM / self._peak)).astype("<i2").tobytes()
        return self._voice(frame)

    def _release(self, out: bytearray) -> None:
        while self._held:
            self._pass(self._held.popleft(), out)

    def _pass(self, piece: bytes, out: bytearray) -> None:
        self.kept_bytes += len(piece)
        out += piece


def on_callers_clock(event: Event, clock: CutClock) -> Event:
    """The event with its times on the caller's clock."""
    match event:
        case Partial():
            start_ms, end_ms = _span(event.start_ms, event.end_ms, clock)
            return replace(event, start_ms=start_ms, end_ms=end_ms, words=_words(event.words, clock))
        case Final():
            start_ms, end_ms = _span(event.start_ms, event.end_ms, clock)
            others = tuple(_reading(other, clock) for other in event.alternatives)
            words = _words(event.words, clock)
            return replace(event, start_ms=start_ms, end_ms=end_ms, words=words, alternatives=others)
        case Gap():
            start_ms, end_ms = _span(event.start_ms, event.end_ms, clock)
            return replace(event, start_ms=start_ms, end_ms=end_ms)
        case SpeechStarted():
            return replace(event, audio_ms=clock.start_ms(event.audio_ms))
        case Progress():
            return Progress(clock.end_ms(event.processed_ms))
        case Flushed() | SpeechEnded() | Status():
            return replace(event, audio_ms=clock.end_ms(event.audio_ms))


def _span(start_ms: int, end_ms: int, clock: CutClock) -> tuple[int, int]:
    start = clock.start_ms(start_ms)
    # What has no length lies on one side of a cut.
    return start, max(start, clock.end_ms(end_ms))


def _words(words: tuple[Word, ...], clock: CutClock) -> tuple[Word, ...]:
    spans = (_span(word.start_ms, word.end_ms, clock) for word in words)
    return tuple(replace(word, start_ms=s, end_ms=e) for word, (s, e) in zip(words, spans, strict=True))


def _reading(other: Alternative, clock: CutClock) -> Alternative:
    return replace(other, words=_words(other.words, clock))
