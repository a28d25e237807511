"""What happens as the sessions grow: latency with its limits, throughput against the ideal, and failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluation.charts import Axis, Limit, Series, figure, keys, lines, stacked
from evaluation.figures import NOTHING, milliseconds, percent, plain
from evaluation.markup import Column, Html, html, notice, section, table, tag
from load.report_gauges import usage
from load.summary import LoadRow, Sweep

TROUBLES: tuple[tuple[str, Callable[[LoadRow], int]], ...] = (
    ("refused", lambda row: row.refusals),
    ("errors", lambda row: row.errors),
    ("disconnected", lambda row: row.disconnects),
    ("timed out", lambda row: row.timeouts),
)


def _axis(rows: Sequence[LoadRow], *, straight: bool) -> Axis:
    numbers = sorted({row.sessions for row in rows})
    if straight:
        return Axis("sessions at a time", plain, low=0, high=numbers[-1], ticks=_apart([0, *numbers], log=False))
    log = numbers[0] > 0 and numbers[-1] / numbers[0] >= 20
    return Axis("sessions at a time", plain, low=numbers[0], high=numbers[-1], log=log, ticks=_apart(numbers, log=log))


def _apart(numbers: Sequence[int], *, log: bool) -> list[float]:
    """Those that have room for their labels, the largest first."""
    reach = numbers[-1] / numbers[0] if log else numbers[-1] - numbers[0]
    kept = [numbers[-1]]
    for number in reversed(numbers[:-1]):
        if (kept[-1] / number >= reach**0.055) if log else (kept[-1] - number >= reach * 0.055):
            kept.append(number)
    return [float(number) for number in reversed(kept)]


def _series(rows: Sequence[LoadRow], *names: tuple[str, Callable[[LoadRow], float | None]]) -> list[Series]:
    made = [Series(name, [(row.sessions, of(row)) for row in rows]) for name, of in names]
    return [series for series in made if any(value is not None for _, value in series.points)]


def _knee(sweep: Sweep) -> Limit | None:
    knee = sweep.recommendation.knee
    return None if knee is None else Limit(knee, f"knee at {knee:,}")


def _over_sessions(
    sweep: Sweep,
    rows: Sequence[LoadRow],
    title: str,
    series: Sequence[Series],
    y: str,
    limits: Sequence[Limit] = (),
    *,
    straight: bool = False,
) -> Html:
    """A chart over concurrency; logarithmic where values are far apart, unless what grows in proportion is shown."""
    values = [value for one in series for _, value in one.points if value is not None and value > 0]
    log = not straight and bool(values) and max(values) > 25 * min(values)
    last = "; ".join(f"{one.name} {plain(one.points[-1][1])}" for one in series if one.points[-1][1] is not None)
    about = f"{title} over the number of sessions. At {rows[-1].sessions:,}: {last}."
    axis = Axis(f"{y}{', logarithmic' if log else ''}", plain, log=log)
    drawn = lines(
        series, _axis(rows, straight=straight), axis, about=about, limits=limits, knee=_knee(sweep), height=330
    )
    return figure(title, drawn, legend=keys([one.name for one in series]))


def latency(sweep: Sweep, rows: Sequence[LoadRow]) -> Html:
    """Latency over concurrency, with the SLO and the knee. Rows in the order of their sessions, at least two."""
    slo = sweep.slo
    partial = _series(
        rows,
        ("p50", lambda row: row.first_partial_p50_ms),
        ("p95", lambda row: row.first_partial_p95_ms),
        ("p99", lambda row: row.first_partial_p99_ms),
    )
    final = _series(
        rows,
        ("p50", lambda row: row.final_p50_ms),
        ("p95", lambda row: row.final_p95_ms),
        ("p99", lambda row: row.final_p99_ms),
    )
    queue = _series(rows, ("p50", lambda row: row.queue_p50_ms), ("p95", lambda row: row.queue_p95_ms))
    at_most = [Limit(slo.first_partial_ms, f"SLO: p95 within {milliseconds(slo.first_partial_ms)}")]
    final_at_most = [Limit(slo.final_ms, f"SLO: p95 within {milliseconds(slo.final_ms)}")]
    charts = [
        _over_sessions(sweep, rows, "First partial", partial, "milliseconds", at_most) if partial else None,
        _over_sessions(sweep, rows, "Final, from the end of speech", final, "milliseconds", final_at_most)
        if final
        else None,
        _over_sessions(sweep, rows, "Queue: from asking to ready", queue, "milliseconds") if queue else None,
    ]
    return section("Latency against load", *charts, about="Of the sessions that were admitted.")


def capacity(sweep: Sweep, rows: Sequence[LoadRow]) -> Html:
    """Throughput, failures and what the processes used, over concurrency. Rows as of `latency`."""
    through = _series(rows, ("measured", lambda row: row.throughput), ("ideal", lambda row: float(row.sessions)))
    charts = [_over_sessions(sweep, rows, "Throughput", through, "× real time", straight=True)]
    parts = [(name, [of(row) for row in rows]) for name, of in TROUBLES]
    if any(sum(values) for _, values in parts):
        about = "Sessions that did not end well: " + "; ".join(
            f"{row.sessions:,} sessions: " + ", ".join(f"{of(row)} {name}" for name, of in TROUBLES) for row in rows
        )
        drawn = stacked(
            [f"{r.sessions:,}" for r in rows], parts, "sessions at a time", Axis("sessions", whole=True), about=about
        )
        legend = keys([name for name, _ in parts], blocks=True)
        charts.append(figure("Sessions that did not end well", drawn, legend=legend))
    else:
        charts.append(
            notice("Every session of every row ended well: no error, refusal, disconnect or timeout.", "good")
        )
    if any(row.refusals for row in rows):
        charts.append(_refusals(rows))
    sources = dict.fromkeys(use.source for row in rows for use in row.usage if use.cpu_share is not None)
    if sources:
        cpu = [
            Series(
                source,
                [(row.sessions, next((u.cpu_share for u in row.usage if u.source == source), None)) for row in rows],
            )
            for source in sources
        ]
        charts.append(_over_sessions(sweep, rows, "Processor", cpu, "cores", straight=True))
    if any(row.usage for row in rows):
        charts.append(usage([(row.sessions, use) for row in rows for use in row.usage]))
    return section("Capacity", *charts)


def _refusals(rows: Sequence[LoadRow]) -> Html:
    """Whether those who were not admitted were told so at once, and when to come again."""
    columns = [
        Column("Sessions"), Column("Came"), Column("Refused"), Column("Share refused"),
        Column("Told within, p95"), Column("Told when to come again"),
    ]  # fmt: skip
    body = [
        (
            f"{row.sessions:,}", f"{row.offered:,}", f"{row.refusals:,}", percent(row.refusals / max(row.offered, 1)),
            NOTHING if row.refusal_p95_ms is None else milliseconds(row.refusal_p95_ms),
            NOTHING if row.retry_after is None else percent(row.retry_after, 0),
        )
        for row in rows
        if row.refusals
    ]  # fmt: skip
    return html(tag("h3", "How it refused"), table(columns, body, caption="How it refused"))
