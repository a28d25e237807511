"""Jobs in rough weather: a database that is locked, full, silent or cut off in mid-commit; callers that leave."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

from timing import in_time

from .jobs_driver import Refused, site
from .postgres import Postgres, postgres
from .relay import relay
from .test_jobs import refused, words

ANSWER_S = 15.0
"""Within this every call of jobs is answered, whatever the database does."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as there:
        yield there


async def test_a_caller_that_leaves_while_the_job_is_added_takes_nothing_away(tmp_path: Path) -> None:
    async with site(tmp_path) as there:
        gateway = await there.gateway()
        await gateway.over((await gateway.submit(there.recording(0.2)))["id"])
        lock = sqlite3.connect(tmp_path / "one" / "jobs.sqlite", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        left = await gateway.ask(
            "submit", path=str(there.recording(1)), filename="a", owner="me", idempotency_key="k", patience_s=0.5
        )
        assert left is None
        lock.execute("ROLLBACK")
        lock.close()
        async with asyncio.timeout(ANSWER_S):
            while len(await gateway.ask("list")) < 2:
                await asyncio.sleep(0.02)
        again = await gateway.submit(there.recording(1), idempotency_key="k")
        done = await gateway.over(again["id"])
        assert (done["status"], done["text"]) == ("completed", words(1))
        assert await gateway.ask("files") == []


async def test_a_commit_whose_answer_is_lost_keeps_its_recording(server: Postgres, tmp_path: Path) -> None:
    async with relay(server.database()) as way, site(tmp_path, way.url) as there:
        gateway = await there.gateway(pace=1.0, jobs_concurrency=1)
        first = await gateway.submit(there.recording(3))
        await gateway.until(first["id"], "processing")  # so that the other one waits
        recording = there.recording(1)
        way.cut_commit_of = b"INSERT INTO gateway_jobs"
        error = await refused(gateway.submit(recording, idempotency_key="k"))
        assert error.code == "unavailable"
        assert len(await asyncio.to_thread(there.query, "SELECT id FROM gateway_jobs")) == 2
        async with asyncio.timeout(ANSWER_S):
            while "id" not in (job := await _or_away(gateway.submit(recording, idempotency_key="k"))):
                await asyncio.sleep(0.1)
        done = await gateway.over(job["id"])
        assert (done["status"], done["text"]) == ("completed", words(1))


async def _or_away(asking: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    try:
        return await asking
    except Refused as error:
        if error.code != "unavailable":
            raise
        return {}


async def test_a_database_that_falls_silent_keeps_nobody(server: Postgres, tmp_path: Path) -> None:
    async with relay(server.database()) as way, site(tmp_path, way.url) as there:
        gateway = await there.gateway(pace=2.0)
        running = await gateway.submit(there.recording(10))
        await gateway.until(running["id"], "processing", percent=1)
        way.open.clear()
        begun = time.monotonic()
        asked = [
            *(gateway.ask("get", id=running["id"]) for _ in range(8)),
            gateway.ask("list"),
            gateway.submit(there.recording(0.4), idempotency_key="k"),
        ]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(answer, Refused), answer
            assert answer.code == "unavailable"
        in_time(time.monotonic() - begun, ANSWER_S)
        way.open.set()
        assert (await gateway.over(running["id"]))["text"] == words(10)
        again = await gateway.submit(there.recording(0.4), idempotency_key="k")
        assert (await gateway.over(again["id"]))["text"] == words(0.4)


async def test_a_gateway_ends_while_its_database_is_silent(server: Postgres, tmp_path: Path) -> None:
    url = server.database()
    async with relay(url) as way, site(tmp_path, way.url) as there:
        gateway = await there.gateway(pace=5.0)
        running = await gateway.submit(there.recording(4))
        await gateway.until(running["id"], "processing")
        way.open.clear()
        begun = time.monotonic()
        assert await gateway.stop() == 0
        in_time(time.monotonic() - begun, ANSWER_S)
        there.postgres = url
        later = await there.gateway()
        assert (await later.over(running["id"]))["text"] == words(4)


async def test_a_cancel_is_answered_though_the_database_goes_away(tmp_path: Path) -> None:
    async with site(tmp_path) as there:
        gateway = await there.gateway(pace=5.0)
        running = await gateway.submit(there.recording(10))
        await gateway.until(running["id"], "processing")
        lock = sqlite3.connect(tmp_path / "one" / "jobs.sqlite", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        error = await refused(gateway.ask("cancel", id=running["id"]))
        assert error.code == "unavailable"
        in_time(time.monotonic() - begun, ANSWER_S)
        lock.execute("ROLLBACK")
        lock.close()
        assert (await gateway.over(running["id"]))["status"] in ("completed", "cancelled")
