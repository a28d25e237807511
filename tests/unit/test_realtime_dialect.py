"""Which realtime dialect a handshake speaks, as real clients send theirs."""

from __future__ import annotations

import pytest

from asr.errors import ASRError, Code
from server.faces.realtime.audio import MAX_APPEND_BYTES, read_audio
from server.faces.realtime.dialect import Dialect, read_handshake
from server.faces.realtime.items import Items

BEARER = ("Authorization", "Bearer sk-1")
BETA = ("OpenAI-Beta", "realtime=v1")
ASKED = {"intent": "transcription"}


def offering(*names: str) -> tuple[str, str]:
    return ("Sec-WebSocket-Protocol", ", ".join(names))


@pytest.mark.parametrize(
    ("headers", "query", "dialect"),
    [
        ([], ASKED, Dialect.NIM),
        ([], {}, Dialect.NIM),
        ([], {"model": "parakeet"}, Dialect.NIM),
        ([offering("realtime", "realtime-token.abc")], ASKED, Dialect.NIM),
        ([offering("realtime-token.abc"), BEARER], ASKED, Dialect.NIM),
        ([BEARER], ASKED, Dialect.OPENAI),
        ([BEARER], {"model": "gpt-4o-transcribe"}, Dialect.OPENAI),
        ([BEARER], {"model": "gpt-4o-transcribe", **ASKED}, Dialect.OPENAI),
        ([("authorization", "bearer sk-1")], {}, Dialect.OPENAI),
        ([("Authorization", "Basic abc")], {}, Dialect.NIM),
        ([offering("realtime", "openai-insecure-api-key.ek_1")], ASKED, Dialect.OPENAI),
        ([offering("realtime", "openai-insecure-api-key.sk-1", "openai-beta.realtime-v1")], ASKED, Dialect.OPENAI_BETA),
        ([BEARER, BETA], ASKED, Dialect.OPENAI_BETA),
        ([BETA], {}, Dialect.OPENAI_BETA),
        ([BEARER, ("OpenAI-Beta", "assistants=v2")], {}, Dialect.OPENAI),
        ([BEARER], {"dialect": "nim"}, Dialect.NIM),
        ([], {"dialect": "openai"}, Dialect.OPENAI),
        ([], {"dialect": "openai-beta"}, Dialect.OPENAI_BETA),
        ([BEARER, BETA], {"dialect": "openai"}, Dialect.OPENAI),
    ],
)
def test_dialect_is_told_at_connect(headers: list[tuple[str, str]], query: dict[str, str], dialect: Dialect) -> None:
    shown = read_handshake(headers, query)
    assert shown.dialect is dialect
    assert shown.refusal is None


def test_credentials_and_the_model_are_read() -> None:
    shown = read_handshake([offering("realtime", "realtime-token.a.b"), BEARER], {"model": "m"})
    assert (shown.token, shown.key, shown.model) == ("a.b", "sk-1", "m")
    assert read_handshake([offering("openai-insecure-api-key.ek_1")], {}).key == "ek_1"
    assert read_handshake([BEARER, offering("openai-insecure-api-key.ek_1")], {}).key == "sk-1"


@pytest.mark.parametrize("query", [{"intent": "synthesis"}, {"intent": "conversation"}, {"dialect": "klingon"}])
def test_what_is_not_served_is_refused_by_name(query: dict[str, str]) -> None:
    refusal = read_handshake([], query).refusal
    assert refusal is not None
    assert refusal.code is Code.BAD_REQUEST
    assert next(iter(query.values())) in refusal.message


def test_audio_is_strict_base64_within_a_bound() -> None:
    assert read_audio("AAEC") == b"\0\1\2"
    assert read_audio("") == b""
    for bad in ("%%%", "AAE", "AA EC", "AAEC\n", "ÄÖ==", None, 7, ["AAEC"]):
        with pytest.raises(ASRError) as caught:
            read_audio(bad)
        assert caught.value.code is Code.BAD_REQUEST
        assert caught.value.param == "audio"
    with pytest.raises(ASRError) as caught:
        read_audio("A" * (MAX_APPEND_BYTES + 4))
    assert caught.value.code is Code.TOO_LARGE


def test_items_follow_one_another() -> None:
    numbers = iter(range(10))
    items = Items(lambda prefix: f"{prefix}_{next(numbers)}")
    assert (items.current, items.previous) == ("item_0", None)
    assert items.close() == "item_0"
    assert (items.current, items.previous) == ("item_1", "item_0")
