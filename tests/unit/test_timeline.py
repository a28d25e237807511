"""Several channels on one timeline: order, numbers, and how long a final waits."""

import math
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from asr.events import Event, Final, Flushed, Gap, GapCause, Partial, Progress, SpeechStarted, State, Status
from asr.timeline import HOLD_S, Timeline


def partial(number: int, end_ms: int) -> Partial:
    return Partial(number, 1, "w", max(0, end_ms - 100), end_ms)


def final(number: int, end_ms: int) -> Final:
    return Final(number, 2, "w", max(0, end_ms - 100), end_ms)


def said(events: Iterable[Event]) -> list[tuple[str, int, int, int]]:
    """Kind, channel, utterance and end of what is worded; for the rest its kind and time."""
    told = []
    for event in events:
        if isinstance(event, Partial | Final):
            told.append((type(event).__name__, event.channel, event.utterance, event.end_ms))
        elif isinstance(event, Progress):
            told.append(("Progress", -1, -1, event.processed_ms))
        elif isinstance(event, Flushed):
            told.append(("Flushed", -1, -1, event.audio_ms))
    return told


def tell(timeline: Timeline, channel: int, *events: Event, now: float = 0.0) -> list[tuple[str, int, int, int]]:
    out: list[Event] = []
    for event in events:
        timeline.add(channel, event, now)
        out += timeline.due(now)
    return said(out)


def test_numbers_follow_the_first_event_and_stay_with_their_utterance() -> None:
    timeline = Timeline(2)
    assert tell(timeline, 1, partial(0, 300)) == [("Partial", 1, 0, 300)]
    assert tell(timeline, 0, partial(0, 400)) == [("Partial", 0, 1, 400)]
    assert tell(timeline, 1, final(0, 350)) == [("Final", 1, 0, 350)]
    assert tell(timeline, 1, partial(1, 500)) == [("Partial", 1, 2, 500)]
    assert tell(timeline, 0, final(0, 450)) == [("Final", 0, 1, 450)]


def test_a_final_waits_for_one_that_may_end_before_it() -> None:
    timeline = Timeline(2)
    tell(timeline, 1, partial(0, 300))
    timeline.took(1, 5_000)
    assert tell(timeline, 0, final(0, 900), now=1.0) == []
    assert timeline.wake_at == 1.0 + HOLD_S
    assert tell(timeline, 1, final(0, 700), now=1.1) == [("Final", 1, 0, 700), ("Final", 0, 1, 900)]
    assert timeline.wake_at is None


def test_a_final_waits_for_a_channel_whose_audio_was_not_taken_so_far() -> None:
    timeline = Timeline(2)
    timeline.took(1, 800)
    assert tell(timeline, 0, final(0, 900)) == []
    timeline.took(1, 900)
    assert said(timeline.due(0.1)) == [("Final", 0, 0, 900)]


def test_nothing_waits_for_a_silent_channel_that_has_its_audio_or_is_over() -> None:
    timeline = Timeline(3)
    timeline.took(1, 900)
    timeline.ended(2)
    assert tell(timeline, 0, final(0, 900)) == [("Final", 0, 0, 900)]


def test_nothing_waits_for_long() -> None:
    timeline = Timeline(2)
    tell(timeline, 1, partial(0, 300))
    assert tell(timeline, 0, final(0, 900), partial(1, 1_000), now=1.0) == []
    assert timeline.due(1.0 + HOLD_S - 0.01) == []
    assert said(timeline.due(1.0 + HOLD_S)) == [("Final", 0, 1, 900), ("Partial", 0, 2, 1_000)]
    assert tell(timeline, 1, final(0, 700), now=1.5) == [("Final", 1, 0, 700)]


def test_one_that_has_waited_long_enough_goes_before_one_that_ends_earlier() -> None:
    timeline = Timeline(3)
    tell(timeline, 2, partial(0, 100))
    assert tell(timeline, 0, final(0, 900), now=1.0) == []
    assert tell(timeline, 1, final(0, 800), now=1.2) == []
    assert said(timeline.due(1.0 + HOLD_S)) == [("Final", 0, 1, 900)]
    assert said(timeline.due(1.2 + HOLD_S)) == [("Final", 1, 2, 800)]


def test_progress_is_that_of_the_last_and_does_not_overtake_what_waits() -> None:
    timeline = Timeline(2)
    assert tell(timeline, 0, Progress(1_000)) == []
    assert tell(timeline, 1, Progress(400)) == [("Progress", -1, -1, 400)]
    tell(timeline, 0, partial(0, 1_300))
    assert tell(timeline, 1, final(0, 1_400), Progress(2_000)) == []
    assert tell(timeline, 0, Progress(1_500)) == [("Final", 1, 1, 1_400), ("Progress", -1, -1, 1_500)]
    timeline.ended(0)
    assert said(timeline.due(0.0)) == [("Progress", -1, -1, 2_000)]


def test_one_flushed_when_all_have_answered() -> None:
    timeline = Timeline(2)
    assert tell(timeline, 0, Flushed(500), Flushed(700)) == []
    assert tell(timeline, 1, final(0, 480), Flushed(500)) == [
        ("Final", 1, 0, 480),
        ("Flushed", -1, -1, 500),
        ("Progress", -1, -1, 500),
    ]
    timeline.ended(1)
    assert said(timeline.due(0.0)) == [("Flushed", -1, -1, 700), ("Progress", -1, -1, 700)]


def test_the_channel_is_told_of_whatever_belongs_to_one() -> None:
    timeline = Timeline(2)
    for event in (SpeechStarted(10), Gap(0, 10, GapCause.UPSTREAM_LOST)):
        timeline.add(1, event, 0.0)
        (told,) = timeline.due(0.0)
        assert told.channel == 1  # type: ignore[union-attr]


def test_the_state_is_that_of_the_worst_channel() -> None:
    timeline = Timeline(2)

    def status(channel: int, state: State) -> list[State]:
        timeline.add(channel, Status(state, 10), 0.0)
        return [event.state for event in timeline.due(0.0) if isinstance(event, Status)]

    assert status(0, State.FAILING_OVER) == [State.FAILING_OVER]
    assert status(1, State.FAILING_OVER) == []
    assert status(1, State.FAILING_OVER) == [State.FAILING_OVER]
    assert status(0, State.RECOVERED) == []
    assert status(1, State.RECOVERED) == [State.RECOVERED]
    assert status(1, State.THROTTLED) == [State.THROTTLED]
    assert status(0, State.DEGRADED) == []


Steps = list[tuple[int, int, bool]]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 4), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 400), st.booleans()), max_size=40))
def test_whatever_comes_nothing_is_lost_and_each_channel_keeps_its_order(channels: int, steps: Steps) -> None:
    timeline = Timeline(channels)
    at = [0] * channels
    number = [0] * channels
    given_finals: list[list[int]] = [[] for _ in range(channels)]
    out: list[Event] = []
    for turn, (channel, length, ends) in enumerate(steps):
        channel %= channels
        at[channel] += length
        timeline.took(channel, at[channel] + 50)
        if ends:
            timeline.add(channel, final(number[channel], at[channel]), turn / 10)
            given_finals[channel].append(at[channel])
            number[channel] += 1
        else:
            timeline.add(channel, partial(number[channel], at[channel]), turn / 10)
        out += timeline.due(turn / 10)
    out += timeline.due(math.inf)
    finals = [event for event in out if isinstance(event, Final)]
    for channel in range(channels):
        assert [event.end_ms for event in finals if event.channel == channel] == given_finals[channel]
    worded = [event for event in out if isinstance(event, Partial | Final)]
    first_seen = list(dict.fromkeys(event.utterance for event in worded))
    assert first_seen == list(range(len(first_seen)))
    owner = {event.utterance: event.channel for event in worded}
    assert all(owner[event.utterance] == event.channel for event in worded)
    assert len({event.utterance for event in finals}) == len(finals)
