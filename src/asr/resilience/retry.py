"""Whether a failed attempt is followed by another one: is it worth it, after which pause, can it be afforded.

Three questions, three answers that know nothing of each other. `verdict` looks at the failure. `Backoff` spreads
the attempts of many streams over time. `RetryBudget` bounds them over all streams, so that an endpoint in trouble
is not finished off by those who wait for it: each stream may be patient, all of them together may not.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from tenacity import RetryCallState, Retrying, wait_exponential

from asr.errors import ASRError, Code


class Verdict(StrEnum):
    """What to do about a failed attempt."""

    RETRY_ANYWHERE = "retry_anywhere"
    """It may pass: another endpoint, or the same one after a pause."""
    RETRY_ELSEWHERE = "retry_elsewhere"
    """This endpoint will fail again, for a stream like this one; another may not. At most once for each endpoint."""
    BACK_OFF = "back_off"
    """The endpoint is well and full. Another may have room; this one is left alone for a pause."""
    GIVE_UP = "give_up"
    """The request itself is at fault, and fails wherever it goes."""


_AT_FAULT = frozenset({Code.UNAVAILABLE, Code.TIMEOUT, Code.INTERNAL})
_BUSY = frozenset({Code.OVERLOADED, Code.RATE_LIMITED})


def verdict(error: ASRError) -> Verdict:
    """What a failure of a recognizer means for the next attempt.

    A failure that nobody can explain (`internal`, not marked as retryable) is retried elsewhere: what is broken at
    one endpoint may work at the next, and audio that breaks recognizers must not meet the same one again and again.
    """
    if error.code in _BUSY:
        return Verdict.BACK_OFF
    if error.code in _AT_FAULT:
        return Verdict.RETRY_ANYWHERE if error.retryable else Verdict.RETRY_ELSEWHERE
    return Verdict.GIVE_UP


def counts_as_failure(error: ASRError) -> bool:
    """Whether the failure says that the endpoint is down: the callers' faults do not, and neither does a full house."""
    return error.code in _AT_FAULT


class Backoff:
    """Pauses between attempts: exponential, capped, with full jitter.

    Full jitter (a random part of the whole pause, not a pause give or take a little) is what takes streams apart
    that failed in the same instant. The growth is tenacity's; its own jitter (`wait_random_exponential`) draws from
    the process-wide generator and takes no other, so that the one multiplication is done here.

    Args:
        base_ms: the longest pause before the first retry; it doubles with each further one. 0 for no pauses.
        cap_ms: no pause is longer.
        random: uniform in [0, 1).
    """

    def __init__(self, base_ms: int, cap_ms: int, random: Callable[[], float]) -> None:
        # tenacity counts in a unit of its caller's choice as long as both are in the same: here milliseconds.
        self._longest = wait_exponential(multiplier=base_ms, max=cap_ms)
        self._state = RetryCallState(Retrying(), None, (), {})
        self._random = random

    def pause_ms(self, attempt: int) -> int:
        """The pause after attempt number `attempt` (from 1) has failed: a random part of base·2ⁿ⁻¹ or of the cap."""
        self._state.attempt_number = attempt
        return round(self._random() * self._longest(self._state))


class RetryBudget:
    """Retries in proportion to streams, as a token bucket over all of them.

    Every stream that starts earns a part of a retry, every retry spends a whole one, and an empty bucket means that
    the failure goes to the caller now. Whatever happens, attempts are at most `1 + percent/100` for each stream that
    started, and `floor` on top. After the retry throttling of gRFC A6 (gRPC, "Client Retries") and the per-client
    retry budget of the SRE book (Google, "Handling Overload").

    Where few streams start, they earn next to nothing, and the first outage would leave nothing for the second. So
    the floor also comes back with time, where `spend` is told the time: all of it within `refill_ms`.

    Args:
        percent: retries that a hundred streams earn.
        floor: retries there are at the start. The bucket holds no more than these or `percent`, whichever is more.
        refill_ms: the time in which an empty bucket gets its floor back without any stream.
    """

    def __init__(self, percent: int, floor: int = 10, refill_ms: int = 60_000) -> None:
        self._percent = percent
        self._per_second = 100_000 * floor / refill_ms
        self._most = 100 * max(floor, percent)
        self._hundredths: float = 100 * floor
        """What is in the bucket, in hundredths of a retry: ten times a tenth must make a whole one."""
        self._looked_at: float | None = None

    def started(self) -> None:
        """A stream starts (its first attempt, not its retries)."""
        self._hundredths = min(self._most, self._hundredths + self._percent)

    def spend(self, now: float | None = None) -> bool:
        """A retry wants to happen; False means that it must not.

        Args:
            now: a monotonic time in seconds, for the floor to come back; None to let only streams fill the bucket.
        """
        if now is not None:
            since = now - (now if self._looked_at is None else self._looked_at)
            self._hundredths = min(self._most, self._hundredths + max(0.0, since) * self._per_second)
            self._looked_at = now
        if self._hundredths < 100:
            return False
        self._hundredths -= 100
        return True
