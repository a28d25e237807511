"""Events and errors as JSON, and back: the one place that spells a key of the stable schema.

The schema is `schemas/asr.v1.schema.json` (also served at `/schema/asr.v1.json`); within
version 1 it only grows. `base_ms` and `base_utterance` move a stream's own clock and numbering onto
those of a session that holds several streams.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from asr.errors import Action, ASRError, Code
from asr.events import (
    Alternative,
    Event,
    Final,
    FinalReason,
    Flushed,
    Gap,
    GapCause,
    Partial,
    Progress,
    SpeechEnded,
    SpeechSource,
    SpeechStarted,
    State,
    Status,
    Word,
)

PROTOCOL = "asr.v1"
VERSION = "1.0"

Json = dict[str, Any]


def schema() -> Json:
    """The JSON Schema (2020-12) of every message of `asr.v1`, both directions."""
    text = resources.files("asr").joinpath("schemas/asr.v1.schema.json").read_text("utf-8")
    loaded: Json = json.loads(text)
    return loaded


def encode(event: Event, *, base_ms: int = 0, base_utterance: int = 0) -> Json:
    """The JSON object of an event, without `seq` (a session adds it).

    `Flushed` has none of its own: a session answers with `finalized`, which carries the
    caller's id; here it becomes `{"type": "flushed", "audio_ms": …}`.
    """
    match event:
        case Partial():
            message: Json = {
                "type": "partial",
                "utterance_id": utterance_id(event.utterance + base_utterance),
                "revision": event.revision,
                "channel": event.channel,
                "start_ms": event.start_ms + base_ms,
                "end_ms": event.end_ms + base_ms,
                "text": event.text,
                "stable_chars": event.stable_chars,
                "eager_eou": event.eager_eou,
            }
            if event.stability is not None:
                message["stability"] = _short(event.stability)
            if event.words:
                message["words"] = [_word(w, base_ms) for w in event.words]
            return message
        case Final():
            message = {
                "type": "final",
                "utterance_id": utterance_id(event.utterance + base_utterance),
                "revision": event.revision,
                "channel": event.channel,
                "start_ms": event.start_ms + base_ms,
                "end_ms": event.end_ms + base_ms,
                "text": event.text,
                "words": [_word(w, base_ms) for w in event.words],
                "confidence": _optional(event.confidence),
                "language": event.language,
                "reason": event.reason.value,
            }
            if event.confidence_raw is not None:
                message["confidence_raw"] = _short(event.confidence_raw)
            if event.alternatives:
                message["alternatives"] = [_alternative(a, base_ms) for a in event.alternatives]
            return message
        case SpeechStarted():
            return _speech("speech_started", event, base_ms)
        case SpeechEnded():
            return _speech("speech_ended", event, base_ms)
        case Progress():
            return {"type": "progress", "processed_ms": event.processed_ms + base_ms}
        case Flushed():
            return {"type": "flushed", "audio_ms": event.audio_ms + base_ms}
        case Gap() | Status():
            return _health(event, base_ms)


def decode(message: Mapping[str, Any]) -> Event | None:
    """The event that a JSON object spells, or None for a type that is not an event.

    Unknown fields are ignored, as the schema asks of every reader.

    Raises:
        ASRError: `internal`, when a known type lacks a field or holds a wrong one.
    """
    try:
        return _decode(message)
    except (KeyError, TypeError, ValueError) as error:
        raise ASRError(
            Code.INTERNAL, f"The server sent a {message.get('type')!r} message that breaks the schema: {error!r}."
        ) from error


def encode_error(error: ASRError, *, fatal: bool, ref: str | None = None, session_id: str | None = None) -> Json:
    """The `error` message of a failure, without `seq`."""
    return {
        "type": "error",
        "code": error.code.value,
        "message": error.message,
        "fatal": fatal,
        "retryable": error.retryable,
        "retry_after_ms": error.retry_after_ms,
        "action": error.action.value,
        "scope": "session" if fatal else "message",
        "ref": ref,
        "param": error.param,
        "session_id": session_id,
    }


def decode_error(message: Mapping[str, Any]) -> ASRError:
    """The failure that an `error` message spells; unknown codes become `internal`."""
    known = {code.value: code for code in Code}
    actions = {action.value: action for action in Action}
    return ASRError(
        known.get(str(message.get("code")), Code.INTERNAL),
        str(message.get("message", "The server reported an error without a message.")),
        retryable=bool(message.get("retryable", False)),
        retry_after_ms=message.get("retry_after_ms"),
        action=actions.get(str(message.get("action"))),
        param=message.get("param"),
    )


def utterance_id(number: int) -> str:
    """`u0`, `u1` …: stable from an utterance's first partial to its final."""
    return f"u{number}"


def _short(number: float) -> float:
    # Six digits: what a float32 holds; a float64 would show its binary tail.
    return float(f"{number:.6g}")


def _optional(number: float | None) -> float | None:
    return None if number is None else _short(number)


def _word(word: Word, base_ms: int) -> Json:
    message: Json = {
        "w": word.text,
        "start_ms": word.start_ms + base_ms,
        "end_ms": word.end_ms + base_ms,
        "confidence": _optional(word.confidence),
        "speaker": word.speaker,
        "language": word.language,
    }
    if word.confidence_raw is not None:
        message["confidence_raw"] = _short(word.confidence_raw)
    return message


def _alternative(alternative: Alternative, base_ms: int) -> Json:
    message: Json = {
        "text": alternative.text,
        "words": [_word(w, base_ms) for w in alternative.words],
        "confidence": _optional(alternative.confidence),
    }
    if alternative.confidence_raw is not None:
        message["confidence_raw"] = _short(alternative.confidence_raw)
    return message


def _speech(kind: str, event: SpeechStarted | SpeechEnded, base_ms: int) -> Json:
    return {
        "type": kind,
        "audio_ms": event.audio_ms + base_ms,
        "channel": event.channel,
        "source": event.source.value,
    }


def _health(event: Gap | Status, base_ms: int) -> Json:
    if isinstance(event, Gap):
        return {
            "type": "gap",
            "start_ms": event.start_ms + base_ms,
            "end_ms": event.end_ms + base_ms,
            "cause": event.cause.value,
            "channel": event.channel,
        }
    message: Json = {"type": "status", "state": event.state.value, "audio_ms": event.audio_ms + base_ms}
    if event.retry_after_ms is not None:
        message["retry_after_ms"] = event.retry_after_ms
    if event.detail:
        message["detail"] = event.detail
    return message


def _decode(m: Mapping[str, Any]) -> Event | None:
    match m.get("type"):
        case "partial":
            return Partial(
                utterance=_utterance(m),
                revision=int(m["revision"]),
                text=str(m["text"]),
                start_ms=int(m["start_ms"]),
                end_ms=int(m["end_ms"]),
                stable_chars=int(m.get("stable_chars", 0)),
                stability=m.get("stability"),
                words=_words(m),
                eager_eou=bool(m.get("eager_eou", False)),
                channel=int(m.get("channel", 0)),
            )
        case "final":
            return Final(
                utterance=_utterance(m),
                revision=int(m["revision"]),
                text=str(m["text"]),
                start_ms=int(m["start_ms"]),
                end_ms=int(m["end_ms"]),
                words=_words(m),
                alternatives=tuple(
                    Alternative(str(a["text"]), _words(a), a.get("confidence"), a.get("confidence_raw"))
                    for a in m.get("alternatives", ())
                ),
                confidence=m.get("confidence"),
                confidence_raw=m.get("confidence_raw"),
                language=m.get("language"),
                reason=FinalReason(m["reason"]),
                channel=int(m.get("channel", 0)),
            )
        case "speech_started":
            return SpeechStarted(int(m["audio_ms"]), SpeechSource(m["source"]), int(m.get("channel", 0)))
        case "speech_ended":
            return SpeechEnded(int(m["audio_ms"]), SpeechSource(m["source"]), int(m.get("channel", 0)))
        case "progress":
            return Progress(int(m["processed_ms"]))
        case "flushed":
            return Flushed(int(m["audio_ms"]))
        case "gap":
            return Gap(int(m["start_ms"]), int(m["end_ms"]), GapCause(m["cause"]), int(m.get("channel", 0)))
        case "status":
            # A server that goes down says so with a status too; that is no state of the stream.
            if m["state"] not in set(State):
                return None
            return Status(State(m["state"]), int(m["audio_ms"]), m.get("retry_after_ms"), str(m.get("detail", "")))
        case _:
            return None


def _utterance(m: Mapping[str, Any]) -> int:
    return int(str(m["utterance_id"]).removeprefix("u"))


def _words(m: Mapping[str, Any]) -> tuple[Word, ...]:
    return tuple(
        Word(
            text=str(w["w"]),
            start_ms=int(w["start_ms"]),
            end_ms=int(w["end_ms"]),
            confidence=w.get("confidence"),
            confidence_raw=w.get("confidence_raw"),
            speaker=w.get("speaker"),
            language=w.get("language"),
        )
        for w in m.get("words", ())
    )
