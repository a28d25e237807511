"""Riva's responses → events.

What Riva leaves to its clients is done here: several non-final results of one response are one partial, and each
response replaces the partial before it; utterances are numbered by counting finals; a non-final with stability
1.0 is the guess of a two-pass end of utterance and stands on its own; finals carry blanks of any kind around
their text; times are missing where words are; and an answer to `force_eou` has no mark of its own.

Servers break their own rules too. Whatever they send, what comes out is in order: times that never go back, one final
for each utterance, no final twice. A partial that its own final has overtaken is dropped, and an utterance that a
server never ends is ended here (`quiet_final_ms`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from asr.events import Event, FinalReason, Flushed, Partial, Progress, Word
from asr.options import Options
from asr.riva_codec.clock import UpstreamClock
from asr.riva_codec.quiet import SpokenHead, quiet_after_ms
from asr.riva_codec.results import ResultParts, fingerprint
from asr.riva_proto import Message
from asr.utterances import UtteranceCounter

STOP_SLACK_MS = 1_200
"""Riva reports the audio it has consumed in chunks of its own, of up to 1120 ms: a final this close to the end of
the audio is there because of it."""
FLUSH_SLACK_MS = 160
"""A final this close to the point of a `force_eou` is its answer. Narrow, since a pause's final that is still on
its way when the request goes out must not pass for it; a later result, or the caller's patience, settles the rest."""

EAGER_STABILITY = 1.0
MAX_OVERTAKEN = 5
"""Partials in a row that are dropped because they look older than the final before them."""


@dataclass(slots=True)
class _Channel:
    """What is known of one audio channel: its counter, and the partial that a response is building up.

    `said` is the server's whole text of the running utterance, `shown` the last partial made of it.
    """

    counter: UtteranceCounter
    last_end_ms: int = 0
    pieces: list[Message] = field(default_factory=list)
    eager: Message | None = None
    said: str = ""
    head: SpokenHead = field(default_factory=SpokenHead)
    shown: Partial | None = None
    shown_at_ms: int = 0
    final_at_ms: int = 0
    overtaken: int = 0
    last_final: tuple[object, ...] | None = None


class ResponseReader:
    """Reads the responses of one `StreamingRecognize` call, in order.

    Attributes:
        changes: grows with each new partial and final; for `quiet`.
    """

    def __init__(self, options: Options, clock: UpstreamClock | None = None, quiet_final_ms: int = 0) -> None:
        """What it reads is on the caller's clock.

        Args:
            options: those the call was opened with.
            clock: knows the silence that the server was sent beside the caller's audio.
            quiet_final_ms: a partial that has not changed in so much audio becomes a final; 0 for never.
        """
        self._partials = options.partials
        self._parts = ResultParts(options.diarization is not None, clock or UpstreamClock())
        self._quiet_ms = quiet_after_ms(options, quiet_final_ms)
        self._channels: dict[int, _Channel] = {}
        self._processed_ms = 0
        self._stop_ms: int | None = None
        self._flushes: deque[int] = deque()
        self._overtaken_partials = 0
        self._repeated_finals = 0
        self.changes = 0

    @property
    def repairs(self) -> int:
        """How many results were not as they should be, and were put right or dropped."""
        return self._parts.repairs + self._overtaken_partials + self._repeated_finals

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
        parts = self._parts
        before_ms = self._processed_ms
        for result in response.results:
            channel = self._channel(parts.channel(result.channel_tag))
            reported_ms = parts.processed(result.audio_processed, sent_ms)
            self._processed_ms = max(self._processed_ms, reported_ms)
            if result.is_final:
                now_ms = (self._processed_ms if reported_ms else sent_ms) or self._processed_ms
                self._close_partial(channel, now_ms, sent_ms, events)
                self._final(channel, result, now_ms, sent_ms, events)
                channel.final_at_ms, channel.overtaken = reported_ms, 0
            elif result.alternatives and not self._is_overtaken(channel, reported_ms):
                if result.stability == EAGER_STABILITY:
                    channel.eager = result
                else:
                    channel.pieces.append(result)
                if channel not in touched:
                    touched.append(channel)
        for channel in touched:
            self._close_partial(channel, self._processed_ms or sent_ms or 0, sent_ms, events)
        if self._quiet_ms:
            self._end_quiet(events)
        self.changes += len(events)
        if self._processed_ms > before_ms:
            events.append(Progress(self._processed_ms))
            self._flush_passed(events)
        return events

    def quiet(self) -> list[Event]:
        """The server has said nothing new for long enough, though it had audio: what is open becomes final."""
        events: list[Event] = []
        for channel in self._channels.values():
            self._finish(channel, events)
        self._flush_passed(events)
        self.changes += len(events)
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
                words = channel.shown.words if channel.shown is not None else ()
                events.append(
                    counter.final(counter.last_text, channel.last_end_ms, end_ms, reason=FinalReason.STOP, words=words)
                )
        while self._flushes:
            events += self.expire()
        return events

    def _channel(self, number: int) -> _Channel:
        channel = self._channels.get(number)
        if channel is None:
            channel = self._channels[number] = _Channel(UtteranceCounter(number))
        return channel

    def _is_overtaken(self, channel: _Channel, reported_ms: int) -> bool:
        # A partial of an utterance whose final is out would open it again. Many in a row: the server's count is odd.
        if not 0 < reported_ms < channel.final_at_ms or channel.overtaken >= MAX_OVERTAKEN:
            return False
        channel.overtaken += 1
        self._overtaken_partials += 1
        return True

    def _close_partial(self, channel: _Channel, now_ms: int, limit_ms: int | None, events: list[Event]) -> None:
        # Close what a response said of a running utterance: the joined partial, then the guess of its end.
        pieces, channel.pieces = channel.pieces, []
        eager, channel.eager = channel.eager, None
        said = channel.said
        if pieces:
            stability = min(self._parts.figure(piece.stability) or 0.0 for piece in pieces)
            self._partial(channel, pieces, stability or None, now_ms, limit_ms, events)
        if eager is not None:
            self._partial(channel, [eager], EAGER_STABILITY, now_ms, limit_ms, events)
        if channel.said != said:
            channel.shown_at_ms = self._processed_ms

    def _partial(
        self,
        channel: _Channel,
        pieces: list[Message],
        stability: float | None,
        now_ms: int,
        limit_ms: int | None,
        events: list[Event],
    ) -> None:
        best = [piece.alternatives[0] for piece in pieces]
        text = "".join([alternative.transcript for alternative in best]).strip()
        floor_ms = 0 if channel.head else channel.last_end_ms
        words = self._parts.words([word for one in best for word in one.words], floor_ms, limit_ms)
        channel.said = text
        text, words = self._cut(channel, text, words)
        if not text and not channel.counter.is_open:
            return
        event = channel.counter.partial(
            text,
            words[0].start_ms if words else channel.last_end_ms,
            max(now_ms, words[-1].end_ms if words else 0),
            stability=stability,
            words=words,
            eager_eou=stability == EAGER_STABILITY,
        )
        if event is not None:
            channel.shown = event
            events.append(event)

    def _cut(self, channel: _Channel, text: str, words: tuple[Word, ...]) -> tuple[str, tuple[Word, ...]]:
        # Where nothing of the head is left, the server has begun anew without a word.
        if not channel.head:
            return text, words
        new = channel.head.cut(text, words)
        if text and new == (text, words):
            channel.head.clear()
        return new

    def _end_quiet(self, events: list[Event]) -> None:
        for channel in self._channels.values():
            # Before the first `audio_processed` nothing was known of when.
            channel.shown_at_ms = channel.shown_at_ms or self._processed_ms
            if self._processed_ms - channel.shown_at_ms >= self._quiet_ms:
                self._finish(channel, events)

    def _finish(self, channel: _Channel, events: list[Event]) -> None:
        # It ends where its last words came, not now: what comes after may still be heard by another recognizer.
        shown = channel.shown
        if shown is None or not shown.text:
            return
        event = channel.counter.final(
            shown.text,
            shown.start_ms,
            shown.words[-1].end_ms if shown.words else shown.end_ms,
            reason=FinalReason.UPSTREAM_SILENT,
            words=shown.words,
        )
        channel.head.set(channel.said, event.end_ms)
        channel.last_end_ms = event.end_ms
        channel.shown = None
        events.append(event)

    def _final(
        self, channel: _Channel, result: Message, now_ms: int, limit_ms: int | None, events: list[Event]
    ) -> None:
        print_ = fingerprint(result)
        if print_ is not None and print_ == channel.last_final:
            self._repeated_finals += 1
            return
        channel.last_final = print_
        answers_flush = bool(self._flushes) and self._reaches(self._flushes[0] - FLUSH_SLACK_MS)
        floor_ms = 0 if channel.head else channel.last_end_ms
        alternatives = []
        for one in result.alternatives:
            text, words = channel.head.cut(one.transcript, self._parts.words(one.words, floor_ms, limit_ms))
            alternatives.append((text, words, one))
        # A final without text closes an utterance that partials had opened; else there was nothing to end.
        if channel.counter.is_open or (alternatives and alternatives[0][0].strip()):
            if answers_flush:
                reason = FinalReason.FINALIZE
            elif self._stop_ms is not None and self._reaches(self._stop_ms - STOP_SLACK_MS):
                reason = FinalReason.STOP
            else:
                reason = FinalReason.ENDPOINT
            event = self._parts.final(channel.counter, alternatives, channel.last_end_ms, now_ms, reason)
            channel.last_end_ms = event.end_ms
            events.append(event)
        channel.said, channel.shown = "", None
        channel.head.clear()
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
