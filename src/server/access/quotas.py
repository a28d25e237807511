"""How much a caller may have: starts in a minute, and minutes of audio in a day (UTC). Pure; clocks are arguments.

Streams at a time are the business of `server.admission`. The counts are those of this one gateway: with three behind
a load balancer a caller may come to three times as much.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Any

from asr.errors import ASRError, Code
from server.access.grants import Allowance, Grant, payer_of

MAX_CALLERS = 50_000
VERSION = 1
STARTS, AUDIO_MINUTES = "starts_per_minute", "audio_minutes_per_day"
_DAY_S = 86_400
_MINUTE_S = 60.0
_MINUTE_MS = 60_000
_CANDIDATES = 16


class Quotas:
    """What callers have used.

    Args:
        default: bounds for those whose credential names none; 0 there: no bound.
        clock: seconds, for the starts.
        unix_time: the wall clock, in seconds, for the day.
        max_callers: how many are remembered.

    Attributes:
        refused: refusals since the start, by quota: `starts_per_minute`, `audio_minutes_per_day`.
    """

    def __init__(
        self,
        default: Allowance,
        *,
        clock: Callable[[], float],
        unix_time: Callable[[], float],
        max_callers: int = MAX_CALLERS,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._default = default
        self._clock = clock
        self._unix_time = unix_time
        self._max_callers = max_callers
        self._starts = Ledger(max_callers)
        self._spent_ms = Ledger(max_callers)
        self._day = self._today()

    def start(self, grant: Grant) -> ASRError | None:
        """Count a start; instead, a refusal with `retry_after_ms` for a caller who has used up one of its quotas."""
        over = self.spend(grant, 0)
        if over is not None:
            return over
        per_minute = grant.allowance.starts_per_minute or self._default.starts_per_minute
        if not per_minute:
            return None
        payer, now = payer_of(grant.principal), self._clock()
        # When the last of its starts is paid for: each costs its part of a minute, and a minute may be owed.
        paid_at = max(self._starts.get(payer), now) + _MINUTE_S / per_minute
        early = paid_at - now - _MINUTE_S
        if early <= 1e-9:
            self._starts.put(payer, paid_at)
            return None
        self.refused[STARTS] += 1
        text = f"{per_minute} streams or requests a minute are allowed to this caller, and they were made. Try later."
        return ASRError(Code.RATE_LIMITED, text, retry_after_ms=math.ceil(early * 1000))

    def spend(self, grant: Grant, audio_ms: float) -> ASRError | None:
        """Count audio; an error once the caller's minutes of the day are used up. The audio counts all the same."""
        per_day = grant.allowance.audio_minutes_per_day or self._default.audio_minutes_per_day
        if not per_day:
            return None
        self._turn_the_day()
        payer = payer_of(grant.principal)
        spent = self._spent_ms.get(payer) + audio_ms
        if audio_ms:
            self._spent_ms.put(payer, spent)
        if spent < per_day * _MINUTE_MS:
            return None
        self.refused[AUDIO_MINUTES] += 1
        text = f"{per_day} minutes of audio a day are allowed to this caller, and they are used up until 00:00 UTC."
        left_s = _DAY_S - self._unix_time() % _DAY_S
        return ASRError(Code.RATE_LIMITED, text, retry_after_ms=math.ceil(left_s * 1000))

    def charge(self, principal: str, audio_ms: float) -> None:
        """Count audio that was taken before and is recognized now, for whoever sent it."""
        self._turn_the_day()
        payer = payer_of(principal)
        self._spent_ms.put(payer, self._spent_ms.get(payer) + audio_ms)

    def spent_ms(self, principal: str) -> float:
        """Audio of this caller today, as far as it is counted."""
        self._turn_the_day()
        return self._spent_ms.get(payer_of(principal))

    def snapshot(self) -> dict[str, Any]:
        """The audio of the day as JSON, for `restore`."""
        self._turn_the_day()
        spent = {payer: round(value) for payer, value in self._spent_ms.items()}
        return {"version": VERSION, "day": self._day, "forgotten_ms": round(self._spent_ms.floor), "spent_ms": spent}

    def restore(self, snapshot: Any) -> None:
        """Go on from a snapshot; that of another day counts for nothing.

        Raises:
            ValueError: it is none.
        """
        try:
            version, day = snapshot["version"], int(snapshot["day"])
            floor = float(snapshot["forgotten_ms"])
            spent = {str(payer): float(value) for payer, value in snapshot["spent_ms"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise ValueError("it is no count of the day's audio") from None
        if version != VERSION or not all(0 <= value < math.inf for value in (floor, *spent.values())):
            raise ValueError("it is the count of another version, or of audio below nothing")
        if day != self._today():
            return
        self._spent_ms = Ledger(self._max_callers, floor)
        for payer, value in spent.items():
            self._spent_ms.put(payer, value)

    def _today(self) -> int:
        return int(self._unix_time() // _DAY_S)

    def _turn_the_day(self) -> None:
        today = self._today()
        if today > self._day:  # a clock that is set back gives nobody a second day
            self._day = today
            self._spent_ms = Ledger(self._max_callers)


class Ledger:
    """Numbers by name, in bounded memory: those seen last are kept.

    Somebody who was forgotten is taken for one who has used as much as anybody forgotten ever had, so nobody gains by
    it. Of the oldest the one who has used least is forgotten, so that newcomers lose as little as possible.

    Attributes:
        floor: what those have who are not in it.
    """

    def __init__(self, most: int, floor: float = 0.0) -> None:
        self.floor = floor
        self._most = most
        self._values: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str) -> float:
        """The number of that name."""
        return self._values.get(name, self.floor)

    def put(self, name: str, value: float) -> None:
        """Set it."""
        self._values[name] = value
        self._values.move_to_end(name)
        if len(self._values) > self._most:
            least = min(islice(self._values, _CANDIDATES), key=self._values.__getitem__)
            self.floor = max(self.floor, self._values.pop(least))

    def items(self) -> list[tuple[str, float]]:
        """All of them, oldest first."""
        return list(self._values.items())
