"""Clients as their makers publish them, at a gateway that asks for a key: each shows it where its own documents say so.

What they do with a gateway is tested elsewhere, in the files whose scripts are used here; this is about coming in.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import speech
from contract import test_livekit, test_nim_realtime, test_openai_realtime, test_pipecat
from contract.clients import run, run_client
from e2e.gateway import running
from keyring import Keyring
from server.access.grants import CLIENT_SCOPES, Scope
from server.serve import Addresses
from word_engine import WordEngine

CLIP = speech.path("greeting.wav")
SAYS = "w1 w2"
"""How everything begins that the recognizer of these tests says."""

OPENAI_HTTP = """
import sys
from openai import AuthenticationError, OpenAI

for key in sys.argv[3:1:-1]:
    client = OpenAI(base_url=sys.argv[1], api_key=key, max_retries=0)
    try:
        with open(sys.argv[4], "rb") as file:
            print(client.audio.transcriptions.create(file=file, model="whisper-1").text)
        print(client.models.list().data[0].id)
    except AuthenticationError as error:
        print(error.status_code, error.code)
"""

RIVA = """
import sys
import grpc, riva.client

target, key, path = sys.argv[1:4]
for metadata in ([], [["authorization", f"Bearer {key}"]]):
    service = riva.client.ASRService(riva.client.Auth(uri=target, metadata_args=metadata))
    config = riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1)
    streaming = riva.client.StreamingRecognitionConfig(config=config, interim_results=False)
    try:
        print(service.offline_recognize(open(path, "rb").read(), config).results[0].alternatives[0].transcript)
        with riva.client.AudioChunkFileIterator(path, 1600) as chunks:
            for response in service.streaming_response_generator(chunks, streaming):
                print(response.results[0].alternatives[0].transcript)
    except grpc.RpcError as error:
        print(error.code().name)
"""


def shown(script: str, here: str, key: str) -> str:
    """The script of another test, with the key where this client takes it."""
    assert here in script
    return script.replace(
        here, here.replace('"sk-anything"', f'"{key}"').replace("use_ssl", f'api_key="{key}", use_ssl')
    )


async def openai_http(addresses: Addresses, key: str, folder: Path) -> None:
    said = await run_client(OPENAI_HTTP, f"{addresses.url}/v1", key, "sk-wrong", CLIP)
    lines = said.splitlines()
    assert lines[0] == "401 unauthorized"
    assert lines[1].startswith(SAYS)
    assert lines[2] == "words-en"


async def openai_realtime(addresses: Addresses, key: str, folder: Path) -> None:
    pcm = folder / "clip24.pcm"
    pcm.write_bytes(bytes(48_000))
    for dialect in ("ga", "beta"):
        script = shown(test_openai_realtime.SDK, 'api_key="sk-anything"', key)
        told = test_openai_realtime.result(await run_client(script, f"{addresses.url}/v1", pcm, "commit", dialect, "0"))
        assert next(iter(told["transcripts"].values())).startswith(SAYS)


async def nim_realtime(addresses: Addresses, key: str, folder: Path) -> None:
    given = ("--server", f"localhost:{addresses.port}", "--input-file", CLIP)
    with pytest.raises(AssertionError, match="requires an API key"):
        await run_client(test_nim_realtime.SCRIPT, *given)
    outcome = test_nim_realtime.Outcome(await run_client(test_nim_realtime.SCRIPT, *given, "--mint-api-key", key))
    assert outcome.kept.startswith(SAYS)


async def riva_grpc(addresses: Addresses, key: str, folder: Path) -> None:
    lines = (await run_client(RIVA, f"localhost:{addresses.grpc_port}", key, CLIP)).splitlines()
    assert lines[0] == "UNAUTHENTICATED"
    assert len(lines) >= 3
    assert lines[1].startswith(SAYS)
    assert lines[2].startswith(SAYS)


async def pipecat_nvidia(addresses: Addresses, key: str, folder: Path) -> None:
    script = shown(test_pipecat.SCRIPT, "server=target, use_ssl=False", key)
    printed = await run_client(script, f"localhost:{addresses.grpc_port}", CLIP, "streaming", "1")
    assert any(kind == "TranscriptionFrame" and text.startswith(SAYS) for kind, text, _ in result(printed))


async def livekit_nvidia(addresses: Addresses, key: str, folder: Path) -> None:
    script = shown(test_livekit.SCRIPT, "server=target, use_ssl=False", key)
    _, said = result(await run_client(script, f"localhost:{addresses.grpc_port}", CLIP))
    assert any(kind == "final_transcript" and text.startswith(SAYS) for kind, text, *_ in said)


async def curl(addresses: Addresses, key: str, folder: Path) -> None:
    for header in (f"Authorization: Bearer {key}", f"X-API-Key: {key}"):
        ran = await run("curl", "-sS", f"{addresses.url}/transcribe", "-H", header, "-F", f"file=@{CLIP}")
        assert SAYS in ran.ok()


def result(printed: str) -> list[list[str]]:
    """What a script found out."""
    line = next(line for line in printed.splitlines() if line.startswith("RESULT "))
    found: list[list[str]] = json.loads(line.removeprefix("RESULT "))
    return found


async def test_every_client_comes_in_with_a_key(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("clients", CLIENT_SCOPES | {Scope.MINT})
    clients = (openai_http, openai_realtime, nim_realtime, riva_grpc, pipecat_nvidia, livekit_nvidia, curl)
    settings: dict[str, object] = {"auth": "on", "api_keys_file": ring.path}
    async with running(WordEngine(), tmp_path / "state", **settings) as addresses, asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client(addresses, key, tmp_path), name=client.__name__)
