"""What a recognizer's own words may tell a caller: words that are known to be harmless, and nothing else.

A host's name can look like any word or like a model's name, so that no pattern of addresses would find them all.
Therefore a list of what is let through: the vocabulary of speech recognition, parameters of a request with their
values, numbers, languages, and models' names, which hold a language in their own spelling (`en-US`).
"""

from __future__ import annotations

import re
from typing import Final as Const

_MAX_QUOTE: Const = 200

_VOCABULARY: Const = """
a above all allowed already an and any are argument as at audio be been before below between bigger bits boost boosted
boosting but by cannot channel channels character characters config configuration content count custom data decode
decoder decoding default detected diarization did different do does doesn't duplicate either empty enable enabled
encoding endpointing error exceed exceeded exceeds expected fail failed field file filter first flag for format found
from given got greater greedy hash has have header here hertz hotword hotwords in input interim invalid is it kind
lang language larger last least length less lexicon limit long longer malformed match max maximum message min minimum
mismatch missing mode model mono more most must name negative no non none not nothing null number of offline on one
online only option options or out over parameter parameters parse parsing phrase phrases positive profanity provided
punctuation range rate read received recognition refused request requested required results sample samples score set
short should silence size small smaller speaker speakers specified speech stereo stream streaming string such support
supported supports than that the them there these this threshold time timestamps to too transcript two type
unavailable unexpected unknown unrecognized unset unsupported up use used valid value values verbatim version was were
when while with without word words wrong zero
"""
_WORDS: Const = frozenset(_VOCABULARY.split())
_PARAMETER = re.compile(
    r"(?:language_code|lang|sample_rate(?:_hertz)?|type|encoding|channels|max_alternatives)=[\w-]{0,20}"
)
_LANGUAGE = re.compile(r"[a-z]{2,3}-[A-Z]{2}")
_MODEL = re.compile(r"(?:[A-Za-z0-9]|[-_]|(?<=\d)\.(?=\d))*(?<![A-Za-z0-9])[a-z]{2,3}-[A-Z]{2}(?![A-Za-z0-9])[\w-]*")
_NUMBER = re.compile(r"-?\d{1,6}(?:\.\d{1,3})?")
_EDGES = ".,;:!?()[]'\"`"


def scrub(details: str) -> str:
    """The text in one line of at most 200 characters; "…" stands for what is not known to be harmless.

    "" where less than half of it would be left.
    """
    told: list[str] = []
    known, before = 0, ""
    tokens = details[:2_000].split()
    for token in tokens:
        bare = token.strip(_EDGES)
        if _is_harmless(bare, before):
            known += 1
            told.append(token)
        elif not told or told[-1] != "…":
            told.append("…")
        before = bare.lower()
    if known * 2 < len(tokens):
        return ""
    line = " ".join(told)
    return line if len(line) <= _MAX_QUOTE else line[: _MAX_QUOTE - 1] + "…"


def _is_harmless(bare: str, before: str) -> bool:
    if bare.lower() in _WORDS or not bare:
        return True
    if _NUMBER.fullmatch(bare):
        return before != "port"
    return any(pattern.fullmatch(bare) is not None for pattern in (_PARAMETER, _LANGUAGE, _MODEL))
