"""A JSON object with a recording in it, cut anywhere."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import ASRError, Code
from server.json_audio import MAX_REST_BYTES, JsonAudio

AUDIO = bytes(range(256)) * 9
TEXT = base64.b64encode(AUDIO).decode()


def read(body: bytes, size: int = 1 << 20) -> tuple[bytes, dict[str, Any]]:
    reader = JsonAudio('{"audio": "…"}')
    audio = b"".join(reader.feed(body[at : at + size]) for at in range(0, len(body), size))
    return audio + reader.finish(), reader.members


def body(**members: object) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1 << 20])
@pytest.mark.parametrize(
    "sent",
    [
        body(audio=TEXT, filename="ä.wav", nested={"audio": "x"}, odd='a"b\\'),
        body(audio=f"data:audio/wav;base64,{TEXT}"),
        body(audio=base64.encodebytes(AUDIO).decode()),
        body(audio=TEXT).replace(b"/", b"\\/"),  # as PHP writes it
        body(audio=TEXT).replace(b"+", b"\\u002B"),  # and .NET
        f'{{\n "x" : {{"audio": [{{}}, "]"]}},\n "audio" :\n "{TEXT}"\n}}\n'.encode(),
        body(audio=TEXT).replace(b"audio", b"a\\u0075dio"),
        b"\xef\xbb\xbf" + body(audio=TEXT),
        f'{{"audio": "{TEXT[:80]}\n{TEXT[80:]}"}}'.encode(),  # base64 without -w0
    ],
)
def test_a_recording_cut_anywhere(sent: bytes, size: int) -> None:
    assert read(sent, size)[0] == AUDIO


def test_the_other_members() -> None:
    audio, members = read(body(n=1, audio=TEXT, deep={"audio": "x"}, text='"audio": "'), 3)
    assert audio == AUDIO
    assert members == {"n": 1, "deep": {"audio": "x"}, "text": '"audio": "'}


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (b"", Code.BAD_REQUEST, "not JSON"),
        (b"{", Code.BAD_REQUEST, "not JSON"),
        (b'{"audio": "UklG', Code.BAD_REQUEST, "not JSON"),
        (b"[" * 2_000, Code.BAD_REQUEST, "not JSON"),
        (b"[]", Code.BAD_REQUEST, '"audio"'),
        (b"7", Code.BAD_REQUEST, '"audio"'),
        (body(filename="a.wav"), Code.BAD_REQUEST, '"audio"'),
        (body(audio=7), Code.BAD_REQUEST, '"audio"'),
        (body(audio=[TEXT]), Code.BAD_REQUEST, '"audio"'),
        (body(data="x" * 2 * MAX_REST_BYTES), Code.BAD_REQUEST, '"audio"'),
        (body(audio=TEXT, more="x" * 2 * MAX_REST_BYTES), Code.TOO_LARGE, "beside"),
        (body(audio=TEXT, **{str(n): n for n in range(300)}), Code.BAD_REQUEST, "more than 200"),
        (b'{"audio": "UklG", "audio": "UklG"}', Code.BAD_REQUEST, "twice"),
        (body(audio=""), Code.BAD_AUDIO, "empty"),
        (body(audio=" "), Code.BAD_AUDIO, "empty"),
        (body(audio="data:audio/wav;base64,"), Code.BAD_AUDIO, "empty"),
        (body(audio="data:" + "x" * 2_000), Code.BAD_AUDIO, "not base64"),
        (body(audio="ab!="), Code.BAD_AUDIO, "not base64"),
        (body(audio="abc"), Code.BAD_AUDIO, "not base64"),
        (body(audio="ab==abcd"), Code.BAD_AUDIO, "not base64"),
        (body(audio="äöüß"), Code.BAD_AUDIO, "not base64"),
        (b'{"audio": "ab\\u00"}', Code.BAD_AUDIO, "not base64"),
        (b'{"audio": "ab\\x"}', Code.BAD_AUDIO, "not base64"),
    ],
)
@pytest.mark.parametrize("size", [4, 1 << 22])
def test_what_cannot_be_used(sent: bytes, code: Code, words: str, size: int) -> None:
    if len(sent) > MAX_REST_BYTES:
        size *= 4_096
    with pytest.raises(ASRError, match=words) as caught:
        read(sent, size)
    assert caught.value.code is code


@given(st.binary(max_size=200), st.integers(1, 20))
def test_noise_is_refused_in_words(noise: bytes, size: int) -> None:
    for sent in (noise, b'{"audio": "' + noise, b'{"audio": "' + noise + b'", "x": 1}', b'{"x": "' + noise + b'"}'):
        try:
            read(sent, size)
        except ASRError:
            continue
