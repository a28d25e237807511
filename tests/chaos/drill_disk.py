"""The disk fills under live streams: they feel nothing, uploads are refused, and nothing is broken when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import re
import resource
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import psutil

import rules
import sound
from chaos.clients import Script, now
from chaos.drill_books import (
    Samples,
    lines_of,
    of_log,
    of_metrics,
    of_records,
    rows,
    scrape,
    torn,
    total,
    until,
    until_over,
)
from chaos.drill_clients import WHOLE_FRAME, House, recorded
from chaos.figures import Figure
from chaos.gateway_process import GatewayProcess
from chaos.standin import StandIn

LIVE = 12
FRAMES = 60
DISK_MIB = 16
LARGEST_BYTES = 1_000_000
"""Where nothing can be mounted, a full disk is one on which no file grows beyond this."""
UPLOAD_FRAMES = 700
ROUNDS = 5
PATHS = ("/v1/audio/transcriptions", "/transcribe", "/invocations", "/transcribe/async")


@dataclass(slots=True)
class TinyDisk:
    """A folder that can be full.

    Attributes:
        folder: where it is.
        mounted: it is a file system of its own; else it is full by a limit that its writers are given.
    """

    folder: Path
    mounted: bool

    def fill(self, *pids: int) -> None:
        """No more fits on it, for these processes at least."""
        if not self.mounted:
            for pid in pids:
                psutil.Process(pid).rlimit(resource.RLIMIT_FSIZE, (LARGEST_BYTES, resource.RLIM_INFINITY))
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(65_536)):
                pass

    def free(self, *pids: int) -> None:
        """There is room again."""
        (self.folder / "filler").unlink(missing_ok=True)
        if not self.mounted:
            for pid in pids:
                psutil.Process(pid).rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def tiny_disk() -> Iterator[TinyDisk]:
    """A small file system in memory, where this user may mount one."""
    with tempfile.TemporaryDirectory(prefix="drill-disk-") as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", name]
        mounted = not subprocess.run(mount, capture_output=True, check=False).returncode
        try:
            yield TinyDisk(Path(name), mounted)
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", name], check=True)


async def disk() -> Figure:
    """Live streams and uploads while there is room, while there is none, and after it."""
    figure = Figure(
        "drill-disk-fills", "A full disk costs no live stream a word; uploads are told, records wait",
        f"{LIVE} live streams, others that come and go, uploads at four paths; the disk of records, uploads and "
        "jobs is full for 3 s",
    )  # fmt: skip
    with tiny_disk() as tiny:
        records, other = tiny.folder / "records", tiny.folder / "other"
        _pad(records)
        settings = {"STATE_DIR": str(tiny.folder), "RESUME_WINDOW_MS": "0"}
        async with (
            StandIn() as upstream,
            GatewayProcess(upstream.endpoint, **settings) as gateway,
            GatewayProcess(upstream.endpoint, RECORDS_DIR=str(other), JOBS="off") as ends,
        ):
            _pad(other)
            house, second = House(gateway.port, gateway.grpc_port), House(ends.port, ends.grpc_port)
            await house.job(90)
            live = [asyncio.create_task(house.native(Script(n, FRAMES, **WHOLE_FRAME))) for n in range(LIVE)]
            over = asyncio.Event()
            guests = asyncio.create_task(_guests(house, over))
            await asyncio.sleep(1)
            tiny.fill(gateway.pid, ends.pid)
            begun = now()
            statuses = Counter[str]()
            for _ in range(ROUNDS):
                await asyncio.gather(*(_upload(house, path, statuses) for path in PATHS))
            await _end_without_a_disk(figure, ends, second)
            await asyncio.sleep(max(begun + 3 - now(), 0))
            meanwhile = await scrape(gateway.port)
            tiny.free(gateway.pid)
            figure.add("refused with 507", statuses["507"], ROUNDS * len(PATHS), least=True)
            figure.demand(set(statuses) == {"507"}, f"uploads were answered {dict(statuses)}")
            _alert(figure, meanwhile)
            await _again(figure, house)
            over.set()
            await guests
            heard = [record.verdict() for record in await asyncio.gather(*live)]
            figure.add("words lost in live streams", sum(v.lost for v in heard), 0)
            figure.add("live streams not faultless", sum(not v.faultless for v in heard), 0)
            samples = await until_over(gateway.port)
            gateway.terminate()
            figure.demand(await gateway.ended() == 0, f"it ended with {gateway.returncode}")
            _compare(figure, house, samples, gateway.log(), tiny.folder)
            figure.measured.append("a tmpfs" if tiny.mounted else "a limit on the size of files in place of a tmpfs")
    return figure


def _pad(folder: Path) -> None:
    """A file of records of today that is as large as a file may be where a limit plays the full disk.

    It ends with a page of the memory that holds it, so that no further line finds room in there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    line = '{"ts":"2026-01-01T00:00:00.000Z","status":"refused","code":"overloaded","face":"native","count":0}'
    lines = (line + "\n") * (LARGEST_BYTES // len(line))
    missing = -(len(lines) + len(line) + 1) % mmap.PAGESIZE
    name = f"streams-{datetime.now(UTC).date().isoformat()}.jsonl"
    (folder / name).write_text(lines + line + " " * missing + "\n")


async def _guests(house: House, over: asyncio.Event) -> None:
    """Short streams all the while: each is a record to be written."""
    number = 100
    while not over.is_set():
        number += 4
        await asyncio.gather(*(house.native(Script(number + n, 4, pace=2, **WHOLE_FRAME)) for n in range(4)))


async def _upload(house: House, path: str, statuses: Counter[str]) -> None:
    form = {"file": ("a.wav", sound.wav(recorded(700, UPLOAD_FRAMES)), "audio/wav")}
    url = f"http://127.0.0.1:{house.port}"
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20, verify=False) as http:
        begun = now()
        answer = await http.post(path, files=form)
    statuses[str(answer.status_code) + ("" if answer.headers.get("Retry-After") else " without Retry-After")] += 1
    face = {"/v1/audio/transcriptions": "openai", "/transcribe": "rest", "/invocations": "sagemaker"}.get(path)
    if face is not None:
        house.ledger.over(face, "server_error")
    else:
        house.ledger.refused("rest", answer.status_code, now() - begun, answer.headers.get("Retry-After"))


async def _end_without_a_disk(figure: Figure, gateway: GatewayProcess, house: House) -> None:
    """One that goes down meanwhile cannot write its records: it says so, and does not wait for room."""
    await asyncio.gather(*(house.native(Script(800 + n, 4, pace=2, **WHOLE_FRAME)) for n in range(3)))
    await asyncio.sleep(1.2)
    begun = now()
    gateway.terminate()
    code = await gateway.ended()
    figure.add("a second one goes down meanwhile within", now() - begun, 5, "s")
    figure.demand(code == 0, f"the second one ended with {code}")
    said = Counter(line["event"] for line in lines_of(gateway.log()))
    figure.add("and says that records are lost", sum(n for event, n in said.items() if "records dropped" in event), 1,
               least=True)  # fmt: skip


def _alert(figure: Figure, samples: Samples) -> None:
    """The series that the shipped rule looks for is there: its second half fires on the first sight of one."""
    expr = next(alert.expr for alert in rules.alerts() if alert.name == "RivaGatewayDiskFull")
    names = set(re.findall(r'riva_gateway_(\w+)\{code="storage_full"\}', expr))
    seen = sum(total(samples, name, code="storage_full") for name in names)
    figure.add("seen by the alert RivaGatewayDiskFull", seen, 1, least=True)


async def _again(figure: Figure, house: House) -> None:
    """Uploads and jobs work again, without anybody's help."""
    begun = now()

    async def taken() -> bool:
        url = f"http://127.0.0.1:{house.port}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20, verify=False) as http:
            form = {"file": ("a.wav", sound.wav(recorded(701)), "audio/wav")}
            answer = await http.post("/transcribe", files=form)
        house.ledger.over("rest", "ok" if answer.status_code == 200 else "server_error", 10)
        return answer.status_code == 200

    await until("uploads are taken again", taken)
    await house.job(91)
    figure.add("uploads and jobs are done again after", now() - begun, 10, "s")


def _compare(figure: Figure, house: House, samples: Samples, log: str, folder: Path) -> None:
    mine = house.ledger.books
    unlike = [
        *mine.unlike(of_metrics(samples), "metrics", "admitted", "closed", "refused"),
        *mine.unlike(of_records(folder / "records"), "records", "closed", "refused", "words"),
        *mine.unlike(of_log(log), "log", "admitted", "closed"),
    ]
    figure.add("records", sum(row["status"] != "refused" for row in rows(folder / "records")), 20, least=True)
    figure.add("counts that differ", len(unlike), 0)
    figure.add("lines that the full disk cut off, written again as a whole", torn(folder / "records"), 3)
    figure.failures += [*unlike[:10], *house.ledger.wrong[:5]]
    figure.add("records dropped", total(samples, "records_dropped_total"), 0)
    events = Counter(line["event"] for line in lines_of(log))
    figure.add("lines that say why", events["records cannot be written; streams go on"], 1)
    figure.demand(events["records cannot be written; streams go on"] == 1, "nobody said that records are not written")
    others = events.total() - events["stream opened"] - events["stream closed"]
    figure.add("other lines in the log", others, 120)
    figure.add("files of uploads left over", len(list(folder.glob("**/*.upload"))), 0)
    if '"exception"' in log:
        figure.failures.append(
            "an exception in the log: " + next(x for x in log.splitlines() if '"exception"' in x)[:600]
        )
    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite")) as jobs:
        figure.demand(jobs.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the database of jobs is broken")
