"""The items of OpenAI's realtime transcription: how what an engine says becomes turns, deltas and transcripts.

`Ledger` keeps the session's audio clock (ms of all audio that the client has written, which no take and no `clear` sets
back) and answers each of the engine's events with the events to send. Which audio goes where is decided in `openai`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Gap, Partial, Progress, SpeechEnded, SpeechStarted
from asr.transcript import join
from server.deltas import Deltas
from server.faces.realtime import openai_events as events
from server.faces.realtime.items import NewId
from server.faces.realtime.openai_events import Json
from server.faces.realtime.openai_session import OpenAISession
from server.faces.realtime.reading import response

_GUESSED = (FinalReason.FAILOVER, FinalReason.TIMEOUT)


@dataclass(slots=True)
class Item:
    """A stretch of the client's audio that gets one transcript; times are on the session's audio clock.

    Attributes:
        id: its name in every event.
        start_ms, end_ms: the audio it covers; the end is not known before it is committed.
        deltas: what of it the client was told before it is complete.
        texts: its finals.
        is_committed: whether the client was told that it is an item.
        asked: whether a `response.create` waits for it.
        lost: why audio of it was never recognized, or None.
        warnings: for its `completed` event.
    """

    id: str
    start_ms: int
    end_ms: int = 0
    deltas: Deltas = field(default_factory=Deltas)
    texts: list[str] = field(default_factory=list)
    is_committed: bool = False
    asked: bool = False
    lost: ASRError | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Take:
    """One engine stream.

    Attributes:
        number: of the take.
        base_ms: where it begins on the session's audio clock.
        session: the settings that it began with.
        language: BCP-47; as asked for, then as the engine agreed.
        cuts: whether its engine can end an utterance in mid-stream; not known before it has begun.
        item: what its next words belong to, as long as the client has not committed that.
        owed: items whose audio is complete and whose transcripts are not, oldest first: one for each answer that the
            engine owes, None where nothing ends with it.
        rest: what its words belong to when there is no item: one that was committed on a later take.
        is_finished: whether its audio is complete.
        is_void: whether nothing is wanted of it but what is owed.
    """

    number: int
    base_ms: int
    session: OpenAISession
    language: str = ""
    cuts: bool = False
    item: Item | None = None
    owed: list[Item | None] = field(default_factory=list)
    rest: Item | None = None
    is_finished: bool = False
    is_void: bool = False

    @property
    def current(self) -> Item | None:
        """What the engine's next words belong to."""
        if self.is_turn_over:
            return self.item
        return next((item for item in self.owed if item is not None), self.item or self.rest)

    @property
    def is_turn_over(self) -> bool:
        """Whether `item` is a turn that waits for its final only; what is owed was committed after it."""
        return self.session.turns is not None and self.item is not None and self.item.is_committed


class Ledger:
    """All items of a session, one after another.

    Args:
        beta: whether items are told as the beta does.
        new_id: makes an id with the prefix that it is given.
    """

    def __init__(self, *, beta: bool, new_id: NewId) -> None:
        self.written_ms = 0.0
        self.committed_ms = 0.0
        self._beta = beta
        self._new_id = new_id
        self._previous_id: str | None = None

    @property
    def now_ms(self) -> int:
        """How much audio has come in the session."""
        return int(self.written_ms)

    @property
    def is_buffered(self) -> bool:
        """Whether audio came since the last commit."""
        return self.written_ms > self.committed_ms

    def new(self, language: str, start_ms: int = 0) -> Item:
        """The next item; what is committed already is not in it."""
        return Item(self._new_id("item"), max(start_ms, int(self.committed_ms)), deltas=Deltas(language))

    def heard(self, take: Take, event: Event) -> list[Json]:
        """What to tell the client when the engine of `take` says `event`."""
        match event:
            case Partial(text=text) if text:
                told = self._speech(take, event.start_ms)
                item = take.current
                return told if item is None else [*told, *_delta(item, item.deltas.partial(text, event.stable_chars))]
            case Final():
                return self._final(take, event)
            case SpeechStarted(audio_ms):
                return [*self._silent(take), *self._speech(take, audio_ms)]
            case SpeechEnded(audio_ms):
                return self._stop(take, audio_ms)
            case Progress(processed_ms):
                passed = take.item is not None and take.base_ms + processed_ms >= take.item.end_ms
                return self._silent(take) if passed else []
            case Flushed():
                return self._flushed(take)
            case Gap():
                return self._gap(take, event)
            case _:
                return []

    def finished(self, take: Take) -> list[Json]:
        """The engine has said everything: what it owed is complete."""
        told: list[Json] = []
        while take.owed:
            told += self._flushed(take)
        return [*told, *self._stop(take, self.now_ms - take.base_ms), *self._silent(take)]

    def lose(self, takes: Iterable[Take], error: ASRError) -> list[Json]:
        """The takes are broken: what they owe, and what is being said, ends with what there is of it."""
        told: list[Json] = []
        lost: set[str] = set()
        for take in takes:
            for item in (*take.owed, take.item):
                if item is None or item.id in lost:
                    continue
                lost.add(item.id)  # an item may go on from one take to the next
                item.lost = item.lost or error
                if not item.is_committed:
                    told += self.commit(item, self.now_ms)
                told += self.complete(item, take.language)
        return told

    def commit(self, item: Item, end_ms: int) -> list[Json]:
        """The audio until `end_ms` becomes `item`."""
        item.end_ms, item.is_committed = end_ms, True
        previous, self._previous_id = self._previous_id, item.id
        # All that was written: to the last sample, not the last millisecond.
        self.committed_ms = max(self.committed_ms, self.written_ms if end_ms >= self.now_ms else end_ms)
        return events.committed(item.id, previous, beta=self._beta)

    def complete(self, item: Item, language: str) -> list[Json]:
        """The last words on an item."""
        text, lost = join(item.texts, language), item.lost
        if lost is not None and not text:
            told, status = [events.failed(item.id, lost)], "failed"
        else:
            warnings = [*item.warnings, *([lost.message] if lost is not None else [])]
            duration_ms = item.end_ms - item.start_ms
            told, status = [events.completed(item.id, text, duration_ms, warnings)], "completed"
        if item.asked:
            told += response(self._new_id("resp"), item.id, text, status=status)
        return told

    # Turns ----------------------------------------------------------------------------------------

    def _speech(self, take: Take, audio_ms: int) -> list[Json]:
        """Speech is heard: where turns are found, it begins an item."""
        turns = take.session.turns
        if turns is None or take.is_void or take.current is not None:
            return []
        take.item = item = self.new(take.language, take.base_ms + audio_ms - turns.prefix_padding_ms)
        return [events.speech_started(item.id, item.start_ms)]

    def _stop(self, take: Take, audio_ms: int) -> list[Json]:
        """A turn is over, and commits."""
        item = take.item
        if take.session.turns is None or item is None or item.is_committed or take.current is not item:
            return []
        end_ms = max(take.base_ms + audio_ms, item.start_ms)
        return [events.speech_stopped(item.id, end_ms), *self.commit(item, end_ms)]

    def _silent(self, take: Take) -> list[Json]:
        """Nothing more will be said of a turn that is over."""
        item = take.item
        if item is None or not take.is_turn_over:
            return []
        take.item = None
        return self.complete(item, take.language)

    def _final(self, take: Take, event: Final) -> list[Json]:
        told = self._speech(take, event.start_ms) if event.text else []
        item = take.current
        if item is None:
            return told
        if event.reason in _GUESSED:
            item.warnings.append("The recognizer was lost: the last words are its guess of then.")
        item.texts.append(event.text)
        told += _delta(item, item.deltas.final(event.text))
        if item is take.item:
            told += [*self._stop(take, event.end_ms), *self._silent(take)]
        return told

    def _flushed(self, take: Take) -> list[Json]:
        told = self._silent(take)
        item = take.owed.pop(0) if take.owed else None
        return [*told, *(self.complete(item, take.language) if item is not None else [])]

    def _gap(self, take: Take, gap: Gap) -> list[Json]:
        """Audio that will never be recognized: an item of which nothing else is left fails because of it."""
        start_ms, end_ms = take.base_ms + gap.start_ms, take.base_ms + gap.end_ms
        text = f"The audio from {start_ms} ms to {end_ms} ms was lost with the recognizer: its words are missing."
        error = ASRError(Code.UNAVAILABLE, text)
        item = take.current
        if item is not None:
            item.lost = item.lost or error
            return []
        if take.is_void or take.session.turns is None:
            return []
        item = self.new(take.language, start_ms)
        item.lost = error
        return [*self.commit(item, end_ms), *self.complete(item, take.language)]


def _delta(item: Item, more: str) -> list[Json]:
    return [events.delta(item.id, more)] if more else []
