"""The circuit breaker: closed, open, one probe at a time, and verdicts that come late."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.resilience.breaker import Breaker, BreakerState, Ticket

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def breaker(changes: list[tuple[BreakerState, BreakerState]] | None = None) -> Breaker:
    """Opens at the third failure for 5 s; a probe has 15 s."""
    return Breaker(3, 5_000, 15_000, on_change=None if changes is None else lambda a, b: changes.append((a, b)))


def entered(subject: Breaker, now: float) -> Ticket:
    ticket = subject.enter(now)
    assert ticket is not None
    return ticket


def opened(subject: Breaker, now: float) -> Breaker:
    for _ in range(3):
        entered(subject, now).failed(now)
    assert subject.state is OPEN
    return subject


def test_opens_at_the_last_of_the_failures_in_a_row() -> None:
    subject = breaker()
    for _ in range(2):
        entered(subject, 1.0).failed(1.0)
    assert subject.state is CLOSED
    entered(subject, 1.0).failed(1.0)
    assert subject.state is OPEN
    assert subject.enter(1.0) is None
    assert not subject.admits(5.9)
    assert subject.wait_ms(1.0) == 5_000
    assert subject.wait_ms(5.5) == 500
    assert subject.wait_ms(6.0) == 0


def test_a_success_in_between_starts_the_count_again() -> None:
    subject = breaker()
    for _ in range(5):
        entered(subject, 1.0).failed(1.0)
        entered(subject, 1.0).failed(1.0)
        entered(subject, 1.0).succeeded(1.0)
    assert subject.state is CLOSED


def test_the_first_event_closes_it_while_the_probe_goes_on() -> None:
    subject = opened(breaker(), 0.0)
    probe = entered(subject, 5.0)
    assert subject.state is HALF_OPEN
    assert subject.enter(5.0) is None
    probe.succeeded(5.2)
    assert subject.state is CLOSED
    assert all(subject.enter(5.2) for _ in range(10))


def test_the_probe_that_closed_it_counts_like_any_stream_when_it_dies_later() -> None:
    subject = opened(breaker(), 0.0)
    probe = entered(subject, 5.0)
    probe.succeeded(5.2)
    probe.failed(600.0)
    probe.failed(600.0)
    assert subject.state is CLOSED
    entered(subject, 600.0).failed(600.0)
    entered(subject, 600.0).failed(600.0)
    assert subject.state is OPEN


def test_a_failed_probe_opens_it_for_the_whole_time_again() -> None:
    subject = opened(breaker(), 0.0)
    entered(subject, 7.0).failed(9.0)
    assert subject.state is OPEN
    assert subject.wait_ms(9.0) == 5_000


def test_a_probe_without_verdict_keeps_the_next_one_out_only_so_long() -> None:
    subject = opened(breaker(), 0.0)
    silent = entered(subject, 5.0)
    assert subject.wait_ms(5.0) == 15_000
    assert subject.enter(19.9) is None
    second = entered(subject, 20.0)
    silent.failed(20.5)  # it counts for nothing any more, and the second one is still to be heard
    assert subject.state is HALF_OPEN
    silent.released()
    assert subject.enter(20.5) is None
    second.succeeded(21.0)
    assert subject.state is CLOSED


def test_an_overdue_probe_still_counts_while_no_other_has_begun() -> None:
    late = opened(breaker(), 0.0)
    entered(late, 5.0).failed(30.0)
    assert late.state is OPEN


def test_an_overdue_probe_that_speaks_after_all_is_a_sign_of_life() -> None:
    subject = opened(breaker(), 0.0)
    silent = entered(subject, 5.0)
    entered(subject, 20.0)
    silent.succeeded(21.0)
    assert subject.state is CLOSED


def test_a_released_probe_makes_room_for_another() -> None:
    subject = opened(breaker(), 0.0)
    probe = entered(subject, 5.0)
    probe.released()
    assert subject.state is HALF_OPEN
    assert subject.wait_ms(5.0) == 0
    second = entered(subject, 5.0)
    probe.released()
    probe.failed(5.0)
    assert subject.state is HALF_OPEN
    assert subject.enter(5.0) is None
    second.succeeded(5.0)
    assert subject.state is CLOSED


def test_twenty_streams_that_die_with_their_endpoint_open_it_once() -> None:
    changes: list[tuple[BreakerState, BreakerState]] = []
    subject = breaker(changes)
    streams = [entered(subject, 0.0) for _ in range(20)]
    for stream in streams:
        stream.succeeded(0.5)
    for i, stream in enumerate(streams):
        stream.failed(100.0 + i / 10)
    assert changes == [(CLOSED, OPEN)]
    assert subject.admits(105.2)  # 5 s from the third death, not from the last


def test_streams_from_before_it_opened_neither_close_nor_open_it() -> None:
    subject = breaker()
    early = [entered(subject, 0.0) for _ in range(12)]
    opened(subject, 1.0)
    early[0].succeeded(1.1)
    assert subject.state is OPEN
    probe = entered(subject, 6.0)
    early[1].succeeded(6.1)
    early[2].failed(6.1)
    assert subject.state is HALF_OPEN
    assert subject.enter(6.1) is None
    probe.succeeded(6.2)
    for stream in early:
        stream.failed(6.3)
    assert subject.state is CLOSED
    entered(subject, 6.4).failed(6.4)
    entered(subject, 6.4).failed(6.4)
    early[3].succeeded(6.5)
    entered(subject, 6.6).failed(6.6)
    assert subject.state is OPEN


def test_a_probe_of_an_earlier_opening_does_not_close_a_later_one() -> None:
    subject = opened(breaker(), 0.0)
    silent = entered(subject, 5.0)
    entered(subject, 20.0).failed(20.1)
    silent.succeeded(20.2)
    assert subject.state is OPEN


def test_a_ticket_says_each_thing_once() -> None:
    subject = breaker()
    ticket = entered(subject, 0.0)
    for _ in range(5):
        ticket.failed(0.0)
    ticket.succeeded(0.0)
    assert subject.state is CLOSED
    entered(subject, 0.0).failed(0.0)
    entered(subject, 0.0).failed(0.0)
    assert subject.state is OPEN, "the success after the failure must not have wiped it"

    fresh = breaker()
    gone = entered(fresh, 0.0)
    gone.released()
    for _ in range(5):
        gone.failed(0.0)
    assert fresh.state is CLOSED

    steady = breaker()
    talking = entered(steady, 0.0)
    talking.succeeded(0.0)
    entered(steady, 1.0).failed(1.0)
    entered(steady, 1.0).failed(1.0)
    talking.succeeded(1.0)  # its second event is no news
    entered(steady, 1.0).failed(1.0)
    assert steady.state is OPEN


def test_recovery_seen_from_outside_lets_a_probe_in_at_once() -> None:
    subject = opened(breaker(), 0.0)
    subject.recovered(1.0)
    assert subject.state is HALF_OPEN
    entered(subject, 1.0)
    subject.recovered(1.0)
    assert subject.enter(1.0) is None
    healthy = breaker()
    healthy.recovered(1.0)
    assert healthy.state is CLOSED


def test_every_change_is_told_once_and_complete() -> None:
    changes: list[tuple[BreakerState, BreakerState]] = []
    seen: list[BreakerState] = []

    def changed(before: BreakerState, after: BreakerState) -> None:
        changes.append((before, after))
        seen.append(subject.state)

    subject = Breaker(1, 1_000, 1_000, on_change=changed)
    entered(subject, 0.0).failed(0.0)
    entered(subject, 1.0).failed(1.0)
    entered(subject, 2.0).succeeded(2.0)
    assert changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]
    assert seen == [after for _, after in changes]


@pytest.mark.parametrize(("opens", "asks"), [(2.45, 3.02), (1.453, 1.895), (0.094, 1.463)])
def test_who_waits_as_long_as_told_is_not_refused_over_a_rounding(opens: float, asks: float) -> None:
    subject = opened(breaker(), opens)
    assert subject.admits(asks + subject.wait_ms(asks) / 1000)


def test_no_failures_at_all_is_no_setting() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Breaker(0, 1_000, 1_000)


steps = st.lists(
    st.tuples(
        st.floats(0.0, 7.0),
        st.sampled_from(["enter", "enter", "succeeded", "failed", "failed", "released", "recovered"]),
        st.integers(0, 30),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.floats(0.0, 1e6), st.integers(1, 4))
def test_one_probe_at_a_time_and_no_lock_for_ever(
    moves: list[tuple[float, str, int]], now: float, failures: int
) -> None:
    subject = Breaker(failures, 5_000, 15_000)
    tickets: list[Ticket] = []
    probes: list[tuple[Ticket, float]] = []
    """Those that nothing has been heard of, and when they began."""
    for pause, move, which in moves:
        now += pause
        state, admits = subject.state, subject.admits(now)
        assert admits is (subject.wait_ms(now) == 0)
        assert subject.state is state, "looking changes nothing"
        ticket = tickets[which % len(tickets)] if tickets else None
        if move == "enter":
            issued = subject.enter(now)
            assert (issued is not None) is admits
            if issued is not None:
                tickets.append(issued)
                if state is not CLOSED:
                    assert all(now - began >= 14.999 for _, began in probes), "a second live probe"
                    assert subject.state is HALF_OPEN
                    probes.append((issued, now))
        elif move == "recovered":
            subject.recovered(now)
        elif ticket is not None:
            if move == "succeeded":
                ticket.succeeded(now)
            elif move == "failed":
                ticket.failed(now)
            else:
                ticket.released()
            probes = [probe for probe in probes if probe[0] is not ticket]
        if subject.state is not HALF_OPEN:
            probes = []
        wait_ms = subject.wait_ms(now)
        assert wait_ms <= 15_000
        assert subject.admits(now + wait_ms / 1000), "who waits as long as told is admitted"
    assert subject.admits(now + 20.0)
    assert subject.enter(now + 20.0) is not None
