"""Who speaks next: one wheel of turns for all sessions of a process.

Every session has a chunk to send once per chunk's length, so the turns form a ring that never changes its order: a
wheel of short slots, each with the sessions whose turn it is. A session is put where the fewest are; so the load is
even, however they came. Nothing is sorted, and nothing is created per chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

SLOT_MS = 2
"""The grain of turns; also about how long one may have to wait for the timer, whose grain is a millisecond."""
LATE_CELLS = 2_001
"""Lateness is counted by whole milliseconds, and all beyond two seconds as one."""


class Voice(Protocol):
    """What has turns."""

    def turn(self) -> bool:
        """Send the next chunk; False when this was the last one."""
        ...


class Wheel:
    """The ring of turns. Moments are seconds on any clock; the caller's business.

    Attributes:
        late: how many turns were how many milliseconds late, since it was last emptied.
    """

    def __init__(self, period_s: float, origin_s: float) -> None:
        """A turn each `period_s`; slot 0 is due at `origin_s`."""
        self._count = max(int(period_s * 1000 / SLOT_MS), 1)
        self._slots: list[list[Voice]] = [[] for _ in range(self._count)]
        self._width = period_s / self._count
        self._origin = origin_s
        self._next = 0
        self._voices = 0
        self.late = [0] * LATE_CELLS

    def __len__(self) -> int:
        return self._voices

    def next_due(self) -> float:
        """When the next slot is due."""
        return self._origin + self._next * self._width

    def join(self, voice: Voice, now: float) -> float:
        """Give it a turn in each round, from the next on; returns when the first is due."""
        if not self._voices:
            self._next = max(self._next, int((now - self._origin) / self._width) + 1)
        ahead = min(range(self._count), key=lambda step: len(self._slots[(self._next + step) % self._count]))
        at = self._next + ahead
        self._slots[at % self._count].append(voice)
        self._voices += 1
        return self._origin + at * self._width

    def fire(self, clock: Callable[[], float]) -> bool:
        """Take all turns that are due, of one round at the most; whether some are still due."""
        now = clock()
        for _ in range(self._count):
            due = self._origin + self._next * self._width
            if due > now:
                return False
            slot = self._slots[self._next % self._count]
            self._next += 1
            if not slot:
                continue
            ended = [voice for voice in slot if not voice.turn()]
            now = clock()
            self.late[min(int((now - due) * 1000), LATE_CELLS - 1)] += len(slot)
            for voice in ended:
                slot.remove(voice)
            self._voices -= len(ended)
        return self.next_due() <= now

    def late_p99_ms(self) -> float:
        """Of the turns since the last call."""
        counts, self.late = self.late, [0] * LATE_CELLS
        rest = sum(counts) * 0.01
        for late_ms in range(LATE_CELLS - 1, 0, -1):
            rest -= counts[late_ms]
            if rest < 0:
                return float(late_ms)
        return 0.0


class Pacer:
    """Turns the wheel on a running loop, as long as somebody is on it."""

    def __init__(self, wheel: Wheel, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        """`clock`: that of the wheel; the loop's own counts whole milliseconds."""
        self.wheel = wheel
        self._loop = loop
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    def join(self, voice: Voice) -> float:
        """See `Wheel.join`."""
        due = self.wheel.join(voice, self._clock())
        if self._timer is None:
            self._wait()
        return due

    def _turn(self) -> None:
        self._timer = None
        self.wheel.fire(self._clock)
        if len(self.wheel):
            self._wait()

    def _wait(self) -> None:
        # What is late waits too, if only a moment: answers have to be read in between.
        delay = self.wheel.next_due() - self._clock()
        self._timer = self._loop.call_later(max(delay, 0.001), self._turn)
