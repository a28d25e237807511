"""A sweep: one step per concurrency, looks at the gateway meanwhile, and what follows from both.

warm-up → level before → step, row, step, row … (→ by halves to the limit) → level after → recommendation, leaks
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from asr.errors import ASRError, Code
from evaluation.clips import ClipSet
from evaluation.normalizer import NORMALIZER
from load.arrivals import Mode, arrivals
from load.conductor import own_limits, run_step
from load.gauges import Facts, Watch
from load.knee import next_sessions, recommend
from load.leaks import leaks
from load.plan import Arrival, Door, StepPlan
from load.records import Progress, SessionRecord, StepRecord
from load.rows import failures_of, row_of
from load.summary import LoadRow, Slo, Sweep, SweepInfo

_LEVEL_LOOKS, _LEVEL_EVERY_S = 3, 0.2
_SETTLE_S = 10.0
"""How long the gateway may take to let go of the streams of a step."""
_LOOKS = 1_200
"""Looks per source that a run keeps at the most, about."""
_FASTEST_LOOK_S = 0.25
_MAX_EXTRA_STEPS = 12
"""Steps beyond those asked for that the search for the limit may take."""
_LONG = ("soak", "churn")
"""Modes whose load is the same all the time."""


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What is to be measured.

    Attributes:
        door: where the streams go.
        clips: what is said.
        sessions: one step for each, in this order.
        mode, duration_ms, ramp_ms, session_ms: see `load.arrivals.arrivals`.
        chunk_ms, tail_ms, workers, seed: see `StepPlan`.
        slo: what a row must keep.
        most: more sessions are never tried, by the search for the limit.
        find_limit: go on by doubling and by halves until the limit is found.
    """

    door: Door
    clips: ClipSet
    sessions: tuple[int, ...]
    mode: Mode
    duration_ms: int
    ramp_ms: int = 0
    session_ms: int | None = None
    chunk_ms: int = 100
    tail_ms: int = 1_500
    workers: int | None = None
    seed: int = 1
    slo: Slo = field(default_factory=Slo)
    most: int = 10_000
    find_limit: bool = False

    def step(self, sessions: int) -> StepPlan:
        """The plan of one step.

        Raises:
            ValueError: numbers that cannot be, in a sentence.
        """
        coming = arrivals(
            self.mode,
            sessions,
            duration_ms=self.duration_ms,
            ramp_ms=self.ramp_ms,
            seed=self.seed,
            session_ms=self.session_ms,
        )
        return StepPlan(
            self.door,
            coming,
            sessions,
            self.clips.clips,
            chunk_ms=self.chunk_ms,
            tail_ms=self.tail_ms,
            workers=self.workers,
            seed=self.seed,
        )

    def warm_up(self) -> StepPlan:
        """One short stream."""
        shortest = min(self.clips.clips, key=lambda clip: clip.audio_ms)
        return replace(self.step(1), arrivals=(Arrival(0.0, 1),), clips=(shortest,), tail_ms=0, workers=1)


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told how it goes.

    Attributes:
        step: a step begins: its sessions, and how long it will take, in milliseconds.
        progress: of the step that runs.
        row: a step is over.
    """

    step: Callable[[int, float], None]
    progress: Callable[[Progress], None]
    row: Callable[[LoadRow], None]


async def sweep(plan: SweepPlan, watch: Watch, facts: Facts | None, listener: Listener, *, started_at: str) -> Sweep:
    """Measure, and say what follows. Cancelled, it returns what was measured so far (`info.complete` is then False).

    Args:
        plan: what is to be measured.
        watch: looks at the gateway; stays open.
        facts: what the gateway said of itself.
        listener: told how it goes.
        started_at: ISO 8601, UTC.

    Raises:
        ASRError: the first stream, which only warms up, was not served.
    """
    await _warm_up(plan.warm_up())
    rows: list[LoadRow] = []
    failed: list[SessionRecord] = []
    notes: list[str] = []
    complete = True
    try:
        await _level(watch)
        async with watch.looking(_rhythm_s(plan)):
            await _steps(plan, watch, listener, rows, failed, notes)
        if not await watch.settled(_SETTLE_S):
            notes.append(f"The gateway still had streams {_SETTLE_S:.0f} s after the last one was over.")
        await _level(watch)
    except asyncio.CancelledError:
        complete = False
        notes.append("Interrupted: the step that ran then does not count; its row is of the sessions that were over.")
    watch.sessions = 0
    if watch.unanswered:
        notes.append(f"/readyz did not answer {watch.unanswered} times: the gateway was busy, or gone.")
    if facts is not None and facts.limit is not None and any(row.refusals for row in rows):
        notes.append(f"The gateway admits {facts.limit} streams at a time (MAX_STREAMS).")
    return Sweep(
        info=_info(plan, facts, started_at, complete=complete),
        slo=plan.slo,
        rows=tuple(rows),
        recommendation=recommend(rows, None if facts is None else facts.endpoints),
        samples=tuple(watch.samples),
        leaks=leaks(watch.samples, trend=plan.mode in _LONG),
        failures=failures_of(failed),
        notes=tuple(dict.fromkeys(notes)),
    )


async def _steps(
    plan: SweepPlan,
    watch: Watch,
    listener: Listener,
    rows: list[LoadRow],
    failed: list[SessionRecord],
    notes: list[str],
) -> None:
    wanted = list(plan.sessions)
    extra = _MAX_EXTRA_STEPS if plan.find_limit else 0
    while wanted:
        sessions = wanted.pop(0)
        step, interrupted = await _step(plan, sessions, watch, listener)
        if interrupted and not step.records:
            raise asyncio.CancelledError
        samples = [sample for sample in watch.samples if sample.sessions == sessions]
        row = row_of(step, samples, plan.slo, interrupted=interrupted)
        rows.append(row)
        failed += [record for record in step.records if record.outcome != "ok"]
        # What it says of the tool's own limits the row says too, by a stricter measure.
        own = own_limits(step.late_p99_ms, step.worker_cpu, step.chunk_ms)
        notes += [note for note in step.notes if note not in own]
        listener.row(row)
        if interrupted:
            raise asyncio.CancelledError
        if not wanted and extra:
            extra -= 1
            following = next_sessions(rows, most=plan.most)
            wanted = [] if following is None else [following]
        if wanted:
            await watch.settled(_SETTLE_S)


async def _step(plan: SweepPlan, sessions: int, watch: Watch, listener: Listener) -> tuple[StepRecord, bool]:
    """The step, and whether it was broken off by a cancellation, which is then to be raised again."""
    step = plan.step(sessions)
    listener.step(sessions, max(one.start_ms + one.speech_ms for one in step.arrivals) + step.tail_ms)
    watch.sessions = sessions
    stop = asyncio.Event()
    running = asyncio.create_task(run_step(step, on_progress=listener.progress, stop=stop))
    try:
        return await asyncio.shield(running), False
    except asyncio.CancelledError:
        stop.set()
        return await running, True
    finally:
        watch.sessions = 0


async def _warm_up(step: StepPlan) -> None:
    """Load the model and open the connections in nobody's latency, and find out whether streams are served at all."""
    record = (await run_step(step, on_progress=None)).records[0]
    if record.outcome != "ok":
        code = Code(record.code) if record.code in set(Code) else Code.UNAVAILABLE
        raise ASRError(code, record.detail or f"The first stream was not served ({record.outcome}).")


async def _level(watch: Watch) -> None:
    for _ in range(_LEVEL_LOOKS):
        await watch.look()
        await asyncio.sleep(_LEVEL_EVERY_S)


def _rhythm_s(plan: SweepPlan) -> float:
    return max(_FASTEST_LOOK_S, plan.duration_ms * len(plan.sessions) / 1000 / _LOOKS)


def _info(plan: SweepPlan, facts: Facts | None, started_at: str, *, complete: bool) -> SweepInfo:
    from asr import __version__

    return SweepInfo(
        target=plan.door.address,
        wire=plan.door.wire,
        engine="" if facts is None else facts.engine,
        mode=plan.mode,
        set_name=plan.clips.name,
        clips=len(plan.clips.clips),
        chunk_ms=plan.chunk_ms,
        duration_ms=plan.duration_ms,
        normalizer=NORMALIZER,
        started_at=started_at,
        machine=f"{os.cpu_count() or 1} cores, Python {platform.python_version()}, {sys.platform}",
        version=__version__,
        complete=complete,
    )


def most_sessions(open_files: int, workers: int | None) -> int:
    """How many sessions this many open files per process allow; each takes one, and a process some for itself."""
    return max(open_files - 256, 0) * (workers or 1)
