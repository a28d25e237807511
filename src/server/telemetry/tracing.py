"""One span for each stream, as OpenTelemetry has it.

Only imported where traces are wanted: the library is large. A span is made when its stream is over, with the ids that
the stream was given at its beginning, so that its log lines, what the recognizer was told and the span agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from asr.errors import Code
from server.telemetry.record import Outcome, StreamRecord, StreamStart
from server.telemetry.records import replaced
from server.telemetry.stream_log import figures

MAX_EVENTS = 128
"""Of one span: OpenTelemetry's own bound. The first ones are kept, and the last one."""
PREFIX = "riva_gateway."
EVENTS = frozenset({"first_partial", "final", "failover", "recovered", "gap", "lost", "resumed"})


class Sender(Protocol):
    """Takes finished spans."""

    def send(self, span: ReadableSpan) -> None:
        """Hand a span over; never waits."""
        ...


@dataclass(slots=True)
class _Events:
    kept: list[Event] = field(default_factory=list)
    left_out: int = 0


class TraceSink:
    """See `server.telemetry.hub.Sink`."""

    def __init__(self, sender: Sender, *, service_name: str, version: str, instance: str) -> None:
        """`instance`: unique among the gateways."""
        self._sender = sender
        # The rest of it comes from OTEL_RESOURCE_ATTRIBUTES, which belongs to OpenTelemetry.
        self._resource = Resource.create(
            {"service.name": service_name, "service.version": version, "service.instance.id": instance}
        )
        self._scope = InstrumentationScope("riva-gateway", version)
        self._events: dict[str, _Events] = {}

    def opened(self, start: StreamStart) -> None:
        """A stream began."""
        if start.trace.sampled:
            self._events[start.stream_id] = _Events()

    def happened(self, start: StreamStart, what: str, at_s: float, **about: str | int | float) -> None:
        """Something to mark in the span."""
        events = self._events.get(start.stream_id)
        if events is None or what not in EVENTS:
            return
        if len(events.kept) >= MAX_EVENTS:
            events.kept.pop()
            events.left_out += 1
        events.kept.append(Event(what, _told(about), _ns(at_s)))

    def closed(self, record: StreamRecord) -> None:
        """A stream is over: its span goes out."""
        events = self._events.pop(record.start.stream_id, None)
        if events is not None:
            self._sender.send(self._span(record, events))

    def refused(self, face: str, code: Code) -> None:
        """No stream, no span."""

    def _span(self, record: StreamRecord, events: _Events) -> ReadableSpan:
        start, trace = record.start, record.start.trace
        attributes = _told(figures(record))
        attributes |= {"client.address": replaced(start.peer), "error.type": record.code}
        if events.left_out:
            attributes[PREFIX + "events_left_out"] = events.left_out
        state = TraceState.from_header([trace.state]) if trace.state else None
        flags = TraceFlags(TraceFlags.SAMPLED)
        trace_id = int(trace.trace_id, 16)
        parent = None
        if trace.parent_id:
            parent = SpanContext(
                trace_id, int(trace.parent_id, 16), is_remote=True, trace_flags=flags, trace_state=state
            )
        failed = record.outcome is Outcome.SERVER
        return ReadableSpan(
            f"stream {start.face}",
            context=SpanContext(trace_id, int(trace.span_id, 16), False, flags, state),
            parent=parent,
            resource=self._resource,
            attributes={name: value for name, value in attributes.items() if value not in ("", None)},
            events=tuple(events.kept),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR, record.code) if failed else Status(StatusCode.UNSET),
            start_time=_ns(start.unix_s),
            end_time=_ns(max(record.unix_s, start.unix_s)),
            instrumentation_scope=self._scope,
        )


def _told(about: Mapping[str, str | int | float]) -> dict[str, str | int | float]:
    # One sign that cannot be sent would cost all spans that travel with this one.
    return {PREFIX + name: replaced(value) if isinstance(value, str) else value for name, value in about.items()}


def _ns(unix_s: float) -> int:
    return int(unix_s * 1_000_000_000)
