"""Word and character errors of two texts, and which word stands against which."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.results import ErrorCounts
from evaluation.scoring import score, score_parts

texts = st.lists(st.sampled_from(("red", "green", "blue", "bread", "five", "25")), max_size=8).map(" ".join)


def test_equal_texts_have_no_errors_however_they_are_written() -> None:
    found = score("Twenty-five people, at ten o'clock!", "25 people at 10:00")
    assert found.words == ErrorCounts(hits=7)
    assert found.chars == ErrorCounts(hits=len("2 5 people at 1 0 o'clock"))
    assert found.words.rate == 0
    assert found.pairs == tuple((at, at) for at in range(7))


def test_each_kind_of_error_is_counted_once() -> None:
    found = score("the old boat was painted blue", "the old goat painted blue today")
    assert found.words == ErrorCounts(hits=4, substitutions=1, deletions=1, insertions=1)
    assert found.words.rate == 0.5
    assert found.reference_words == ("the", "old", "boat", "was", "painted", "blue")
    assert found.hypothesis_words == ("the", "old", "goat", "painted", "blue", "today")
    assert found.pairs[:2] == ((0, 0), (1, 1))
    assert found.pairs[4:] == ((4, 3), (5, 4), (None, 5))
    assert {(2, 2), (3, None)} == set(found.pairs[2:4]) or {(2, None), (3, 2)} == set(found.pairs[2:4])


def test_characters_hold_the_blanks_between_words() -> None:
    found = score("ice cream", "icecream")
    assert found.words == ErrorCounts(substitutions=1, deletions=1)
    assert found.chars == ErrorCounts(hits=8, deletions=1)
    assert found.chars.rate == 1 / 9


def test_nothing_recognized_deletes_every_word() -> None:
    found = score("red, green", " … ")
    assert found.words == ErrorCounts(deletions=2)
    assert found.chars == ErrorCounts(deletions=9)
    assert found.pairs == ((0, None), (1, None))


def test_words_where_nobody_speaks_are_insertions() -> None:
    found = score("", "hello there")
    assert found.words == ErrorCounts(insertions=2)
    assert found.chars == ErrorCounts(insertions=11)
    assert found.words.rate is None
    assert found.pairs == ((None, 0), (None, 1))


def test_silence_that_stays_silent_is_no_error() -> None:
    found = score("", "um")
    assert found.words == found.chars == ErrorCounts()
    assert found.pairs == found.reference_words == found.hypothesis_words == ()


@settings(max_examples=60, deadline=None)
@given(texts, texts)
def test_pairs_and_counts_agree(reference: str, hypothesis: str) -> None:
    found = score(reference, hypothesis)
    lefts = [left for left, _ in found.pairs if left is not None]
    rights = [right for _, right in found.pairs if right is not None]
    assert lefts == list(range(len(found.reference_words)))
    assert rights == list(range(len(found.hypothesis_words)))
    both = [
        found.reference_words[left] == found.hypothesis_words[right]
        for left, right in found.pairs
        if left is not None and right is not None
    ]
    assert found.words == ErrorCounts(
        hits=sum(both),
        substitutions=len(both) - sum(both),
        deletions=sum(right is None for _, right in found.pairs),
        insertions=sum(left is None for left, _ in found.pairs),
    )
    # No alignment is shorter than the lengths' difference, and none longer than replacing everything.
    assert abs(len(lefts) - len(rights)) <= found.words.errors <= max(len(lefts), len(rights))
    assert found.words.errors == score(hypothesis, reference).words.errors


def test_errors_of_a_joined_text_lie_in_its_parts() -> None:
    parts = ("the old boat", "", "was painted blue", "by my brother")
    found = score_parts(parts, "the old goat was painted blue today by")
    assert [words for words, _ in found] == [
        ErrorCounts(hits=2, substitutions=1),
        ErrorCounts(),
        ErrorCounts(hits=3, insertions=1),
        ErrorCounts(hits=1, deletions=2),
    ]
    assert found[0][1].errors == 1
    assert score_parts(parts, "")[3][0] == ErrorCounts(deletions=3)
    assert [words for words, _ in score_parts(("", ""), "well well done")] == [ErrorCounts(insertions=3), ErrorCounts()]
    assert score_parts((), "") == ()


def test_a_number_that_reaches_over_a_border_is_lost_to_no_part() -> None:
    parts = ("she paid five", "hundred people came", "and left")
    found = score_parts(parts, "she paid 500 people came and left")
    assert sum(words.errors for words, _ in found) == 0
    assert sum(words.hits for words, _ in found) == score(" ".join(parts), "").words.deletions


@given(st.lists(texts, min_size=1, max_size=5), texts)
@settings(max_examples=60, deadline=None)
def test_errors_of_parts_add_up_to_those_of_the_whole(parts: list[str], heard: str) -> None:
    whole, found = score(" ".join(parts), heard), score_parts(parts, heard)
    assert sum((words for words, _ in found), ErrorCounts()) == whole.words
    assert sum((chars for _, chars in found), ErrorCounts()) == whole.chars
