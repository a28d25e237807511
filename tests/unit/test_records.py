"""Records of streams: what a line holds, and what becomes of lines in files that other things happen to."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import structlog

from asr.errors import Code
from server.telemetry.record import Outcome, StreamRecord, StreamStart
from server.telemetry.record_files import MAX_WAITING, RecordSink
from server.telemetry.records import day_of_file, is_old, line_of, row_of
from server.telemetry.trace import TraceContext

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
START = StreamStart("a" * 16, "native", "live", "192.0.2.1", "key 12", TraceContext("b" * 32, "c" * 16), NOON - 60)
RECORD = StreamRecord(
    START,
    NOON,
    Outcome.OK,
    model="parakeet",
    language="en-US",
    audio_ms=30_000,
    duration_ms=60_000,
    queue_wait_ms=12,
    first_partial_ms=250,
    partial_latency_ms=280,
    final_latency_ms=500,
    finals=3,
)


class Clock:
    """Unix seconds that a test sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines() if line]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def number(count: int) -> StreamRecord:
    return replace(RECORD, finals=count)


def test_a_record_tells_what_a_report_needs_and_nothing_that_lets_anybody_in() -> None:
    row = row_of(RECORD)
    assert row["ts"] == "2026-11-21T12:00:00.000Z"
    assert (row["status"], row["code"], row["model"]) == ("ok", "", "parakeet")
    assert (row["audio_len_s"], row["total_s"], row["rtfx"]) == (30.0, 60.0, 0.5)
    assert (row["queue_wait_s"], row["first_partial_s"], row["final_latency_s"]) == (0.012, 0.25, 0.5)
    assert row_of(replace(RECORD, first_partial_ms=None))["first_partial_s"] is None
    told = line_of(row).decode()
    assert "key 12" not in told
    assert told.count("\n") == 1


def test_days_are_kept_and_others_files_left_alone() -> None:
    today = date(2026, 11, 21)
    assert not is_old(date(2026, 11, 14), today, 7)
    assert is_old(date(2026, 11, 13), today, 7)
    assert day_of_file("streams-2026-11-21.jsonl.gz") is None
    assert day_of_file("../streams-2026-11-21.jsonl") is None


def test_each_day_has_its_file_and_old_ones_go(tmp_path: Path) -> None:
    folder, clock = tmp_path / "deep" / "records", Clock()
    folder.mkdir(parents=True)
    names = ["streams-2026-11-13.jsonl", "streams-2026-11-14.jsonl", "notes-2020-01-01.jsonl"]
    for name in names:
        (folder / name).write_text("")
    sink = RecordSink(folder, 7, unix_time=clock)
    sink.start()
    sink.closed(number(1))
    today = folder / "streams-2026-11-21.jsonl"
    until(lambda: today.is_file() and bool(today.read_bytes()))
    clock.now += 86_400
    sink.closed(number(2))
    sink.close()
    tomorrow = folder / "streams-2026-11-22.jsonl"
    assert [row["finals"] for row in rows(today)] == [1]
    assert [row["finals"] for row in rows(tomorrow)] == [2]
    assert {path.name for path in folder.iterdir()} == {today.name, tomorrow.name, names[2]}
    assert today.stat().st_mode & 0o777 == 0o600


def test_a_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path / "records", 7)
    sink.start()
    sink.closed(RECORD)
    sink.close()
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o700


def test_those_who_are_refused_are_counted_by_the_second(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path, 7, unix_time=Clock())
    for _ in range(5_000):
        sink.refused("native", Code.OVERLOADED)
    sink.refused("end", Code.RATE_LIMITED)
    sink.start()
    sink.close()
    told = rows(tmp_path / "streams-2026-11-21.jsonl")
    assert [(row["status"], row["face"], row["code"], row["count"]) for row in told] == [
        ("refused", "native", "overloaded", 5_000),
        ("refused", "end", "rate_limited", 1),
    ]


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "streams-2026-11-21.jsonl"
    path.write_bytes(b'{"ts":"2026-11-2')
    sink = RecordSink(tmp_path, 7, unix_time=Clock())
    sink.start()
    sink.closed(RECORD)
    sink.close()
    cut, whole = path.read_bytes().splitlines()
    assert cut == b'{"ts":"2026-11-2'
    assert json.loads(whole)["status"] == "ok"


def test_several_gateways_share_a_folder(tmp_path: Path) -> None:
    sinks = [RecordSink(tmp_path, 7, unix_time=Clock()) for _ in range(4)]

    def write(sink: RecordSink, first: int) -> None:
        sink.start()
        for count in range(500):
            sink.closed(number(first + count))
        sink.close()

    threads = [threading.Thread(target=write, args=(sink, 1000 * index)) for index, sink in enumerate(sinks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = rows(tmp_path / "streams-2026-11-21.jsonl")
    assert sorted(row["finals"] for row in told) == sorted(1000 * i + n for i in range(4) for n in range(500))  # type: ignore[type-var]


def test_a_folder_that_cannot_be_written_is_told_once_a_minute_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "records"
    folder.write_text("a file is in the way")
    monkeypatch.setattr("server.telemetry.record_files.LOOK_EVERY_S", 0.01)
    steady = Clock()
    sink = RecordSink(folder, 7, unix_time=Clock(), clock=steady)
    with structlog.testing.capture_logs() as told:
        sink.start()
        sink.closed(number(1))
        until(lambda: bool(told))
        time.sleep(0.1)
        assert [line["event"] for line in told] == ["records cannot be written; streams go on"]
        steady.now += 61
        until(lambda: len(told) == 2)
        folder.unlink()
        until(lambda: (folder / "streams-2026-11-21.jsonl").is_file())
        sink.closed(number(2))
        sink.close()
    assert [row["finals"] for row in rows(folder / "streams-2026-11-21.jsonl")] == [1, 2]
    assert sink.dropped == 0


def test_a_disk_that_fills_in_the_middle_of_a_line_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.write, [700]

    def full(handle: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        taken = data[: room[0]]
        room[0] -= len(taken)
        return write(handle, taken)

    monkeypatch.setattr("server.telemetry.record_files.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(os, "write", full)
    sink = RecordSink(tmp_path, 7, unix_time=Clock())
    with structlog.testing.capture_logs() as told:
        for count in range(10):
            sink.closed(number(count))
        sink.start()
        until(lambda: bool(told))
        room[0] = 1_000_000
        sink.close()
    assert told[0]["reason"] == "No space left on device"
    lines = (tmp_path / "streams-2026-11-21.jsonl").read_bytes().splitlines()
    whole = [line for line in lines if line.endswith(b"}")]
    assert [json.loads(line)["finals"] for line in whole] == list(range(10))
    assert len(lines) == 11


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    dropped: list[int] = []
    sink = RecordSink(tmp_path, 7, unix_time=Clock(), on_dropped=dropped.append)
    with structlog.testing.capture_logs() as told:
        for _ in range(MAX_WAITING + 25):
            sink.closed(RECORD)
    assert sum(dropped) == sink.dropped == 25
    assert len(told) == 1
    sink.start()
    sink.close()
    assert len(rows(tmp_path / "streams-2026-11-21.jsonl")) == MAX_WAITING


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "streams-2026-11-21.jsonl").symlink_to(target)
    sink = RecordSink(folder, 7, unix_time=Clock())
    with structlog.testing.capture_logs() as told:
        sink.start()
        sink.closed(RECORD)
        sink.close()
    assert target.read_text() == "mine"
    assert told[0]["event"] == "records cannot be written; streams go on"
    assert sink.dropped == 1


def test_a_file_that_is_lost_costs_no_further_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network's disk, where whoever holds a file that another machine has removed holds nothing."""
    monkeypatch.setattr("server.telemetry.record_files.LOOK_EVERY_S", 0.01)
    today = tmp_path / "streams-2026-11-21.jsonl"
    sink = RecordSink(tmp_path, 7, unix_time=Clock())
    sink.start()
    sink.closed(number(1))
    until(lambda: today.is_file() and bool(today.read_bytes()))
    held, lost = sink._file._handle, os.open(tmp_path, os.O_RDONLY)
    os.dup2(lost, held)  # from now on nothing can be written there
    with structlog.testing.capture_logs():
        sink.closed(number(2))
        until(lambda: len(rows(today)) == 2)
        sink.close()
    os.close(lost)
    assert sink.dropped == 0


def test_half_a_sign_costs_no_record() -> None:
    row = json.loads(line_of(row_of(replace(RECORD, model="para\ud800keet"))))
    assert row["model"] == "para?keet"
