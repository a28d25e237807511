"""boto3's SageMaker runtime, unmodified, through a stand-in of the service: the recipes of the documents."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from asr.mock.plan import MockPlan, load_plan
from contract.clients import run, run_client, version_of
from contract.conformance import Conformance
from contract.sagemaker_service import ATTRIBUTES, service
from e2e.gateway import running
from e2e.test_sagemaker import wav
from server.standin import Standin

CLIENT = "boto3"
BOUNDARY = "----WebKitFormBoundary0F9C3A"
NAME = "X-Amzn-SageMaker-Custom-Attributes"

SCRIPT = """
import json, sys
import boto3
from botocore.config import Config

url, path, arguments = sys.argv[1:4]
runtime = boto3.client(
    "sagemaker-runtime", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y",
    config=Config(proxies={}, retries={"max_attempts": 1}, read_timeout=60),
)
try:
    with open(path, "rb") as body:
        answer = runtime.invoke_endpoint(EndpointName="nim-asr-combined-endpoint", Body=body, **json.loads(arguments))
    result = {
        "body": json.loads(answer["Body"].read()), "attributes": answer.get("CustomAttributes"),
        "type": answer["ContentType"],
    }
except runtime.exceptions.ModelError as error:
    result = {"said": str(error), "status": error.response["OriginalStatusCode"]}
print(json.dumps(result))
"""

# The shell lines that the documents build their payload with.
PAYLOAD = r"""
set -eu
{
  printf "%s\r\n" "--$BOUNDARY"
  printf "%s\r\n" "Content-Disposition: form-data; name=\"file\"; filename=\"test.wav\""
  printf "%s\r\n\r\n" "Content-Type: audio/wav"
  cat "$AUDIO"
  printf "\r\n%s\r\n" "--$BOUNDARY"
  printf "%s\r\n\r\n" "Content-Disposition: form-data; name=\"language_code\""
  printf "%s\r\n" "en-US"
  if [ -n "$SPEAKERS" ]; then
    printf "\r\n%s\r\n" "--$BOUNDARY"
    printf "%s\r\n\r\n" "Content-Disposition: form-data; name=\"speaker_diarization\""
    printf "%s\r\n" "true"
    printf "\r\n%s\r\n" "--$BOUNDARY"
    printf "%s\r\n\r\n" "Content-Disposition: form-data; name=\"max_speakers\""
    printf "%s\r\n" "$SPEAKERS"
  fi
  printf "%s\r\n" "--$BOUNDARY--"
} > "$MP"
"""


def plan(**keys: Any) -> MockPlan:
    two = [{"words": ["hello", "there"], "speaker": 0}, {"words": ["good", "day"], "speaker": 1}]
    return load_plan({"hears": "clock", "loop": False, "utterances": two} | keys)


async def payload(folder: Path, *, speakers: str = "", audio: bytes | None = None) -> Path:
    (folder / "test.wav").write_bytes(audio if audio is not None else wav())
    made = folder / "asr_diarization.bin"
    env = {"BOUNDARY": BOUNDARY, "AUDIO": str(folder / "test.wav"), "MP": str(made), "SPEAKERS": speakers}
    (await run("bash", "-c", PAYLOAD, env=env)).ok()
    return made


async def invoke(
    nim: Standin | None, folder: Path, body: Path, **arguments: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """What the client got, and the headers that it had sent."""
    more: dict[str, object] = {}
    if nim is not None:
        address = nim.address
        more = {"nim_host": "127.0.0.1", "riva_grpc_port": address.grpc_port, "nim_http_port": address.http_port}
    arguments = {"ContentType": f"multipart/form-data; boundary={BOUNDARY}", **arguments}
    async with running(None, folder, **more) as gateway, service(gateway.url) as between:
        printed = await run_client(SCRIPT, between.url, body, json.dumps(arguments))
        return json.loads(printed), between.seen[0]


def transcript(result: dict[str, Any]) -> str:
    (prediction,) = result["body"]["predictions"]
    return " ".join(one["alternatives"][0]["transcript"] for one in prediction["results"])


def record(conformance: Conformance, exercised: str) -> None:
    conformance.record(dialect="SageMaker", client=CLIENT, version=version_of(CLIENT), exercised=exercised)


@pytest.mark.parametrize(
    ("attributes", "speakers", "route"),
    [
        ("", "", "transport=http"),
        ("", "4", "transport=grpc;engine=riva"),
        (f"{NAME}=/invocations/http", "", "transport=http"),
        (f"{NAME}=/invocations/grpc", "", "transport=grpc;engine=riva"),
        (f"{NAME}=/invocations/grpc", "4", "transport=grpc;engine=riva"),
        ("/invocations/http", "", "transport=http"),
        ("/invocations/grpc", "", "transport=grpc;engine=riva"),
        ("transport=grpc", "", "transport=grpc;engine=riva"),
    ],
)
async def test_the_recipes_of_the_documents(
    tmp_path: Path, conformance: Conformance, attributes: str, speakers: str, route: str
) -> None:
    arguments = {"CustomAttributes": attributes} if attributes else {}
    async with Standin(plan()) as nim:
        result, sent = await invoke(nim, tmp_path, await payload(tmp_path, speakers=speakers), **arguments)
    assert sent.get(ATTRIBUTES, "") == attributes
    assert transcript(result) == "hello there good day"
    assert result["attributes"] == route
    assert result["type"] == "application/json"
    if speakers:
        results = result["body"]["predictions"][0]["results"]
        words = [word for one in results for word in one["alternatives"][0]["words"]]
        assert set(words[0]) == {"word", "start_time", "end_time", "confidence", "speaker_tag"}
        assert words[0]["speaker_tag"] != words[-1]["speaker_tag"]
    record(conformance, "invoke_endpoint: the multipart payload of the recipes; both routes, forced in every spelling")


@pytest.mark.parametrize("kind", ["json", "raw"])
async def test_the_other_bodies(tmp_path: Path, conformance: Conformance, kind: str) -> None:
    body = tmp_path / "body"
    content = {"audio": base64.b64encode(wav()).decode(), "language_code": "en-US"}
    body.write_bytes(json.dumps(content).encode() if kind == "json" else wav())
    media_type = "application/json" if kind == "json" else "audio/wav"
    async with Standin(plan()) as nim:
        result, _ = await invoke(nim, tmp_path, body, ContentType=media_type)
    assert transcript(result) == "hello there good day"
    record(conformance, "invoke_endpoint: JSON with base64, and the recording itself")


@pytest.mark.parametrize(
    ("size", "status", "words"),
    [(26 * 1024 * 1024, 413, "asynchronous endpoint"), (1_000, 400, "speaker_diarization")],
)
async def test_a_model_error_tells_what_was_wrong(
    tmp_path: Path, conformance: Conformance, size: int, status: int, words: str
) -> None:
    made = await payload(tmp_path, speakers="4", audio=wav(size))
    if status == 400:
        content = await asyncio.to_thread(made.read_bytes)
        made.write_bytes(content.replace(b"\r\n\r\ntrue\r\n", b"\r\n\r\nperhaps\r\n"))
    result, _ = await invoke(None, tmp_path, made)
    assert result["status"] == status
    assert words in result["said"]
    assert f"({status})" in result["said"]
    record(conformance, "ModelError: the gateway's sentence reaches the caller")
