"""Figures of a run in words: how each is called, how its value is written, what a missed limit says. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.compare import Comparison, Difference
from evaluation.figures import NOTHING, RATES, named, written
from evaluation.profiles import Judgement, RuleResult
from evaluation.statistics import Interval
from evaluation.summary import Figure

_ASKED_FOR = ("wer", "first_partial_p50_ms", "first_partial_p95_ms", "final_p50_ms", "final_p95_ms")
_COUNTS = ("failed", "false_finals")


def change(metric: str, value: float | None) -> str:
    """A difference, with its sign."""
    if value is None:
        return NOTHING
    if metric in RATES:
        return f"{100 * value:+.1f} points"
    return f"{round(value):+,} ms" if metric.endswith("_ms") else f"{value:+.3g}"


def bracketed(metric: str, interval: Interval | None) -> str:
    """`[10.1–14.5]`, without a unit; "" where there is none."""
    if interval is None:
        return ""
    scale, digits = (100, 1) if metric in RATES else (1, 0 if metric.endswith("_ms") else 1)
    low, high = (f"{scale * bound:,.{digits}f}" for bound in (interval.low, interval.high))
    return f"[{low} to {high}]" if interval.low < 0 else f"[{low}–{high}]"


def with_interval(metric: str, figure: Figure) -> str:
    """A figure and how certain it is."""
    return f"{written(metric, figure.value)} {bracketed(metric, figure.interval)}".rstrip()


def pair(low: Figure, high: Figure) -> str:
    """Two percentiles of one thing, milliseconds."""
    if low.value is None and high.value is None:
        return NOTHING
    return " / ".join(NOTHING if figure.value is None else f"{figure.value:,.0f}" for figure in (low, high))


def count(number: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def missed(result: RuleResult, profile: str) -> str:
    """What a limit that was not kept says."""
    rule = result.rule
    value = f"{written(rule.metric, result.value)} {bracketed(rule.metric, result.interval)}".rstrip()
    return (
        f"missed: {named(rule.metric)} of {_conditions(rule.conditions)} is {value} "
        f"over {count(result.clips, 'clip')}; {profile} allows {written(rule.metric, rule.limit)}"
    )


def verdict(judgement: Judgement) -> list[str]:
    """What became of every limit, the missed ones first."""
    results, name = judgement.results, judgement.profile.name
    lost = [result for result in results if not result.kept]
    idle = [result for result in results if not result.measured]
    lines = [missed(result, name) for result in lost]
    if idle:
        lines.append(f"not measured: {'; '.join(_grouped(idle))} (no clip here tells it)")
    looked_at = len(results) - len(idle)
    if not looked_at:
        lines.append(
            f"profile {name}: not measured, there is nothing to hold its {count(len(results), 'limit')} against"
        )
    elif lost:
        lines.append(f"profile {name}: {len(lost)} of {count(looked_at, 'limit')} missed{_unmeasured(idle)}")
    else:
        lines.append(f"profile {name}: {'' if idle else 'all '}{count(looked_at, 'limit')} kept{_unmeasured(idle)}")
    return lines


def _unmeasured(idle: Sequence[RuleResult]) -> str:
    return f", {len(idle)} not measured" if idle else ""


def _grouped(results: Sequence[RuleResult]) -> list[str]:
    """Each metric once, with all its conditions."""
    metrics = dict.fromkeys(result.rule.metric for result in results)
    found = {metric: [r.rule.conditions for r in results if r.rule.metric == metric] for metric in metrics}
    return [f"{named(metric)} of {', '.join(map(_conditions, each))}" for metric, each in found.items()]


def _conditions(patterns: Sequence[str]) -> str:
    return "all clips" if tuple(patterns) == ("*",) else ", ".join(patterns)


def comparison_verdict(comparison: Comparison) -> list[str]:
    """Whether B is worse, in which figures, and what this comparison could have found."""
    deciding = [one for one in comparison.differences if one.condition == "all"]
    worse = [one for one in comparison.differences if one.worse]
    better = [one for one in deciding if one.better]
    lines = [f"worse: {_moved(one)}" for one in worse] + [f"better: {_moved(one)}" for one in better]
    lines.append(power(deciding))
    lines += [f"note: {note}" for note in comparison.notes]
    error = f"a B that is no worse is called worse in at most {100 * comparison.alpha:g} % of comparisons"
    lines.append(f"B is {'WORSE' if comparison.worse else 'not worse'} than A ({error})")
    return lines


def power(deciding: Sequence[Difference]) -> str:
    """What a comparison could have found, in the figures that people ask for first."""
    clips = count(max((one.clips for one in deciding), default=0), "clip")
    found = [
        f"{change(one.metric, size)} of {named(one.metric)}"
        for one in deciding
        if one.metric in _ASKED_FOR and (size := findable(one)) is not None
    ]
    if not found:
        return f"power: {clips} are too few to find any change for certain"
    blind = any(one.metric == "wer" and findable(one) is None for one in deciding)
    rest = "; how large a change of the word error rate it finds cannot be told from them" if blind else ""
    return f"power: with {clips} it finds, four times of five, a change of {'; '.join(found)}{rest}"


def findable(one: Difference) -> float | None:
    """The smallest difference that is found four times of five; None where that is more than there can be."""
    size = one.detectable
    if size is None or (one.metric in RATES and one.a + size > 1) or (one.metric in _COUNTS and size > one.clips):
        return None
    return size


def _moved(one: Difference) -> str:
    where = "" if one.condition == "all" else f" of {one.condition}"
    moved = f"{change(one.metric, one.difference)} {bracketed(one.metric, one.interval)}".rstrip()
    return (
        f"{named(one.metric)}{where} went from {written(one.metric, one.a)} to {written(one.metric, one.b)} "
        f"({moved}, p {probability(one.p_value)})"
    )


def probability(value: float) -> str:
    """A p-value, no more exact than it is."""
    return "under 0.001" if value < 0.001 else f"{value:.3f}"
