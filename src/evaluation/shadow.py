"""The same sound to two recognizers at the same moments: what differs then is theirs, not the sound's or the hour's.

Both streams of a clip begin together: the audio of the one that is ready first waits for the other, for `START_S` at
most. From then on each has a pace of its own on one clock, from the same start, so that chunk i is due for both at the
same moment and neither waits for what the other takes, says or fails with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from asr.client import RivaASRClient
from asr.engine import AudioInput, Features, agree
from asr.errors import ASRError
from asr.events import Event
from asr.options import Options
from evaluation.clips import Clip, ClipSet
from evaluation.golden import WARM_MS, OnClip, RunPlan, busier, result_of, run_info
from evaluation.player import PATIENCE, Patience, play
from evaluation.recording import Recording
from evaluation.results import ClipResult, GoldenRun
from evaluation.sets import samples

START_S = 10.0
"""So long one side waits for the other to be ready; then it begins alone."""

Pair = tuple[ClipResult, ClipResult]


async def run_shadow(
    a: RivaASRClient,
    b: RivaASRClient,
    clip_set: ClipSet,
    plan: RunPlan,
    *,
    now: datetime,
    candidate: str = "",
    on_clip: OnClip | None = None,
    patience: Patience = PATIENCE,
    start_s: float = START_S,
) -> tuple[GoldenRun, GoldenRun]:
    """Stream every clip to both, and measure each.

    A clip that fails on one side costs that side its words; it is not tried again, as the other side could not be
    streamed the same at the same moment. When this is cancelled, every stream is closed before it returns.

    Args:
        a: the recognizer in service.
        b: the one that may replace it.
        clip_set: results come in its order.
        plan: how; `concurrency` counts clips, each of which is two streams. `target` names A.
        now: written down as the start.
        candidate: names B, for people; "" is the engine's name.
        on_clip: called with A's result of each clip, how many there are so far, and how many there will be.
        patience: the bounds of each stream's waits.
        start_s: the bound of one side's wait for the other.

    Raises:
        ASRError: one of the two tells no models (`unavailable`, `timeout`), or has not what is asked for
            (`not_found`).
    """
    wishes = plan.wishes()
    models = [agree(wishes, await client.models(), Features()).model.name for client in (a, b)]
    pairs: dict[str, Pair] = {}
    busiest = busier(None)
    shadow = _Shadow((a, b), plan, patience, start_s)
    if clip_set.clips:
        await shadow.warm(min(clip_set.clips, key=lambda clip: clip.audio_ms))
    # As in a plain run: nothing is given as fast as it is taken while the words of others are timed.
    for realtime in (True, False):
        waiting = [clip for clip in reversed(clip_set.clips) if plan.realtime(clip) is realtime]

        async def work(waiting: list[Clip]) -> None:
            nonlocal busiest
            while waiting:
                clip = waiting.pop()
                pairs[clip.id] = await shadow.both(clip)
                busiest = busier(busiest)
                if on_clip is not None:
                    on_clip(pairs[clip.id][0], len(pairs), len(clip_set.clips))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(plan.concurrency, len(waiting))):
                group.create_task(work(waiting))
    infos = [
        run_info(clip_set, plan, client.engine_name, model, target, now, busiest)
        for client, model, target in zip((a, b), models, (plan.target, candidate), strict=True)
    ]
    ordered = [pairs[clip.id] for clip in clip_set.clips]
    return (
        GoldenRun(infos[0], tuple(first for first, _ in ordered)),
        GoldenRun(infos[1], tuple(second for _, second in ordered)),
    )


@dataclass(frozen=True, slots=True)
class _Shadow:
    clients: Sequence[RivaASRClient]
    plan: RunPlan
    patience: Patience
    start_s: float

    async def warm(self, clip: Clip) -> None:
        """Load models and connect, before anything is timed."""
        try:
            pcm = (await asyncio.to_thread(samples, clip))[: clip.sample_rate_hz * 2 * WARM_MS // 1_000]
        except (ASRError, OSError):
            return  # the clip itself will say so
        async with asyncio.TaskGroup() as group:
            for _ in range(self.plan.concurrency):
                group.create_task(self._play_both(clip, pcm, tail_ms=0))

    async def both(self, clip: Clip) -> Pair:
        """One clip to both sides."""
        try:
            pcm = await asyncio.to_thread(samples, clip)
        except (ASRError, OSError) as error:
            unread = Recording(self.plan.chunk_ms, (), (), False, 0, outcome="error", detail=f"Not streamed: {error}")
            return result_of(clip, unread), result_of(clip, unread)
        first, second = await self._play_both(clip, pcm, tail_ms=self.plan.tail_ms)
        return await asyncio.to_thread(lambda: (result_of(clip, first), result_of(clip, second)))

    async def _play_both(self, clip: Clip, pcm: bytes, *, tail_ms: int) -> tuple[Recording, Recording]:
        start = _Start(len(self.clients), self.start_s)

        async def one(client: RivaASRClient) -> Recording:
            side = _Side(client, start)
            try:
                recording = await play(
                    cast(RivaASRClient, side),  # all that a player uses of a client
                    clip,
                    pcm,
                    chunk_ms=self.plan.chunk_ms,
                    tail_ms=tail_ms,
                    realtime=self.plan.realtime(clip),
                    options=self.plan.wishes(),
                    patience=self.patience,
                )
            finally:
                start.gone()
            # The wait for the other side is none of its own.
            ready_ms = None if recording.ready_ms is None else max(recording.ready_ms - side.waited_ms, 0.0)
            return replace(recording, ready_ms=ready_ms)

        async with asyncio.TaskGroup() as group:
            first, second = (group.create_task(one(client)) for client in self.clients)
        return first.result(), second.result()


class _Start:
    """Where the sides of a clip meet before its first sample; who is over is not waited for."""

    def __init__(self, sides: int, bound_s: float) -> None:
        self._missing = sides
        self._bound_s = bound_s
        self._together = asyncio.Event()

    async def meet(self) -> None:
        """Return when all sides are here, or one is over, or the bound has passed."""
        self.gone()
        try:
            async with asyncio.timeout(self._bound_s):
                await self._together.wait()
        except TimeoutError:
            self._together.set()  # one that comes now begins at once

    def gone(self) -> None:
        """One side need not be waited for any more."""
        self._missing -= 1
        if self._missing <= 0:
            self._together.set()


class _Side:
    """A client whose audio begins when the other side's does."""

    def __init__(self, client: RivaASRClient, start: _Start) -> None:
        self._client = client
        self._start = start
        self.waited_ms = 0.0

    def stream_transcribe(
        self, audio: AsyncGenerator[AudioInput], options: Options, *, sample_rate_hz: int
    ) -> AsyncGenerator[Event]:
        """As the client's own."""
        return self._client.stream_transcribe(self._begun_together(audio), options, sample_rate_hz=sample_rate_hz)

    async def _begun_together(self, audio: AsyncGenerator[AudioInput]) -> AsyncGenerator[AudioInput]:
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        await self._start.meet()
        self.waited_ms = (loop.time() - asked_s) * 1_000
        async with aclosing(audio):
            async for chunk in audio:
                yield chunk
