"""Jobs that wait: through an `off` of the operator's, which is not counted; for a database that does not open."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog

import sound
from asr.engine import AudioInput
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from asr.settings import load_settings
from asr.transcript import Transcript
from server.admission import Admission
from server.jobs.database import Database, sqlite_url
from server.jobs.model import NewJob, WorkRules
from server.jobs.places import PatientEngine
from server.jobs.service import Jobs
from server.jobs.store import Claimed, Store
from server.jobs.work import Work
from server.rollout.engine import RolloutEngine
from server.rollout.state import Position, Wanted
from server.settings import ServerSettings
from server.spool import Spool
from server.telemetry.hub import Telemetry
from word_engine import WordEngine

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


class Waking(WordEngine):
    """Fails the first streams, as a recognizer does that is just being started."""

    def __init__(self, fails: int) -> None:
        super().__init__()
        self.fails = fails
        self.traces: list[str] = []

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self.traces.append(options.traceparent)
        self.fails -= 1
        if self.fails >= 0:
            raise ASRError(Code.UNAVAILABLE, "The recognizer is being started.")
        async for event in super().stream(audio, options):
            yield event


class Queue:
    """Nothing is done of itself."""

    def job(self, conn: sa.Connection, job_id: str, spool: str) -> None:
        """Enqueued."""

    def webhook(self, conn: sa.Connection, job_id: str) -> None:
        """Enqueued."""


class Site:
    """A gateway's jobs, in memory but for their rows and their uploads."""

    def __init__(self, folder: Path, fails: int) -> None:
        self.now_s = 1_000_000.0
        self.base = Waking(fails)
        self.rollout = RolloutEngine(self.base)
        self.spool = Spool(folder / "spool", 1 << 24)
        self.spool.folder.mkdir()
        (self.spool.folder / "a.upload").write_bytes(sound.wav(b"\x00\x20" * 16_000))
        self.database = Database(sqlite_url(folder / "jobs.sqlite"))
        self.database.create()
        self.store = Store(self.database, Queue(), lambda: self.now_s)
        options = Options(model="words-en", traceparent=CALLER)
        self.store.add(NewJob("a", "me", "spool", "a.upload", "a.wav", options, {}, 1), max_pending=9)
        clock = asyncio.get_running_loop().time
        self.admission = Admission(10, random=random.random, clock=clock, engine_refusal=self.rollout.refusal)
        self.engine = PatientEngine(self.rollout, self.admission, Telemetry(), patience_ms=1000)
        rules = WorkRules(retry_for_ms=900_000)
        self.work = Work(self.store, self.engine, self.spool, "spool", rules, asyncio.get_running_loop())

    async def attempt(self) -> Transcript | ASRError | None:
        claimed = await asyncio.to_thread(self.store.claim, "a", "runner")
        assert isinstance(claimed, Claimed)
        async with asyncio.timeout(20):
            return await self.work._attempt(claimed)


async def test_hours_of_off_do_not_make_a_job_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the recognizer; then that is switched off for two hours; then it needs a moment to come up."""
    monkeypatch.setattr("server.jobs.work.RETRY_FIRST_MS", 300)
    site = Site(tmp_path, fails=2)
    doing = asyncio.create_task(site.attempt())
    while not site.base.traces:
        await asyncio.sleep(0.01)
    site.rollout.apply(Wanted(Position.OFF))
    await asyncio.sleep(0.6)
    assert len(site.base.traces) == 1, "it waits"
    site.now_s += 7200
    site.rollout.apply(Wanted())
    done = await doing
    assert isinstance(done, Transcript)
    assert done.text == "w1 w2 w3 w4 w5"
    assert len(site.base.traces) == 3
    site.database.dispose()


async def test_who_is_away_for_longer_than_a_job_may_wait_fails_it_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.jobs.work.RETRY_FIRST_MS", 50)
    site = Site(tmp_path, fails=9)
    doing = asyncio.create_task(site.attempt())
    while not site.base.traces:
        await asyncio.sleep(0.01)
    site.now_s += 901
    done = await doing
    assert isinstance(done, ASRError)
    assert "It was tried for 15 minutes" in done.message
    site.database.dispose()


async def test_the_recognizer_is_told_of_the_trace_of_who_handed_the_job_in(tmp_path: Path) -> None:
    site = Site(tmp_path, fails=0)
    assert isinstance(await site.attempt(), Transcript)
    assert {TRACE} == {traceparent.split("-")[1] for traceparent in site.base.traces}
    site.database.dispose()


async def test_who_waits_for_a_database_that_does_not_open_does_not_hold_the_end_up(tmp_path: Path) -> None:
    given = {"state_dir": Path("/proc/none")}
    settings = load_settings(ServerSettings, given, env={}, env_file=None)
    admission = Admission(10, random=random.random, clock=asyncio.get_running_loop().time)
    jobs = Jobs(settings, WordEngine(), admission, Spool(tmp_path, 1 << 20))
    with structlog.testing.capture_logs() as told:
        waiting = asyncio.create_task(jobs.check_room())
        while not told:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        async with asyncio.timeout(2):
            await jobs.drain()
            with pytest.raises(ASRError, match="cannot be reached"):
                await waiting
        await jobs.aclose()
    assert "No such file or directory: /proc/none" in str(told[0]["reason"])
