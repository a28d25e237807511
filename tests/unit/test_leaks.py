"""Trends of gauges: what grows is found, what wobbles is not, and what does not come back is told."""

from __future__ import annotations

import math
import random

import pytest

from load.leaks import leaking, leaks, theil_sen
from load.summary import LeakVerdict, Sample

MB = 2**20


def looks(
    memory: list[float],
    *,
    before: float | None = None,
    after: float | None = None,
    files: list[int] | None = None,
    every_ms: float = 1000.0,
    source: str = "gateway",
) -> list[Sample]:
    """Three looks before, one for each value under load, three after."""
    files = files or [20] * len(memory)
    edge = ([] if before is None else [(before, 0, 20)] * 3, [] if after is None else [(after, 0, files[-1])] * 3)
    rows = [*edge[0], *((value, 5, count) for value, count in zip(memory, files, strict=True)), *edge[1]]
    return [
        Sample(index * every_ms, source, sessions, memory_bytes=int(value), open_files=count)
        for index, (value, sessions, count) in enumerate(rows)
    ]


def of(gauge: str, verdicts: tuple[LeakVerdict, ...]) -> LeakVerdict:
    (found,) = [one for one in verdicts if one.gauge == gauge]
    return found


# --- the slope


def test_the_slope_is_that_of_the_line_and_spikes_do_not_bend_it() -> None:
    at = [float(n) for n in range(50)]
    values = [3 * x + 7 for x in at]
    values[10] = 10_000.0
    found = theil_sen(at, values)
    assert found is not None
    assert found[0] == pytest.approx(3.0)
    assert found[1].low == pytest.approx(3.0)
    assert found[1].high == pytest.approx(3.0)


def test_the_interval_holds_the_true_slope_about_nineteen_times_of_twenty() -> None:
    chance = random.Random(4)
    at = [float(n) for n in range(40)]
    held = 0
    for _ in range(200):
        found = theil_sen(at, [0.5 * x + chance.gauss(0, 5) for x in at])
        assert found is not None
        held += found[1].low <= 0.5 <= found[1].high
    assert 180 <= held <= 199


def test_too_few_looks_have_no_slope_and_many_are_thinned_out() -> None:
    assert theil_sen([1.0] * 7, [1.0] * 7) is None
    assert theil_sen([1.0] * 9, [1.0] * 9) is None
    many = [float(n) for n in range(20_000)]
    found = theil_sen(many, [2 * x for x in many])
    assert found is not None
    assert found[0] == pytest.approx(2.0)


# --- verdicts


def test_memory_that_grows_under_an_even_load_is_a_leak() -> None:
    samples = looks([100 * MB + n * 0.2 * MB for n in range(60)])
    found = of("memory_bytes", leaks(samples, trend=True))
    assert found.verdict == "grows"
    assert found.per_minute == pytest.approx(12 * MB, rel=0.01)
    assert "gateway: memory grows by 12.0 MB per minute (12.0 MB to 12.0 MB)" in found.sentence
    assert leaking([found])


def test_memory_that_wobbles_is_flat() -> None:
    chance = random.Random(1)
    samples = looks([100 * MB + 3 * MB * math.sin(n / 5) + chance.gauss(0, MB) for n in range(120)])
    verdicts = leaks(samples, trend=True)
    assert of("memory_bytes", verdicts).verdict == "flat"
    assert "flat, within" in of("memory_bytes", verdicts).sentence
    assert not leaking(verdicts)


def test_the_first_half_may_grow_while_caches_fill() -> None:
    samples = looks([MB * min(100 + 2 * n, 150) for n in range(60)])
    assert of("memory_bytes", leaks(samples, trend=True)).verdict == "flat"


def test_growth_that_is_not_worth_a_word_is_flat() -> None:
    samples = looks([100 * MB + n * 1000 for n in range(60)])
    assert of("memory_bytes", leaks(samples, trend=True)).verdict == "flat"


def test_more_memory_for_more_sessions_is_no_leak() -> None:
    steps = [
        Sample(1000.0 * at, "gateway", 5 if at < 40 else 50, memory_bytes=MB * (100 if at < 40 else 160))
        for at in range(70)
    ]
    assert of("memory_bytes", leaks(steps, trend=True)).verdict == "flat"


def test_a_steep_slope_over_a_moment_is_no_leak_yet_and_not_called_flat() -> None:
    samples = looks([100 * MB + n * MB / 20 for n in range(30)], every_ms=100.0)
    found = of("memory_bytes", leaks(samples, trend=True))
    assert found.verdict == "unknown"
    assert "memory grows by 30.0 MB per minute" in found.sentence
    assert "too little to tell a leak; speak longer" in found.sentence
    assert not leaking([found])


@pytest.mark.parametrize(
    "values",
    [
        [(100 if n < 90 else 120) * MB + random.Random(n).gauss(0, 50_000) for n in range(120)],
        [100 * MB + n % 20 * MB / 4 for n in range(120)],
    ],
    ids=["a cache that fills once", "garbage that is collected now and then"],
)
def test_memory_that_does_not_rise_all_the_time_is_called_no_leak(values: list[float]) -> None:
    found = of("memory_bytes", leaks(looks(values, every_ms=500.0), trend=True))
    assert found.verdict == "unknown"
    assert "not steadily" in found.sentence
    assert not leaking([found])


def test_a_leak_beneath_garbage_that_comes_and_goes_is_found() -> None:
    samples = looks([100 * MB + n * MB / 5 + n % 10 * MB / 5 for n in range(120)], every_ms=500.0)
    assert of("memory_bytes", leaks(samples, trend=True)).verdict == "grows"


def test_open_files_that_grow_are_a_leak() -> None:
    samples = looks([100.0 * MB] * 60, files=[20 + n // 2 for n in range(60)])
    assert of("open_files", leaks(samples, trend=True)).verdict == "grows"


def test_open_files_that_come_and_go_with_short_sessions_are_no_leak_of_a_moment() -> None:
    samples = looks([100.0 * MB] * 20, files=[80 + n // 2 for n in range(20)], every_ms=250.0)
    found = of("open_files", leaks(samples, trend=True))
    assert found.verdict == "unknown"
    assert not leaking([found])


def test_a_sweep_of_different_loads_has_no_trend_but_what_stays_is_told() -> None:
    files = [20 + 10 * n for n in range(20)]
    grown = looks([100.0 * MB] * 20, files=files, before=100 * MB, after=100 * MB)
    found = of("open_files", leaks(grown, trend=False))
    assert found.verdict == "stays"
    assert found.per_minute is None
    assert found.sentence == "gateway: open files did not come back: 210 after the load, 20 before it"
    assert not [one for one in leaks(grown, trend=False) if one.gauge == "memory_bytes"]


def test_what_comes_back_is_flat() -> None:
    samples = looks([100.0 * MB] * 20, files=[300] * 19 + [22], before=100 * MB, after=100 * MB)
    found = of("open_files", leaks(samples, trend=False))
    assert found.verdict == "flat"
    assert found.sentence == "gateway: open files came back after the load (20 before, 22 after)"


def test_a_short_soak_is_not_judged() -> None:
    found = of("memory_bytes", leaks(looks([100.0 * MB] * 10), trend=True))
    assert found.verdict == "unknown"
    assert "--duration" in found.sentence
    assert not leaking([found])


def test_sources_are_judged_apart_and_what_was_never_told_not_at_all() -> None:
    samples = looks([100.0 * MB] * 40) + looks([MB * (100 + n) for n in range(40)], source="pid 7")
    verdicts = leaks(samples, trend=True)
    assert {(one.source, one.verdict) for one in verdicts if one.gauge == "memory_bytes"} == {
        ("gateway", "flat"),
        ("pid 7", "grows"),
    }
    assert not [one for one in verdicts if one.gauge in ("tasks", "threads")]
    assert leaks([], trend=True) == ()
