"""Settings → everything that is told of the gateway: the hub with its sinks, and the pages that show what they know."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from fastapi import APIRouter

from server.faces import metrics_page
from server.settings import ServerSettings
from server.telemetry.hub import Sink, Telemetry
from server.telemetry.metrics import Metrics
from server.telemetry.readings import Readings, Sources
from server.telemetry.shared_files import SharedFiles
from server.telemetry.status import StatusSink
from server.telemetry.written import build_written

log = structlog.get_logger("server.telemetry")


@dataclass(slots=True)
class Monitoring:
    """The telemetry of a gateway.

    Attributes:
        hub: what streams are told to.
        status: what the status page tells of them.
        readings: what `/metrics` tells; None where it is off.
        routers: the pages of it.
        starters: what is to be called at the start, in order.
        closers: what is to be awaited at the end, in order.
    """

    hub: Telemetry
    status: StatusSink
    readings: Readings | None = None
    routers: list[APIRouter] = field(default_factory=list)
    starters: list[Callable[[], None]] = field(default_factory=list)
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def start(self, sources: Sources) -> None:
        """Begin to write, and to look at the gateway."""
        for start in self.starters:
            start()
        if self.readings is not None:
            self.readings.start(sources)

    async def aclose(self) -> None:
        """Write out what waits, and let go; what fails keeps nobody from the rest."""
        for close in self.closers:
            try:
                await close()
            except Exception:
                log.exception("telemetry did not close", part=getattr(close, "__qualname__", repr(close)))


def build_telemetry(settings: ServerSettings) -> Monitoring:
    """The sinks that `settings` ask for, around one hub.

    Raises:
        ASRError: `bad_request` where METRICS_DIR cannot be used.
    """
    status = StatusSink(clock=time.monotonic, unix_time=time.time)
    sinks: list[Sink] = [status]
    metrics, shared = _metrics(settings) if settings.metrics else (None, None)
    if metrics is not None:
        sinks.append(metrics)
    written = build_written(settings, lambda: monitoring.hub.tallies)
    sinks += written.sinks
    hub = Telemetry(sinks, traced_share=written.traced_share, on_final=written.on_final)
    monitoring = Monitoring(hub, status, starters=[*written.starters], closers=[*written.closers])
    if metrics is not None:
        readings = monitoring.readings = Readings(metrics, hub, shared)
        monitoring.routers.append(metrics_page.router(readings.page))
        monitoring.closers.append(readings.aclose)
    return monitoring


def _metrics(settings: ServerSettings) -> tuple[Metrics, SharedFiles | None]:
    # Before any metric: where there is a folder, that is where its value is kept.
    shared = SharedFiles(settings.metrics_dir) if settings.metrics_dir is not None else None
    return Metrics(jobs_are_shared=settings.jobs_database_url is not None), shared
