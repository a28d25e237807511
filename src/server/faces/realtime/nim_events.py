"""The events of a NIM's realtime API: the client's read, the server's as JSON objects without their `event_id`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from asr.errors import ASRError, Code
from asr.events import Word
from server.faces.realtime.dialect import POLICY_VIOLATION
from server.refusals import TOO_BIG, refusal

Json = dict[str, Any]

TRY_AGAIN_LATER = 1013

_TRANSCRIPTION = "conversation.item.input_audio_transcription"


def read(message: str | bytes) -> Json:
    """A client's event. Raises `bad_request` for what is no JSON object with a type."""
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError:
        raise ASRError(Code.BAD_REQUEST, "The message is not JSON.") from None
    if not isinstance(event, dict):
        raise ASRError(Code.BAD_REQUEST, "The message is not a JSON object.")
    if not isinstance(event.get("type"), str):
        raise ASRError(Code.BAD_REQUEST, "The message has no type.", param="type")
    return event


def not_set_up() -> ASRError:
    """What a client is told whose audio comes too early."""
    text = "The session is not set up. Send transcription_session.update, and wait for …updated."
    return ASRError(Code.BAD_REQUEST, text, param="type")


def created(conversation_id: str) -> Json:
    """The first event of a connection."""
    return {
        "type": "conversation.created",
        "conversation": {"id": conversation_id, "object": "realtime.conversation"},
    }


def updated(session: Json, warnings: Sequence[str]) -> Json:
    """The answer to an update; `warnings` say what is not granted."""
    event: Json = {"type": "transcription_session.updated", "session": session}
    return {**event, "warnings": list(warnings)} if warnings else event


def committed(previous_id: str | None, item_id: str) -> Json:
    """The answer to a commit. The item goes on all the same: a commit ends nothing in this dialect."""
    return {"type": "input_audio_buffer.committed", "previous_item_id": previous_id, "item_id": item_id}


def cleared() -> Json:
    """The answer to a clear."""
    return {"type": "input_audio_buffer.cleared"}


def delta(item_id: str, more: str) -> Json:
    """More of an item's transcript."""
    return {"type": f"{_TRANSCRIPTION}.delta", "item_id": item_id, "content_index": 0, "delta": more}


def completed(
    item_id: str, text: str, words: Sequence[Json] | None, audio_ms: int, *, is_last: bool, warnings: Sequence[str] = ()
) -> Json:
    """An item's transcript. `words` None: they were not asked for. `audio_ms`: all audio of the connection so far."""
    event: Json = {
        "type": f"{_TRANSCRIPTION}.completed",
        "item_id": item_id,
        "content_index": 0,
        "transcript": text,
        "is_last_result": is_last,
        "usage": {"type": "duration", "seconds": audio_ms / 1000},
    }
    if words is not None:
        event["words_info"] = {"words": list(words)}
    if warnings:
        event["warnings"] = list(warnings)
    return event


def failed(item_id: str, error: ASRError) -> Json:
    """Audio that gets no transcript; the connection goes on."""
    return {"type": f"{_TRANSCRIPTION}.failed", "item_id": item_id, "content_index": 0, "error": _error(error)}


def error_event(error: ASRError, ref: str | None = None) -> Json:
    """`error`; `ref` is the `event_id` of the client's message that it answers."""
    told = _error(error)
    return {"type": "error", "error": told if ref is None else {**told, "event_id": ref}}


def refusal_text(error: ASRError) -> str:
    """A refusal as the only message of a connection."""
    return orjson.dumps({"event_id": "event_refused", **error_event(error)}).decode()


def close_code(code: Code) -> int:
    """The close code after that message: what generic clients know, and else that of `server.refusals`."""
    match code:
        case Code.OVERLOADED:
            return TRY_AGAIN_LATER
        case Code.UNAUTHORIZED | Code.FORBIDDEN:
            return POLICY_VIOLATION
        case Code.TOO_LARGE:
            return TOO_BIG
        case _:
            return refusal(code).close_code


def words_of(words: Iterable[Word], base_ms: int, speakers: dict[str, int]) -> list[Json]:
    """`words_info.words`: times in ms, and numbers wherever clients print numbers.

    Args:
        words: with times on the clock of their take.
        base_ms: where that clock begins on the connection's.
        speakers: the numbers given to speaker labels so far; grows.
    """
    return [
        {
            "word": word.text,
            "start_time": word.start_ms + base_ms,
            "end_time": word.end_ms + base_ms,
            "confidence": word.confidence_raw if word.confidence_raw is not None else word.confidence or 0.0,
            "speaker_tag": _speaker_tag(word.speaker, speakers),
        }
        for word in words
    ]


def _speaker_tag(label: str | None, speakers: dict[str, int]) -> int:
    # Clients print it as a whole number: a label that is none gets one as it comes, from 1.
    if label is None:
        return 0
    if label.isascii() and label.isdigit() and len(label) < 10:
        return int(label)
    return speakers.setdefault(label, len(speakers) + 1)


def _error(error: ASRError) -> Json:
    return {
        "type": refusal(error.code).openai_type,
        "code": error.code.value,
        "message": error.message,
        "param": error.param,
    }
