"""Captions: golden files, and the rules every cue keeps."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.captions import MAX_CUE_MS, MAX_LINE_CHARS, MAX_LINES, cues, to_srt, to_text, to_vtt
from asr.events import Final, Word
from asr.transcript import Transcript, fold

GOLDEN = Path(__file__).parents[1] / "golden" / "captions"

SENTENCE = (
    "the quick brown fox jumps over the lazy dog while seven wizards quietly brew a very strong potion "
    "and nobody in the village minds at all"
)
LONG = SENTENCE.split()


def spoken(texts: list[str], start_ms: int, step_ms: int = 400) -> tuple[Word, ...]:
    return tuple(Word(text, start_ms + i * step_ms, start_ms + i * step_ms + 350) for i, text in enumerate(texts))


def example() -> Transcript:
    words = spoken(LONG, 1_000)
    finals = [
        Final(0, 1, " ".join(LONG), 900, words[-1].end_ms, words=words),
        Final(1, 1, "", 12_000, 13_000),
        Final(2, 1, "Tom & Jerry ---> <b>friends</b>", 13_000, 15_500),
        Final(
            3,
            1,
            "今天天气很好我们一起去公园散步吧然后再去吃晚饭看电影最后回家休息明天继续努力学习加油大家一起努力",
            16_000,
            28_000,
        ),
        Final(4, 1, "much later", 360_000_000, 360_001_000),
    ]
    return fold(finals)


@pytest.mark.parametrize(
    ("name", "write"), [("example.txt", to_text), ("example.srt", to_srt), ("example.vtt", to_vtt)]
)
def test_golden_files(name: str, write: Callable[[Transcript], str]) -> None:
    assert write(example()) == (GOLDEN / name).read_text("utf-8")


def test_an_empty_transcript_gives_valid_files() -> None:
    for transcript in (Transcript(""), fold([Final(0, 1, "", 0, 500)])):
        assert (to_text(transcript), to_srt(transcript), to_vtt(transcript)) == ("", "", "WEBVTT\n")


def test_cues_follow_the_words_times_and_break_at_pauses_and_speakers() -> None:
    words = (Word("one", 100, 300), Word("two", 350, 600), Word("three", 9_000, 9_900), Word("four", 9_950, 10_800))
    made = cues(fold([Final(0, 1, "one two three four", 0, 11_000, words=words)]))
    assert [(cue.start_ms, cue.end_ms, cue.lines) for cue in made] == [
        (100, 800, ("one two",)),
        (9_000, 10_800, ("three four",)),
    ]
    turns = tuple(replace(word, speaker=who) for word, who in zip(words[:2], "ab", strict=True))
    assert len(cues(fold([Final(0, 1, "one two", 0, 700, words=turns)]))) == 2


def test_line_breaks_within_a_text_do_not_end_a_cue() -> None:
    transcript = fold([Final(0, 1, "a\n\nb", 0, 1000)])
    assert cues(transcript)[0].lines == ("a b",)
    assert to_text(transcript) == "a b\n"


TEXTS = st.text(st.sampled_from("abcde  &<>-你好\n"), max_size=120)
SPANS = st.tuples(st.integers(0, 60_000), st.integers(0, 40_000))


@st.composite
def finals(draw: st.DrawFn) -> Final:
    start, length = draw(SPANS)
    words: tuple[Word, ...] = ()
    if draw(st.booleans()):
        words = tuple(
            Word(draw(TEXTS), start + a, start + a + b) for a, b in draw(st.lists(SPANS, min_size=1, max_size=4))
        )
    return Final(0, 1, draw(TEXTS).strip(), start, start + length, words=words)


@settings(max_examples=60, deadline=None)
@given(st.lists(finals(), max_size=4))
def test_every_cue_keeps_the_rules(made: list[Final]) -> None:
    transcript = fold(made)
    shown = cues(transcript)
    for cue in shown:
        assert 0 < cue.end_ms - cue.start_ms <= MAX_CUE_MS
        assert 1 <= len(cue.lines) <= MAX_LINES
        assert all(0 < len(line) <= MAX_LINE_CHARS and line.strip() == line for line in cue.lines)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(shown))
    said = [word.text for final in made for word in final.words or (Word(final.text, 0, 0),)]
    assert sorted(re.sub(r"\s", "", "".join(said))) == sorted(
        re.sub(r"\s", "", "".join(line for cue in shown for line in cue.lines))
    )
    assert to_vtt(transcript).count("-->") == to_srt(transcript).count("-->") == len(shown)
