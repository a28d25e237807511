"""What is written down of streams: log lines, records, traces; each as a sink, where the settings ask for it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

import asr
from asr.errors import ASRError, Code
from asr.events import Final
from server.logs import on_left_out
from server.settings import ServerSettings, parse_headers
from server.telemetry.hub import Sink
from server.telemetry.record import StreamStart
from server.telemetry.record_files import RecordSink
from server.telemetry.stream_log import LogSink, log_final
from server.telemetry.tallies import Tallies

log = structlog.get_logger("server.telemetry")


@dataclass(slots=True)
class Written:
    """What the hub needs to know.

    Attributes:
        sinks: to be told of streams.
        starters: to be called when the gateway starts: until then nothing runs.
        closers: to be awaited in the end: they write out what waits.
        traced_share: of the streams, those that are traced; None where none are.
        on_final: told of what was said, where the log is to have it.
    """

    sinks: list[Sink] = field(default_factory=list)
    starters: list[Callable[[], None]] = field(default_factory=list)
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    traced_share: float | None = None
    on_final: Callable[[StreamStart, Final], None] | None = None


def build_written(settings: ServerSettings, tallies: Callable[[], Tallies]) -> Written:
    """The sinks that `settings` ask for; nothing runs yet. `tallies` are the hub's."""
    built = Written(on_final=log_final if settings.log_transcripts else None)
    if settings.log_level in ("debug", "info"):  # what nobody will read is not put together either
        built.sinks.append(LogSink())
    if settings.log_transcripts:
        log.warning("LOG_TRANSCRIPTS=on: what people say is written to this log")

    def line_left_out() -> None:
        tallies().log_lines_suppressed += 1

    on_left_out(line_left_out)
    if settings.records:

        def records_dropped(records: int) -> None:
            tallies().records_dropped += records

        records = RecordSink(settings.records_folder, settings.records_keep_days, on_dropped=records_dropped)
        built.sinks.append(records)
        built.starters.append(records.start)
        built.closers.append(lambda: asyncio.to_thread(records.close))
    if settings.otel_exporter_otlp_endpoint:
        _add_traces(built, settings, tallies)
    return built


def _add_traces(built: Written, settings: ServerSettings, tallies: Callable[[], Tallies]) -> None:
    # Only where they are wanted: OpenTelemetry is large.
    from server.telemetry.span_sender import SpanSender
    from server.telemetry.tracing import TraceSink

    def spans_dropped(spans: int) -> None:
        tallies().spans_dropped += spans

    secret = settings.otel_exporter_otlp_headers
    headers = parse_headers(secret.get_secret_value()) if secret is not None else {}
    try:
        sender = SpanSender(settings.otel_exporter_otlp_endpoint, headers, on_dropped=spans_dropped)
    except (OSError, ValueError) as error:  # of the SDK's own variables, such as a file of certificates
        raise ASRError(
            Code.BAD_REQUEST, f"Traces cannot be set up: {error}. Correct the OTEL_ variables, or unset them."
        ) from error
    sink = TraceSink(
        sender, service_name=settings.otel_service_name, version=asr.__version__, instance=secrets.token_hex(8)
    )
    built.sinks.append(sink)
    built.starters.append(sender.start)
    built.closers.append(lambda: asyncio.to_thread(sender.close))
    built.traced_share = settings.otel_traces_sampler_arg
