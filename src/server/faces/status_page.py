"""The status page (`/status`) and what it reads every two seconds (`/status.json`).

The page is a file like any other and tells nothing by itself; the document needs the scope `metrics`. There is no
client in it, no principal and no address of a recognizer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from asr.engine import Engine, endpoints_of
from asr.errors import ASRError
from server.admission import Admission
from server.readiness import ReadinessWatch
from server.telemetry.state import State, state_of
from server.telemetry.status import OBJECTIVES_S, StatusSink

PAGE = "status.html"
JOBS_EVERY_S = 10.0
JOBS_TIMEOUT_S = 2.0
_TOLD = ("name", "state", "breaker", "streams", "limit", "detail")


def _nothing() -> Mapping[str, Any] | None:
    return None


@dataclass(frozen=True, slots=True)
class StatusSources:
    """Whom the status page asks.

    Attributes:
        engine: of its endpoints.
        admission: of places, and whether the gateway drains.
        ready: of the recognizer's readiness; it answers at once.
        sink: of streams.
        clock: monotonic, in seconds; `started_at` is of it.
        unix_time: the wall clock, in seconds.
        started_at: when the gateway was started.
        version: of the gateway.
        jobs: how many there are, by their states; None where there are no jobs.
        rollout: `position` and what else is told of it, or None where there is none.
    """

    engine: Engine
    admission: Admission
    ready: ReadinessWatch
    sink: StatusSink
    clock: Callable[[], float]
    unix_time: Callable[[], float]
    started_at: float
    version: str
    jobs: Callable[[], Awaitable[Mapping[str, int]]] | None = None
    rollout: Callable[[], Mapping[str, Any] | None] = _nothing


class JobCounts:
    """Asks how many jobs there are, now and then: those who watch the page must not cost the database anything.

    Args:
        ask: the question, or None where there are no jobs.
        clock: monotonic, in seconds.
    """

    def __init__(self, ask: Callable[[], Awaitable[Mapping[str, int]]] | None, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._asked_at = -JOBS_EVERY_S
        self._known: Mapping[str, int] | None = None

    async def look(self) -> Mapping[str, int] | None:
        """What is known; None where nothing is, or the database does not answer."""
        now = self._clock()
        if self._ask is not None and now - self._asked_at >= JOBS_EVERY_S:
            self._asked_at = now
            try:
                async with asyncio.timeout(JOBS_TIMEOUT_S):
                    self._known = await self._ask()
            except (ASRError, TimeoutError):
                self._known = None
        return self._known


async def status_of(sources: StatusSources, jobs: Mapping[str, int] | None) -> dict[str, Any]:
    """The document behind the page; `jobs` are counted by their states."""
    admission, sink = sources.admission, sources.sink
    endpoints = [{key: endpoint[key] for key in _TOLD} for endpoint in endpoints_of(sources.engine)]
    latencies = sink.latencies()
    rollout = sources.rollout()
    state: State = state_of(
        await sources.ready.state(),
        draining=admission.draining,
        position=str((rollout or {}).get("position", "")),
        in_use=admission.in_use,
        limit=admission.max_streams,
        endpoints=endpoints,
        latencies=latencies,
    )
    return {
        "state": {"level": state.level.value, "words": state.words},
        "version": sources.version,
        "engine": sources.engine.name,
        "unix_s": round(sources.unix_time(), 3),
        "uptime_s": int(sources.clock() - sources.started_at),
        "streams": {
            "in_use": admission.in_use,
            "limit": admission.max_streams,
            "by_face": sink.streams_by_face(),
        },
        "endpoints": endpoints,
        "latencies": {
            name: {**asdict(summary), "objective_ms": _ms(OBJECTIVES_S[name])} for name, summary in latencies.items()
        },
        "errors": [asdict(trouble) for trouble in sink.troubles()],
        "jobs": jobs,
        "rollout": rollout,
    }


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def router(sources: StatusSources, page: Path) -> APIRouter:
    """`/status` and `/status.json`.

    Args:
        sources: whom to ask.
        page: the folder of the page's files.
    """
    routes = APIRouter()
    jobs = JobCounts(sources.jobs, sources.clock)

    @routes.get("/status", include_in_schema=False)
    async def status_page() -> FileResponse:
        return FileResponse(page / PAGE, media_type="text/html")

    @routes.get("/status.json", tags=["operation"], summary="How is it?")
    async def status_document() -> dict[str, Any]:
        """What the status page shows: state, streams, endpoints, latencies of five minutes, errors of an hour."""
        return await status_of(sources, await jobs.look())

    return routes
