"""The circuit breaker of one endpoint: after several failures in a row nobody tries it for a while, then one does.

It judges streams, not calls. A stream may live for hours, so its **first event** is the success, not its end: a
breaker that waited for the end would be half open for as long as the probing stream is spoken into. A stream
that dies after that is one failure like any other. Twenty streams that die together with their endpoint are
twenty failures, and open it.

Verdicts come late. A stream that began before the breaker opened knows only about the time before: whatever
becomes of it says nothing about the endpoint as it is now, neither good (a last event that was still on its
way) nor bad (a time-out that ran since then). So every opening begins a new *era*, each ticket belongs to the
era in which it was issued, and a verdict of an earlier era is not counted.

No clock in here: `now` is a monotonic time in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    """What the breaker does with a stream that wants to begin."""

    CLOSED = "closed"
    """All are admitted."""
    OPEN = "open"
    """None is admitted until the wait is over."""
    HALF_OPEN = "half_open"
    """One at a time is admitted, as a probe."""


class Ticket:
    """One attempt to stream, from its beginning to its end. `Breaker.enter` issues them.

    A ticket takes one success and one failure; what is repeated, or comes after the failure or after `released`,
    is ignored. So each may be called wherever it is convenient, in any order, and more than once.
    """

    __slots__ = ("_alive", "_breaker", "_ended", "_era")

    def __init__(self, breaker: Breaker, era: int) -> None:
        self._breaker = breaker
        self._era = era
        self._alive = False
        self._ended = False

    def succeeded(self, now: float) -> None:
        """The stream has its first event: the failures in a row are over, a half-open breaker closes."""
        if not self._ended and not self._alive:
            self._alive = True
            self._breaker._success(self._era)

    def failed(self, now: float) -> None:
        """The stream failed through the endpoint's fault, before or after its first event."""
        if not self._ended:
            self._ended = True
            self._breaker._failure(self, self._era, now)

    def released(self) -> None:
        """The stream is over and says nothing (more) about the endpoint: its end, the client's leave, overload."""
        if not self._ended:
            self._ended = True
            self._breaker._release(self)


class Breaker:
    """Whether one endpoint is tried.

    Args:
        failures: failures in a row that open it, at least 1. A success in between starts the count again.
        open_ms: how long it stays open before a stream may probe.
        probe_ms: a probe without any verdict for so long no longer keeps the next one out.
        on_change: is told (before, after) each time the state changes, when the change is complete. Must not raise.
    """

    def __init__(
        self,
        failures: int,
        open_ms: int,
        probe_ms: int,
        *,
        on_change: Callable[[BreakerState, BreakerState], None] | None = None,
    ) -> None:
        if failures < 1:
            raise ValueError(f"A breaker opens after at least 1 failure, not after {failures}.")
        self._allowed = failures
        self._open_ms = open_ms
        self._probe_ms = probe_ms
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._era = 0
        self._in_a_row = 0
        self._until = 0.0
        """Open: when a probe may begin. Half open with a probe: when another may."""
        self._probe: Ticket | None = None

    @property
    def state(self) -> BreakerState:
        """The state; it is `OPEN` until the first probe enters, also when the wait is over (see `admits`)."""
        return self._state

    def admits(self, now: float) -> bool:
        """Whether `enter` would succeed. Changes nothing."""
        return self.wait_ms(now) == 0

    def wait_ms(self, now: float) -> int:
        """How long until a stream may be admitted; 0 if one is admitted now."""
        if self._state is BreakerState.CLOSED or (self._state is BreakerState.HALF_OPEN and self._probe is None):
            return 0
        # A microsecond is forgiven: who waits exactly as long as told must not be refused over a rounding.
        return max(0, math.ceil((self._until - now) * 1000 - 0.001))

    def enter(self, now: float) -> Ticket | None:
        """An attempt begins; None if it is refused. Every ticket needs an end: `failed` or `released`."""
        if not self.admits(now):
            return None
        ticket = Ticket(self, self._era)
        if self._state is not BreakerState.CLOSED:
            self._probe = ticket
            self._until = now + self._probe_ms / 1000
            self._become(BreakerState.HALF_OPEN)
        return ticket

    def recovered(self, now: float) -> None:
        """The endpoint was seen to come back by other means, such as a health check: a probe may begin at once.

        For the moment at which it comes back, not for each time that it looks well: an endpoint that lists its
        models while every stream fails would otherwise never be left in peace for `open_ms`.
        """
        if self._state is BreakerState.OPEN:
            self._become(BreakerState.HALF_OPEN)

    def _success(self, era: int) -> None:
        if era != self._era:
            return
        self._in_a_row = 0
        self._probe = None
        self._become(BreakerState.CLOSED)

    def _failure(self, ticket: Ticket, era: int, now: float) -> None:
        if era != self._era:
            return
        if self._state is BreakerState.HALF_OPEN:
            if ticket is self._probe:  # one that another has replaced was counted out already
                self._open(now)
            return
        self._in_a_row += 1
        if self._in_a_row >= self._allowed:
            self._open(now)

    def _release(self, ticket: Ticket) -> None:
        if ticket is self._probe:
            self._probe = None

    def _open(self, now: float) -> None:
        self._era += 1
        self._in_a_row = 0
        self._probe = None
        self._until = now + self._open_ms / 1000
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        before, self._state = self._state, state
        if before is not state and self._on_change is not None:
            self._on_change(before, state)
