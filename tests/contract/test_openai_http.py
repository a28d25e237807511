"""OpenAI's own SDKs, and curl as the documents show it, against `/v1/audio/transcriptions`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import sound
import speech
from asr.engines.mock import MockEngine
from asr.errors import ASRError, Code
from contract import node_clients
from contract.clients import ROOT, SYSTEMS, node, run, run_client, version_of
from contract.conformance import Conformance
from e2e.gateway import running
from server.serve import Addresses
from word_engine import WordEngine

CLIP = speech.path("two_sentences.wav")
KEY = "sk-anything"

# Everything that one script finds out, as one JSON object on its last line.
FORMATS = """
import json, sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
ask = client.audio.transcriptions.create
found = {}
with open(sys.argv[3], "rb") as file:
    def call(**more):
        file.seek(0)
        return ask(file=file, model="whisper-1", **more)
    plain = call(language="en", prompt="Riva, NIM", temperature=0)
    found["json"] = [type(plain).__name__, plain.text, plain.usage.type, plain.usage.seconds]
    for kind in ("text", "srt", "vtt"):
        found[kind] = call(response_format=kind)
    verbose = call(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    found["verbose"] = [
        type(verbose).__name__, verbose.language, verbose.duration, verbose.text,
        [(w.word, w.start, w.end) for w in verbose.words], [(s.id, s.start, s.end, s.text) for s in verbose.segments],
    ]
    words = call(response_format="verbose_json", timestamp_granularities=["word"])
    found["only words"] = [words.segments, len(words.words)]
    diarized = call(response_format="diarized_json", chunking_strategy="auto")
    found["diarized"] = [type(diarized).__name__, [(s.speaker, s.start, s.text) for s in diarized.segments]]
    vad = {"type": "server_vad", "silence_duration_ms": 500, "threshold": 0.5}
    raw = client.audio.transcriptions.with_raw_response.create(
        file=("a.wav", open(sys.argv[3], "rb").read()), model="gpt-4o-transcribe", chunking_strategy=vad,
        include=["logprobs"],
    )
    found["notes"] = raw.headers.get_list("riva-gateway-note")
found["models"] = [model.id for model in client.models.list()]
found["model"] = client.models.retrieve(found["models"][0]).id
print(json.dumps(found))
"""

STREAM = """
import asyncio, json, sys
from openai import AsyncOpenAI, OpenAI
url, key, path = sys.argv[1:4]
client = OpenAI(base_url=url, api_key=key, max_retries=0)
events = [event for event in client.audio.transcriptions.create(
    file=open(path, "rb"), model="gpt-4o-mini-transcribe", stream=True)]
async def turns():
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        stream = await client.audio.transcriptions.create(
            file=open(path, "rb"), model="gpt-4o-transcribe-diarize", response_format="diarized_json", stream=True)
        return [event.type async for event in stream]
print(json.dumps({
    "kinds": sorted({event.type for event in events[:-1]}), "joined": "".join(e.delta for e in events[:-1]),
    "last": events[-1].type, "text": events[-1].text, "used": events[-1].usage.seconds, "turns": asyncio.run(turns()),
}))
"""

ERRORS = """
import json, sys
import openai
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=10)
def failure(call):
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code, error.param, error.type, error.body["message"]]
ask = client.audio.transcriptions.create
wav = open(sys.argv[3], "rb").read()
print(json.dumps({
    "not audio": failure(lambda: ask(file=("a.wav", b"a letter, no recording" * 9), model="whisper-1")),
    "empty": failure(lambda: ask(file=("a.wav", b""), model="whisper-1")),
    "format": failure(lambda: ask(file=("a.wav", wav), model="whisper-1", response_format="docx")),
    "model": failure(lambda: ask(file=("a.wav", wav), model="tiny")),
    "language": failure(lambda: ask(file=("a.wav", wav), model="whisper-1", language="tlh")),
    "large": failure(lambda: ask(file=("a.wav", bytes(3_000_000)), model="whisper-1")),
    "translation": failure(lambda: client.audio.translations.create(file=("a.wav", wav), model="whisper-1")),
    "no model": failure(lambda: client.models.retrieve("tiny")),
    "stream": failure(lambda: ask(file=("a.wav", b"a letter" * 9), model="whisper-1", stream=True)),
}))
"""

PATIENCE = """
import json, sys, time
import openai
url, key, path = sys.argv[1:4]
client = openai.OpenAI(base_url=url, api_key=key)
with open(path, "rb") as file:
    text = client.audio.transcriptions.create(file=file, model="whisper-1").text
print(json.dumps({"text": text}))
"""

BROKEN = """
import json, sys
import openai
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=2)
stream = client.audio.transcriptions.create(file=open(sys.argv[3], "rb"), model="whisper-1", stream=True)
seen = []
try:
    for event in stream:
        seen.append(event.type)
    ended = "ended"
except openai.APIError as error:
    ended = [error.code, error.message]
print(json.dumps({"seen": sorted(set(seen)), "ended": ended}))
"""

TIMEOUT = """
import json, sys
import openai
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=1.0)
try:
    client.audio.transcriptions.create(file=open(sys.argv[3], "rb"), model="whisper-1")
    found = "answered"
except openai.APITimeoutError:
    found = "timeout"
print(json.dumps({"found": found}))
"""


async def found(script: str, addresses: Addresses, path: Path = CLIP, **env: str) -> dict[str, Any]:
    """What a script prints on its last line."""
    out = await run_client(script, f"{addresses.url}/v1", KEY, path, env=env)
    told: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return told


def version() -> str:
    return version_of("openai")


async def test_the_python_sdk_in_every_format(tmp_path: Path, conformance: Conformance) -> None:
    async with running(MockEngine(), tmp_path) as addresses:
        told = await found(FORMATS, addresses)
    kind, text, usage, seconds = told["json"]
    assert (kind, usage) == ("Transcription", "duration")
    assert text.startswith("Good morning, you are listening")
    assert seconds == pytest.approx(6.81, abs=0.01)
    assert told["text"] == text + "\n"
    assert re.match(r"1\n00:00:00,\d+ --> 00:00:0", told["srt"])
    assert told["vtt"].startswith("WEBVTT\n\n00:00:00.")
    kind, language, duration, whole, words, segments = told["verbose"]
    assert (kind, language, duration, whole) == ("TranscriptionVerbose", "english", seconds, text)
    assert words[0][0] == "Good"
    assert all(0 <= start <= end <= duration for _, start, end in words)
    assert "".join(segment[3] for segment in segments) == text
    assert told["only words"] == [None, len(words)]
    assert told["diarized"][0] == "TranscriptionDiarized"
    assert told["diarized"][1][0][0] == "A"
    assert any("threshold" in note for note in told["notes"])
    assert any("log probabilities" in note for note in told["notes"])
    assert told["model"] == told["models"][0]
    conformance.record(
        dialect="OpenAI HTTP",
        client="openai (Python)",
        version=version(),
        exercised="transcriptions: json, text, srt, vtt, verbose_json, diarized_json, granularities; models",
    )


async def test_the_python_sdk_streams(tmp_path: Path, conformance: Conformance) -> None:
    async with running(MockEngine(), tmp_path, tls=True) as addresses:
        told = await found(STREAM, addresses, SSL_CERT_FILE=str(tmp_path / "tls" / "localhost.crt"))
    assert told["kinds"] == ["transcript.text.delta"]
    assert told["last"] == "transcript.text.done"
    assert told["joined"] == told["text"]
    assert told["used"] == pytest.approx(6.81, abs=0.01)
    assert {"transcript.text.segment", "transcript.text.delta"} == set(told["turns"][:-1])
    assert told["turns"][-1] == "transcript.text.done"
    conformance.record(
        dialect="OpenAI HTTP",
        client="openai (Python)",
        version=version(),
        exercised="transcriptions with stream=True: text, turns; over TLS",
    )


async def test_the_python_sdk_reads_every_error(tmp_path: Path, conformance: Conformance) -> None:
    async with running(MockEngine(), tmp_path, max_upload_bytes=1_000_000) as addresses:
        told = await found(ERRORS, addresses)
    wrong, invalid = "BadRequestError", "invalid_request_error"
    assert told["not audio"][:5] == [wrong, 400, "bad_audio", "file", invalid]
    assert told["empty"][:5] == [wrong, 400, "bad_audio", "file", invalid]
    assert told["format"][:5] == [wrong, 400, "bad_request", "response_format", invalid]
    assert told["model"][:5] == ["NotFoundError", 404, "not_found", "model", invalid]
    assert told["language"][:5] == ["NotFoundError", 404, "not_found", "language", invalid]
    assert told["large"][:3] == ["APIStatusError", 413, "too_large"]
    assert told["translation"][:3] == [wrong, 400, "unsupported"]
    assert told["no model"][:3] == ["NotFoundError", 404, "not_found"]
    assert told["stream"][:3] == [wrong, 400, "bad_audio"]
    assert all(error[5].endswith(".") for error in told.values())
    conformance.record(
        dialect="OpenAI HTTP", client="openai (Python)", version=version(), exercised="errors: 400, 404, 413, in words"
    )


class Filling(WordEngine):
    """Full for the first that comes."""

    turned_away = False

    def refusal(self) -> ASRError | None:
        if self.turned_away:
            return None
        self.turned_away = True
        return ASRError(Code.OVERLOADED, "The recognizer is full.", retry_after_ms=1)


async def test_the_python_sdk_comes_again_and_gives_up_in_time(tmp_path: Path, conformance: Conformance) -> None:
    clip = tmp_path / "a.wav"
    clip.write_bytes(sound.wav(bytes(64_000)))
    engine = Filling()
    async with running(engine, tmp_path) as addresses:
        assert (await found(PATIENCE, addresses, clip))["text"].startswith("w1 w2")
    assert engine.turned_away
    engine = Filling("hang@1000")
    engine.turned_away = True
    async with running(engine, tmp_path) as addresses:
        assert (await found(TIMEOUT, addresses, clip))["found"] == "timeout"
        async with asyncio.timeout(10):
            while engine.open_streams:
                await asyncio.sleep(0.02)
    async with running(WordEngine("unavailable@1000"), tmp_path) as addresses:
        told = await found(BROKEN, addresses, clip)
    assert told["seen"] == ["transcript.text.delta"]
    assert told["ended"] == ["unavailable", "The recognizer went away."]
    conformance.record(
        dialect="OpenAI HTTP",
        client="openai (Python)",
        version=version(),
        exercised="comes again after 503, times out, hears of a stream that breaks",
    )


async def test_the_node_sdk(tmp_path: Path, conformance: Conformance) -> None:
    folder = await asyncio.to_thread(node_clients.install)
    async with running(MockEngine(), tmp_path, tls=True) as addresses:
        trusted = {"NODE_EXTRA_CA_CERTS": str(tmp_path / "tls" / "localhost.crt")}
        ran = await run(node(), folder / "transcriptions.mjs", f"{addresses.url}/v1", KEY, CLIP, env=trusted)
    told = json.loads(ran.ok())
    text, usage = told["json"]
    assert text.startswith("Good morning, you are listening")
    assert usage == {"type": "duration", "seconds": 6.81}
    assert told["text"] == text + "\n"
    assert told["srt"].startswith("1\n00:00:00,")
    assert told["vtt"].startswith("WEBVTT")
    assert told["verbose"] == ["english", 18, text]
    assert told["diarized"] == "A"
    joined, done = told["stream"]
    assert joined == done["text"] == text
    assert done["usage"] == usage
    assert told["models"]
    assert told["error"] == [400, "bad_audio", "file", "invalid_request_error"]
    conformance.record(
        dialect="OpenAI HTTP",
        client="openai (Node.js)",
        version=node_clients.version_of("openai"),
        exercised="transcriptions in every format, stream, granularities, chunking, errors; models",
    )


@contextlib.asynccontextmanager
async def documented(tmp_path: Path) -> AsyncIterator[list[list[str]]]:
    """The document's curl lines, made for a gateway that runs."""
    text = (ROOT / "docs" / "http-api.md").read_text("utf-8")
    blocks = re.findall(r"^    curl .*(?:(?<=\\)\n.*)*", text, re.MULTILINE)
    async with running(MockEngine(), tmp_path) as addresses:
        lines = []
        for block in blocks:
            words = shlex.split(block.replace("\\\n", " "))
            words = [word.replace("https://localhost:8443", addresses.url) for word in words]
            lines.append([word.replace("@talk.wav", f"@{CLIP}") for word in words if word not in ("-k", "--insecure")])
        yield lines


async def test_curl_as_the_document_shows_it(tmp_path: Path, conformance: Conformance) -> None:
    async with documented(tmp_path) as lines:
        assert len(lines) >= 5
        answers = [
            (await run("curl", "--noproxy", "*", "--fail-with-body", "-sS", *line[1:], patience_s=20)).ok()
            for line in lines
        ]
    assert all(answers)
    assert any("transcript.text.done" in answer for answer in answers)
    assert any(answer.startswith("WEBVTT") for answer in answers)
    conformance.record(
        dialect="OpenAI HTTP",
        client="curl",
        version=SYSTEMS,
        exercised="every line of docs/http-api.md, as it stands there",
    )
