"""An engine whose words are the numbers that a test wrote into the audio, and which fails as it is told to.

A frame is 1 ms (a replay may begin at any) whose samples all hold its number; its word is `f00123`. Lost, repeated
and reordered words are then integers, whatever fails.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass

from asr.engine import AudioInput, EndUtterance, Features, Model, Readiness
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Gap, Progress, Word
from asr.options import Options
from asr.utterances import UtteranceCounter

FRAME_MS = 1
FRAME_BYTES = FRAME_MS * 32


def frames(count: int, first: int = 0) -> bytes:
    """Audio of so many numbered frames."""
    return b"".join(struct.pack("<h", number) * (FRAME_BYTES // 2) for number in range(first, first + count))


def word(number: int) -> str:
    """The word of a frame."""
    return f"f{number:05d}"


@dataclass
class Fault:
    """What goes wrong with one attempt: it fails after so many frames (0: at once), in this way."""

    after_frames: int
    error: ASRError | None = None
    """None: it falls silent and takes no more audio."""


def lost(text: str = "The connection broke.") -> ASRError:
    """A failure that another attempt may mend."""
    return ASRError(Code.UNAVAILABLE, text)


class CountingEngine:
    """Says the number of each frame; a final each so many frames."""

    name = "counting"
    features = Features()

    def __init__(
        self,
        faults: Sequence[Fault | None] = (),
        *,
        utterance_frames: int | Callable[[], int] = 5,
        partials: bool = True,
        progress: bool = True,
        list_models: Callable[[], Sequence[Model]] | None = None,
    ) -> None:
        """`faults`: one for each attempt, in order; after the last of them all goes well."""
        self.faults = list(faults)
        self.attempts = 0
        self.open = 0
        self.heard: list[list[int]] = []
        self.closed = False
        self._utterance_frames = utterance_frames
        self._partials = partials
        self._progress = progress
        self._list_models = list_models

    async def models(self) -> Sequence[Model]:
        """One model."""
        return self._list_models() if self._list_models is not None else (Model("numbers", ("en-US",)),)

    async def ready(self) -> Readiness:
        """Always."""
        return Readiness(True)

    def refusal(self) -> ASRError | None:
        """Never."""
        return None

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """See the module."""
        fault = self.faults[self.attempts] if self.attempts < len(self.faults) else None
        self.attempts += 1
        self.open += 1
        heard: list[int] = []
        self.heard.append(heard)
        try:
            async for event in self._speak(audio, fault, heard):
                yield event
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        """Remember it."""
        self.closed = True

    def _length(self) -> int:
        return self._utterance_frames() if callable(self._utterance_frames) else self._utterance_frames

    async def _speak(
        self, audio: AsyncIterable[AudioInput], fault: Fault | None, heard: list[int]
    ) -> AsyncGenerator[Event]:
        counter = UtteranceCounter()
        rest, open_words, wanted = b"", list[Word](), self._length()
        if fault is not None and fault.after_frames == 0:
            await self._fail(fault)
        async for item in audio:
            if isinstance(item, EndUtterance):
                if open_words:
                    yield _final(counter, open_words, FinalReason.FINALIZE)
                    open_words, wanted = [], self._length()
                yield Flushed(len(heard) * FRAME_MS)
                continue
            rest += item
            while len(rest) >= FRAME_BYTES:
                frame, rest = rest[:FRAME_BYTES], rest[FRAME_BYTES:]
                (number,) = set(struct.unpack(f"<{FRAME_BYTES // 2}h", frame))
                at_ms = len(heard) * FRAME_MS
                heard.append(number)
                open_words.append(Word(word(number), at_ms, at_ms + FRAME_MS))
                if len(open_words) >= wanted:
                    yield _final(counter, open_words, FinalReason.ENDPOINT)
                    open_words, wanted = [], self._length()
                elif self._partials:
                    text = " ".join(w.text for w in open_words)
                    partial = counter.partial(text, open_words[0].start_ms, at_ms + FRAME_MS, words=tuple(open_words))
                    assert partial is not None
                    yield partial
                if self._progress:
                    yield Progress(at_ms + FRAME_MS)
                if fault is not None and len(heard) >= fault.after_frames:
                    await self._fail(fault)
        if fault is not None:
            await self._fail(fault)
        if open_words:
            yield _final(counter, open_words, FinalReason.STOP)

    async def _fail(self, fault: Fault) -> None:
        if fault.error is None:
            await asyncio.Event().wait()
        else:
            raise fault.error


def _final(counter: UtteranceCounter, words: list[Word], reason: FinalReason) -> Final:
    text = " ".join(w.text for w in words)
    return counter.final(text, words[0].start_ms, words[-1].end_ms, reason=reason, words=tuple(words))


def check_whole(events: Sequence[Event], frames_sent: int) -> None:
    """Every frame is in exactly one final or gap, in order; times and numbers agree."""
    at_ms = 0
    utterance = 0
    for event in events:
        if isinstance(event, Gap):
            assert event.start_ms == at_ms, (event, at_ms)
            at_ms = event.end_ms
        elif isinstance(event, Final):
            assert event.utterance == utterance
            utterance += 1
            assert event.start_ms == at_ms, (event, at_ms)
            numbers = [int(text[1:]) for text in event.text.split()]
            assert numbers == list(range(at_ms // FRAME_MS, event.end_ms // FRAME_MS)), event
            assert [w.text for w in event.words] == event.text.split()
            assert [(w.start_ms, w.end_ms) for w in event.words] == [
                (n * FRAME_MS, (n + 1) * FRAME_MS) for n in numbers
            ]
            at_ms = event.end_ms
    assert at_ms == frames_sent * FRAME_MS, f"{at_ms} of {frames_sent * FRAME_MS} ms are covered"


def cut_anywhere(pcm: bytes, dice: random.Random) -> list[bytes]:
    """The audio in chunks of any size."""
    pieces, at = [], 0
    while at < len(pcm):
        size = dice.choice((1, 7, 320, 333, 640, 3_200, 9_999))
        pieces.append(pcm[at : at + size])
        at += size
    return pieces
