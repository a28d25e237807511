"""What the dialects' cores read of a client's events alike, and the answer that older clients of both ask for."""

from __future__ import annotations

from typing import Any

from asr.errors import ASRError, Code

Json = dict[str, Any]

RESPOND = "response.create"

MAX_REF_CHARS = 512
"""OpenAI's own bound of an `event_id`."""
MAX_DEPTH = 64
"""Of the objects and lists in a session: it is written as JSON again, and no writer goes as deep as the reader."""


def ref_of(event: Json) -> str | None:
    """The id that the client gave its event, to be repeated in an error about it; not where it is no id any more."""
    ref = event.get("event_id")
    return ref if isinstance(ref, str) and len(ref) <= MAX_REF_CHARS else None


def forces_end(event: Json) -> bool:
    """Whether an append asks, as Riva's clients do, for the end of the utterance behind its audio."""
    config = event.get("runtime_config")
    wanted = config.get("force_eou") if isinstance(config, dict) else None
    return wanted is True or (isinstance(wanted, str) and wanted.lower() == "true")


def check_depth(session: object, levels: int = MAX_DEPTH) -> None:
    """Refuse a session that could not be shown to the client again.

    Raises:
        ASRError: `bad_request`.
    """
    if not isinstance(session, dict | list):
        return
    if not levels:
        raise ASRError(Code.BAD_REQUEST, f"The session is nested more than {MAX_DEPTH} deep.", param="session")
    for value in session.values() if isinstance(session, dict) else session:
        check_depth(value, levels - 1)


def response(response_id: str, item_id: str, transcript: str, *, status: str = "completed") -> list[Json]:
    """The answer to a client that asks for its transcript with `response.create`, as older clients do."""
    place = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
    text = {"type": "output_text", "text": transcript}
    output = {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": [text]}
    whole = {"id": response_id, "object": "realtime.response", "status": status, "output": [output]}
    said = [{"type": "response.output_text.delta", **place, "delta": transcript}] if transcript else []
    return [*said, {"type": "response.completed", "response": whole}]
