"""Where every stream is told of, once; what becomes of that is the sinks' business.

A sink must be quick and must not wait. One that fails is told about in the log and disturbs no stream.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from asr.errors import Code
from server.telemetry.record import Kind, StreamRecord, StreamStart
from server.telemetry.trace import trace_of
from server.telemetry.watch import StreamWatch

log = structlog.get_logger("server.telemetry")


class Sink(Protocol):
    """Somebody who wants to know."""

    def opened(self, start: StreamStart) -> None:
        """A stream began."""
        ...

    def happened(self, start: StreamStart, what: str, at_s: float, **about: str | int | float) -> None:
        """Something worth telling happened in a stream, `at_s` Unix seconds.

        `first_partial`, `final`, `failover`, `recovered`, `gap`, `lost`, `resumed`.
        """
        ...

    def measured(self, start: StreamStart, what: str, seconds: float) -> None:
        """A latency: `first_partial`, `partial`, `final`, or a part of `final`: `ingress`, `queue` …"""
        ...

    def closed(self, record: StreamRecord) -> None:
        """A stream is over."""
        ...

    def refused(self, face: str, code: Code) -> None:
        """Somebody was not let in."""
        ...


class Telemetry:
    """The hub. One for each gateway; without sinks it costs next to nothing."""

    def __init__(
        self,
        sinks: Sequence[Sink] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
        token_hex: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._sinks = tuple(sinks)
        self._clock = clock
        self._unix_time = unix_time
        self._token_hex = token_hex

    def open(
        self,
        face: str,
        *,
        kind: Kind,
        peer: str,
        principal: str = "",
        traceparent: str = "",
        tracestate: str = "",
        session_id: str = "",
    ) -> StreamWatch:
        """A stream was admitted; the caller tells the watch what happens, and closes it."""
        trace = trace_of(traceparent, tracestate, self._token_hex)
        start = StreamStart(self._token_hex(8), face, kind, peer, principal, trace, self._unix_time(), session_id)
        watch = StreamWatch(start, self._sinks, self._clock, self._unix_time)
        for sink in self._sinks:
            try:
                sink.opened(start)
            except Exception:
                log.exception("telemetry failed", sink=type(sink).__name__)
        return watch

    def refused(self, face: str, code: Code) -> None:
        """Somebody was not let in."""
        for sink in self._sinks:
            try:
                sink.refused(face, code)
            except Exception:
                log.exception("telemetry failed", sink=type(sink).__name__)
