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
from dataclasses import dataclass

MAX_MARKS = 1_024
"""Chunks that are remembered: 100 s of the usual 100 ms, 20 s of 20 ms."""
_SPARE_MARKS = 256
"""So many more before the oldest go, all at once."""
HEAD_START_S = 5.0
OVERSHOOT_MS = 1_000
"""A recognizer counts in frames of its own: a result may end so far behind the audio that it was given."""

_SHORTEST_S = 0.001
_LOG = math.log(1.04)
_PER_LOG = 1 / _LOG


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
        "_bytes_per_s",
        "_earliest",
        "_ends",
        "_floor",
        "_forgotten",
        "_lost_to",
        "_puts",
        "_received",
        "_takes",
    )

    def __init__(self, bytes_per_ms: int) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._bytes_per_s = bytes_per_ms * 1000
        self._bytes = 0
        self._ends = array("q")  # in bytes; a chunk is a row of these four, the last of which comes later
        self._received = array("d")
        self._puts = array("d")
        self._takes = array("d")
        self._forgotten = 0  # rows that went before the recognizer took them
        self._lost_to = 0  # bytes before this one are forgotten
        self._earliest = math.inf  # when the first sample can have been spoken
        self._floor = -math.inf

    @property
    def audio_ms(self) -> int:
        """Audio that was put."""
        return self._bytes // self._bytes_per_ms

    def put(self, n_bytes: int, received: float, now: float) -> None:
        """A chunk was received, and is put now to where the recognizer reads."""
        self._bytes = end = self._bytes + n_bytes
        self._ends.append(end)
        self._received.append(received)
        self._puts.append(now)
        earliest = received - end / self._bytes_per_s
        if earliest < self._earliest:
            if self._earliest == math.inf:
                self._floor = earliest - HEAD_START_S
            self._earliest = max(earliest, self._floor)
        if len(self._ends) >= MAX_MARKS + _SPARE_MARKS:
            self._forget(_SPARE_MARKS)

    def take(self, now: float) -> None:
        """The recognizer takes the next chunk."""
        if self._forgotten:
            self._forgotten -= 1
        else:
            self._takes.append(now)

    def way(self, audio_ms: int) -> Way | None:
        """The way of an instant; None where that is not known (any more)."""
        found = self._found(audio_ms)
        if found is None:
            return None
        row, due = found
        return Way(max(self._received[row], due), max(self._puts[row], due), max(self._takes[row], due))

    def received(self, audio_ms: int) -> float | None:
        """Its way's beginning, which is all that a partial is measured by."""
        found = self._found(audio_ms)
        if found is None:
            return None
        row, due = found
        received = self._received[row]
        return received if received > due else due

    def _found(self, audio_ms: int) -> tuple[int, float] | None:
        """The chunk that counts for an instant, and when that can have been spoken at the earliest."""
        at = audio_ms * self._bytes_per_ms
        taken = len(self._takes)
        if not taken or at < 0 or (at <= self._lost_to and self._lost_to):
            return None
        ends = self._ends
        row = bisect_left(ends, at)
        if row >= taken:  # what was not given yet cannot have been heard
            row = taken - 1
            if at - ends[row] > OVERSHOOT_MS * self._bytes_per_ms:
                return None
            at = ends[row]
        return row, self._earliest + at / self._bytes_per_s

    def _forget(self, rows: int) -> None:
        self._lost_to = self._ends[rows - 1]
        self._forgotten += max(rows - len(self._takes), 0)
        for column in (self._ends, self._received, self._puts, self._takes):
            del column[:rows]


class Spread:
    """Latencies of one stream, kept as counts: their percentiles come out within 2 %, however many there are."""

    __slots__ = ("_bins",)

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """One more."""
        number = int(math.log(seconds / _SHORTEST_S) * _PER_LOG + 0.5) if seconds > _SHORTEST_S else 0
        self._bins[number] = self._bins.get(number, 0) + 1

    def percentile_ms(self, percent: float) -> int | None:
        """The smallest that `percent` of all do not exceed; None without any."""
        rank = math.ceil(sum(self._bins.values()) * percent / 100)
        for number in sorted(self._bins):
            rank -= self._bins[number]
            if rank <= 0:
                return round(1000 * _SHORTEST_S * math.exp(_LOG * number))
        return None
