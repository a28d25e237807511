"""What `/metrics` tells that nobody reports: how things stand when somebody asks, and what has grown since.

Streams, endpoints, sessions, jobs and this process are looked at in the event loop, at each scrape. Where several
gateways share a folder, each also looks every two seconds, as another may be the one that is asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Count
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from asr.engine import Engine, counts_of, endpoints_of
from asr.errors import ASRError
from server.admission import Admission
from server.telemetry.hub import Telemetry
from server.telemetry.metrics import FACES, Metrics
from server.telemetry.shared_files import SharedFiles

log = structlog.get_logger("server.telemetry")

SHARED_EVERY_S = 2.0
LAG_EVERY_S = 0.5
SELDOM_S = 10.0
"""Jobs and files are counted no more often: a scrape must not cost the database anything."""
SELDOM_TIMEOUT_S = 2.0
_BREAKER = {"open": 1.0, "half_open": 0.5}
_POSITIONS = ("on", "off", "former")


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom to ask.

    Attributes:
        version: of the gateway.
        engine: who recognizes.
        admission: the places.
        sessions_waiting: how many sessions have lost their client.
        jobs: how many there are, by their states; None where there are no jobs.
        spool_bytes: on disk; may block.
    """

    version: str
    engine: Engine
    admission: Admission
    sessions_waiting: Callable[[], int]
    jobs: Callable[[], Awaitable[Mapping[str, int]]] | None
    spool_bytes: Callable[[], int]


class Readings:
    """The page of `/metrics`.

    Args:
        metrics: where the figures go.
        hub: whose streams and tallies they are.
        shared: the folder that this gateway shares with others, or None.
    """

    def __init__(self, metrics: Metrics, hub: Telemetry, shared: SharedFiles | None = None) -> None:
        self._metrics = metrics
        self._hub = hub
        self._shared = shared
        self._sources: Sources | None = None
        self._last: dict[tuple[int, tuple[str, ...]], float] = {}
        self._endpoints: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._one_at_a_time = asyncio.Lock()
        self._page = (0.0, "", b"")
        self._seldom_at = -SELDOM_S
        self._process: dict[str, Gauge | Counter] = {}
        if shared is None:
            registry = metrics.registry
            prometheus_client.ProcessCollector(registry=registry)
            prometheus_client.PlatformCollector(registry=registry)
            prometheus_client.GCCollector(registry=registry)

    def start(self, sources: Sources) -> None:
        """Begin to look."""
        self._sources = sources
        self._metrics.info.labels(sources.version, sources.engine.name).set(1)
        self._tasks.append(asyncio.create_task(self._time_the_loop(), name="loop lag"))
        if self._shared is not None:
            self._tasks.append(asyncio.create_task(self._keep_looking(), name="shared metrics"))

    async def aclose(self) -> None:
        """Look no more; what was counted until now is told."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._shared is not None:
            self._look()
            await asyncio.to_thread(self._shared.leave)

    async def page(self, accept: str) -> tuple[bytes, str]:
        """The text of all metrics and its content type, as a scraper with this `Accept` header reads it."""
        encode, content_type = prometheus_client.exposition.choose_encoder(accept)
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with self._one_at_a_time:
            # Those who ask at the same time share one look: it costs what a hundred streams cost in that while.
            begun_at, known_type, page = self._page
            if known_type != content_type or begun_at <= asked_at:
                begun_at = loop.time()
                await self.refresh()
                page = await asyncio.to_thread(self._render, encode)
                self._page = (begun_at, content_type, page)
            return page, content_type

    async def refresh(self) -> None:
        """Bring everything up to date."""
        now = asyncio.get_running_loop().time()
        if self._sources is not None and now - self._seldom_at >= SELDOM_S:
            self._seldom_at = now
            await self._look_seldom(self._sources)
        self._look()

    def _render(self, encode: Callable[[CollectorRegistry], bytes]) -> bytes:
        if self._shared is None:
            return encode(self._metrics.registry)
        with self._shared.everybody() as registry:
            return encode(registry)

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:
                log.exception("metrics are not up to date")
            await asyncio.sleep(SHARED_EVERY_S)

    async def _time_the_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._metrics.event_loop_lag.observe(max(loop.time() - due, 0.0))

    # What is looked at ------------------------------------------------------------------------------

    def _look(self) -> None:
        self._look_at_streams()
        self._look_at_tallies()
        self._metrics.tasks.set(len(asyncio.all_tasks()))
        if self._sources is not None:
            self._look_at_upstream(self._sources.engine)
            self._metrics.streams_limit.set(self._sources.admission.max_streams)
            self._metrics.draining.set(self._sources.admission.draining)
            self._metrics.sessions_waiting.set(self._sources.sessions_waiting())
        if self._shared is not None:
            self._look_at_process()

    def _look_at_streams(self) -> None:
        active = Count[str]()
        for watch in list(self._hub.watches):
            if not watch.closed:
                active[watch.start.face] += 1
                watch.settle()
                self._metrics.grown(watch.start, watch.grown)
        for face in FACES:
            self._metrics.streams_active.labels(face).set(active[face])

    def _look_at_upstream(self, engine: Engine) -> None:
        metrics = self._metrics
        told = endpoints_of(engine)
        for endpoint in told:
            name = endpoint["name"]
            limit = endpoint["limit"]
            metrics.upstream_up.labels(name).set(endpoint["state"] == "up")
            metrics.upstream_breaker_open.labels(name).set(_BREAKER.get(endpoint["breaker"], 0.0))
            metrics.upstream_streams.labels(name).set(endpoint["streams"])
            metrics.upstream_streams_limit.labels(name).set(float("inf") if limit is None else limit)
            self._grow(metrics.upstream_attempts, endpoint.get("attempts", 0), name)
            for code, errors in endpoint.get("errors", {}).items():
                self._grow(metrics.upstream_errors, errors, name, code)
        names = {endpoint["name"] for endpoint in told}
        for name in self._endpoints - names:
            self._forget_endpoint(name)
        self._endpoints = names
        counts = counts_of(engine)
        self._grow(metrics.upstream_failovers, counts.get("failovers", 0))
        self._grow(metrics.upstream_retries, counts.get("retries", 0))
        self._grow(metrics.upstream_rotations, counts.get("rotations", 0))
        self._grow(metrics.upstream_replayed_seconds, counts.get("replayed_ms", 0) / 1000)
        self._grow(metrics.upstream_gaps_seconds, counts.get("gaps_ms", 0) / 1000)
        self._grow(metrics.upstream_given_up, counts.get("given_up", 0))

    def _forget_endpoint(self, name: str) -> None:
        """An endpoint that is no longer there: nobody is to be woken over it."""
        metrics = self._metrics
        gauges = (metrics.upstream_up, metrics.upstream_breaker_open)
        for gauge in (*gauges, metrics.upstream_streams, metrics.upstream_streams_limit):
            if self._shared is None:
                gauge.remove(name)
            else:  # files keep every name for as long as their process lives
                gauge.labels(name).set(1.0 if gauge is metrics.upstream_up else 0.0)

    def _look_at_tallies(self) -> None:
        metrics, tallies = self._metrics, self._hub.tallies
        for reason, refused in tallies.access_refused.items():
            self._grow(metrics.access_refused, refused, reason)
        for quota, refused in tallies.quota_refused.items():
            self._grow(metrics.quota_refused, refused, quota)
        for use, ends in tallies.certificate_expiry.items():
            metrics.certificate_expiry.labels(use).set(ends)
        for position in _POSITIONS:
            metrics.rollout_position.labels(position).set(position == tallies.rollout_position)
        metrics.canary_percent.set(tallies.canary_percent)
        for (arm, outcome), streams in tallies.canary_streams.items():
            self._grow(metrics.canary_streams, streams, arm, outcome)
        self._grow(metrics.canary_aborts, tallies.canary_aborts)
        self._grow(metrics.records_dropped, tallies.records_dropped)
        self._grow(metrics.log_lines_suppressed, tallies.log_lines_suppressed)
        self._grow(metrics.spans_dropped, tallies.spans_dropped)

    def _look_at_process(self) -> None:
        """The process's own figures, which the shared files do not have by themselves."""
        for family in prometheus_client.ProcessCollector(registry=None).collect():
            value = family.samples[0].value
            if family.type == "counter":
                counter = self._process.get(family.name) or Counter(
                    family.name, family.documentation, registry=self._metrics.registry
                )
                self._process[family.name] = counter
                assert isinstance(counter, Counter)
                self._grow(counter, value)
                continue
            mode: Any = "livemin" if family.name in ("process_start_time_seconds", "process_max_fds") else "livesum"
            gauge = self._process.get(family.name) or Gauge(
                family.name, family.documentation, registry=self._metrics.registry, multiprocess_mode=mode
            )
            self._process[family.name] = gauge
            assert isinstance(gauge, Gauge)
            gauge.set(value)

    async def _look_seldom(self, sources: Sources) -> None:
        with suppress(ASRError, TimeoutError):  # then the figures of before stand
            async with asyncio.timeout(SELDOM_TIMEOUT_S):
                self._metrics.spool_bytes.set(await asyncio.to_thread(sources.spool_bytes))
                for state, jobs in (await sources.jobs() if sources.jobs is not None else {}).items():
                    self._metrics.jobs.labels(state).set(jobs)

    def _grow(self, counter: Counter, value: float, *labels: str) -> None:
        """Bring a counter up to what somebody else has counted.

        What was counted by one who is gone (a canary's endpoints) is told already: a lower value adds nothing.
        """
        key = (id(counter), labels)
        last = self._last.get(key, 0.0)
        self._last[key] = value
        (counter.labels(*labels) if labels else counter).inc(max(value - last, 0.0))
