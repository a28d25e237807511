"""A recognizer for tests that hears a word in every 200 ms of audio and a pause after every fifth.

`WordScript` is pure: the same audio, in any chunks, gives the same events. `WordEngine` puts it behind the
boundary, with faults by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable

from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance, Features, Model, Readiness
from asr.errors import ASRError, Code
from asr.events import Event, FinalReason, Flushed, Progress, Word
from asr.options import Options
from asr.utterances import UtteranceCounter

WORD_MS = 200
WORDS_PER_UTTERANCE = 5
MODELS = (Model("words-en", ("en-US", "en-GB")), Model("words-de", ("de-DE",)))


class WordScript:
    """The pure part."""

    def __init__(self) -> None:
        self._counter = UtteranceCounter()
        self._bytes = 0
        self._spoken = 0
        self._words: list[Word] = []

    def feed(self, pcm: bytes) -> list[Event]:
        events: list[Event] = []
        self._bytes += len(pcm)
        while (self._spoken + 1) * WORD_MS <= self._bytes // BYTES_PER_MS:
            start = self._spoken * WORD_MS
            self._spoken += 1
            self._words.append(Word(f"w{self._spoken}", start, start + WORD_MS))
            if len(self._words) == WORDS_PER_UTTERANCE:
                events += self._final(FinalReason.ENDPOINT)
            else:
                partial = self._counter.partial(self._text, self._words[0].start_ms, start + WORD_MS)
                assert partial is not None
                events.append(partial)
            events.append(Progress(self._spoken * WORD_MS))
        return events

    def cut(self) -> list[Event]:
        return [*self._final(FinalReason.FINALIZE), Flushed(self._bytes // BYTES_PER_MS)]

    def end(self) -> list[Event]:
        return self._final(FinalReason.STOP)

    @property
    def _text(self) -> str:
        return " ".join(word.text for word in self._words)

    def _final(self, reason: FinalReason) -> list[Event]:
        if not self._words:
            return []
        words, text = tuple(self._words), self._text
        self._words = []
        return [self._counter.final(text, words[0].start_ms, words[-1].end_ms, reason=reason, words=words)]


class WordEngine:
    """The same behind the boundary.

    Faults: `unavailable@MS` raises there, `hang@MS` says nothing more from there on, `no-cut` cannot end an
    utterance in mid-stream, `refuses` fails every stream at once, `no-model` serves nothing.
    """

    def __init__(self, fault: str = "") -> None:
        self.fault, _, at = fault.partition("@")
        self._at_ms = int(at or 0)
        self.refuses: ASRError | None = None
        self.open_streams = 0
        self.streams = 0
        self.heard_bytes = b""

    @property
    def name(self) -> str:
        return "words"

    @property
    def features(self) -> Features:
        return Features(end_utterance=self.fault != "no-cut")

    async def models(self) -> tuple[Model, ...]:
        return () if self.fault == "no-model" else MODELS

    def refusal(self) -> ASRError | None:
        return self.refuses

    async def ready(self) -> Readiness:
        return Readiness(self.fault != "no-model")

    async def aclose(self) -> None:
        return None

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        script = WordScript()
        fed = 0
        self.open_streams += 1
        self.streams += 1
        try:
            if self.fault == "refuses":
                raise ASRError(Code.OVERLOADED, "The recognizer is full.", retry_after_ms=2000)
            async for item in audio:
                if isinstance(item, EndUtterance):
                    events = script.cut()
                else:
                    fed += len(item)
                    self.heard_bytes += item
                    events = script.feed(item)
                for event in events:
                    yield event
                if self.fault == "unavailable" and fed >= self._at_ms * BYTES_PER_MS:
                    raise ASRError(Code.UNAVAILABLE, "The recognizer went away.")
                if self.fault == "bug" and fed >= self._at_ms * BYTES_PER_MS:
                    raise RuntimeError("a defect of the engine")
                if self.fault == "hang" and fed >= self._at_ms * BYTES_PER_MS:
                    await asyncio.Event().wait()
            for event in script.end():
                yield event
        finally:
            self.open_streams -= 1
