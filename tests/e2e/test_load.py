"""`riva-gateway load` as a process: rows, files, refusals, leaks, and how it ends."""

from __future__ import annotations

import asyncio
import json
import mmap
import re
import subprocess
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from asr.engine import AudioInput
from asr.events import Event
from asr.options import Options
from e2e.command import Shell, plain, sound, wait_for
from e2e.gateway import running
from load.summary import Sweep
from word_engine import WordEngine

PLAN = """
silence_ms = 200
chunk_ms = 80
[[utterances]]
words = ["one", "two", "three"]
word_ms = 280
"""


@pytest.fixture
def shell(tmp_path: Path, warm: Path) -> Shell:
    return Shell(tmp_path, command=warm)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return one_clip(tmp_path / "set")


def one_clip(folder: Path) -> Path:
    """A set of one clip, whose text is what the mock will have heard."""
    folder.mkdir()
    sound(folder / "count.wav", seconds=1.0)
    (folder / "count.txt").write_text("One, two, three.\n")
    return folder


@contextmanager
def gateway(shell: Shell, **settings: str) -> Iterator[str]:
    """A gateway of the mock as a process; its address."""
    plan = shell.home / "plan.toml"
    plan.write_text(PLAN)
    own = Shell(shell.home, settings)
    with own.start("serve", "--mock-plan", plan, "--no-tls", "--port", "0", "--grpc-port", "off") as process:
        yield wait_for(process, r"(http://localhost:[0-9]+)")[1]


def read(path: Path) -> Sweep:
    return Sweep.from_json(json.loads(path.read_text()))


def judged(sweep: Sweep, done: subprocess.CompletedProcess[bytes]) -> bool:
    """Whether all rows that count were kept; the status must fit. A busy machine may have been too slow to send."""
    assert done.returncode == (0 if any(row.slo_kept for row in sweep.rows) else 1), (done.stdout, done.stderr)
    return all(row.slo_kept for row in sweep.rows if not row.generator_limited)


async def load(shell: Shell, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """The command, beside a gateway of this loop."""
    return await asyncio.to_thread(shell.run, "load", *arguments)


@dataclass(frozen=True)
class Measured:
    """One run of the command, and the files that it was to write."""

    done: subprocess.CompletedProcess[bytes]
    document: Path
    page: Path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """A sweep, and a gateway driven beyond its bound: both wait most of the time, so they run side by side."""

    def run(name: str, sessions: str, **settings: str) -> Measured:
        shell = Shell(tmp_path_factory.mktemp(name))
        made = shell.home / "load.json", shell.home / "load.html"
        with gateway(shell, **settings) as url:
            done = shell.run(
                "load", "--url", url, "--set", one_clip(shell.home / "set"), "--sessions", sessions, "--duration", "1s",
                "--slo-first-partial-ms", "900", "--slo-final-ms", "1500", "--json", made[0], "--html", made[1],
            )  # fmt: skip
        return Measured(done, *made)

    with ThreadPoolExecutor() as threads:
        swept = threads.submit(run, "sweep", "1,5,10")
        overloaded = threads.submit(run, "overload", "4,12", MAX_STREAMS="4", FAIR_SHARE_RESERVE_PERCENT="0")
        return {"sweep": swept.result(), "overload": overloaded.result()}


def test_a_sweep_prints_a_row_each_and_writes_what_it_measured(measured: dict[str, Measured]) -> None:
    done, out = measured["sweep"].done, measured["sweep"].done.stdout.decode()
    sweep = read(measured["sweep"].document)
    assert judged(sweep, done)
    rows = [line.split() for line in out.splitlines() if re.match(r" +\d+ +\d+ ", line)]
    assert [row[0] for row in rows] == ["1", "5", "10"]
    assert [row[-1] for row in rows] == ["n/a" if row.generator_limited else "kept" for row in sweep.rows]
    assert sweep.recommendation.sentence in out
    assert [row.sessions for row in sweep.rows] == [1, 5, 10]
    for row in sweep.rows:
        assert row.done == row.offered == row.peak == row.sessions
        assert row.wer.value == 0.0
        assert row.final_p95_ms is not None
        assert row.throughput > 0.5 * row.sessions
        assert row.usage[0].source == "gateway"
        assert row.usage[0].memory_bytes
        assert row.usage[0].tasks
    assert sweep.info.complete
    assert {sample.sessions for sample in sweep.samples} == {0, 1, 5, 10}
    assert "<svg" in measured["sweep"].page.read_text()


def test_beyond_its_bound_a_gateway_refuses_clearly_and_serves_on(measured: dict[str, Measured]) -> None:
    done, out = measured["overload"].done, measured["overload"].done.stdout.decode()
    sweep = read(measured["overload"].document)
    first, second = sweep.rows
    assert not judged(sweep, done) or second.generator_limited
    assert first.slo_kept or first.generator_limited
    assert not second.slo_kept
    assert (first.refusals, second.refusals, second.done) == (0, 8, 4)
    assert (second.errors, second.disconnects, second.timeouts) == (0, 0, 0)
    assert second.retry_after == 1.0
    assert second.peak == 4
    assert second.wer.value == 0.0
    assert "refused: 8 of 12" in out
    assert "admits 4 streams at a time (MAX_STREAMS)" in out
    assert second.limit in ("refusals", "generator")


class Hoarder(WordEngine):
    """Keeps what it should let go: a piece of memory for every chunk, and tasks for every stream."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[mmap.mmap] = []
        self.tasks: list[asyncio.Task[bool]] = []

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self.tasks += [asyncio.create_task(asyncio.Event().wait()) for _ in range(4)]

        async def hoarded() -> AsyncGenerator[AudioInput]:
            async for item in audio:
                self.kept.append(mmap.mmap(-1, 100_000))  # memory that this process had no use for before
                self.kept[-1].write(b"x" * 100_000)
                yield item

        async for event in super().stream(hoarded(), options):
            yield event


async def test_a_soak_finds_what_leaks_and_nothing_in_what_does_not(shell: Shell, clips: Path, tmp_path: Path) -> None:
    soak = ("--set", clips, "--mode", "soak", "--sessions", "4", "--duration", "3s", "--session-length", "1s")
    lax = ("--slo-first-partial-ms", "5000", "--slo-final-ms", "5000", "--slo-errors", "100")
    hoarder = Hoarder()
    with gateway(shell) as flat_url:
        async with running(hoarder, tmp_path) as addresses:
            leaking, flat = await asyncio.gather(
                load(shell, "--url", addresses.url, *soak, *lax, "--json", shell.home / "leaking.json"),
                load(shell, "--url", flat_url, *soak, *lax, "--json", shell.home / "flat.json"),
            )
            for task in hoarder.tasks:
                task.cancel()
    assert leaking.returncode == 1, (leaking.stdout, leaking.stderr)
    assert b"a leak was found" in leaking.stderr
    assert re.search(rb"LEAK: gateway: memory grows by [0-9.]+ MB per minute", leaking.stdout)
    verdicts = {one.gauge: one.verdict for one in read(shell.home / "leaking.json").leaks}
    assert verdicts["memory_bytes"] == "grows"
    assert verdicts["tasks"] in ("grows", "stays")
    assert verdicts["open_files"] in ("flat", "unknown")
    # Three seconds are few to call memory flat.
    assert {one.verdict for one in read(shell.home / "flat.json").leaks} <= {"flat", "unknown"}, flat.stdout
    assert b"LEAK" not in flat.stdout
    assert judged(read(shell.home / "flat.json"), flat)


def test_who_cannot_be_reached_is_told_of_in_one_line(shell: Shell, clips: Path) -> None:
    done = shell.run("load", "--url", "http://localhost:9", "--set", clips)
    assert done.returncode == 3
    assert done.stdout == b""
    assert len(done.stderr.splitlines()) == 1
    assert b"http://localhost:9" in done.stderr


def test_ctrl_c_keeps_what_was_measured_and_leaves_nobody_behind(shell: Shell, clips: Path) -> None:
    document = shell.home / "load.json"
    with gateway(shell) as url:
        status, shown = shell.on_terminal(
            "load", "--url", url, "--set", clips, "--sessions", "1,3", "--duration", "1s", "--json", document,
            "--slo-first-partial-ms", "5000", "--slo-final-ms", "5000", until="3 speak", columns=160,
        )  # fmt: skip
    assert status == 130
    assert "1 speak" in plain(shown)
    assert "Interrupted" in plain(shown)
    sweep = read(document)
    assert not sweep.info.complete
    assert [row.sessions for row in sweep.rows] == [1]
    assert sweep.recommendation.sentence.split(":")[0] in plain(shown)
    assert not [one for one in psutil.process_iter(["cmdline"]) if _sends_for(one, shell)]


def test_ctrl_c_keeps_the_sessions_of_the_running_row_that_were_over(shell: Shell, clips: Path) -> None:
    document = shell.home / "load.json"
    with gateway(shell) as url:
        status, shown = shell.on_terminal(
            "load", "--url", url, "--set", clips, "--mode", "churn", "--sessions", "3", "--duration", "60s",
            "--json", document, until="[1-9] done", columns=160,
        )  # fmt: skip
    assert status == 130
    (row,) = read(document).rows
    assert row.interrupted
    assert not row.slo_kept
    assert 1 <= row.offered == row.done
    assert f"interrupted when {row.offered} session" in plain(shown)
    assert plain(shown).count("LEAK") == 0
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l"), "the cursor is back"
    assert not [one for one in psutil.process_iter(["cmdline"]) if _sends_for(one, shell)]


def _sends_for(process: psutil.Process, shell: Shell) -> bool:
    """Whether it is a process that sends, started from that place."""
    try:
        return "load.worker" in process.cmdline() and process.cwd() == str(shell.home)
    except psutil.Error:
        return False
