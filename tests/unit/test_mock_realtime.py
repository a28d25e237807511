"""The realtime session of the stand-in NIM, message by message, without a socket; and its form reader."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest

from asr.mock.plan import load_plan
from server.standin.multipart import read_form
from server.standin.realtime import RealtimeSession, new_session

CHUNK = bytes(3200)
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
FAILED = "conversation.item.input_audio_transcription.failed"

Json = dict[str, Any]


def session(realtime: Json | None = None, **keys: Any) -> RealtimeSession:
    base: Json = {"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]}
    plan = load_plan(base | keys | {"realtime": realtime or {}})
    numbers = itertools.count(1)
    return RealtimeSession(plan, 1, lambda kind: f"{kind}_{next(numbers)}")


def say(core: RealtimeSession, kind: str, **fields: Any) -> list[Json]:
    return core.received(json.dumps({"type": kind, **fields}))


def begin(core: RealtimeSession, **changes: Any) -> list[Json]:
    core.opened()
    return say(core, "transcription_session.update", session=new_session("sess_x") | changes)


def append(core: RealtimeSession, chunks: int, chunk: bytes = CHUNK, **fields: Any) -> list[Json]:
    events: list[Json] = []
    for _ in range(chunks):
        events += say(core, "input_audio_buffer.append", audio=base64.b64encode(chunk).decode(), **fields)
        events += say(core, "input_audio_buffer.commit")
    return events


def talk(core: RealtimeSession, chunks: int = 40, **changes: Any) -> list[Json]:
    begin(core, **changes)
    return append(core, chunks) + say(core, "input_audio_buffer.done")


def of(events: list[Json], kind: str) -> list[Json]:
    return [e for e in events if e["type"] == kind]


def test_the_handshake() -> None:
    core = session()
    assert [e["type"] for e in core.opened()] == ["conversation.created"]
    (updated,) = say(core, "transcription_session.update", session={"input_audio_params": {"num_channels": 1}, "x": 1})
    assert updated["type"] == "transcription_session.updated"
    assert updated["session"]["input_audio_params"] == {"sample_rate_hz": 16000, "num_channels": 1}
    assert updated["session"]["x"] == 1


def test_cumulative_deltas_and_the_full_text_at_the_end() -> None:
    events = talk(session())
    assert [e["delta"] for e in of(events, DELTA)] == ["one", "one two", "one two three", "four", "four five"]
    completed = of(events, COMPLETED)
    assert [(e["transcript"], e["is_last_result"]) for e in completed] == [
        ("one two three ", False),
        ("four five ", False),
        ("one two three four five", True),
    ]
    assert len({e["item_id"] for e in completed}) == 3
    assert len({e["event_id"] for e in events}) == len(events)


def test_incremental_deltas_and_the_tail_alone() -> None:
    events = talk(session({"deltas": "incremental", "last_completed": "tail"}), chunks=28)
    assert [e["delta"] for e in of(events, DELTA)] == ["one", " two", " three", "four", " five"]
    assert [e["transcript"] for e in of(events, COMPLETED)] == ["one two three ", "four five "]


def test_a_rewritten_hypothesis_gives_no_increment() -> None:
    events = talk(session({"deltas": "incremental"}, shape={"partials": "rewrite"}), chunks=9)
    assert [e["delta"] for e in of(events, DELTA)][:1] == ["eno"]


def test_completed_twice() -> None:
    events = talk(session({"duplicate_completed": True}))
    assert [e["is_last_result"] for e in of(events, COMPLETED)] == [False] * 4 + [True]


def test_failed_and_error() -> None:
    events = talk(session({"failed_utterance": 1, "error_utterance": 2}))
    assert of(events, FAILED)[0]["error"]["message"]
    assert of(events, "error")[0]["error"]["type"] == "server_error"
    assert [e["is_last_result"] for e in of(events, COMPLETED)] == [False, True]


def test_silence_still_has_a_last_result() -> None:
    (last,) = talk(session(hears="speech"))
    assert last["is_last_result"]
    assert last["transcript"] == ""


def test_never_final_means_no_completed_at_all() -> None:
    assert of(talk(session(shape={"never_final": True})), COMPLETED) == []


def test_words_where_asked_for() -> None:
    config = {"enable_word_time_offsets": True}
    first = of(talk(session(), recognition_config=config), COMPLETED)[0]
    assert first["words_info"]["words"][1] == {
        "word": "two",
        "start_time": 280,
        "end_time": 560,
        "confidence": -0.2,
        "speaker_tag": 0,
    }
    assert "words_info" not in of(talk(session()), COMPLETED)[0]


def test_force_eou_completes_and_goes_on() -> None:
    core = session()
    begin(core)
    events = append(core, 7) + append(core, 1, runtime_config={"force_eou": "true"})
    assert [e["transcript"] for e in of(events, COMPLETED)] == ["one two three "]
    assert of(append(core, 10), DELTA)


def test_a_header_decides_where_the_format_is_none() -> None:
    core = session()
    begin(core, input_audio_format="none")
    header = (
        b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00"
    )
    events = append(core, 1, header + b"data\xff\xff\xff\xff" + bytes(16_000))
    assert of(events, DELTA)[-1]["delta"] == "one two three"


def test_the_rate_of_bare_samples_is_the_sessions() -> None:
    core = session()
    begin(core, input_audio_params={"sample_rate_hz": 8000, "num_channels": 1})
    assert of(append(core, 1, bytes(16_000)), DELTA)[-1]["delta"] == "one two three"


def test_audio_before_the_session_is_set_up_is_dropped() -> None:
    core = session()
    core.opened()
    assert append(core, 20) == []


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        "[" * 100_000,
        "1",
        '{"type":"nonsense"}',
        '{"type":"input_audio_buffer.done"}',
        '{"type":"transcription_session.update"}',
    ],
)
def test_bad_messages_are_answered(message: str) -> None:
    core = session()
    core.opened()
    (answer,) = core.received(message)
    assert answer["type"] == "error"
    assert answer["error"]["message"]
    assert core.close is None


def test_bad_fields_are_answered() -> None:
    core = session()
    for bad in (
        {"input_audio_params": {"num_channels": 2}},
        {"input_audio_params": {"sample_rate_hz": "fast"}},
        {"endpointing_config": {"stop_history": [1]}},
    ):
        assert of(say(core, "transcription_session.update", session=bad), "error")
    assert begin(core)[0]["type"] == "transcription_session.updated"
    assert of(say(core, "input_audio_buffer.append", audio="%%%"), "error")
    assert of(say(core, "transcription_session.update", session={}), "error")
    assert say(core, "input_audio_buffer.clear")[0]["type"] == "input_audio_buffer.cleared"


def test_a_rate_that_nobody_serves_is_refused_with_the_audio() -> None:
    for rate_hz in (-1, 100, 1_000_000):
        core = session()
        begin(core, input_audio_params={"sample_rate_hz": rate_hz, "num_channels": 1})
        assert of(append(core, 1), "error")


def test_endpointing_of_the_session() -> None:
    slow = {"stop_history": 2000, "stop_history_eou": -1}
    assert [e["transcript"] for e in of(talk(session(), endpointing_config=slow), COMPLETED)] == [
        "one two three four five"
    ]


def test_after_done_nothing_is_answered() -> None:
    core = session()
    talk(core)
    assert append(core, 20) == []


def test_faults() -> None:
    broken = session(faults=[{"kind": "unavailable", "at_ms": 320}])
    (error,) = of(talk(broken), "error")
    assert error["error"]["code"] == "unavailable"
    assert broken.close == 1011
    ended = session(faults=[{"kind": "end", "at_ms": 320}])
    talk(ended)
    assert ended.close == 1000
    hung = session(faults=[{"kind": "hang", "at_ms": 320}])
    assert of(talk(hung), COMPLETED) == []
    assert hung.hung == "hang"
    assert hung.close is None


def test_forms_keep_every_byte() -> None:
    audio = bytes(range(256)) + b"\r\n--x\r\n\r\n"
    body = (
        b'--b1\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
        + audio
        + b'\r\n--b1\r\nContent-Disposition: form-data; name="language"\r\n\r\nen-US\r\n--b1--\r\n'
    )
    assert read_form('multipart/form-data; boundary="b1"', body) == {"file": audio, "language": b"en-US"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [("", b""), ("application/json", b"{}"), ("multipart/form-data; boundary=b", b"--b\r\nX\r\n--b--")],
)
def test_what_is_no_form_has_no_fields(kind: str, body: bytes) -> None:
    assert read_form(kind, body) == {}
