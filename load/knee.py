"""How many sessions to give to a gateway: the last row that keeps the SLO, the knee, and what to measure next. Pure.

Two rules stand side by side. The plain one counts: the largest concurrency below the first row that misses the SLO.
The knee says where the curve bends, SLO or not: Kneedle (V. Satopää, J. Albrecht, D. Irwin, B. Raghavan, "Finding a
'Kneedle' in a Haystack: Detecting Knee Points in System Behavior", ICDCSW 2011), which puts the curve into the unit
square and takes the point that lies farthest from the diagonal. Two guards keep it from finding bends in noise:
throughput must have fallen behind the first row's rate per session, and latency must have risen by something that a
person notices.
"""

from __future__ import annotations

from collections.abc import Sequence

from load.summary import Limit, LoadRow, Recommendation

MARGIN = 0.2
"""Taken off the largest concurrency that was kept: for an uneven day, and for speech that is harder than the set's."""
_BEND = 0.1
"""Distance from the diagonal of the unit square that is a bend."""
_SHORTFALL = 0.1
"""Throughput per session may fall behind the first row's by this share and still be straight."""
_RISE, _RISE_MS = 1.5, 50.0
"""Latency must have grown by this factor and by this much for a bend in it to count."""


def recommend(rows: Sequence[LoadRow], endpoints: int | None, *, margin: float = MARGIN) -> Recommendation:
    """What the rows say about how many sessions to allow.

    Args:
        rows: in any order; those of a limited generator count for nothing but as the end of what could be measured,
            and those that were interrupted not even as that.
        endpoints: recognizers behind the gateway, where it names them.
        margin: share to take off.
    """
    ordered = sorted((row for row in rows if not row.interrupted), key=lambda row: row.sessions)
    kept, missed = _edge(ordered)
    limit: Limit = "none" if missed is None else missed.limit
    sessions = None if kept is None else max(int(kept.sessions * (1 - margin)), 1)
    # Fewer sessions than recognizers are no figure for one of them.
    per_endpoint = sessions // endpoints or None if sessions is not None and endpoints else None
    bend = knee([row for row in ordered if not row.generator_limited])
    return Recommendation(
        sessions,
        per_endpoint,
        endpoints,
        None if kept is None else kept.sessions,
        None if missed is None else missed.sessions,
        bend,
        margin,
        limit,
        _sentence(sessions, per_endpoint, endpoints, kept, missed, bend, margin),
    )


def knee(rows: Sequence[LoadRow]) -> int | None:
    """The last concurrency before throughput or latency leaves the straight line, or None where neither does.

    Args:
        rows: by rising concurrency; fewer than three bend nowhere.
    """
    if len(rows) < 3 or rows[0].sessions <= 0:
        return None
    at = [float(row.sessions) for row in rows]
    found: list[int] = []
    throughput = [row.throughput for row in rows]
    straight = throughput[0] / at[0]
    if any(y < (1 - _SHORTFALL) * straight * x for x, y in zip(at, throughput, strict=True)):
        found += _bend(at, throughput, rising_first=True)
    told = [(x, row.final_p95_ms) for x, row in zip(at, rows, strict=True) if row.final_p95_ms is not None]
    latency = [y for _, y in told]
    if len(told) >= 3 and max(latency) > _RISE * latency[0] and max(latency) - latency[0] > _RISE_MS:
        found += _bend([x for x, _ in told], latency, rising_first=False)
    return min(found, default=None)


def next_sessions(rows: Sequence[LoadRow], *, most: int) -> int | None:
    """The concurrency to measure next to find the limit: twice the largest while all are kept, then by halves.

    Args:
        rows: measured so far.
        most: more than this is not tried.

    Returns:
        None when the limit lies between two neighbours (within a tenth), or cannot be found.
    """
    ordered = sorted(rows, key=lambda row: row.sessions)
    if not ordered:
        return None
    kept, missed = _edge(ordered)
    if missed is None:
        wanted = min(ordered[-1].sessions * 2, most)
        return wanted if wanted > ordered[-1].sessions else None
    low = 0 if kept is None else kept.sessions
    if missed.sessions - low <= max(1, low // 10):
        return None
    return (low + missed.sessions) // 2


def _edge(ordered: Sequence[LoadRow]) -> tuple[LoadRow | None, LoadRow | None]:
    """The last row that keeps the SLO, and the first that does not: beyond that, a lucky row proves nothing.

    A row that this machine spoilt is neither; where a larger one was kept, nothing hangs on it.
    """
    kept: LoadRow | None = None
    spoilt: LoadRow | None = None
    for row in ordered:
        if row.generator_limited:
            spoilt = spoilt or row
        elif not row.slo_kept:
            return kept, row
        else:
            kept, spoilt = row, None
    return kept, spoilt


def _bend(at: Sequence[float], values: Sequence[float], *, rising_first: bool) -> list[int]:
    """Kneedle on a rising curve that flattens (`rising_first`) or on a flat one that rises."""
    x, y = _unit(at), _unit(values)
    distance = [(b - a) if rising_first else (a - b) for a, b in zip(x, y, strict=True)]
    farthest = max(range(len(distance)), key=distance.__getitem__)
    return [int(at[farthest])] if distance[farthest] >= _BEND else []


def _unit(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def _sentence(
    sessions: int | None,
    per_endpoint: int | None,
    endpoints: int | None,
    kept: LoadRow | None,
    missed: LoadRow | None,
    bend: int | None,
    margin: float,
) -> str:
    if kept is None or sessions is None:
        if missed is None:
            return "Nothing was measured to its end, so no number of sessions can be recommended."
        return f"No number of sessions can be recommended: at {missed.sessions}, {_why(missed)}."
    told = f"At most {_sessions(sessions)} per gateway"
    if per_endpoint is not None and endpoints:
        told += f", {per_endpoint} per recognizer ({endpoints} behind it)" if endpoints > 1 else " and recognizer"
    less = f"less a margin of {100 * margin:.0f} %" if sessions < kept.sessions else "too few to take a margin off"
    told += f": {_sessions(kept.sessions)} kept the SLO, {less}. "
    if missed is None:
        told += "The limit was not reached: more may be possible; --find-limit goes on until it is."
    else:
        told += f"At {missed.sessions}, {_why(missed)}."
    if bend is not None:
        told += f" Throughput or latency bends at {bend}."
    return told


def _why(missed: LoadRow) -> str:
    match missed.limit:
        case "generator":
            return (
                f"this machine could not send in time (chunks late by {missed.late_p99_ms:.0f} ms at p99, busiest "
                f"process that sends at {100 * missed.worker_cpu:.0f} % of a core), so nothing is known of the gateway"
            )
        case "refusals":
            return (
                f"{missed.refusals} of {missed.offered} were told no: "
                "the bound of streams (MAX_STREAMS, or the recognizer's) was the limit"
            )
        case _:
            return "; ".join(missed.missed)


def _sessions(count: int) -> str:
    return f"{count} session" if count == 1 else f"{count} sessions"
