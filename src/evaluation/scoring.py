"""How far a hypothesis is from its reference, in words and in characters, both normalized first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import jiwer

from evaluation.normalizer import normalize
from evaluation.results import ErrorCounts

Pair = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Score:
    """One reference against one hypothesis.

    Attributes:
        words: edit operations in words.
        chars: edit operations in characters; a blank between words is one.
        reference_words, hypothesis_words: the normalized words.
        pairs: (index of a reference word, index of a hypothesis word) in order, equal or substituted; None on the
            left is an insertion, None on the right a deletion.
    """

    words: ErrorCounts
    chars: ErrorCounts
    reference_words: tuple[str, ...]
    hypothesis_words: tuple[str, ...]
    pairs: tuple[Pair, ...]


def score(reference: str, hypothesis: str) -> Score:
    """Align two texts. Either may be empty: what is left of the other is then deleted or inserted as a whole."""
    expected, heard = normalize(reference), normalize(hypothesis)
    words = jiwer.process_words(expected, heard)
    chars = jiwer.process_characters(expected, heard)
    return Score(
        words=ErrorCounts(words.hits, words.substitutions, words.deletions, words.insertions),
        chars=ErrorCounts(chars.hits, chars.substitutions, chars.deletions, chars.insertions),
        reference_words=tuple(expected.split()),
        hypothesis_words=tuple(heard.split()),
        pairs=tuple(_pairs(words.alignments[0])),
    )


def score_parts(references: Sequence[str], hypothesis: str) -> tuple[tuple[ErrorCounts, ErrorCounts], ...]:
    """The errors of a text that was joined of others, by which of them they lie in: (words, characters) of each.

    The texts are aligned as a whole, so that the parts' errors add up to those of `score`. What was inserted belongs to
    the part of the word before it.
    """
    whole, heard = normalize(" ".join(references)), normalize(hypothesis)
    words = jiwer.process_words(whole, heard)
    chars = jiwer.process_characters(whole, heard)
    owners = _owners([normalize(each).split() for each in references], whole.split())
    letters = [owner for word, owner in zip(whole.split(), owners, strict=True) for _ in range(len(word) + 1)]
    count = len(references)
    return tuple(
        zip(_tallied(words.alignments[0], owners, count), _tallied(chars.alignments[0], letters, count), strict=True)
    )


def _owners(parts: Sequence[Sequence[str]], whole: Sequence[str]) -> list[int]:
    """For each word of the whole, its part. What a rule made of words of two parts belongs to the first."""
    single = [(word, part) for part, words in enumerate(parts) for word in words]
    if [word for word, _ in single] == list(whole):
        return [part for _, part in single]
    owners = [-1] * len(whole)
    for of, at, size in SequenceMatcher(
        None, [word for word, _ in single], whole, autojunk=False
    ).get_matching_blocks():
        owners[at : at + size] = [part for _, part in single[of : of + size]]
    before = 0
    for at, owner in enumerate(owners):
        before = owners[at] = before if owner < 0 else owner
    return owners


def _tallied(chunks: Iterable[jiwer.AlignmentChunk], owners: Sequence[int], count: int) -> list[ErrorCounts]:
    found = [[0, 0, 0, 0] for _ in range(count)]
    kinds = ("equal", "substitute", "delete", "insert")
    for chunk in chunks:
        kind = kinds.index(chunk.type)
        if chunk.type == "insert":
            owner = owners[max(chunk.ref_start_idx - 1, 0)] if owners else 0
            found[owner][kind] += chunk.hyp_end_idx - chunk.hyp_start_idx
        else:
            for at in range(chunk.ref_start_idx, chunk.ref_end_idx):
                found[owners[at]][kind] += 1
    return [ErrorCounts(*counts) for counts in found]


def _pairs(chunks: Iterable[jiwer.AlignmentChunk]) -> Iterable[Pair]:
    for chunk in chunks:
        left = range(chunk.ref_start_idx, chunk.ref_end_idx)
        right = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        match chunk.type:
            case "insert":
                yield from ((None, index) for index in right)
            case "delete":
                yield from ((index, None) for index in left)
            case _:
                yield from zip(left, right, strict=True)
