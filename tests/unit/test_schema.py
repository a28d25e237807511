"""The published JSON Schema of `asr.v1`: sound, complete, and of one mind with the code."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from asr import wire
from asr.errors import Action, Code
from asr.events import FinalReason, GapCause, SpeechSource, State
from server.faces.native_messages import Start
from server.faces.native_setup import NativeLimits

SCHEMA = wire.schema()
DEFS: dict[str, Any] = SCHEMA["$defs"]


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{name}"}]})


CLIENT, SERVER, ANY = validator("client_message"), validator("server_message"), Draft202012Validator(SCHEMA)

CLIENT_EXAMPLES: list[dict[str, Any]] = [
    {"type": "start"},
    {
        "type": "start",
        "audio": {"encoding": "mulaw", "sample_rate_hz": 8000, "channels": 1},
        "language": "en-US",
        "model": "",
        "interim": False,
        "words": True,
        "punctuate": None,
        "verbatim": False,
        "profanity_filter": True,
        "diarization": {"max_speakers": 2},
        "phrases": [{"text": "riva"}, {"text": "nim", "boost": 1}],
        "endpointing": {"mode": "manual", "silence_ms": 700, "eager_ms": None},
        "on_unsupported": "fail",
        "pace": "file",
        "resume_window_ms": 30_000,
        "metadata": {"call": 7},
        "upstream_options": {"a": "b"},
        "of_a_later_version": True,
    },
    {"type": "resume", "session_id": "s", "resume_token": "t", "last_seq": 4, "sent_bytes": 3200},
    {"type": "configure", "id": "c", "interim": False, "words": True},
    {"type": "finalize", "id": "f1"},
    {"type": "finalize"},
    {"type": "mark", "id": "m1"},
    {"type": "keepalive"},
    {"type": "ack", "seq": 4},
    {"type": "stop"},
    {"type": "cancel"},
]
READY: dict[str, Any] = {
    "type": "ready",
    "session_id": "s",
    "resume_token": "t",
    "protocol": "1.0",
    "server": "riva-gateway 1",
    "model": "m",
    "language": "en-US",
    "audio": {"encoding": "pcm_s16le", "sample_rate_hz": 16000, "channels": 1},
    "features": {"partials": True, "words": True},
    "limits": {
        "start_timeout_ms": 1,
        "idle_ms": 1,
        "max_session_ms": 1,
        "max_frame_bytes": 1,
        "max_ahead_ms": 1,
        "resume_window_ms": 1,
        "ack_interval_ms": 1,
    },
    "warnings": [],
}
SUMMARY: dict[str, Any] = {
    "type": "summary",
    "audio_ms": 1,
    "speech_ms": 1,
    "utterances": 1,
    "gaps_ms": 0,
    "failovers": 0,
    "resumes": 0,
    "discarded_ms": 0,
    "final_latency_ms": {"p50": None, "p95": None},
}
SERVER_EXAMPLES: list[dict[str, Any]] = [
    READY,
    {
        "type": "resumed",
        "session_id": "s",
        "resume_token": "t",
        "from_bytes": 0,
        "replaying_from_seq": 1,
        "lost_ms": 0,
    },
    {"type": "configured", "id": None, "applied": {"interim": True}, "ignored": ["words"]},
    {"type": "gap", "start_ms": 0, "end_ms": 5, "cause": "upstream_lost", "channel": 0},
    {"type": "ack", "received_bytes": 1, "received_ms": 1, "processed_ms": 1, "buffered_ms": 1, "safe_bytes": 1},
    {"type": "speech_started", "audio_ms": 0, "channel": 0, "source": "vad"},
    {"type": "finalized", "id": "f1", "audio_ms": 5},
    {"type": "marked", "id": None, "audio_ms": 5},
    {"type": "warning", "code": "idle", "message": "…", "param": None},
    {"type": "status", "state": "draining"},
    SUMMARY,
]


def test_it_is_a_schema_of_its_dialect() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$id"] == "urn:riva-gateway:schema:asr.v1"
    assert SCHEMA["title"] == wire.PROTOCOL


def test_everything_in_it_is_reached_and_described() -> None:
    text = str(SCHEMA)
    for name, body in DEFS.items():
        assert body["description"], name
        assert f"'#/$defs/{name}'" in text, f"{name} is used nowhere"


def test_its_choices_are_those_of_the_code() -> None:
    error = DEFS["error"]["properties"]
    assert error["code"]["enum"] == [code.value for code in Code]
    assert error["action"]["enum"] == [action.value for action in Action]
    assert DEFS["final"]["properties"]["reason"]["enum"] == [reason.value for reason in FinalReason]
    assert DEFS["gap"]["properties"]["cause"]["enum"] == [cause.value for cause in GapCause]
    assert DEFS["status"]["properties"]["state"]["enum"] == [*(state.value for state in State), "draining"]
    assert DEFS["speech_started"]["properties"]["source"]["enum"] == [source.value for source in SpeechSource]


def test_start_has_the_fields_that_the_server_reads() -> None:
    assert set(DEFS["start"]["properties"]) == set(Start.model_fields)
    defaults = Start(type="start").model_dump()
    for name, field in DEFS["start"]["properties"].items():
        if "default" in field:
            assert field["default"] == defaults[name], name
    assert set(DEFS["ready"]["properties"]["limits"]["required"]) == set(NativeLimits.__dataclass_fields__)


@pytest.mark.parametrize("message", CLIENT_EXAMPLES, ids=lambda message: message["type"])
def test_client_messages(message: dict[str, Any]) -> None:
    CLIENT.validate(message)
    ANY.validate(message)


@pytest.mark.parametrize("message", SERVER_EXAMPLES, ids=lambda message: message["type"])
def test_server_messages_carry_a_number_and_all_their_fields(message: dict[str, Any]) -> None:
    numbered = {**message, "seq": 1}
    SERVER.validate(numbered)
    SERVER.validate({**numbered, "of_a_later_version": 1})
    assert not SERVER.is_valid(message)
    assert not SERVER.is_valid({**message, "seq": 0})
    for name in message:
        assert not SERVER.is_valid({key: value for key, value in numbered.items() if key != name}), name


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "begin"},
        {"type": "start", "interim": "yes"},
        {"type": "start", "audio": {"encoding": "midi"}},
        {"type": "start", "phrases": [{"text": "a", "boost": 2}]},
        {"type": "start", "upstream_options": {"a": 1}},
        {"type": "finalize", "id": 7},
        {"type": "mark", "id": "x" * 257},
        {"type": "ack"},
        {"type": "resume", "session_id": "s", "resume_token": "t"},
        {"type": "resume", "session_id": "s", "resume_token": "t", "last_seq": -1},
        {"type": "configure", "interim": "no"},
    ],
)
def test_bad_client_messages(message: dict[str, Any]) -> None:
    assert not CLIENT.is_valid(message)


def test_units_are_in_the_names() -> None:
    """Every number is a count, or ends in its unit."""
    counts = {"seq", "revision", "channel", "channels", "utterances", "failovers", "resumes", "max_speakers"}
    counts |= {"last_seq", "replaying_from_seq", "stable_chars", "p50", "p95"}

    def check(schema: dict[str, Any]) -> None:
        for name, body in schema.get("properties", {}).items():
            if body.get("type") in ("integer", ["integer", "null"]) or body.get("$ref") == "#/$defs/time_ms":
                assert name.endswith(("_ms", "_bytes", "_hz")) or name in counts, name
            check(body)

    for body in DEFS.values():
        check(body)
