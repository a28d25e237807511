"""What the gateway costs and adds: CPU per second of audio, latency over the direct way.

    client ──WebSocket──► gateway (riva engine) ──gRPC──► gateway (mock engine)      the way measured
    client ──gRPC───────────────────────────────────────► gateway (mock engine)      the direct way

Everything runs on this machine, in processes of its own. Latency is taken from the moment a chunk is sent
to the moment the result that covers its audio arrives; the two ways take turns in one run, so that the
difference holds on a machine that is shared. `python load/bench.py --help` shows the knobs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc.aio
import psutil
import uvloop
from websockets.asyncio.client import connect

from asr.riva_proto import asr as asr_pb
from asr.riva_proto import asr_grpc

BYTES_PER_MS = 32
PLAN = {
    "utterances": [{"words": [f"word{i}" for i in range(12)], "word_ms": 200, "pause_ms": 600}],
    "chunk_ms": 100,
    "hears": "clock",
}


@dataclass
class Measured:
    """One way at one chunk size."""

    way: str
    chunk_ms: int
    streams: int
    audio_s: float = 0.0
    results: int = 0
    errors: int = 0
    gateway_cpu_ms_per_audio_s: float | None = None
    upstream_cpu_ms_per_audio_s: float | None = None
    rss_kb_per_stream: float | None = None
    late_ms_p99: float = 0.0
    latencies_ms: list[float] = field(default_factory=list, repr=False)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


class Stream:
    """Paces one stream's chunks and times the results that come back."""

    def __init__(self, measured: Measured, seconds: float) -> None:
        self.measured = measured
        self.chunk = bytes(measured.chunk_ms * BYTES_PER_MS)
        self.count = int(seconds * 1000 / measured.chunk_ms)
        self.sent_at: list[float] = []
        self.lateness: list[float] = []

    async def pace(self, start: float) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        for number in range(self.count):
            due = start + number * self.measured.chunk_ms / 1000
            await asyncio.sleep(max(due - clock(), 0))
            self.lateness.append(max(clock() - due, 0.0))
            self.sent_at.append(time.perf_counter())  # the loop's clock counts whole milliseconds
            yield self.chunk
        self.measured.audio_s += self.count * self.measured.chunk_ms / 1000

    def result(self, audio_end_ms: float) -> None:
        """A result that covers the audio up to here has arrived."""
        index = -(-int(audio_end_ms) // self.measured.chunk_ms) - 1
        if 0 <= index < len(self.sent_at):
            self.measured.latencies_ms.append((time.perf_counter() - self.sent_at[index]) * 1000)
            self.measured.results += 1


async def over_websocket(stream: Stream, port: int, start: float, key: str = "") -> None:
    shown = {"Authorization": f"Bearer {key}"} if key else None
    url = f"ws://127.0.0.1:{port}/v1/stream"
    async with connect(url, compression=None, proxy=None, additional_headers=shown) as websocket:
        await websocket.send('{"type":"start","words":false}')

        async def listen() -> None:
            async for text in websocket:
                message = json.loads(text)
                if message["type"] == "partial":
                    stream.result(message["end_ms"])
                elif message["type"] == "error":
                    stream.measured.errors += 1

        listening = asyncio.create_task(listen())
        async for chunk in stream.pace(start):
            await websocket.send(chunk)
        await websocket.send('{"type":"stop"}')
        await asyncio.wait_for(listening, 30)


async def over_grpc(stream: Stream, port: int, start: float, channel: grpc.aio.Channel) -> None:
    call = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize()
    config = asr_pb.StreamingRecognitionConfig(interim_results=True)
    config.config.encoding, config.config.sample_rate_hertz = 1, 16_000
    await call.write(asr_pb.StreamingRecognizeRequest(streaming_config=config))

    async def listen() -> None:
        async for response in call:
            for result in response.results:
                if not result.is_final:
                    # The face rounds to the millisecond that audio_processed names.
                    stream.result(round(result.audio_processed * 1000))

    listening = asyncio.create_task(listen())
    async for chunk in stream.pace(start):
        await call.write(asr_pb.StreamingRecognizeRequest(audio_content=chunk))
    await call.done_writing()
    await asyncio.wait_for(listening, 30)


async def run_way(
    measured: Measured,
    seconds: float,
    port: int,
    gateway: psutil.Process | None,
    upstream: psutil.Process,
    key: str = "",
) -> None:
    """All streams of one round. `key`: what its clients show."""
    loop = asyncio.get_running_loop()
    streams = [Stream(measured, seconds) for _ in range(measured.streams)]
    start = loop.time() + 1.0
    phase = measured.chunk_ms / 1000 / measured.streams
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) for _ in range(2)
    ]
    rss = gateway.memory_info().rss if gateway else 0
    before = cpu_s(gateway), cpu_s(upstream)
    if measured.way == "gateway":
        work = [over_websocket(s, port, start + i * phase, key) for i, s in enumerate(streams)]
    else:
        work = [over_grpc(s, port, start + i * phase, channels[i % 2]) for i, s in enumerate(streams)]
    half = asyncio.create_task(asyncio.sleep(1 + seconds / 2))
    tasks = [asyncio.ensure_future(w) for w in work]
    await half
    if gateway:
        measured.rss_kb_per_stream = (gateway.memory_info().rss - rss) / 1024 / measured.streams
    for done in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(done, BaseException):
            measured.errors += 1
            print(f"  a stream failed: {done!r}", file=sys.stderr)
    after = cpu_s(gateway), cpu_s(upstream)
    for channel in channels:
        await channel.close(None)
    if measured.audio_s:
        if gateway:
            measured.gateway_cpu_ms_per_audio_s = (after[0] - before[0]) * 1000 / measured.audio_s
        measured.upstream_cpu_ms_per_audio_s = (after[1] - before[1]) * 1000 / measured.audio_s
    lateness = sorted(value * 1000 for stream in streams for value in stream.lateness)
    measured.late_ms_p99 = lateness[int(len(lateness) * 0.99)] if lateness else 0.0


def cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    if sys.platform == "linux":  # to the nanosecond; what /proc tells is counted in hundredths of a second
        return time.clock_gettime((~process.pid << 3) | 2)
    times = process.cpu_times()
    return times.user + times.system


@asynccontextmanager
async def gateway(
    state: Path, name: str, *arguments: str, **env: str
) -> AsyncIterator[tuple[psutil.Process, int, int]]:
    """A gateway process; yields it with its HTTP and gRPC ports."""
    log = (state / f"{name}.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", "serve", "--no-tls", "--port", "0", "--grpc-port", "0", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=log,
        env={**os.environ, "STATE_DIR": str(state), "LOG_LEVEL": "warning", "LOG_FORMAT": "json", **env},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        ports: dict[str, int] = {}
        async with asyncio.timeout(30):
            while len(ports) < 2:
                line = (await process.stdout.readline()).decode()
                if not line:
                    raise RuntimeError(f"the {name} did not start: {(state / f'{name}.log').read_text()[-2000:]}")
                for key, label in (("http", "page, HTTP and WebSocket: "), ("grpc", "Riva gRPC: ")):
                    if line.startswith(label):
                        ports[key] = int(line.strip().rsplit(":", 1)[1])
        draining = asyncio.create_task(process.stdout.read())
        yield psutil.Process(process.pid), ports["http"], ports["grpc"]
        draining.cancel()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()
        log.close()


async def bench(streams: int, seconds: float, chunk_sizes: list[int], rounds: int) -> list[Measured]:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        plan = state / "plan.json"
        plan.write_text(json.dumps(PLAN))
        async with (
            gateway(state, "upstream", "--engine", "mock", ASR_MOCK_PLAN=str(plan)) as (upstream, _, grpc_port),
            gateway(state, "gateway", "--engine", "riva", RIVA_ENDPOINTS=f"127.0.0.1:{grpc_port}") as (front, port, _),
        ):
            warm_up = Measured("gateway", 100, 2)
            await run_way(warm_up, 1.0, port, front, upstream)
            for chunk_ms in chunk_sizes:
                for _ in range(rounds):
                    for way, at, process in (("direct", grpc_port, None), ("gateway", port, front)):
                        measured = Measured(way, chunk_ms, streams)
                        await run_way(measured, seconds, at, process, upstream)
                        results.append(measured)
                        say(measured)
    return results


def say(m: Measured) -> None:
    cpu = "     –" if m.gateway_cpu_ms_per_audio_s is None else f"{m.gateway_cpu_ms_per_audio_s:6.2f}"
    print(
        f"  {m.way:8} {m.chunk_ms:4} ms  gateway CPU {cpu} ms/audio s  latency p50 {m.percentile(0.5):6.2f} "
        f"p99 {m.percentile(0.99):7.2f} ms  results {m.results:6}  "
        f"errors {m.errors}  own lateness p99 {m.late_ms_p99:.1f} ms",
        flush=True,
    )


def table(results: list[Measured]) -> str:
    """Medians over the rounds, as a Markdown table."""
    lines = [
        "| chunks | gateway CPU, ms per audio second | latency through the gateway p50 / p99, ms "
        "| direct p50 / p99, ms | added p50 / p99, ms | memory per stream, KB | errors |",
        "|---|---|---|---|---|---|---|",
    ]

    def median(ms: list[Measured], pick: Callable[[Measured], float | None]) -> float:
        return statistics.median(value for m in ms if (value := pick(m)) is not None)

    for chunk_ms in dict.fromkeys(m.chunk_ms for m in results):
        through = [m for m in results if m.way == "gateway" and m.chunk_ms == chunk_ms]
        direct = [m for m in results if m.way == "direct" and m.chunk_ms == chunk_ms]
        p50, p99 = (median(through, lambda m, s=s: m.percentile(s)) for s in (0.5, 0.99))  # type: ignore[misc]
        d50, d99 = (median(direct, lambda m, s=s: m.percentile(s)) for s in (0.5, 0.99))  # type: ignore[misc]
        lines.append(
            f"| {chunk_ms} ms | {median(through, lambda m: m.gateway_cpu_ms_per_audio_s):.2f} | {p50:.1f} / {p99:.1f} "
            f"| {d50:.1f} / {d99:.1f} | {p50 - d50:.1f} / {p99 - d99:.1f} "
            f"| {median(through, lambda m: m.rss_kb_per_stream):.0f} | {sum(m.errors for m in through + direct)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100, help="streams at a time (default 100)")
    parser.add_argument("--seconds", type=float, default=10.0, help="audio per stream and round (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way, taking turns (default 3)")
    parser.add_argument("--chunks", default="100,20", help="chunk sizes in ms (default 100,20)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    chosen = parser.parse_args()
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, {time.ctime()}")
    chunk_sizes = [int(text) for text in chosen.chunks.split(",")]
    results = uvloop.run(bench(chosen.streams, chosen.seconds, chunk_sizes, chosen.rounds))
    print(f"\n{chosen.streams} streams, {chosen.seconds:g} s of audio each, median of {chosen.rounds} rounds:\n")
    print(table(results))
    if chosen.json:
        rows = [{k: v for k, v in asdict(m).items() if k != "latencies_ms"} for m in results]
        chosen.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
