"""What the status page tells: latencies of five minutes, errors of an hour, and the state in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.engine import Readiness
from asr.errors import Code
from server.telemetry.recent import SLICE_S, WINDOW_S, Recent, Summary
from server.telemetry.record import Outcome, StreamRecord, StreamStart
from server.telemetry.state import ENOUGH, Level, State, state_of
from server.telemetry.status import MAX_KINDS, REMEMBERED_S, StatusSink
from server.telemetry.trace import TraceContext

START = StreamStart("s", "native", "live", "198.51.100.7", "key app", TraceContext("a" * 32, "b" * 16), 0.0)


# --- latencies


@given(st.lists(st.floats(0.006, 50.0), min_size=1, max_size=300))
def test_percentiles_are_right_within_five_percent(durations: list[float]) -> None:
    recent = Recent()
    for number, seconds in enumerate(durations):
        recent.add(seconds, number * 0.5)
    summary = recent.summary(len(durations) * 0.5)
    assert summary.count == len(durations)
    for percent, told in ((50, summary.p50_ms), (95, summary.p95_ms)):
        exact = sorted(durations)[-(-len(durations) * percent // 100) - 1] * 1000
        assert told is not None
        assert exact - 1 <= told <= exact * 1.05 + 1


def test_the_share_in_time_is_exact_and_the_objective_is_in_time() -> None:
    recent = Recent(0.3)
    for seconds in (0.1, 0.3, 0.300001, 9.0):
        recent.add(seconds, 5.0)
    assert recent.summary(5.0).in_time == 0.5


def test_what_is_older_than_five_minutes_is_forgotten_slice_by_slice() -> None:
    recent = Recent(0.3)
    recent.add(9.0, 0.0)
    recent.add(0.1, WINDOW_S / 2)
    assert recent.summary(WINDOW_S - 1).count == 2
    summary = recent.summary(WINDOW_S + SLICE_S)
    assert (summary.count, summary.in_time) == (1, 1.0)
    assert recent.summary(9 * WINDOW_S) == Summary()


def test_no_latency_is_too_short_or_too_long_to_be_counted() -> None:
    recent = Recent(0.3)
    for seconds in (0.0, 1e9):
        recent.add(seconds, 0.0)
    assert recent.summary(0.0) == Summary(2, 5, recent.summary(0.0).p95_ms, 0.5)


def test_its_room_does_not_grow() -> None:
    recent = Recent()
    for number in range(100_000):
        recent.add(0.1, number * 0.1)
    assert len(recent._slices) <= WINDOW_S / SLICE_S + 1


# --- streams and errors


class Times:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def sink(times: Times) -> StatusSink:
    return StatusSink(clock=times, unix_time=times)


def ended(code: str = "", outcome: Outcome = Outcome.OK, face: str = "native") -> StreamRecord:
    return StreamRecord(replace(START, face=face), 0.0, outcome, code)


def test_it_counts_open_streams_by_face(sink: StatusSink) -> None:
    for face in ("native", "riva_grpc", "riva_grpc"):
        sink.opened(replace(START, face=face))
    assert list(sink.streams_by_face().items()) == [("riva_grpc", 2), ("native", 1)]
    sink.closed(ended())
    assert sink.streams_by_face() == {"riva_grpc": 2}


def test_it_measures_what_is_shown_and_nothing_else(sink: StatusSink) -> None:
    for what in ("partial", "final", "first_partial", "ingress", "queue_wait"):
        sink.measured(START, what, 0.2)
    assert {name: told.count for name, told in sink.latencies().items()} == {
        "first_partial": 1,
        "partial": 1,
        "final": 1,
    }
    assert sink.latencies()["first_partial"].in_time is None


def test_errors_of_a_kind_are_one_row_with_the_latest_first(sink: StatusSink, times: Times) -> None:
    sink.opened(START)
    sink.closed(ended("unavailable", Outcome.SERVER))
    times.now += 1
    sink.refused("native", Code.UNAVAILABLE)
    times.now += 1
    sink.refused("native", Code.UNAVAILABLE)
    sink.refused("end", Code.RATE_LIMITED)
    rows = [(each.face, each.code, each.refused, each.ours, each.count) for each in sink.troubles()]
    assert rows == [
        ("native", "unavailable", True, True, 2),
        ("end", "rate_limited", True, False, 1),
        ("native", "unavailable", False, True, 1),
    ]


def test_a_good_end_is_no_error(sink: StatusSink) -> None:
    sink.opened(START)
    sink.closed(ended())
    assert sink.troubles() == []


def test_after_a_quiet_hour_errors_are_forgotten_and_counted_anew(sink: StatusSink, times: Times) -> None:
    sink.refused("native", Code.OVERLOADED)
    times.now += REMEMBERED_S
    assert [each.count for each in sink.troubles()] == [1]
    times.now += 1
    assert sink.troubles() == []
    sink.refused("native", Code.OVERLOADED)
    assert [each.count for each in sink.troubles()] == [1]


def test_an_hour_later_without_anybody_having_looked_it_counts_anew(sink: StatusSink, times: Times) -> None:
    sink.refused("native", Code.OVERLOADED)
    times.now += REMEMBERED_S + 1
    sink.refused("native", Code.OVERLOADED)
    assert [each.count for each in sink.troubles()] == [1]


def test_only_so_many_kinds_are_kept_the_latest(sink: StatusSink, times: Times) -> None:
    for number in range(MAX_KINDS + 5):
        times.now += 1
        sink.refused(f"face {number}", Code.OVERLOADED)
    assert [each.face for each in sink.troubles()] == [f"face {n}" for n in range(MAX_KINDS + 4, 4, -1)]


# --- in words


def state(**more: Any) -> State:
    usual: dict[str, Any] = {
        "draining": False,
        "position": "",
        "in_use": 0,
        "limit": 10,
        "endpoints": [],
        "latencies": {},
    }
    return state_of(more.pop("ready", Readiness(True)), **{**usual, **more})


def endpoint(name: str, health: str = "up", breaker: str = "closed") -> dict[str, str]:
    return {"name": name, "state": health, "breaker": breaker}


AWAY = Readiness(False, "The recognizer cannot be reached. Try again shortly.")
DOWN = [endpoint("1"), endpoint("2", "down")]


@pytest.mark.parametrize(
    ("told", "level", "words"),
    [
        ({}, Level.SERVING, "Serving"),
        ({"position": "former"}, Level.SERVING, "Serving, from the former endpoints"),
        ({"endpoints": [endpoint("1"), endpoint("2", "unknown")]}, Level.SERVING, "Serving"),
        ({"endpoints": DOWN}, Level.DEGRADED, "Degraded: endpoint 2 is down"),
        (
            {"endpoints": [endpoint("1", "loading"), endpoint("2", "down"), endpoint("3", breaker="open")]},
            Level.DEGRADED,
            "Degraded: endpoint 1 is loading, endpoint 2 is down and streams fail at endpoint 3",
        ),
        (
            {"endpoints": [endpoint("1", breaker="half_open")]},
            Level.DEGRADED,
            "Degraded: endpoint 1 waits for a stream that tries it",
        ),
        ({"endpoints": [*DOWN, endpoint("former-1")], "position": "former"}, Level.SERVING,
         "Serving, from the former endpoints"),
        ({"endpoints": [endpoint("1"), endpoint("former-1", "down")]}, Level.SERVING, "Serving"),
        ({"endpoints": [endpoint("1"), endpoint("canary-1", "down")]}, Level.DEGRADED,
         "Degraded: endpoint canary-1 is down"),
        ({"latencies": {"partial": Summary(ENOUGH, 200, 900, 0.9)}}, Level.DEGRADED, "Degraded: words appear late"),
        ({"latencies": {"final": Summary(ENOUGH, 200, 900, 0.9)}}, Level.DEGRADED, "Degraded: final texts come late"),
        ({"latencies": {"partial": Summary(ENOUGH - 1, 200, 900, 0.1)}}, Level.SERVING, "Serving"),
        ({"latencies": {"partial": Summary(ENOUGH, 200, 300, 0.95), "first_partial": Summary(99, 1, 9_000, None)}},
         Level.SERVING, "Serving"),
        ({"in_use": 10}, Level.REFUSING, "Refusing: all 10 streams are in use"),
        ({"ready": AWAY, "endpoints": DOWN}, Level.REFUSING, "Refusing: the recognizer cannot be reached"),
        ({"ready": Readiness(False)}, Level.REFUSING, "Refusing: the recognizer is not ready"),
        ({"ready": AWAY, "position": "off"}, Level.OFF,
         "Switched off: all streams are refused until somebody switches recognition on"),
        ({"ready": AWAY, "position": "off", "draining": True}, Level.DRAINING,
         "Draining: open streams finish, new ones are refused"),
    ],
)  # fmt: skip
def test_the_state_in_words(told: dict[str, Any], level: Level, words: str) -> None:
    assert state(**told) == State(level, words)
