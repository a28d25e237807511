"""Secrets from AWS Secrets Manager, against a server of it: the value, or one line that says why there is none."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from e2e.aws import Aws, secrets_manager
from e2e.command import PATIENCE_S, Shell, sound, wait_for
from e2e.warm_command import warm_command

VALUE = "canary-key-0b7e"
SECRETS = {
    "speech/riva": VALUE + "\n",
    "speech/all": f'{{"riva": "{VALUE}", "port": 7, "none": ""}}',
    "speech/plain": "not json",
}


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with secrets_manager(SECRETS, {"speech/bytes": b"\xff\x00" + VALUE.encode()}) as manager:
        yield manager


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warm_command(tmp_path_factory.mktemp("warm"), "boto3") as found:
        yield found


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


async def test_a_gateway_authenticates_with_a_secret_from_aws(aws: Aws, commands: Path, tmp_path: Path) -> None:
    guarded = load_plan(
        {"utterances": ["one two three"], "server": {"required_metadata": {"authorization": f"Bearer {VALUE}"}}}
    )
    async with MockRivaServer(guarded) as riva:
        env = {**aws.env(), "RIVA_ENDPOINTS": f"localhost:{riva.port}", "LOG_LEVEL": "debug"}
        asked = []
        for name, reference in (("whole", "speech/riva"), ("field", "speech/all#riva")):
            (tmp_path / name).mkdir()
            shell = Shell(tmp_path / name, {**env, "RIVA_API_KEY": f"aws-sm:{reference}"})
            asked.append(asyncio.to_thread(_transcribe_through_a_gateway, shell, commands))
        for said in await asyncio.gather(*asked):
            assert "one two three" in said
            assert VALUE not in said


def _transcribe_through_a_gateway(shell: Shell, commands: Path) -> str:
    clip = sound(shell.home / "clip.wav", seconds=2)
    with shell.start("serve", "--no-tls", "--port", "0", "--grpc-port", "off") as gateway:
        port = wait_for(gateway, r"http://localhost:(\d+)")[1]
        done = subprocess.run(
            [commands / "riva-gateway", "transcribe", "--server", f"http://localhost:{port}", clip],
            env=Shell(shell.home).env,  # without any of these variables
            cwd=shell.home,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        gateway.terminate()
        out, err = gateway.communicate(timeout=20)
    return "\n".join((done.stdout.decode(), done.stderr.decode(), out, err))


@pytest.mark.parametrize(
    ("reference", "wrong"),
    [
        ("speech/none", "'speech/none' does not exist"),
        ("speech/all#what", "'speech/all' has no field 'what'"),
        ("speech/all#port", "a field 'port' that is not a text"),
        ("speech/all#none", "'speech/all#none' is empty"),
        ("speech/plain#riva", "'speech/plain' is no JSON object"),
        ("speech/bytes", "'speech/bytes' holds bytes"),
        ("", "aws-sm: names nothing"),
        ("speech/all#", "aws-sm: names nothing"),
    ],
)
def test_what_is_wrong_with_a_reference_is_one_line(
    aws: Aws, commands: Path, tmp_path: Path, reference: str, wrong: str
) -> None:
    _refused(commands, Shell(tmp_path, {**aws.env(), "TOKEN_SECRET": f"aws-sm:{reference}"}), wrong)


def test_who_may_not_read_it_is_told_so(aws: Aws, commands: Path, tmp_path: Path) -> None:
    told = _refused(
        commands, Shell(tmp_path, {**aws.env(aws.denied), "TOKEN_SECRET": "aws-sm:speech/riva"}), "may not be read"
    )
    assert aws.denied[1] not in told


def test_without_credentials_or_region_the_fix_is_named(aws: Aws, commands: Path, tmp_path: Path) -> None:
    env = {**aws.env(), "TOKEN_SECRET": "aws-sm:speech/riva"}
    _refused(
        commands,
        Shell(tmp_path, {key: value for key, value in env.items() if "KEY" not in key}),
        "no credentials of AWS",
    )
    nowhere = {key: value for key, value in env.items() if key not in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")}
    _refused(commands, Shell(tmp_path, nowhere), "Set AWS_DEFAULT_REGION")


def test_an_aws_that_is_away_or_silent_is_not_waited_for(aws: Aws, commands: Path, tmp_path: Path, nobody: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: refused at once
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"

        def refused(url: str) -> float:
            begun = time.monotonic()
            env = {**aws.env(url=url), "TOKEN_SECRET": "aws-sm:speech/riva"}
            _refused(commands, Shell(tmp_path, env), "out of reach")
            return time.monotonic() - begun

        with ThreadPoolExecutor() as threads:
            at_once, later = threads.map(refused, (closed, nobody))
        assert at_once < 6.0
        assert later < 10.0


def _refused(commands: Path, shell: Shell, wrong: str) -> str:
    serve = [commands / "riva-gateway", "serve", "--no-tls", "--port", "0", "--grpc-port", "off", "--engine", "mock"]
    done = subprocess.run(serve, cwd=shell.home, env=shell.env, capture_output=True, timeout=PATIENCE_S, check=False)
    told = done.stderr.decode()
    assert done.returncode == 2, told
    assert done.stdout == b""
    assert told.count("\n") == 1, told
    assert told.startswith("riva-gateway: TOKEN_SECRET in the environment: ")
    assert wrong in told
    assert VALUE not in told
    return told
