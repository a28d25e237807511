"""Numbers of utterances and revisions, and the head on which guesses agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.events import FinalReason, Word
from asr.utterances import UtteranceCounter, agreed_chars


@pytest.mark.parametrize(
    ("before", "now", "agreed"),
    [
        ("", "", ""),
        ("", "good", ""),
        ("good", "good", "good"),
        ("good", "good morning", "good"),
        ("good morning", "good", "good"),
        ("good mor", "good morning", "good"),
        ("good morning", "good mourning", "good"),
        ("goods", "good", ""),
        ("wood", "good", ""),
        ("a b c", "a b d", "a b"),
        ("a b c", "a bb c", "a"),
    ],
)
def test_agreement_ends_at_a_whole_word(before: str, now: str, agreed: str) -> None:
    assert now[: agreed_chars(before, now)] == agreed


texts = st.lists(st.sampled_from(["a", "ab", "abc", "b", "b c"]), max_size=6).map(" ".join)


@given(texts, texts)
def test_agreement_is_a_shared_head_of_whole_words(before: str, now: str) -> None:
    agreed = agreed_chars(before, now)
    assert before[:agreed] == now[:agreed]
    assert agreed == len(now) or agreed == 0 or now[agreed] == " "
    assert agreed == len(before) or agreed == 0 or before[agreed] == " "
    assert agreed_chars(now, before) == agreed


def test_partials_are_numbered_and_a_final_ends_the_utterance() -> None:
    counter = UtteranceCounter()
    assert not counter.is_open
    first = counter.partial("good", 100, 400)
    second = counter.partial("good morning", 100, 800, stability=0.5)
    assert first is not None
    assert second is not None
    assert [(p.utterance, p.revision, p.stable_chars) for p in (first, second)] == [(0, 1, 0), (0, 2, 4)]
    assert (counter.is_open, counter.last_text) == (True, "good morning")
    final = counter.final(" Good morning. ", 100, 900, reason=FinalReason.ENDPOINT)
    assert (final.utterance, final.revision, final.text) == (0, 3, "Good morning.")
    assert (counter.is_open, counter.last_text, counter.utterance) == (False, "", 1)


def test_a_final_without_partials_is_its_first_revision() -> None:
    counter = UtteranceCounter(channel=1)
    finals = [counter.final("a", 0, 100, reason=FinalReason.STOP) for _ in range(2)]
    assert [(f.utterance, f.revision, f.channel) for f in finals] == [(0, 1, 1), (1, 1, 1)]


def test_a_partial_that_says_nothing_new_is_left_out() -> None:
    counter = UtteranceCounter()
    assert counter.partial("good", 0, 100) is not None
    assert counter.partial("good", 0, 200) is None
    eager = counter.partial("good", 0, 200, eager_eou=True)
    assert eager is not None
    assert (eager.revision, eager.stable_chars) == (2, 4)


def test_the_clock_never_goes_back() -> None:
    counter = UtteranceCounter()
    counter.final("a", 0, 1000, reason=FinalReason.ENDPOINT)
    partial = counter.partial("b", 800, 900, words=(Word("b", 1000, 1100),))
    assert partial is not None
    assert (partial.start_ms, partial.end_ms) == (1000, 1000)
    final = counter.final("b", 800, 1500, reason=FinalReason.STOP)
    assert (final.start_ms, final.end_ms) == (1000, 1500)
