"""A long recording recognized in parts, several at a time, with the words of one pass.

The recording is decoded once, on a thread. Where it pauses (`asr.pauses`) it is cut, in the middle of the pause, where
every recognizer would have ended an utterance; each part goes through a recognizer's stream of its own, and the finals
come back onto the one audio clock. Decoding goes no further than one part ahead of the recognizers: at any moment
at most `parts` + 1 parts lie on the disk beside the recording, in files without a name, which vanish with the
process however it ends.

One pass it stays where parts would differ from it: with speakers told apart (each stream numbers them anew), and with
utterances that no pause ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from asr.engine import Agreement, AudioInput, Engine, agree
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Gap, Progress, Word
from asr.options import Options
from asr.parts import Part, Recording
from asr.pulling import pull
from asr.transcript import Transcript, TranscriptBuilder, from_json, to_json

if TYPE_CHECKING:
    from asr.audio import Stereo
    from asr.pauses import CutRules

OnProgress = Callable[[int, int | None], None]
"""Called with the milliseconds of audio that are done and those there are in all, or None; never backwards."""

_PATIENCE_S = 120.0
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0


@dataclass(frozen=True, slots=True)
class PartResult:
    """What was said in one part of a recording.

    Attributes:
        start_ms, end_ms: where the part lies.
        transcript: its finals and gaps; times count from the part's start, utterances from 0.
    """

    start_ms: int
    end_ms: int
    transcript: Transcript

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, for stores."""
        return {"start_ms": self.start_ms, "end_ms": self.end_ms, "transcript": to_json(self.transcript)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> PartResult:
        """Back from the JSON object.

        Raises:
            ASRError: `bad_request` where it is none.
        """
        try:
            return cls(int(stored["start_ms"]), int(stored["end_ms"]), from_json(stored["transcript"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ASRError(Code.BAD_REQUEST, f"This is not the result of a part: {error!r}.") from error


class PartStore(Protocol):
    """Keeps the results of finished parts, so that work which is begun anew does not do them again.

    A store belongs to one recording with one set of options.
    """

    async def load(self, index: int) -> PartResult | None:
        """The result of part `index`, or None."""
        ...

    async def save(self, index: int, result: PartResult) -> None:
        """Keep it. Called once for each part, in any order."""
        ...


async def transcribe_long(
    source: Path,
    engine: Engine,
    options: Options,
    *,
    parts: int = 4,
    on_progress: OnProgress | None = None,
    saved: PartStore | None = None,
    stereo: Stereo = "mix",
    max_audio_ms: int | None = None,
    rules: CutRules | None = None,
) -> Transcript:
    """Recognize a recording of any length, as fast as the recognizer can, in flat memory.

    Cancelling it ends all streams at once.

    Args:
        source: an audio file of any kind that `asr.audio.open_audio` reads. Its folder must have room for the parts
            in work: 32 kB per second of audio and channel.
        engine: the recognizer; of a full one (`overloaded`), a place is awaited for up to two minutes.
        options: as the caller wishes; they are matched with the engine here.
        parts: how many are recognized at a time.
        on_progress: see `OnProgress`; called on the event loop.
        saved: results of parts from before; what is finished is kept there.
        stereo: what to do with several channels; `split` recognizes each.
        max_audio_ms: longer recordings are refused as `too_large`.
        rules: where to cut; None for the usual ones.

    Raises:
        ASRError: `bad_audio`, `not_found`, `too_large`, `storage_full`, what `agree` raises, and what the engine's
            streams raise. What the store raises comes through as it is.
    """
    agreement = agree(replace(options, partials=False), await engine.models(), engine.features)
    recording = Recording(source, agreement.options, stereo, rules, max_audio_ms)
    work = _Work(engine, agreement, recording, saved, on_progress)
    return await work.run(max(1, parts))


class _Work:
    """All parts of one recording, on the event loop."""

    def __init__(
        self,
        engine: Engine,
        agreement: Agreement,
        recording: Recording,
        saved: PartStore | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._engine = engine
        self._agreement = agreement
        self._recording = recording
        self._saved = saved
        self._on_progress = on_progress
        self._results: list[tuple[Part, PartResult]] = []
        self._done_ms: dict[int, int] = {}
        self._all_done_ms = 0
        self._told_ms = 0
        self._moved_at = 0.0

    async def run(self, parts: int) -> Transcript:
        places = asyncio.Semaphore(parts)
        try:
            async with asyncio.TaskGroup() as group, aclosing(pull(self._recording.parts)) as found:
                await places.acquire()
                async for part in found:
                    group.create_task(self._do(part, places), name=f"part {part.index}")
                    await places.acquire()  # not before there is room for it is the next part decoded
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            self._recording.close()
        return self._merged()

    async def _do(self, part: Part, places: asyncio.Semaphore) -> None:
        try:
            result = None if self._saved is None else await self._saved.load(part.index)
            if result is None or (result.start_ms, result.end_ms) != (part.start_ms, part.end_ms):
                result = PartResult(part.start_ms, part.end_ms, await self._patiently(part))
                if self._saved is not None:
                    await self._saved.save(part.index, result)
            self._results.append((part, result))
            self._moved(part, part.end_ms - part.start_ms)
        finally:
            part.file.close()
            places.release()

    async def _patiently(self, part: Part) -> Transcript:
        """Recognize a part; where the recognizer is full, wait while others of this recording get on."""
        loop = asyncio.get_running_loop()
        self._moved_at = max(self._moved_at, loop.time())
        while True:
            try:
                return await self._recognize(part)
            except ASRError as error:
                is_full = error.code in (Code.OVERLOADED, Code.RATE_LIMITED)
                if not is_full or part.index in self._done_ms or loop.time() - self._moved_at > _PATIENCE_S:
                    raise
                pause_s = _PAUSE_S if error.retry_after_ms is None else error.retry_after_ms / 1000
            await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))

    async def _recognize(self, part: Part) -> Transcript:
        builder = TranscriptBuilder()
        options = replace(self._agreement.options, channels=part.channels, recording=True)
        async with (
            aclosing(pull(part.chunks)) as chunks,
            aclosing(self._engine.stream(_items(chunks), options)) as events,
        ):
            async for event in events:
                builder.add(event)
                self._see(part, event)
        return builder.build(part.end_ms - part.start_ms)

    def _see(self, part: Part, event: Event) -> None:
        match event:
            case Progress(processed_ms):
                self._moved(part, processed_ms)
            case Final() | Gap():
                self._moved(part, event.end_ms)

    def _moved(self, part: Part, done_ms: int) -> None:
        before_ms = self._done_ms.get(part.index, 0)
        self._done_ms[part.index] = max(before_ms, min(done_ms, part.end_ms - part.start_ms))
        self._all_done_ms += self._done_ms[part.index] - before_ms
        self._moved_at = asyncio.get_running_loop().time()
        if self._on_progress is not None and self._all_done_ms > self._told_ms:
            self._told_ms = self._all_done_ms
            total_ms = self._recording.total_ms
            self._on_progress(self._told_ms, None if total_ms is None else max(total_ms, self._told_ms))

    def _merged(self) -> Transcript:
        agreement, recording = self._agreement, self._recording
        builder = TranscriptBuilder(
            language=agreement.options.language, model=agreement.model.name, warnings=agreement.warnings
        )
        utterances = 0
        for part, result in sorted(self._results, key=lambda done: done[0].index):
            said = result.transcript
            for event in shifted(said, part.start_ms, utterances, is_last=part.is_last):
                builder.add(event)
            utterances += max((final.utterance + 1 for final in said.finals), default=0)
        for warning in recording.warnings:
            builder.warn(warning)
        return builder.build(recording.total_ms)


def shifted(said: Transcript, by_ms: int, utterances: int, *, is_last: bool) -> Iterator[Final | Gap]:
    """The finals and gaps of a part on the clock of the whole; `utterances` came before it."""
    for final in said.finals:
        # What ended with a part's audio ended in a pause of the whole.
        in_pause = final.reason is FinalReason.STOP and not is_last
        yield replace(
            final,
            utterance=final.utterance + utterances,
            start_ms=final.start_ms + by_ms,
            end_ms=final.end_ms + by_ms,
            words=_later(final.words, by_ms),
            alternatives=tuple(replace(other, words=_later(other.words, by_ms)) for other in final.alternatives),
            reason=FinalReason.ENDPOINT if in_pause else final.reason,
        )
    for gap in said.gaps:
        yield replace(gap, start_ms=gap.start_ms + by_ms, end_ms=gap.end_ms + by_ms)


def _later(words: tuple[Word, ...], by_ms: int) -> tuple[Word, ...]:
    return tuple(replace(word, start_ms=word.start_ms + by_ms, end_ms=word.end_ms + by_ms) for word in words)


async def _items(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[AudioInput]:
    async for chunk in chunks:
        yield chunk
