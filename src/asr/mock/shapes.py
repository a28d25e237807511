"""Results in the shapes that a plan asks for: how heard words become partials and finals."""

from __future__ import annotations

from collections.abc import Sequence

from asr.mock.hearing import Heard
from asr.mock.responses import RawAlternative, RawResult, RawWord, Request
from asr.mock.sections import Shape

STABLE_HEAD = 0.9
"""Stability of the stable one of two results."""

_UNSTABLE_WORDS = 2
_LONG_WORDS = 4


def partial_results(
    words: Sequence[Heard], shape: Shape, now_ms: int, *, rough: bool, request: Request
) -> list[RawResult]:
    """The non-final results of one response; `rough`: this hypothesis is its words' first."""
    texts = [w.text for w in words if w.text]
    if not texts:
        return []
    details = raw_words(words, shape, request) if shape.partial_words else ()
    if shape.partials == "split" and len(texts) > _UNSTABLE_WORDS:
        head, tail = texts[:-_UNSTABLE_WORDS], texts[-_UNSTABLE_WORDS:]
        return [
            _partial(" ".join(head) + " ", STABLE_HEAD, shape, now_ms, details[: len(head)]),
            _partial(" ".join(tail), shape.stability, shape, now_ms, details[len(head) :]),
        ]
    if shape.partials == "rewrite" and rough:
        texts[-1] = texts[-1][::-1].lower()
    elif shape.partials == "shrink" and len(texts) > _LONG_WORDS and len(texts) % 2:
        texts, details = texts[-_UNSTABLE_WORDS:], details[-_UNSTABLE_WORDS:]
    return [_partial(" ".join(texts), shape.stability, shape, now_ms, details)]


def eager_result(words: Sequence[Heard], shape: Shape, now_ms: int) -> RawResult | None:
    """The non-final result with stability 1.0 of the first pass, where there is any text."""
    text = " ".join(w.text for w in words if w.text)
    return _partial(text, 1.0, shape, now_ms, ()) if text else None


def final_result(words: Sequence[Heard], shape: Shape, request: Request, now_ms: int, first: bool) -> RawResult:
    """The final of an utterance; `first`: of the stream (it has no leading blank)."""
    source = words[0].source
    alternatives: tuple[RawAlternative, ...] = ()
    if source.final != "no_alternatives":
        text = "" if source.final == "empty" else " ".join(w.text for w in words if w.text)
        details = raw_words(words, shape, request) if text and (request.words or request.diarization) else ()
        others = source.alternatives[: max(0, request.max_alternatives - 1)]
        alternatives = tuple(
            RawAlternative(
                transcript=_spaced(reading, shape, first),
                confidence=shape.confidence * (1 + rank) if reading else 0.0,
                words=() if rank else details,
                languages=(source.language,) if source.language else (),
            )
            for rank, reading in enumerate((text, *others))
        )
    return RawResult(alternatives, is_final=True, channel_tag=shape.channel_tag, audio_processed_ms=now_ms)


def vad_result(voiced: Sequence[bool], shape: Shape, now_ms: int) -> RawResult:
    """A result that carries only voice activity, one figure for each span."""
    vad = tuple(0.98 if loud else 0.02 for loud in voiced)
    return RawResult(channel_tag=shape.channel_tag, audio_processed_ms=now_ms, vad=vad)


def raw_words(words: Sequence[Heard], shape: Shape, request: Request) -> tuple[RawWord, ...]:
    """Words with times, confidence, and the speaker where diarization is asked for."""
    return tuple(
        RawWord(
            text=w.text,
            start_ms=w.start_ms,
            end_ms=w.end_ms,
            confidence=shape.word_confidence,
            speaker_tag=w.source.speaker + shape.speaker_base if request.diarization else 0,
            language=w.source.language,
        )
        for w in words
        if w.text
    )


def _partial(text: str, stability: float, shape: Shape, now_ms: int, words: tuple[RawWord, ...]) -> RawResult:
    return RawResult(
        (RawAlternative(text, words=words),),
        stability=stability,
        channel_tag=shape.channel_tag,
        audio_processed_ms=now_ms,
    )


def _spaced(text: str, shape: Shape, first: bool) -> str:
    if not text:
        return ""
    if shape.final_space == "trailing":
        return text + " "
    if shape.final_space == "leading" and not first:
        return " " + text
    return text
