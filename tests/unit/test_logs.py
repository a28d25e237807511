"""Logs: what a traceback tells, and what it does not."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import structlog

from server.logs import configure_logs, on_left_out
from server.telemetry.repeats import MOST


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_keeps_what_clients_said_to_itself(
    style: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("info", style)

    def fails(said: str) -> None:
        raise RuntimeError("it went wrong")

    try:
        fails("".join(("my ", "secret ", "words")))
    except RuntimeError:
        structlog.get_logger("x").exception("request failed")
    told = capsys.readouterr().err
    assert "it went wrong" in told
    assert "fails" in told
    assert "my secret words" not in told


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.fixture
def quiet_root() -> Iterator[None]:
    """Whatever a test makes of the standard module's loggers is undone."""
    own, root = logging.getLogger("asr"), logging.getLogger()
    before = (own.level, own.propagate, own.handlers, root.level, root.handlers)
    yield
    own.level, own.propagate, own.handlers, root.level, root.handlers = before


EVIL = "x\nstream closed outcome=ok\r\x1b[2J\x1b]0;title\x07\u2028y\u202etxt\x85"


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.usefixtures("quiet_root")
def test_what_a_client_wrote_cannot_pass_for_a_line_of_ours(
    style: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger().handlers = []  # pytest's own
    configure_logs("info", style)
    log = structlog.get_logger("x")
    log.info(EVIL, name=EVIL, **{EVIL: "key"})
    log.info("nested", about={EVIL: [EVIL, {"deep": EVIL}]}, odd=Odd())
    logging.getLogger("asr.x").warning("file %s", EVIL)
    logging.getLogger("other").error("library %s", EVIL)
    told = capsys.readouterr().err
    assert len(told.rstrip("\n").split("\n")) == 4
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", told)
    if style == "json":
        assert json.loads(told.splitlines()[0])["event"] == EVIL


class Odd:
    def __repr__(self) -> str:
        return EVIL


@pytest.mark.usefixtures("quiet_root")
def test_no_line_of_a_traceback_begins_like_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    try:
        raise RuntimeError(EVIL)
    except RuntimeError:
        structlog.get_logger("x").exception("request failed")
    first, *rest = lines(capsys)
    assert "request failed" in first
    assert len(rest) >= 4
    assert all(line.startswith("    ") for line in rest)
    assert not any("\x1b" in line for line in rest)


@pytest.mark.usefixtures("quiet_root")
def test_lines_that_repeat_are_bounded_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    repeated = configure_logs("info", "json", clock=lambda: now[0])
    left_out: list[int] = []
    on_left_out(lambda: left_out.append(1))
    log = structlog.get_logger("x")
    for number in range(1000):
        log.info("take failed", number=number)
        log.info("stream opened", number=number)
        logging.getLogger("asr.pool").warning("endpoint %d is down", number)
    told = [json.loads(line) for line in lines(capsys)]
    assert Counter(line["event"].split(" ")[0] for line in told) == {"take": MOST, "stream": 1000, "endpoint": MOST}
    assert len(left_out) == 2 * (1000 - MOST)
    now[0] = 61.0
    log.info("something else")
    told = [json.loads(line) for line in lines(capsys)]
    assert {(line.get("like"), line.get("count")) for line in told[:-1]} == {
        ("info: take failed", 1000 - MOST),
        ("warning: asr.pool: endpoint %d is down", 1000 - MOST),
    }
    assert told[-1]["event"] == "something else"
    log.info("take failed")
    assert len(lines(capsys)) == 1
    repeated.tell(all_of_them=True)
    assert lines(capsys) == []


@pytest.mark.usefixtures("quiet_root")
def test_a_log_that_cannot_be_written_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        configure_logs("info", "json")
        structlog.get_logger("x").info("a stream goes on")
        with contextlib.suppress(OSError):
            full.close()


@pytest.mark.usefixtures("quiet_root")
def test_a_log_that_nobody_reads_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a collector of logs that hangs: the pipe is full, and stays so for a while."""
    reads, writes = os.pipe()
    left_out: list[int] = []
    with os.fdopen(reads, "rb", buffering=0) as reader, os.fdopen(writes, "w") as pipe:
        monkeypatch.setattr("sys.stderr", pipe)
        configure_logs("info", "json")
        on_left_out(lambda: left_out.append(1))
        log = structlog.get_logger("x")
        told = b""

        def write() -> None:
            for number in range(400):
                log.info("stream opened", number=number, text="\u20ac" * 1500)
            nonlocal told
            os.set_blocking(reads, False)
            while piece := reader.read(65_536):
                told += piece
            log.info("stream closed", number=400)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        told += reader.read(65_536)
    whole = []
    for line in told.decode().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            whole.append(json.loads(line))
    assert [row["number"] for row in whole[:-2]] == list(range(len(whole) - 2)), "in their order"
    assert 5 < len(whole) < 60
    assert {row["event"]: row.get("count") for row in whole[-2:]} == {
        "stream closed": None,
        "lines left out": len(left_out),
    }
    assert len(left_out) == 400 - (len(whole) - 2)


@pytest.mark.usefixtures("quiet_root")
def test_who_logs_while_a_line_is_written_does_not_wait_for_himself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a task does that is freed then, and whose error nobody has asked for."""
    depth = [0]

    def clock() -> float:
        depth[0] += 1
        if depth[0] == 5:
            structlog.get_logger("x").warning("inside")
        return 0.0

    configure_logs("info", "json", clock=clock)
    writer = threading.Thread(target=lambda: [structlog.get_logger("x").info("outside") for _ in range(4)], daemon=True)
    writer.start()
    writer.join(5)
    assert not writer.is_alive()
    told = lines(capsys)

    class Stderr(io.StringIO):
        def write(self, text: str) -> int:
            if "outside" in text:
                structlog.get_logger("x").warning("inside")
            return super().write(text)

    monkeypatch.setattr("sys.stderr", Stderr())
    writer = threading.Thread(target=lambda: structlog.get_logger("x").info("outside"), daemon=True)
    writer.start()
    writer.join(5)
    assert not writer.is_alive()
    assert Counter(json.loads(line)["event"] for line in told) == {"outside": 4, "inside": 1}


@pytest.mark.usefixtures("quiet_root")
def test_a_line_of_json_begins_with_when_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("x").warning("disk is full", free=0)
    (line,) = lines(capsys)
    assert list(json.loads(line)) == ["timestamp", "level", "event", "free"]
