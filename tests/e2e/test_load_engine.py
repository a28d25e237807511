"""The load tool's engine against real gateways: what is said is heard, and what goes wrong is told. Nobody hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import wave
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import psutil
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from asr.engines.mock import MockEngine
from asr.mock.plan import load_plan
from asr.riva_proto import asr_grpc
from e2e.gateway import running
from evaluation.clips import Clip, Speech, SpokenWord
from load.arrivals import arrivals
from load.bench import gateway as gateway_process
from load.conductor import run_step
from load.plan import Arrival, Door, StepPlan, Wire
from load.records import Progress, StepRecord
from riva_tls import make_certificates
from server.serve import Addresses
from timing import in_time

WORDS = ("one", "two", "three", "four", "five")
WORD_MS, SOUND_MS, CLIP_MS = 200, 1_000, 1_300
GATEWAY_PLAN = {"utterances": [{"words": list(WORDS), "word_ms": WORD_MS}], "chunk_ms": 100, "silence_ms": 300}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, ...]:
    """A tone as long as the mock recognizer's five words, and a pause, twice."""
    folder = tmp_path_factory.mktemp("clips")
    tone = 8_000 * np.sin(2 * np.pi * 440 * np.arange(16 * SOUND_MS) / 16_000)
    pcm = np.concatenate([tone, np.zeros(16 * (CLIP_MS - SOUND_MS))]).astype("<i2").tobytes()
    made = []
    for name in ("first", "second"):
        path = folder / f"{name}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(pcm)
        words = tuple(SpokenWord(word, at * WORD_MS, (at + 1) * WORD_MS) for at, word in enumerate(WORDS))
        made.append(Clip(name, "clean", " ".join(WORDS), path, CLIP_MS, words=words, speech=(Speech(0, SOUND_MS),)))
    return tuple(made)


def door(wire: Wire, addresses: Addresses) -> Door:
    if wire == "grpc":
        return Door("grpc", f"127.0.0.1:{addresses.grpc_port}")
    return Door("websocket", f"ws://127.0.0.1:{addresses.port}")


def step(where: Door, row: tuple[Arrival, ...], clips: tuple[Clip, ...], workers: int = 1) -> StepPlan:
    return StepPlan(where, row, len(row), clips, pause_ms=200, tail_ms=400, workers=workers)


def my_workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "load.worker" in child.cmdline():
                found.append(child)
    return found


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    assert not my_workers()


class Speaking:
    """Resolves when so many sessions speak."""

    def __init__(self, sessions: int) -> None:
        self.sessions = sessions
        self.reached = asyncio.Event()
        self.seen: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)
        if progress.active >= self.sessions:
            self.reached.set()


@contextlib.asynccontextmanager
async def in_the_middle(plan: StepPlan) -> AsyncIterator[asyncio.Task[StepRecord]]:
    """A step that runs, all of its sessions speaking."""
    watch = Speaking(len(plan.arrivals))
    task = asyncio.create_task(run_step(plan, on_progress=watch))
    try:
        async with asyncio.timeout(20):
            await watch.reached.wait()
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def fates(record: StepRecord) -> Counter[tuple[str, str]]:
    return Counter((one.outcome, one.code) for one in record.records)


async def test_all_is_said_and_heard_over_both_wires(tmp_path: Path, clips: tuple[Clip, ...]) -> None:
    row = arrivals("steady", 20, duration_ms=2_500)
    watch = Speaking(20)
    async with running(MockEngine(load_plan(GATEWAY_PLAN)), tmp_path) as addresses:
        steps = await asyncio.gather(
            run_step(step(door("websocket", addresses), row, clips, workers=2), on_progress=watch),
            run_step(step(door("grpc", addresses), row, clips)),
        )
    for record in steps:
        assert fates(record) == {("ok", ""): 20}
        for one in record.records:
            assert one.clips == (("first", "second"), ("second", "first"))[one.number % 2]
            assert one.reference == one.hypothesis == " ".join(WORDS * 2)
            assert (one.finals, one.audio_ms, one.chunks) == (2, 3_200, 32)
            assert one.partials >= 8
            assert one.connected_ms is not None
            assert one.speaking_ms is not None
            assert 3_100 <= one.ended_ms - one.speaking_ms < 8_000
            # The recognizer answers to each chunk at once; an utterance ends 300 ms after its last word.
            assert len(one.timings.word_partial_ms) >= 8
            assert -5 <= min(one.timings.word_partial_ms) < 200
            assert len(one.timings.final_ms) == 2
            assert 200 < min(one.timings.final_ms) <= max(one.timings.final_ms) < 1_000
        assert record.peak == 20
        assert 0 <= record.late_p99_ms <= record.late_max_ms < 1_000
        assert 0 < record.worker_cpu < 1
        assert len({round(one.speaking_ms or 0) % 100 // 10 for one in record.records}) >= 8, "turns are spread out"
    over_websocket, over_grpc = steps
    assert (over_websocket.workers, over_grpc.workers) == (2, 1)
    assert all(one.queue_ms is not None and 0 <= one.queue_ms < 2_000 for one in over_websocket.records)
    assert watch.seen[-1].done == 20
    assert watch.seen[-1].finals == 40


async def test_a_full_gateway_refuses_and_says_when_to_return(tmp_path: Path, clips: tuple[Clip, ...]) -> None:
    row = arrivals("steady", 12, duration_ms=1_000)
    engine = MockEngine(load_plan(GATEWAY_PLAN))
    async with (
        running(engine, tmp_path / "one", max_streams=5) as one,
        running(engine, tmp_path / "other", max_streams=5) as other,
    ):
        steps = await asyncio.gather(
            run_step(step(door("websocket", one), row, clips)), run_step(step(door("grpc", other), row, clips))
        )
    for record in steps:
        assert fates(record) == {("ok", ""): 5, ("refused", "overloaded"): 7}
        refused = [one for one in record.records if one.outcome == "refused"]
        assert all(one.retry_after_ms is not None and 0 < one.retry_after_ms <= 60_000 for one in refused)
        assert all(one.detail and not one.finals and not one.reference for one in refused)
    assert steps[0].peak == 5


async def test_who_takes_a_place_waits_for_it_and_who_breaks_off_says_nothing(
    tmp_path: Path, clips: tuple[Clip, ...]
) -> None:
    row = (Arrival(0, 500), Arrival(10, 500, cut_ms=500), Arrival(100, 500, after=0))
    async with running(MockEngine(load_plan(GATEWAY_PLAN)), tmp_path, tls=True) as addresses:
        where = Door("websocket", addresses.url, tls=True, ca_cert=next(tmp_path.rglob("*.crt")))
        record = await run_step(step(where, row, clips))
    first, cut, second = record.records
    assert [one.outcome for one in record.records] == ["ok"] * 3
    assert second.speaking_ms is not None
    assert second.speaking_ms >= first.ended_ms
    assert (cut.cut, cut.chunks, cut.reference, cut.hypothesis) == (True, 5, "", "")
    assert record.peak == 2


async def test_a_gateway_that_is_killed_is_told_as_such(tmp_path: Path, clips: tuple[Clip, ...]) -> None:
    row = arrivals("steady", 5, duration_ms=10_000)
    async with gateway_process(tmp_path, "gateway", "--engine", "mock") as (process, port, grpc_port):
        web, riva = Door("websocket", f"127.0.0.1:{port}"), Door("grpc", f"127.0.0.1:{grpc_port}")
        async with in_the_middle(step(web, row, clips)) as one, in_the_middle(step(riva, row, clips)) as other:
            process.kill()
            began = time.monotonic()
            steps = await asyncio.gather(one, other)
    in_time(time.monotonic() - began, 3)
    for record in steps:
        assert fates(record) == {("disconnected", "disconnected"): 5}
        assert all(0 < one.audio_ms < 10_000 for one in record.records)


async def test_nobody_there_is_told_at_once(clips: tuple[Clip, ...], unused_tcp_port: int) -> None:
    where = Door("websocket", f"ws://127.0.0.1:{unused_tcp_port}")
    record = await run_step(step(where, arrivals("steady", 2, duration_ms=1_000), clips))
    assert fates(record) == {("disconnected", "connect"): 2}
    assert record.peak == 0


async def test_a_worker_that_is_killed_is_told_as_such(tmp_path: Path, clips: tuple[Clip, ...]) -> None:
    row = arrivals("steady", 6, duration_ms=1_000)
    async with (
        running(MockEngine(load_plan(GATEWAY_PLAN)), tmp_path) as addresses,
        in_the_middle(step(door("websocket", addresses), row, clips, workers=2)) as task,
    ):
        victim = my_workers()[0].pid
        os.kill(victim, signal.SIGKILL)
        record = await task
    assert fates(record) == {("ok", ""): 3, ("error", "worker_lost"): 3}
    assert all(str(victim) in one.detail for one in record.records if one.outcome == "error")
    (note,) = [note for note in record.notes if str(victim) in note]
    assert "signal 9" in note
    assert "3 unfinished sessions" in note


async def test_a_sender_that_is_held_up_says_so(tmp_path: Path, clips: tuple[Clip, ...]) -> None:
    row = arrivals("steady", 4, duration_ms=1_000)
    async with (
        running(MockEngine(load_plan(GATEWAY_PLAN)), tmp_path) as addresses,
        in_the_middle(step(door("websocket", addresses), row, clips)) as task,
    ):
        worker = my_workers()[0]
        worker.suspend()
        await asyncio.sleep(0.3)
        worker.resume()
        record = await task
    assert fates(record) == {("ok", ""): 4}
    assert all(one.reference == one.hypothesis for one in record.records), "late, and nothing is left out"
    assert 200 < record.late_max_ms < 2_000
    assert any("was the limit" in note for note in record.notes)
    assert all(one.late_max_ms > 100 and one.held_chunks == 0 for one in record.records)


async def test_a_step_that_is_given_up_leaves_nobody_behind(tmp_path: Path, clips: tuple[Clip, ...]) -> None:
    row = arrivals("steady", 2, duration_ms=60_000)
    async with (
        running(MockEngine(load_plan(GATEWAY_PLAN)), tmp_path) as addresses,
        in_the_middle(step(door("websocket", addresses), row, clips)) as task,
    ):
        worker = my_workers()[0]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not worker.is_running()


async def test_a_step_that_is_broken_off_keeps_the_sessions_that_were_over(
    tmp_path: Path, clips: tuple[Clip, ...]
) -> None:
    row = (Arrival(0, 500), Arrival(0, 60_000), Arrival(0, 500))
    stop = asyncio.Event()

    def watch(progress: Progress) -> None:
        if progress.done == 2:
            stop.set()

    async with running(MockEngine(load_plan(GATEWAY_PLAN)), tmp_path) as addresses, asyncio.timeout(20):
        record = await run_step(step(door("websocket", addresses), row, clips), on_progress=watch, stop=stop)
    assert [(one.number, one.outcome) for one in record.records] == [(0, "ok"), (2, "ok")]
    assert all(one.reference == one.hypothesis for one in record.records)
    assert (record.peak, record.notes) == (3, ())
    assert record.wall_ms < 10_000


async def test_a_gateway_that_stops_for_two_seconds_is_seen_in_the_latencies(
    tmp_path: Path, clips: tuple[Clip, ...]
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(GATEWAY_PLAN))
    row = arrivals("steady", 3, duration_ms=4_000)
    async with gateway_process(tmp_path, "gateway", "--engine", "mock", "--mock-plan", str(plan)) as gateway:
        process, port, grpc_port = gateway
        web, riva = Door("websocket", f"127.0.0.1:{port}"), Door("grpc", f"127.0.0.1:{grpc_port}")
        async with in_the_middle(step(web, row, clips)) as one, in_the_middle(step(riva, row, clips)) as other:
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(2)
            finally:
                process.send_signal(signal.SIGCONT)
            steps = await asyncio.gather(one, other)
    for record in steps:
        assert fates(record) == {("ok", ""): 3}
        assert record.late_p99_ms < 500, "the gateway's fault, not the tool's"
        assert all(max(one.timings.final_ms) > 900 for one in record.records)


async def test_a_gateway_that_answers_nonsense_is_not_taken_for_a_dead_worker(clips: tuple[Clip, ...]) -> None:
    async def babble(websocket: ServerConnection) -> None:
        await websocket.recv()
        await websocket.send('{"type":"ready","limits":{}}')
        await websocket.send('{"type":"partial", this is no JSON')
        await websocket.close(1001)

    async with serve_websocket(babble, "127.0.0.1", 0) as server:
        where = Door("websocket", f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        record = await run_step(step(where, (Arrival(0, 500),), clips))
    assert fates(record) == {("error", "protocol"): 1}
    assert record.notes == ()


async def test_who_is_sent_away_before_the_audio_is_refused(clips: tuple[Clip, ...]) -> None:
    async def sent_away(code: int, *, ready: bool) -> tuple[str, bool]:
        async def close(websocket: ServerConnection) -> None:
            await websocket.recv()
            if ready:
                await websocket.send('{"type":"ready","limits":{}}')
                await websocket.recv()
            await websocket.close(code)

        async with serve_websocket(close, "127.0.0.1", 0) as server:
            where = Door("websocket", f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            (one,) = (await run_step(step(where, (Arrival(0, 500),), clips))).records
        return one.outcome, str(code) in one.detail

    assert await asyncio.gather(
        sent_away(1013, ready=False),
        sent_away(4503, ready=False),
        sent_away(1013, ready=True),
        sent_away(1001, ready=False),
    ) == [("refused", True), ("refused", True), ("error", True), ("error", True)]


async def test_credentials_go_along_and_nowhere_else(clips: tuple[Clip, ...], tmp_path: Path) -> None:
    seen: list[str | None] = []
    lines: list[str] = []

    async def take(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        seen.append(websocket.request.headers.get("Authorization"))
        lines.extend(" ".join(worker.cmdline()) for worker in my_workers())
        # It never comes back: a gateway that waited for a minute would look as if it leaked.
        assert json.loads(await websocket.recv())["resume_window_ms"] == 1_000
        await websocket.close(1013)

    secret = (("Authorization", "Bearer s3cret"),)
    async with serve_websocket(take, "127.0.0.1", 0) as server:
        where = Door("websocket", f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", metadata=secret)
        plan = step(where, (Arrival(0, 500),), clips)
        record = await run_step(plan)
    assert seen == ["Bearer s3cret"]
    assert lines
    assert "s3cret" not in f"{lines} {plan} {record}"


async def test_riva_gets_metadata_and_the_client_certificate(clips: tuple[Clip, ...], tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    class Riva(asr_grpc.RivaSpeechRecognitionServicer):  # type: ignore[misc]
        async def StreamingRecognize(  # noqa: N802
            self, requests: AsyncIterator[object], context: object
        ) -> AsyncIterator[object]:
            seen.append(dict(context.invocation_metadata()))  # type: ignore[attr-defined]
            async for _ in requests:
                pass
            return
            yield

    files = make_certificates(tmp_path)
    server = grpc.aio.server()
    asr_grpc.add_RivaSpeechRecognitionServicer_to_server(Riva(), server)
    pair = (files.server_key.read_bytes(), files.server_cert.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], files.ca.read_bytes(), require_client_auth=True)
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        where = Door(
            "grpc", f"localhost:{port}", tls=True, ca_cert=files.ca, client_cert=files.client_cert,
            client_key=files.client_key, metadata=(("Function-ID", "f-1"), ("authorization", "Bearer s3cret")),
        )  # fmt: skip
        record = await run_step(step(where, (Arrival(0, 500),), clips))
    finally:
        await server.stop(None)
    assert fates(record) == {("ok", ""): 1}
    assert (seen[0]["function-id"], seen[0]["authorization"]) == ("f-1", "Bearer s3cret")


async def test_a_worker_ends_with_its_conductor(tmp_path: Path) -> None:
    (tmp_path / "clips.pcm").write_bytes(bytes(3_200))
    order = {
        "door": {"wire": "websocket", "address": "ws://127.0.0.1:1", "tls": False, "ca_cert": None, "insecure": False},
        "chunk_ms": 100,
        "pause_ms": 0,
        "tail_ms": 0,
        "phase_ms": 0,
        "pcm": str(tmp_path / "clips.pcm"),
        "clips": [{"rate_hz": 16_000, "bytes": 3_200}],
        "sessions": [{"number": 0, "start_ms": 600_000, "said": [0], "cut": None, "after": None}],
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "load.worker", stdin=PIPE, stdout=PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(20):
        process.stdin.write(json.dumps(order).encode() + b"\n")
        assert json.loads(await process.stdout.readline()) == {"type": "ready"}
        process.stdin.write(json.dumps({"go_s": time.monotonic()}).encode() + b"\n")
        assert json.loads(await process.stdout.readline())["waiting"] == 1
        process.stdin.close()
        assert await process.wait() == 3
