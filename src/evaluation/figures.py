"""How figures are written for people: units, digits, intervals, and a dash where nothing was measured."""

from __future__ import annotations

from evaluation.markup import Html, html, tag
from evaluation.statistics import Interval

NOTHING = "–"
RATES = frozenset({"wer", "cer", "revised"})
NAMES = {
    "wer": "word error rate",
    "cer": "character error rate",
    "first_partial_p50_ms": "first partial, p50",
    "first_partial_p95_ms": "first partial, p95",
    "first_text_p50_ms": "first text, p50",
    "first_text_p95_ms": "first text, p95",
    "word_partial_p50_ms": "word in a partial, p50",
    "word_partial_p95_ms": "word in a partial, p95",
    "final_p50_ms": "final, p50",
    "final_p95_ms": "final, p95",
    "partial_gap_p50_ms": "time between partials, p50",
    "revised": "words revised",
    "false_finals": "finals where nobody speaks",
    "failed": "clips that failed",
    "speed": "speed (× real time)",
}
"""What an attribute of `evaluation.summary.Row` is called."""


def named(metric: str) -> str:
    """The name of a figure for people."""
    return NAMES.get(metric, metric.replace("_", " "))


def percent(share: float, digits: int = 1) -> str:
    """0.1234 is 12.3 %."""
    return f"{share * 100:.{digits}f} %"


def axis_percent(share: float) -> str:
    """A percentage on an axis: as many digits as it needs."""
    return f"{share * 100:.6g} %"


def milliseconds(time_ms: float) -> str:
    """812 ms, or 4.2 s from ten seconds on."""
    return f"{time_ms / 1000:,.1f} s" if abs(time_ms) >= 10_000 else f"{time_ms:,.0f} ms"


def duration(time_ms: float) -> str:
    """42 s, 3 min 20 s, 2 h 05 min."""
    seconds = round(time_ms / 1000)
    if seconds < 120:
        return f"{seconds} s"
    return (
        f"{seconds // 60} min {seconds % 60:02} s"
        if seconds < 7200
        else f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
    )


def counted(number: int, what: str) -> str:
    """1 clip, 2 clips."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def plain(number: float) -> str:
    """A number with no more digits than it needs."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def megabytes(size: float) -> str:
    """Bytes as MB (a million)."""
    return f"{size / 1e6:,.0f} MB" if abs(size) >= 1e7 else f"{size / 1e6:,.1f} MB"


def written(metric: str, value: float | None) -> str:
    """A figure in the unit that its name implies."""
    if value is None:
        return NOTHING
    if metric in RATES or metric.endswith("_rate"):
        return percent(value)
    if metric.endswith("_ms"):
        return milliseconds(value)
    return f"{value:.1f} ×" if metric == "speed" else plain(value)


def between(metric: str, interval: Interval | None) -> str:
    """An interval, the unit said once; "" where there is none."""
    if interval is None:
        return ""
    low, high = written(metric, interval.low), written(metric, interval.high)
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if unit == high.partition(" ")[2] else f"{low} to {high}"


def revised(share: float | None, shown: int, *, said: int) -> str:
    """The share of the words shown in partials that did not stay. Where nobody speaks none of them may stay, and a
    share would say nothing: told is how many there were.

    Args:
        share: of those shown; None where none was.
        shown: words of partials.
        said: words of the reference.
    """
    if share is None or said:
        return written("revised", share)
    return f"{round(share * shown):,} of {shown:,}"


def cell(metric: str, value: float | None, interval: Interval | None = None) -> Html:
    """A figure with its interval below it."""
    if value is None:
        return tag("span", NOTHING, class_="none")
    limits = between(metric, interval)
    return html(written(metric, value), tag("span", limits, class_="range") if limits else None)
