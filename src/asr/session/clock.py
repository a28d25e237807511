"""One clock and one numbering for the caller, over however many sessions of gateways it takes.

A gateway that was restarted counts bytes, milliseconds and utterances from 0 again; what it says is moved behind
what was said before. The clock also knows up to where the audio is settled: a new session begins there.
"""

from __future__ import annotations

from dataclasses import replace

from asr.engine import BYTES_PER_MS
from asr.events import Alternative, Event, Final, Flushed, Gap, Partial, Progress, SpeechEnded, SpeechStarted, Word


class Clock:
    """Moves events of the current session of the gateway onto the caller's clock.

    Attributes:
        base_bytes: where the current session began, on the caller's clock.
        settled_bytes: everything that was said before is final, or is nothing.
        finals: how many finals there were.
    """

    def __init__(self) -> None:
        self.base_bytes = 0
        self.settled_bytes = 0
        self.finals = 0
        self._base_utterance = 0
        self._base_revision = 0
        self._utterance = 0
        self._revision = 0
        self._processed_ms = -1
        self._open_ms: int | None = None
        self._gap_ahead: tuple[int, int] | None = None

    @property
    def base_ms(self) -> int:
        """`base_bytes` in milliseconds."""
        return self.base_bytes // BYTES_PER_MS

    def settle(self, at: int, sent_bytes: int) -> None:
        """Audio up to `at` is settled; at most what was sent, however far a recognizer rounds."""
        self.settled_bytes = max(self.settled_bytes, min(at, sent_bytes))
        if self._gap_ahead is not None and self._gap_ahead[0] * BYTES_PER_MS <= self.settled_bytes:
            end_ms, self._gap_ahead = self._gap_ahead[1], None
            self.settle(end_ms * BYTES_PER_MS, sent_bytes)

    def begin_anew(self, at: int) -> None:
        """A new session of the gateway begins with the audio from `at` on."""
        self.base_bytes = at
        self._open_ms = self._gap_ahead = None
        self._base_utterance = self._utterance
        self._base_revision = self._revision

    def move(self, event: Event, sent_bytes: int) -> Event | None:
        """The event on the caller's clock; None for progress that is none."""
        base_ms = self.base_ms
        match event:
            case Partial():
                moved = replace(
                    event,
                    utterance=event.utterance + self._base_utterance,
                    revision=self._moved_revision(event),
                    start_ms=event.start_ms + base_ms,
                    end_ms=event.end_ms + base_ms,
                    words=_words(event.words, base_ms),
                )
                self._utterance, self._revision = moved.utterance, moved.revision
                self._open_ms = moved.start_ms
                return moved
            case Final():
                final = replace(
                    event,
                    utterance=event.utterance + self._base_utterance,
                    revision=self._moved_revision(event),
                    start_ms=event.start_ms + base_ms,
                    end_ms=event.end_ms + base_ms,
                    words=_words(event.words, base_ms),
                    alternatives=tuple(_alternative(other, base_ms) for other in event.alternatives),
                )
                self.finals += 1
                self._utterance, self._revision = final.utterance + 1, 0
                self._open_ms = None
                self.settle(final.end_ms * BYTES_PER_MS, sent_bytes)
                return final
            case Progress(processed_ms):
                if processed_ms + base_ms <= self._processed_ms:
                    return None
                self._processed_ms = processed_ms + base_ms
                return Progress(self._processed_ms)
            case Gap():
                gap = replace(event, start_ms=event.start_ms + base_ms, end_ms=event.end_ms + base_ms)
                self._missed(gap, sent_bytes)
                return gap
            case SpeechStarted() | SpeechEnded() | Flushed():
                return replace(event, audio_ms=event.audio_ms + base_ms)
            case status:
                return replace(status, audio_ms=status.audio_ms + base_ms)

    def _missed(self, gap: Gap, sent_bytes: int) -> None:
        """No final will ever cover it: it is settled too, once an utterance that is open before it is final."""
        reached = gap.start_ms * BYTES_PER_MS <= self.settled_bytes
        if self._open_ms is not None and self._open_ms < gap.start_ms and not reached:
            self._gap_ahead = (gap.start_ms, gap.end_ms)
            return
        if self._open_ms is not None and self._open_ms < gap.end_ms:
            self._open_ms = None
        self.settle(gap.end_ms * BYTES_PER_MS, sent_bytes)

    def _moved_revision(self, event: Partial | Final) -> int:
        # The first utterance of a new session goes on with the one that was open when the last session was lost.
        return event.revision + (self._base_revision if event.utterance == 0 else 0)


def _words(words: tuple[Word, ...], base_ms: int) -> tuple[Word, ...]:
    if not base_ms:
        return words
    return tuple(replace(word, start_ms=word.start_ms + base_ms, end_ms=word.end_ms + base_ms) for word in words)


def _alternative(alternative: Alternative, base_ms: int) -> Alternative:
    return replace(alternative, words=_words(alternative.words, base_ms))
