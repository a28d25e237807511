"""How many sessions are recommended, where the curve bends, and what is measured next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from load.knee import knee, next_sessions, recommend
from load.summary import LoadRow
from load_rows import refused, row, session


def at(sessions: int, *, final_ms: float = 400.0, throughput: float | None = None, refuse: bool = False) -> LoadRow:
    made = row(session(final_ms=(final_ms,)), *([refused(1)] if refuse else []))
    return replace(made, sessions=sessions, throughput=float(sessions) if throughput is None else throughput)


def generator_limited(sessions: int) -> LoadRow:
    return replace(row(session(), late_ms=80.0), sessions=sessions)


def measured(kept_to: int, wanted: tuple[int, ...]) -> list[LoadRow]:
    return [at(n, final_ms=400.0 if n <= kept_to else 900.0) for n in wanted]


# --- recommendation


def test_the_last_row_before_the_first_miss_counts_less_the_margin() -> None:
    found = recommend(measured(50, (1, 10, 50, 100)), endpoints=2)
    assert (found.sessions, found.per_endpoint, found.kept, found.missed) == (40, 20, 50, 100)
    assert found.limit == "slo"
    assert found.sentence.startswith(
        "At most 40 sessions per gateway, 20 per recognizer (2 behind it): 50 sessions kept the SLO, less a "
        "margin of 20 %. At 100, final p95 900 ms (limit 800 ms)."
    )


def test_a_lucky_row_beyond_a_miss_proves_nothing() -> None:
    rows = [at(100), at(50, final_ms=900.0), at(10)]
    assert recommend(rows, None).kept == 10


def test_where_all_were_kept_the_limit_was_not_reached() -> None:
    found = recommend(measured(10, (1, 5, 10)), None)
    assert (found.sessions, found.per_endpoint, found.limit, found.missed) == (8, None, "none", None)
    assert "--find-limit" in found.sentence


def test_where_none_was_kept_nothing_is_recommended() -> None:
    found = recommend(measured(0, (1, 5)), 1)
    assert (found.sessions, found.per_endpoint, found.kept) == (None, None, None)
    assert found.sentence == "No number of sessions can be recommended: at 1, final p95 900 ms (limit 800 ms)."
    assert recommend([], None).sentence.startswith("Nothing was measured to its end")


def test_refusals_name_the_bound_of_streams() -> None:
    found = recommend([at(4), at(8), at(16, refuse=True)], None)
    assert (found.sessions, found.limit) == (6, "refusals")
    assert "MAX_STREAMS" in found.sentence


def test_a_limited_generator_ends_what_can_be_said_and_is_never_the_gateways_fault() -> None:
    found = recommend([at(10), at(100), generator_limited(500), generator_limited(1000)], None)
    assert (found.sessions, found.kept, found.missed, found.limit) == (80, 100, 500, "generator")
    assert "could not send in time" in found.sentence


def test_a_row_that_was_broken_off_is_no_evidence() -> None:
    found = recommend([at(10), replace(at(50), slo_kept=False, interrupted=True)], None)
    assert (found.kept, found.missed, found.limit) == (10, None, "none")
    assert recommend([replace(at(50), slo_kept=False, interrupted=True)], None).sessions is None


def test_a_row_that_this_machine_spoilt_says_nothing_where_a_larger_one_does() -> None:
    kept = recommend([at(10), generator_limited(50), at(100)], None)
    assert (kept.kept, kept.missed, kept.limit) == (100, None, "none")
    missed = recommend([at(10), generator_limited(50), at(100, final_ms=900.0)], None)
    assert (missed.kept, missed.missed, missed.limit) == (10, 100, "slo")


def test_one_session_is_not_less_than_one() -> None:
    found = recommend([at(1)], None)
    assert found.sessions == 1
    assert "1 session kept the SLO, too few to take a margin off." in found.sentence


def test_fewer_sessions_than_recognizers_are_no_figure_for_one_of_them() -> None:
    found = recommend([at(4), at(5, final_ms=900.0)], endpoints=8)
    assert (found.sessions, found.per_endpoint) == (3, None)
    assert found.sentence.startswith("At most 3 sessions per gateway: 4 sessions kept")


# --- knee


def test_a_straight_line_bends_nowhere() -> None:
    assert knee([at(n, final_ms=400.0 + n / 10) for n in (1, 10, 50, 100)]) is None
    assert knee([at(1), at(2)]) is None


def test_throughput_that_stops_growing_bends_where_it_does() -> None:
    assert knee([at(n, throughput=float(min(n, 50))) for n in (1, 10, 50, 100, 200)]) == 50


def test_latency_that_rises_bends_before_it_does() -> None:
    latency = {1: 400.0, 10: 401.0, 50: 405.0, 100: 420.0, 200: 2_000.0}
    assert knee([at(n, final_ms=ms) for n, ms in latency.items()]) == 100


def test_noise_is_no_bend() -> None:
    latency = {1: 400.0, 10: 390.0, 50: 398.0, 100: 440.0}
    assert knee([at(n, final_ms=ms) for n, ms in latency.items()]) is None


def test_the_earlier_of_two_bends_counts_and_a_limited_generator_bends_nothing() -> None:
    rows = [at(n, throughput=float(min(n, 50)), final_ms=400.0 if n < 200 else 3_000.0) for n in (1, 10, 50, 100, 200)]
    assert knee(rows) == 50
    limited = [at(1), at(10), at(50), replace(generator_limited(100), throughput=50.0)]
    assert recommend(limited, None).knee is None


# --- what to measure next


def search(limit: int, start: tuple[int, ...], most: int = 10_000) -> list[int]:
    tried = list(start)
    rows = measured(limit, start)
    while (following := next_sessions(rows, most=most)) is not None:
        assert following not in tried
        tried.append(following)
        rows += measured(limit, (following,))
        assert len(tried) < 30
    return tried


def test_the_search_doubles_then_halves_to_within_a_tenth() -> None:
    tried = search(70, (10,))
    assert tried[:4] == [10, 20, 40, 80]
    assert max(n for n in tried if n <= 70) >= 64
    assert min(n for n in tried if n > 70) <= 77


def test_the_search_goes_down_where_the_first_row_is_missed_already() -> None:
    assert search(3, (100,))[-1] in (3, 4)
    assert min(search(0, (8,))) == 1


@pytest.mark.parametrize("most", [25, 10])
def test_the_search_never_asks_for_more_than_there_is_room_for(most: int) -> None:
    assert max(search(1000, (10,), most=most)) == most


def test_nothing_measured_nothing_to_measure_next() -> None:
    assert next_sessions([], most=10) is None
