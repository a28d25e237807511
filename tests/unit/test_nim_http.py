"""What a NIM's HTTP answers mean, in both of its spellings."""

from __future__ import annotations

import json

import pytest

from asr.errors import ASRError, Code
from asr.nim_http import is_ready, read_answer, reason


def body(content: object) -> bytes:
    return json.dumps(content).encode()


def test_the_text_of_an_answer() -> None:
    assert read_answer(200, body({"text": " one two ", "usage": {"type": "duration", "seconds": 1}})) == "one two"


@pytest.mark.parametrize("answer", [b"", b"one two", b"[]", b'{"text": null}', b'{"usage": {}}', b"\xff"])
def test_an_answer_without_text_is_an_error_and_no_empty_transcript(answer: bytes) -> None:
    with pytest.raises(ASRError) as told:
        read_answer(200, answer)
    assert told.value.code is Code.INTERNAL


@pytest.mark.parametrize("shape", ["detail", "openai"])
@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (400, "bad model", Code.NOT_FOUND),
        (404, "Unavailable model requested", Code.NOT_FOUND),
        (400, "audio too long", Code.TOO_LARGE),
        (413, "Request Entity Too Large", Code.TOO_LARGE),
        (400, "Bad Request, need model or language", Code.BAD_REQUEST),
        (400, "audio decoding failed", Code.BAD_AUDIO),
        (415, "no", Code.BAD_AUDIO),
        (404, "Not Found", Code.UNSUPPORTED),
        (405, "Method Not Allowed", Code.UNSUPPORTED),
        (429, "slow down", Code.OVERLOADED),
        (503, "still loading", Code.UNAVAILABLE),
        (504, "late", Code.TIMEOUT),
        (500, "oh", Code.UNAVAILABLE),
        (302, "", Code.UNAVAILABLE),
    ],
)
def test_refusals_in_both_shapes(shape: str, status: int, said: str, code: Code) -> None:
    content = {"detail": said} if shape == "detail" else {"error": {"message": said, "type": "X", "code": status}}
    with pytest.raises(ASRError) as told:
        read_answer(status, body(content))
    assert told.value.code is code
    assert told.value.message.endswith(".")


def test_a_refusal_names_no_host() -> None:
    with pytest.raises(ASRError) as told:
        read_answer(500, body({"detail": "upstream triton-7.internal:8001 refused the request"}))
    assert "triton" not in told.value.message


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (body({"detail": "x"}), "x"),
        (body({"detail": [{"loc": ["file"], "msg": "field required"}, {"msg": "no"}]}), "field required; no"),
        (body({"error": {"message": "y"}}), "y"),
        (body({"error": "z"}), "z"),
        (body({"error": {"message": 7}}), ""),
        (body([]), ""),
        (b"<html>502</html>", ""),
        (b"plain words", "plain words"),
        (b"", ""),
    ],
)
def test_what_a_nim_says(answer: bytes, said: str) -> None:
    assert reason(answer) == said


@pytest.mark.parametrize(
    ("status", "content", "ready"),
    [
        (200, {"object": "health.response", "message": "ready", "status": "ready"}, True),
        (200, {"status": "ready"}, True),
        (200, {"ready": True}, True),
        (200, {"status": "not_ready"}, False),
        (200, {"ready": False}, False),
        (200, [], False),
        (503, {"status": "ready"}, False),
    ],
)
def test_three_shapes_of_ready(status: int, content: object, *, ready: bool) -> None:
    assert is_ready(status, body(content)) is ready


def test_an_answer_that_is_nested_without_end_is_none() -> None:
    with pytest.raises(ASRError, match="without a text"):
        read_answer(200, b"[" * 1_000_000)
