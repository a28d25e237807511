"""The report: records of streams become figures for windows of time."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asr.errors import Code
from server.telemetry.record import Outcome
from server.telemetry.records import line_of, row_of_refusals
from server.telemetry.report import Spread, as_json, parse_window, tally

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = (parse_window("1h"),)


def line(age: timedelta = timedelta(minutes=5), **about: Any) -> bytes:
    row: dict[str, Any] = {
        "ts": (NOW - age).isoformat().replace("+00:00", "Z"),
        "status": Outcome.OK.value,
        "code": "",
        "face": "native",
        "kind": "live",
        "audio_len_s": 36.0,
        "queue_wait_s": 0.01,
        "first_partial_s": 0.2,
        "partial_latency_s": 0.25,
        "final_latency_s": 0.5,
        "rtfx": 1.0,
    }
    return line_of(row | about)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("1h", 3600), ("3d", 259_200), (" 2W ", 1_209_600), ("90s", 90)]
)
def test_windows_are_read(text: str, seconds: int) -> None:
    assert parse_window(text).seconds == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "0m", "-1h", "1.5h", "30 m", "367d", "99999999999m", "1h1m"])
def test_what_is_no_window_is_told_with_a_way_out(text: str) -> None:
    with pytest.raises(ValueError, match="Write a number with m, h, d or w"):
        parse_window(text)


def test_a_stream_counts_in_each_window_that_it_ended_in() -> None:
    windows = [parse_window(name) for name in ("30m", "1h", "3d")]
    lines = [line(timedelta(minutes=minutes)) for minutes in (1, 29, 31, 59, 61, 60 * 24 * 4)]
    found = tally(lines, windows, NOW)
    assert [figures.streams for figures in found.windows] == [2, 4, 5]
    assert [figures.audio_s for figures in found.windows] == [72.0, 144.0, 180.0]


def test_a_record_of_the_future_is_in_no_window() -> None:
    """A clock was wrong when it was written; one a little ahead of ours is not."""
    lines = [line(timedelta(seconds=age)) for age in (-30, -90, -86_400 * 400)]
    found = tally(lines, HOUR, NOW)
    assert [figures.streams for figures in found.windows] == [1]
    assert found.ahead == 2


def test_errors_are_those_of_the_gateway_refusals_included() -> None:
    lines = [line() for _ in range(196)]
    lines += [line(status="server_error", code="unavailable"), line(status="client_error", code="bad_audio")]
    lines += [line_of(row_of_refusals("native", code, count, NOW.timestamp())) for code, count in REFUSALS]
    (hour,) = tally(lines, HOUR, NOW).windows
    assert hour.streams == 198
    assert hour.refused == 12
    assert hour.errors == 3 / 200
    assert hour.errors_keep is False
    assert hour.codes["rate_limited"] == 10


REFUSALS = ((Code.OVERLOADED.value, 2), (Code.RATE_LIMITED.value, 10))


def test_objectives_are_counted_exactly() -> None:
    kept = [line(first_partial_s=0.3)] * 95 + [line(first_partial_s=0.301)] * 5
    assert tally(kept, HOUR, NOW).windows[0].first_partial.keeps is True
    missed = [line(final_latency_s=0.8)] * 94 + [line(final_latency_s=0.801)] * 6
    assert tally(missed, HOUR, NOW).windows[0].final.keeps is False
    (empty,) = tally([], HOUR, NOW).windows
    assert (empty.final.keeps, empty.errors_keep, empty.final.percentile(50)) == (None, None, None)


@pytest.mark.parametrize("percent", [50, 95, 99])
def test_a_percentile_is_within_half_a_percent(percent: int) -> None:
    chance = random.Random(7)
    values = [chance.lognormvariate(-1, 1) for _ in range(10_000)]
    spread = Spread()
    for value in values:
        spread.add(value)
    true = sorted(values)[len(values) * percent // 100 - 1]
    assert spread.percentile(percent) == pytest.approx(true, rel=0.0051)


def test_one_value_is_told_as_it_is() -> None:
    spread = Spread()
    spread.add(0.25)
    assert [spread.percentile(percent) for percent in (1, 50, 99)] == [0.25] * 3
    nothing = Spread()
    nothing.add(0.0)
    assert nothing.percentile(50) == 0.0


def test_the_memory_does_not_grow_with_the_records() -> None:
    def many() -> Iterator[bytes]:
        for number in range(30_000):
            yield line(first_partial_s=number / 1000, final_latency_s=None)

    (hour,) = tally(many(), HOUR, NOW).windows
    assert hour.streams == 30_000
    assert len(hour.first_partial._bins) < 1_300


def test_lines_that_are_no_records_are_counted_and_passed_over() -> None:
    bad = [
        b'{"ts":"2026-11-21T11:59',
        b"\n",
        b"null\n",
        b"[1]\n",
        b"\xff\xfe\n",
        b'{"ts":5,"status":"ok","face":"x"}\n',
        b'{"ts":"2026-11-21T11:59:00Z","status":["ok"],"face":"x"}\n',
        b'{"ts":"2026-11-21T11:59:00Z","status":"great","face":"x"}\n',
        b'{"ts":"2026-11-21T11:59:00Z","status":"ok"}\n',
        b"[" * 5000,
    ]
    found = tally([*bad, line()], HOUR, NOW)
    assert found.windows[0].streams == 1
    assert found.unreadable == len(bad) - 1


def test_figures_that_cannot_be_are_left_out() -> None:
    odd = line(first_partial_s="fast", final_latency_s=-1, queue_wait_s=True, audio_len_s=None, rtfx=[], code=["x"])
    (hour,) = tally([odd], HOUR, NOW).windows
    assert hour.streams == 1
    assert hour.first_partial.count == hour.final.count == hour.queue_wait.count == 0


def test_one_face_alone() -> None:
    found = tally([line(), line(face="end"), line(face="end")], HOUR, NOW, "end")
    assert found.windows[0].streams == 2
    assert found.faces == {"native", "end"}


def test_the_same_for_machines() -> None:
    lines = [line(), line(kind="recording", rtfx=40.0, first_partial_s=None, final_latency_s=None)]
    (hour,) = as_json(tally(lines, HOUR, NOW))
    assert json.loads(json.dumps(hour)) == hour
    assert hour["streams"] == 2
    assert hour["rtfx"] == {"count": 1, "p50": 40.0, "p95": 40.0, "p99": 40.0}
    assert hour["final_latency_s"]["kept"] is True
    assert hour["first_partial_s"]["p95"] == 0.2
