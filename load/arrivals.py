"""Who comes when: the shapes of a load, as plain numbers. Pure: chance comes in as a seed.

* steady: all come at once (or over a short ramp) and speak together;
* ramp: one after another comes until all are there, and they stay;
* spike: a few speak, then all the others come at once, and leave again;
* soak: for long, the same number always speaks: who is done is followed by another;
* churn: the same with short sessions, some of which break off without a word.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from load.plan import Arrival

Mode = Literal["steady", "ramp", "spike", "soak", "churn"]

SPREAD_MS = 100.0
"""Sessions that come "at once" come within this."""
MAX_SPEECH_MS = 300_000
"""Nobody speaks longer in one session: a longer step is a row of sessions, so that what is kept of one stays small."""
RETURN_MS = 500.0
"""Until a session that takes another's place may come."""
SPIKE_BASE = 0.1
"""The share of all sessions that speaks before the others come."""
CHURN_SPEECH_MS = (1_000, 5_000)
CHURN_CUT_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class _Lane:
    """A place that is spoken at from one moment to another, by one session after another."""

    start_ms: float
    end_ms: float


def arrivals(
    mode: Mode,
    sessions: int,
    *,
    duration_ms: int,
    ramp_ms: int = 0,
    seed: int = 1,
    session_ms: int | None = None,
    cut_share: float = CHURN_CUT_SHARE,
) -> tuple[Arrival, ...]:
    """The sessions of a step, in the order of their starts.

    Args:
        mode: the shape.
        sessions: how many are to speak at a time, at the most.
        duration_ms: how long all of them speak; of a spike, soak and churn the length of the whole.
        ramp_ms: over how long the first ones come; 0: at once.
        seed: of the lengths and breaks of soak and churn.
        session_ms: how long one session speaks in soak (default a minute) and churn (default 1 to 5 s).
        cut_share: in churn, the share of sessions that break off without a word, 0..1.

    Returns:
        At least one arrival for each of `sessions`.

    Raises:
        ValueError: for a number of sessions or a length under 1, or a share out of range; in a sentence.
    """
    _check(sessions, duration_ms, ramp_ms, session_ms, cut_share)
    chance = random.Random(seed)
    spread = float(ramp_ms) or SPREAD_MS
    starts = [number * spread / sessions for number in range(sessions)]
    lanes: list[list[Arrival]]
    match mode:
        case "steady":
            lanes = [list(_row(_Lane(start, start + duration_ms), MAX_SPEECH_MS)) for start in starts]
        case "ramp":
            lanes = [list(_row(_Lane(start, ramp_ms + duration_ms), MAX_SPEECH_MS)) for start in starts]
        case "spike":
            lanes = _spike(sessions, duration_ms)
        case "soak":
            length = session_ms or 60_000
            lanes = [list(_varied(_Lane(start, duration_ms), length * 3 // 4, length, chance)) for start in starts]
        case "churn":
            low, high = (session_ms, session_ms) if session_ms else CHURN_SPEECH_MS
            lanes = [list(_varied(_Lane(start, duration_ms), low, high, chance)) for start in starts]
            lanes = [[_perhaps_cut(one, cut_share, chance) for one in lane] for lane in lanes]
    return _numbered(lanes)


def _check(sessions: int, duration_ms: int, ramp_ms: int, session_ms: int | None, cut_share: float) -> None:
    if sessions < 1:
        raise ValueError(f"{sessions} sessions are none to measure. Name at least 1.")
    if duration_ms < 1 or ramp_ms < 0 or (session_ms is not None and session_ms < 1):
        raise ValueError("A step, its ramp and its sessions need a length in milliseconds, of at least 1.")
    if not 0 <= cut_share <= 1:
        raise ValueError(f"The share of sessions that break off is {cut_share:g}; it must be 0 to 1.")


def _row(lane: _Lane, longest_ms: int) -> Iterator[Arrival]:
    """Sessions one after another, each as long as it may be, to the end of the lane; at least one."""
    at = lane.start_ms
    while True:
        speech = int(min(longest_ms, max(lane.end_ms - at, 1)))
        yield Arrival(at, speech)
        at += speech + RETURN_MS
        if at >= lane.end_ms:
            return


def _varied(lane: _Lane, low_ms: int, high_ms: int, chance: random.Random) -> Iterator[Arrival]:
    at = lane.start_ms
    while True:
        speech = min(chance.randint(low_ms, high_ms), MAX_SPEECH_MS)
        yield Arrival(at, int(min(speech, max(lane.end_ms - at, 1))))
        at += speech + RETURN_MS
        if at >= lane.end_ms:
            return


def _spike(sessions: int, duration_ms: int) -> list[list[Arrival]]:
    base = max(1, round(sessions * SPIKE_BASE))
    at, rest = duration_ms / 3, sessions - base
    calm = [_Lane(number * SPREAD_MS / base, duration_ms) for number in range(base)]
    crowd = [_Lane(at + number * SPREAD_MS / rest, at * 2) for number in range(rest)]
    return [list(_row(lane, MAX_SPEECH_MS)) for lane in calm + crowd]


def _perhaps_cut(arrival: Arrival, share: float, chance: random.Random) -> Arrival:
    cut, where = chance.random() < share, chance.uniform(0.2, 0.8)
    return replace(arrival, cut_ms=max(int(arrival.speech_ms * where), 1)) if cut else arrival


def _numbered(lanes: list[list[Arrival]]) -> tuple[Arrival, ...]:
    """All of them by start; each one in a row names the one before it by its number."""
    order = sorted((one.start_ms, lane, place) for lane, row in enumerate(lanes) for place, one in enumerate(row))
    numbers = {(lane, place): number for number, (_, lane, place) in enumerate(order)}
    return tuple(replace(lanes[lane][place], after=numbers.get((lane, place - 1))) for _, lane, place in order)
