"""The container with a NIM inside, called exactly as SageMaker calls it: paths, headers, bounds, signals, ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from contract.sagemaker_container import KEY, LIMIT_S, Container, Ping, assert_in_time, container
from e2e.command import Shell
from e2e.test_sagemaker import form, text_of, wav

MOST_BYTES = 25 * 1024 * 1024
UPLOADS = 2
SESSION_MS = 4_000
STREAM = "/invocations-bidirectional-stream"
# All that SageMaker passes on of a request.
HEADERS = {"Content-Type": "audio/wav", "Accept": "*/*", "X-Amzn-SageMaker-Custom-Attributes": "transport=grpc"}


async def stream_to(one: Container) -> ClientConnection:
    """A two-way stream of plain audio. A recognizer that has just come up is given its streams one after the other."""
    url = f"ws://127.0.0.1:{one.port}{STREAM}/v1/listen?sample_rate=16000"
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await connect(url, proxy=None)
            except InvalidStatus as refused:
                if refused.response.status_code != 503:
                    raise
            await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A container that was seen to load, serves, and ends well; its key is nowhere."""
    with container(tmp_path_factory.mktemp("c"), SAGEMAKER_MAX_SESSION_MS=str(SESSION_MS)) as one:
        early = [one.ping() for _ in range(3)]
        assert [ping.status for ping in early] == [503] * 3
        assert_in_time(early)
        one.look_at_argv()
        one.serving()
        one.look_at_argv()
        yield one
        told = one.ping().text
        one.terminate()
        status, seconds = one.ended()
        assert (status, seconds < LIMIT_S) == (0, True)
        assert "NIM: loading with [secret] and mode=str" in one.said
        assert not [text for text in (one.said, told, *one.argv) if KEY in text]


async def test_a_recording_of_25_mb_is_taken_and_pings_are_answered_meanwhile(shared: Container) -> None:
    async with httpx2.AsyncClient(base_url=shared.url, trust_env=False, timeout=60) as client:
        body = wav(MOST_BYTES)
        load = [asyncio.create_task(client.post("/invocations", content=body, headers=HEADERS)) for _ in range(UPLOADS)]
        pings: list[Ping] = []
        while not all(task.done() for task in load):
            pings.append(await asyncio.to_thread(shared.ping))
            await asyncio.sleep(0.01)
        for task in load:
            assert text_of(await task)
        assert {ping.status for ping in pings} == {200}
        assert_in_time(pings)
        over = await client.post("/invocations", content=wav(MOST_BYTES + 1_024), headers=HEADERS)
        assert (over.status_code, over.json()["code"]) == (413, "too_large")


async def test_each_route_of_the_nim_inside_answers(shared: Container) -> None:
    async with httpx2.AsyncClient(base_url=shared.url, trust_env=False, timeout=LIMIT_S) as client:
        for said, route in (("/invocations/http", "http"), ("/invocations/grpc", "grpc")):
            headers = {"X-Amzn-SageMaker-Custom-Attributes": f"X-Amzn-SageMaker-Custom-Attributes={said}"}
            answer = await client.post("/invocations", **form(wav(), language_code="en-US"), headers=headers)
            assert text_of(answer) == "one two three four five"
            assert answer.json()["predictions"][0]["transport"] == route


async def test_a_two_way_stream_of_binary_messages_in_fragments(shared: Container) -> None:
    async with await stream_to(shared) as stream:
        pcm = wav()[44:]
        for start in range(0, len(pcm), 16_000):
            await stream.send([pcm[start : start + 7_001], pcm[start + 7_001 : start + 16_000]])
        pong = await stream.ping()
        await asyncio.wait_for(pong, LIMIT_S)
        finalize = json.dumps({"type": "CloseStream"}).encode()
        await stream.send([finalize[:5], finalize[5:]])
        heard = [json.loads(message) async for message in stream]
    finals = [one["channel"]["alternatives"][0]["transcript"] for one in heard if one.get("is_final")]
    assert " ".join(finals).split() == ["one", "two", "three", "four", "five"]
    assert heard[-1]["type"] == "Metadata"


async def test_a_stream_ends_before_sagemaker_would_end_it(shared: Container) -> None:
    async with await stream_to(shared) as stream:
        started = time.monotonic()
        await stream.send(wav(32_044)[44:])

        async def keep_alive() -> None:
            while True:
                await stream.send(json.dumps({"type": "KeepAlive"}).encode())
                await asyncio.sleep(0.3)

        speaking = asyncio.create_task(keep_alive())
        heard = [json.loads(message) async for message in stream]
        speaking.cancel()
    assert SESSION_MS / 1000 - 0.5 <= time.monotonic() - started < SESSION_MS / 1000 + 5
    assert any(one.get("code") == "session_limit" for one in heard)


async def test_sigterm_lets_streams_end_before_the_nim_does(tmp_path: Path) -> None:
    with container(tmp_path, plan={"delay": {"first_response_ms": 800}}) as one:
        await asyncio.to_thread(one.serving)
        nim = one.nim()
        async with await stream_to(one) as stream:
            await stream.send(wav()[44:])
            await asyncio.sleep(0)
            async with httpx2.AsyncClient(base_url=one.url, trust_env=False) as client:
                while (await client.get("/health")).json()["active_streams"] == 0:
                    await asyncio.sleep(0.02)
            one.terminate()
            heard = [json.loads(message) async for message in stream]
            assert nim.is_running()
        finals = [one["channel"]["alternatives"][0]["transcript"] for one in heard if one.get("is_final")]
        assert " ".join(finals).split() == ["one", "two", "three", "four", "five"]
        status, seconds = await asyncio.to_thread(one.ended)
        assert (status, seconds < LIMIT_S) == (0, True)
        assert "the gateway ends" not in one.said


async def test_an_invocation_has_its_limit_and_the_container_ends_with_its_nim(tmp_path: Path) -> None:
    slow = {"delay": {"first_response_ms": 20_000}}
    with container(tmp_path, plan=slow, SAGEMAKER_TIMEOUT_MS="600", LOG_LEVEL="warning") as one:
        await asyncio.to_thread(one.serving)
        async with httpx2.AsyncClient(base_url=one.url, trust_env=False, timeout=LIMIT_S) as client:
            answer = await client.post("/invocations", content=wav(), headers=HEADERS)
        assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
        one.nim().kill()
        status, seconds = await asyncio.to_thread(one.ended)
    assert (status, seconds < LIMIT_S) == (3, True)
    assert "riva-gateway: The NIM has ended (SIGKILL), and the gateway with it." in one.said
    assert KEY not in one.said


def test_a_nim_that_is_never_ready_and_ignores_sigterm_ends_with_the_container(tmp_path: Path) -> None:
    with container(tmp_path, NIM_START_TIMEOUT_MS="1000", STUBBORN="yes") as one:
        status, seconds = one.ended()
    assert (status, seconds < 10) == (3, True)
    assert "riva-gateway: The NIM was not ready within 1 s (NIM_START_TIMEOUT_MS): " in one.said
    assert "last=['NIM: loading with [secret] and mode=str']" in one.said


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    with container(tmp_path, STUBBORN="yes") as one:
        one.go()
        one.terminate()
        due = time.monotonic() + LIMIT_S
        while "draining" not in (tmp_path / "log").read_text("utf-8"):
            assert time.monotonic() < due
            time.sleep(0.02)
        one.terminate()
        status, seconds = one.ended()
    assert (status, seconds < 1.5) == (143, True)


@pytest.mark.parametrize("command", ["/no/such/nim", '"'])
def test_a_command_that_is_none_ends_the_start(tmp_path: Path, command: str) -> None:
    env = {"NIM_COMMAND": command, "SAGEMAKER_BIND_TO_PORT": "0", "GRPC_PORT": "off", "NGC_API_KEY": KEY}
    ran = Shell(tmp_path, env).run("serve")
    assert ran.returncode == 2
    assert "riva-gateway: NIM_COMMAND" in ran.stderr.decode()
    assert KEY not in (ran.stdout + ran.stderr).decode()


def test_as_the_first_process_of_a_container_it_leaves_no_zombies(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    assert unshare is not None
    within = (unshare, "--pid", "--fork", "--kill-child", "--mount-proc")
    with container(tmp_path, within=within) as one:
        one.serving()
        due = time.monotonic() + LIMIT_S
        while [child for child in one.gateway.children() if child.status() == psutil.STATUS_ZOMBIE]:
            assert time.monotonic() < due
            time.sleep(0.1)
        assert one.nim().is_running()
        one.terminate()
        assert one.ended()[0] == 0
