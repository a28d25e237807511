"""What was said and what was heard, word by word: omissions struck, additions doubly underlined, replacements wavy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from evaluation.markup import Html, fold, html, tag
from evaluation.scoring import score

LONG = 150
"""Words beyond which stretches without an error are shortened, and the reference is folded."""
CONTEXT = 6
"""Words that are kept at either side of an error then."""

SIGNS = html(
    tag("dl",
        tag("dt", "signs"),
        tag("dd", tag("del", "left out"), " was said and not heard, ", tag("ins", "added"), " was heard and not said, ",
            tag("mark", "replaced"), " was heard in place of another word (point at it to see which). "
            "Numbers and spelling are shown as they are scored."),
        class_="words"),
)  # fmt: skip


def compared(reference: str, hypotheses: Sequence[tuple[str, str]]) -> Html:
    """The reference as it is written, and below it each hypothesis (name, text) with its errors marked."""
    said: object = reference if reference.strip() else tag("span", "nothing", class_="none")
    if (count := len(reference.split())) > LONG:
        said = fold(f"{count:,} words", tag("p", reference))
    lines = [tag("dt", "said"), tag("dd", said)]
    for name, hypothesis in hypotheses:
        lines += [tag("dt", name), tag("dd", marked(reference, hypothesis))]
    return tag("dl", *lines, class_="words")


def marked(reference: str, hypothesis: str) -> Html:
    """A hypothesis with its errors against the reference marked; both are normalized, as they are for scoring."""
    aligned = score(reference, hypothesis)
    said, heard = aligned.reference_words, aligned.hypothesis_words
    pieces: list[tuple[bool, Html]] = []
    for left, right in aligned.pairs:
        if left is None and right is not None:
            pieces.append((False, tag("ins", heard[right])))
        elif right is None and left is not None:
            pieces.append((False, tag("del", said[left])))
        elif left is not None and right is not None:
            same = said[left] == heard[right]
            pieces.append(
                (same, html(heard[right]) if same else tag("mark", heard[right], title=f"said: {said[left]}"))
            )
    if not pieces:
        return tag("span", "nothing", class_="none")
    return Html(" ".join(_shortened(pieces) if len(pieces) > LONG else [piece for _, piece in pieces]))


def _shortened(pieces: Sequence[tuple[bool, Html]]) -> list[Html]:
    shown: list[Html] = []
    runs = [(right, [piece for _, piece in run]) for right, run in groupby(pieces, key=lambda piece: piece[0])]
    for n, (right, run) in enumerate(runs):
        before, after = (CONTEXT if n else 0), (CONTEXT if n < len(runs) - 1 else 0)
        left_out = len(run) - before - after
        if right and left_out > CONTEXT:
            words = tag("span", f"… {left_out} words as said …", class_="none")
            shown += [*run[:before], words, *(run[-after:] if after else [])]
        else:
            shown += run
    return shown
