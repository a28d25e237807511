"""Large appends in pieces: the same audio, the same wishes, and the same refusal of what is not base64."""

from __future__ import annotations

import base64
import json
import random

import pytest

from asr.errors import ASRError
from server.faces.realtime.audio import CHECKED_CHARS, PIECE_CHARS, LargeAppend, large_append, read_audio


def message(audio: str, **more: object) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "event_id": "mine", "audio": audio, **more})


def encoded(size_bytes: int) -> str:
    return base64.b64encode(random.Random(1).randbytes(size_bytes)).decode()


def read(text: str | bytes) -> LargeAppend:
    append = large_append(text)
    assert append is not None
    return append


@pytest.mark.parametrize("size_bytes", [25_000, 3 * PIECE_CHARS // 4 * 5, 100_001])
def test_pieces_come_to_the_same(size_bytes: int) -> None:
    audio = encoded(size_bytes)
    append = read(message(audio, runtime_config={"force_eou": "true"}))
    assert set(append.flaws()) == {None}
    events = [json.loads(piece) for piece in append.pieces()]
    assert b"".join(read_audio(event["audio"]) for event in events) == base64.b64decode(audio)
    assert all(len(event["audio"]) <= PIECE_CHARS for event in events)
    assert ["runtime_config" in event for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["event_id"] == "mine"


def test_binary_message_has_binary_pieces() -> None:
    assert all(isinstance(piece, bytes) for piece in read(message(encoded(50_000)).encode()).pieces())


@pytest.mark.parametrize(
    "text",
    [
        message(encoded(1_000)),
        "x" * 100_000,
        "[" + "1," * 50_000 + "1]",
        json.dumps({"type": "transcription_session.update", "session": {"x": "y" * 100_000}}),
        message("", padding="y" * 100_000),
        json.dumps({"type": "input_audio_buffer.append", "audio": ["x" * 100_000]}),
        message("A" * (15 * 1024 * 1024 + 4)),
    ],
)
def test_what_is_no_large_append_stays_as_it_is(text: str) -> None:
    assert large_append(text) is None


@pytest.mark.parametrize("at", [0, 70_000, CHECKED_CHARS + 8, 2 * CHECKED_CHARS - 8])
@pytest.mark.parametrize("flaw", ["%", "-", " ", "="])
def test_what_is_not_base64_is_refused_as_a_whole(at: int, flaw: str) -> None:
    audio = encoded(3 * CHECKED_CHARS // 2)
    audio = audio[: at + 3] + flaw + audio[at + 4 :]
    with pytest.raises(ASRError):
        read_audio(audio)
    found = [told for told in read(message(audio)).flaws() if told is not None]
    event = json.loads(found[0])
    assert event["event_id"] == "mine"
    assert len(found[0]) < 1_000
    with pytest.raises(ASRError, match="not base64"):
        read_audio(event["audio"])
