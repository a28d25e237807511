"""What a NIM's client is told of finals: the deltas of its items, and what is held back for one `completed`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from asr.events import Final, FinalReason, Partial
from asr.transcript import join
from server.deltas import Deltas
from server.faces.realtime import nim_events as events
from server.faces.realtime.items import Items, NewId
from server.faces.realtime.reading import response

Json = dict[str, Any]

MAX_HELD_WORDS = 4_000
MAX_HELD_CHARS = 200_000
"""So much goes into one message: clients take 1 MiB."""

_GUESSED = (FinalReason.FAILOVER, FinalReason.TIMEOUT)


@dataclass(slots=True)
class _Held:
    """Finals that the client has not been told as `completed`."""

    texts: list[str] = field(default_factory=list)
    words: list[Json] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    chars: int = 0


class Results:
    """The items of one connection.

    Attributes:
        items: their names.
        wants_words: whether the client wants to see words with times.
        gathers: whether a `response.create` is answered with all that was said since the one before, however many
            pauses were in it; else with the utterance that it ended.
    """

    def __init__(self, new_id: NewId) -> None:
        self.items = Items(new_id)
        self.wants_words = False
        self.gathers = False
        self._new_id = new_id
        self._language = ""
        self._deltas = Deltas()
        self._held = _Held()
        self._last_text = ""
        self._gathered: deque[str] = deque()
        self._gathered_chars = 0
        self._speakers: dict[str, int] = {}

    @property
    def holds(self) -> bool:
        """Whether a final has not been told as `completed`."""
        return bool(self._held.texts)

    @property
    def is_full(self) -> bool:
        """Whether what is held must be told now, or it would not fit in a message."""
        return self._held.chars >= MAX_HELD_CHARS or len(self._held.words) >= MAX_HELD_WORDS

    def speak(self, language: str) -> None:
        """The recognizer's language is known: it decides what stands between two texts."""
        self._language = language
        self._deltas = Deltas(language)

    def guess(self, event: Partial) -> list[Json]:
        """The delta of a partial, where it makes one."""
        return self._delta(self._deltas.partial(event.text, event.stable_chars, event.channel))

    def says(self, event: Final) -> bool:
        """Whether a final means anything to the client: an empty one does where it was told guesses."""
        return bool(event.text or self._deltas.sent)

    def keep(self, event: Final, base_ms: int) -> list[Json]:
        """Hold a final, and its last delta. `base_ms`: where its take's clock begins on the connection's."""
        held = self._held
        held.texts.append(event.text)
        held.chars += len(event.text)
        if self.gathers:
            self._gather(event.text)
        if self.wants_words:
            held.words += events.words_of(event.words, base_ms, self._speakers)
        if event.reason in _GUESSED:
            held.warnings.append("The recognizer was lost: a part of this is its last guess.")
        return self._delta(self._deltas.final(event.text, event.channel))

    def tell(self, audio_ms: int, warnings: Iterable[str] = (), *, is_last: bool = False) -> Json:
        """What is held, as the `completed` of an item; the next item begins."""
        held, self._held = self._held, _Held()
        self._deltas = Deltas(self._language)
        self._last_text = join(held.texts, self._language)
        return events.completed(
            self.items.close(),
            self._last_text,
            held.words if self.wants_words else None,
            audio_ms,
            is_last=is_last,
            warnings=tuple(dict.fromkeys((*held.warnings, *warnings))),
        )

    def answer(self) -> list[Json]:
        """What a client is told that asked with `response.create`, behind the `completed` that it asked for."""
        text = join(self._gathered, self._language) if self.gathers else self._last_text
        self._gathered.clear()
        self._gathered_chars = 0
        return response(self._new_id("resp"), self.items.previous or self.items.current, text)

    def forget(self) -> None:
        """What was said and guessed of the current item will not be completed: the next begins."""
        if self._deltas.sent:
            self.items.close()
        self._deltas, self._held = Deltas(self._language), _Held()
        self._gathered.clear()
        self._gathered_chars = 0

    def _gather(self, text: str) -> None:
        self._gathered.append(text)
        self._gathered_chars += len(text)
        while self._gathered_chars > MAX_HELD_CHARS:
            self._gathered_chars -= len(self._gathered.popleft())

    def _delta(self, more: str) -> list[Json]:
        return [events.delta(self.items.current, more)] if more else []
