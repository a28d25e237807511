"""Durations of the last five minutes, kept as counts: percentiles of any number of them in a fixed room.

Pure; time is an argument.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

WINDOW_S = 300.0
SLICE_S = 10.0
_SHORTEST_S = 0.005
_LONGEST_S = 60.0
_RATIO = 1.05
_STEPS = math.ceil(math.log(_LONGEST_S / _SHORTEST_S, _RATIO))
_BOUNDS = [_SHORTEST_S * _RATIO**step for step in range(_STEPS + 1)]
"""Upper ones, in seconds, each 5 % above the one before: that is how exact a percentile is."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the durations of the window come to.

    Attributes:
        count: how many there are.
        p50_ms, p95_ms: half of them, and 95 %, are no longer; None without any.
        in_time: the share that is no longer than the objective, 0 to 1; None without any, or without an objective.
    """

    count: int = 0
    p50_ms: int | None = None
    p95_ms: int | None = None
    in_time: float | None = None


class Recent:
    """The durations of the last five minutes, in slices of ten seconds.

    Args:
        objective_s: what they should not exceed, or None.
    """

    __slots__ = ("_next_at", "_objective_s", "_slices")

    def __init__(self, objective_s: float | None = None) -> None:
        self._objective_s = objective_s
        self._slices: deque[_Slice] = deque()
        self._next_at = -math.inf  # when another slice begins

    def add(self, seconds: float, now: float) -> None:
        """One more, that was seen `now`, a monotonic time in seconds."""
        if now >= self._next_at:
            number = int(now // SLICE_S)
            self._next_at = (number + 1) * SLICE_S
            self._forget(now)
            self._slices.append(_Slice(number))
        newest = self._slices[-1]
        newest.counts[min(bisect_left(_BOUNDS, seconds), _STEPS)] += 1
        if self._objective_s is not None and seconds <= self._objective_s:
            newest.in_time += 1

    def summary(self, now: float) -> Summary:
        """What those of the last five minutes come to."""
        self._forget(now)
        counts = [sum(column) for column in zip(*(one.counts for one in self._slices), strict=True)]
        total = sum(counts)
        if not total:
            return Summary()
        in_time = None
        if self._objective_s is not None:
            in_time = sum(one.in_time for one in self._slices) / total
        return Summary(total, _percentile_ms(counts, total, 50), _percentile_ms(counts, total, 95), in_time)

    def _forget(self, now: float) -> None:
        oldest = (now - WINDOW_S) // SLICE_S
        while self._slices and self._slices[0].number <= oldest:
            self._slices.popleft()


class _Slice:
    __slots__ = ("counts", "in_time", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts = array("L", bytes(array("L").itemsize * (_STEPS + 1)))
        self.in_time = 0


def _percentile_ms(counts: list[int], total: int, percent: int) -> int:
    left = math.ceil(total * percent / 100)
    for bound, count in zip(_BOUNDS, counts, strict=True):
        left -= count
        if left <= 0:
            return round(bound * 1000)
    raise AssertionError("there are fewer than all")
