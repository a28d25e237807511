"""Runs a set of clips on a recognizer and keeps what came: the document `GoldenRun`.

First the clips that are streamed in real time, then those that are given as fast as they are taken: a recognizer on
the same machine that is working through a long recording would delay the words of the others. Before the first of
them the recognizer is warmed with a second of the shortest clip, once per place, so that loading a model or connecting
is in nobody's latency; what it answers is thrown away.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Literal

import asr
from asr.client import RivaASRClient
from asr.engine import Features, agree
from asr.errors import ASRError
from asr.options import Options
from evaluation.clips import Clip, ClipSet
from evaluation.normalizer import NORMALIZER
from evaluation.player import PATIENCE, Patience, Sleep, play
from evaluation.recording import Recording
from evaluation.results import NO_TIMINGS, ClipResult, GoldenRun, PartErrors, RunInfo
from evaluation.scoring import score, score_parts
from evaluation.sets import samples
from evaluation.timing import measure

Pace = Literal["auto", "realtime", "fast"]
OnClip = Callable[[ClipResult, int, int], None]

LONG_MS = 60_000
"""Clips longer than this are not streamed in real time, unless that is asked for."""
WARM_MS = 1_000
ATTEMPTS = 5
PAUSE_MS = 1_000
"""Before another attempt, where a full recognizer does not say how long."""
MAX_PAUSE_MS = 15_000
LATE_MS = 20.0
LATE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How a set is run.

    Attributes:
        chunk_ms: audio per chunk.
        tail_ms: silence after each clip, in which the final may come.
        concurrency: clips in work at a time.
        pace: `auto` gives clips of more than a minute as fast as they are taken (no latencies), others in real time.
        language, model: as the recognizer names them; "" is its own choice.
        target: who is asked, for people; "" is the engine's name.
        labels: the caller's own, kept in the document.
        options: further wishes.
    """

    chunk_ms: int = 100
    tail_ms: int = 1_500
    concurrency: int = 2
    pace: Pace = "auto"
    language: str = ""
    model: str = ""
    target: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    options: Options = field(default_factory=Options)

    def realtime(self, clip: Clip) -> bool:
        """Whether this clip is streamed at the pace of speech."""
        return self.pace == "realtime" or (self.pace == "auto" and clip.audio_ms <= LONG_MS)

    def wishes(self) -> Options:
        """The options that every clip is streamed with."""
        return replace(
            self.options,
            language=self.language or self.options.language,
            model=self.model or self.options.model,
        )


async def run_set(
    client: RivaASRClient,
    clip_set: ClipSet,
    plan: RunPlan,
    *,
    now: datetime,
    on_clip: OnClip | None = None,
    patience: Patience = PATIENCE,
    sleep: Sleep = asyncio.sleep,
) -> GoldenRun:
    """Stream every clip of a set, and measure.

    A clip that fails costs its own words only. One that is refused is tried again, up to `ATTEMPTS` times in all, after
    the pause that was told. When this is cancelled, every stream is closed before it returns.

    Args:
        client: whatever recognizes.
        clip_set: results come in its order.
        plan: how.
        now: written down as the start.
        on_clip: called with each result as it comes, how many there are so far, and how many there will be.
        patience: the bounds of each stream's waits.
        sleep: waits so many seconds between attempts.

    Raises:
        ASRError: nothing could be measured at all: the recognizer does not tell its models (`unavailable`, `timeout`),
            or has not what is asked for (`not_found`).
    """
    agreed = agree(plan.wishes(), await client.models(), Features())
    runner = _Runner(client, clip_set, plan, on_clip, patience, sleep)
    await runner.run()
    return GoldenRun(
        run_info(clip_set, plan, client.engine_name, agreed.model.name, plan.target, now, runner.busiest),
        tuple(runner.results[clip.id] for clip in clip_set.clips),
    )


def result_of(clip: Clip, recording: Recording) -> ClipResult:
    """What a recording says of the recognizer.

    Where the stream did not end well, all words of the clip count as deleted and no latency is told; the text that
    had come is kept for people.
    """
    finals = [heard.text.strip() for heard in recording.heard if heard.kind == "final" and heard.text.strip()]
    hypothesis = " ".join(finals)
    ended_well = recording.outcome == "ok"
    scored = score(clip.text, hypothesis if ended_well else "")
    return ClipResult(
        id=clip.id,
        condition=clip.condition,
        reference=clip.text,
        hypothesis=hypothesis,
        audio_ms=clip.audio_ms,
        words=scored.words,
        chars=scored.chars,
        timings=measure(clip, recording) if ended_well else NO_TIMINGS,
        partials=sum(heard.kind == "partial" for heard in recording.heard),
        finals=len(finals),
        realtime=recording.realtime,
        elapsed_ms=recording.total_ms,
        late_ms=recording.late_ms,
        outcome=recording.outcome,
        detail=recording.detail,
        gaps_ms=recording.gaps_ms,
        ready_ms=recording.ready_ms,
        sent_ms=recording.audio_ms,
        parts=_parts(clip, hypothesis) if ended_well else (),
    )


def _parts(clip: Clip, hypothesis: str) -> tuple[PartErrors, ...]:
    """The errors of each clip that this one is joined of; of a clip with a file of its own there are none."""
    if isinstance(clip.source, Path):
        return ()
    joined = [part for part in clip.source if not isinstance(part, int)]
    found = score_parts([part.text for part in joined], hypothesis)
    return tuple(PartErrors(part.id, part.text, *errors) for part, errors in zip(joined, found, strict=True))


def late_clips(run: GoldenRun) -> tuple[ClipResult, ...]:
    """Clips whose latencies this machine may have spoilt itself: it was late by a good part of what was measured.

    That is more than `LATE_MS`, and more than `LATE_SHARE` of the clip's own median latency.
    """
    late = []
    for clip in run.clips:
        timings = clip.timings
        measured = [*timings.final_ms, *timings.word_partial_ms]
        if timings.first_partial_ms is not None:
            measured.append(timings.first_partial_ms)
        if clip.realtime and measured and clip.late_ms > max(LATE_MS, LATE_SHARE * median(measured)):
            late.append(clip)
    return tuple(late)


def run_info(
    clip_set: ClipSet, plan: RunPlan, engine: str, model: str, target: str, now: datetime, busiest: float | None
) -> RunInfo:
    """What was measured, how, when and on what; `target` "" is the engine's name, `busiest` the load average."""
    return RunInfo(
        target=target or engine,
        engine=engine,
        model=model,
        set_name=clip_set.name,
        set_fingerprint=clip_set.fingerprint,
        chunk_ms=plan.chunk_ms,
        tail_ms=plan.tail_ms,
        concurrency=plan.concurrency,
        normalizer=NORMALIZER,
        started_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        machine=machine(busiest),
        version=asr.__version__,
        labels=dict(plan.labels),
        cores=os.cpu_count() or 0,
        load_average=busiest,
    )


def machine(busiest: float | None = None) -> str:
    """The machine that streams, for people, and its highest load average."""
    told = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()} on {sys.platform}"
    return told if busiest is None else f"{told}; load average up to {busiest:.1f}"


def busier(than: float | None) -> float | None:
    """The load average of the last minute, or the one before where that was higher; None where no system tells it."""
    try:
        now = os.getloadavg()[0]
    except (AttributeError, OSError):
        return than
    return now if than is None else max(now, than)


class _Runner:
    """One run in work."""

    def __init__(
        self,
        client: RivaASRClient,
        clip_set: ClipSet,
        plan: RunPlan,
        on_clip: OnClip | None,
        patience: Patience,
        sleep: Sleep,
    ) -> None:
        self._client = client
        self._clips = clip_set.clips
        self._plan = plan
        self._on_clip = on_clip
        self._patience = patience
        self._sleep = sleep
        self._options = plan.wishes()
        self.results: dict[str, ClipResult] = {}
        self.busiest = busier(None)

    async def run(self) -> None:
        phases = [[clip for clip in self._clips if self._plan.realtime(clip) is realtime] for realtime in (True, False)]
        if self._clips:
            await self._warm(min(self._clips, key=lambda clip: clip.audio_ms))
        for clips in phases:
            waiting = list(reversed(clips))
            await _all([self._work(waiting) for _ in range(min(self._plan.concurrency, len(clips)))])

    async def _warm(self, clip: Clip) -> None:
        try:
            pcm = (await asyncio.to_thread(samples, clip))[: clip.sample_rate_hz * 2 * WARM_MS // 1_000]
        except (ASRError, OSError):
            return  # the clip itself will say so
        await _all([self._play(clip, pcm, tail_ms=0) for _ in range(self._plan.concurrency)])

    async def _work(self, waiting: list[Clip]) -> None:
        while waiting:
            clip = waiting.pop()
            result = await self._measured(clip)
            self.results[clip.id] = result
            self.busiest = busier(self.busiest)
            if self._on_clip is not None:
                self._on_clip(result, len(self.results), len(self._clips))

    async def _measured(self, clip: Clip) -> ClipResult:
        try:
            pcm = await asyncio.to_thread(samples, clip)
        except (ASRError, OSError) as error:
            unread = Recording(self._plan.chunk_ms, (), (), False, 0, outcome="error", detail=f"Not streamed: {error}")
            return result_of(clip, unread)
        attempts = 1
        recording = await self._play(clip, pcm, tail_ms=self._plan.tail_ms)
        while recording.outcome == "refused" and attempts < ATTEMPTS:
            pause_ms = PAUSE_MS if recording.retry_after_ms is None else recording.retry_after_ms
            await self._sleep(min(pause_ms, MAX_PAUSE_MS) / 1_000)
            recording = await self._play(clip, pcm, tail_ms=self._plan.tail_ms)
            attempts += 1
        return replace(await asyncio.to_thread(result_of, clip, recording), attempts=attempts)

    async def _play(self, clip: Clip, pcm: bytes, *, tail_ms: int) -> Recording:
        return await play(
            self._client,
            clip,
            pcm,
            chunk_ms=self._plan.chunk_ms,
            tail_ms=tail_ms,
            realtime=self._plan.realtime(clip),
            options=self._options,
            patience=self._patience,
        )


async def _all(work: Sequence[Coroutine[None, None, object]]) -> None:
    """All of it; when one fails or this is cancelled, none of it is left behind."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
