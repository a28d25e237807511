"""OpenAI's SDKs, and the speech services of Pipecat and LiveKit for OpenAI, unmodified, on `/v1/realtime`.

All of them speak to the embedded recognizer: the words must be those that the plain `/ws` gives for the same clip.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

import speech
from asr.config import LocalConfig
from asr.engines.local import LocalEngine
from contract import node_clients as npm
from contract.clients import node, run, run_client, version_of
from contract.conformance import Conformance
from e2e.gateway import running, session
from server.serve import Addresses

CLIP = "two_sentences"
TAIL_MS = 1_500
"""Silence behind the clip, so that its last turn ends by itself."""


@pytest.fixture
def clip24(tmp_path: Path) -> Path:
    """The clip as 24 kHz PCM16, without a header."""
    samples = np.frombuffer(speech.pcm(CLIP) + speech.silence(TAIL_MS), "<i2").astype(np.float32) / 32768
    louder = np.clip(np.rint(soxr.resample(samples, 16_000, 24_000, "VHQ") * 32768), -32768, 32767)
    path = tmp_path / "clip24.pcm"
    path.write_bytes(louder.astype("<i2").tobytes())
    return path


def local() -> LocalEngine:
    return LocalEngine(LocalConfig(workers=1))


async def plainly(addresses: Addresses) -> list[str]:
    """What `/ws` makes of the clip: its finals."""
    async with session(addresses, "/ws") as client:
        for start in range(0, len(pcm := speech.pcm(CLIP) + speech.silence(TAIL_MS)), 3200):
            await client.say(pcm[start : start + 3200])
        await client.say("END")
        finals = []
        while (text := await client.answer()) != "END":
            message = json.loads(text)
            if message["is_final"]:
                finals.append(message["text"])
    return finals


def result(printed: str) -> Any:
    return json.loads(next(line for line in printed.splitlines() if line.startswith("{")))


SDK = """
import asyncio, base64, json, sys
from openai import AsyncOpenAI

base_url, path, kind, dialect, turns = sys.argv[1:6]
audio = open(path, "rb").read()
TURNS = {"commit": None, "server_vad": {"type": "server_vad"}}[kind]
NESTED = {"type": "transcription", "audio": {"input": {
    "format": {"type": "audio/pcm", "rate": 24000},
    "transcription": {"model": "gpt-4o-transcribe", "language": "en"}, "turn_detection": TURNS}}}
FLAT = {"input_audio_format": "pcm16", "turn_detection": TURNS,
        "input_audio_transcription": {"model": "gpt-4o-transcribe", "language": "en"}}

async def main():
    # The beta's client goes to wss without being told.
    client = AsyncOpenAI(
        base_url=base_url, api_key="sk-anything", websocket_base_url=base_url.replace("http", "ws", 1)
    )
    if dialect == "ga":
        secret = await client.realtime.client_secrets.create(session=NESTED)
        client = AsyncOpenAI(base_url=base_url, api_key=secret.value)
        realtime = client.realtime
        update = {"type": "session.update", "session": NESTED}
    else:
        await client.beta.realtime.transcription_sessions.create(input_audio_format="pcm16")
        realtime = client.beta.realtime
        update = {"type": "transcription_session.update", "session": FLAT}
    told = {"types": [], "classes": [], "transcripts": {}, "deltas": {}, "audio": [], "usage": 0.0, "error": None}
    async with realtime.connect(model="gpt-4o-transcribe", extra_query={"intent": "transcription"}) as connection:
        async def answer(*kinds):
            while True:
                event = await asyncio.wait_for(connection.recv(), 30)
                told["types"].append(event.type)
                told["classes"].append(type(event).__name__)
                name = event.type.rpartition(".")[2]
                if name == "delta":
                    told["deltas"][event.item_id] = told["deltas"].get(event.item_id, "") + event.delta
                elif name == "completed":
                    told["transcripts"][event.item_id] = event.transcript
                    told["usage"] += event.usage.seconds
                elif name == "speech_started":
                    told["audio"].append(event.audio_start_ms)
                elif name == "speech_stopped":
                    told["audio"].append(event.audio_end_ms)
                if event.type == "error" or event.type in kinds:
                    return event

        await answer("session.created", "transcription_session.created")
        await connection.send(update)
        updated = await answer("session.updated", "transcription_session.updated")
        told["session"] = updated.session.to_dict()
        half = len(audio) // 2 // 9600 * 9600 if kind == "commit" else len(audio)
        for piece in (audio, audio[:half]) if kind == "commit" else (audio,):
            for at in range(0, len(piece), 9600):
                await connection.input_audio_buffer.append(audio=base64.b64encode(piece[at:at + 9600]).decode())
            if kind == "commit":
                await connection.input_audio_buffer.commit()
                await answer("conversation.item.input_audio_transcription.completed")
            else:
                for _ in range(int(turns)):
                    await answer("conversation.item.input_audio_transcription.completed")
        await connection.input_audio_buffer.clear()
        await answer("input_audio_buffer.cleared")
        await connection.send({"type": "input_audio_buffer.commit", "event_id": "mine"})
        error = await answer("error")
        told["error"] = [error.error.code, error.error.event_id]
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("kind", ["commit", "server_vad"])
async def test_the_python_sdk(dialect: str, kind: str, tmp_path: Path, clip24: Path, conformance: Conformance) -> None:
    async with running(local(), tmp_path) as addresses:
        plain = await plainly(addresses)
        told = result(await run_client(SDK, f"{addresses.url}/v1", clip24, kind, dialect, str(len(plain))))
    created = ["session.created"] if dialect == "ga" else ["transcription_session.created"]
    assert told["types"][:2] == [*created, created[0].replace("created", "updated")]
    assert not [name for name in told["classes"] if "Unknown" in name]
    texts = list(told["transcripts"].values())
    assert told["error"] == ["input_audio_buffer_commit_empty", "mine"]
    if kind == "commit":
        assert texts[0] == " ".join(plain)
        assert len(texts) == 2
        assert told["usage"] == pytest.approx(1.5 * clip24.stat().st_size / 48_000, abs=0.25)
    else:
        assert texts == plain
        assert len(texts) >= 2
        assert told["audio"] == sorted(told["audio"])
        assert told["types"].count("input_audio_buffer.speech_started") == len(texts)
        assert told["types"].count("input_audio_buffer.speech_stopped") == len(texts)
    for item, text in told["transcripts"].items():
        assert told["deltas"].get(item, "").split()[: len(text.split())] != [] or not text
    item_events = ["conversation.item.added", "conversation.item.done"]
    for event in item_events if dialect == "ga" else ["conversation.item.created"]:
        assert told["types"].count(event) == len(texts)
    conformance.record(
        dialect="OpenAI realtime" if dialect == "ga" else "OpenAI realtime, beta",
        client="openai (Python)",
        version=version_of("openai"),
        exercised=f"session minted, {kind}, deltas, several items, clear, errors: the words of /ws",
    )


@pytest.mark.parametrize("kind", ["ga", "beta"])
async def test_the_node_sdk(
    kind: str, tmp_path: Path, clip24: Path, node_clients: Path, conformance: Conformance
) -> None:
    async with running(local(), tmp_path, tls=True) as addresses:
        trusted = {"NODE_EXTRA_CA_CERTS": str(next(tmp_path.rglob("*.crt")))}
        ran = await run(node(), node_clients / "realtime.mjs", f"{addresses.url}/v1", clip24, kind, env=trusted)
    told = result(ran.ok())
    clip = speech.clip(CLIP)
    assert speech.wer(clip.text, told["transcript"]) <= clip.max_wer
    assert told["text"].split()
    assert told["usage"]["type"] == "duration"
    conformance.record(
        dialect="OpenAI realtime" if kind == "ga" else "OpenAI realtime, beta",
        client="openai (Node.js)",
        version=npm.version_of("openai"),
        exercised="OpenAIRealtimeWS over TLS: session, append, commit, deltas, completed",
    )


LIVEKIT = """
import asyncio, json, sys
from livekit import rtc
from livekit.agents.utils import http_context
from livekit.plugins import openai

base_url, path, words = sys.argv[1:4]
audio = open(path, "rb").read()

async def main():
    said, last = [], asyncio.Event()
    async with http_context.open():
        stt = openai.STT(
            base_url=base_url, api_key="sk-anything", model="gpt-4o-mini-transcribe", language="en", use_realtime=True,
        )
        stream = stt.stream()

        async def read():
            async for event in stream:
                text = event.alternatives[0].text if event.alternatives else ""
                said.append([event.type.value, text])
                heard = " ".join(text for kind, text in said if kind == "final_transcript")
                if event.type.value == "recognition_usage" and len(heard.split()) >= int(words):
                    last.set()

        reading = asyncio.create_task(read())
        for at in range(0, len(audio), 4800):
            piece = audio[at:at + 4800]
            stream.push_frame(rtc.AudioFrame(piece, 24000, 1, len(piece) // 2))
            await asyncio.sleep(0.02)
        await asyncio.wait_for(last.wait(), 30)
        stream.end_input()
        reading.cancel()
        await stream.aclose()
        await stt.aclose()
    print(json.dumps({"said": said}))

asyncio.run(main())
"""


async def test_livekits_speech_plugin(tmp_path: Path, clip24: Path, conformance: Conformance) -> None:
    async with running(local(), tmp_path) as addresses:
        plain = await plainly(addresses)
        words = len(" ".join(plain).split()) - 1
        said = result(await run_client(LIVEKIT, f"{addresses.url}/v1", clip24, str(words)))["said"]
    finals = [text for kind, text in said if kind == "final_transcript"]
    kinds = [kind for kind, _ in said]
    assert kinds[0] == "start_of_speech"
    assert {"interim_transcript", "end_of_speech", "recognition_usage"} <= set(kinds)
    assert speech.wer(" ".join(plain), " ".join(finals)) <= 0.1  # its turns end after 350 ms
    conformance.record(
        dialect="OpenAI realtime",
        client="livekit-plugins-openai",
        version=version_of("livekit-plugins-openai"),
        exercised="STT stream with server_vad: start and end of speech, interim and final transcripts",
    )


PIPECAT = """
import asyncio, json, sys
from pipecat.frames.frames import (
    EndFrame, ErrorFrame, InputAudioRawFrame, InterimTranscriptionFrame, TranscriptionFrame,
    ProposedUserStartedSpeakingFrame, ProposedUserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner

base_url, path, kind, words = sys.argv[1:5]
audio = open(path, "rb").read()

class Sink(FrameProcessor):
    def __init__(self):
        super().__init__()
        self.said, self.last = [], asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        kinds = (TranscriptionFrame, InterimTranscriptionFrame, ErrorFrame, ProposedUserStartedSpeakingFrame,
                 ProposedUserStoppedSpeakingFrame)
        if isinstance(frame, kinds):
            self.said.append([type(frame).__name__, getattr(frame, "text", "") or getattr(frame, "error", "")])
            heard = " ".join(text for name, text in self.said if name == "TranscriptionFrame")
            if isinstance(frame, ErrorFrame) or len(heard.split()) >= int(words):
                self.last.set()
        await self.push_frame(frame, direction)

async def main():
    turns = {"type": "server_vad"} if kind == "server_vad" else False
    stt = OpenAIRealtimeSTTService(api_key="sk-anything", base_url=base_url, turn_detection=turns)
    sink = Sink()
    worker = PipelineWorker(
        Pipeline([stt, sink]), cancel_on_idle_timeout=False, enable_rtvi=False,
        params=PipelineParams(audio_in_sample_rate=24000),
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def on_started(worker, frame):
        started.set()

    async def drive():
        await asyncio.wait_for(started.wait(), 20)
        if kind != "server_vad":
            await worker.queue_frame(VADUserStartedSpeakingFrame())
        for at in range(0, len(audio), 4800):
            await worker.queue_frame(InputAudioRawFrame(audio=audio[at:at + 4800], sample_rate=24000, num_channels=1))
            await asyncio.sleep(0.01)
        if kind != "server_vad":
            await asyncio.sleep(0.5)
            await worker.queue_frame(VADUserStoppedSpeakingFrame())
        try:
            await asyncio.wait_for(sink.last.wait(), 30)
        finally:
            await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), drive())
    print(json.dumps({"said": sink.said}))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["commit", "server_vad"])
async def test_pipecats_speech_service(kind: str, tmp_path: Path, clip24: Path, conformance: Conformance) -> None:
    async with running(local(), tmp_path) as addresses:
        plain = await plainly(addresses)
        base_url = f"{addresses.url}/v1/realtime".replace("http", "ws", 1)
        words = len(" ".join(plain).split()) - 1
        said = result(await run_client(PIPECAT, base_url, clip24, kind, str(words)))["said"]
    names = {name for name, _ in said}
    finals = [text for name, text in said if name == "TranscriptionFrame"]
    assert "ErrorFrame" not in names
    assert "InterimTranscriptionFrame" in names
    assert speech.wer(" ".join(plain), " ".join(finals)) <= 0.05
    if kind == "server_vad":
        assert {"ProposedUserStartedSpeakingFrame", "ProposedUserStoppedSpeakingFrame"} <= names
    else:
        assert len(finals) == 1
    conformance.record(
        dialect="OpenAI realtime",
        client="pipecat-ai",
        version=version_of("pipecat-ai"),
        exercised=f"OpenAIRealtimeSTTService in a pipeline, {kind}",
    )
