"""A two-way stream to a SageMaker endpoint: a WAV file is spoken at the pace of speech, and words come back meanwhile.

    python3.12 -m venv two-way && two-way/bin/pip install 'aws-sdk-sagemaker-runtime-http2[awscrt]~=0.12.0'
    two-way/bin/python scripts/sagemaker/two_way.py --endpoint riva-riva --region us-east-1 talk.wav

The package needs Python 3.12 or newer, and AWS calls it an early version; boto3 and the aws command have no such call.
It finds credentials as they do. The caller needs the right sagemaker:InvokeEndpointWithBidirectionalStream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import wave
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

CHUNK_MS = 100
OPEN_TIMEOUT_S = 30.0
QUIET_TIMEOUT_S = 60.0
"""So long nothing may come before the stream is given up."""


def read_pcm(path: Path) -> tuple[bytes, int, int]:
    """Samples (PCM16), rate in Hz and number of channels of a WAV file."""
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise SystemExit(f"{path}: not PCM16. Convert it: ffmpeg -i {path.name} -ar 16000 -ac 1 talk.wav")
        return file.readframes(file.getnframes()), file.getframerate(), file.getnchannels()


def query_of(rate_hz: int, channels: int, language: str) -> str:
    """What the stream is to be: read by the container from its query."""
    said = {"encoding": "linear16", "sample_rate": rate_hz, "channels": channels, "language": language}
    return urlencode({**said, "interim_results": "true"})


def show(message: dict[str, Any]) -> str | None:
    """A line for people, or None where a message has no words."""
    if "ModelStreamError" in message:
        error = message["ModelStreamError"]
        raise SystemExit(f"the endpoint: {error['ErrorCode']}: {error['Message']}")
    if message.get("type") == "Warning":
        return f"! {message['message']}"
    if message.get("type") != "Results" or not message["text"]:
        return None
    return f"{'=' if message['is_final'] else '…'} {message['text']}"


async def connect(region: str) -> Any:
    """AWS's client."""
    if sys.version_info < (3, 12):
        raise SystemExit("AWS's package needs Python 3.12 or newer. Run this with python3.12.")
    try:
        from aws_sdk_sagemaker_runtime_http2.client import AsyncSageMakerRuntimeHTTP2Client
        from aws_sdk_sagemaker_runtime_http2.config import AsyncSageMakerRuntimeHTTP2Config
        from smithy_http.aio.crt import AWSCRTHTTPClient
    except ImportError as error:
        raise SystemExit(
            f"{error.name} is missing: pip install 'aws-sdk-sagemaker-runtime-http2[awscrt]~=0.12.0'"
        ) from None
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    config = await AsyncSageMakerRuntimeHTTP2Config.resolve(
        region=region,
        endpoint_uri=f"https://runtime.sagemaker.{region}.{domain}:8443",
        transport=AWSCRTHTTPClient(),  # the usual one of the package knows no HTTP/2
    )
    return AsyncSageMakerRuntimeHTTP2Client(config)


async def talk(region: str, endpoint: str, path: Path, language: str) -> None:
    """Send the file and print what comes back."""
    client = await connect(region)
    from aws_sdk_sagemaker_runtime_http2.models import (
        InvokeEndpointWithBidirectionalStreamInput,
        RequestPayloadPart,
        RequestStreamEventPayloadPart,
    )

    pcm, rate_hz, channels = read_pcm(path)
    asked = InvokeEndpointWithBidirectionalStreamInput(
        endpoint_name=endpoint,
        model_invocation_path="v1/listen",
        model_query_string=query_of(rate_hz, channels, language),
    )
    stream = await asyncio.wait_for(client.invoke_endpoint_with_bidirectional_stream(asked), OPEN_TIMEOUT_S)
    _, answers = await asyncio.wait_for(stream.await_output(), OPEN_TIMEOUT_S)

    async def send(data: bytes, data_type: str) -> None:
        part = RequestPayloadPart(bytes_=data, data_type=data_type)
        await stream.input_stream.send(RequestStreamEventPayloadPart(value=part))

    async def speak() -> None:
        step = rate_hz * channels * 2 * CHUNK_MS // 1000
        for start in range(0, len(pcm), step):
            await send(pcm[start : start + step], "BINARY")
            await asyncio.sleep(CHUNK_MS / 1000)
        await send(json.dumps({"type": "CloseStream"}).encode(), "UTF8")

    speaking = asyncio.create_task(speak())
    try:
        while (event := await asyncio.wait_for(answers.receive(), QUIET_TIMEOUT_S)) is not None:
            message = json.loads(event.value.bytes_)
            if (line := show(message)) is not None:
                print(line, flush=True)
            if message.get("type") == "Metadata":
                break
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        await stream.close()


def main() -> None:
    """The command line."""
    flags = argparse.ArgumentParser(description="Speak a WAV file to a SageMaker endpoint and read along.")
    flags.add_argument("file", type=Path)
    flags.add_argument("--endpoint", required=True)
    flags.add_argument("--region", required=True)
    flags.add_argument("--language", default="en-US")
    given = flags.parse_args()
    try:
        asyncio.run(talk(given.region, given.endpoint, given.file, given.language))
    except TimeoutError:
        raise SystemExit("the endpoint has said nothing for too long; see riva-340-sagemaker-status.sh") from None


if __name__ == "__main__":
    main()
