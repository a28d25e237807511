"""One response and the parts of its results: texts, words, times and figures, on the caller's clock.

What a server may get wrong is put right here and counted: times that are negative, no numbers, out of order or
beyond the audio, and figures that are none.
"""

from __future__ import annotations

from math import isfinite

from google.protobuf.message import DecodeError

from asr.errors import ASRError, Code
from asr.events import Alternative, Event, Final, FinalReason, Progress, Word
from asr.options import Options
from asr.riva_codec.clock import UpstreamClock
from asr.riva_codec.floats import short, to_ms
from asr.riva_proto import Message
from asr.riva_proto import asr as pb
from asr.utterances import UtteranceCounter

SLACK_MS = 2_000
"""Servers pad and round by their own chunks; a time that is wrong by more than this is a mistake."""
MAX_CHANNELS = 16
"""Audio is sent with one channel, and a few tags are in use; any other number is a mistake."""


class ResultParts:
    """Reads the parts of results.

    Attributes:
        repairs: how many results had something that was put right.
    """

    def __init__(self, diarization: bool, clock: UpstreamClock) -> None:
        """`diarization`: whether speaker tags were asked for."""
        self._diarization = diarization
        self._clock = clock
        self.repairs = 0

    def channel(self, tag: int) -> int:
        """The 0-based channel of a `channel_tag`, which counts from 1, or is 0 where nobody cared."""
        if tag > MAX_CHANNELS or tag < 0:
            self.repairs += 1
            return 0
        return tag - 1 if tag else 0

    def processed(self, seconds: float, sent_ms: int | None) -> int:
        """`audio_processed` in ms, at most the audio sent; 0 where it is not told or cannot be."""
        if not seconds:
            return 0
        if seconds < 0 or not isfinite(seconds):
            self.repairs += 1
            return 0
        ms = self._clock.to_caller(to_ms(seconds))
        if sent_ms is None or ms <= sent_ms:
            return ms
        self.repairs += ms > sent_ms + SLACK_MS
        return sent_ms

    def figure(self, number: float) -> float | None:
        """A confidence or stability; None for 0.0, which is what Riva sends for "not set"."""
        if not number:
            return None
        if not isfinite(number):
            self.repairs += 1
            return None
        return short(number)

    def words(self, words: list[Message], floor_ms: int, limit_ms: int | None) -> tuple[Word, ...]:
        """Riva's words, in order and without overlap; none where they carry no times at all.

        Speaker tags are labels, from 0 in some deployments and from 1 in others; 0 without diarization is no label.

        Args:
            words: of one alternative, or of several that follow each other.
            floor_ms: where the utterance before ended.
            limit_ms: audio sent, where that is known.
        """
        if not any(word.end_time for word in words):
            return ()
        to_caller = self._clock.to_caller if self._clock.has_insertions else None
        times: list[tuple[int, int]] = []
        wrong = False
        at_ms = floor_ms
        for word in words:
            start_ms, end_ms = word.start_time, word.end_time
            if to_caller is not None:
                start_ms, end_ms = to_caller(start_ms), to_caller(end_ms)
            if start_ms < at_ms or end_ms < start_ms:
                wrong |= start_ms < 0 or start_ms < at_ms - SLACK_MS or end_ms < start_ms
                start_ms = max(start_ms, at_ms)
            if limit_ms is not None and (end_ms > limit_ms or start_ms > limit_ms):
                wrong |= max(start_ms, end_ms) > limit_ms + SLACK_MS
                start_ms, end_ms = max(min(start_ms, limit_ms), at_ms), min(end_ms, limit_ms)
            at_ms = start_ms
            times.append((start_ms, max(end_ms, start_ms)))
        self.repairs += wrong
        found: list[Word] = []
        for index, word in enumerate(words, 1):
            start_ms, end_ms = times[index - 1]
            limit = times[index][0] if index < len(times) else end_ms
            found.append(
                Word(
                    text=word.word.strip(),
                    start_ms=start_ms,
                    end_ms=min(end_ms, limit),
                    confidence_raw=self.figure(word.confidence),
                    speaker=str(word.speaker_tag) if self._diarization or word.speaker_tag else None,
                    language=word.language_code or None,
                )
            )
        return tuple(found)

    def final(
        self,
        counter: UtteranceCounter,
        alternatives: list[tuple[str, tuple[Word, ...], Message]],
        floor_ms: int,
        now_ms: int,
        reason: FinalReason,
    ) -> Final:
        """The final of `counter`'s utterance.

        Args:
            counter: of the channel.
            alternatives: text and words of each, as they are to be said, and the alternative itself; may be empty.
            floor_ms: where it begins if no word tells.
            now_ms: where it ends if no word tells.
            reason: why it ended.
        """
        if not alternatives:
            return counter.final("", floor_ms, now_ms, reason=reason)
        text, words, best = alternatives[0]
        return counter.final(
            text,
            words[0].start_ms if words else floor_ms,
            words[-1].end_ms if words else now_ms,
            reason=reason,
            words=words,
            alternatives=tuple(
                Alternative(other.strip(), others, confidence_raw=self.figure(source.confidence))
                for other, others, source in alternatives[1:]
            ),
            confidence_raw=self.figure(best.confidence),
            language=best.language_code[0] if best.language_code else None,
        )


def parse_response(received: Message) -> Message:
    """A `StreamingRecognizeResponse` from its bytes; a message as it is.

    Raises:
        ASRError: `internal`, worth another try, for bytes that are no such message, and for the None that gRPC gives
            for bytes that it was asked to parse itself and could not.
    """
    if isinstance(received, bytes):
        try:
            return pb.StreamingRecognizeResponse.FromString(received)
        except DecodeError:
            received = None
    if received is None:
        raise ASRError(
            Code.INTERNAL,
            "The recognizer sent something that is not a Riva response. Try again; if it stays so, see what is behind "
            "the recognizer's address.",
            retryable=True,
        )
    return received


def fingerprint(result: Message) -> tuple[object, ...] | None:
    """What shows that a final is the one before once more; None where its times do not tell."""
    if not result.alternatives:
        return None
    best = result.alternatives[0]
    times = tuple((word.start_time, word.end_time) for word in best.words if word.end_time)
    if times:
        return best.transcript, times
    return (best.transcript, result.audio_processed) if result.audio_processed else None


def read_recognize(response: Message, options: Options, sent_ms: int) -> list[Event]:
    """The finals of a unary `RecognizeResponse` to a recording of `sent_ms`."""
    parts = ResultParts(options.diarization is not None, UpstreamClock())
    channels: dict[int, UtteranceCounter] = {}
    ends: dict[int, int] = {}
    events: list[Event] = []
    for result in response.results:
        if not result.alternatives or not result.alternatives[0].transcript.strip():
            continue
        number = parts.channel(result.channel_tag)
        counter = channels.setdefault(number, UtteranceCounter(number))
        last_end_ms = ends.get(number, 0)
        alternatives = [
            (one.transcript, parts.words(one.words, last_end_ms, sent_ms), one) for one in result.alternatives
        ]
        now_ms = parts.processed(result.audio_processed, sent_ms) or sent_ms
        event = parts.final(counter, alternatives, last_end_ms, now_ms, FinalReason.STOP)
        ends[number] = event.end_ms
        events.append(event)
    events.append(Progress(sent_ms))
    return events
