"""The images at work: locked down, watched, stopped in the middle of speech, started as SageMaker starts them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import pytest
import requests
from websockets.asyncio.client import connect

from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from image.archive import Archive
from image.container import LOCKED_DOWN, Container, Containers, fixture
from timing import in_time

pytestmark = pytest.mark.timeout(120, func_only=True)  # the first to come may have to build
NOBODY_THERE = "127.0.0.1:1"
NO_VOLUME = (*LOCKED_DOWN, "--image-volume", "ignore")
WORDS = [f"word{number}" for number in range(40)]
PLAN = {
    "hears": "clock",
    "loop": False,
    "utterances": [{"words": WORDS[at : at + 10], "word_ms": 200, "pause_ms": 600} for at in range(0, 40, 10)],
}
SPOKEN = bytes((10 * 200 + 600 + 10 * 200) * 32)
"""Two utterances, 16 kHz; the end of the second has not been heard yet."""
DRAIN_LIMIT_S = 25.0


def facts(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def with_silence(recording: Path, seconds: int) -> bytes:
    """A WAV file with that much silence behind it."""
    made = io.BytesIO()
    with wave.open(str(recording)) as source, wave.open(made, "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getnframes()))
        target.writeframes(bytes(seconds * source.getframerate() * source.getsampwidth() * source.getnchannels()))
    return made.getvalue()


async def heard(container: Container, up_to: asyncio.Event) -> tuple[list[str], int | None]:
    """Speak, and listen to the end: the final words, and the close code. `up_to`: the last word but one was guessed."""
    words: list[str] = []
    url = f"wss://127.0.0.1:{container.port}/v1/stream"
    async with connect(url, ssl=container.context, proxy=None) as websocket:
        await websocket.send('{"type":"start"}')
        await websocket.send(SPOKEN)
        async for text in websocket:
            message = json.loads(text)
            if message["type"] == "partial" and WORDS[18] in message["text"]:
                up_to.set()
            elif message["type"] == "final":
                words += message["text"].split()
    return words, websocket.close_code


async def test_locked_down_it_serves_and_ends_after_the_last_word(containers: Containers) -> None:
    async with MockRivaServer(load_plan(PLAN)) as riva:
        gateway = containers.start(AUTH="off", RIVA_ENDPOINTS=f"127.0.0.1:{riva.port}")
        await asyncio.to_thread(gateway.until, "/readyz")
        process = facts(gateway.pid)
        assert process["Uid"].split() == ["10001"] * 4
        assert process["Gid"].split() == ["10001"] * 4
        assert (int(process["CapEff"], 16), int(process["CapBnd"], 16), process["NoNewPrivs"]) == (0, 0, "1")
        assert await asyncio.to_thread(gateway.check) == 0

        up_to = asyncio.Event()
        speaking = asyncio.create_task(heard(gateway, up_to))
        async with asyncio.timeout(20):
            await up_to.wait()
        assert not speaking.done()
        began = time.monotonic()
        await asyncio.to_thread(gateway.terminate)
        words, code = await speaking
        assert words == WORDS[:20]
        assert code == 1001  # going away
        assert await asyncio.to_thread(gateway.ended) == 0
        in_time(time.monotonic() - began, DRAIN_LIMIT_S)
        assert "Traceback" not in gateway.log


def test_its_health_is_its_own_and_not_that_of_the_recognizer(containers: Containers, gateway: Archive) -> None:
    # The image's own check; here one failure counts, and from the first second on, which podman takes with a command.
    check = ("--health-cmd", " ".join(gateway.config["Healthcheck"]["Test"]))
    watched = (*check, "--health-start-period", "0s", "--health-retries", "1", "--health-timeout", "3s")
    # As OpenShift runs it: any user, in group 0.
    options = (*LOCKED_DOWN, "--user", "12345:0", *watched)
    running = containers.start(options=options, AUTH="off", RIVA_ENDPOINTS=NOBODY_THERE)
    running.until("/healthz")
    running.until("/readyz", 503)
    assert running.check() == 0
    assert running.health["Status"] == "healthy"
    probe = 'TIMEFORMAT="%U %S"; time /opt/riva-gateway/bin/python -I -m server.probe'
    done = running.shop.tried("podman", "exec", running.name, "bash", "-c", probe)
    assert done.stdout == "healthy\n"
    assert sum(map(float, done.stderr.split())) < 0.3

    pid = running.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert running.check() == 1
        told = running.health
        assert told["Status"] == "unhealthy"
        assert "does not answer within 2 s" in told["Log"][-1]["Output"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert running.check() == 0
    assert running.health["Status"] == "healthy"
    running.terminate()
    assert running.ended() == 0


def test_stopped_while_it_loads_it_goes_at_once() -> None:
    """The kernel keeps signals from a first process that has no answer to them; loading takes a second."""
    gateway = [sys.executable, "-m", "server", "serve", "--engine", "mock", "--port", "0", "--grpc-port", "off"]
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *gateway], stdout=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        first, deadline = 0, time.monotonic() + 20
        while not (first and int(facts(first)["SigCgt"], 16) & 1 << (signal.SIGTERM - 1)):
            assert time.monotonic() < deadline
            time.sleep(0.002)
            first = int(children.read_text("ascii") or 0)
        os.kill(first, signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"RIVA_ENDPOINTS": NOBODY_THERE}, ["there is no key to ask them for", "riva-gateway key create", "AUTH=off"]),
        ({"AUTH": "off"}, ["embedded recognizer's model is not installed", "RIVA_ENDPOINTS=host:port", "laptop"]),
    ],
    ids=["who may come in", "which recognizer"],
)
def test_what_is_missing_is_said_in_one_line(containers: Containers, env: dict[str, str], said: list[str]) -> None:
    done = containers.to_the_end(**env)
    lines = [line for line in done.stderr.splitlines() if "systemd" not in line]  # podman's own, where there is none
    assert (done.returncode, len(lines)) == (2, 1), done
    assert all(part in lines[0] for part in said), lines


def test_a_key_is_made_and_asked_for(containers: Containers, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 10001, 10001)
    mounted = (*LOCKED_DOWN, "--volume", f"{state}:/var/lib/riva-gateway")
    made = containers.to_the_end("gateway", "key", "create", "phone", options=mounted)
    assert made.returncode == 0, made
    gateway = containers.start(options=mounted, RIVA_ENDPOINTS=NOBODY_THERE, LISTEN_HOST="0.0.0.0")
    gateway.until("/healthz")
    assert gateway.get("/v1/models")[0] == 401
    assert gateway.check() == 0
    assert (state / "keys.json").is_file()


def test_where_nothing_can_be_written_it_serves_or_says_what_to_mount(containers: Containers) -> None:
    gateway = containers.start(options=NO_VOLUME, AUTH="off", RIVA_ENDPOINTS=NOBODY_THERE, TLS="off")
    refused = containers.to_the_end(options=NO_VOLUME, AUTH="off", RIVA_ENDPOINTS=NOBODY_THERE)
    gateway.until("/healthz")
    assert gateway.check() == 0
    assert "STATE_DIR cannot be written" in gateway.log
    assert "Traceback" not in gateway.log
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("riva-gateway:")]
    assert refused.returncode == 2
    assert "/var/lib/riva-gateway" in line
    assert "STATE_DIR" in line


def test_sagemaker_starts_it_as_root_on_its_own_port(containers: Containers) -> None:
    as_root = ("--user", "0:0")
    gateway = containers.start(
        "gateway", "serve", options=as_root, RIVA_ENDPOINTS=NOBODY_THERE, SAGEMAKER_BIND_TO_PORT=""
    )
    gateway.until("/healthz")
    assert gateway.get("/ping")[0] == 503  # it answers there, and the recognizer is away
    # What fetches secrets, and what gives it credentials, is among the services that were left in.
    named = "secretsmanager", "signin", "sso", "sso-oidc", "sts"
    made = f"import boto3; [boto3.client(name, region_name='us-east-1') for name in {named}]"
    assert gateway.run("python", "-c", made) == ""
    assert gateway.check() == 0
    gateway.terminate()
    assert gateway.ended() == 0


def test_the_laptops_image_recognizes_and_leaves_no_dead_children(containers: Containers) -> None:
    gateway = containers.start("laptop", AUTH="off", TLS="off")
    gateway.until("/readyz")
    # More than a megabyte: a part of a form that is larger goes to the disk, and only the volume can be written.
    answer = requests.post(
        f"http://127.0.0.1:{gateway.port}/v1/audio/transcriptions",
        files={"file": ("talk.wav", with_silence(fixture("greeting.wav"), 40))},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert set(fixture("greeting.txt").read_text("utf-8").lower().split()) & set(answer.json()["text"].lower().split())
    pid = gateway.pid

    def children() -> list[int]:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]

    (worker, *_) = children()
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while worker in children():
        assert time.monotonic() < deadline, "a dead recognizer is never buried"
        time.sleep(0.05)
    gateway.until("/readyz")
    workers = children()
    gateway.terminate()
    assert gateway.ended() == 0
    for left in workers:
        with contextlib.suppress(FileNotFoundError):
            assert "riva" not in Path(f"/proc/{left}/cmdline").read_text("utf-8")
