"""One step of a load run: processes that send, a common start, and what became of every session.

The workers only send and write down; here their notes are read (`load.digest`), their progress is added up, and they
are ended, whatever happens. A worker that dies is told of, in words, and its sessions count as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import threading
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from asr.environment import plain_environment
from evaluation.sets import samples
from load.crew import Crew, gone
from load.digest import Digest
from load.pacer import SLOT_MS
from load.plan import StepPlan
from load.records import Progress, StepRecord
from load.session import CONNECT_S, HELD_S, LAST_WORDS_S, READY_S
from load.staffing import own_limits, peak, shares, workers_for

HEAD_START_S = 0.3
"""From the last worker's being ready to the step's beginning."""
READY_PATIENCE_S = 60.0
END_S = 5.0
LINE_BYTES = 16 * 1024 * 1024
STAND_BACK = 15
"""How nice digesting is (0 to 19): it takes what sending, and a gateway on the same machine, leave over."""

_GARBLED = "The gateway sent what is no message of asr.v1, and what this session heard could not be read."

__all__ = ["own_limits", "run_step"]

Json = dict[str, Any]
OnProgress = Callable[[Progress], None]


async def run_step(
    plan: StepPlan, *, on_progress: OnProgress | None = None, stop: asyncio.Event | None = None
) -> StepRecord:
    """Hold all sessions of a step. However this ends, no worker is left behind.

    Args:
        plan: see there.
        on_progress: is told how it goes, about twice a second.
        stop: breaks the step off when it is set.

    Returns:
        The record, with a `SessionRecord` for every arrival, and notes where something was wrong with the step itself.
        Of a step that was broken off only the sessions that were over are in it.

    Raises:
        ValueError: for a plan without sessions or clips, or with a file of certificates that is not there.
        ASRError: for a clip whose sound cannot be read.
        RuntimeError: when a worker cannot be started, in a sentence.
    """
    _check(plan)
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        return await _Step(plan, on_progress or _nothing, stop or asyncio.Event()).run(Path(folder) / "clips.pcm")


def _check(plan: StepPlan) -> None:
    if not plan.arrivals or not plan.clips:
        raise ValueError("A step needs at least one session and one clip.")
    for path in plan.door.files():
        if not path.is_file():
            raise ValueError(f"There is no file of certificates at {str(path)!r}.")


class _Step:
    def __init__(self, plan: StepPlan, on_progress: OnProgress, stop: asyncio.Event) -> None:
        self._plan = plan
        self._stop = stop
        self._most_active = 0
        self._on_progress = on_progress
        self._digest = Digest(plan)
        self._crews: list[Crew] = []
        self._notes: list[str] = []
        self._go_s = 0.0
        self._garbled = 0
        self._lines: asyncio.Queue[Json | None] = asyncio.Queue()

    async def run(self, pcm: Path) -> StepRecord:
        """See `run_step`."""
        clips = _spool(self._plan, pcm)
        count = workers_for(self._plan)
        reading = asyncio.create_task(self._read())
        try:
            for index, numbers in enumerate(shares(self._plan, count)):
                if numbers:
                    crew = await self._hire(numbers)
                    order = self._order(numbers, clips, pcm, index / count)
                    await self._give(crew, order)
            await self._common_start()
            await self._follow_until_stopped()
            now_ms = (time.monotonic() - self._go_s) * 1000
            self._lines.put_nowait(None)
            await reading
        finally:
            reading.cancel()
            await self._end()
        for crew in () if self._stop.is_set() else self._crews:
            why = crew.obituary or (_GARBLED if self._garbled else "The step ended before this session did.")
            code = "worker_lost" if crew.obituary else "protocol" if self._garbled else "timeout"
            self._digest.lost(crew.numbers, why, crew.ended_ms or now_ms, code)
        return self._record()

    async def _read(self) -> None:
        """Digest what comes, in a thread that stands back: neither progress nor who still sends shall wait for it."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "digest", _stand_back) as thread:
            while (line := await self._lines.get()) is not None:
                await loop.run_in_executor(thread, self._digest.line, line, self._go_s)

    # Workers --------------------------------------------------------------------------------------

    async def _hire(self, numbers: list[int]) -> Crew:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "load.worker", stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=LINE_BYTES,
            start_new_session=True, env={**plain_environment(), "PYTHONPATH": _module_path()},
        )  # fmt: skip
        crew = Crew(process, numbers)
        self._crews.append(crew)
        return crew

    def _order(self, numbers: Sequence[int], clips: list[Json], pcm: Path, phase: float) -> Json:
        plan = self._plan
        arrivals = [(number, plan.arrivals[number]) for number in numbers]
        return {
            "door": plan.door.as_json(),
            "chunk_ms": plan.chunk_ms,
            "pause_ms": plan.pause_ms,
            "tail_ms": plan.tail_ms,
            "phase_ms": phase * SLOT_MS,
            "pcm": str(pcm),
            "clips": clips,
            "sessions": [
                {
                    "number": number,
                    "start_ms": arrival.start_ms,
                    "said": self._digest.said(number),
                    "cut": None if arrival.cut_ms is None else max(arrival.cut_ms // plan.chunk_ms, 1),
                    "after": arrival.after,
                }
                for number, arrival in arrivals
            ],
        }

    async def _give(self, crew: Crew, order: Json) -> None:
        assert crew.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            crew.process.stdin.write(orjson.dumps(order) + b"\n")
            await crew.process.stdin.drain()

    async def _common_start(self) -> None:
        try:
            async with asyncio.timeout(READY_PATIENCE_S):
                for crew in self._crews:
                    assert crew.process.stdout is not None
                    if not await crew.process.stdout.readline():
                        said = await crew.last_words() or "it ended without a word"
                        raise RuntimeError(f"A load worker did not start: {said}.")
        except TimeoutError:
            raise RuntimeError(f"A load worker did not start in {READY_PATIENCE_S:g} s.") from None
        self._go_s = time.monotonic() + HEAD_START_S
        for crew in self._crews:
            await self._give(crew, {"go_s": self._go_s})

    async def _follow_until_stopped(self) -> None:
        following = asyncio.create_task(self._follow_all())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((following, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not following.done():
                following.cancel()
                await asyncio.wait((following,))
        if not following.cancelled():
            following.result()

    async def _follow_all(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s()), asyncio.TaskGroup() as group:
                for crew in self._crews:
                    group.create_task(self._follow(crew))
        except TimeoutError:
            self._notes.append("The step did not end within its bound; what was left of it was cut off.")

    async def _follow(self, crew: Crew) -> None:
        assert crew.process.stdout is not None
        async for text in crew.process.stdout:
            try:
                line = orjson.loads(text)
            except ValueError:
                if not text.endswith(b"\n"):  # the last words of one that was killed
                    break
                # Messages are passed on unread, and this one was no JSON.
                self._garbled += 1
                continue
            match line["type"]:
                case "progress":
                    crew.progress, crew.seen_s = line, time.monotonic() - self._go_s
                    self._tell()
                case "done":
                    crew.done = line
                    break
                case kind:
                    crew.over += kind == "session"
                    self._lines.put_nowait(line)
        crew.ended_ms = (time.monotonic() - self._go_s) * 1000
        if crew.done is None:
            await self._mourn(crew)

    async def _mourn(self, crew: Crew) -> None:
        """A worker is gone before it was done."""
        status = await gone(crew.process, 1.0)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        said = await crew.last_words()
        crew.obituary = f"The load worker {crew.process.pid} {how}{': ' + said if said else ''}."
        left = len(crew.numbers) - crew.over
        lost = f"Its {left} unfinished sessions are lost, and this step measures less than it says."
        self._notes.append(f"{crew.obituary} {lost}")

    async def _end(self) -> None:
        """No worker is left: the end of its input ends it, else it is killed."""
        for crew in self._crews:
            if crew.process.stdin is not None:
                crew.process.stdin.close()
        patience_s = END_S if all(crew.done for crew in self._crews) else 0.5
        try:
            await asyncio.gather(*(gone(crew.process, patience_s) for crew in self._crews))
        finally:
            for crew in self._crews:
                crew.listening.cancel()
            await asyncio.gather(*(crew.listening for crew in self._crews), return_exceptions=True)

    def _patience_s(self) -> float:
        plan = self._plan
        longest_ms = max(clip.audio_ms for clip in plan.clips) + plan.pause_ms + plan.tail_ms
        slack_s = CONNECT_S + READY_S + HELD_S + LAST_WORDS_S
        ends: list[float] = []
        for arrival in plan.arrivals:
            begin = max(arrival.start_ms, ends[arrival.after] if arrival.after is not None else 0.0)
            ends.append(begin + arrival.speech_ms + longest_ms)
        return max(ends) / 1000 + slack_s

    # Sums -----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        lines = [crew.progress for crew in self._crews if crew.progress]

        def total(key: str) -> int:
            return sum(line[key] for line in lines)

        self._most_active = max(self._most_active, total("active"))
        self._on_progress(
            Progress(
                elapsed_ms=(time.monotonic() - self._go_s) * 1000,
                active=total("active"),
                waiting=total("waiting"),
                done=total("done"),
                refused=total("refused"),
                failed=total("failed"),
                late_p99_ms=max(line["late_p99_ms"] for line in lines),
                partials=total("partials"),
                finals=total("finals"),
            )
        )

    def _record(self) -> StepRecord:
        records = tuple(record for _, record in sorted(self._digest.records.items()))
        loads = [crew.cpu_share() for crew in self._crews]
        cpu, late = max(loads, default=0.0), self._digest.late_ms(0.99)
        return StepRecord(
            sessions=self._plan.sessions,
            wall_ms=max((record.ended_ms for record in records), default=0.0),
            chunk_ms=self._plan.chunk_ms,
            records=records,
            peak=max(peak(records), self._most_active if self._stop.is_set() else 0),
            workers=len(self._crews),
            worker_cpu=cpu,
            late_p99_ms=late,
            late_max_ms=self._digest.late_ms(1.0),
            notes=(*self._notes, *own_limits(late, cpu, self._plan.chunk_ms)),
        )


def _spool(plan: StepPlan, path: Path) -> list[Json]:
    """Write the sound of all clips into one file, and say what is where."""
    clips = []
    with path.open("wb") as file:
        for clip in plan.clips:
            size = file.write(samples(clip))
            clips.append({"rate_hz": clip.sample_rate_hz, "bytes": size})
    return clips


def _module_path() -> str:
    """Where the worker finds this package, also where it is not installed."""
    here = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))


def _stand_back() -> None:
    # On Linux this is the thread's own. Elsewhere it would be the whole process's, and is left alone.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), STAND_BACK)


def _nothing(progress: Progress) -> None:
    """Nobody watches."""
