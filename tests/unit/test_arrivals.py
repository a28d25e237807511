"""Who comes when: pure shapes of a load, what each session says, and whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.arrivals import MAX_SPEECH_MS, SPREAD_MS, Mode, arrivals
from load.pacer import Wheel
from load.plan import Arrival, Door, StepPlan
from load.speech import Measure, Phrasebook, script, starts
from load.staffing import own_limits, shares, workers_for

MODES: tuple[Mode, ...] = ("steady", "ramp", "spike", "soak", "churn")


def speaking(row: tuple[Arrival, ...], at_ms: float) -> int:
    return sum(one.start_ms <= at_ms < one.start_ms + one.speech_ms for one in row)


@settings(max_examples=40)
@given(st.sampled_from(MODES), st.integers(1, 40), st.integers(1, 400_000), st.integers(0, 60_000), st.integers(0, 9))
def test_every_shape_is_in_order_and_nobody_overlaps_on_a_place(
    mode: Mode, sessions: int, duration_ms: int, ramp_ms: int, seed: int
) -> None:
    row = arrivals(mode, sessions, duration_ms=duration_ms, ramp_ms=ramp_ms, seed=seed, session_ms=20_000)
    assert len(row) >= sessions
    assert [one.start_ms for one in row] == sorted(one.start_ms for one in row)
    assert sum(one.after is None for one in row) == sessions
    for number, one in enumerate(row):
        assert 1 <= one.speech_ms <= MAX_SPEECH_MS
        if one.after is not None:
            before = row[one.after]
            assert one.after < number
            assert before.start_ms + before.speech_ms < one.start_ms
    places = [one.after for one in row if one.after is not None]
    assert len(places) == len(set(places))
    assert row == arrivals(mode, sessions, duration_ms=duration_ms, ramp_ms=ramp_ms, seed=seed, session_ms=20_000)


def test_steady_comes_at_once_and_stays() -> None:
    row = arrivals("steady", 10, duration_ms=5_000)
    assert row[-1].start_ms < SPREAD_MS
    assert {one.speech_ms for one in row} == {5_000}
    slow = arrivals("steady", 10, duration_ms=5_000, ramp_ms=2_000)
    assert [one.start_ms for one in slow] == [number * 200.0 for number in range(10)]
    assert all(one.speech_ms == 5_000 for one in slow)


def test_ramp_grows_evenly_and_all_end_together() -> None:
    row = arrivals("ramp", 100, duration_ms=5_000, ramp_ms=10_000)
    assert [speaking(row, at) for at in (0, 2_500, 5_000, 9_999)] == [1, 26, 51, 100]
    assert {round(one.start_ms + one.speech_ms) for one in row} == {15_000}


def test_spike_is_a_crowd_in_the_middle() -> None:
    row = arrivals("spike", 50, duration_ms=30_000)
    assert [speaking(row, at) for at in (5_000, 10_000 + SPREAD_MS, 19_000, 25_000)] == [5, 50, 50, 5]


def test_soak_keeps_the_same_number_speaking() -> None:
    row = arrivals("soak", 20, duration_ms=600_000, seed=3)
    assert len(row) > 200
    assert min(speaking(row, at) for at in range(1_000, 599_000, 1_000)) >= 17
    assert len({one.speech_ms for one in row}) > 20, "they do not all end together"


def test_churn_is_short_and_some_break_off() -> None:
    row = arrivals("churn", 20, duration_ms=60_000, seed=3)
    cut = [one for one in row if one.cut_ms is not None]
    assert all(one.speech_ms <= 5_000 for one in row)
    assert 0.1 < len(cut) / len(row) < 0.3
    assert all(0 < one.cut_ms < one.speech_ms for one in cut if one.cut_ms is not None)
    assert not any(one.cut_ms for one in arrivals("churn", 20, duration_ms=60_000, cut_share=0))


@pytest.mark.parametrize("wrong", [{"sessions": 0}, {"duration_ms": 0}, {"ramp_ms": -1}, {"cut_share": 1.5}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be|need|none"):
        arrivals("churn", **{"sessions": 1, "duration_ms": 1, **wrong})  # type: ignore[arg-type]


# What is said ---------------------------------------------------------------------------------------

CLIPS = ((1_000, 16_000), (1_050, 8_000), (2_000, 16_000))
MEASURE = Measure(chunk_ms=100, pause_ms=250, tail_ms=150)


def test_sessions_begin_with_different_clips_and_keep_their_rate() -> None:
    assert script(0, Arrival(0, 3_500), CLIPS, MEASURE) == (0, 2, 0)
    assert script(2, Arrival(0, 3_500), CLIPS, MEASURE) == (2, 0, 2)
    assert script(4, Arrival(0, 2_200), CLIPS, MEASURE) == (1, 1)
    assert script(3, Arrival(0, 1), CLIPS, MEASURE) == (0,)


def test_messages_are_where_the_script_says() -> None:
    pcm = [bytes([place + 1]) * (length * rate // 500) for place, (length, rate) in enumerate(CLIPS)]
    book = Phrasebook([(rate, sound) for (_, rate), sound in zip(CLIPS, pcm, strict=True)], MEASURE)
    said = (0, 2, 0)
    count, messages = book.messages(said)
    sent = list(messages)
    assert len(sent) == count == 10 + 3 + 20 + 3 + 10 + 2
    assert {len(message) for message in sent} == {3_200}
    for place, (begin, end) in zip(said, starts(said, [length for length, _ in CLIPS], MEASURE), strict=True):
        assert b"".join(sent[begin:end]) == pcm[place]
        assert not any(sent[end])
    count, messages = book.messages((1,))
    sent = list(messages)
    assert count == len(sent) == 13
    assert b"".join(sent).rstrip(b"\0") == pcm[1], "the last message of a clip is filled up with silence"


# Whose turn it is -----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Speaker:
    def __init__(self, clock: Clock, turns: int) -> None:
        self.clock, self.turns, self.moments = clock, turns, [0.0][:0]

    def turn(self) -> bool:
        self.moments.append(self.clock.now_s)
        return len(self.moments) < self.turns


def test_turns_are_even_and_on_time() -> None:
    clock = Clock()
    wheel = Wheel(0.1, clock.now_s)
    speakers = [Speaker(clock, 20) for _ in range(100)]
    first = [wheel.join(speaker, clock.now_s) for speaker in speakers]
    assert max(first.count(due) for due in first) == 2, "no slot has more than its share"
    assert all(0 < due - 100.0 <= 0.1 + 1e-9 for due in first)
    while len(wheel):
        clock.now_s = wheel.next_due() + 0.0002
        wheel.fire(clock)
    for speaker, due in zip(speakers, first, strict=True):
        assert speaker.moments == pytest.approx([due + 0.1 * turn + 0.0002 for turn in range(20)])
    assert wheel.late_p99_ms() == 0.0


def test_a_sender_that_was_held_up_catches_up_and_says_so() -> None:
    clock = Clock()
    wheel = Wheel(0.1, clock.now_s)
    speaker = Speaker(clock, 10)
    due = wheel.join(speaker, clock.now_s)
    clock.now_s = due + 0.35
    while wheel.fire(clock):
        pass
    assert len(speaker.moments) == 4
    assert wheel.late_p99_ms() == pytest.approx(350, abs=2)
    assert wheel.late_p99_ms() == 0.0, "each answer is about the time since the one before"


# Who sends ------------------------------------------------------------------------------------------


def plan(sessions: int, row: tuple[Arrival, ...], workers: int | None = None) -> StepPlan:
    return StepPlan(Door("websocket", "ws://localhost:1"), row, sessions, (), workers=workers)


def test_a_row_of_sessions_stays_with_one_worker() -> None:
    row = arrivals("soak", 7, duration_ms=300_000)
    owners = {number: worker for worker, share in enumerate(shares(plan(7, row), 3)) for number in share}
    assert len(owners) == len(row)
    assert all(owners[number] == owners[one.after] for number, one in enumerate(row) if one.after is not None)
    assert len(set(owners.values())) == 3


def test_workers_are_as_many_as_needed() -> None:
    assert workers_for(plan(1, arrivals("steady", 1, duration_ms=1), workers=8)) == 1
    assert workers_for(plan(10, arrivals("steady", 10, duration_ms=1), workers=3)) == 3
    assert workers_for(plan(10, arrivals("steady", 10, duration_ms=1))) == 1


def test_the_tool_says_when_it_is_the_limit() -> None:
    assert own_limits(2.0, 0.3, 100) == ()
    (late,) = own_limits(60.0, 0.3, 100)
    assert "60 ms late" in late
    (busy,) = own_limits(2.0, 0.95, 100)
    assert "95%" in busy
