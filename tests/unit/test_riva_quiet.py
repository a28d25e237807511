"""What is left of a server's text after its head has been made final; and when quiet has lasted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.events import Word
from asr.riva_codec.quiet import MAX_ALIGNED, QuietSpan, SpokenHead


def head_of(text: str, end_ms: int = 0) -> SpokenHead:
    head = SpokenHead()
    head.set(text, end_ms)
    return head


def timed(*words: tuple[str, int]) -> tuple[Word, ...]:
    return tuple(Word(text, start_ms, start_ms + 100) for text, start_ms in words)


@pytest.mark.parametrize(
    ("head", "said", "new"),
    [
        # it grows
        ("one two", "one two", ""),
        ("one two", "one two three", "three"),
        ("one two", "one two. Three", "Three"),
        ("one two", "One, two, three", "three"),
        ("yes", "", ""),
        # its end is rewritten
        ("I have two cat", "I have two cats and a dog", "and a dog"),
        ("their two cats", "there too cats ran", "ran"),
        ("one two three", "won too free four", "four"),
        # a word more or less in the middle
        ("it was cold out there", "it was very cold out there and dark", "and dark"),
        ("it was very cold out there", "it was cold out there and dark", "and dark"),
        # the head of the head is lost, or most of it
        ("it should be connected again and", "again and then", "then"),
        ("it should be connected again and", "it s", ""),
        ("so it goes on", "so", ""),
        # the server has begun anew
        ("so it goes on", "hello there", "hello there"),
        ("yes", "what a day", "what a day"),
        ("good morning", "can you hear me now", "can you hear me now"),
        # no blanks between words
        ("こんにちは", "こんにちは世界", "世界"),
        ("こんにちは", "こんにちは。世界です", "世界です"),
    ],
)
def test_the_head_is_cut_off(head: str, said: str, new: str) -> None:
    assert head_of(head).cut(said, ())[0] == new


def test_without_a_head_nothing_is_touched() -> None:
    words = timed(("a", 0))
    assert SpokenHead().cut(" a ", words) == (" a ", words)
    assert not SpokenHead()
    head = head_of("a")
    assert head
    head.clear()
    assert head.cut("a b", ()) == ("a b", ())


def test_times_decide_where_there_are_any() -> None:
    head = head_of("one two", 900)
    words = timed(("won", 100), ("to", 500), ("three", 1500))
    assert head.cut("won to three", words) == ("three", words[2:])
    # Written numbers: fewer words in the text than have times.
    words = timed(("one", 100), ("two", 500), ("twenty", 1500), ("one", 1700))
    assert head.cut("one two 21", words) == ("21", words[2:])
    assert head.cut("one two", words[:2]) == ("", ())
    assert head.cut("12", words[:2]) == ("", ())
    # All of it is later than the head: the server has begun anew, be the words the same.
    again = timed(("one", 2000), ("two", 2400))
    assert head.cut("one two", again) == ("one two", again)


def test_a_very_long_head_is_counted() -> None:
    words = [f"w{i}" for i in range(3 * MAX_ALIGNED)]
    changed = ["x", *words[1:], "new"]
    assert head_of(" ".join(words)).cut(" ".join(changed), ())[0] == "new"


@given(st.lists(st.sampled_from(["a", "b", "see"]), max_size=6), st.lists(st.sampled_from(["d", "e"]), max_size=6))
def test_what_only_grows_is_never_lost_or_repeated(head: list[str], more: list[str]) -> None:
    assert head_of(" ".join(head)).cut(" ".join(head + more), ())[0] == " ".join(more)


@given(st.text(), st.text())
def test_any_text_is_survived(head: str, said: str) -> None:
    new, _ = head_of(head).cut(said, ())
    assert new in said


def test_quiet_needs_time_and_audio() -> None:
    quiet = QuietSpan(6000)
    assert not quiet.passed(0, 1000, 0)
    assert not quiet.passed(0, 8000, 5000), "an idle caller"
    assert not quiet.passed(0, 6000, 60_000), "a file that is sent fast"
    assert quiet.passed(0, 7000, 6000)
    assert not quiet.passed(1, 9000, 9000), "something was said"
    assert quiet.passed(1, 15_000, 15_000)
    never = QuietSpan(0)
    never.passed(0, 0, 0)
    assert not never.passed(0, 10**9, 10**9)
