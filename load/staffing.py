"""How many processes send, which sessions each holds, and whether they were the limit themselves."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from load.plan import StepPlan
from load.records import SessionRecord

STREAMS_PER_WORKER = {"websocket": 700, "grpc": 120}
"""Streams at 100 ms chunks that a process carries with room to spare."""
LATE_SHARE = 0.5
"""A sender that is later than this share of a chunk measures itself."""
CPU_SHARE = 0.9
"""And so may one that has so little of its core left."""


def workers_for(plan: StepPlan) -> int:
    """How many processes to use: as the plan says, else as many as its streams need, at most one per core."""
    if plan.workers is not None:
        return max(min(plan.workers, len(plan.arrivals)), 1)
    streams = plan.sessions * max(100 / plan.chunk_ms, 0.5)
    needed = math.ceil(streams / STREAMS_PER_WORKER[plan.door.wire])
    return max(min(needed, len(os.sched_getaffinity(0)), len(plan.arrivals)), 1)


def shares(plan: StepPlan, workers: int) -> list[list[int]]:
    """Which sessions each worker holds, by number: in turn, but those in one row together."""
    owner: dict[int, int] = {}
    for number, arrival in enumerate(plan.arrivals):
        owner[number] = owner[arrival.after] if arrival.after is not None else len(owner) % workers
    return [[number for number, worker in owner.items() if worker == index] for index in range(workers)]


def own_limits(late_p99_ms: float, worker_cpu: float, chunk_ms: int) -> tuple[str, ...]:
    """Whether the load tool itself was the limit of a step, in sentences; none when it was not."""
    notes = []
    if late_p99_ms > LATE_SHARE * chunk_ms:
        notes.append(
            f"The load tool was the limit: 1 % of its chunks of {chunk_ms} ms left over {late_p99_ms:.0f} ms late. "
            "Latencies of this step say little of the gateway; use more cores, or another machine."
        )
    if worker_cpu > CPU_SHARE:
        notes.append(f"A load worker used {worker_cpu:.0%} of a core: more sessions need more workers or cores.")
    return tuple(notes)


def peak(records: Sequence[SessionRecord]) -> int:
    """The most sessions that spoke at a time."""
    steps = [(record.speaking_ms, 1) for record in records if record.speaking_ms is not None]
    steps += [(record.ended_ms, -1) for record in records if record.speaking_ms is not None]
    most = now = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most
