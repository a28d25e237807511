"""A record of each stream as a line of JSON: what it looks like, and which file it belongs into. Pure.

Nothing of what was said is in it, and nothing that a client could be let in with. Durations are seconds, as floats.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson

from server.telemetry.record import StreamRecord

Row = dict[str, Any]

REFUSED = "refused"
"""The status of those who were not let in; others are an `Outcome`."""

_FILE = re.compile(r"streams-(\d{4}-\d{2}-\d{2})\.jsonl")


def row_of(record: StreamRecord) -> Row:
    """A stream that is over. `ts` is when it ended; what does not apply is null."""
    start = record.start
    return {
        "ts": _timestamp(record.unix_s),
        "status": record.outcome.value,
        "code": record.code,
        "face": start.face,
        "kind": start.kind,
        "stream_id": start.stream_id,
        "trace_id": start.trace.trace_id,
        "session_id": start.session_id,
        "model": record.model,
        "language": record.language,
        "audio_len_s": record.audio_ms / 1000,
        "queue_wait_s": _seconds(record.queue_wait_ms),
        "first_partial_s": _seconds(record.first_partial_ms),
        "partial_latency_s": _seconds(record.partial_latency_ms),
        "final_latency_s": _seconds(record.final_latency_ms),
        "total_s": record.duration_ms / 1000,
        "rtfx": round(record.rtfx, 3),
        "partials": record.partials,
        "finals": record.finals,
        "words": record.words,
        "received_bytes": record.received_bytes,
        "sent_bytes": record.sent_bytes,
        "failovers": record.failovers,
        "replayed_s": record.replayed_ms / 1000,
        "gaps_s": record.gaps_ms / 1000,
        "resumes": record.resumes,
    }


def row_of_refusals(face: str, code: str, count: int, unix_s: float) -> Row:
    """So many who were refused within a second: a crowd must not fill the disk."""
    return {"ts": _timestamp(unix_s), "status": REFUSED, "code": code, "face": face, "count": count}


def line_of(row: Row) -> bytes:
    """As it is written, with its end."""
    try:
        return orjson.dumps(row) + b"\n"
    except TypeError:  # half a sign, in a name that somebody sent
        whole = {name: replaced(value) if isinstance(value, str) else value for name, value in row.items()}
        return orjson.dumps(whole) + b"\n"


def replaced(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def file_name(day: date) -> str:
    """The file of that day, in UTC.

    >>> file_name(date(2026, 11, 21))
    'streams-2026-11-21.jsonl'
    """
    return f"streams-{day.isoformat()}.jsonl"


def day_of(unix_s: float) -> date:
    """The day in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).date()


def day_of_file(name: str) -> date | None:
    """Which day a file is of; None for other people's files.

    >>> day_of_file("streams-2026-11-21.jsonl"), day_of_file("streams-2026-13-21.jsonl"), day_of_file("notes.txt")
    (datetime.date(2026, 11, 21), None, None)
    """
    found = _FILE.fullmatch(name)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def is_old(day: date, today: date, keep_days: int) -> bool:
    """Whether the records of that day are to go: today's are kept, and those of `keep_days` days before."""
    return day < today - timedelta(days=keep_days)


def _timestamp(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
