"""NVIDIA's own `nvidia-riva-client`, as a library in a process of its own, on the Riva gRPC face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sound
import speech
from asr.channels import ChannelsEngine
from asr.config import LocalConfig
from asr.engines.local import LocalEngine
from asr.engines.mock import MockEngine
from contract.clients import run_client, version_of
from contract.conformance import Conformance
from e2e.gateway import running

CLIENT = "nvidia-riva-client"

COMMON = """
import json, sys
import riva.client
from riva.client.proto import riva_asr_pb2

target, path = sys.argv[1:3]
service = riva.client.ASRService(riva.client.Auth(uri=target, metadata_args=[["function-id", "1598d209"]]))

def words_of(results):
    return [
        {"text": r.alternatives[0].transcript, "final": getattr(r, "is_final", True), "tag": r.channel_tag,
         "processed": r.audio_processed, "readings": len(r.alternatives),
         "words": [[w.word, w.start_time, w.end_time, w.speaker_tag] for w in r.alternatives[0].words]}
        for r in results
    ]
"""

STREAM = (
    COMMON
    + """
config = riva.client.StreamingRecognitionConfig(
    config=riva.client.RecognitionConfig(
        language_code="en-US", max_alternatives=1, enable_automatic_punctuation=True, verbatim_transcripts=True,
        enable_word_time_offsets=True,
    ),
    interim_results=True,
)
riva.client.add_word_boosting_to_config(config, ["calling"], 20.0)
riva.client.add_speaker_diarization_to_config(config, True, 2)
riva.client.add_endpoint_parameters_to_config(config, -1, -1.0, 600, -1, -1.0, -1.0)
riva.client.add_custom_configuration_to_config(config, "get_vad_probabilities:true")
found = []
with riva.client.AudioChunkFileIterator(path, 1600) as chunks:
    for response in service.streaming_response_generator(chunks, config):
        found += words_of(response.results)
print(json.dumps(found))
"""
)

PRINTED = (
    COMMON
    + """
config = riva.client.StreamingRecognitionConfig(config=riva.client.RecognitionConfig(), interim_results=True)
with riva.client.AudioChunkFileIterator(path, 1600) as chunks:
    riva.client.print_streaming(
        service.streaming_response_generator(chunks, config), show_intermediate=True, additional_info="confidence"
    )
"""
)

OFFLINE = (
    COMMON
    + """
config = riva.client.RecognitionConfig(enable_word_time_offsets=True, max_alternatives=2)
riva.client.add_audio_file_specs_to_config(config, path)
config.enable_separate_recognition_per_channel = len(sys.argv) > 3
with open(path, "rb") as file:
    data = file.read()
once = service.offline_recognize(data, config)
later = service.offline_recognize(data, config, future=True).result()
assert once == later, (once, later)
print(json.dumps(words_of(once.results)))
"""
)

MODELS = (
    COMMON
    + """
answer = service.stub.GetRivaSpeechRecognitionConfig(riva_asr_pb2.RivaSpeechRecognitionConfigRequest())
print(json.dumps([[m.model_name, dict(m.parameters)] for m in answer.model_config]))
"""
)

LIVE = (
    COMMON
    + """
def requests():
    config = riva.client.StreamingRecognitionConfig(
        config=riva.client.RecognitionConfig(encoding=1, sample_rate_hertz=16000), interim_results=False
    )
    first = riva_asr_pb2.StreamingRecognizeRequest(streaming_config=config)
    first.id.value = "call-7"
    yield first
    with open(path, "rb") as file:
        pcm = file.read()[44:]
    for at in range(0, len(pcm), 3200):
        yield riva_asr_pb2.StreamingRecognizeRequest(audio_content=pcm[at:at + 3200])
    yield riva_asr_pb2.StreamingRecognizeRequest(runtime_config={"force_eou": "true"})

answers = list(service.stub.StreamingRecognize(requests()))
print(json.dumps([[a.id.value, words_of(a.results)] for a in answers]))
"""
)


def text_of(results: list[dict[str, Any]]) -> str:
    return "".join(result["text"] for result in results if result["final"])


@pytest.fixture
async def target(tmp_path: Path) -> Any:
    async with running(LocalEngine(LocalConfig(workers=1)), tmp_path) as addresses:
        yield f"localhost:{addresses.grpc_port}"


async def test_streaming_with_every_helper_of_the_library(target: str, conformance: Conformance) -> None:
    clip = speech.clip("two_sentences")
    found = json.loads(await run_client(STREAM, target, speech.path("two_sentences.wav")))
    assert speech.wer(clip.text, text_of(found)) <= clip.max_wer
    finals = [result for result in found if result["final"]]
    assert len(finals) >= 2
    assert any(not result["final"] for result in found)
    assert [r["processed"] for r in found] == sorted(r["processed"] for r in found)
    times = [word[1:3] for result in finals for word in result["words"]]
    assert times == sorted(times)
    assert times[-1][1] <= clip.duration_ms
    printed = await run_client(PRINTED, target, speech.path("two_sentences.wav"))
    for result in finals:
        assert result["text"].strip() in printed
    conformance.record(
        dialect="Riva gRPC",
        client=CLIENT,
        version=version_of(CLIENT),
        exercised="streaming_response_generator with word times, boosting, diarization, endpointing, custom "
        "configuration; print_streaming",
    )


async def test_whole_recordings(target: str, conformance: Conformance) -> None:
    clip = speech.clip("greeting")
    for name in ("greeting.wav", "greeting_8k.wav", "greeting.flac"):
        found = json.loads(await run_client(OFFLINE, target, speech.path(name)))
        assert speech.wer(clip.text, text_of(found)) <= max(clip.max_wer, 0.3 if "8k" in name else 0.0), name
        assert found[0]["words"]
    conformance.record(
        dialect="Riva gRPC",
        client=CLIENT,
        version=version_of(CLIENT),
        exercised="offline_recognize, also as a future: WAV, FLAC, 8 kHz",
    )


async def test_a_call_with_a_speaker_on_each_channel(tmp_path: Path, conformance: Conformance) -> None:
    left, right = (np.frombuffer(speech.pcm(name), "<i2") for name in ("greeting", "names"))
    both = np.zeros((max(len(left), len(right)), 2), "<i2")
    both[: len(left), 0], both[: len(right), 1] = left, right
    path = tmp_path / "call.wav"
    path.write_bytes(sound.wav(both.tobytes(), sound.fmt(channels=2)))
    engine = ChannelsEngine(LocalEngine(LocalConfig(workers=1)))
    async with running(engine, tmp_path) as addresses:
        found = json.loads(await run_client(OFFLINE, f"localhost:{addresses.grpc_port}", path, "separate"))
    for tag, name in ((1, "greeting"), (2, "names")):
        clip = speech.clip(name)
        assert speech.wer(clip.text, text_of([r for r in found if r["tag"] == tag])) <= clip.max_wer
    conformance.record(
        dialect="Riva gRPC",
        client=CLIENT,
        version=version_of(CLIENT),
        exercised="offline_recognize of a stereo call, enable_separate_recognition_per_channel",
    )


async def test_models_request_ids_and_forced_ends(target: str, conformance: Conformance) -> None:
    rows = json.loads(await run_client(MODELS, target, ""))
    assert {row[1]["type"] for row in rows} == {"online", "offline"}
    assert {row[1]["language_code"] for row in rows} == {"en-US"}
    answers = json.loads(await run_client(LIVE, target, speech.path("greeting.wav")))
    clip = speech.clip("greeting")
    assert {answer[0] for answer in answers} == {"call-7"}
    assert speech.wer(clip.text, text_of([r for _, results in answers for r in results])) <= clip.max_wer
    conformance.record(
        dialect="Riva gRPC",
        client=CLIENT,
        version=version_of(CLIENT),
        exercised="GetRivaSpeechRecognitionConfig; request ids; runtime_config force_eou",
    )


async def test_speakers_and_alternatives_where_the_recognizer_has_them(tmp_path: Path) -> None:
    async with running(MockEngine(), tmp_path) as addresses:
        target = f"localhost:{addresses.grpc_port}"
        found = json.loads(await run_client(STREAM, target, speech.path("two_sentences.wav")))
    tags = {word[3] for result in found if result["final"] for word in result["words"]}
    assert tags
    assert all(isinstance(tag, int) for tag in tags)
