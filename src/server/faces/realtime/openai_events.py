"""The events of OpenAI's realtime transcription: the client's are read, the server's written in both spellings.

A server's event is a JSON object here without its `event_id`, which the conversation adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from asr.errors import ASRError, Code, quoted
from server.refusals import refusal

Json = dict[str, Any]

COMMIT_EMPTY = "input_audio_buffer_commit_empty"

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_CONVERSATION = ("response.", "conversation.", "output_audio_buffer.")
_TYPES = (
    "session.update, transcription_session.update, input_audio_buffer.append, input_audio_buffer.commit, "
    "input_audio_buffer.clear, response.create"
)
_CODES = {
    Code.BAD_REQUEST: "invalid_value",
    Code.RATE_LIMITED: "rate_limit_exceeded",
    Code.UNAUTHORIZED: "invalid_api_key",
}


class BadEvent(ASRError):
    """A client's event that cannot be used.

    Attributes:
        wire_code: OpenAI's own code for it.
    """

    def __init__(self, message: str, wire_code: str, param: str | None = None) -> None:
        super().__init__(Code.BAD_REQUEST, message, param=param)
        self.wire_code = wire_code


def read(message: str | bytes) -> Json:
    """The client's event.

    Raises:
        BadEvent: it is not a JSON object with a `type`.
    """
    if isinstance(message, bytes):
        text = 'Events are JSON in text messages; audio comes as base64 in "input_audio_buffer.append".'
        raise BadEvent(text, "invalid_event")
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise BadEvent(f"The event is not JSON: {error}.", "invalid_event") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise BadEvent('An event is a JSON object with a "type".', "invalid_event", "type")
    return event


def unknown(kind: str) -> BadEvent:
    """The error for an event that is not known here."""
    if kind.startswith(_CONVERSATION):
        text = f"{quoted(kind)} belongs to conversations. Only transcription sessions are served here."
        return BadEvent(text, "unsupported_event", "type")
    return BadEvent(f"There is no event type {quoted(kind)}. Types: {_TYPES}.", "invalid_event", "type")


def session_event(kind: str, session: Json, warnings: Sequence[str] = (), *, flat: bool) -> Json:
    """`session.created` or `.updated` (in the beta's spelling where `flat`); `warnings` say what is not granted."""
    event: Json = {"type": f"{'transcription_session' if flat else 'session'}.{kind}", "session": session}
    if warnings:
        event["warnings"] = list(warnings)
    return event


def error_event(error: ASRError, ref: str | None = None) -> Json:
    """`error`; `ref` is the `event_id` of the client's event that it answers."""
    return {"type": "error", "error": {**_error(error), "event_id": ref}}


def speech_started(item_id: str, audio_start_ms: int) -> Json:
    """Speech began, so far from the start of the session's audio."""
    return {"type": "input_audio_buffer.speech_started", "audio_start_ms": audio_start_ms, "item_id": item_id}


def speech_stopped(item_id: str, audio_end_ms: int) -> Json:
    """Speech ended, so far from the start of the session's audio."""
    return {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": audio_end_ms, "item_id": item_id}


def committed(item_id: str, previous_id: str | None, *, beta: bool) -> list[Json]:
    """The buffer became an item: these events say so, in this order."""
    item = {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    kinds = ("created",) if beta else ("added", "done")
    told = {"previous_item_id": previous_id, "item": item}
    return [
        {"type": "input_audio_buffer.committed", "previous_item_id": previous_id, "item_id": item_id},
        *({"type": f"conversation.item.{kind}", **told} for kind in kinds),
    ]


def cleared() -> Json:
    """The buffer is empty again."""
    return {"type": "input_audio_buffer.cleared"}


def delta(item_id: str, more: str) -> Json:
    """More of an item's transcript."""
    return {"type": f"{_TRANSCRIPTION}.delta", "item_id": item_id, "content_index": 0, "delta": more}


def completed(item_id: str, transcript: str, duration_ms: int, warnings: Sequence[str] = ()) -> Json:
    """An item's whole transcript; it decides, whatever the deltas were."""
    event: Json = {
        "type": f"{_TRANSCRIPTION}.completed",
        "item_id": item_id,
        "content_index": 0,
        "transcript": transcript,
        "usage": {"type": "duration", "seconds": duration_ms / 1000},
    }
    if warnings:
        event["warnings"] = list(warnings)
    return event


def failed(item_id: str, error: ASRError) -> Json:
    """An item gets no transcript."""
    return {"type": f"{_TRANSCRIPTION}.failed", "item_id": item_id, "content_index": 0, "error": _error(error)}


def _error(error: ASRError) -> Json:
    code = error.wire_code if isinstance(error, BadEvent) else _CODES.get(error.code, error.code.value)
    if error.code is Code.NOT_FOUND and error.param == "model":
        code = "model_not_found"
    return {"type": refusal(error.code).openai_type, "code": code, "message": error.message, "param": error.param}
