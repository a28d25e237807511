"""What a SageMaker two-way stream speaks: told by its path, its query, or its first message."""

from __future__ import annotations

import json

import pytest

from asr.errors import ASRError, Code
from server.faces.sagemaker_stream import (
    PATH_HEADER,
    QUERY_HEADER,
    Dialect,
    as_text,
    by_first,
    by_target,
    close_code,
    error_text,
    for_realtime,
    read_target,
)

MOUNT = "/invocations-bidirectional-stream"


def dialect_of(address: str, **headers: str) -> Dialect | None:
    given = {PATH_HEADER: headers.get("path", ""), QUERY_HEADER: headers.get("query", "")}
    return by_target(read_target(address, lambda name: given[name]))


@pytest.mark.parametrize(
    ("below", "dialect"),
    [
        ("", None),
        ("/", None),
        ("/v1/realtime", Dialect.REALTIME),
        ("/v1/realtime/?intent=transcription", Dialect.REALTIME),
        ("?intent=transcription", Dialect.REALTIME),
        ("/v1/stream", Dialect.NATIVE),
        ("?session=abc", Dialect.NATIVE),
        ("/v1/listen?model=nova-3&encoding=linear16", Dialect.PLAIN),
        ("/ws", Dialect.PLAIN),
        ("?sample_rate=8000", Dialect.PLAIN),
        ("?language=en-US", None),
        ("/some/where/else", None),
    ],
)
def test_path_and_query_in_the_address(below: str, dialect: Dialect | None) -> None:
    assert dialect_of(MOUNT + below) is dialect


def test_path_and_query_in_headers_mean_the_same() -> None:
    assert dialect_of(MOUNT, path="v1/listen") is Dialect.PLAIN
    assert dialect_of(MOUNT, path="V1/Realtime") is Dialect.REALTIME
    assert dialect_of(MOUNT, query="intent=transcription") is Dialect.REALTIME
    assert dialect_of(MOUNT, query="?session=abc") is Dialect.NATIVE


def test_every_value_of_a_name_is_there() -> None:
    target = read_target(f"{MOUNT}?keyterm=a&keyterm=b&punctuate=", lambda name: "")
    assert target.queries == {"keyterm": ["a", "b"], "punctuate": [""]}
    assert target.query["keyterm"] == "b"


@pytest.mark.parametrize(
    ("message", "dialect"),
    [
        (b"\x00\x01" * 160, Dialect.PLAIN),
        (b"", Dialect.PLAIN),
        ("END", Dialect.PLAIN),
        ('{"type": "KeepAlive"}', Dialect.PLAIN),
        ('{"type": "CloseStream"}', Dialect.PLAIN),
        ('{"type": "transcription_session.update", "session": {}}', Dialect.REALTIME),
        ('{"type": "session.update"}', Dialect.REALTIME),
        ('{"type": "input_audio_buffer.append", "audio": ""}', Dialect.REALTIME),
        ('{"type": "start"}', Dialect.NATIVE),
        ('{"type": "resume", "session_id": "x"}', Dialect.NATIVE),
        ('{"type": "something"}', Dialect.NATIVE),
        ('{"no": "type"}', Dialect.PLAIN),
    ],
)
def test_the_first_message_tells(message: str | bytes, dialect: Dialect) -> None:
    assert by_first(message) is dialect


@pytest.mark.parametrize(
    "message", [b'{"type": "start"}', b'{"type":"KeepAlive"}', '{"type": "x", "text": "ä"}'.encode()]
)
def test_json_in_a_binary_message_is_text(message: bytes) -> None:
    assert as_text(message) == message.decode()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"{}",
        b'{"type": 7}',
        b'{"type": "start"',
        b"{\x00" * 160,
        b' {"type": "start"}',
        b"{\xff\xfe}",
        b"[]",
    ],
)
def test_everything_else_in_a_binary_message_is_audio(message: bytes) -> None:
    assert as_text(message) is None


def test_the_end_of_a_session_in_the_realtime_dialect() -> None:
    assert json.loads(for_realtime('{"type": "session.end"}')) == {"type": "input_audio_buffer.done"}
    for other in ('{"type": "session.update"}', '{"type": "x", "text": "session.end"}', "session.end"):
        assert for_realtime(other) == other


def test_an_error_as_sagemaker_knows_it() -> None:
    error = ASRError(Code.BAD_AUDIO, "No. " * 100)
    assert json.loads(error_text(error)) == {"ModelStreamError": {"ErrorCode": "bad_audio", "Message": error.message}}
    assert close_code(error) == 4415
