"""The clips of a run one by one: what was said, what was heard, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.figures import counted, milliseconds
from evaluation.markup import Html, badge, fold, html, notice, section, tag
from evaluation.results import ClipResult
from evaluation.summary import word_errors
from evaluation.wording import LONG, SIGNS, compared

WORST = 12
OPENED = 5


def _errors(clip: ClipResult) -> int:
    return word_errors(clip).errors


def worst(clips: Sequence[ClipResult]) -> Html:
    """The clips that failed, then those with the largest share of wrong words; the first ones opened."""
    ordered = sorted(clips, key=lambda clip: (clip.outcome == "ok", -_share(clip), -_errors(clip), clip.id))
    shown = [clip for clip in ordered if clip.outcome != "ok" or _errors(clip)][:WORST]
    if not shown:
        return section("The worst clips", tag("p", "Every word of every clip was right.", class_="about"))
    return section(
        "The worst clips",
        SIGNS,
        *(_clip(clip, opened=n < OPENED and clip.words.reference <= LONG) for n, clip in enumerate(shown)),
    )


def _share(clip: ClipResult) -> float:
    return _errors(clip) / max(clip.words.reference, 1)


def _clip(clip: ClipResult, *, opened: bool = False) -> Html:
    wrong = _errors(clip)
    told = [
        f"{wrong:,} of {counted(clip.words.reference, 'word')} wrong"
        if clip.words.reference
        else f"{counted(wrong, 'word')} where nobody speaks"
    ]
    if clip.timings.first_partial_ms is not None:
        told.append(f"first partial {milliseconds(clip.timings.first_partial_ms)}")
    if clip.timings.final_ms:
        told.append(f"final {milliseconds(max(clip.timings.final_ms))}")
    if clip.gaps_ms:
        told.append(f"{milliseconds(clip.gaps_ms)} of audio lost")
    if clip.attempts > 1:
        told.append(f"taken at attempt {clip.attempts}")
    state = badge(clip.outcome, "bad") if clip.outcome != "ok" else None
    head = html(
        tag("span", clip.id, class_="clip-name"), " ", state, " ", tag("span", " · ".join(told), class_="clip-facts")
    )
    trouble = notice(clip.detail, "bad") if clip.detail else None
    return fold(head, html(trouble, compared(clip.reference, [("heard", clip.hypothesis)])), opened=opened)


def all_clips(clips: Sequence[ClipResult]) -> Html:
    """Every clip with its words, folded by condition."""
    folds = []
    for condition in dict.fromkeys(clip.condition for clip in clips):
        here = [clip for clip in clips if clip.condition == condition]
        wrong = sum(_errors(clip) for clip in here)
        words = sum(clip.words.reference for clip in here)
        told = f"{counted(len(here), 'clip')} · {wrong:,} of {counted(words, 'word')} wrong"
        head = html(tag("span", condition, class_="clip-name"), " ", tag("span", told, class_="clip-facts"))
        folds.append(fold(head, tag("div", *(_clip(clip) for clip in here))))
    return section("All clips", *folds)
