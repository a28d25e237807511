"""Latencies in audio time: which moment belongs to which instant of the audio."""

from __future__ import annotations

import random

import pytest

from server.telemetry.latency import HEAD_START_S, MAX_MARKS, OVERSHOOT_MS, AudioClock, Spread, Way

MONO = 32
CHUNK = 3_200  # 100 ms


def spoken(chunks: int, *, begin: float = 100.0, wait: float = 0.0, taken_after: float = 0.0) -> AudioClock:
    """Chunks of 100 ms that come as they are spoken."""
    clock = AudioClock(MONO)
    for number in range(1, chunks + 1):
        at = begin + number / 10
        clock.put(CHUNK, at, at + wait)
        clock.take(at + wait + taken_after)
    return clock


def test_an_instant_has_the_way_of_the_chunk_that_holds_it():
    clock = spoken(10, wait=0.01, taken_after=0.02)
    assert clock.audio_ms == 1000
    for instant in (401, 450, 500):
        way = clock.way(instant)
        assert way is not None
        assert (way.received, way.put, way.taken) == pytest.approx((100.5, 100.51, 100.53)), instant
    first = clock.way(0)
    assert first is not None
    assert first.received == pytest.approx(100.1)


def test_channels_share_the_clock_of_their_audio():
    clock = AudioClock(2 * MONO)
    clock.put(2 * CHUNK, 1.0, 1.0)
    clock.take(1.0)
    clock.put(2 * CHUNK, 1.1, 1.1)
    clock.take(1.1)
    assert clock.audio_ms == 200
    assert clock.way(100) == Way(1.0, 1.0, 1.0)
    way = clock.way(101)
    assert way is not None
    assert way.received == pytest.approx(1.1)


def test_a_little_more_than_was_given_is_the_end_and_much_more_is_nothing():
    clock = spoken(3)
    end = clock.way(300)
    assert end is not None
    assert clock.way(300 + OVERSHOOT_MS) == end
    assert clock.way(301 + OVERSHOOT_MS) is None
    assert clock.way(-1) is None


def test_what_the_recognizer_has_not_taken_it_cannot_have_heard():
    clock = AudioClock(MONO)
    assert clock.way(0) is None
    for at in (1.0, 1.1, 1.2):
        clock.put(CHUNK, at, at)
    assert clock.way(100) is None
    clock.take(1.3)
    assert clock.way(300) == clock.way(100)
    way = clock.way(100)
    assert way is not None
    assert way.taken == 1.3


def test_what_is_forgotten_has_no_figure_and_the_rest_the_right_one():
    chunks = 3 * MAX_MARKS
    clock = spoken(chunks)
    told = [clock.way(number * 100) for number in range(1, chunks + 1)]
    kept = [way for way in told if way is not None]
    assert MAX_MARKS <= len(kept) < 2 * MAX_MARKS
    assert told[-len(kept) :] == kept, "the oldest go first"
    for number, way in enumerate(told, 1):
        if way is not None:
            assert way.received == pytest.approx(100 + number / 10)
    assert clock.way(0) is None


def test_a_recognizer_that_is_far_behind_when_marks_are_forgotten_stays_in_step():
    clock = AudioClock(MONO)
    chunks = 3 * MAX_MARKS
    for number in range(1, chunks + 1):
        clock.put(CHUNK, number / 10, number / 10)
    for number in range(1, chunks + 1):
        clock.take(1000 + number / 10)
    way = clock.way(chunks * 100)
    assert way is not None
    assert (way.received, way.taken) == pytest.approx((chunks / 10, 1000 + chunks / 10))


def test_chunks_of_any_size_agree_with_a_list_of_all_of_them():
    chance = random.Random(7)
    clock, ends, total, at = AudioClock(MONO), [], 0, 50.0
    for _ in range(500):
        size = chance.randrange(2, 4_000)
        at += size / 32_000
        total += size
        ends.append((total, at))
        clock.put(size, at, at)
        clock.take(at)
    for _ in range(300):
        instant = chance.randrange(total // MONO)
        expected = next(moment for end, moment in ends if end >= instant * MONO)
        way = clock.way(instant)
        assert way is not None
        assert way.received == pytest.approx(expected)


def test_a_burst_after_a_hiccup_counts_from_when_it_came():
    clock = spoken(10)  # the first second, and then nothing for two
    for _ in range(20):
        clock.put(CHUNK, 103.0, 103.0)
        clock.take(103.2)
    for instant in (1100, 2000, 3000):
        way = clock.way(instant)
        assert way is not None
        assert way.received == 103.0
        assert way.taken == 103.2


def test_what_a_client_kept_while_it_connected_counts_from_when_it_came():
    clock = AudioClock(MONO)
    for _ in range(int(HEAD_START_S * 10)):
        clock.put(CHUNK, 10.0, 10.0)
        clock.take(10.0)
    way = clock.way(int(HEAD_START_S * 1000))
    assert way is not None
    assert way.received == pytest.approx(10.0)


def test_a_file_that_is_pushed_counts_from_when_it_could_have_been_spoken():
    clock = AudioClock(MONO)
    for number in range(600):  # a minute within a second
        at = 10 + number / 600
        clock.put(CHUNK, at, at)
        clock.take(at)
    way = clock.way(60_000)
    assert way is not None
    spoken_at = 10 - 0.1 + 60 - HEAD_START_S
    assert way.received == way.put == way.taken == pytest.approx(spoken_at, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_within_two_percent(seed: int):
    chance = random.Random(seed)
    values = sorted(chance.lognormvariate(-1.5, 1) for _ in range(2_000))
    spread = Spread()
    for value in values:
        spread.add(value)
    for percent in (50, 95, 99):
        exact = 1000 * values[len(values) * percent // 100 - 1]
        assert spread.percentile_ms(percent) == pytest.approx(exact, rel=0.025, abs=1)


def test_a_stream_without_latencies_has_no_percentile():
    assert Spread().percentile_ms(95) is None


def test_latencies_of_nothing_and_of_hours_are_kept_too():
    spread = Spread()
    spread.add(0.0)
    assert spread.percentile_ms(95) == 1
    spread.add(7_200.0)
    assert spread.percentile_ms(99) == pytest.approx(7_200_000, rel=0.02)
