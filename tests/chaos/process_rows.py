"""Rows 61 to 66 of the fault catalogue as far as streams go: the gateway's own process, and the machine under it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from chaos.clients import Record, Script, native
from chaos.numbered import FRAME_BYTES, FRAMES_PER_CLIENT, judge
from chaos.other_clients import end_dialect, riva_grpc
from chaos.proxy import Proxy
from chaos.raw_clients import handshake
from chaos.resume_rows import resuming
from chaos.scene import Row, Scene, now

PACKAGES = Path(__file__).resolve().parents[2] / "scripts" / "dev" / "system-packages.sh"
PATIENCE_S = 40.0
HOUR_S = 3_600


def _status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return 0


async def drain(scene: Scene) -> None:
    """SIGTERM with 50 live streams on three faces."""
    gateway = scene.gateway
    whole = {"min_chunk": FRAME_BYTES, "max_chunk": FRAME_BYTES}
    scripts = [Script(n, 200, seed=scene.outcome.seed, **whole) for n in range(50)]
    talking = [
        *(asyncio.create_task(native(gateway.port, s, patience_s=PATIENCE_S)) for s in scripts[:30]),
        *(asyncio.create_task(end_dialect(gateway.port, s, patience_s=PATIENCE_S)) for s in scripts[30:40]),
        *(asyncio.create_task(riva_grpc(gateway.grpc_port, s, patience_s=PATIENCE_S)) for s in scripts[40:]),
    ]
    await asyncio.sleep(3.5)
    scene.check((await scene.upstream.state())["open"] == 50, "not all 50 streams were on")
    struck_at = now()
    gateway.terminate()
    while (ready := await asyncio.to_thread(_status, gateway.port, "/readyz")) == 200 and now() < struck_at + 2:
        await asyncio.sleep(0.01)
    scene.note(f"not ready after {(now() - struck_at) * 1000:.0f} ms")
    scene.check(ready == 503, f"readiness says {ready}")
    scene.check(await asyncio.to_thread(_status, gateway.port, "/healthz") == 200, "and it is not alive")
    late = await native(gateway.port, Script(60, 5), patience_s=5)
    scene.check(late.http_status == 503 and bool(late.retry_after), f"a new stream got {late.http_status}")
    records = await asyncio.gather(*talking)
    code = await gateway.ended()
    scene.answered(now() - struck_at)
    scene.check(code == 0, f"it ended with {code}")
    for n, record in enumerate(records):
        _came_home(scene, n, record, struck_at)
    scene.read_log(gateway)


def _came_home(scene: Scene, n: int, record: Record, struck_at: float) -> None:
    """All that it was told it would get is there: a prefix of its audio without a hole, up to the drain."""
    face = "native" if n < 30 else "END" if n < 40 else "gRPC"
    first = record.script.client * FRAMES_PER_CLIENT
    said = [int(word[1:]) - first for heard in record.heard() for word in heard.text.split()]
    assert record.first_audio_at is not None
    sent_s = struck_at - record.first_audio_at
    reached = (max(said, default=-1) + 1) / 10
    if face == "native":
        summary = record.of("summary")
        reached = summary[0]["audio_ms"] / 1000 if summary else 0.0
        scene.check(bool(summary), f"{face}: no summary, {record.messages[-1:]}")
        draining = [m for m in record.of("status") if m["state"] == "draining"]
        scene.check(bool(draining), f"{face}: nobody said that it drains")
    scene.check(reached >= sent_s - 0.3, f"{face}: {sent_s:.1f} s were sent, {reached:.1f} s came home")
    sent = [s for s in record.script.audio()[1] if s.end_ms <= reached * 1000]
    scene.count(record, judge(sent, record.heard()))
    scene.check(
        record.close_code != 1006 and not record.hung, f"{face}: ended with {record.close_code}, {record.hung=}"
    )
    if face == "gRPC":
        scene.check(record.status in ("OK", "UNAVAILABLE", "MASKED"), f"gRPC: {record.status}")


async def second_signal(scene: Scene) -> None:
    """SIGTERM, and another one while it waits for its streams."""
    crowd = scene.crowd(20, 100)
    await asyncio.sleep(2)
    scene.gateway.terminate()
    await asyncio.sleep(0.3)
    scene.check(scene.gateway.returncode is None, "it did not wait for health checks to see that it drains")
    struck_at = now()
    scene.gateway.terminate()
    code = await scene.gateway.ended()
    scene.answered(now() - struck_at)
    scene.note(f"exit status {code}")
    for record in await asyncio.gather(*crowd):
        scene.outcome.broken += not record.hung
        scene.check(not record.hung, "a client hangs")
        scene.answered(max(record.ended_at - struck_at, 0))


async def killed(scene: Scene) -> None:
    """SIGKILL under 20 sessions of `asr.connect`, twice; a fresh process takes over half a second later."""
    gateway = scene.gateway
    async with Proxy(gateway.port) as proxy:
        talking = [
            asyncio.create_task(resuming(proxy.port, Script(n, 120, ((50, 10),), seed=scene.outcome.seed)))
            for n in range(20)
        ]
        for _ in range(2):
            await asyncio.sleep(scene.random.uniform(2.5, 4.0))
            fresh = asyncio.create_task(scene.another_gateway())
            gateway.kill()
            await gateway.ended()
            struck_at = now()
            gateway = await fresh
            proxy.target_port = gateway.port
            scene.note(f"a fresh one after {now() - struck_at:.1f} s")
        records = await asyncio.gather(*talking)
    for record in records:
        scene.count(record)
        scene.outcome.gapped += len(record.of("gap"))
        scene.check(record.whole, f"client {record.script.client}: {record.hung=} {record.messages[-1:]}")
        scene.check(not record.of("gap"), f"gaps: {record.of('gap')}")
    scene.read_log(gateway)


async def no_descriptors(scene: Scene) -> None:
    """Twenty more descriptors than it has, and a hundred who want one; later all is well again."""
    crowd = scene.crowd(20, 90)
    await asyncio.sleep(1.5)
    process = psutil.Process(scene.gateway.pid)
    usual = process.rlimit(psutil.RLIMIT_NOFILE)
    bound = process.num_fds() + 20
    resource.prlimit(scene.gateway.pid, resource.RLIMIT_NOFILE, (bound, usual[1]))
    served = 0
    held: list[asyncio.StreamWriter] = []

    async def one() -> None:
        nonlocal served
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.gateway.port)
        held.append(writer)
        writer.write(handshake("/v1/stream"))
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            async with asyncio.timeout(2):
                await reader.readuntil(b"\r\n\r\n")
                served += 1

    before = process.cpu_times()
    begun = now()
    await asyncio.gather(*(one() for _ in range(100)))
    after = process.cpu_times()
    busy = (after.user + after.system - before.user - before.system) / (now() - begun)
    scene.note(f"{served} of 100 were answered, {busy * 100:.0f} % of a core meanwhile")
    scene.check(busy < 0.6, f"{busy * 100:.0f} % of a core: it spins")
    for writer in held:
        writer.transport.abort()
    resource.prlimit(scene.gateway.pid, resource.RLIMIT_NOFILE, usual)
    healed_at = now()
    while True:
        record = await native(scene.gateway.port, Script(900, 5, pace=5), patience_s=5)
        if record.whole or now() > healed_at + 10:
            break
        await asyncio.sleep(0.1)
    scene.check(record.whole, "nobody is served after it")
    scene.answered(now() - healed_at)
    await scene.come_out_whole(crowd)


def clock_library() -> str:
    """Where libfaketime is; it is installed where it is missing."""
    found = subprocess.run([str(PACKAGES), "clock"], capture_output=True, text=True, check=True, timeout=180)
    return found.stdout.strip()


async def clock_steps(scene: Scene) -> None:
    """The wall clock jumps two hours forward, three back, and home again, under 20 streams and one that resumes."""
    library = await asyncio.to_thread(clock_library)
    folder = scene.stack.enter_context(contextlib.closing(_Folder()))
    folder.set(0)
    gateway = await scene.another_gateway(
        LD_PRELOAD=library, FAKETIME_TIMESTAMP_FILE=str(folder.file), FAKETIME_NO_CACHE="1", DONT_FAKE_MONOTONIC="1"
    )
    async with Proxy(gateway.port) as proxy:
        crowd = [
            asyncio.create_task(native(gateway.port, Script(n, 110, seed=scene.outcome.seed), patience_s=PATIENCE_S))
            for n in range(19)
        ]
        crowd.append(asyncio.create_task(resuming(proxy.port, Script(19, 110, seed=scene.outcome.seed))))
        for offset in (2 * HOUR_S, -HOUR_S, 0):
            await asyncio.sleep(2)
            folder.set(offset)
            await asyncio.sleep(0.5)
            proxy.reset()
        records = await scene.come_out_whole(crowd)
    hours = re.findall(r'"timestamp": "\S+T(\d\d):', gateway.log())
    scene.note(f"hours in the log: {' '.join(dict.fromkeys(hours))}")
    scene.check(len(set(hours)) >= 3, f"the clock did not step: {set(hours)}")
    for record in records:
        moved = [m["state"] for m in record.of("status") if record.script.client != 19]
        scene.check(not moved, f"a deadline misfired: {moved}")
        scene.check(record.wait_ms() < 3_000, f"someone waited {record.wait_ms()} ms")
    scene.read_log(gateway)


class _Folder:
    """Where the offset of a process's clock is written."""

    def __init__(self) -> None:
        import tempfile

        self._folder = tempfile.TemporaryDirectory(prefix="chaos-clock-")
        self.file = Path(self._folder.name) / "offset"

    def set(self, offset_s: int) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}\n")
        fresh.replace(self.file)

    def close(self) -> None:
        self._folder.cleanup()


PROCESS_ROWS = (
    Row("61a", "SIGTERM with live streams", "50 on three faces; DRAIN_DELAY_MS of 1 s", drain, streams=50,
        settings={"DRAIN_DELAY_MS": "1000"}, why="so that health checks can see it", answer_ms=10_000),
    Row("61b", "A second SIGTERM", "20 streams", second_signal, settings={"DRAIN_DELAY_MS": "5000"},
        why="to be asked while it waits", answer_ms=2_000),
    Row("62", "SIGKILL of the gateway, twice", "asr.connect through a proxy; a fresh process takes over", killed),
    Row("64", "No descriptor is free", "RLIMIT_NOFILE lowered under 20 streams, 100 who connect", no_descriptors,
        settings={"RESUME_WINDOW_MS": "1000"}, why="to see what is left over", answer_ms=5_000),
    Row("66", "The wall clock steps: +2 h, -1 h, back", "libfaketime, 20 streams, 3 resumes", clock_steps),
)  # fmt: skip
