"""Silence that was inserted for the server only, taken off its times again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asr.riva_codec.clock import MAX_INSERTIONS, UpstreamClock

MS = 32


def test_without_insertions_times_stay() -> None:
    clock = UpstreamClock()
    assert [clock.to_caller(ms) for ms in (-5, 0, 1, 10**9)] == [-5, 0, 1, 10**9]


def test_times_in_the_silence_are_where_it_began() -> None:
    clock = UpstreamClock()
    clock.inserted(1000 * MS, 100)
    assert [clock.to_caller(ms) for ms in (0, 999, 1000, 1050, 1100, 1101, 2000)] == [
        0,
        999,
        1000,
        1000,
        1000,
        1001,
        1900,
    ]


def test_hours_of_silence_are_one_place() -> None:
    clock = UpstreamClock()
    for _ in range(10_000):
        clock.inserted(500 * MS, 100)
    assert len(clock._starts) == 1
    assert clock.to_caller(500 + 1_000_000 + 7) == 507


def test_odd_chunks_do_not_drift() -> None:
    # Each chunk ends in the middle of a millisecond; a clock that rounded places would lose one each time.
    clock = UpstreamClock()
    sent = 0
    for _ in range(300):
        sent += 3 * MS + 16
        clock.inserted(sent, 100)
    assert clock.to_caller(sent // MS + 300 * 100) == sent // MS


def test_many_places_are_bounded_and_late_times_stay_right() -> None:
    clock = UpstreamClock()
    for i in range(1, 3 * MAX_INSERTIONS):
        clock.inserted(i * 1000 * MS, 100)
    assert len(clock._starts) == len(clock._places) == len(clock._totals) == MAX_INSERTIONS
    last = 3 * MAX_INSERTIONS - 1
    assert clock.to_caller(last * 1100 + 5) == last * 1000 + 5
    assert clock.to_caller(0) == 0


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 500)), max_size=20), st.integers(0, 200_000))
def test_every_sample_comes_back_to_its_place(steps: list[tuple[int, int]], probe: int) -> None:
    # The server's time axis, written down sample pair by sample pair: which caller ms each of its ms belongs to.
    clock = UpstreamClock()
    axis: list[int] = []
    sent = 0
    for spoken_ms, silent_ms in steps:
        axis += range(sent, sent + spoken_ms)
        sent += spoken_ms
        clock.inserted(sent * MS, silent_ms)
        axis += [sent] * silent_ms
    wanted = axis[probe] if probe < len(axis) else sent + probe - len(axis)
    assert clock.to_caller(probe) == wanted
