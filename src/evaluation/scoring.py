"""How far a hypothesis is from its reference, in words and in characters, both normalized first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
