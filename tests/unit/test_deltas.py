"""Deltas: text that only grows, out of guesses that do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asr.events import FinalReason
from asr.utterances import UtteranceCounter
from server.deltas import Deltas


def test_a_partial_lets_out_what_is_agreed_on_and_the_final_the_rest() -> None:
    deltas = Deltas("en-US")
    assert deltas.partial("hello", 0) == ""
    assert deltas.partial("hello there", 5) == "hello"
    assert deltas.partial("hello there you", 11) == " there"
    assert deltas.partial("hello there you", 11) == ""
    assert deltas.final("Hello there, you.") == " you."
    assert deltas.final("And again.") == " And again."
    assert deltas.sent == "hello there you. And again."


def test_finals_alone_join_to_the_whole_text() -> None:
    deltas = Deltas("en-US")
    assert [deltas.final(text) for text in ("One.", "", "Two.")] == ["One.", "", " Two."]


def test_what_is_written_without_blanks_is_joined_without() -> None:
    deltas = Deltas("ja-JP")
    assert [deltas.final(text) for text in ("今日は", "晴れ")] == ["今日は", "晴れ"]


def test_a_final_that_takes_words_back_adds_nothing() -> None:
    deltas = Deltas()
    assert deltas.partial("one two three", 13) == "one two three"
    assert deltas.final("one two") == ""
    assert deltas.final("four") == " four"


def test_channels_do_not_mix_their_words() -> None:
    deltas = Deltas()
    assert deltas.partial("left", 4, 0) == "left"
    assert deltas.partial("right", 5, 1) == ""
    assert deltas.final("left side", 0) == " side"
    assert deltas.final("right side", 1) == " right side"
    assert deltas.sent == "left side right side"


@given(st.lists(st.lists(st.lists(st.sampled_from(["a", "an", "ant", "b"]), max_size=4), min_size=1), max_size=4))
def test_the_deltas_joined_are_what_was_sent_and_hold_every_final_that_kept_its_word(
    utterances: list[list[list[str]]],
) -> None:
    deltas, counter, joined = Deltas(), UtteranceCounter(), ""
    for revisions in utterances:
        before = joined
        for words in revisions[:-1]:
            partial = counter.partial(" ".join(words), 0, 0)
            if partial is not None:
                joined += deltas.partial(partial.text, partial.stable_chars)
        let_out = joined[len(before) :].strip()
        final = counter.final(" ".join(revisions[-1]), 0, 0, reason=FinalReason.STOP)
        joined += deltas.final(final.text)
        if final.text.startswith(let_out):
            assert joined[len(before) :].strip() == final.text
    assert joined == deltas.sent
