"""Nothing is changed: what reaches the recognizer through each face is what the client sent, and so are the words.

Each way in is a function that sends 16 kHz mono PCM16 as its dialect does, in pieces of odd sizes where it can be
cut, and returns the words that came back.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import httpx2
import numpy as np
import pytest
import soxr

from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from asr.riva_proto import audio as audio_pb
from evaluation.clips import Clip
from evaluation.scoring import score
from evaluation.sets import load_set, samples
from server.serve import Addresses
from word_engine import WordEngine

from .gateway import Session, running, session

Json = dict[str, Any]
SEED = 7
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CLIPS = ("clean/light", "noise_10db/paper", "telephone/light")
"""Short ones of three conditions, which the recognizer does not ponder over."""


def wav(pcm: bytes) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(pcm)
    return out.getvalue()


def golden_clips() -> list[tuple[Clip, bytes]]:
    """`CLIPS`, each with its sound as 16 kHz PCM16."""
    clips = {clip.id: clip for clip in load_set(GOLDEN).clips}
    return [(clips[name], _wide(samples(clips[name]), clips[name].sample_rate_hz)) for name in CLIPS]


def _wide(pcm: bytes, rate_hz: int) -> bytes:
    if rate_hz == 16_000:
        return pcm
    wide: bytes = soxr.resample(np.frombuffer(pcm, "<i2"), rate_hz, 16_000).astype("<i2").tobytes()
    return wide


def pieces(pcm: bytes) -> list[bytes]:
    chance = random.Random(SEED)
    cuts, at = [], 0
    while at < len(pcm):
        size = chance.choice((1, 2, 3, 319, 640, 3200, 3201, 9999))
        cuts.append(pcm[at : at + size])
        at += size
    return cuts


def encoded(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


async def until(talk: Session, is_last: Callable[[Json], bool]) -> list[Json]:
    told: list[Json] = []
    while not told or not is_last(told[-1]):
        told.append(await talk.message())
        assert told[-1].get("type") != "error", told[-1]
    return told


async def native(addresses: Addresses, pcm: bytes) -> str:
    async with session(addresses, "/v1/stream") as talk:
        await talk.say('{"type": "start", "language": "en-US"}')
        for piece in pieces(pcm):
            await talk.say(piece)
        await talk.say('{"type": "stop"}')
        told = await until(talk, lambda message: message["type"] == "summary")
    return " ".join(message["text"] for message in told if message["type"] == "final")


async def end(addresses: Addresses, pcm: bytes) -> str:
    async with session(addresses, "/ws") as talk:
        for piece in pieces(pcm):
            await talk.say(piece)
        await talk.say("END")
        told: list[Json] = []
        while (text := await talk.hear()) != "END":
            told.append(json.loads(text))
    return " ".join(message["text"] for message in told if message["is_final"])


async def nim_realtime(addresses: Addresses, pcm: bytes) -> str:
    async with session(addresses, "/v1/realtime?intent=transcription") as talk:
        assert (await talk.message())["type"] == "conversation.created"
        await talk.say('{"type": "transcription_session.update", "session": {"input_audio_format": "pcm16"}}')
        assert (await talk.message())["type"] == "transcription_session.updated"
        for piece in pieces(pcm):
            await talk.say(json.dumps({"type": "input_audio_buffer.append", "audio": encoded(piece)}))
        await talk.say('{"type": "input_audio_buffer.done"}')
        told = await until(talk, lambda message: message.get("is_last_result") is True)
    return _completed(told)


async def openai_realtime(addresses: Addresses, pcm: bytes) -> str:
    async with session(addresses, "/v1/realtime?dialect=openai") as talk:
        assert (await talk.message())["type"] == "session.created"
        audio = {"input": {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": None}}
        update = {"type": "session.update", "session": {"type": "transcription", "audio": audio}}
        await talk.say(json.dumps(update))
        assert (await talk.message())["type"] == "session.updated"
        for piece in pieces(pcm):
            await talk.say(json.dumps({"type": "input_audio_buffer.append", "audio": encoded(piece)}))
        await talk.say('{"type": "input_audio_buffer.commit"}')
        told = await until(talk, lambda message: message["type"].endswith("transcription.completed"))
    return _completed(told)


def _completed(told: list[Json]) -> str:
    done = [message for message in told if message["type"].endswith("transcription.completed")]
    return " ".join(message["transcript"] for message in done)


async def riva_streaming(addresses: Addresses, pcm: bytes) -> str:
    config = pb.RecognitionConfig(encoding=audio_pb.LINEAR_PCM, sample_rate_hertz=16_000, language_code="en-US")

    async def requests() -> AsyncIterator[Any]:
        yield pb.StreamingRecognizeRequest(streaming_config=pb.StreamingRecognitionConfig(config=config))
        for piece in pieces(pcm):
            yield pb.StreamingRecognizeRequest(audio_content=piece)

    async with grpc.aio.insecure_channel(f"127.0.0.1:{addresses.grpc_port}") as channel:
        call = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(requests())
        texts = [r.alternatives[0].transcript.strip() async for one in call for r in one.results if r.is_final]
    return " ".join(filter(None, texts))


async def riva_recognize(addresses: Addresses, pcm: bytes) -> str:
    config = pb.RecognitionConfig(encoding=audio_pb.LINEAR_PCM, sample_rate_hertz=16_000, language_code="en-US")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{addresses.grpc_port}") as channel:
        stub = asr_grpc.RivaSpeechRecognitionStub(channel)
        answer = await stub.Recognize(pb.RecognizeRequest(config=config, audio=pcm))
    return " ".join(result.alternatives[0].transcript.strip() for result in answer.results)


async def sagemaker_stream(addresses: Addresses, pcm: bytes) -> str:
    path = "/invocations-bidirectional-stream/v1/listen?encoding=linear16&sample_rate=16000"
    async with session(addresses, path) as talk:
        for piece in pieces(pcm):
            if not piece.startswith(b"{"):
                await talk.say(piece)
            else:  # so that it is not looked at as JSON
                await talk.say(piece[:1])
                await talk.say(piece[1:])
        await talk.say('{"type": "CloseStream"}')
        told: list[Json] = []
        while not (text := await talk.hear()).startswith("close"):
            told.append(json.loads(text))
    finals = [message for message in told if message.get("is_final") and message.get("text")]
    return " ".join(message["text"] for message in finals)


async def _post(addresses: Addresses, path: str, **what: Any) -> Any:
    async with httpx2.AsyncClient(base_url=addresses.url, timeout=60) as client:
        answer = await client.post(path, **what)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def openai_http(addresses: Addresses, pcm: bytes) -> str:
    files = {"file": ("a.wav", wav(pcm), "audio/wav")}
    body = await _post(addresses, "/v1/audio/transcriptions", files=files, data={"model": "whisper-1"})
    return str(body["text"])


async def rest_form(addresses: Addresses, pcm: bytes) -> str:
    return str((await _post(addresses, "/transcribe", files={"file": ("a.wav", wav(pcm))}))["text"])


async def rest_json(addresses: Addresses, pcm: bytes) -> str:
    body = {"audio": encoded(wav(pcm)), "filename": "a.wav"}
    return str((await _post(addresses, "/transcribe", json=body))["text"])


async def sagemaker(addresses: Addresses, pcm: bytes) -> str:
    body = await _post(addresses, "/invocations", content=wav(pcm), headers={"Content-Type": "audio/wav"})
    results = body["predictions"][0]["results"]
    return " ".join(result["alternatives"][0]["transcript"] for result in results)


async def job(addresses: Addresses, pcm: bytes) -> str:
    async with httpx2.AsyncClient(base_url=addresses.url, timeout=60) as client:
        made = await client.post("/transcribe/async", files={"file": ("a.wav", wav(pcm))})
        path = f"/jobs/{made.json()['job_id']}"
        async with asyncio.timeout(60):
            while (status := (await client.get(f"{path}/status")).json())["status"] in ("pending", "processing"):
                await asyncio.sleep(0.05)
        assert status["status"] == "completed", status
        return str((await client.get(f"{path}/result")).json()["text"])


WAYS: list[Callable[[Addresses, bytes], Awaitable[str]]] = [
    native,
    end,
    nim_realtime,
    openai_realtime,
    riva_streaming,
    riva_recognize,
    sagemaker_stream,
    openai_http,
    rest_form,
    rest_json,
    sagemaker,
    job,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_every_bit_reaches_the_recognizer(
    tmp_path: Path, way: Callable[[Addresses, bytes], Awaitable[str]]
) -> None:
    sent = random.Random(SEED).randbytes(2 * 33_333)
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses:
        words = await way(addresses, sent)
    assert engine.heard_bytes == sent
    assert words.split() == [f"w{n}" for n in range(1, 11)]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_same_words_and_errors_from_every_face_as_from_the_recognizer(tmp_path: Path) -> None:
    """Several conditions, through a gateway in front of a Riva: each face says what Riva says when asked itself.

    The Riva is another gateway's gRPC face with the embedded recognizer, so that what is said depends on the sound.
    """
    clips = golden_clips()
    async with running(None, tmp_path / "riva", asr_engine="local") as riva:
        direct = [await riva_streaming(riva, pcm) for _, pcm in clips]
        errors = [score(clip.text, words) for (clip, _), words in zip(clips, direct, strict=True)]
        assert all(one.words.hits for one in errors), "equal must not be equally nothing"
        # On a busy machine the embedded recognizer lags: neither is it full then, nor lost.
        patient = dict.fromkeys(("first_response", "stall", "call", "drain"), 60_000)
        upstream = {
            "riva_endpoints": f"127.0.0.1:{riva.grpc_port}",
            "riva_adaptive_limit": False,
            **{f"riva_{name}_timeout_ms": bound for name, bound in patient.items()},
        }
        async with running(None, tmp_path / "gateway", asr_engine="riva", **upstream) as gateway:
            for way in WAYS:
                heard = await asyncio.gather(*(way(gateway, pcm) for _, pcm in clips))
                assert [words.split() for words in heard] == [words.split() for words in direct], way.__name__
                scored = [score(clip.text, words) for (clip, _), words in zip(clips, heard, strict=True)]
                assert scored == errors, way.__name__
