"""The rollout through real sockets, under load: canaries that are worse, a way back, the switch; nobody is cut off."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from asr.config import GatewayConfig
from asr.engine import AudioInput
from asr.engines.gateway import GatewayEngine
from asr.errors import ASRError
from asr.events import Final, Gap
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from asr.options import Options
from server.serve import Addresses
from timing import in_time

from .command import Shell, wait_for
from .gateway import running
from .warm_command import warm_command

LIMIT_S = 20.0
SAID = [f"word{number}" for number in range(10)]
AUDIO_MS = 7_800
"""Three times ten words and a pause."""
GOOD: dict[str, Any] = {"hears": "clock", "utterances": [{"words": SAID, "word_ms": 200, "pause_ms": 600}]}
FEW = {**GOOD, "utterances": [{"words": SAID[:5], "word_ms": 200, "pause_ms": 1_600}]}
SLOW = {**GOOD, "delay": {"response_ms": 50}}
DYING = {**GOOD, "faults": [{"kind": "unavailable", "at_ms": 3_000}]}


@dataclass
class Scene:
    """A gateway in front of up to three stand-ins."""

    addresses: Addresses
    base: MockRivaServer
    former: MockRivaServer
    canary: MockRivaServer
    clients: AsyncExitStack
    outcomes: list[str] = field(default_factory=list)

    async def rollout(self, change: dict[str, Any] | None = None) -> dict[str, Any]:
        method = "GET" if change is None else "PUT"
        url = self.addresses.url + "/admin/rollout"
        answer = await asyncio.to_thread(requests.request, method, url, json=change, timeout=LIMIT_S)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def metrics(self) -> dict[str, float]:
        answer = await asyncio.to_thread(requests.get, self.addresses.url + "/metrics", timeout=LIMIT_S)
        lines = (line.rpartition(" ") for line in answer.text.splitlines() if line.startswith("riva_gateway_"))
        return {name.removeprefix("riva_gateway_"): float(value) for name, _, value in lines}

    async def client(self) -> GatewayEngine:
        engine = GatewayEngine(GatewayConfig(self.addresses.url))
        self.clients.push_async_callback(engine.aclose)
        return engine

    async def speak(self, client: GatewayEngine, *, pace_s: float = 0.0) -> list[str]:
        """One stream; its words. Anything else than a good end is noted."""

        async def audio() -> AsyncIterator[AudioInput]:
            for _ in range(AUDIO_MS // 200):
                yield bytes(32 * 200)
                await asyncio.sleep(pace_s)

        said: list[str] = []
        try:
            async with asyncio.timeout(LIMIT_S):
                async for event in client.stream(audio(), Options()):
                    if isinstance(event, Final):
                        said += event.text.split()
                    elif isinstance(event, Gap):
                        self.outcomes.append("gap")
        except ASRError as error:
            self.outcomes.append(error.code.value)
        return said

    async def crowd(self, streams: int, *, at_a_time: int = 12) -> list[list[str]]:
        """So many streams, some at a time."""
        client, places = await self.client(), asyncio.Semaphore(at_a_time)

        async def one() -> list[str]:
            async with places:
                return await self.speak(client)

        return await asyncio.gather(*(one() for _ in range(streams)))


@asynccontextmanager
async def scene(tmp_path: Path, canary: dict[str, Any] | None = None, **more: object) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        base, former, tried = [
            await stack.enter_async_context(MockRivaServer(load_plan(record)))
            for record in (GOOD, GOOD, canary or GOOD)
        ]
        given = {
            "riva_endpoints": f"localhost:{base.port}",
            "riva_former_endpoints": f"localhost:{former.port}",
            "riva_canary_endpoints": f"localhost:{tried.port}",
            "jobs": False,
            **more,
        }
        addresses = await stack.enter_async_context(running(None, tmp_path, **given))
        clients = await stack.enter_async_context(AsyncExitStack())
        yield Scene(addresses, base, former, tried, clients)


async def until(holds: Any, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not await holds():
            await asyncio.sleep(0.05)


# --- the canary


async def test_a_percentage_of_the_streams_goes_to_the_canary(tmp_path: Path) -> None:
    async with scene(tmp_path, asr_canary_percent=25) as stage:

        async def warm() -> bool:
            return any(row["state"] == "up" for row in (await stage.rollout())["endpoints"] if "canary" in row["name"])

        await until(warm)
        heard = await stage.crowd(80)
        assert all(said == SAID * 3 for said in heard)
        assert stage.outcomes == []
        assert 6 <= stage.canary.streams <= 37  # of 80, a quarter: else one in ten thousand
        assert stage.base.streams + stage.canary.streams == 80
        told = await stage.rollout()
        arms = told["canary"]["arms"]
        assert (arms["canary"]["streams"], arms["base"]["streams"]) == (stage.canary.streams, stage.base.streams)
        assert told["canary"]["verdict"] == "going"
        assert {"1", "canary-1"} == {row["name"] for row in told["endpoints"]}
        metrics = await stage.metrics()
        assert metrics["canary_percent"] == 25
        assert metrics['canary_streams_total{arm="canary",outcome="ok"}'] == stage.canary.streams
        assert metrics['upstream_up{endpoint="canary-1"}'] == 1


@pytest.mark.parametrize(
    ("canary", "figure"), [(DYING, "errors"), (SLOW, "latency of finals"), (FEW, "words per minute")]
)
async def test_a_canary_that_is_worse_is_aborted_under_load(
    tmp_path: Path, canary: dict[str, Any], figure: str
) -> None:
    async with scene(tmp_path, canary) as stage:
        assert (await stage.rollout({"canary_percent": 50, "reason": "on trial"}))["note"] == ""
        crowd = asyncio.create_task(stage.crowd(80))

        async def aborted() -> bool:
            return bool((await stage.rollout())["canary_percent"] == 0)

        await until(aborted, LIMIT_S)
        heard = await crowd
        # Nobody has noticed more than the canary's own words; what it lost, the base has heard.
        assert stage.outcomes == []
        least = 15 if canary is FEW else 30
        assert all(len(said) >= least for said in heard), heard
        told = await stage.rollout()
        assert (told["by"], told["aborts"]) == ("the canary watch", 1)
        assert told["reason"].startswith("The canary is worse: ")
        assert figure in told["reason"]
        assert json.loads((tmp_path / "rollout.json").read_text())["canary_percent"] == 0
        assert (await stage.metrics())["canary_aborts_total"] == 1
        before = stage.canary.streams
        await stage.crowd(6)
        assert stage.canary.streams == before


# --- the way back, and the switch


async def test_back_to_the_former_recognizer_under_load_without_a_dropped_stream(tmp_path: Path) -> None:
    async with scene(tmp_path) as stage:
        client, over = await stage.client(), asyncio.Event()
        under_way: set[asyncio.Task[list[str]]] = set()
        done: list[list[str]] = []

        async def talk() -> None:
            while not over.is_set():
                done.append(await stage.speak(client, pace_s=0.02))

        async def started(server: MockRivaServer, more: int) -> None:
            async with asyncio.timeout(LIMIT_S):
                while server.streams < more:
                    await asyncio.sleep(0.02)

        talkers = [asyncio.create_task(talk()) for _ in range(10)]
        await started(stage.base, 15)
        loop = asyncio.get_running_loop()
        began = loop.time()
        told = await stage.rollout({"position": "former", "reason": "the new one mumbles"})
        assert told["note"] == ""
        at_base = stage.base.streams
        await started(stage.former, 12)
        in_time(loop.time() - began, 5)
        assert stage.base.streams == at_base, "new streams go to the former one, and at once"
        await stage.rollout({"position": "on"})
        await started(stage.base, at_base + 5)
        over.set()
        await asyncio.gather(*talkers)
        assert stage.outcomes == []
        assert all(said == SAID * 3 for said in done)
        assert not under_way


async def test_off_and_on_again_through_the_file(tmp_path: Path) -> None:
    """What a deployment tool writes: new streams are refused within two seconds, those under way come to their end."""
    async with scene(tmp_path) as stage:
        client = await stage.client()
        open_ones = [asyncio.create_task(stage.speak(client, pace_s=0.08)) for _ in range(5)]
        await asyncio.sleep(0.3)
        (tmp_path / "rollout.json").write_text('{"position": "off", "reason": "drill"}')
        began = asyncio.get_running_loop().time()

        async def ready() -> tuple[int, str]:
            answer = await asyncio.to_thread(requests.get, stage.addresses.url + "/readyz", timeout=LIMIT_S)
            return answer.status_code, answer.json()["detail"]

        async def is_off() -> bool:
            return (await ready())[0] == 503

        await until(is_off)
        in_time(asyncio.get_running_loop().time() - began, 2)
        assert "switched off by the operator (drill)" in (await ready())[1]
        alive = await asyncio.to_thread(requests.get, stage.addresses.url + "/healthz", timeout=LIMIT_S)
        assert alive.status_code == 200
        await stage.speak(client)
        assert len(stage.outcomes) == 1
        form = {"file": ("a.wav", b"RIFF", "audio/wav")}
        refused = await asyncio.to_thread(
            requests.post, stage.addresses.url + "/v1/audio/transcriptions", files=form, timeout=LIMIT_S
        )
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert int(refused.headers["Retry-After"]) >= 15
        assert "switched off" in refused.json()["error"]["message"]
        (tmp_path / "rollout.json").write_text('{"position": "on"}')

        async def is_on() -> bool:
            return not await is_off()

        await until(is_on)
        assert await stage.speak(client) == SAID * 3
        assert await asyncio.gather(*open_ones) == [SAID * 3] * 5


# --- the admin route, and the command


MEANINGLESS = [
    (b"[]", 400, "Nothing is to be changed"),
    (b"{", 400, "not JSON"),
    (b'{"reason": "none"}', 400, "Nothing is to be changed"),
    (b'{"position": "sideways"}', 400, "position is not on, off or former"),
    (b'{"canary_percent": 101}', 400, "whole number from 0 to 100"),
    (b'{"canary_percent": true}', 400, "whole number from 0 to 100"),
    (b'{"canary_percent": 5, "x": 1}', 400, "no such field"),
    (b'{"position": "off", "reason": 5}', 400, "reason is not a text"),
    (b"[" * 20_000, 413, "larger than"),
]


async def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path) as stage:
        url = stage.addresses.url + "/admin/rollout"
        for body, status, words in MEANINGLESS:
            answer = await asyncio.to_thread(requests.put, url, data=body, timeout=LIMIT_S)
            assert answer.status_code == status, (body, answer.text)
            assert words in answer.json()["error"]["message"]
        assert (await stage.rollout())["changed_at"] == ""


def test_the_command_steers_a_gateway_and_a_file(tmp_path: Path) -> None:
    ports = {"PORT": "0", "GRPC_PORT": "off", "TLS": "off", "RIVA_CANARY_ENDPOINTS": "localhost:1"}
    with (
        warm_command(tmp_path) as commands,
        Shell(tmp_path, ports).start("serve", "--engine", "mock") as gateway,
    ):
        url = f"http://localhost:{wait_for(gateway, r'http://localhost:([0-9]+)')[1]}"
        env = Shell(tmp_path, {"ASR_SERVER": url}).env

        def typed(*words: str) -> subprocess.CompletedProcess[bytes]:
            command = [commands / "riva-gateway", *words]
            return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=LIMIT_S, check=False)

        def told(*arguments: str, status: int = 0) -> str:
            done = typed("rollout", *arguments)
            assert done.returncode == status, done
            return (done.stdout if status == 0 else done.stderr).decode().strip()

        assert told("off", "--reason", "drill") == "Transcription is switched off by the operator."
        assert "by address 127.0.0.1: drill" in told()
        assert typed("health", "--server", url).returncode == 3
        assert told("on") == "New streams go to the usual recognizer."
        assert "no former recognizer" in told("former", status=4)
        assert "The canary does not answer yet" in told("canary", "5")
        shown = told()
        assert "5 % of new streams try the canary." in shown
        assert "nothing speaks against it" in shown
        assert "final latency (s)" in shown
        assert json.loads(told("--json"))["canary"]["arms"]["base"]["streams"] == 0
        file = str(tmp_path / "state" / "rollout.json")
        assert "obeys within two seconds" in told("off", "--file", file)
        for _ in itertools.repeat(None, 200):
            if "switched off" in told():
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the gateway does not look at its file")


def test_a_gateway_that_cannot_do_what_its_settings_say_does_not_start(tmp_path: Path) -> None:
    settings = {"ASR_SWITCH": "former", "PORT": "0", "GRPC_PORT": "off"}
    done = Shell(tmp_path, settings).run("serve", "--engine", "mock")
    assert done.returncode == 2
    assert b"ASR_SWITCH: There is no former recognizer" in done.stderr
    assert done.stderr.count(b"\n") == 1
