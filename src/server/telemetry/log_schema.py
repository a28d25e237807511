"""The JSON Schema of the log with `LOG_FORMAT=json`: any line, and those about streams to the last field. Pure.

Within version 1 it only grows.
"""

from __future__ import annotations

from typing import Any, get_args

from server.telemetry.record import Kind, Outcome

Schema = dict[str, Any]

_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_LEVELS = ["debug", "info", "warning", "error", "critical"]

_LINE: dict[str, Schema] = {
    "event": _TEXT | {"description": "What happened, in words that do not change."},
    "level": {"enum": _LEVELS},
    "timestamp": _TEXT | {"format": "date-time", "description": "UTC, RFC 3339."},
}
_STREAM: dict[str, Schema] = {
    "stream_id": {"type": "string", "pattern": "^[0-9a-f]{16}$", "description": "The same in every line of a stream."},
    "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "Of W3C's trace context."},
    "face": _TEXT | {"description": "The protocol: native, end, riva_grpc, openai …"},
    "kind": {"enum": list(get_args(Kind)), "description": "Audio as it is spoken, or a recording."},
    "peer": _TEXT | {"description": "The client's address."},
}
_SESSION: dict[str, Schema] = {"session_id": _TEXT | {"description": "That a client of asr.v1 resumes with."}}
_OVER: dict[str, Schema] = {
    "outcome": {"enum": [outcome.value for outcome in Outcome]},
    "duration_ms": _COUNT | {"description": "From its beginning to its end."},
    "audio_ms": _COUNT | {"description": "Audio given to the recognizer."},
    "rtfx": {"type": "number", "minimum": 0, "description": "Seconds of audio for each second that it took."},
    "partials": _COUNT,
    "finals": _COUNT,
    "words": _COUNT | {"description": "In finals."},
    "received_bytes": _COUNT | {"description": "Of the client's messages."},
    "sent_bytes": _COUNT | {"description": "Of ours."},
    "failovers": _COUNT,
    "replayed_ms": _COUNT | {"description": "Audio that a recognizer was given again after a failure."},
    "gaps_ms": _COUNT | {"description": "Audio that no result covers."},
    "resumes": _COUNT | {"description": "How often its client came back."},
    "left_out": _COUNT | {"description": "Messages that a client that read too slowly was not sent."},
}
_OVER_OPTIONAL: dict[str, Schema] = {
    "code": _TEXT | {"description": "The error that ended it."},
    "close_code": {"type": "integer", "description": "Of its WebSocket."},
    "model": _TEXT,
    "language": _TEXT,
    "queue_wait_ms": _COUNT | {"description": "Until the recognizer took its first audio."},
    "first_partial_ms": _COUNT
    | {"description": "From the first words' audio, as it arrived, to their text on the wire."},
    "partial_latency_ms": _COUNT | {"description": "The same for partials, 95th percentile of this stream."},
    "final_latency_ms": _COUNT | {"description": "The same for finals."},
}


def _object(title: str, required: dict[str, Schema], optional: dict[str, Schema]) -> Schema:
    return {
        "title": title,
        "type": "object",
        "properties": {**required, **optional, "event": {"const": title}},
        "required": list(required),
        "additionalProperties": False,
    }


def schema() -> Schema:
    """The schema (2020-12). A line about a stream that it does not describe does not fit it; other lines are free."""
    about = {**_LINE, **_STREAM}
    lines = (
        _object("stream opened", about, _SESSION),
        _object("stream closed", about | _OVER, _SESSION | _OVER_OPTIONAL),
        _object("stream waits for its client", about, _SESSION | {"window_ms": _COUNT}),
        _object("stream resumed", about, _SESSION | {"missed": _COUNT}),
        _object(
            "final",
            about | {"text": _TEXT | {"description": "What was said. Only with LOG_TRANSCRIPTS=on."}},
            _SESSION | {"start_ms": _COUNT, "end_ms": _COUNT},
        ),
        _object(
            "lines left out",
            _LINE | {"like": _TEXT | {"description": "Level and event of those lines."}, "count": _COUNT},
            {},
        ),
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:riva-gateway:schema:log.v1",
        "title": "A line of the log of riva-gateway (LOG_FORMAT=json)",
        "type": "object",
        "properties": _LINE | {"exception": {"type": "array", "items": {"type": "object"}}},
        "required": list(_LINE),
        "allOf": [
            {"if": {"properties": {"event": line["properties"]["event"]}}, "then": {"$ref": f"#/$defs/{name}"}}
            for line in lines
            if (name := line["title"].replace(" ", "_"))
        ],
        "$defs": {line["title"].replace(" ", "_"): line for line in lines},
    }
