"""A transcript as plain text, SubRip (SRT) and WebVTT.

Cues hold at most two lines of 42 characters and last at most seven seconds, never overlap, and
follow the words' own times where there are any; otherwise a final's interval is shared out by length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from asr.events import Final, Word
from asr.transcript import Transcript, is_unspaced, seam

MAX_LINE_CHARS = 42
MAX_LINES = 2
MAX_CUE_MS = 7_000
MIN_CUE_MS = 700
"""A shorter cue cannot be read; it stays up longer where the next one leaves it room."""

PAUSE_MS = 1_500
"""A silence this long between two words begins a new cue."""

_CHARACTER = re.compile(r"\S")
_LINE = re.compile(rf"\S{{1,{MAX_LINE_CHARS}}}")
_ARROW = re.compile(r"-{2,}>")


@dataclass(frozen=True, slots=True)
class Cue:
    """What stands on the screen from `start_ms` to `end_ms`."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def to_text(transcript: Transcript) -> str:
    """One line for each final that has text, with a newline at the end; "" where nothing was said."""
    return "".join(f"{_flat(final.text)}\n" for final in transcript.finals if final.text.strip())


def to_srt(transcript: Transcript) -> str:
    """SubRip. An empty transcript gives an empty file."""
    blocks = []
    for number, cue in enumerate(cues(transcript), 1):
        # "-->" would read as a time line.
        lines = "\n".join(_ARROW.sub("->", line) for line in cue.lines)
        blocks.append(f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{lines}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT. An empty transcript gives its header alone."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        lines = "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in cue.lines)
        blocks.append(f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{lines}\n")
    return "\n".join(blocks)


def cues(transcript: Transcript) -> list[Cue]:
    """The cues of a transcript in the order of time; no two overlap."""
    made = [cue for final in transcript.finals for cue in _of_final(final, final.language or transcript.language)]
    made.sort(key=lambda cue: cue.start_ms)
    return list(_apart(made))


def _of_final(final: Final, language: str) -> Iterator[Cue]:
    words = _timed(final) if final.words else _shared_out(final.text, final.start_ms, final.end_ms, language)
    group: list[Word] = []
    lines: list[str] = []
    for word in (piece for whole in words for piece in _short(whole)):
        grown = _lay(lines, word.text, language) if group and _goes_with(group, word) else None
        if grown is None:
            if group:
                yield _cue(group, lines)
            group, grown = [], [word.text]
        group.append(word)
        lines = grown
    if group:
        yield _cue(group, lines)


def _goes_with(group: list[Word], word: Word) -> bool:
    return (
        word.end_ms - group[0].start_ms <= MAX_CUE_MS
        and word.start_ms - group[-1].end_ms < PAUSE_MS
        and word.speaker == group[-1].speaker
    )


def _lay(lines: list[str], text: str, language: str) -> list[str] | None:
    """The lines with one more word, or None where it does not fit."""
    last = lines[-1] + seam(lines[-1], text, language) + text
    if len(last) <= MAX_LINE_CHARS:
        return [*lines[:-1], last]
    return [*lines, text] if len(lines) < MAX_LINES else None


def _cue(group: list[Word], lines: list[str]) -> Cue:
    start_ms = group[0].start_ms
    end_ms = max(start_ms, group[-1].end_ms)
    return Cue(start_ms, min(end_ms, start_ms + MAX_CUE_MS), tuple(lines))


def _timed(final: Final) -> Iterator[Word]:
    for word in final.words:
        if text := _flat(word.text):
            yield replace(word, text=text, end_ms=max(word.start_ms, word.end_ms))


def _shared_out(text: str, start_ms: int, end_ms: int, language: str) -> Iterator[Word]:
    """Words with times guessed from their share of the text's length."""
    pieces = _flat(text).split()
    total = sum(len(piece) + 1 for piece in pieces)
    before = 0
    for piece in pieces:
        after = before + len(piece) + 1
        yield Word(
            piece,
            start_ms + (end_ms - start_ms) * before // total,
            start_ms + (end_ms - start_ms) * after // total,
            language=language or None,
        )
        before = after


def _short(word: Word) -> Iterator[Word]:
    """A word in pieces that a line can hold, its time shared out.

    Text without blanks comes as one long "word"; it may break at every character.
    """
    length, span_ms = len(word.text), word.end_ms - word.start_ms
    at = 0
    for unspaced, run in groupby(word.text, is_unspaced):
        characters = "".join(run)
        for match in (_CHARACTER if unspaced else _LINE).finditer(characters):
            yield replace(
                word,
                text=match[0],
                start_ms=word.start_ms + span_ms * (at + match.start()) // length,
                end_ms=word.start_ms + span_ms * (at + match.end()) // length,
            )
        at += len(characters)


def _apart(made: Iterable[Cue]) -> Iterator[Cue]:
    # Channels speak over one another and engines round: the earlier cue makes way.
    cue: Cue | None = None
    for following in made:
        if cue is not None:
            if following.start_ms <= cue.start_ms:
                start_ms = cue.start_ms + 1
                following = replace(following, start_ms=start_ms, end_ms=max(following.end_ms, start_ms))
            room_ms = following.start_ms - cue.start_ms
            yield replace(cue, end_ms=cue.start_ms + min(max(cue.end_ms - cue.start_ms, MIN_CUE_MS), room_ms))
        cue = following
    if cue is not None:
        yield replace(cue, end_ms=max(cue.end_ms, cue.start_ms + MIN_CUE_MS))


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"


def _flat(text: str) -> str:
    # A line break within would end the cue.
    return " ".join(text.split())
