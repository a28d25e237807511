"""How long words were under way, in audio time. Pure; every moment is an argument, in seconds of one monotonic clock.

A word that ends at an instant of the audio is late by what has passed since the chunk that holds this instant was
received. Four stages lie in between, and their moments are kept for each chunk: *received* from the client, *put* to
where the recognizer reads, *taken* by it; then the word is *heard* from the recognizer, and *sent*.

Audio that comes faster than anybody speaks (a file that is pushed through) would tell of the pusher, not of the
service. So an instant counts as received when it could have been spoken at the earliest: at the pace of speech, from
the audio that came first in its take, with `HEAD_START_S` that a client may have kept while it connected.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

MAX_MARKS = 1_024
"""Chunks that are remembered: 100 s of the usual 100 ms, 20 s of 20 ms."""
_SPARE_MARKS = 256
"""So many more before the oldest go, all at once."""
HEAD_START_S = 5.0
OVERSHOOT_MS = 1_000
"""A recognizer counts in frames of its own: a result may end so far behind the audio that it was given."""

_RATIO = 1.04
_LOG = math.log(_RATIO)


@dataclass(frozen=True, slots=True)
class Way:
    """The moments of one instant of the audio, as they count; they never go back."""

    received: float
    put: float
    taken: float


class AudioClock:
    """When the instants of one take's audio passed which stage.

    Args:
        bytes_per_ms: of the audio, over all of its channels.
    """

    __slots__ = (
        "_bytes",
        "_bytes_per_ms",
        "_earliest",
        "_ends",
        "_floor",
        "_lost_to",
        "_puts",
        "_received",
        "_taken",
        "_takes",
    )

    def __init__(self, bytes_per_ms: int) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._bytes = 0
        self._ends = array("q")  # in bytes; a chunk is a row of these four
        self._received = array("d")
        self._puts = array("d")
        self._takes = array("d")
        self._taken = 0  # rows that the recognizer has taken; below zero while it takes some that are forgotten
        self._lost_to = 0  # bytes before this one are forgotten
        self._earliest = math.inf  # when the first sample can have been spoken
        self._floor = -math.inf

    @property
    def audio_ms(self) -> int:
        """Audio that was put."""
        return self._bytes // self._bytes_per_ms

    def put(self, n_bytes: int, received: float, now: float) -> None:
        """A chunk was received, and is put now to where the recognizer reads."""
        self._bytes += n_bytes
        self._ends.append(self._bytes)
        self._received.append(received)
        self._puts.append(now)
        self._takes.append(0.0)
        earliest = received - self._bytes / (self._bytes_per_ms * 1000)
        if earliest < self._earliest:
            if self._earliest == math.inf:
                self._floor = earliest - HEAD_START_S
            self._earliest = max(earliest, self._floor)
        if len(self._ends) >= MAX_MARKS + _SPARE_MARKS:
            self._forget(_SPARE_MARKS)

    def take(self, now: float) -> None:
        """The recognizer takes the next chunk."""
        if 0 <= self._taken < len(self._takes):
            self._takes[self._taken] = now
        self._taken += 1

    def way(self, audio_ms: int) -> Way | None:
        """The way of an instant; None where that is not known (any more)."""
        at = audio_ms * self._bytes_per_ms
        if self._taken <= 0 or at < 0 or (at <= self._lost_to and self._lost_to):
            return None
        row = bisect_left(self._ends, at)
        if row >= self._taken:  # what was not given yet cannot have been heard
            row = min(self._taken, len(self._ends)) - 1
            if at - self._ends[row] > OVERSHOOT_MS * self._bytes_per_ms:
                return None
        due = self._earliest + min(at, self._ends[row]) / (self._bytes_per_ms * 1000)
        return Way(max(self._received[row], due), max(self._puts[row], due), max(self._takes[row], due))

    def _forget(self, rows: int) -> None:
        self._lost_to = self._ends[rows - 1]
        for column in (self._ends, self._received, self._puts, self._takes):
            del column[:rows]
        self._taken -= rows


class Spread:
    """Latencies of one stream, kept as counts: their percentiles come out within 2 %, however many there are."""

    __slots__ = ("_bins", "_count")

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._count = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self._bins[round(math.log(max(seconds, 0.001)) / _LOG)] += 1
        self._count += 1

    def percentile_ms(self, percent: float) -> int | None:
        """The smallest that `percent` of all do not exceed; None without any."""
        rank = math.ceil(self._count * percent / 100)
        for number in sorted(self._bins):
            rank -= self._bins[number]
            if rank <= 0:
                return round(1000 * math.exp(_LOG * number))
        return None
