"""What people really send, on the running server: a clear answer for each, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sound
import speech
from server.serve import Addresses
from word_engine import WordEngine

from .gateway import running, session

SECOND = bytes(32_000)


def wav(data: bytes, *, claims: int | None = None, rate: int = 16_000, channels: int = 1) -> bytes:
    return sound.wav(data, sound.fmt(channels=channels, rate_hz=rate), size=claims)


async def stream(addresses: Addresses, data: bytes, audio: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Everything that the server says about this audio, and the close."""
    async with session(addresses) as client:
        await client.say(json.dumps({"type": "start", "interim": False, "audio": audio}))
        for at in range(0, len(data), 5_001):
            await client.say(data[at : at + 5_001])
        await client.say('{"type":"stop"}')
        said = []
        while not (text := await client.answer()).startswith("close"):
            said.append(json.loads(text))
        return said, text


def kinds(said: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in said]


AUTO = {"encoding": "auto"}
BAD: list[tuple[str, bytes, dict[str, Any], str, str]] = [
    ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(5000), AUTO, "close 4415", "Accepted: WAV"),
    ("text", b"This is a letter, not a recording. " * 50, AUTO, "close 4415", "Accepted: WAV"),
    ("a header without audio", wav(b""), AUTO, "close 4415", "empty"),
    ("half a header", wav(SECOND)[:30], AUTO, "close 4415", "header"),
    ("flac announced as wav", speech.path("greeting.flac").read_bytes(), {"encoding": "wav"}, "close 4415", "FLAC"),
    ("an mp3", b"ID3\x04" + bytes(4000), AUTO, "close 4415", "There is no MP3"),
    ("a rate from nowhere", SECOND, {"sample_rate_hz": 1}, "close 4400", "sample rate"),
    ("nine channels", SECOND, {"channels": 9}, "close 4400", "channels"),
]


@pytest.mark.parametrize(("data", "audio", "close", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
async def test_what_is_not_audio_is_refused_in_words(
    data: bytes, audio: dict[str, Any], close: str, words: str, tmp_path: Path
) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        said, ended = await stream(addresses, data, audio)
    assert ended == close
    assert said[-1]["type"] == "error"
    assert words in said[-1]["message"], said[-1]["message"]


ODD: list[tuple[str, bytes, dict[str, Any], int, str]] = [
    ("a truncated wav", wav(SECOND, claims=96_000), AUTO, 1000, "truncated"),
    ("a wav of unknown length", wav(SECOND, claims=0xFFFFFFFF), AUTO, 1000, ""),
    ("a wav that claims nothing", wav(SECOND, claims=0), AUTO, 1000, ""),
    ("a wav that claims too little", wav(SECOND, claims=8_000), AUTO, 1000, "header"),
    ("stereo", wav(SECOND * 2, channels=2), AUTO, 1000, "mixed down"),
    ("8 kHz", wav(SECOND[:16_000], rate=8_000), AUTO, 1000, ""),
    ("44.1 kHz", wav(bytes(88_200), rate=44_100), AUTO, 1000, ""),
    ("48 kHz raw", bytes(96_000), {"sample_rate_hz": 48_000}, 1000, ""),
    ("an odd byte", SECOND + b"\0", {}, 1000, "odd"),
    ("a wav sent as raw pcm", wav(SECOND), {}, 1000, ""),
    ("µ-law", bytes([0xFF]) * 8_000, {"encoding": "mulaw", "sample_rate_hz": 8_000}, 1000, ""),
]


@pytest.mark.parametrize(("data", "audio", "audio_ms", "warning"), [o[1:] for o in ODD], ids=[o[0] for o in ODD])
async def test_what_is_odd_is_heard_whole_and_said(
    data: bytes, audio: dict[str, Any], audio_ms: int, warning: str, tmp_path: Path
) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        said, ended = await stream(addresses, data, audio)
    assert ended == "close 1000"
    summary = said[-1]
    assert summary["type"] == "summary"
    assert abs(summary["audio_ms"] - audio_ms) <= 1
    warnings = [m["message"] for m in said if m["type"] == "warning"] + said[0]["warnings"]
    assert bool(warnings) == bool(warning), warnings
    assert all(warning in text for text in warnings[:1])


async def test_audio_that_turns_bad_keeps_the_words_before_it(tmp_path: Path) -> None:
    good, bad = wav(SECOND + SECOND[:6_400]), wav(SECOND, rate=8_000)
    async with running(WordEngine(), tmp_path) as addresses:
        said, ended = await stream(addresses, good + bad, AUTO)
        async with session(addresses, "/ws") as client:
            await client.say(good + bad)
            await client.say("END")
            answers = []
            while not (text := await client.answer()).startswith("close"):
                answers.append(json.loads(text))
    assert ended == text == "close 4415"
    assert [m["text"] for m in said if m["type"] == "final"] == ["w1 w2 w3 w4 w5", "w6"]
    assert kinds(said)[-2:] == ["summary", "error"]
    assert [m["text"] for m in answers if m.get("is_final")] == ["w1 w2 w3 w4 w5", "w6"]
    assert answers[-1]["error"]["code"] == "bad_audio"


async def test_stereo_is_refused_by_setting(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, stereo="refuse") as addresses:
        for data, audio in ((wav(SECOND, channels=2), AUTO), (SECOND, {"channels": 2})):
            said, ended = await stream(addresses, data, audio)
            assert ended == "close 4415"
            assert "channel" in said[-1]["message"]


async def test_nothing_sent_is_no_failure(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        said, ended = await stream(addresses, b"", {})
    assert kinds(said) == ["ready", "summary"]
    assert ended == "close 1000"


@pytest.mark.slow
async def test_the_same_greeting_in_every_dress_gives_its_words(tmp_path: Path) -> None:
    clip = speech.clip("greeting")
    names = ["greeting.wav", "greeting_8k.wav", "greeting_44k_stereo.wav", "greeting_48k.wav", "greeting_24bit.wav",
             "greeting_float.wav", "greeting.flac"]  # fmt: skip
    async with running(None, tmp_path, asr_engine="local") as addresses:
        for name in names:
            said, ended = await stream(addresses, speech.path(name).read_bytes(), AUTO)
            assert ended == "close 1000"
            text = " ".join(m["text"] for m in said if m["type"] == "final")
            # Telephone band costs the recognizer words; every other dress must not.
            limit = 0.5 if name == "greeting_8k.wav" else clip.max_wer
            assert speech.wer(clip.text, text) <= limit, f"{name}: {text!r}"
