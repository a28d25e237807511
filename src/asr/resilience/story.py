"""What several attempts say of one stream, told as one: one clock, one numbering, nothing twice.

Each attempt speaks as if its stream were the only one: its clock and its utterances begin at 0. Here they are moved
to where the attempt's audio really began, and what a new attempt only says again is left out until it has caught up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from asr.events import (
    Event,
    Final,
    FinalReason,
    Flushed,
    Gap,
    GapCause,
    Partial,
    Progress,
    SpeechEnded,
    SpeechStarted,
    Status,
    Word,
)
from asr.transcript import join

SILENT_MS = 10_000
"""A channel whose last final is so much older than another's has nothing to say."""

_Said = TypeVar("_Said", Partial, Final)


@dataclass(slots=True)
class _Channel:
    utterances: int = 0
    """Finals told: the number of the next utterance."""
    base_utterance: int = 0
    base_revision: int = 0
    settled_ms: int = 0
    """Where the last final ended."""
    open: Partial | None = None
    revision: int = 0
    """The last one told of the next utterance."""
    caught_up_ms: int = 0
    """A partial that ends before this has been told better already."""
    speaking: bool = False


class Story:
    """The events of one stream over all its attempts.

    Attributes:
        processed_ms: how far a recognizer has come, at the furthest.
        settled_ms: finals and gaps cover the audio up to here, on every channel.
    """

    def __init__(self, *, words: bool) -> None:
        """`words`: whether the caller asked for words; the recognizer always gives them, for where finals end."""
        self._words = words
        self._channels: dict[int, _Channel] = {}
        self._base_ms = 0
        self._first = True
        self.processed_ms = 0
        self.settled_ms = 0

    @property
    def resting(self) -> bool:
        """Whether no utterance is open: nothing that was guessed waits for its final."""
        return all(channel.open is None for channel in self._channels.values())

    def attempt(self, base_ms: int) -> None:
        """A further attempt begins with the audio from here on."""
        self._base_ms = base_ms
        self._first = False
        for channel in self._channels.values():
            channel.base_utterance = channel.utterances
            channel.base_revision = channel.revision
            channel.caught_up_ms = channel.open.end_ms if channel.open is not None else 0

    def tell(self, event: Event) -> Event | None:
        """The event as the listener should hear it, or None where it has been told already."""
        match event:
            case Partial():
                return self._partial(event)
            case Final():
                return self._final(event)
            case Progress():
                processed_ms = event.processed_ms + self._base_ms
                if processed_ms <= self.processed_ms:
                    return None
                self.processed_ms = processed_ms
                return event if self._first else Progress(processed_ms)
            case SpeechStarted() | SpeechEnded():
                channel = self._channel(event.channel)
                starts = isinstance(event, SpeechStarted)
                if channel.speaking == starts:
                    return None
                channel.speaking = starts
                return event if self._first else replace(event, audio_ms=event.audio_ms + self._base_ms)
            case Gap():
                return self.gap(event.start_ms + self._base_ms, event.end_ms + self._base_ms, event.cause)
            case Flushed() | Status():
                return event if self._first else replace(event, audio_ms=event.audio_ms + self._base_ms)

    def gap(self, start_ms: int, end_ms: int, cause: GapCause) -> Gap | None:
        """Audio that will never be covered; what finals cover is taken off its beginning."""
        start_ms = max(start_ms, self.settled_ms)
        if end_ms <= start_ms:
            return None
        for channel in self._channels.values():
            channel.settled_ms = max(channel.settled_ms, end_ms)
            channel.open = None if channel.open is not None and channel.open.start_ms < end_ms else channel.open
        self.settled_ms = end_ms
        return Gap(start_ms, end_ms, cause)

    def overrun(self, base_ms: int) -> list[Event]:
        """The audio before `base_ms` is not kept any more: words known of it become final, the rest a gap."""
        events: list[Event] = []
        for number, channel in sorted(self._channels.items()):
            guess = channel.open
            words = [] if guess is None else [word for word in guess.words if word.end_ms <= base_ms]
            if guess is None or not words:
                continue
            start_ms = max(words[0].start_ms, channel.settled_ms)
            events.append(
                Final(
                    guess.utterance,
                    guess.revision + 1,
                    join((word.text for word in words), words[0].language or ""),
                    start_ms,
                    max(words[-1].end_ms, start_ms),
                    tuple(words) if self._words else (),
                    reason=FinalReason.FAILOVER,
                    channel=number,
                )
            )
            channel.utterances += 1
            self._closed(channel, words[-1].end_ms)
        self._settle()
        gap = self.gap(self.settled_ms, base_ms, GapCause.BUFFER_OVERRUN)
        return [*events, gap] if gap is not None else events

    def end(self) -> list[Event]:
        """The recognizer ended cleanly. What only one before it had guessed is still open: it becomes final."""
        events: list[Event] = []
        for number, channel in sorted(self._channels.items()):
            if channel.open is not None and channel.caught_up_ms:
                events.append(self._promote(number, channel, channel.open.end_ms, FinalReason.FAILOVER))
        self._settle()
        return events

    def give_up(self, end_ms: int, settled_ms: int, reason: FinalReason, cause: GapCause) -> list[Event]:
        """No recognizer is left: what was guessed becomes final, and the rest of the audio a gap.

        Args:
            end_ms: how much audio there was.
            settled_ms: the audio before this is known to need nothing more.
            reason: of the finals.
            cause: of the gap.
        """
        events: list[Event] = []
        for number, channel in sorted(self._channels.items()):
            if channel.open is not None and channel.open.text:
                events.append(self._promote(number, channel, end_ms, reason))
            channel.open = None
        self._settle()
        gap = self.gap(max(self.settled_ms, settled_ms), end_ms, cause)
        return [*events, gap] if gap is not None else events

    def _promote(self, number: int, channel: _Channel, end_ms: int, reason: FinalReason) -> Final:
        guess = channel.open
        assert guess is not None
        until_ms = guess.words[-1].end_ms if guess.words else guess.end_ms
        until_ms = max(min(until_ms, end_ms), channel.settled_ms)
        start_ms = min(max(guess.start_ms, channel.settled_ms), until_ms)
        words = guess.words if self._words else ()
        channel.utterances = guess.utterance + 1
        self._closed(channel, until_ms)
        return Final(
            guess.utterance, guess.revision + 1, guess.text, start_ms, until_ms, words, reason=reason, channel=number
        )

    def _channel(self, number: int) -> _Channel:
        channel = self._channels.get(number)
        if channel is None:
            channel = self._channels[number] = _Channel(settled_ms=self.settled_ms)
        return channel

    def _partial(self, event: Partial) -> Partial | None:
        channel = self._channel(event.channel)
        told = event if self._first else self._moved(event, channel)
        if channel.caught_up_ms and told.end_ms <= channel.caught_up_ms:
            return None
        channel.caught_up_ms = 0
        channel.open = told
        channel.revision = told.revision
        return told if self._words or not told.words else replace(told, words=())

    def _final(self, event: Final) -> Final | None:
        channel = self._channel(event.channel)
        if not self._first and event.text and event.end_ms + self._base_ms <= channel.settled_ms:
            channel.base_utterance -= 1  # another channel's audio was given again, and this one's with it
            return None
        told = event if self._first else self._moved(event, channel)
        channel.utterances = told.utterance + 1
        self._closed(channel, told.end_ms)
        self._settle()
        if self._words or not told.words:
            return told
        return replace(told, words=(), alternatives=tuple(replace(other, words=()) for other in told.alternatives))

    def _closed(self, channel: _Channel, end_ms: int) -> None:
        channel.open = None
        channel.revision = 0
        channel.caught_up_ms = 0
        channel.settled_ms = end_ms

    def _settle(self) -> None:
        # A channel that has long been silent holds nothing back.
        heard = [c.settled_ms for c in self._channels.values()]
        live = [c.settled_ms for c in self._channels.values() if c.open or c.settled_ms > max(heard) - SILENT_MS]
        self.settled_ms = max(self.settled_ms, min(live, default=0))

    def _moved(self, event: _Said, channel: _Channel) -> _Said:
        base_ms, floor_ms = self._base_ms, channel.settled_ms
        start_ms = max(event.start_ms + base_ms, floor_ms)
        changes: dict[str, Any] = {
            "utterance": event.utterance + channel.base_utterance,
            "revision": event.revision + (channel.base_revision if event.utterance == 0 else 0),
            "start_ms": start_ms,
            "end_ms": max(event.end_ms + base_ms, start_ms),
            "words": _moved_words(event.words, base_ms, floor_ms),
        }
        if isinstance(event, Final):
            changes["alternatives"] = tuple(
                replace(other, words=_moved_words(other.words, base_ms, floor_ms)) for other in event.alternatives
            )
        return replace(event, **changes)


def _moved_words(words: tuple[Word, ...], base_ms: int, floor_ms: int) -> tuple[Word, ...]:
    return tuple(
        replace(word, start_ms=max(word.start_ms + base_ms, floor_ms), end_ms=max(word.end_ms + base_ms, floor_ms))
        for word in words
    )
