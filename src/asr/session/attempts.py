"""When a lost connection is tried for again, and when it is given up. Pure: time and randomness are arguments."""

from __future__ import annotations

from collections.abc import Callable

from asr.errors import ASRError, Code
from asr.session.limits import Limits

MAX_EARLIER = 8


class Attempts:
    """A series of losses: it begins with one, and ends with a connection that holds or carries audio on."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lost_at: float | None = None
        self._attempts = 0
        self._earlier: list[ASRError] = []
        self._opened_at = 0.0
        self._heard_at = 0.0
        self._furthest = 0

    def opened(self, now: float) -> None:
        """A connection is there: audio may flow."""
        self._opened_at = self._heard_at = now

    def heard(self, now: float) -> None:
        """The gateway said something."""
        self._heard_at = now

    def moved(self, to_bytes: int, *, flows: bool) -> None:
        """Audio up to there has arrived, or is settled."""
        # Only audio that goes further than ever ends a series: what breaks a gateway might be in it.
        if to_bytes > self._furthest:
            self._furthest = to_bytes
            if flows:
                self._lost_at = None

    def lost(self, error: ASRError, now: float, random: Callable[[], float], *, was_open: bool, at_once: bool) -> float:
        """The pause (seconds) before the next attempt; none with `at_once`.

        Raises:
            ASRError: `unavailable`, when the time is over; `earlier` holds what the attempts met.
        """
        if was_open and self._heard_at - self._opened_at >= self._limits.stable_ms / 1000:
            self._attempts = 0
            self._lost_at = None
        if self._lost_at is None:
            self._lost_at = now
            self._earlier = []
        self._earlier = [*self._earlier, error][-MAX_EARLIER:]
        pause_s = 0.0 if at_once else self._pause_s(error, random)
        if now + pause_s >= self._lost_at + self._limits.window_ms / 1000:
            seconds = self._limits.window_ms / 1000
            raise ASRError(
                Code.UNAVAILABLE,
                f"The connection to the gateway was lost and could not be restored within {seconds:g} s. "
                f"Last: {error.message}",
                earlier=tuple(self._earlier),
            )
        return pause_s

    def patience_s(self, now: float) -> float:
        """How long the next attempt may take."""
        assert self._lost_at is not None, "something was lost"
        return max(self._lost_at + self._limits.window_ms / 1000 - now, 0.0)

    def _pause_s(self, error: ASRError, random: Callable[[], float]) -> float:
        longest_ms = min(self._limits.retry_base_ms * 2 ** min(self._attempts, 20), self._limits.retry_cap_ms)
        self._attempts += 1
        return max(random() * float(longest_ms), float(error.retry_after_ms or 0)) / 1000
