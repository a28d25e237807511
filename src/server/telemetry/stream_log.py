"""The log lines of a stream: one when it begins, one when it is over, and what happened to its connection in between.

`log_schema` describes them. What was said is in none of them, unless the settings ask for it: then there is a line for
each final.
"""

from __future__ import annotations

import structlog

from asr.errors import Code
from asr.events import Final
from server.telemetry.record import StreamRecord, StreamStart

log = structlog.get_logger("server.stream")


def naming(start: StreamStart) -> dict[str, str]:
    """What tells a stream from all others, and where it belongs; in every line about it."""
    named = {"stream_id": start.stream_id, "trace_id": start.trace.trace_id, "face": start.face, "kind": start.kind}
    if start.session_id:
        named["session_id"] = start.session_id
    return named


def figures(record: StreamRecord) -> dict[str, str | int | float]:
    """What is told of a stream that is over; what does not apply is left out."""
    told: dict[str, str | int | float | None] = {
        **naming(record.start),
        "outcome": record.outcome.value,
        "code": record.code or None,
        "close_code": record.close_code,
        "model": record.model or None,
        "language": record.language or None,
        "duration_ms": record.duration_ms,
        "audio_ms": record.audio_ms,
        "rtfx": round(record.rtfx, 2),
        "queue_wait_ms": record.queue_wait_ms,
        "first_partial_ms": record.first_partial_ms,
        "partial_latency_ms": record.partial_latency_ms,
        "final_latency_ms": record.final_latency_ms,
        "partials": record.partials,
        "finals": record.finals,
        "words": record.words,
        "received_bytes": record.received_bytes,
        "sent_bytes": record.sent_bytes,
        "failovers": record.failovers,
        "replayed_ms": record.replayed_ms,
        "gaps_ms": record.gaps_ms,
        "resumes": record.resumes,
        "left_out": record.left_out,
    }
    return {name: value for name, value in told.items() if value is not None}


def log_final(start: StreamStart, final: Final) -> None:
    """What was said, for those who want transcripts in their log."""
    log.info("final", **naming(start), peer=start.peer, text=final.text, start_ms=final.start_ms, end_ms=final.end_ms)


class LogSink:
    """See `server.telemetry.hub.Sink`."""

    def opened(self, start: StreamStart) -> None:
        """A stream began."""
        log.info("stream opened", peer=start.peer, **naming(start))

    def happened(self, start: StreamStart, what: str, at_s: float, **about: str | int | float) -> None:
        """Its client went away, or came back."""
        if what == "lost":
            log.info("stream waits for its client", **{"peer": start.peer, **naming(start), **about})
        elif what == "resumed":
            log.info("stream resumed", **{"peer": start.peer, **naming(start), **about})

    def closed(self, record: StreamRecord) -> None:
        """A stream is over."""
        log.info("stream closed", peer=record.start.peer, **figures(record))

    def refused(self, face: str, code: Code) -> None:
        """Whoever refuses says so itself, at debug: a crowd of those who are refused must not fill the log."""
