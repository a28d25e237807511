"""LiveKit's NVIDIA speech plugin, unmodified and without a room, on the Riva gRPC face."""

from __future__ import annotations

import json
from pathlib import Path

import speech
from asr.config import LocalConfig
from asr.engines.local import LocalEngine
from contract.clients import run_client, version_of
from contract.conformance import Conformance
from e2e.gateway import running

CLIENT = "livekit-plugins-nvidia"

SCRIPT = """
import asyncio, json, sys, wave
from livekit import rtc
from livekit.agents import stt as agents_stt
from livekit.plugins import nvidia

target, path = sys.argv[1:3]

async def main():
    stt = nvidia.STT(server=target, use_ssl=False)
    with wave.open(path) as file:
        pcm = file.readframes(file.getnframes())
    pcm += bytes(32 * 1500)
    stream = stt.stream()
    said = []

    async def read():
        async for event in stream:
            said.append([event.type.value, event.alternatives[0].text if event.alternatives else "",
                         event.alternatives[0].start_time if event.alternatives else 0,
                         event.alternatives[0].end_time if event.alternatives else 0])

    reading = asyncio.create_task(read())
    for at in range(0, len(pcm), 3200):
        piece = pcm[at:at + 3200]
        stream.push_frame(rtc.AudioFrame(piece, 16000, 1, len(piece) // 2))
        await asyncio.sleep(0.01)
    stream.end_input()
    await asyncio.wait_for(reading, 30)
    await stream.aclose()
    print("RESULT " + json.dumps([stt.model if hasattr(stt, "model") else "", said]))

asyncio.run(main())
"""


async def test_the_speech_plugin_streams(tmp_path: Path, conformance: Conformance) -> None:
    clip = speech.clip("two_sentences")
    async with running(LocalEngine(LocalConfig(workers=1)), tmp_path) as addresses:
        # Asked for nothing, it names a model of NVIDIA's cloud.
        printed = await run_client(SCRIPT, f"localhost:{addresses.grpc_port}", speech.path("two_sentences.wav"))
    result = next(line for line in printed.splitlines() if line.startswith("RESULT "))
    _, said = json.loads(result.removeprefix("RESULT "))
    kinds = [kind for kind, *_ in said]
    assert kinds[0] == "start_of_speech"
    assert "interim_transcript" in kinds
    assert kinds[-1] == "end_of_speech"
    finals = [event for event in said if event[0] == "final_transcript"]
    assert len(finals) >= 2
    assert speech.wer(clip.text, " ".join(text for _, text, *_ in finals)) <= clip.max_wer
    ends = [end for *_, end in finals]
    assert ends == sorted(ends)
    assert 0 < ends[-1] <= clip.duration_ms / 1000
    conformance.record(
        dialect="Riva gRPC",
        client=CLIENT,
        version=version_of(CLIENT),
        exercised="STT stream: interim and final transcripts with times, its default cloud model name",
    )
