"""Riva's responses → events.

What Riva leaves to its clients is done here: several non-final results of one response are one partial, and each
response replaces the partial before it; utterances are numbered by counting finals; a non-final with stability
1.0 is the guess of a two-pass end of utterance and stands on its own; finals carry blanks of any kind around
their text; times are missing where words are; and an answer to `force_eou` has no mark of its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from asr.events import Alternative, Event, Final, FinalReason, Flushed, Partial, Progress, Word
from asr.options import Options
from asr.riva_codec.floats import short_or_none, to_ms
from asr.riva_proto import Message
from asr.utterances import UtteranceCounter

STOP_SLACK_MS = 1_200
"""Riva reports the audio it has consumed in chunks of its own, of up to 1120 ms: a final this close to the end of
the audio is there because of it."""
FLUSH_SLACK_MS = 160
"""A final this close to the point of a `force_eou` is its answer. Narrow, since a pause's final that is still on
its way when the request goes out must not pass for it; a later result, or the caller's patience, settles the rest."""

EAGER_STABILITY = 1.0


@dataclass(slots=True)
class _Channel:
    """What is known of one audio channel: its counter, and the partial that a response is building up."""

    counter: UtteranceCounter
    last_end_ms: int = 0
    pieces: list[Message] = field(default_factory=list)
    eager: Message | None = None


class ResponseReader:
    """Reads the responses of one `StreamingRecognize` call, in order."""

    def __init__(self, options: Options) -> None:
        """`options` are those the call was opened with."""
        self._diarization = options.diarization is not None
        self._partials = options.partials
        self._channels: dict[int, _Channel] = {}
        self._processed_ms = 0
        self._stop_ms: int | None = None
        self._flushes: deque[int] = deque()

    @property
    def flushes(self) -> int:
        """How many `finalize` are still without their `Flushed`."""
        return len(self._flushes)

    def finalize(self, audio_ms: int) -> None:
        """The server has been asked to end the utterance at this point of the audio."""
        self._flushes.append(audio_ms)

    def settled(self) -> list[Event]:
        """The answers to those `finalize` that nothing is left to say about: for after the call of `finalize`."""
        events: list[Event] = []
        self._flush_passed(events)
        return events

    def stop(self, audio_ms: int) -> None:
        """The audio has ended, after this much of it."""
        self._stop_ms = audio_ms

    def read(self, response: Message, sent_ms: int | None = None) -> list[Event]:
        """The events of one response; often none.

        Args:
            response: a `StreamingRecognizeResponse`.
            sent_ms: audio sent so far. The server cannot have consumed more, and without word times and
                `audio_processed` it is the best guess of where a result ends.
        """
        events: list[Event] = []
        touched: list[_Channel] = []
        before_ms = self._processed_ms
        for result in response.results:
            channel = self._channel(max(result.channel_tag - 1, 0))
            reported_ms = to_ms(result.audio_processed)
            self._processed_ms = max(self._processed_ms, reported_ms if sent_ms is None else min(reported_ms, sent_ms))
            if result.is_final:
                now_ms = (self._processed_ms if reported_ms else sent_ms) or self._processed_ms
                self._close_partial(channel, now_ms, events)
                self._final(channel, result, now_ms, events)
            elif result.alternatives:
                if result.stability == EAGER_STABILITY:
                    channel.eager = result
                else:
                    channel.pieces.append(result)
                if channel not in touched:
                    touched.append(channel)
        for channel in touched:
            self._close_partial(channel, self._processed_ms or sent_ms or 0, events)
        if self._processed_ms > before_ms:
            events.append(Progress(self._processed_ms))
            self._flush_passed(events)
        return events

    def expire(self) -> list[Event]:
        """The answer to the oldest `finalize` has been awaited for long enough."""
        return [Flushed(self._flushes.popleft())] if self._flushes else []

    def end(self) -> list[Event]:
        """The server has ended the stream cleanly.

        Some deployments never send a final: what was a partial until now becomes one.
        """
        events: list[Event] = []
        for channel in self._channels.values():
            counter = channel.counter
            if counter.last_text:
                end_ms = self._processed_ms if self._stop_ms is None else max(self._stop_ms, self._processed_ms)
                start_ms = channel.last_end_ms
                events.append(counter.final(counter.last_text, start_ms, end_ms, reason=FinalReason.STOP))
        while self._flushes:
            events += self.expire()
        return events

    def _channel(self, number: int) -> _Channel:
        channel = self._channels.get(number)
        if channel is None:
            channel = self._channels[number] = _Channel(UtteranceCounter(number))
        return channel

    def _close_partial(self, channel: _Channel, now_ms: int, events: list[Event]) -> None:
        # Close what a response said of a running utterance: the joined partial, then the guess of its end.
        pieces, channel.pieces = channel.pieces, []
        eager, channel.eager = channel.eager, None
        if pieces:
            stability = min(piece.stability for piece in pieces)
            event = self._partial(channel, pieces, short_or_none(stability), now_ms)
            if event is not None:
                events.append(event)
        if eager is not None:
            event = self._partial(channel, [eager], EAGER_STABILITY, now_ms)
            if event is not None:
                events.append(event)

    def _partial(
        self, channel: _Channel, pieces: list[Message], stability: float | None, now_ms: int
    ) -> Partial | None:
        best = [piece.alternatives[0] for piece in pieces]
        text = "".join([alternative.transcript for alternative in best]).strip()
        if not text and not channel.counter.is_open:
            return None
        words = read_words([word for alternative in best for word in alternative.words], self._diarization)
        start_ms = words[0].start_ms if words else channel.last_end_ms
        return channel.counter.partial(
            text,
            start_ms,
            max(now_ms, words[-1].end_ms if words else 0),
            stability=stability,
            words=words,
            eager_eou=stability == EAGER_STABILITY,
        )

    def _final(self, channel: _Channel, result: Message, now_ms: int, events: list[Event]) -> None:
        counter = channel.counter
        alternatives = result.alternatives
        answers_flush = bool(self._flushes) and self._reaches(self._flushes[0] - FLUSH_SLACK_MS)
        # A final without text closes an utterance that partials had opened; else there was nothing to end.
        if counter.is_open or (alternatives and alternatives[0].transcript.strip()):
            if answers_flush:
                reason = FinalReason.FINALIZE
            elif self._stop_ms is not None and self._reaches(self._stop_ms - STOP_SLACK_MS):
                reason = FinalReason.STOP
            else:
                reason = FinalReason.ENDPOINT
            event = _read_final(counter, result, channel.last_end_ms, now_ms, reason, self._diarization)
            channel.last_end_ms = event.end_ms
            events.append(event)
        if answers_flush:
            events += self.expire()

    def _reaches(self, point_ms: int) -> bool:
        # Without `audio_processed` any final will do: nothing better is known.
        return not self._processed_ms or self._processed_ms >= point_ms

    def _flush_passed(self, events: list[Event]) -> None:
        # Only where partials would show an open utterance can silence be told from words still to come.
        while (
            self._partials
            and self._flushes
            and self._processed_ms >= self._flushes[0]
            and not any(channel.counter.is_open for channel in self._channels.values())
        ):
            events += self.expire()


def read_recognize(response: Message, options: Options, sent_ms: int) -> list[Event]:
    """The finals of a unary `RecognizeResponse` to a recording of `sent_ms`."""
    channels: dict[int, UtteranceCounter] = {}
    ends: dict[int, int] = {}
    events: list[Event] = []
    for result in response.results:
        if not result.alternatives or not result.alternatives[0].transcript.strip():
            continue
        number = max(result.channel_tag - 1, 0)
        counter = channels.setdefault(number, UtteranceCounter(number))
        now_ms = min(to_ms(result.audio_processed) or sent_ms, sent_ms)
        last_end_ms = ends.get(number, 0)
        event = _read_final(counter, result, last_end_ms, now_ms, FinalReason.STOP, options.diarization is not None)
        ends[number] = event.end_ms
        events.append(event)
    events.append(Progress(sent_ms))
    return events


def _read_final(
    counter: UtteranceCounter, result: Message, last_end_ms: int, now_ms: int, reason: FinalReason, diarization: bool
) -> Final:
    if not result.alternatives:
        return counter.final("", last_end_ms, now_ms, reason=reason)
    best = result.alternatives[0]
    words = read_words(best.words, diarization)
    return counter.final(
        best.transcript,
        words[0].start_ms if words else last_end_ms,
        words[-1].end_ms if words else now_ms,
        reason=reason,
        words=words,
        alternatives=tuple(_read_alternative(other, diarization) for other in result.alternatives[1:]),
        confidence_raw=short_or_none(best.confidence),
        language=best.language_code[0] if best.language_code else None,
    )


def _read_alternative(alternative: Message, diarization: bool) -> Alternative:
    return Alternative(
        alternative.transcript.strip(),
        read_words(alternative.words, diarization),
        confidence_raw=short_or_none(alternative.confidence),
    )


def read_words(words: list[Message], diarization: bool) -> tuple[Word, ...]:
    """Riva's words, in order and without overlap; none where they carry no times at all.

    Speaker tags are labels, from 0 in some deployments and from 1 in others; 0 without diarization is no label.
    """
    if not any(word.end_time for word in words):
        return ()
    starts: list[int] = []
    for word in words:
        starts.append(max(word.start_time, starts[-1] if starts else 0))
    limits = [following for _, following in pairwise(starts)] + [None]
    found = []
    for word, start_ms, limit in zip(words, starts, limits, strict=True):
        end_ms = max(word.end_time, start_ms)
        found.append(
            Word(
                text=word.word.strip(),
                start_ms=start_ms,
                end_ms=end_ms if limit is None else min(end_ms, limit),
                confidence_raw=short_or_none(word.confidence),
                speaker=str(word.speaker_tag) if diarization or word.speaker_tag else None,
                language=word.language_code or None,
            )
        )
    return tuple(found)
