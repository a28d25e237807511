"""Who may have a stream: one budget for the whole gateway, shared fairly between those who ask.

Pure: it knows no loop; clock and randomness are arguments. Every face asks here before it does anything dear, so a
refusal costs next to nothing and the streams that run are not slowed by those that cannot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

from asr.errors import ASRError, Code
from server.access.grants import Allowance, payer_of

FULL_RETRY_MS = 4_000
"""Streams last minutes, and there are many: a place is likely to become free within seconds."""
SHARE_RETRY_MS = 10_000
"""A caller that is over its share has to end a stream of its own first."""
WAITING_S = 15.0
"""Who found no place at all counts for so long as one who wants a share: longer than it is told to stay away."""
MAX_WAITING = 1_000
DRAINING_RETRY_MS = 2_000
"""A load balancer needs about so long to send callers elsewhere."""


class Place:
    """A place among the streams that are served at once. Give it back with `release`.

    Attributes:
        principal: whose it is; it counts for whoever that one acts for, see `payer_of`.
    """

    __slots__ = ("_admission", "principal")

    def __init__(self, admission: Admission, principal: str) -> None:
        self._admission: Admission | None = admission
        self.principal = principal

    def release(self) -> None:
        """Give it back; once is enough, and twice does no harm."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission._take_back(self.principal)


class Admission:
    """The places of a gateway.

    Args:
        max_streams: how many there are, over all faces.
        random: a number from 0 to below 1, anew with each call; it spreads those who come back.
        reserve_percent: of the places, those that are kept for callers who have less than their share.
        max_streams_per_key: places that a caller may have at a time whose allowance names no number; 0 for no bound.
        engine_refusal: why the engine would refuse a further stream right now, or None; see `Engine.refusal`.
        clock: seconds.

    Attributes:
        max_streams: as given.
        admitted: places given since the start.
        refused: refusals since the start, by code.
        refused_allowance: those among them for a caller that had all the streams it may have at a time.
    """

    def __init__(
        self,
        max_streams: int,
        *,
        random: Callable[[], float],
        clock: Callable[[], float],
        reserve_percent: int = 10,
        max_streams_per_key: int = 0,
        engine_refusal: Callable[[], ASRError | None] = lambda: None,
    ) -> None:
        self.max_streams = max_streams
        self.admitted = 0
        self.refused: Counter[Code] = Counter()
        self.refused_allowance = 0
        self._random = random
        self._reserve = max_streams * reserve_percent // 100
        self._max_per_key = max_streams_per_key
        self._engine_refusal = engine_refusal
        self._clock = clock
        self._held: dict[str, int] = {}
        self._waiting: dict[str, float] = {}  # until when, by those who have no place and found none
        self._in_use = 0
        self._draining = False

    @property
    def in_use(self) -> int:
        """Places that are taken."""
        return self._in_use

    @property
    def in_use_by(self) -> Mapping[str, int]:
        """Places that each caller has; only those who have any."""
        return MappingProxyType(self._held)

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    def drain(self) -> None:
        """Admit nobody any more; places that are taken stay so."""
        self._draining = True

    def admit(self, principal: str, allowance: Allowance | None = None) -> Place:
        """Take a place.

        Args:
            principal: who asks.
            allowance: how many it may have at a time, where its credential says so.

        Raises:
            ASRError: `unavailable` while draining or when the engine says so, `overloaded` when every place is taken
                or the engine is full, `rate_limited` for a principal that has its share. Each tells in
                `retry_after_ms` when to come back, to everyone something else.
        """
        payer = payer_of(principal)
        error = self._refusal(payer, (allowance.streams if allowance else 0) or self._max_per_key)
        if error is not None:
            self.refused[error.code] += 1
            raise error
        self._waiting.pop(payer, None)
        self._held[payer] = self._held.get(payer, 0) + 1
        self._in_use += 1
        self.admitted += 1
        return Place(self, principal)

    def later(self, code: Code, message: str, about_ms: int) -> ASRError:
        """A refusal that says when to come back: half to one and a half times `about_ms` from now.

        Those who were refused together must not come back together.
        """
        return ASRError(code, message, retry_after_ms=int(about_ms * (0.5 + self._random())))

    def going_down(self) -> ASRError:
        """What those are told who come while the gateway drains."""
        return self.later(
            Code.UNAVAILABLE, "The gateway is shutting down. Open a new stream in a moment.", DRAINING_RETRY_MS
        )

    def _refusal(self, payer: str, most: int) -> ASRError | None:
        if self._draining:
            return self.going_down()
        free = self.max_streams - self._in_use
        mine = self._held.get(payer, 0)
        if free <= 0:
            if not mine:
                self._wait(payer)
            return self.later(
                Code.OVERLOADED,
                f"All {self.max_streams} streams of this gateway are in use. Try again in a moment.",
                FULL_RETRY_MS,
            )
        if most and mine >= most:
            self.refused_allowance += 1
            return self.later(
                Code.RATE_LIMITED,
                f"{most} streams at a time are allowed to one caller. End one before you open another.",
                SHARE_RETRY_MS,
            )
        if free <= self._reserve and mine * self._callers(payer) >= self.max_streams:
            return self.later(
                Code.RATE_LIMITED,
                f"This gateway is nearly full, and you have your share of it ({mine} streams). The last places are "
                "for callers with fewer. End a stream, or try again later.",
                SHARE_RETRY_MS,
            )
        error = self._engine_refusal()
        if error is None:
            return None
        return self.later(error.code, error.message, max(error.retry_after_ms or 0, FULL_RETRY_MS))

    def _wait(self, payer: str) -> None:
        self._waiting.pop(payer, None)
        self._waiting[payer] = self._clock() + WAITING_S
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _callers(self, payer: str) -> int:
        """Those who want a share: who has places, who found none of late, and who asks."""
        now = self._clock()
        while self._waiting and next(iter(self._waiting.values())) <= now:
            del self._waiting[next(iter(self._waiting))]
        return len(self._held) + len(self._waiting) + (payer not in self._held and payer not in self._waiting)

    def _take_back(self, principal: str) -> None:
        payer = payer_of(principal)
        self._in_use -= 1
        left = self._held[payer] - 1
        if left:
            self._held[payer] = left
        else:
            del self._held[payer]
