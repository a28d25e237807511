"""Jobs under fire: the gateway is killed at random moments until every job is done, each exactly once.

`JOBS_DRILL` is the number of jobs. The drills begin together, since most of each is waiting.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from server.jobs.webhook import verify

from .jobs_driver import SECRET, WORD_MS, Gateway, Gone, Receiver, Site, receiver, site
from .postgres import Postgres, postgres

JOBS = int(os.environ.get("JOBS_DRILL", "24"))
KILLS = 4 + JOBS // 12
SEED = 4
BOUND_S = 120.0 + JOBS
SITES = (("sqlite", 1), ("postgresql", 1), ("postgresql", 2))


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as there:
        yield there


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def drills(
    server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[tuple[str, int], asyncio.Task[None]]]:
    """All of them, under way."""
    begun = {
        (kind, gateways): asyncio.create_task(
            drilled(server.database() if kind == "postgresql" else "", gateways, tmp_path_factory.mktemp(kind))
        )
        for kind, gateways in SITES
    }
    yield begun
    for task in begun.values():
        task.cancel()
    await asyncio.gather(*begun.values(), return_exceptions=True)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(BOUND_S + 60)
@pytest.mark.parametrize(("kind", "gateways"), SITES)
async def test_every_job_is_done_once_however_often_a_gateway_is_killed(
    kind: str, gateways: int, drills: dict[tuple[str, int], asyncio.Task[None]]
) -> None:
    await drills[kind, gateways]


async def drilled(url: str, gateways: int, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    settings = {"jobs_concurrency": 8, "jobs_webhook_secret": SECRET, "jobs_webhook_private": True, "pace": 0.05}
    async with site(tmp_path, url, **settings, rules={"webhook_first_ms": 200}) as there, receiver() as hook:
        hook.answers = [chance.choice([200, 200, 500]) for _ in range(JOBS)]
        there.watch()
        drill = Drill(there, hook, chance, gateways)
        async with asyncio.timeout(BOUND_S):
            await drill.run()
        check(there, hook, drill)


class Drill:
    def __init__(self, there: Site, hook: Receiver, chance: random.Random, gateways: int) -> None:
        self.site = there
        self.hook = hook
        self.chance = chance
        self.kills = 0
        self.ids: dict[int, str] = {}
        self.seconds = {number: chance.randint(1, 8) for number in range(JOBS)}
        self.gateways: list[Gateway | None] = [None] * gateways

    async def run(self) -> None:
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            killing = [group.create_task(self.keep_killing(slot)) for slot in range(len(self.gateways))]
            sending = [group.create_task(self.send(number)) for number in range(JOBS)]
            await asyncio.gather(*sending)
            while self.kills < 3 or await self.left():
                await asyncio.sleep(0.2)
            for task in killing:
                task.cancel()
        while self.site.query(f"SELECT 1 FROM {self.site.workflows} WHERE status <> 'SUCCESS' LIMIT 1"):
            await asyncio.sleep(0.5)
        line = f"{JOBS} jobs, {self.kills} kills, {time.monotonic() - started:.1f} s"
        sys.stdout.write(f"\n{line}\n")
        # What is left was uploaded by a client whose gateway died before there was a job of it.
        named = {row.file for row in self.site.query("SELECT file FROM gateway_jobs")}
        assert not named & set(await self.get().ask("files"))
        for gateway in self.gateways:
            assert gateway is not None
            assert await gateway.stop() == 0

    def get(self) -> Gateway:
        """One that a balancer might choose."""
        gateway = self.chance.choice(self.gateways)
        if gateway is None:
            raise Gone
        return gateway

    async def keep_killing(self, slot: int) -> None:
        while True:
            self.gateways[slot] = gateway = await self.site.gateway()
            # From before its first line to the middle of its work.
            await asyncio.sleep(self.chance.uniform(0.2, 2.5) if self.kills < KILLS else BOUND_S)
            await gateway.kill()
            self.kills += 1

    async def send(self, number: int) -> None:
        """As a careful client does: until it has an answer, with one key."""
        path = self.site.recording(self.seconds[number])
        await asyncio.sleep(self.chance.uniform(0, JOBS / 10))
        while number not in self.ids:
            with suppress(Gone, ConnectionError):
                job = await self.get().submit(
                    path, idempotency_key=f"key {number}", webhook_url=self.hook.url, labels={"number": str(number)}
                )
                self.ids[number] = job["id"]
            await asyncio.sleep(0.1)

    async def left(self) -> bool:
        try:
            return bool(await self.get().ask("list", status=["pending", "processing"], limit=1))
        except (Gone, ConnectionError):
            return True


def check(there: Site, hook: Receiver, drill: Drill) -> None:
    assert drill.kills >= 3
    assert len(set(drill.ids.values())) == JOBS
    rows = there.query("SELECT id, status, transcript, labels FROM gateway_jobs")
    assert {row.id for row in rows} == set(drill.ids.values())  # none was lost, none was made twice
    ends = Counter(status for _, status in there.moves() if status != "processing")
    assert ends == {"completed": JOBS}
    assert len({job_id for job_id, status in there.moves() if status == "completed"}) == JOBS
    for row in rows:
        assert row.status == "completed"
        number = int(json.loads(row.labels)["number"])
        words = json.loads(row.transcript)["text"].split()
        assert words == [f"w{n + 1}" for n in range(drill.seconds[number] * 1000 // WORD_MS)]
    for headers, body in hook.requests:
        message = json.loads(body)
        assert verify(SECRET, body, headers["riva-gateway-signature"], int(time.time()))
        assert headers["riva-gateway-delivery"] == message["id"] == f"job-{message['job']['job_id']}"
        assert message["type"] == "job.completed"
    told: dict[str, set[bytes]] = {}
    for headers, body in hook.requests:
        told.setdefault(headers["riva-gateway-delivery"], set()).add(body)
    assert len(told) == JOBS
    assert all(len(bodies) == 1 for bodies in told.values())
