"""Pipecat's SageMaker speech services, unmodified, over a stand-in of the service's two-way streaming.

The AWS package that Pipecat's client stands on needs a newer Python and speaks to AWS alone. Its place is taken by a
module of the same names that does what the service does: each payload part becomes a WebSocket frame for the
container, binary unless it is said to be UTF8, and each frame of the container becomes a payload part.
"""

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

AWS = """
import asyncio, json, sys, types, wave
from dataclasses import dataclass
from unittest.mock import MagicMock
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

container, path, kind, least = sys.argv[1:5]

@dataclass
class Part:
    bytes_: bytes
    data_type: str | None = None
    completion_state: str | None = None

@dataclass
class Event:
    value: Part

@dataclass
class Input:
    endpoint_name: str
    model_invocation_path: str | None = None
    model_query_string: str | None = None

class Stream:
    def __init__(self, socket):
        self.socket, self.input_stream = socket, self

    async def await_output(self):
        return None, self

    async def send(self, event):
        part = event.value
        await self.socket.send(part.bytes_.decode() if part.data_type == "UTF8" and not BINARY else part.bytes_)

    async def receive(self):
        try:
            frame = await self.socket.recv()
        except ConnectionClosed:
            return None
        return Event(Part(frame.encode() if isinstance(frame, str) else frame, "UTF8"))

    async def close(self):
        await self.socket.close()

class Client:
    def __init__(self, config):
        pass

    async def invoke_endpoint_with_bidirectional_stream(self, asked):
        headers = {
            "X-Amzn-SageMaker-Model-Invocation-Path": asked.model_invocation_path,
            "X-Amzn-SageMaker-Model-Query-String": asked.model_query_string,
        }
        given = {name: value for name, value in headers.items() if value}
        return Stream(await connect(container, additional_headers=given, proxy=None))

def module(name, **content):
    made = types.ModuleType(name)
    made.__dict__.update(content)
    sys.modules[name] = made

BINARY = kind == "nvidia-binary"
module("aws_sdk_sagemaker_runtime_http2")
module("aws_sdk_sagemaker_runtime_http2.client", SageMakerRuntimeHTTP2Client=Client)
module("aws_sdk_sagemaker_runtime_http2.config", Config=lambda **_: None)
module(
    "aws_sdk_sagemaker_runtime_http2.models",
    InvokeEndpointWithBidirectionalStreamInput=Input, InvokeEndpointWithBidirectionalStreamOutput=object,
    RequestPayloadPart=Part, RequestStreamEvent=object, RequestStreamEventPayloadPart=Event,
    ResponseStreamEvent=object, ResponseStreamEventPayloadPart=Event,
)
module("smithy_aws_core")
module("smithy_aws_core.identity", EnvironmentCredentialsResolver=lambda: None)
for name in ("smithy_core", "smithy_core.aio"):
    module(name)
class DuplexEventStream:
    def __class_getitem__(cls, item):
        return cls
module("smithy_core.aio.eventstream", DuplexEventStream=DuplexEventStream)
# The hosted service's own client, which this service's settings come from a module beside; it is never called.
for name in ("", ".core", ".core.events", ".listen", ".listen.v1", ".listen.v1.types"):
    sys.modules["deepgram" + name] = MagicMock()
sys.modules["deepgram.core"].ApiError = type("ApiError", (Exception,), {})
"""

SCRIPT = """
from pipecat.frames.frames import (
    EndFrame, ErrorFrame, InputAudioRawFrame, InterimTranscriptionFrame, TranscriptionFrame,
    VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.workers.runner import WorkerRunner

class Sink(FrameProcessor):
    def __init__(self):
        super().__init__()
        self.said, self.last = [], asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, (TranscriptionFrame, InterimTranscriptionFrame)):
            self.said.append([type(frame).__name__, frame.text])
            if " ".join(t for n, t in self.said if n == "TranscriptionFrame").count(" ") >= int(least):
                self.last.set()
        elif isinstance(frame, ErrorFrame):
            self.said.append(["ErrorFrame", frame.error])
            self.last.set()
        await self.push_frame(frame, direction)

async def main():
    if kind == "deepgram":
        from pipecat.services.deepgram.sagemaker.stt import DeepgramSageMakerSTTService
        stt = DeepgramSageMakerSTTService(endpoint_name="x", region="us-east-2", sample_rate=16000)
    else:
        from pipecat.services.nvidia.sagemaker.stt import NvidiaSageMakerSTTService
        stt = NvidiaSageMakerSTTService(endpoint_name="x", sample_rate=16000)
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
            pcm = file.readframes(file.getnframes()) + bytes(32 * (300 if kind == "deepgram" else 1500))
        await asyncio.sleep(0.5)
        await worker.queue_frame(VADUserStartedSpeakingFrame())
        for at in range(0, len(pcm), 640):
            await worker.queue_frame(InputAudioRawFrame(audio=pcm[at:at + 640], sample_rate=16000, num_channels=1))
            await asyncio.sleep(0.002)
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


@pytest.mark.parametrize("kind", ["nvidia", "nvidia-binary", "deepgram"])
async def test_a_sagemaker_speech_service_in_a_pipeline(kind: str, tmp_path: Path, conformance: Conformance) -> None:
    clip = speech.clip("greeting")
    words = len(clip.text.split())
    async with running(LocalEngine(LocalConfig(workers=1)), tmp_path) as addresses:
        container = f"ws://127.0.0.1:{addresses.port}/invocations-bidirectional-stream"
        printed = await run_client(AWS + SCRIPT, container, speech.path("greeting.wav"), kind, str(words - 2))
    result = next(line for line in printed.splitlines() if line.startswith("RESULT "))
    said: list[list[Any]] = json.loads(result.removeprefix("RESULT "))
    assert {name for name, _ in said} == {"TranscriptionFrame", "InterimTranscriptionFrame"}, said
    finals = [text for name, text in said if name == "TranscriptionFrame"]
    assert speech.wer(clip.text, " ".join(finals)) <= clip.max_wer
    service = "DeepgramSageMakerSTTService" if kind == "deepgram" else "NvidiaSageMakerSTTService"
    conformance.record(
        dialect="SageMaker two-way stream",
        client=CLIENT,
        version=version_of(CLIENT),
        exercised=f"{service} in a pipeline, its AWS package replaced by a stand-in of the service",
    )
