"""Pipecat's NVIDIA speech services, unmodified, in a pipeline without a transport, on the Riva gRPC face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import speech
from asr.config import LocalConfig
from asr.engines.local import LocalEngine
from contract.clients import run_client, version_of
from contract.conformance import Conformance
from e2e.gateway import running

CLIENT = "pipecat-ai"

SCRIPT = """
import asyncio, json, sys, wave
from pipecat.frames.frames import (
    EndFrame, ErrorFrame, InputAudioRawFrame, InterimTranscriptionFrame, TranscriptionFrame,
    VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.nvidia.stt import NvidiaSegmentedSTTService, NvidiaSTTService
from pipecat.workers.runner import WorkerRunner

target, path, kind = sys.argv[1:4]

class Sink(FrameProcessor):
    def __init__(self):
        super().__init__()
        self.said, self.last = [], asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, (TranscriptionFrame, InterimTranscriptionFrame)):
            self.said.append([type(frame).__name__, frame.text, str(frame.language)])
            if "".join(t for n, t, _ in self.said if n == "TranscriptionFrame").count(" ") >= int(sys.argv[4]):
                self.last.set()
        elif isinstance(frame, ErrorFrame):
            self.said.append(["ErrorFrame", frame.error, ""])
            self.last.set()
        await self.push_frame(frame, direction)

async def main():
    if kind == "streaming":
        stt = NvidiaSTTService(
            server=target, use_ssl=False, sample_rate=16000,
            settings=NvidiaSTTService.Settings(boosted_lm_words=["calling"], word_time_offsets=True),
        )
    else:
        stt = NvidiaSegmentedSTTService(server=target, use_ssl=False, sample_rate=16000)
    sink = Sink()
    worker = PipelineWorker(
        Pipeline([stt, sink]), cancel_on_idle_timeout=False, enable_rtvi=False,
        params=PipelineParams(audio_in_sample_rate=16000),
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def on_started(worker, frame):
        started.set()

    async def drive():
        await asyncio.wait_for(started.wait(), 20)
        with wave.open(path) as file:
            pcm = file.readframes(file.getnframes())
        if kind == "streaming":
            pcm += bytes(32 * 1500)
        else:
            await worker.queue_frame(VADUserStartedSpeakingFrame())
            await asyncio.sleep(0.2)
        for at in range(0, len(pcm), 640):
            await worker.queue_frame(InputAudioRawFrame(audio=pcm[at:at + 640], sample_rate=16000, num_channels=1))
            await asyncio.sleep(0.002)
        if kind != "streaming":
            await asyncio.sleep(0.5)
            await worker.queue_frame(VADUserStoppedSpeakingFrame())
        try:
            await asyncio.wait_for(sink.last.wait(), 30)
        finally:
            await worker.queue_frame(EndFrame())

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), drive())
    print("RESULT " + json.dumps(sink.said))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["streaming", "segmented"])
async def test_a_speech_service_in_a_pipeline(kind: str, tmp_path: Path, conformance: Conformance) -> None:
    clip = speech.clip("greeting")
    words = len(clip.text.split())
    async with running(LocalEngine(LocalConfig(workers=1)), tmp_path) as addresses:
        target = f"localhost:{addresses.grpc_port}"
        printed = await run_client(SCRIPT, target, speech.path("greeting.wav"), kind, str(words - 2))
    result = next(line for line in printed.splitlines() if line.startswith("RESULT "))
    said: list[list[Any]] = json.loads(result.removeprefix("RESULT "))
    finals = [text for name, text, _ in said if name == "TranscriptionFrame"]
    assert {name for name, *_ in said} <= {"TranscriptionFrame", "InterimTranscriptionFrame"}
    assert speech.wer(clip.text, " ".join(finals)) <= clip.max_wer
    if kind == "streaming":
        assert any(name == "InterimTranscriptionFrame" for name, *_ in said)
    service = "NvidiaSTTService" if kind == "streaming" else "NvidiaSegmentedSTTService"
    conformance.record(
        dialect="Riva gRPC",
        client=CLIENT,
        version=version_of(CLIENT),
        exercised=f"{service} in a pipeline: audio frames in, transcription frames out",
    )
