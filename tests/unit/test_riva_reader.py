"""What the reader makes of servers that break the rules, never end an utterance, or hear more than was said."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.events import Event, Final, FinalReason, Partial, Progress
from asr.options import Endpointing, Options
from asr.riva_codec import ResponseReader, read_recognize
from asr.riva_codec.clock import UpstreamClock
from asr.riva_codec.reader import MAX_OVERTAKEN
from asr.riva_proto import asr as pb

UNKNOWN = Options()


def result(text: str | None, at_s: float = 0.0, final: bool = False, words: Any = (), **keys: Any) -> Any:
    made = pb.StreamingRecognitionResult(is_final=final, audio_processed=at_s, channel_tag=1)
    if text is not None:
        alternative = made.alternatives.add(transcript=text, confidence=keys.pop("confidence", 0.0))
        for word, start_ms, end_ms in words:
            alternative.words.add(word=word, start_time=start_ms, end_time=end_ms)
    for key, value in keys.items():
        setattr(made, key, value)
    return made


def response(*results: Any) -> Any:
    return pb.StreamingRecognizeResponse(results=results)


def say(reader: ResponseReader, *results: Any, sent_ms: int | None = None) -> list[Event]:
    return [e for r in results for e in reader.read(response(r), sent_ms) if not isinstance(e, Progress)]


def texts(events: list[Event]) -> list[tuple[str, str]]:
    return [
        (type(e).__name__ if not isinstance(e, Final) else e.reason.value, e.text)
        for e in events
        if isinstance(e, Partial | Final)
    ]


# --- broken rules


def test_a_final_that_comes_twice_counts_once() -> None:
    reader = ResponseReader(UNKNOWN)
    first = result("yes ", 1.0, True, [("yes", 100, 300)])
    assert texts(say(reader, first, first, first)) == [("endpoint", "yes")]
    assert reader.repairs == 2
    # The same word said again is another final, and so is one whose times are not told.
    assert texts(say(reader, result("yes ", 2.0, True, [("yes", 1100, 1300)]))) == [("endpoint", "yes")]
    assert len(say(reader, result("no", final=True), result("no", final=True))) == 2
    assert reader.repairs == 2


def test_a_partial_that_its_final_has_overtaken_is_dropped() -> None:
    reader = ResponseReader(UNKNOWN)
    events = say(reader, result("one", 0.5), result("one two ", 1.5, True), result("one two", 1.0), result("th", 1.6))
    assert texts(events) == [("Partial", "one"), ("endpoint", "one two"), ("Partial", "th")]
    assert reader.repairs == 1


def test_a_server_that_counts_each_utterance_from_zero_is_believed_in_the_end() -> None:
    reader = ResponseReader(UNKNOWN)
    say(reader, result("one", 60.0, True))
    events = say(reader, *[result(f"word {i}", 1.0 + i) for i in range(MAX_OVERTAKEN + 2)])
    assert len(events) == 2


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, 1e30])
def test_impossible_times_of_results(seconds: float) -> None:
    reader = ResponseReader(UNKNOWN)
    events = reader.read(response(result("a", seconds)), 1000)
    events += reader.read(response(result("a b", seconds, True)), 2000)
    finals = [e for e in events if isinstance(e, Final)]
    assert [(f.text, f.start_ms <= f.end_ms <= 2000) for f in finals] == [("a b", True)]
    assert all(0 <= e.processed_ms <= 2000 for e in events if isinstance(e, Progress))
    assert reader.repairs >= 2


def test_impossible_times_of_words() -> None:
    reader = ResponseReader(UNKNOWN)
    say(reader, result("zero ", 1.0, True, [("zero", 100, 900)]), sent_ms=1000)
    odd = [("a", -500, 950), ("b", 700, 600), ("c", 2**31 - 1, 2**31 - 1), ("d", 1500, 1600)]
    (final,) = say(reader, result("a b c d", 2.0, True, odd), sent_ms=2000)
    assert isinstance(final, Final)
    times = [t for w in final.words for t in (w.start_ms, w.end_ms)]
    assert times == sorted(times)
    assert times[0] >= 900
    assert times[-1] <= 2000
    assert (final.start_ms, final.end_ms) == (times[0], times[-1])
    assert reader.repairs == 1


def test_figures_that_are_none() -> None:
    reader = ResponseReader(UNKNOWN)
    partial, final = say(
        reader, result("a", 0.5, stability=math.nan), result("a", 1.0, True, confidence=math.inf, channel_tag=1)
    )
    assert isinstance(partial, Partial)
    assert partial.stability is None
    assert isinstance(final, Final)
    assert final.confidence_raw is None
    assert reader.repairs == 2


def test_channels_that_cannot_be() -> None:
    reader = ResponseReader(UNKNOWN)
    for tag in (-(2**31), -1, 0, 17, 2**31 - 1):
        say(reader, result(f"a {tag}", final=True, channel_tag=tag))
    assert list(reader._channels) == [0]
    assert reader.repairs == 4


def test_finals_without_anything_before_them_or_in_them() -> None:
    reader = ResponseReader(UNKNOWN)
    assert say(reader, result(None, 0.5, True), result("", 0.6, True)) == []
    events = say(reader, result("a", 0.8), result(None, 1.0, True), result("b", 2.0, True))
    assert texts(events) == [("Partial", "a"), ("endpoint", ""), ("endpoint", "b")]
    assert [e.utterance for e in events if isinstance(e, Final)] == [0, 1]


RESULTS = st.builds(
    lambda text, at, final, words, tag, stability: result(
        text, at, final, words if text is not None else (), channel_tag=tag, stability=stability
    ),
    st.sampled_from([None, "", " ", "a", "a b", "b", "a b c d e"]),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, -1.0, math.nan, math.inf, 1e9]),
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(-(2**31), 2**31 - 1) | st.integers(0, 5000),
            st.integers(-(2**31), 2**31 - 1) | st.integers(0, 5000),
        ),
        max_size=3,
    ),
    st.sampled_from([0, 1, 1, 1, 2, 99]),
    st.sampled_from([0.0, 0.1, 1.0, math.nan]),
)


@settings(max_examples=60)
@given(st.lists(st.lists(RESULTS, max_size=3), max_size=8), st.sampled_from([0, 300]))
def test_whatever_is_sent_the_contract_holds(script: list[list[Any]], quiet_ms: int) -> None:
    clock = UpstreamClock()
    reader = ResponseReader(UNKNOWN, clock, quiet_ms)
    sent_ms, events = 0, list[Event]()
    for number, results in enumerate(script):
        sent_ms += 500
        if number == 3:
            clock.inserted(sent_ms * 32, 100)
        events += reader.read(response(*results), sent_ms)
    events += reader.quiet()
    reader.stop(sent_ms)
    events += reader.end()
    progress = [e.processed_ms for e in events if isinstance(e, Progress)]
    assert progress == sorted(set(progress))
    assert all(0 <= ms <= sent_ms for ms in progress)
    for channel in {e.channel for e in events if isinstance(e, Partial | Final)}:
        said = [e for e in events if isinstance(e, Partial | Final) and e.channel == channel]
        finals = [e for e in said if isinstance(e, Final)]
        assert [f.utterance for f in finals] == list(range(len(finals)))
        open_now, floor_ms = 0, 0
        for event in said:
            assert event.utterance == open_now
            assert floor_ms <= event.start_ms <= event.end_ms <= sent_ms
            times = [t for w in event.words for t in (w.start_ms, w.end_ms)]
            assert times == sorted(times)
            assert not times or event.start_ms <= times[0] <= times[-1] <= event.end_ms
            if isinstance(event, Final):
                open_now, floor_ms = open_now + 1, event.end_ms


# --- utterances that the server never ends


def test_a_text_that_stays_becomes_a_final_and_its_head_is_not_said_again() -> None:
    reader = ResponseReader(UNKNOWN, quiet_final_ms=6000)
    events = say(
        reader,
        result("so it", 1.0),
        result("so it goes", 2.0),
        result("so it goes", 7.9),
        result("so it goes", 8.0),
        result("so it goes", 9.0),
        result("so it goes on", 10.0),
        result("so it goes on and on", 11.0),
    )
    assert texts(events) == [
        ("Partial", "so it"),
        ("Partial", "so it goes"),
        ("upstream_silent", "so it goes"),
        ("Partial", "on"),
        ("Partial", "on and on"),
    ]
    final, after = events[2], events[3]
    assert isinstance(final, Final)
    # It ends where its last word came, not where the quiet did.
    assert (final.start_ms, final.end_ms) == (0, 2000)
    assert isinstance(after, Partial)
    assert (after.utterance, after.start_ms, after.end_ms) == (1, 2000, 10_000)
    reader.stop(12_000)
    assert texts(reader.end()) == [("stop", "on and on")]


def test_three_in_a_row() -> None:
    reader = ResponseReader(UNKNOWN, quiet_final_ms=1000)
    said = ["a b", "a b", "a b c d", "a b c d", "a x c d e", "a x c d e"]
    events = say(reader, *[result(text, 1.0 + 1.5 * i) for i, text in enumerate(said)])
    assert [text for kind, text in texts(events) if kind == "upstream_silent"] == ["a b", "c d", "e"]
    reader.stop(20_000)
    assert reader.end() == []


def test_a_real_final_says_only_what_is_new() -> None:
    reader = ResponseReader(UNKNOWN, quiet_final_ms=1000)
    say(reader, result("good day", 1.0), result("good day", 2.0))
    assert texts(say(reader, result("Good day. Sir. ", 3.0, True))) == [("endpoint", "Sir.")]
    # Nothing is left of what was cut: the next utterance may begin with the same words.
    assert texts(say(reader, result("good day", 4.0))) == [("Partial", "good day")]
    say(reader, result("good day", 5.0))
    assert say(reader, result("good day ", 6.0, True)) == []
    assert texts(say(reader, result("good day", 7.0, True))) == [("endpoint", "good day")]


def test_words_are_cut_by_their_times() -> None:
    reader = ResponseReader(UNKNOWN, quiet_final_ms=1000)
    one, two, three = ("one", 100, 300), ("two", 400, 700), ("three", 2500, 2800)
    events = say(reader, result("one two", 1.0, words=[one, two]), result("one two", 2.0, words=[one, two]))
    final = events[-1]
    assert isinstance(final, Final)
    assert [(w.text, w.start_ms) for w in final.words] == [("one", 100), ("two", 400)]
    assert (final.start_ms, final.end_ms) == (100, 700)
    (last,) = say(reader, result("1 2 three", 3.0, True, [("1", 90, 300), ("2", 400, 720), three]))
    assert isinstance(last, Final)
    assert (last.text, [(w.text, w.start_ms, w.end_ms) for w in last.words]) == ("three", [three])


def test_a_server_that_begins_anew_without_a_word_loses_nothing() -> None:
    reader = ResponseReader(UNKNOWN, quiet_final_ms=1000)
    say(reader, result("so it goes on", 1.0), result("so it goes on", 2.0))
    events = say(reader, result("hello", 3.0), result("hello so it goes", 3.5))
    assert texts(events) == [("Partial", "hello"), ("Partial", "hello so it goes")]


def test_what_was_never_reported_is_asked_by_the_call() -> None:
    reader = ResponseReader(UNKNOWN, quiet_final_ms=1000)
    assert reader.quiet() == []
    reader.read(response(result("a")), 500)
    changes = reader.changes
    reader.read(response(result("a")), 9000)
    assert reader.changes == changes, "nothing was said that is new"
    (final,) = reader.quiet()
    assert isinstance(final, Final)
    assert (final.reason, final.end_ms) == (FinalReason.UPSTREAM_SILENT, 500)
    assert reader.changes > changes


def test_times_that_begin_late_are_no_quiet() -> None:
    reader = ResponseReader(UNKNOWN, quiet_final_ms=1000)
    events = say(reader, result("a"), result("a", 60.0), sent_ms=60_000)
    assert texts(events) == [("Partial", "a")]
    assert texts(say(reader, result("a", 61.0), sent_ms=61_000)) == [("upstream_silent", "a")]


@pytest.mark.parametrize(
    ("options", "quiet_ms", "ended"),
    [
        (Options(), 0, False),
        (Options(endpointing=Endpointing(manual=True)), 1000, False),
        (Options(endpointing=Endpointing(silence_ms=5000)), 1000, False),
        (Options(endpointing=Endpointing(silence_ms=2000)), 1000, True),
    ],
)
def test_the_callers_own_rules_come_first(options: Options, quiet_ms: int, ended: bool) -> None:
    reader = ResponseReader(options, quiet_final_ms=quiet_ms)
    events = say(reader, result("a", 1.0), result("a", 5.0))
    assert any(isinstance(e, Final) for e in events) is ended


# --- silence that only the server heard


def test_times_are_the_callers() -> None:
    clock = UpstreamClock()
    reader = ResponseReader(UNKNOWN, clock)
    clock.inserted(1000 * 32, 100)
    clock.inserted(1000 * 32, 100)
    events = reader.read(response(result("a b ", 2.2, True, [("a", 900, 1150), ("b", 1300, 2100)])), 2000)
    final = events[0]
    assert isinstance(final, Final)
    assert [(w.start_ms, w.end_ms) for w in final.words] == [(900, 1000), (1100, 1900)]
    assert events[-1] == Progress(2000)
    assert reader.repairs == 0


def test_recordings_are_put_right_too() -> None:
    recording = pb.RecognizeResponse()
    made = recording.results.add(audio_processed=math.nan, channel_tag=-3)
    made.alternatives.add(transcript="a", confidence=math.nan).words.add(word="a", start_time=-5, end_time=99_999)
    final, progress = read_recognize(recording, UNKNOWN, 700)
    assert isinstance(final, Final)
    assert (final.start_ms, final.end_ms, final.confidence_raw) == (0, 700, None)
    assert progress == Progress(700)
