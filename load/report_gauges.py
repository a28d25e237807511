"""What the processes used while the load ran: the same gauges over time, and whether one of them grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluation.charts import Axis, Series, figure, keys, lines
from evaluation.figures import NOTHING, megabytes, plain
from evaluation.markup import Column, Html, badge, fold, section, table, tag
from load.summary import LeakVerdict, Sample, Usage

GAUGES: tuple[tuple[str, str, Callable[[Sample], float | None]], ...] = (
    ("Memory", "MB", lambda sample: None if sample.memory_bytes is None else sample.memory_bytes / 1e6),
    ("Open files", "files", lambda sample: sample.open_files),
    ("Tasks", "tasks", lambda sample: sample.tasks),
    ("Threads", "threads", lambda sample: sample.threads),
    ("Processor", "cores", lambda sample: sample.cpu_share),
    ("Streams", "streams", lambda sample: sample.streams),
)
NAMES = {"memory_bytes": "memory", "open_files": "open files", "threads": "threads", "tasks": "tasks"}
VERDICTS = {
    "grows": ("grows", "bad"),
    "stays": ("did not come back", "bad"),
    "flat": ("flat", "good"),
    "unknown": ("unknown", "plain"),
}
MOST_POINTS = 400
"""Looks that are drawn per line; of more, every second, third … is taken."""


def gauges(samples: Sequence[Sample]) -> Html:
    """One small chart per gauge that was told."""
    unit, per = ("minutes", 60_000.0) if max(sample.at_ms for sample in samples) > 300_000 else ("seconds", 1000.0)
    sources = list(dict.fromkeys(sample.source for sample in samples))
    charts = []
    for title, measured, of in GAUGES:
        series = []
        for source in sources:
            points = [(sample.at_ms / per, of(sample)) for sample in samples if sample.source == source]
            points = points[:: -(-len(points) // MOST_POINTS)]
            if any(value is not None for _, value in points):
                series.append(Series(source, points))
        if not series:
            continue
        told = "; ".join(f"{one.name} {plain(_last(one))} at the end" for one in series)
        whole = measured not in ("MB", "cores")
        axis = Axis(measured, plain, low=0, whole=whole)
        drawn = lines(series, Axis(unit), axis, about=f"{title} over time: {told}.", dots=False, height=230)
        charts.append(figure(title, drawn, legend=keys([one.name for one in series])))
    return section("Processes over time", *charts, about="From the beginning of the run; every scale begins at zero.")


def _last(series: Series) -> float:
    return next(value for _, value in reversed(series.points) if value is not None)


def leaks(verdicts: Sequence[LeakVerdict]) -> Html:
    """Whether anything grew while the load stayed the same."""
    columns = [
        Column("Process", False), Column("What", False), Column("Per minute"), Column("95 % interval"),
        Column("Before"), Column("After"), Column("Verdict", False), Column("In words", False),
    ]  # fmt: skip
    body = []
    for leak in verdicts:
        say = megabytes if leak.gauge == "memory_bytes" else plain
        slope = _slope(leak, leak.per_minute)
        ends = leak.interval
        between = NOTHING if ends is None else f"{_slope(leak, ends.low)} to {_slope(leak, ends.high)}"
        levels = [NOTHING if level is None else say(level) for level in (leak.start, leak.end)]
        verdict = badge(*VERDICTS[leak.verdict])
        body.append((leak.source, NAMES.get(leak.gauge, leak.gauge), slope, between, *levels, verdict, leak.sentence))
    about = tag(
        "p",
        "The slope of each gauge while the load stayed the same, and its level before the load and after.",
        class_="about",
    )
    return section("Leaks", about, table(columns, body, caption="Gauges under constant load"))


def _slope(leak: LeakVerdict, value: float | None) -> str:
    if value is None:
        return NOTHING
    if leak.gauge == "memory_bytes":
        return f"{value / 1000:+,.1f} kB".replace("-", "−")
    return f"{value:+.3g}".replace("-", "−")


def usage(used: Sequence[tuple[int, Usage]]) -> Html:
    """What each process used in each row: (sessions, use)."""
    columns = [
        Column("Sessions"), Column("Process", False), Column("Processor"), Column("Memory"), Column("Open files"),
        Column("Threads"), Column("Tasks"),
    ]  # fmt: skip
    body = [
        (
            f"{sessions:,}", use.source, NOTHING if use.cpu_share is None else f"{use.cpu_share:.2f} cores",
            NOTHING if use.memory_bytes is None else megabytes(use.memory_bytes),
            *(NOTHING if count is None else f"{count:,}" for count in (use.open_files, use.threads, use.tasks)),
        )
        for sessions, use in used
    ]  # fmt: skip
    return fold(
        "What the processes used",
        table(columns, body, caption="What the processes used: mean processor, most of the rest"),
    )
