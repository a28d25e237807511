"""Where a long recording can be cut without harm: the pauses in it. Pure.

The loudness of the audio is followed in frames of 30 ms. A pause is an unbroken run of frames close to the noise
floor, which is the quietest 300 ms of the neighbourhood (minimum statistics: Martin 2001, "Noise power spectral density
estimation based on optimal smoothing and minimum statistics"), and about as steady as noise. Soft speech beside louder
speech is not that, and steady noise without a quieter spot has no pause at all: what is in doubt is not cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.engine import BYTES_PER_MS

FRAME_MS = 30
"""Cuts fall on multiples of it."""

_QUIETEST_DB = -90.0
_ALWAYS_QUIET_DB = -66.0
_FLOOR_FRAMES = 10
_MARGIN = 0.25
_MAX_MARGIN_DB = 10.0
_EDGE_FRAMES = 3  # where a voice dies away
_STEADY_DB = 2.5
_RETRY_MS = 9_990
_LONG_ENOUGH_MS = 3_000
_PENALTY = 0.02

_Levels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CutRules:
    """How long the parts of a recording should be.

    Attributes:
        min_ms, target_ms, max_ms: of a part. One without a pause grows over `max_ms`, until there is one.
        pause_ms: the shortest pause that may be cut: every recognizer would have ended an utterance in it.
    """

    min_ms: int = 30_000
    target_ms: int = 60_000
    max_ms: int = 120_000
    pause_ms: int = 700


class CutFinder:
    """Finds the cuts while the audio passes: the same audio, in pieces of any size, gives the same cuts.

    It remembers the loudness of two minutes, 16 kB.
    """

    def __init__(self, rules: CutRules, channels: int = 1) -> None:
        """`channels`: of the 16 kHz PCM16, interleaved; a pause is one of all of them."""
        self._rules = rules
        self._channels = channels
        self._rest = b""
        self._levels: _Levels = np.zeros(0, np.float32)
        self._first_ms = 0
        self._cut_ms = 0
        self._try_ms = rules.max_ms

    def feed(self, pcm: bytes) -> list[int]:
        """Hear the next audio. Returns the cuts that are certain now, in ms from the start; each halves a pause."""
        frame_bytes = FRAME_MS * BYTES_PER_MS * self._channels
        data = self._rest + pcm
        whole = len(data) // frame_bytes * frame_bytes
        self._rest = data[whole:]
        levels = loudness(data[:whole], self._channels)
        cuts: list[int] = []
        while len(levels):
            # Up to the next attempt and no further, or the cuts would hang on the size of the pieces.
            count = max(1, -(-(self._try_ms - self._end_ms) // FRAME_MS))
            self._levels = np.concatenate((self._levels, levels[:count]))
            levels = levels[count:]
            if self._end_ms >= self._try_ms:
                cuts += self._attempt()
        return cuts

    def finish(self) -> list[int]:
        """The end of the audio: cuts that make two parts of a last one that is long."""
        cuts: list[int] = []
        while self._end_ms - self._cut_ms >= self._rules.target_ms + self._rules.min_ms:
            cut = self._best(self._end_ms - self._rules.min_ms)
            if cut is None:
                break
            self._cut_at(cut)
            cuts.append(cut)
        return cuts

    @property
    def _end_ms(self) -> int:
        return self._first_ms + len(self._levels) * FRAME_MS

    def _attempt(self) -> list[int]:
        cut = self._best(self._end_ms)
        if cut is not None:
            self._cut_at(cut)
            return [cut]
        self._try_ms = self._end_ms + _RETRY_MS
        self._forget(self._end_ms - self._rules.max_ms)
        return []

    def _cut_at(self, cut_ms: int) -> None:
        self._forget(cut_ms)
        self._cut_ms = cut_ms
        self._try_ms = cut_ms + self._rules.max_ms

    def _forget(self, before_ms: int) -> None:
        frames = max(0, before_ms - self._first_ms) // FRAME_MS
        self._levels = self._levels[frames:]
        self._first_ms += frames * FRAME_MS

    def _best(self, latest_ms: int) -> int | None:
        """The middle of the pause that is best to cut in, at `latest_ms` or before."""
        rules = self._rules
        best: tuple[float, int] | None = None
        for first, last in pauses(self._levels, rules.pause_ms):
            middle_ms = self._first_ms + (first + last) // 2 * FRAME_MS
            if not self._cut_ms + rules.min_ms <= middle_ms <= latest_ms:
                continue
            # A long pause is worth a detour: a second of it outweighs 50 s of distance.
            off_ms = abs(middle_ms - self._cut_ms - rules.target_ms)
            worth = min((last - first) * FRAME_MS, _LONG_ENOUGH_MS) - _PENALTY * off_ms
            if best is None or worth > best[0]:
                best = (worth, middle_ms)
        return None if best is None else best[1]


def loudness(pcm: bytes, channels: int = 1) -> _Levels:
    """Of whole frames of PCM16: decibels of full scale for each, those of the loudest channel."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32).reshape(-1, FRAME_MS * BYTES_PER_MS // 2, channels)
    power = np.max(np.mean(samples * samples, axis=1), axis=1) / np.float32(32768**2)
    floor = np.float32(10 ** (_QUIETEST_DB / 10))
    levels: _Levels = (10 * np.log10(np.maximum(power, floor))).astype(np.float32)
    return levels


def pauses(levels: _Levels, shortest_ms: int) -> Iterator[tuple[int, int]]:
    """The pauses that last `shortest_ms` or more: (first frame, frame after the last)."""
    if len(levels) < _FLOOR_FRAMES:
        return
    quiet = levels < _threshold_db(levels)
    edges = np.flatnonzero(np.diff(quiet.astype(np.int8), prepend=0, append=0))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if (last - first) * FRAME_MS >= shortest_ms and _is_steady(levels[first:last]):
            yield first, last


def _is_steady(levels: _Levels) -> bool:
    """Whether it sounds like a room and not like a soft voice, which rises and falls with its syllables."""
    return float(np.std(np.maximum(levels[_EDGE_FRAMES:-_EDGE_FRAMES], _ALWAYS_QUIET_DB))) <= _STEADY_DB


def _threshold_db(levels: _Levels) -> float:
    mean = np.convolve(levels.astype(np.float64), np.full(_FLOOR_FRAMES, 1 / _FLOOR_FRAMES), "valid")
    floor = float(mean.min())
    contrast = float(np.percentile(levels, 95)) - floor
    return max(_ALWAYS_QUIET_DB, floor + min(_MARGIN * contrast, _MAX_MARGIN_DB))
