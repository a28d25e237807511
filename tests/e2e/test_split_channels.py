"""Several channels, each recognized on its own: through the native face, and with the library's clients."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import speech
from asr import ASRError, Code, Final, Gap, RivaASRClient, SyncRivaASRClient
from asr.channels import ChannelsEngine
from e2e.gateway import Session, running, session
from sound import encoded, fmt, noise, wav
from word_engine import WordEngine

SECONDS = 3


def woven(*channels: bytes) -> bytes:
    length = min(len(pcm) for pcm in channels)
    return np.stack([np.frombuffer(pcm[:length], "<i2") for pcm in channels], axis=1).tobytes()


TALK = woven(noise(16_000 * SECONDS, 1), noise(16_000 * SECONDS, 2))


async def to_the_end(client: Session) -> list[dict[str, Any]]:
    messages = []
    while (text := await client.hear()).startswith("{"):
        messages.append(json.loads(text))
    return messages


async def tell(client: Session, audio: dict[str, Any], *pieces: str | bytes) -> list[dict[str, Any]]:
    await client.say(json.dumps({"type": "start", "audio": audio, "pace": "file"}))
    for piece in pieces:
        await client.say(piece)
    return await to_the_end(client)


async def test_a_session_of_two_channels(tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(ChannelsEngine(engine), tmp_path) as addresses, session(addresses) as client:
        parts = [TALK[at : at + 6_399] for at in range(0, len(TALK), 6_399)]
        finalize = '{"type":"finalize","id":"f"}'
        messages = await tell(client, {"channels": 2, "stereo": "split"}, *parts, finalize, '{"type":"stop"}')
    assert engine.streams == 2
    assert messages[0]["audio"] == {"encoding": "pcm_s16le", "sample_rate_hz": 16_000, "channels": 2}
    finals = [message for message in messages if message["type"] == "final"]
    for channel in (0, 1):
        own = [message for message in finals if message["channel"] == channel]
        assert [message["text"].split()[0] for message in own] == ["w1", "w6", "w11"]
        assert own[-1]["end_ms"] == 1_000 * SECONDS
    assert len({message["utterance_id"] for message in finals}) == 6
    assert [message["id"] for message in messages if message["type"] == "finalized"] == ["f"]
    acks = [message for message in messages if message["type"] == "ack"]
    assert (acks[-1]["received_bytes"], acks[-1]["received_ms"]) == (len(TALK), 1_000 * SECONDS)
    assert (messages[-1]["type"], messages[-1]["audio_ms"], messages[-1]["utterances"]) == ("summary", 3_000, 6)


async def test_a_container_of_two_channels_that_was_announced_and_one_that_was_not(tmp_path: Path) -> None:
    data = wav(TALK, fmt(channels=2))
    async with running(ChannelsEngine(WordEngine()), tmp_path) as addresses:
        async with session(addresses) as client:
            told = await tell(client, {"encoding": "wav", "channels": 2, "stereo": "split"}, data, '{"type":"stop"}')
            assert {message["channel"] for message in told if message["type"] == "final"} == {0, 1}
        async with session(addresses) as client:
            told = await tell(client, {"encoding": "wav", "stereo": "split"}, data, '{"type":"stop"}')
            assert told[-1]["code"] == "bad_audio"
            assert "announced with 1" in told[-1]["message"]


@pytest.mark.parametrize(
    ("server", "client", "streams"), [("split", None, 2), ("split", "mix", 1), ("mix", None, 1), ("refuse", "split", 0)]
)
async def test_who_decides(tmp_path: Path, server: str, client: str | None, streams: int) -> None:
    engine = WordEngine()
    async with running(ChannelsEngine(engine), tmp_path, stereo=server) as addresses, session(addresses) as talk:
        told = await tell(talk, {"channels": 2, "stereo": client}, TALK, '{"type":"stop"}')
    assert engine.streams == streams
    assert told[-1]["type"] == ("summary" if streams else "error")


async def test_what_is_lost_is_told_for_each_channel(tmp_path: Path) -> None:
    engine = ChannelsEngine(WordEngine("unavailable@1500"))
    parts = [TALK[at : at + 6_400] for at in range(0, len(TALK), 6_400)]
    async with running(engine, tmp_path) as addresses, session(addresses) as client:
        told = await tell(client, {"channels": 2, "stereo": "split"}, *parts)
    assert told[-1]["code"] == "unavailable"
    gaps = [message for message in told if message["type"] == "gap"]
    assert [gap["channel"] for gap in gaps] == [0, 1]


async def test_the_library_splits_files_and_streams(tmp_path: Path) -> None:
    left, right = speech.pcm("greeting"), speech.pcm("groceries")
    path = tmp_path / "call.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(woven(left, right))
    engine = WordEngine()
    async with RivaASRClient(engine=engine) as client:
        told: list[tuple[int, int | None]] = []
        transcript = await client.transcribe_file(path, stereo="split", on_progress=lambda *step: told.append(step))
        length_ms = min(len(left), len(right)) // 32
        assert (transcript.duration_ms, told[-1]) == (length_ms, (length_ms, length_ms))
        assert transcript.warnings == ()
        starts = [(final.start_ms, final.channel) for final in transcript.finals]
        assert starts == sorted(starts)
        assert {channel for _, channel in starts} == {0, 1}
        mixed = await client.transcribe_file(path)
        assert {final.channel for final in mixed.finals} == {0}
        with pytest.raises(ASRError, match="2 channels"):
            await client.transcribe_file(path, stereo="refuse")

        samples = np.frombuffer(woven(left, right), "<i2").reshape(-1, 2)
        flac = encoded(np.ascontiguousarray(samples), 16_000, "flac", "flac")
        for audio, encoding, channels in ((flac, "auto", 1), (woven(left, right), "pcm_s16le", 2)):
            stream = client.stream_transcribe(
                speech.chunks(audio, 999),
                encoding=encoding,  # type: ignore[arg-type]
                sample_rate_hz=16_000 if channels == 2 else None,
                channels=channels,
                stereo="split",
            )
            finals = [event async for event in stream if isinstance(event, Final | Gap)]
            assert {event.channel for event in finals} == {0, 1}
    assert engine.open_streams == 0


def test_the_blocking_client_splits_too(tmp_path: Path) -> None:
    with SyncRivaASRClient(engine=WordEngine()) as client:
        path = tmp_path / "call.wav"
        path.write_bytes(wav(TALK, fmt(channels=2)))
        assert {final.channel for final in client.transcribe_file(path, stereo="split").finals} == {0, 1}
        events = client.stream_transcribe([TALK], channels=2, stereo="split")
        assert {event.channel for event in events if isinstance(event, Final)} == {0, 1}
        with pytest.raises(ASRError) as caught:
            list(client.stream_transcribe([TALK], channels=2, stereo="refuse"))
        assert caught.value.code is Code.BAD_AUDIO


async def test_real_words_of_both_sides_of_a_call(tmp_path: Path) -> None:
    clips = [speech.clip("greeting"), speech.clip("groceries")]
    length = max(len(clip.pcm) for clip in clips)
    both = woven(*(clip.pcm + bytes(length - len(clip.pcm)) for clip in clips))
    path = tmp_path / "call.wav"
    path.write_bytes(wav(both, fmt(channels=2)))
    async with RivaASRClient(engine="local") as client:
        transcript = await client.transcribe_file(path, stereo="split")
    for channel, clip in enumerate(clips):
        heard = " ".join(final.text for final in transcript.finals if final.channel == channel)
        assert speech.wer(clip.text, heard) <= clip.max_wer
