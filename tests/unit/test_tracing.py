"""Spans: what is in one, and what becomes of those that nobody takes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from server.telemetry import span_sender
from server.telemetry.record import Outcome, StreamRecord, StreamStart
from server.telemetry.span_sender import MAX_QUEUE_SPANS, SpanSender
from server.telemetry.trace import TraceContext
from server.telemetry.tracing import MAX_EVENTS, TraceSink

TRACE = TraceContext("ab" * 16, "cd" * 8, "ef" * 8, True, "vendor=value")
START = StreamStart("a" * 16, "native", "live", "192.0.2.1", "key 12", TRACE, 1000.0, "session")
RECORD = StreamRecord(START, 1030.5, Outcome.OK, audio_ms=30_000, duration_ms=30_500, model="parakeet")
LATENCY_S = 10.0


class Kept:
    """A sender that keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def send(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def sink(kept: Kept) -> TraceSink:
    return TraceSink(kept, service_name="riva-gateway", version="1.0", instance="here")


def test_the_ids_are_those_of_the_stream(sink: TraceSink, kept: Kept) -> None:
    sink.opened(START)
    sink.happened(START, "first_partial", 1001.5, latency_ms=210)
    sink.happened(START, "a secret of another kind", 1002.0, text="what was said")
    sink.closed(RECORD)
    (span,) = kept.spans
    assert span.parent is not None
    assert (span.context.trace_id, span.context.span_id) == (int("ab" * 16, 16), int("cd" * 8, 16))
    assert (span.parent.span_id, span.parent.is_remote) == (int("ef" * 8, 16), True)
    assert span.context.trace_state.to_header() == "vendor=value"
    assert (span.start_time, span.end_time) == (1000 * 10**9, 1030_500 * 10**6)
    assert (span.kind, span.status.status_code) == (SpanKind.SERVER, StatusCode.UNSET)
    (event,) = span.events
    assert (event.name, event.timestamp, dict(event.attributes or {})) == (
        "first_partial",
        1001_500 * 10**6,
        {"riva_gateway.latency_ms": 210},
    )
    told = dict(span.attributes or {})
    assert told["client.address"] == "192.0.2.1"
    assert told["riva_gateway.rtfx"] == 0.98
    assert "key 12" not in str(told)


def test_what_is_not_to_be_kept_is_not_sent(sink: TraceSink, kept: Kept) -> None:
    start = replace(START, trace=TRACE.with_sampling(False))
    sink.opened(start)
    sink.happened(start, "final", 1001.0)
    sink.closed(replace(RECORD, start=start))
    assert kept.spans == []
    assert sink._events == {}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.SERVER, StatusCode.ERROR),
        (Outcome.CLIENT, StatusCode.UNSET),
        (Outcome.GONE, StatusCode.UNSET),
    ],
)
def test_only_our_own_failures_are_errors(sink: TraceSink, kept: Kept, outcome: Outcome, status: StatusCode) -> None:
    sink.opened(START)
    sink.closed(replace(RECORD, outcome=outcome, code="x"))
    assert kept.spans[0].status.status_code is status


def test_events_are_bounded_and_the_last_one_is_kept(sink: TraceSink, kept: Kept) -> None:
    sink.opened(START)
    for number in range(1000):
        sink.happened(START, "final", 1000.0 + number, latency_ms=number)
    sink.closed(RECORD)
    (span,) = kept.spans
    latencies = [dict(event.attributes or {})["riva_gateway.latency_ms"] for event in span.events]
    assert latencies == [*range(MAX_EVENTS - 1), 999]
    assert dict(span.attributes or {})["riva_gateway.events_left_out"] == 1000 - MAX_EVENTS


def test_half_a_sign_costs_no_span(sink: TraceSink, kept: Kept) -> None:
    start = replace(START, peer="\ud800", trace=replace(TRACE, state="\u00e4 , =,x"))
    sink.opened(start)
    sink.happened(start, "gap", 1001.0, cause="\udfff")
    sink.closed(replace(RECORD, start=start, model="\ud800"))
    assert encode_spans(kept.spans).SerializeToString()


class Stuck:
    """Takes a batch and is not done with it before it is told so."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.go_on = threading.Event()
        self.batches: list[int] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.batches.append(len(spans))
        self.go_on.wait(LATENCY_S)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.go_on.set()


def test_spans_that_wait_are_bounded_and_those_dropped_are_counted(
    sink: TraceSink, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck()
    monkeypatch.setattr(span_sender, "OTLPSpanExporter", lambda *_, **__: stuck)
    told: list[int] = []
    sender = SpanSender("http://127.0.0.1:1", {}, on_dropped=told.append)
    sender.start()
    sink.opened(START)
    sink.closed(RECORD)
    for _ in range(MAX_QUEUE_SPANS * 2):
        sender.send(kept.spans[0])
    assert sender.dropped == sum(told) >= MAX_QUEUE_SPANS - span_sender.BATCH_SPANS
    stuck.go_on.set()
    sender.close()
    assert sum(stuck.batches) + sender.dropped == MAX_QUEUE_SPANS * 2
