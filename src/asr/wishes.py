"""What a caller of the clients may ask for, as keywords, and how that becomes `Options`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypedDict

from asr.options import Diarization, Endpointing, Options, Phrase


class Wishes(TypedDict, total=False):
    """Keywords of `stream_transcribe` and `transcribe_file`; each is left to the recognizer where it is not given.

    Attributes:
        language: BCP-47, such as `en-US`.
        model: a name from `models()`.
        words: whether finals carry words with times (default True).
        punctuate: ask for punctuation or against it.
        verbatim: spoken form ("twenty one") or written form ("21").
        profanity_filter: mask profanity.
        diarization: tell speakers apart; True, or a `Diarization` with the largest number of them.
        phrases: what to favour: texts, or `Phrase` with a boost of 0..1.
        endpointing: when utterances end.
        max_alternatives: readings per final, the best one included, 1..20.
        upstream_options: passed on to Riva as `custom_configuration`.
        request_id: an id of yours, sent upstream.
        traceparent: the W3C trace context of your span, sent upstream.
        fail_on_unsupported: refuse what the recognizer cannot do, instead of a warning.
    """

    language: str
    model: str
    words: bool
    punctuate: bool | None
    verbatim: bool | None
    profanity_filter: bool
    diarization: bool | Diarization | None
    phrases: Iterable[str | Phrase]
    endpointing: Endpointing | None
    max_alternatives: int
    upstream_options: Mapping[str, str]
    request_id: str
    traceparent: str
    fail_on_unsupported: bool


def to_options(base: Options | None, partials: bool | None, wishes: Wishes) -> Options:
    """`base` with the keywords laid over it. `partials` None leaves those of `base`.

    Raises:
        ASRError: `bad_request`, for a value out of its range.
        TypeError: a keyword that does not exist.
    """
    unknown = set(wishes) - set(Wishes.__annotations__)
    if unknown:
        raise TypeError(f"there is no keyword {sorted(unknown)[0]!r}; there are {', '.join(Wishes.__annotations__)}")
    given = dict[str, object](wishes)
    if "diarization" in wishes and isinstance(wishes["diarization"], bool):
        given["diarization"] = Diarization() if wishes["diarization"] else None
    if "phrases" in wishes:
        given["phrases"] = tuple(p if isinstance(p, Phrase) else Phrase(p) for p in wishes["phrases"])
    if partials is not None:
        given["partials"] = partials
    return replace(base if base is not None else Options(), **given)  # type: ignore[arg-type]  # Wishes has its types
