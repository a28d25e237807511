"""Streams one clip through a recognizer as a microphone would, and writes down what was sent and heard when.

The pace is kept by a task of its own on one monotonic clock: chunk i is handed over at the moment at which its last
sample would have been captured, `start + (i + 1) * chunk_ms`. Every moment is reckoned from the start, so that a late
chunk makes no later one late. The pace does not wait for the recognizer: what is not taken yet lies ready, and the time
until it is taken is the recognizer's (a sender that waits hides the very delays it should measure). How late the
task itself wakes is the sender's own fault, and is written down apart (`Recording.late_ms`).

The start is when the library asks for the first audio. The clip is followed by silence, in which endpointing can
find the end of speech, and then by the end of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace

from asr.client import RivaASRClient
from asr.errors import ASRError, Code
from asr.events import Event, Final, Gap, Partial
from asr.options import Options
from evaluation.clips import Clip
from evaluation.recording import Heard, Outcome, Recording

BYTES_PER_SAMPLE = 2
TIMER_MS = 0.001
"""No timer wakes closer than that."""
FULL = (Code.OVERLOADED, Code.RATE_LIMITED)

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a stream is waited for.

    Attributes:
        quiet_s: at most, while nothing is asked for, sent or heard.
        slowness: a stream may take `quiet_s` and this many times its audio in all, however talkative it is.
        close_s: and this long once more, until it has let go.
    """

    quiet_s: float = 30.0
    slowness: float = 3.0
    close_s: float = 10.0


PATIENCE = Patience()


async def play(
    client: RivaASRClient,
    clip: Clip,
    pcm: bytes,
    *,
    chunk_ms: int,
    tail_ms: int,
    realtime: bool,
    options: Options,
    patience: Patience = PATIENCE,
    clock: Clock | None = None,
    sleep: Sleep = asyncio.sleep,
) -> Recording:
    """Stream a clip and the silence after it to their end, and listen.

    Args:
        client: whatever recognizes.
        clip: tells the sample rate.
        pcm: its samples, PCM16 mono at `clip.sample_rate_hz`.
        chunk_ms: audio per chunk; the last one may be shorter.
        tail_ms: silence after the clip.
        realtime: at the pace of speech; else as fast as it is taken.
        options: wishes; `recording` is set where it is not realtime.
        patience: the bounds of all waits.
        clock: seconds, monotonic; None: the event loop's own.
        sleep: waits so many seconds of that clock.

    Returns:
        What was sent and heard. No `ASRError` is raised: the outcome is `refused` where a recognizer was full or away
        before it had said or taken anything, `timeout` where it went quiet, `error` for all else.
    """
    clock = clock or asyncio.get_running_loop().time
    speaker = _Speaker(pcm, clip.sample_rate_hz, chunk_ms, tail_ms, clock, sleep)
    listener = _Listener()
    asked_s = clock()
    hard_s = asyncio.get_running_loop().time() + patience.quiet_s + patience.slowness * speaker.audio_ms / 1_000
    outcome: Outcome = "ok"
    detail, retry_after_ms = "", None
    stream = client.stream_transcribe(
        speaker.paced() if realtime else speaker.at_once(),
        options if realtime else replace(options, recording=True),
        sample_rate_hz=clip.sample_rate_hz,
    )
    pacer = asyncio.create_task(speaker.pace()) if realtime else None
    try:
        # The second bound is for a stream that, told to stop by the first, takes its time.
        async with asyncio.timeout(None) as last, asyncio.timeout(None) as bound:
            speaker.on_move = lambda: _postpone(bound, last, patience, hard_s)
            speaker.on_move()
            async for event in stream:
                speaker.on_move()
                listener.hear(event, speaker.now_ms())
    except ASRError as error:
        refused = error.code in FULL or (error.code is Code.UNAVAILABLE and not speaker.taken)
        outcome = "refused" if refused and not listener.heard else "error"
        detail, retry_after_ms = f"{error.code.value}: {error.message}", error.retry_after_ms
    except TimeoutError:
        outcome = "timeout"
        detail = f"The recognizer did not end the stream: {speaker.taken} of {speaker.count} chunks had been taken, "
        detail += f"and {len(listener.heard)} partials and finals had come."
    finally:
        speaker.on_move = _nothing
        ended_ms = speaker.now_ms()
        if pacer is not None:
            pacer.cancel()
            await asyncio.gather(pacer, return_exceptions=True)
    return Recording(
        chunk_ms=chunk_ms,
        sent_at_ms=tuple(speaker.sent_at_ms),
        heard=tuple(listener.heard),
        realtime=realtime,
        audio_ms=speaker.audio_ms,
        ready_ms=None if speaker.start_s is None else (speaker.start_s - asked_s) * 1_000,
        total_ms=max(ended_ms - speaker.sent_at_ms[0], 0.0) if speaker.sent_at_ms else 0.0,
        late_ms=speaker.late_ms,
        outcome=outcome,
        detail=detail,
        gaps_ms=listener.gaps_ms,
        retry_after_ms=retry_after_ms,
    )


class _Speaker:
    """The clip's chunks, at their moments; `start_s` is None until the first is asked for."""

    def __init__(self, pcm: bytes, rate_hz: int, chunk_ms: int, tail_ms: int, clock: Clock, sleep: Sleep) -> None:
        self._pcm = memoryview(pcm)[: len(pcm) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE]
        self._bytes = len(self._pcm) + rate_hz * tail_ms // 1_000 * BYTES_PER_SAMPLE
        self._rate_hz = rate_hz
        self._chunk_ms = chunk_ms
        self._clock = clock
        self._sleep = sleep
        self._ready: asyncio.Queue[bytes] = asyncio.Queue()  # no larger than the clip
        self._asked = asyncio.Event()
        self.start_s: float | None = None
        self.sent_at_ms: list[float] = []
        self.late_ms = 0.0
        self.taken = 0
        self.on_move: Callable[[], None] = _nothing
        samples = self._bytes // BYTES_PER_SAMPLE
        self.audio_ms = round(samples * 1_000 / rate_hz)
        self.count = -(-samples * 1_000 // (chunk_ms * rate_hz))

    def now_ms(self) -> float:
        """The moment, on the recording's clock."""
        return 0.0 if self.start_s is None else (self._clock() - self.start_s) * 1_000

    async def pace(self) -> None:
        """Hands over the chunks at the pace of speech, whether they are taken or not."""
        await self._asked.wait()
        for index in range(self.count):
            due_ms = min((index + 1) * self._chunk_ms, self.audio_ms)
            while (wait_ms := due_ms - self.now_ms()) > TIMER_MS:
                await self._sleep(wait_ms / 1_000)
            self.late_ms = max(self.late_ms, -wait_ms)
            self._sent()
            self._ready.put_nowait(self._chunk(index))

    async def paced(self) -> AsyncGenerator[bytes]:
        """What `pace` has handed over."""
        self._start()
        for _ in range(self.count):
            chunk = await self._ready.get()
            self.taken += 1
            yield chunk

    async def at_once(self) -> AsyncGenerator[bytes]:
        """All chunks, as fast as they are taken."""
        self._start()
        for index in range(self.count):
            self._sent()
            self.taken += 1
            yield self._chunk(index)

    def _start(self) -> None:
        self.start_s = self._clock()
        self._asked.set()
        self.on_move()

    def _sent(self) -> None:
        self.sent_at_ms.append(self.now_ms())
        self.on_move()

    def _at(self, index: int) -> int:
        """Where chunk `index` begins, in bytes."""
        return index * self._chunk_ms * self._rate_hz // 1_000 * BYTES_PER_SAMPLE

    def _chunk(self, index: int) -> bytes:
        begin, end = self._at(index), min(self._at(index + 1), self._bytes)
        return bytes(self._pcm[begin:end]).ljust(end - begin, b"\0")


class _Listener:
    """What came, with its moment."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.gaps_ms = 0

    def hear(self, event: Event, at_ms: float) -> None:
        match event:
            case Partial() | Final():
                self.heard.append(
                    Heard(
                        at_ms=at_ms,
                        kind="final" if isinstance(event, Final) else "partial",
                        utterance=event.utterance,
                        text=event.text,
                        start_ms=event.start_ms,
                        end_ms=event.end_ms,
                        words=tuple((word.text, word.start_ms, word.end_ms) for word in event.words),
                    )
                )
            case Gap():
                self.gaps_ms += event.end_ms - event.start_ms


def _nothing() -> None:
    """What moves when nobody watches."""


def _postpone(bound: asyncio.Timeout, last: asyncio.Timeout, patience: Patience, hard_s: float) -> None:
    if not bound.expired():
        when_s = min(asyncio.get_running_loop().time() + patience.quiet_s, hard_s)
        bound.reschedule(when_s)
        last.reschedule(when_s + patience.close_s)
