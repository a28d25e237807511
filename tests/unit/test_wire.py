"""Events as JSON and back, against files that say what the stable schema looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from asr import wire
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

GOLDEN = sorted((Path(__file__).resolve().parents[1] / "golden" / "events").glob("*.json"))
KINDS = {kind.__name__: kind for kind in (Partial, Final, SpeechStarted, SpeechEnded, Progress, Flushed)}

_schema = wire.schema()
EVENT = Draft202012Validator({**_schema, "anyOf": [{"$ref": "#/$defs/event"}]})
ERROR = Draft202012Validator({**_schema, "anyOf": [{"$ref": "#/$defs/error"}]})


def build(spelled: dict[str, Any]) -> Event:
    """The event that a golden file describes, field by field."""
    fields = dict(spelled)
    kind = KINDS[fields.pop("kind")]
    if "words" in fields:
        fields["words"] = tuple(Word(**word) for word in fields["words"])
    if "alternatives" in fields:
        fields["alternatives"] = tuple(_alternative(a) for a in fields["alternatives"])
    if "reason" in fields:
        fields["reason"] = FinalReason(fields["reason"])
    if "source" in fields:
        fields["source"] = SpeechSource(fields["source"])
    event: Event = kind(**fields)
    return event


def _alternative(fields: dict[str, Any]) -> Alternative:
    return Alternative(**{**fields, "words": tuple(Word(**word) for word in fields.get("words", ()))})


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(request.param.read_text("utf-8"))
    return loaded


def test_there_are_golden_files_for_every_kind() -> None:
    assert {json.loads(path.read_text("utf-8"))["event"]["kind"] for path in GOLDEN} == set(KINDS)


def test_encode_spells_exactly_this(golden: dict[str, Any]) -> None:
    encoded = wire.encode(build(golden["event"]), **golden.get("base", {}))
    assert json.dumps(encoded) == json.dumps(golden["json"]), "also in the order of the keys"


def test_the_schema_accepts_it(golden: dict[str, Any]) -> None:
    EVENT.validate(golden["json"])


def test_decode_reads_it_back(golden: dict[str, Any]) -> None:
    decoded = wire.decode(json.loads(json.dumps(golden["json"])))
    assert decoded is not None
    # Encoding is where digits are cut; what is read back says the same again.
    assert wire.encode(decoded) == golden["json"]
    if "base" not in golden:
        assert type(decoded) is type(build(golden["event"]))


def test_every_field_that_the_schema_requires_is_needed(golden: dict[str, Any]) -> None:
    required = _schema["$defs"][golden["json"]["type"]]["required"]
    for name in required:
        assert not EVENT.is_valid({key: value for key, value in golden["json"].items() if key != name}), name


def test_unknown_fields_are_ignored(golden: dict[str, Any]) -> None:
    more = {**golden["json"], "later": {"version": 2}, "seq": 7}
    EVENT.validate(more)
    assert wire.decode(more) == wire.decode(golden["json"])


milliseconds = st.integers(0, 2**40)
figures = st.one_of(st.none(), st.integers(0, 10**6).map(lambda n: n / 10**6))
words = st.builds(
    Word, st.text(), milliseconds, milliseconds, figures, figures, st.one_of(st.none(), st.text()), st.none()
)
events = st.one_of(
    st.builds(
        Partial,
        utterance=st.integers(0, 10**6),
        revision=st.integers(1, 10**6),
        text=st.text(),
        start_ms=milliseconds,
        end_ms=milliseconds,
        stable_chars=st.integers(0, 1000),
        stability=figures,
        words=st.lists(words, max_size=3).map(tuple),
        eager_eou=st.booleans(),
        channel=st.integers(0, 7),
    ),
    st.builds(
        Final,
        utterance=st.integers(0, 10**6),
        revision=st.integers(1, 10**6),
        text=st.text(),
        start_ms=milliseconds,
        end_ms=milliseconds,
        words=st.lists(words, max_size=3).map(tuple),
        alternatives=st.lists(st.builds(Alternative, st.text(), st.just(()), figures, figures), max_size=2).map(tuple),
        confidence=figures,
        confidence_raw=figures,
        language=st.one_of(st.none(), st.text()),
        reason=st.sampled_from(FinalReason),
        channel=st.integers(0, 7),
    ),
    st.builds(SpeechStarted, milliseconds, st.sampled_from(SpeechSource), st.integers(0, 7)),
    st.builds(SpeechEnded, milliseconds, st.sampled_from(SpeechSource), st.integers(0, 7)),
    st.builds(Progress, milliseconds),
    st.builds(Flushed, milliseconds),
    st.builds(Gap, milliseconds, milliseconds, st.sampled_from(GapCause), st.integers(0, 7)),
    st.builds(Status, st.sampled_from(State), milliseconds, st.one_of(st.none(), milliseconds), st.text()),
)


@given(events)
def test_any_event_comes_back_as_it_was(event: Event) -> None:
    encoded = wire.encode(event)
    EVENT.validate(encoded)
    assert wire.decode(json.loads(json.dumps(encoded))) == event


@pytest.mark.parametrize("kind", ["ready", "ack", "something_new", None])
def test_what_is_not_an_event_is_none(kind: str | None) -> None:
    assert wire.decode({"type": kind}) is None


def test_a_server_that_goes_down_says_nothing_of_the_stream() -> None:
    assert wire.decode({"type": "status", "state": "draining", "deadline_ms": 9_000}) is None


@pytest.mark.parametrize(
    "message",
    [
        {"type": "partial"},
        {"type": "progress", "processed_ms": None},
        {"type": "final", "utterance_id": "x", "revision": 1, "text": "", "start_ms": 0, "end_ms": 0, "reason": "stop"},
        {"type": "speech_started", "audio_ms": 1, "source": "nobody"},
    ],
)
def test_a_broken_message_is_an_error(message: dict[str, Any]) -> None:
    with pytest.raises(ASRError, match="breaks the schema") as caught:
        wire.decode(message)
    assert caught.value.code is Code.INTERNAL


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("fatal", [True, False])
def test_errors_go_there_and_back(code: Code, fatal: bool) -> None:
    error = ASRError(code, "What happened. What to do.", retry_after_ms=2000, param="model")
    encoded = wire.encode_error(error, fatal=fatal, ref="r1", session_id="s1")
    ERROR.validate(encoded)
    back = wire.decode_error(encoded)
    assert (encoded["fatal"], encoded["scope"]) == (fatal, "session" if fatal else "message")
    for name in ("code", "message", "retryable", "retry_after_ms", "action", "param"):
        assert getattr(back, name) == getattr(error, name)


def test_an_error_of_a_later_version_is_still_an_error() -> None:
    error = wire.decode_error({"type": "error", "code": "new_kind", "action": "dance"})
    assert (error.code, error.action, error.retryable) == (Code.INTERNAL, Action.RESTART, False)
    assert error.message
