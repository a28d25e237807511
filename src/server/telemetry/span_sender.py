"""Spans on their way to a collector: a bounded queue, a thread of OpenTelemetry's, and an end in time.

A collector that is slow or gone costs spans, which are counted, and a line in the log once a minute. It costs no
stream anything: nothing here waits on the event loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = structlog.get_logger("server.telemetry")

MAX_QUEUE_SPANS = 2_048
BATCH_SPANS = 256
SEND_EVERY_MS = 1_000
EXPORT_TIMEOUT_S = 5.0
"""For one batch, with its retries."""
CLOSE_TIMEOUT_S = 2.5
"""How long the end of the process waits for the last spans."""
SAY_EVERY_S = 60.0
TRACES_PATH = "/v1/traces"


class SpanSender:
    """Takes finished spans and sends them.

    Attributes:
        dropped: spans that no collector took, so far: the queue was full, or sending failed.
    """

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        *,
        on_dropped: Callable[[int], None] = lambda spans: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`start` it, and `close` it in the end. Nothing is connected before the first spans are sent.

        Args:
            endpoint: the collector's base address.
            headers: sent along.
            on_dropped: told of spans that are lost, in any thread.
            clock: steady seconds.
        """
        # What it would say for each batch is said here, once a minute.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self.dropped = 0
        self._on_dropped = on_dropped
        self._clock = clock
        self._endpoint = endpoint
        self._say_at = 0.0
        self._unsaid = 0
        self._lock = threading.Lock()
        self._given = 0
        self._exporter = _Counting(
            OTLPSpanExporter(endpoint.rstrip("/") + TRACES_PATH, headers=dict(headers), timeout=EXPORT_TIMEOUT_S),
            self._lost,
        )
        self._processor: BatchSpanProcessor | None = None

    def start(self) -> None:
        """Begin to send, in a thread of its own."""
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=MAX_QUEUE_SPANS,
            schedule_delay_millis=SEND_EVERY_MS,
            max_export_batch_size=BATCH_SPANS,
        )

    def send(self, span: ReadableSpan) -> None:
        """Hand a span over; it is dropped where too many wait."""
        # OpenTelemetry would drop the oldest one, and not say so to us.
        if self._processor is None or self._given - self._exporter.taken >= MAX_QUEUE_SPANS:
            self._lost(1)
            return
        self._given += 1
        self._processor.on_end(span)

    def close(self) -> None:
        """Send what waits, for `CLOSE_TIMEOUT_S` at most; blocks so long, so not on the event loop."""
        if self._processor is None:
            return
        # It would itself wait for half a minute, and its thread cannot be interrupted: both are left behind then.
        closing = threading.Thread(target=self._processor.shutdown, name="close-traces", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)
        # Also those that were taken, and of which no collector has said that it has them.
        left = self._given - self._exporter.settled
        if closing.is_alive():
            self._exporter.write_off()
            self._exporter.shutdown()
        if left:
            self._lost(left)

    def _lost(self, spans: int) -> None:
        with self._lock:
            self.dropped += spans
            self._unsaid += spans
            now = self._clock()
            count = self._unsaid if now >= self._say_at else 0
            if count:
                self._unsaid, self._say_at = 0, now + SAY_EVERY_S
        self._on_dropped(spans)
        if count:
            log.warning("traces cannot be sent; streams go on", spans_dropped=count, collector=self._endpoint)


class _Counting(SpanExporter):
    """Tells what became of each batch."""

    def __init__(self, inner: SpanExporter, on_lost: Callable[[int], None]) -> None:
        self._inner = inner
        self._on_lost = on_lost
        self._over = False
        self._is_written_off = False
        self.taken = 0
        self.settled = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            if not self._over:
                result = self._inner.export(spans)
        finally:
            self.settled += len(spans)
            if result is not SpanExportResult.SUCCESS and not self._is_written_off:
                self._on_lost(len(spans))
        return result

    def write_off(self) -> None:
        """What is lost from now on has been counted."""
        self._is_written_off = True

    def shutdown(self) -> None:
        """End it, and what it waits for; once."""
        if not self._over:
            self._over = True
            self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return True
