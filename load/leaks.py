"""Whether a gauge grows while the load stays the same, and whether it comes back afterwards. Pure.

The slope is Theil and Sen's: the median of the slopes of all pairs of looks, which single spikes do not bend; its
interval is Sen's, from Kendall's variance. The first half of the load is left out: caches fill and pools open then. As
successive looks at memory are not independent the interval is too narrow, so a slope must also be worth a word
(`_WORTH`), and the lowest level must rise all the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from evaluation.statistics import Interval
from load.summary import Gauge, LeakVerdict, Sample

_LEAST_LOOKS = 8
_MOST_LOOKS = 300
"""Looks that pairs are made of: 45 000 pairs; more are thinned out evenly."""
_Z = 1.96
_STEADY = 0.2
"""Of the rise over all thirds of the time, what each step from one to the next must bring; an even rise brings half."""


@dataclass(frozen=True, slots=True)
class _Worth:
    """What a gauge must do at the least to be called leaking.

    Attributes:
        total: growth within what was looked at; with the share of the peak of `stays`, as what belongs to a session
            comes and goes with it.
        per_minute: its lower bound.
        stays: how far it may be above its start after the load, and the share of the peak that is allowed with it:
            pools of connections and threads are kept on purpose.
    """

    total: float
    per_minute: float
    stays: tuple[float, float] | None


_WORTH: Mapping[Gauge, _Worth] = {
    "memory_bytes": _Worth(2 * 2**20, 256 * 2**10, None),
    "open_files": _Worth(8, 1, (16, 0.05)),
    "threads": _Worth(3, 0.5, (40, 0.05)),
    "tasks": _Worth(8, 1, (16, 0.05)),
}
_NAMES: Mapping[Gauge, str] = {
    "memory_bytes": "memory",
    "open_files": "open files",
    "threads": "threads",
    "tasks": "tasks",
}


def theil_sen(at: Sequence[float], values: Sequence[float]) -> tuple[float, Interval] | None:
    """Slope of `values` over `at` and its 95 % interval; None for fewer than eight looks, or all at one moment."""
    if len(at) < _LEAST_LOOKS:
        return None
    every = -(-len(at) // _MOST_LOOKS)
    x, y = np.asarray(at[::every], dtype=float), np.asarray(values[::every], dtype=float)
    i, j = np.triu_indices(len(x), k=1)
    apart = x[j] != x[i]
    if not apart.any():
        return None
    slopes = np.sort((y[j] - y[i])[apart] / (x[j] - x[i])[apart])
    n = len(x)
    spread = _Z * float(np.sqrt(n * (n - 1) * (2 * n + 5) / 18))
    low = int(np.clip((len(slopes) - spread) / 2, 0, len(slopes) - 1))
    high = int(np.clip((len(slopes) + spread) / 2, 0, len(slopes) - 1))
    return float(np.median(slopes)), Interval(float(slopes[low]), float(slopes[high]))


def leaks(samples: Sequence[Sample], *, trend: bool) -> tuple[LeakVerdict, ...]:
    """A verdict per source and gauge that was told.

    Args:
        samples: of the whole run; those before and after the load have `sessions` 0.
        trend: whether the load was the same all the time (soak, churn), so that a slope means something; else only what
            is left after the load is judged.
    """
    verdicts: list[LeakVerdict] = []
    for source in dict.fromkeys(sample.source for sample in samples):
        own = [sample for sample in samples if sample.source == source]
        for gauge in get_args(Gauge):
            verdict = _judge(source, gauge, own, trend=trend)
            if verdict is not None:
                verdicts.append(verdict)
    return tuple(verdicts)


def leaking(verdicts: Sequence[LeakVerdict]) -> bool:
    """Whether any is a leak."""
    return any(verdict.verdict in ("grows", "stays") for verdict in verdicts)


def _judge(source: str, gauge: Gauge, samples: Sequence[Sample], *, trend: bool) -> LeakVerdict | None:
    told = [(sample, getattr(sample, gauge)) for sample in samples if getattr(sample, gauge) is not None]
    loaded = [index for index, (sample, _) in enumerate(told) if sample.sessions]
    if not loaded:
        return None
    before = [float(value) for _, value in told[: loaded[0]]]
    after = [float(value) for _, value in told[loaded[-1] + 1 :]]
    start = float(np.median(before)) if before else None
    end = min(after) if after else None
    peak = max(float(value) for _, value in told)
    left = _left(gauge, start, end, peak)
    grows, are = ("grows", "is") if gauge == "memory_bytes" else ("grow", "are")
    slope = None
    if trend:
        # Of several steps the last: between two the load itself grows.
        during = [(sample, value) for sample, value in told if sample.sessions == told[loaded[-1]][0].sessions]
        half = (during[0][0].at_ms + during[-1][0].at_ms) / 2
        second = [(sample.at_ms / 60_000, float(value)) for sample, value in during if sample.at_ms >= half]
        slope = theil_sen([at for at, _ in second], [value for _, value in second])
        if slope is not None:
            grown = slope[0] * (second[-1][0] - second[0][0])
            worth = _WORTH[gauge]
            enough = worth.total + (worth.stays[1] * peak if worth.stays is not None else 0)
            if slope[1].low > worth.per_minute:
                words = f"{_name(gauge, source)} {grows} by {_amount(gauge, slope[0])} per minute "
                words += _between(gauge, slope[1])
                if grown > enough and _steadily([value for _, value in second]):
                    return LeakVerdict(source, gauge, "grows", slope[0], slope[1], start, end, words + left)
                if not left:
                    so_far = (
                        f"{_amount(gauge, grown)} so far: too little" if grown <= enough else "not steadily: too soon"
                    )
                    words += f", {so_far} to tell a leak; speak longer (--duration)"
                    return LeakVerdict(source, gauge, "unknown", slope[0], slope[1], start, end, words)
    rate, interval = slope if slope is not None else (None, None)
    if left:
        return LeakVerdict(source, gauge, "stays", rate, interval, start, end, _name(gauge, source) + left[1:])
    if interval is not None:
        words = f"{_name(gauge, source)} {are} flat, within {_amount(gauge, _widest(interval))} per minute"
        return LeakVerdict(source, gauge, "flat", rate, interval, start, end, words + _back(gauge, start, end))
    if start is not None and end is not None and _WORTH[gauge].stays is not None:
        words = f"{_name(gauge, source)} came back after the load" + _back(gauge, start, end)
        return LeakVerdict(source, gauge, "flat", None, None, start, end, words)
    if not trend:
        return None
    words = f"{_name(gauge, source)}: too few looks to tell; speak longer (--duration)"
    return LeakVerdict(source, gauge, "unknown", None, None, start, end, words)


def _steadily(values: Sequence[float]) -> bool:
    """Whether what is kept rises all the time: the lowest of each third lies clearly above that of the one before.

    One step is a cache that has filled or an arena; teeth of a saw are garbage that waits to be collected. Both have a
    slope within a window that happens to hold them so.
    """
    first, second, third = (min(part) for part in np.array_split(np.asarray(values), 3))
    return bool(min(second - first, third - second) >= _STEADY * (third - first) > 0)


def _left(gauge: Gauge, start: float | None, end: float | None, peak: float) -> str:
    """What is left after the load, as the end of a sentence, or "" where that is all right."""
    allowed = _WORTH[gauge].stays
    if allowed is None or start is None or end is None or end - start <= allowed[0] + allowed[1] * peak:
        return ""
    return f", did not come back: {_amount(gauge, end)} after the load, {_amount(gauge, start)} before it"


def _back(gauge: Gauge, start: float | None, end: float | None) -> str:
    if start is None or end is None:
        return ""
    return f" ({_amount(gauge, start)} before, {_amount(gauge, end)} after)"


def _widest(interval: Interval) -> float:
    return max(abs(interval.low), abs(interval.high))


def _between(gauge: Gauge, interval: Interval) -> str:
    return f"({_amount(gauge, interval.low)} to {_amount(gauge, interval.high)})"


def _name(gauge: Gauge, source: str) -> str:
    return f"{source}: {_NAMES[gauge]}"


def _amount(gauge: Gauge, value: float) -> str:
    if gauge != "memory_bytes":
        return f"{value:.1f}".removesuffix(".0")
    return f"{value / 2**20:.1f} MB" if abs(value) >= 2**20 else f"{value / 2**10:.0f} KB"
