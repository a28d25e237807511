"""What a recognizer showed of an utterance before its final: when each word was first there, and what it took back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from evaluation.recording import Heard

Tokens = tuple[str, ...]
Tokenize = Callable[[str], Tokens]

MAX_CELLS = 250_000
"""Of one alignment. Texts that differ over more than some five hundred words are compared place by place instead."""


@dataclass(slots=True)
class Utterance:
    """The partials of one utterance in their order, and its final, or None where it never came."""

    number: int
    partials: list[Heard] = field(default_factory=list)
    final: Heard | None = None


def utterances(heard: Sequence[Heard]) -> list[Utterance]:
    """Sort what came by utterance.

    A recognizer that does not count (all is utterance 0) is understood: what follows a final belongs to the next one.
    Partials of an utterance that has had its final, and gets no other, are strays, and left out.
    """
    found: list[Utterance] = []
    open_: dict[int, Utterance] = {}
    ended: set[int] = set()
    for one in heard:
        current = open_.get(one.utterance)
        if current is None:
            current = open_[one.utterance] = Utterance(one.utterance)
            found.append(current)
        if one.kind == "partial":
            current.partials.append(one)
        else:
            current.final = one
            ended.add(one.utterance)
            del open_[one.utterance]
    return [one for one in found if one.final is not None or one.number not in ended]


def stability(utterance: Utterance, tokenize: Tokenize) -> tuple[int, int]:
    """How many words its partials showed, and how many of them were changed or taken back later.

    A word is shown anew when it stands at a place (first, second … word) at which the partial before had another
    one or none. It is revised when the next partial, or the final, has another one or none there. A word that nothing
    follows (no final came) was not revised. In the spirit of the unstable partial word ratio of Shangguan et al. 2020,
    "Analyzing the Quality and Stability of a Streaming End-to-End On-Device Speech Recognizer", but counted per word
    shown, so that it is a share between 0 and 1: not a figure to hold against published ones.
    """
    shown = revised = 0
    before: Tokens = ()
    for partial in utterance.partials:
        now = tokenize(partial.text)
        kept = _kept(before, now)
        revised += len(before) - kept
        shown += len(now) - kept
        before = now
    if utterance.final is not None:
        revised += len(before) - _kept(before, tokenize(utterance.final.text))
    return shown, revised


def first_shown(utterance: Utterance, final: Tokens, tokenize: Tokenize) -> list[Heard | None]:
    """For each word of the final, the first partial that had it at its place; None where none had.

    A partial is the text up to some moment, so it is aligned with that head of the final that it fits best; where
    several fit alike, with the shortest, so that a word counts too late rather than too early. A word of the partial
    counts for the word it is aligned with, where both are the same.
    """
    shown: list[Heard | None] = [None] * len(final)
    before: Tokens = ()
    for partial in utterance.partials:
        now = tokenize(partial.text)
        if now == before:
            continue
        for place in _aligned(now, final):
            if shown[place] is None:
                shown[place] = partial
        before = now
    return shown


def _kept(before: Tokens, now: Tokens) -> int:
    return sum(a == b for a, b in zip(before, now, strict=False))


def _aligned(partial: Tokens, final: Tokens) -> list[int]:
    """Places in the final of those words of the partial that it has too."""
    head = 0
    while head < min(len(partial), len(final)) and partial[head] == final[head]:
        head += 1
    places = list(range(head))
    rest, ahead = partial[head:], final[head:]
    if not rest or not ahead:
        return places
    if len(rest) * len(ahead) > MAX_CELLS:
        return places + [head + at for at, (a, b) in enumerate(zip(rest, ahead, strict=False)) if a == b]
    return places + [head + place for place in _fit(rest, ahead)]


def _fit(rest: Tokens, ahead: Tokens) -> list[int]:
    """Places in `ahead` of the words of `rest` in the alignment of least cost with a head of `ahead`.

    Levenshtein's distance, where the tail of `ahead` costs nothing.
    """
    rows = [list(range(len(ahead) + 1))]
    for i, word in enumerate(rest, 1):
        row = [i]
        above = rows[-1]
        for j, other in enumerate(ahead, 1):
            row.append(min(above[j - 1] + (word != other), above[j] + 1, row[j - 1] + 1))
        rows.append(row)
    i, j = len(rest), min(range(len(ahead) + 1), key=rows[-1].__getitem__)
    places = []
    while i and j:
        if rows[i][j] == rows[i - 1][j - 1] + (rest[i - 1] != ahead[j - 1]):
            i, j = i - 1, j - 1
            if rest[i] == ahead[j]:
                places.append(j)
        elif rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
    return places
