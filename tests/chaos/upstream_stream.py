"""One stream of the stand-in recognizer: what it hears, what it says, and how it goes wrong."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from asr.riva_proto import asr as pb
from chaos.behaviour import START_FLAG, Behaviour
from chaos.numbered import BYTES_PER_MS, Found, FrameFinder, word

UNDECODABLE = b"\x0a\xff\xff\xff\xff\x0f"


@dataclass(slots=True)
class Record:
    """One stream as it was seen from here; `ended` is its fate, "" while it lives."""

    opened_at: float
    frames: list[int] = field(default_factory=list)
    bytes: int = 0
    torn: int = 0
    damaged: int = 0
    finals: int = 0
    half_closed: bool = False
    ended: str = ""


class Server(Protocol):
    """What a stream needs to know of the server it belongs to."""

    behaviour: Behaviour
    open: int

    def at_fault(self, after: int, frames: list[int]) -> bool:
        """Whether a fault that is due after so many frames strikes the stream that has received these."""
        ...


class EndedCleanly(Exception):
    """The stream is to end with status OK, now."""


class Stream:
    def __init__(self, upstream: Server, record: Record, requests: AsyncIterator[Any], context: Any) -> None:
        self._upstream = upstream
        self._record = record
        self._requests = requests
        self._context = context
        self._finder = FrameFinder()
        self._words: list[tuple[str, int, int]] = []
        self._want_words = True
        self._silenced = False
        self._before: Any = None
        self._began = time.monotonic()

    @property
    def _b(self) -> Behaviour:
        return self._upstream.behaviour

    async def run(self) -> None:
        b = self._b
        if b.loading:
            await self._abort("UNAVAILABLE", "the models are being loaded")
        if b.max_streams and self._upstream.open > b.max_streams:
            await self._abort("RESOURCE_EXHAUSTED", f"more than {b.max_streams} streams")
        await self._misbehave()
        source = self._requests.__aiter__()
        pending: asyncio.Future[Any] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(_next(source))
                idle_s = self._b.idle_abort_s
                done, _ = await asyncio.wait([pending], timeout=idle_s or None)
                if not done:
                    await self._abort("INVALID_ARGUMENT", START_FLAG)
                request, pending = pending.result(), None
                if request is None:
                    break
                await self._hear(request)
        finally:
            if pending is not None and not pending.done():
                pending.cancel()
        await self._stop()

    async def _hear(self, request: Any) -> None:
        if request.HasField("streaming_config"):
            self._want_words = request.streaming_config.config.enable_word_time_offsets
        found = self._finder.feed(request.audio_content)
        self._record.bytes = self._finder.received_bytes
        for one in found:
            await self._frame(one)
        if not found and request.audio_content and self._b.audio_processed and self._b.partials and self._words:
            # Silence is heard too: the partial that does not change.
            await self._say([self._result(is_final=False)])

    async def _frame(self, found: Found) -> None:
        self._note(found)
        await self._misbehave()
        b = self._b
        if b.finals_every and len(self._words) >= b.finals_every:
            await self._final()
        elif b.partials:
            await self._say([self._result(is_final=False)])

    def _note(self, found: Found) -> None:
        self._record.frames.append(found.number)
        self._record.torn += found.kind == "torn"
        self._record.damaged += found.kind == "damaged"
        start_ms, end_ms = found.start_byte // BYTES_PER_MS, -(-found.end_byte // BYTES_PER_MS)
        self._words.append((word(found.number, found.kind), start_ms, end_ms))

    async def _stop(self) -> None:
        self._record.half_closed = True
        for one in self._finder.finish():
            self._note(one)
        b = self._b
        if b.die_on_stop and self._upstream.at_fault(0, self._record.frames):
            os._exit(1)
        if b.abort_on_stop and self._upstream.at_fault(0, self._record.frames):
            await self._abort(b.abort_on_stop, "the stand-in was told to")
        if self._silenced:
            await asyncio.Event().wait()
        if self._words and b.final_on_stop:
            await self._final()

    async def _misbehave(self) -> None:
        b, frames, at_fault = self._b, self._record.frames, self._upstream.at_fault
        if at_fault(b.die_after, frames):
            os._exit(1)
        if at_fault(b.abort_after, frames):
            await self._abort(b.abort_status, b.abort_text)
        if at_fault(b.end_after, frames):
            raise EndedCleanly
        if at_fault(b.undecodable_after, frames):
            await self._context.write(UNDECODABLE)
            self._silenced = True
        if not self._silenced and at_fault(b.stuck_after, frames):
            self._silenced = True
        if at_fault(b.deaf_after, frames):
            self._record.ended = "deaf"
            await asyncio.Event().wait()

    async def _abort(self, status: str, text: str) -> None:
        self._record.ended = status
        await self._context.abort(grpc.StatusCode[status], text)

    async def _final(self) -> None:
        result = self._result(is_final=True)
        self._record.finals += 1
        self._words = []
        after = self._b.shuffle_after
        if after < 0 or len(self._record.frames) < after:
            await self._say([result])
        else:
            await self._say(self._shuffled(result))

    def _shuffled(self, result: Any) -> list[Any]:
        """One kind of nonsense after the other, with every true final among it once or more."""
        kind = self._record.finals % 4
        if kind == 0:
            return [result, result]
        if kind == 1:
            empty = pb.StreamingRecognitionResult(is_final=True, audio_processed=result.audio_processed)
            return [result, empty, pb.StreamingRecognitionResult(is_final=True, alternatives=[{"transcript": " "}])]
        if kind == 2:
            result.audio_processed = float("nan")
            return [result, pb.StreamingRecognitionResult(audio_processed=-5.0)]
        stale = pb.StreamingRecognitionResult()
        stale.CopyFrom(result)
        stale.is_final, stale.stability, stale.audio_processed = False, 7.0, 1e9
        before, self._before = self._before, result
        return [result, stale, *filter(None, [before])]

    def _result(self, *, is_final: bool) -> Any:
        best = pb.SpeechRecognitionAlternative(transcript=" ".join(w for w, _, _ in self._words) + " ", confidence=-0.5)
        if self._want_words:
            for text, start_ms, end_ms in self._words:
                best.words.add(word=text, start_time=start_ms, end_time=end_ms, confidence=0.9)
        result = pb.StreamingRecognitionResult(alternatives=[best], is_final=is_final, channel_tag=1)
        if not is_final:
            result.stability = 0.1
        if self._b.audio_processed:
            result.audio_processed = self._finder.received_bytes / BYTES_PER_MS / 1000
        return result

    async def _say(self, results: list[Any]) -> None:
        if self._silenced:
            return
        b = self._b
        wait_s = self._began + b.start_delay_s - time.monotonic() if b.start_delay_s else 0.0
        wait_s = max(wait_s, 0.0) + b.delay_s + b.lag_s * max(self._upstream.open - b.lag_free_streams, 0)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        await self._context.write(pb.StreamingRecognizeResponse(results=results).SerializeToString())


async def _next(requests: AsyncIterator[Any]) -> Any:
    return await anext(requests, None)
