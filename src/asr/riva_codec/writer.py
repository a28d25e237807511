"""Events → Riva's responses, with the manners of a real Riva.

Finals end in a blank, so that clients may join them as they are. Every result carries an alternative, channel 1
and the seconds of audio consumed, which never go back. Confidence is the engine's own number where there is one,
else the probability; 0 where there is neither. Stability 1.0 is kept for the guess of an utterance's end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asr.events import Alternative, Event, Final, FinalReason, Flushed, Partial, Progress, Word
from asr.options import Options
from asr.riva_proto import Message
from asr.riva_proto import asr as pb

MAX_STABILITY = 0.99
"""What a partial that is no guess of the end may claim."""


class ResponseWriter:
    """Writes the responses of one `StreamingRecognize` call."""

    def __init__(self, options: Options) -> None:
        """`options` are those the client asked for; its request id is echoed in each response."""
        self._options = options
        self._speakers: dict[str, int] = {}
        self._processed_ms = 0
        self._flush_is_answered = False

    def write(self, event: Event) -> Message | None:
        """The `StreamingRecognizeResponse` of an event, or None for one that Riva has no word for."""
        match event:
            case Partial():
                self._flush_is_answered = False
                return self._partial(event) if self._options.partials else None
            case Final():
                self._flush_is_answered = event.reason is FinalReason.FINALIZE
                return self._final(event)
            case Flushed():
                # A client that asked for the end of an utterance waits for a final, also where nothing was said.
                answered, self._flush_is_answered = self._flush_is_answered, False
                self._advance(event.audio_ms)
                return None if answered else self._response(pb.StreamingRecognitionResult(is_final=True), [_NOTHING])
            case Progress():
                self._advance(event.processed_ms)
                return None
            case _:
                return None

    def _partial(self, event: Partial) -> Message:
        self._advance(event.end_ms)
        result = pb.StreamingRecognitionResult(
            stability=1.0 if event.eager_eou else min(event.stability or 0.0, MAX_STABILITY),
            channel_tag=event.channel + 1,
        )
        words = _write_words(event.words, self._speakers) if self._options.words else []
        return self._response(result, [pb.SpeechRecognitionAlternative(transcript=event.text, words=words)])

    def _final(self, event: Final) -> Message:
        self._advance(event.end_ms)
        result = pb.StreamingRecognitionResult(is_final=True, channel_tag=event.channel + 1)
        return self._response(result, write_alternatives(event, self._options, self._speakers))

    def _response(self, result: Message, alternatives: Iterable[Message]) -> Message:
        result.alternatives.extend(alternatives)
        result.channel_tag = result.channel_tag or 1
        result.audio_processed = self._processed_ms / 1000
        response = pb.StreamingRecognizeResponse(results=[result])
        if self._options.request_id:
            response.id.value = self._options.request_id
        return response

    def _advance(self, audio_ms: int) -> None:
        self._processed_ms = max(self._processed_ms, audio_ms)


def write_recognize(finals: Sequence[Final], options: Options, audio_ms: int) -> Message:
    """The `RecognizeResponse` of a recording of `audio_ms`: a result per final, at least one."""
    speakers: dict[str, int] = {}
    response = pb.RecognizeResponse()
    for final in finals:
        result = response.results.add(channel_tag=final.channel + 1, audio_processed=final.end_ms / 1000)
        result.alternatives.extend(write_alternatives(final, options, speakers))
    if not finals:
        response.results.add(channel_tag=1, alternatives=[_NOTHING])
    response.results[-1].audio_processed = max(audio_ms / 1000, response.results[-1].audio_processed)
    if options.request_id:
        response.id.value = options.request_id
    return response


def write_alternatives(final: Final, options: Options, speakers: dict[str, int]) -> list[Message]:
    """The readings of a final, best first, as many as were asked for.

    Args:
        final: what was recognized.
        options: what the client asked for.
        speakers: the numbers given to speaker labels so far; grows.
    """
    best = Alternative(final.text, final.words, final.confidence, final.confidence_raw)
    readings = [best, *final.alternatives][: options.max_alternatives]
    return [
        pb.SpeechRecognitionAlternative(
            transcript=reading.text + " " if reading.text else "",
            confidence=_confidence(reading),
            words=_write_words(reading.words, speakers) if options.words else [],
            language_code=[final.language] if final.language else [],
        )
        for reading in readings
    ]


def _write_words(words: Iterable[Word], speakers: dict[str, int]) -> list[Message]:
    return [
        pb.WordInfo(
            start_time=word.start_ms,
            end_time=word.end_ms,
            word=word.text,
            confidence=_confidence(word),
            speaker_tag=_speaker_tag(word.speaker, speakers),
            language_code=word.language or "",
        )
        for word in words
    ]


def _speaker_tag(label: str | None, speakers: dict[str, int]) -> int:
    # Riva's own labels are numbers already; others are numbered as they come, from 1.
    if label is None:
        return 0
    if label.isascii() and label.isdigit() and len(label) < 10:
        return int(label)
    return speakers.setdefault(label, len(speakers) + 1)


def _confidence(said: Word | Alternative) -> float:
    return said.confidence_raw if said.confidence_raw is not None else said.confidence or 0.0


_NOTHING = pb.SpeechRecognitionAlternative()
