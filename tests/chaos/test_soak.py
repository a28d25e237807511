"""Hours in minutes: streams come, go and are torn off, recognizers are cut, and the gateway stays as it was.

`CHAOS_LONG=1` makes the soak one of three minutes, `CHAOS_LONG=hour` one of an hour.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from typing import Any

import grpc.aio
import pytest
from websockets.asyncio.client import connect

from asr.build import build_engine
from asr.config import ResilienceConfig, ResilientConfig, RivaConfig
from asr.errors import ASRError
from asr.events import Partial
from asr.options import Options
from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from chaos.cable import Cable
from chaos.clients import Script, native
from chaos.figures import Figure
from chaos.gateway_process import FD_SLACK, THREAD_SLACK, GatewayProcess
from chaos.numbered import frame
from chaos.play import seed
from chaos.standin import StandIn

MB = 1024 * 1024
STREAMS = 20
ABORTS = 0.1
CUT_EVERY_S = 7.0
SOAK_S = {"": 45.0, "hour": 3_600.0}.get(os.environ.get("CHAOS_LONG", ""), 180.0)
WARM_S = 15.0 if SOAK_S < 60 else 60.0
GROWTH_MB = 3.0
CANCELLED = 2_500
CANCELLED_GROWTH_MB = 2.0
LIMIT_S = SOAK_S + 60.0


async def settled_mb(gateway: GatewayProcess, within_s: float = 2.0) -> float:
    """Memory at its lowest within so long: what is kept, not what is in flight."""
    lowest = float("inf")
    for _ in range(int(within_s / 0.1)):
        lowest = min(lowest, gateway.footprint().rss_bytes / MB)
        await asyncio.sleep(0.1)
    return lowest


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
async def test_a_soak_leaves_nothing_behind() -> None:
    figure = Figure(
        "soak", "Nothing grows while streams come, go and are torn off",
        f"{SOAK_S:.0f} s, {STREAMS} paced streams, one in ten torn off by its client, "
        f"the recognizer's connections cut every {CUT_EVERY_S:.0f} s",
    )  # fmt: skip
    chance = random.Random(seed())
    clock = asyncio.get_running_loop().time
    async with (
        StandIn() as first,
        StandIn() as second,
        Cable(first.port) as cable,
        GatewayProcess(f"{cable.endpoint},{second.endpoint}", LOG_LEVEL="warning") as gateway,
    ):
        await native(gateway.port, Script(0, 5, pace=10), patience_s=20)
        before = gateway.footprint()
        end = clock() + SOAK_S
        sessions = torn = 0
        spoilt: list[str] = []

        async def lane(number: int) -> None:
            nonlocal sessions, torn
            await asyncio.sleep(number * 0.1)
            while clock() < end:
                sessions += 1
                frames = chance.randint(20, 60)
                if chance.random() < ABORTS:
                    torn += 1
                    await tear_off(gateway.port, frames // 2)
                    continue
                record = await native(gateway.port, Script(number, frames, seed=sessions), patience_s=60)
                if not (record.whole and record.verdict().faultless):
                    spoilt.append(f"{record.verdict()} {record.errors}")

        async def cut() -> None:
            while True:
                await asyncio.sleep(CUT_EVERY_S)
                cable.reset()

        cutting = asyncio.create_task(cut())
        soaking = asyncio.gather(*map(lane, range(STREAMS)))
        await asyncio.sleep(WARM_S)
        samples: list[float] = []
        while clock() < end - 1:
            samples.append(gateway.footprint().rss_bytes / MB)
            await asyncio.sleep(0.5)
        await soaking
        cutting.cancel()
        # Python collects garbage in rings now and then: what is kept for good shows in the lowest of the last seconds.
        warm_mb, late_mb = max(samples[:20]), min(samples[-20:])
        figure.add("sessions", sessions, SOAK_S * 3, least=True)
        figure.add("torn off", torn, 1, least=True)
        figure.add("sessions not whole and faultless", len(spoilt), 0)
        figure.failures += spoilt[:2]
        figure.add("memory after warm-up", warm_mb, unit="MB")
        figure.add("growth until the end", max(late_mb - warm_mb, 0), GROWTH_MB, "MB")
        left = await gateway.leftovers(before, within_s=10)
        figure.add("kinds of leftovers (descriptors, threads, connections, children)", len(left), 0)
        figure.failures += left
        streams = (await first.state())["open"] + (await second.state())["open"]
        figure.add("streams left at the recognizers", streams, 0)
    figure.settle()


async def tear_off(port: int, frames: int) -> None:
    """A client that dies in mid-speech: no stop, no close, not even the end of its connection's politeness."""
    websocket = await connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None, compression=None)
    await websocket.send('{"type":"start","resume_window_ms":0}')
    async for chunk in Script(400, frames).chunks():
        await websocket.send(chunk)
    websocket.transport.abort()


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_cancelled_calls_are_forgotten() -> None:
    """grpc.aio has kept what was cancelled more than once: 2,500 calls on the Riva face, each carried on to Riva."""
    figure = Figure(
        "cancelled-calls", "A call that its client gives up leaves nothing behind",
        f"{CANCELLED} StreamingRecognize calls, each cancelled after its first audio, 20 at a time",
    )  # fmt: skip
    async with StandIn() as upstream, GatewayProcess(upstream.endpoint, LOG_LEVEL="warning") as gateway:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
            stub = asr_grpc.RivaSpeechRecognitionStub(channel)
            await cancel_calls(stub, CANCELLED // 2)
            before, warm_mb = gateway.footprint(), await settled_mb(gateway)
            await cancel_calls(stub, CANCELLED)
            grown_mb = max(await settled_mb(gateway) - warm_mb, 0)
        figure.add("calls that reached the recognizer", (await upstream.state())["opened"], CANCELLED, least=True)
        figure.add("growth", grown_mb, CANCELLED_GROWTH_MB, "MB")
        now = gateway.footprint()
        figure.add("file descriptors more", max(now.fds - before.fds, 0), FD_SLACK)
        figure.add("threads more", max(now.threads - before.threads, 0), THREAD_SLACK)
        await asyncio.sleep(1)
        figure.add("streams left at the recognizer", (await upstream.state())["open"], 0)
        figure.demand("Traceback" not in gateway.log(), gateway.log()[-500:])
    figure.settle()


async def cancel_calls(stub: Any, count: int) -> None:
    """So many calls, 20 at a time."""
    chosen = pb.RecognitionConfig(encoding=1, sample_rate_hertz=16_000)
    config = pb.StreamingRecognizeRequest(
        streaming_config=pb.StreamingRecognitionConfig(config=chosen, interim_results=True)
    )
    audio = pb.StreamingRecognizeRequest(audio_content=frame(7))
    left = count

    async def lane() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            call = stub.StreamingRecognize(timeout=20)
            with suppress(grpc.aio.AioRpcError):
                await call.write(config)
                await call.write(audio)
                await call.read()
            call.cancel()

    await asyncio.gather(*(lane() for _ in range(20)))


@pytest.mark.slow
async def test_no_task_outlives_its_stream() -> None:
    """Within one process, where tasks can be counted: streams that are left, cut and refused."""
    figure = Figure(
        "tasks",
        "No task outlives its stream",
        "100 streams: left in the middle, cut off, ended; recognizer cut 5 times",
    )
    async with StandIn() as upstream, Cable(upstream.port) as cable:
        config = ResilientConfig((RivaConfig(endpoint=cable.endpoint),), ResilienceConfig())
        engine = build_engine(config)
        try:
            await engine.ready()
            before = {task.get_name() for task in asyncio.all_tasks()}
            base = len(before)

            async def audio(number: int) -> Any:
                for n in range(30):
                    yield frame(number * 100 + n)
                    await asyncio.sleep(0.02)

            async def one(number: int) -> None:
                await asyncio.sleep(number * 0.03)
                events = engine.stream(audio(number), Options(partials=True))
                heard = 0
                try:
                    async for event in events:
                        heard += type(event) is Partial
                        if number % 3 == 0 and heard == 5:
                            break
                except ASRError:
                    pass
                finally:
                    await events.aclose()

            running = [asyncio.create_task(one(n)) for n in range(100)]
            for n in range(5):
                await asyncio.sleep(0.5)
                cable.reset()
                running[n * 20 + 7].cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for _ in range(50):
                left = [
                    task for task in asyncio.all_tasks() if "_connected" not in repr(task) and "_pump" not in repr(task)
                ]
                if len(left) <= base:
                    break
                await asyncio.sleep(0.1)
            figure.add("tasks more than before", max(len(left) - base, 0), 0)
            figure.failures += [repr(task)[:200] for task in left][: 3 if len(left) > base else 0]
            figure.add("streams left at the recognizer", (await upstream.state())["open"], 0)
        finally:
            await engine.aclose()
    figure.settle()
