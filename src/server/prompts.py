"""A prompt, as language-model recognizers take it, as phrases to favour, which is what the others can do with it.

Pure, and below the faces: a prompt means the same on each of them. The rule is modest on purpose: a boosted word that
nobody says can be heard where it was not said.

- A line whose parts (between commas and semicolons) have at most `MAX_PHRASE_WORDS` words each is a list: each part is
  a phrase. A label in front of it ("Glossary:") is left out.
- Any other line is prose: only its names count, which are words with a capital or a digit that do not merely begin a
  sentence. Names that stand together are one phrase.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_PHRASE_WORDS = 6
MAX_PHRASE_CHARS = 100
MAX_PHRASES = 100
MAX_PROMPT_CHARS = 20_000
"""What comes after is not looked at."""

_SEPARATORS = re.compile(r"[,;、，；]")
_LABEL = re.compile(r"^\s*[^\s:,;]+(?:\s[^\s:,;]+)?:\s+")
_SENTENCE_END = re.compile(r"[.!?…。！？]+(?=\s|$)")
_EDGES = " \t\"'“”‘’«»()[]{}<>*•-–—.,;:!?…"


def phrases_of(prompt: str, keywords: Iterable[str] = ()) -> tuple[str, ...]:
    """The phrases in a prompt and in a list of keywords; keywords first, each once, `MAX_PHRASES` at most.

    >>> phrases_of("Glossary: Parakeet, Riva NIM; Triton")
    ('Parakeet', 'Riva NIM', 'Triton')
    >>> phrases_of("The speaker, who is called Aoife Byrne, talks about what the people at Zyntriq do all day.")
    ('Aoife Byrne', 'Zyntriq')
    """
    found: dict[str, None] = {}
    for keyword in keywords:
        _add(found, keyword)
    for line in prompt[:MAX_PROMPT_CHARS].splitlines():
        for phrase in _of_line(line):
            _add(found, phrase)
    return tuple(found)[:MAX_PHRASES]


def _add(found: dict[str, None], phrase: str) -> None:
    plain = " ".join(phrase.split()).strip(_EDGES)
    if plain and len(plain) <= MAX_PHRASE_CHARS:
        found.setdefault(plain)


def _of_line(line: str) -> list[str]:
    parts = _SEPARATORS.split(_LABEL.sub("", line))
    if _SENTENCE_END.search(line.rstrip()[:-1]) is None and all(len(p.split()) <= MAX_PHRASE_WORDS for p in parts):
        return parts
    return [name for sentence in _SENTENCE_END.split(line) for name in _names(sentence)]


def _names(sentence: str) -> list[str]:
    names: list[list[str]] = [[]]
    for index, word in enumerate(sentence.split()):
        plain = word.strip(_EDGES)
        if _is_name(plain, first=index == 0):
            names[-1].append(plain)
        if not _is_name(plain, first=index == 0) or word[-1] in ",;:)" or len(names[-1]) == MAX_PHRASE_WORDS:
            names.append([])
    return [" ".join(name) for name in names if name]


def _is_name(word: str, *, first: bool) -> bool:
    """A capital within, or a digit among letters, tells a name anywhere; a capital in front not where a line begins."""
    inside = any(char.isupper() for char in word[1:])
    mixed = any(char.isdigit() for char in word) and any(char.isalpha() for char in word)
    return len(word) > 1 and (inside or mixed or (word[0].isupper() and not first))
