"""`scripts/sagemaker/two_way.py`, unmodified, against the gateway.

AWS's package needs a newer Python; its names are played, as for Pipecat's client.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from contract.clients import run, run_client
from contract.test_pipecat_sagemaker import AWS
from e2e.command import sound
from e2e.gateway import running
from word_engine import WordEngine

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts" / "sagemaker" / "two_way.py"

# The program runs as itself, with AWS's names in the place of AWS's package; the service is the gateway.
SCRIPT = """
import runpy
class Config:
    @classmethod
    async def resolve(cls, *, region, endpoint_uri, transport):
        assert endpoint_uri == "https://runtime.sagemaker.us-east-1.amazonaws.com:8443", endpoint_uri
        return cls()
module("aws_sdk_sagemaker_runtime_http2.client", AsyncSageMakerRuntimeHTTP2Client=Client)
module("aws_sdk_sagemaker_runtime_http2.config", AsyncSageMakerRuntimeHTTP2Config=Config)
for name in ("smithy_http", "smithy_http.aio"):
    module(name)
module("smithy_http.aio.crt", AWSCRTHTTPClient=object)
sys.version_info = (3, 12, 0)
sys.argv = [sys.argv[5], "--endpoint", "riva-speech", "--region", "us-east-1", path]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


async def test_the_example_speaks_a_file_and_reads_along(tmp_path: Path) -> None:
    clip = sound(tmp_path / "talk.wav", 0.9)
    async with running(WordEngine(), tmp_path) as gateway:
        url = f"ws://127.0.0.1:{gateway.port}/invocations-bidirectional-stream"
        printed = await run_client(AWS + SCRIPT, url, clip, "plain", "0", PROGRAM)
    lines = printed.splitlines()
    assert [line for line in lines if line.startswith("= ")], lines
    assert any(line.startswith("… ") for line in lines)


async def test_an_error_of_the_endpoint_is_told_in_one_line(tmp_path: Path) -> None:
    clip = sound(tmp_path / "talk.wav", 0.9)
    async with running(WordEngine("unavailable@400"), tmp_path) as gateway:
        url = f"ws://127.0.0.1:{gateway.port}/invocations-bidirectional-stream"
        with pytest.raises(AssertionError, match="the endpoint: unavailable: "):
            await run_client(AWS + SCRIPT, url, clip, "plain", "0", PROGRAM)


async def test_an_older_python_is_told_what_is_needed(tmp_path: Path) -> None:
    clip = sound(tmp_path / "talk.wav", 0.1)
    code = (
        f"import runpy, sys; sys.version_info = (3, 11); sys.argv[0] = {str(PROGRAM)!r}; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    ran = await run(sys.executable, "-c", code, "--endpoint", "x", "--region", "us-east-1", str(clip))
    assert ran.code == 1
    assert ran.err.strip() == "AWS's package needs Python 3.12 or newer. Run this with python3.12."
