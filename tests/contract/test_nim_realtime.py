"""NVIDIA's own realtime client (`riva.client.realtime`), used as its command-line scripts use it, on `/v1/realtime`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import speech
from asr.config import LocalConfig
from asr.engine import Features
from asr.engines.local import LocalEngine
from contract.clients import run_client, version_of
from contract.conformance import Conformance
from e2e.command import Shell, wait_for
from e2e.gateway import running
from word_engine import WordEngine

CLIENT = "nvidia-riva-client"
DIALECT = "NIM realtime"
KEY = "mint-key-1"

SCRIPT = """
import argparse, asyncio, json, sys
import riva.client
from riva.client.argparse_utils import (
    add_asr_config_argparse_parameters, add_connection_argparse_parameters, add_realtime_config_argparse_parameters,
)
from riva.client.realtime import RealtimeClientASR

parser = argparse.ArgumentParser()
parser.add_argument("--input-file")
parser.add_argument("--mic", action="store_true")
parser.add_argument("--pause", type=float, default=0)
parser.add_argument("--force-eou-at", type=int, default=-1)
parser.add_argument("--sample-rate-hz", type=int, default=16000)
parser.add_argument("--num-channels", type=int, default=1)
parser.add_argument("--chunk-frames", type=int, default=1600)
parser.add_argument("--prompt", default="")
parser.add_argument("--output-text")
parser = add_connection_argparse_parameters(parser)
parser = add_asr_config_argparse_parameters(
    parser, max_alternatives=True, profanity_filter=True, word_time_offsets=True
)
parser = add_realtime_config_argparse_parameters(parser)
args = parser.parse_args()

class Microphone:
    # What an audio device gives: samples without a header, as time passes.
    def __init__(self, path):
        self.data = open(path, "rb").read()[44:]
    async def __aiter__(self):
        for at in range(0, len(self.data), args.chunk_frames * 2):
            yield self.data[at:at + args.chunk_frames * 2]
            await asyncio.sleep(args.pause)

events = []

async def main():
    client = RealtimeClientASR(args)
    await client.connect()
    receive = client.websocket.recv
    async def seen(*a, **k):
        message = await receive(*a, **k)
        events.append(json.loads(message))
        return message
    client.websocket.recv = seen
    chosen = client.websocket.subprotocol
    chunks = Microphone(args.input_file) if args.mic else riva.client.AudioChunkFileIterator(
        args.input_file, args.chunk_frames
    )
    forced = (number == args.force_eou_at for number in range(10**9)) if args.force_eou_at >= 0 else None
    sent, received = await asyncio.gather(
        client.send_audio_chunks(chunks, forced), client.receive_responses(), return_exceptions=True
    )
    if received or (sent and events[-1]["type"] != "error"):
        raise received or sent  # after an error the connection is closed, and the client may not know when it sends
    if args.output_text:
        client.save_responses(args.output_text)
    await client.disconnect()
    print("RESULT " + json.dumps([client.final_transcript, events, chosen, client.session_config]))

asyncio.run(main())
"""


class Outcome:
    """What the client kept, and the events that it read after the session was set up."""

    def __init__(self, printed: str) -> None:
        line = next(line for line in printed.splitlines() if line.startswith("RESULT "))
        self.kept, self.events, self.subprotocol, self.session = json.loads(line.removeprefix("RESULT "))
        self.table = printed.partition("RESULT ")[0]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"].endswith(kind)]

    @property
    def joined(self) -> str:
        """As clients have it that join all `completed` events."""
        return " ".join(event["transcript"] for event in self.of("completed") if event["transcript"])


async def transcribe(port: int, clip: str, *arguments: str | Path) -> Outcome:
    given = ("--server", f"localhost:{port}", "--input-file", speech.path(clip), *arguments)
    return Outcome(await run_client(SCRIPT, *given))


@pytest.fixture(scope="module")
def version() -> str:
    return version_of(CLIENT)


async def test_file_is_whole_in_the_last_event_and_in_all_of_them(
    tmp_path: Path, conformance: Conformance, version: str
) -> None:
    clip = speech.clip("two_sentences")
    saved = tmp_path / "text.txt"
    async with running(LocalEngine(LocalConfig(workers=1)), tmp_path) as addresses:
        outcome = await transcribe(
            addresses.port, "two_sentences.wav", "--word-time-offsets", "--output-text", saved, "--chunk-frames", "777"
        )
    assert speech.wer(clip.text, outcome.kept) <= clip.max_wer
    assert outcome.joined == outcome.kept == saved.read_text()
    deltas = "".join(event["delta"] for event in outcome.of("delta"))
    assert speech.wer(outcome.kept, deltas) <= 0.3  # guesses, which the end may put right
    words = outcome.of("completed")[-1]["words_info"]["words"]
    assert " ".join(word["word"] for word in words) == outcome.kept
    times = [(word["start_time"], word["end_time"]) for word in words]
    assert times == sorted(times)
    assert times[-1][1] <= clip.duration_ms
    assert "Words Info:" in outcome.table
    assert outcome.subprotocol == "realtime"
    conformance.record(
        dialect=DIALECT, client=CLIENT, version=version, exercised="realtime: a file, word offsets, text saved"
    )


@pytest.mark.parametrize("clip", ["greeting_44k_stereo.wav", "greeting_8k.wav", "greeting.flac"])
async def test_files_of_other_kinds(tmp_path: Path, clip: str) -> None:
    async with running(LocalEngine(LocalConfig(workers=1)), tmp_path) as addresses:
        outcome = await transcribe(addresses.port, clip)
    expected = speech.clip("greeting")
    assert speech.wer(expected.text, outcome.kept) <= max(expected.max_wer, 0.34)


async def test_microphone_gets_each_utterance_when_it_ends(
    tmp_path: Path, conformance: Conformance, version: str
) -> None:
    clip = speech.clip("two_sentences")
    async with running(LocalEngine(LocalConfig(workers=1)), tmp_path) as addresses:
        outcome = await transcribe(addresses.port, "two_sentences.wav", "--mic", "--pause", "0.02")
    completed = outcome.of("completed")
    assert [event["is_last_result"] for event in completed] == [False] * (len(completed) - 1) + [True]
    assert len(completed) >= 2
    assert len({event["item_id"] for event in completed}) == len(completed)
    assert speech.wer(clip.text, outcome.joined) <= clip.max_wer
    for event in completed:
        deltas = "".join(d["delta"] for d in outcome.of("delta") if d["item_id"] == event["item_id"])
        assert speech.wer(event["transcript"] or "-", deltas or "-") <= 0.4
    conformance.record(dialect=DIALECT, client=CLIENT, version=version, exercised="realtime: a microphone, pauses")


async def test_silence_ends_as_well(tmp_path: Path) -> None:
    async with running(LocalEngine(LocalConfig(workers=1)), tmp_path) as addresses:
        for mode in ([], ["--mic"]):
            outcome = await transcribe(addresses.port, "silence.wav", *mode)
            assert [(e["transcript"], e["is_last_result"]) for e in outcome.of("completed")] == [("", True)]


async def test_forced_end_of_an_utterance(tmp_path: Path, conformance: Conformance, version: str) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        outcome = await transcribe(addresses.port, "greeting.wav", "--mic", "--force-eou-at", "3")
    assert outcome.of("completed")[0]["transcript"] == "w1 w2"
    assert outcome.joined.split() == [f"w{n}" for n in range(1, len(outcome.joined.split()) + 1)]
    conformance.record(dialect=DIALECT, client=CLIENT, version=version, exercised="realtime: force_eou")


class Recording(WordEngine):
    """Remembers what it was asked for, and can do everything."""

    asked: Any = None

    @property
    def features(self) -> Features:
        return Features(**dict.fromkeys(Features.__dataclass_fields__, True))

    def stream(self, audio: Any, options: Any) -> Any:
        self.asked = options
        return super().stream(audio, options)


async def test_every_option_of_the_command_line_arrives_and_so_does_each_byte(
    tmp_path: Path, conformance: Conformance, version: str
) -> None:
    engine = Recording()
    flags = (
        *("--mic", "--chunk-frames", "333", "--language-code", "en-GB", "--model-name", "words-en"),
        *("--automatic-punctuation", "--profanity-filter", "--word-time-offsets", "--max-alternatives", "1"),
        *("--boosted-lm-words", "Aoife", "--boosted-lm-words", "Zyntriq", "--boosted-lm-score", "10"),
        *("--speaker-diarization", "--diarization-max-speakers", "3"),
        *("--stop-history", "700", "--stop-threshold", "0.9"),
        *("--custom-configuration", "neural_vad.onset:0.85,enable_vad_endpointing:true"),
    )
    async with running(engine, tmp_path) as addresses:
        outcome = await transcribe(addresses.port, "greeting.wav", *flags)
    asked = engine.asked
    assert engine.heard_bytes == speech.pcm("greeting")
    assert (asked.language, asked.model) == ("en-GB", "words-en")
    assert (asked.punctuate, asked.profanity_filter, asked.words) == (True, True, True)
    assert [(phrase.text, phrase.raw_boost) for phrase in asked.phrases] == [("Aoife", 10.0), ("Zyntriq", 10.0)]
    assert asked.diarization.max_speakers == 3
    assert (asked.endpointing.silence_ms, asked.endpointing.stop_threshold) == (700, 0.9)
    assert asked.endpointing.start_ms is None
    assert dict(asked.upstream_options) == {"neural_vad.onset": "0.85", "enable_vad_endpointing": "true"}
    assert outcome.session["input_audio_transcription"]["model"] == "words-en"
    conformance.record(
        dialect=DIALECT, client=CLIENT, version=version, exercised="realtime: every option, PCM unchanged"
    )


async def test_failure_ends_the_client_and_does_not_leave_it_waiting(tmp_path: Path) -> None:
    async with running(WordEngine("unavailable@600"), tmp_path) as addresses:
        outcome = await transcribe(addresses.port, "greeting.wav", "--mic")
    assert outcome.events[-1]["error"]["message"] == "The recognizer went away."


async def test_with_a_mint_key_only_those_who_have_it_come_in(
    tmp_path: Path, conformance: Conformance, version: str
) -> None:
    shell = Shell(tmp_path, {"REALTIME_AUTH_MINT_API_KEY": KEY})
    arguments = ("serve", "--engine", "mock", "--no-tls", "--port", "0", "--grpc-port", "off")
    with shell.start(*arguments) as gateway:
        port = int(wait_for(gateway, r"http://[^:]+:(\d+)").group(1))
        outcome = await transcribe(port, "greeting.wav", "--mint-api-key", KEY)
        assert outcome.kept
        assert outcome.joined == outcome.kept
        with pytest.raises(AssertionError, match="requires an API key"):
            await transcribe(port, "greeting.wav")
        with pytest.raises(AssertionError, match="was rejected by the server"):
            await transcribe(port, "greeting.wav", "--mint-api-key", "wrong")
    conformance.record(dialect=DIALECT, client=CLIENT, version=version, exercised="realtime: mint API key, token")
