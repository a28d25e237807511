"""A session of the load tool: what it owes, when it gives up, and from when its latencies count."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from asr.events import Final, Word
from asr.wire import encode
from evaluation.clips import Clip, Speech, SpokenWord
from load.digest import Digest
from load.plan import Arrival, Door, StepPlan
from load.records import SessionRecord
from load.session import HELD_S, LAST_WORDS_S, House, Order, Phase, Session, clock, packed


class Wire(Session):
    """A session whose connection is a list."""

    def __init__(self, count: int) -> None:
        self.sent: list[bytes] = []
        self.lines: list[dict[str, Any]] = []
        messages: Iterator[bytes] = repeat(b"x", count)
        self.house = House(clock(), 100, lambda session: clock(), self._tell, lambda session: None)
        self._begin(Order(0, 16_000, 3_200, count, messages, False), self.house)
        self._speak()

    def _tell(self, line: bytes) -> None:
        self.lines.append(json.loads(line))

    def _send(self, message: bytes) -> None:
        self.sent.append(message)

    def _stop(self) -> None:
        self.sent.append(b"stop")
        self.pause_writing()

    def _hang_up(self) -> None:
        self.sent.append(b"gone")

    def _frames(self, heard: list[bytes]) -> list[object]:
        return []


def test_the_last_words_are_bounded_although_the_connection_was_full_when_they_were_asked_for() -> None:
    wire = Wire(1)
    assert not wire.turn()
    wire.resume_writing()
    assert wire.phase is Phase.ENDING
    wire.check(clock() + LAST_WORDS_S + 1)
    assert (wire.outcome, wire.sent) == ("timeout", [b"x", b"stop", b"gone"])


def test_chunks_that_were_held_up_are_sent_in_one_go_and_named() -> None:
    wire = Wire(4)
    wire.turn()
    wire.pause_writing()
    assert [wire.turn(), wire.turn()] == [True, True]
    assert wire.sent == [b"x"]
    wire.resume_writing()
    assert not wire.turn()
    wire.resume_writing()
    wire._end("ok")
    assert wire.sent == [b"x"] * 4 + [b"stop", b"gone"]
    assert wire.lines[-1]["held"] == [1, 2]


def test_a_connection_that_takes_a_little_now_and_then_does_not_go_on_forever() -> None:
    wire = Wire(10_000)
    turns = 0
    while wire.turn():
        wire.pause_writing()
        turns += 1
        assert turns <= 10 * HELD_S + 1
    assert wire.outcome == "timeout"
    assert "behind with the audio" in wire.lines[-1]["detail"]


CLIP = Clip("a", "clean", "one", Path("a.wav"), 1_000, words=(SpokenWord("one", 200, 600),), speech=(Speech(200, 600),))


def heard(*, sent_ms: list[float], held: list[int], final_ms: float) -> SessionRecord:
    """The record of a session of one clip, its first chunk due at 100 ms."""
    plan = StepPlan(Door("websocket", "ws://localhost:1"), (Arrival(0, 1_000),), 1, (CLIP,), tail_ms=0)
    digest = Digest(plan)
    final = encode(Final(0, 1, "one", 200, 600, (Word("one", 200, 600),)))
    digest.session(
        {
            "type": "session",
            "number": 0,
            "at": packed(array("d", [final_ms / 1000])),
            "frames": [final],
            "connected_ms": 1.0,
            "queue_ms": 1.0,
            "first_due_ms": 100.0,
            "ended_ms": final_ms + 10,
            "sent": packed(array("d", [moment / 1000 for moment in sent_ms])),
            "held": held,
            "outcome": "ok",
            "code": "",
            "detail": "",
            "retry_after_ms": None,
        },
        0.0,
    )
    return digest.records[0]


def test_the_wait_for_a_gateway_that_took_no_audio_is_in_the_latency() -> None:
    due = [100.0 + 100 * number for number in range(10)]
    assert heard(sent_ms=due, held=[], final_ms=900.0).timings.final_ms == (pytest.approx(300.0),)
    # From the fourth chunk on nothing was taken for two seconds.
    stalled = due[:3] + [2_400.0] * 7
    record = heard(sent_ms=stalled, held=[3, 4, 5, 6, 7, 8, 9], final_ms=2_500.0)
    assert record.timings.final_ms == (pytest.approx(1_900.0),)
    assert (record.late_max_ms, record.held_chunks, record.held_max_ms) == (0.0, 7, pytest.approx(2_000.0))


def test_chunks_that_this_tool_sent_late_are_its_own_fault_and_in_no_latency() -> None:
    late = [100.0 + 100 * number for number in range(3)] + [2_400.0] * 7
    record = heard(sent_ms=late, held=[], final_ms=2_500.0)
    assert record.timings.final_ms == (pytest.approx(100.0),)
    assert record.late_max_ms == pytest.approx(2_000.0)
