"""Jobs in processes of their own, on SQLite and on PostgreSQL: what callers see, and what a gateway's death leaves."""

from __future__ import annotations

import asyncio
import os
import time
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sound import noise
from timing import in_time

from .jobs_driver import SECRET, Gateway, Refused, Site, receiver, site
from .postgres import PASSWORD, Postgres, postgres

AT_ONCE_S = 1.0
HOOKS = {"jobs_webhook_secret": SECRET, "jobs_webhook_private": True}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as there:
        yield there


@pytest.fixture(params=["sqlite", "postgresql"])
async def there(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    url = request.getfixturevalue("server").database() if request.param == "postgresql" else ""
    async with site(tmp_path, url) as found:
        yield found


@pytest.fixture
async def shared(server: Postgres, tmp_path: Path) -> AsyncIterator[Site]:
    """PostgreSQL, and one spool for all gateways."""
    async with site(tmp_path, server.database(), spool_dir=str(tmp_path / "spool")) as found:
        yield found


def words(seconds: float) -> str:
    return " ".join(f"w{number + 1}" for number in range(int(seconds * 5)))


def with_pauses(folder: Path, *lengths_s: float) -> Path:
    """Noise, with a second of silence after each stretch."""
    path = folder / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        for length_s in lengths_s:
            file.writeframes(noise(int(length_s * 16_000)) + np.zeros(16_000, "<i2").tobytes())
    return path


async def refused(asking: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await asking
    return caught.value


async def test_a_job_goes_from_pending_to_its_transcript_and_leaves_no_file(there: Site) -> None:
    there.watch()
    gateway = await there.gateway(pace=0.5)
    sent = await gateway.submit(there.recording(3), labels={"case": "7"}, warnings=["A note."])
    assert (sent["status"], sent["owner"], sent["labels"]) == ("pending", "me", {"case": "7"})
    half_way = await gateway.until(sent["id"], "processing", percent=1)
    assert 0 < half_way["percent"] < 100
    assert 0 < half_way["audio_ms"] <= half_way["total_ms"] == 3000
    done = await gateway.over(sent["id"])
    assert (done["status"], done["text"], done["percent"], done["audio_ms"]) == ("completed", words(3), 100, 3000)
    assert done["warnings"] == ["A note."]
    assert [status for _, status in there.moves()] == ["processing", "completed"]
    async with asyncio.timeout(AT_ONCE_S):
        while await gateway.ask("files"):
            await asyncio.sleep(0.02)
    assert await gateway.ask("get", id=sent["id"], owner="another") is None
    for odd in ("no such job", "", "\0", "\ud800", "x" * 1000):
        assert await gateway.ask("get", id=odd) is None
        assert (await refused(gateway.ask("cancel", id=odd))).code == "not_found"


async def test_a_recording_that_cannot_be_read_fails_once_and_says_why(there: Site) -> None:
    gateway = await there.gateway()
    path = there.folder / "notes.wav"
    path.write_text("these are only notes")
    failed = await gateway.over((await gateway.submit(path))["id"])
    assert (failed["status"], failed["error_code"]) == ("failed", "bad_audio")
    assert "spool" not in failed["error"]
    assert ".upload" not in failed["error"]
    long = await there.gateway("two", jobs_max_audio_ms=1000, spool_dir=str(there.folder / "two" / "spool"))
    failed = await long.over((await long.submit(there.recording(2)))["id"])
    assert (failed["status"], failed["error_code"]) == ("failed", "too_large")


async def test_cancel_stops_the_work_at_once(there: Site) -> None:
    gateway = await there.gateway(pace=5.0, jobs_concurrency=1)
    running = (await gateway.submit(there.recording(20)))["id"]
    waiting = (await gateway.submit(there.recording(2)))["id"]
    await gateway.until(running, "processing")
    assert (await gateway.ask("cancel", id=waiting))["status"] == "cancelled"
    assert (await gateway.ask("cancel", id=running))["status"] == "cancelled"
    begun = time.monotonic()
    third = await gateway.submit(there.recording(0.2))
    await gateway.until(third["id"], "processing", "completed")  # its place is free again
    in_time(time.monotonic() - begun, 2 * AT_ONCE_S)
    assert (await gateway.over(third["id"]))["status"] == "completed"
    async with asyncio.timeout(AT_ONCE_S):
        while await gateway.ask("files"):
            await asyncio.sleep(0.02)
    for job_id in (running, waiting, third["id"]):
        assert (await refused(gateway.ask("cancel", id=job_id))).code == "bad_request"
    assert (await refused(gateway.ask("cancel", id="none"))).code == "not_found"


async def test_one_key_makes_one_job(there: Site) -> None:
    gateway = await there.gateway()
    path = there.recording(1)
    many = await asyncio.gather(*(gateway.submit(path, idempotency_key="k") for _ in range(5)))
    assert len({job["id"] for job in many}) == 1
    again = await gateway.submit(path, idempotency_key="k", options={"request_id": "another"})
    assert again["id"] == many[0]["id"]
    assert (await gateway.submit(path, idempotency_key="k", owner="another"))["id"] != many[0]["id"]
    for other in ({"path": there.recording(2)}, {"path": path, "options": {"words": False}}):
        error = await refused(gateway.submit(**other, idempotency_key="k"))  # type: ignore[arg-type]
        assert (error.code, error.param) == ("bad_request", "idempotency_key")
    await gateway.over(many[0]["id"])
    async with asyncio.timeout(AT_ONCE_S * 3):
        while await gateway.ask("files"):
            await asyncio.sleep(0.02)


async def test_jobs_are_listed_newest_first_in_pages(there: Site) -> None:
    gateway = await there.gateway()
    path = there.recording(0.4)
    ids = [(await gateway.submit(path, owner="even" if n % 2 == 0 else "odd"))["id"] for n in range(7)]
    for job_id in ids:
        await gateway.over(job_id)
    newest = ids[::-1]
    first = [job["id"] for job in await gateway.ask("list", limit=3)]
    second = [job["id"] for job in await gateway.ask("list", limit=3, before=first[-1])]
    third = [job["id"] for job in await gateway.ask("list", limit=3, before=second[-1])]
    assert [*first, *second, *third] == newest
    assert [job["id"] for job in await gateway.ask("list", owner="odd")] == [ids[n] for n in (5, 3, 1)]
    assert len(await gateway.ask("list", status=["completed"])) == 7
    assert await gateway.ask("list", status=["pending", "failed"]) == []
    assert all(job["text"] is None for job in await gateway.ask("list"))
    assert (await refused(gateway.ask("list", before="none"))).code == "not_found"
    assert (await refused(gateway.ask("list", limit=0))).code == "bad_request"


async def test_results_are_kept_for_a_time_and_deleted_when_asked(there: Site) -> None:
    gateway = await there.gateway(jobs_result_ttl_ms=1500, pace=0.2)
    old = (await gateway.submit(there.recording(0.4)))["id"]
    await gateway.over(old)
    async with asyncio.timeout(10):
        while await gateway.ask("get", id=old):
            await asyncio.sleep(0.1)
    live = (await gateway.submit(there.recording(4)))["id"]
    assert (await refused(gateway.ask("delete", id=live))).code == "bad_request"
    await gateway.over(live)
    await gateway.ask("delete", id=live)
    assert await gateway.ask("get", id=live) is None
    assert (await refused(gateway.ask("delete", id=live))).code == "not_found"
    assert there.query(f"SELECT * FROM {there.workflows} WHERE status <> 'PENDING'") == []


async def test_no_more_jobs_wait_than_may(there: Site) -> None:
    gateway = await there.gateway(pace=5.0, jobs_concurrency=1, jobs_max_pending=2)
    first = (await gateway.submit(there.recording(20)))["id"]
    await gateway.until(first, "processing")
    for _ in range(2):
        await gateway.submit(there.recording(1))
    error = await refused(gateway.submit(there.recording(1)))
    assert error.code == "overloaded"
    assert len(await gateway.ask("files")) == 3  # what was refused left nothing


async def test_a_job_waits_for_a_recognizer_that_is_away(there: Site) -> None:
    away = there.folder / "one" / "away"
    away.parent.mkdir()
    away.touch()
    gateway = await there.gateway()
    job = await gateway.submit(there.recording(1))
    async with asyncio.timeout(20):
        while len(there.streams) < 2:  # it was tried again
            await asyncio.sleep(0.05)
    assert (await gateway.ask("get", id=job["id"]))["status"] == "processing"
    away.unlink()
    assert (await gateway.over(job["id"]))["text"] == words(1)


async def test_and_fails_where_that_takes_too_long_also_over_a_restart(there: Site) -> None:
    away = there.folder / "one" / "away"
    away.parent.mkdir()
    away.touch()
    gateway = await there.gateway(rules={"retry_for_ms": 3000})
    job = await gateway.submit(there.recording(1))
    async with asyncio.timeout(20):
        while not there.streams:
            await asyncio.sleep(0.05)
    await gateway.kill()
    await asyncio.sleep(3.0)
    gateway = await there.gateway(rules={"retry_for_ms": 3000})
    begun = time.monotonic()
    failed = await gateway.over(job["id"])
    in_time(time.monotonic() - begun, 6)
    assert (failed["status"], failed["error_code"]) == ("failed", "unavailable")
    assert "0.05 minutes" in failed["error"]


async def test_sigterm_hands_a_job_back_and_it_goes_on_in_the_next_life(there: Site) -> None:
    there.watch()
    gateway = await there.gateway(pace=1.0)
    job = await gateway.submit(there.recording(4))
    await gateway.until(job["id"], "processing", percent=10)
    begun = time.monotonic()
    assert await gateway.stop() == 0
    in_time(time.monotonic() - begun, 5)
    assert there.moves()[-1] == (job["id"], "pending")
    gateway = await there.gateway(pace=0.0)
    begun = time.monotonic()
    assert (await gateway.over(job["id"]))["text"] == words(4)
    in_time(time.monotonic() - begun, 5)
    assert [status for _, status in there.moves()] == ["processing", "pending", "processing", "completed"]


async def test_a_gateway_that_is_stopped_while_its_jobs_begin_ends_in_good_order(there: Site) -> None:
    gateway = await there.gateway()
    await gateway.ask("list")
    job = await gateway.submit(there.recording(1))
    await gateway.kill()
    for n in range(6):
        gateway = await there.gateway(pace=5.0)
        assert await gateway.ask("ping") == "pong"  # its signals are its own by now
        await asyncio.sleep(n * 0.3)
        begun = time.monotonic()
        assert await gateway.stop() == 0
        in_time(time.monotonic() - begun, 6)
    gateway = await there.gateway()
    assert (await gateway.over(job["id"]))["text"] == words(1)
    assert '"level": "error"' not in there.log


async def test_parts_that_are_finished_are_not_done_again(there: Site) -> None:
    path = with_pauses(there.folder, 45, 45, 45)
    gateway = await there.gateway(pace=0.02)
    job = await gateway.submit(path, parts=1)
    async with asyncio.timeout(30):
        while not (saved := there.query("SELECT count(*) FROM gateway_job_parts")[0][0]):
            await asyncio.sleep(0.02)
    await gateway.kill()
    before = len(there.streams)
    gateway = await there.gateway(pace=0.0)
    done = await gateway.over(job["id"])
    assert done["status"] == "completed"
    assert done["audio_ms"] == 138_000
    parts = done["text"].split().count("w1")  # the recognizer counts its words in each
    assert parts >= 2
    assert len(there.streams) - before <= parts - saved
    assert there.query("SELECT count(*) FROM gateway_job_parts") == [(0,)]


async def test_a_recording_that_kills_the_gateway_is_given_up(there: Site) -> None:
    gateway = await there.gateway(pace=5.0)
    job = await gateway.submit(there.recording(10))
    await gateway.until(job["id"], "processing")
    await gateway.kill()
    database = there.database()
    with database.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE gateway_jobs SET attempts = 10")
    database.dispose()
    gateway = await there.gateway(pace=5.0)
    failed = await gateway.over(job["id"])
    assert (failed["status"], failed["error_code"]) == ("failed", "internal")
    assert "10 times" in failed["error"]


async def test_files_that_no_job_names_go_when_they_are_old(there: Site) -> None:
    spool = there.folder / "one" / "spool"
    spool.mkdir(parents=True)
    for name, age_s in (("old", 3 * 3600), ("new", 0)):
        (spool / f"{name}.upload").write_bytes(b"x")
        os.utime(spool / f"{name}.upload", (time.time() - age_s,) * 2)
    gateway = await there.gateway()
    await gateway.over((await gateway.submit(there.recording(0.4)))["id"])
    async with asyncio.timeout(5):
        while await gateway.ask("files") != ["new.upload"]:
            await asyncio.sleep(0.05)


async def test_a_webhook_is_repeated_until_it_is_taken(there: Site) -> None:
    async with receiver() as hook:
        hook.answers = [500, 302, 404]
        gateway = await there.gateway(**HOOKS, rules={"webhook_first_ms": 50})
        job = await gateway.submit(there.recording(0.4), webhook_url=f"{hook.url}?token=in%20the%20url")
        async with asyncio.timeout(20):
            while len(hook.requests) < 4:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert len(hook.requests) == 4
        assert {headers[""] for headers, _ in hook.requests} == {"POST /hook?token=in%20the%20url HTTP/1.1"}
        assert len({(headers["riva-gateway-delivery"], body) for headers, body in hook.requests}) == 1
        assert hook.requests[0][0]["riva-gateway-event"] == "job.completed"
        assert hook.requests[0][0]["host"] == hook.url.split("/")[2]
        await gateway.until(job["id"], "completed")
    assert SECRET not in there.log
    assert "token=" not in there.log


async def test_a_cancelled_job_is_told_of_too_and_attempts_end(there: Site) -> None:
    async with receiver() as hook:
        hook.answers = [503] * 20
        gateway = await there.gateway(**HOOKS, pace=5.0, jobs_webhook_attempts=3, rules={"webhook_first_ms": 50})
        job = await gateway.submit(there.recording(20), webhook_url=hook.url)
        await gateway.ask("cancel", id=job["id"])
        async with asyncio.timeout(20):
            while '"given_up": true' not in there.log:
                await asyncio.sleep(0.05)
        assert [headers["riva-gateway-event"] for headers, _ in hook.requests] == ["job.cancelled"] * 3


async def test_webhooks_go_to_no_private_address_unless_allowed(there: Site) -> None:
    async with receiver() as hook:
        gateway = await there.gateway(jobs_webhook_secret=SECRET, rules={"webhook_attempts": 1})
        local = hook.url.replace("127.0.0.1", "localhost")
        for url in (hook.url, local):
            job = await gateway.submit(there.recording(0.4), webhook_url=url)
            await gateway.over(job["id"])
        async with asyncio.timeout(20):
            while there.log.count("JOBS_WEBHOOK_PRIVATE") < 2:
                await asyncio.sleep(0.05)
        assert hook.requests == []
        error = await refused(gateway.submit(there.recording(0.4), webhook_url="ftp://example.com/"))
        assert (error.code, error.param) == ("bad_request", "webhook_url")
    plain = await there.gateway("two", spool_dir=str(there.folder / "two" / "spool"))
    error = await refused(plain.submit(there.recording(0.4), webhook_url="https://example.com/"))
    assert (error.code, error.param) == ("unsupported", "webhook_url")


async def test_it_opens_no_port_and_calls_nobody(there: Site) -> None:
    gateway = await there.gateway(pace=2.0)
    job = await gateway.submit(there.recording(2))
    await gateway.until(job["id"], "processing")
    links = psutil.Process(gateway.pid).net_connections("inet")
    assert [link for link in links if link.status == psutil.CONN_LISTEN] == []
    assert {link.raddr.ip for link in links if link.raddr} <= {"127.0.0.1"}


async def test_no_jobs_no_database(tmp_path: Path) -> None:
    async with site(tmp_path) as there:
        gateway = await there.gateway()
        assert await gateway.ask("list") == []
        assert await gateway.ask("get", id="x") is None
        assert (await refused(gateway.ask("cancel", id="x"))).code == "not_found"
        assert await gateway.stop() == 0
        assert not (tmp_path / "one" / "jobs.sqlite").exists()


async def test_a_database_that_is_away_is_said_and_does_not_keep_the_gateway(tmp_path: Path) -> None:
    url = f"postgresql://gateway:{PASSWORD.replace(' ', '%20')}@127.0.0.1:9/jobs"
    async with site(tmp_path, url) as there:
        gateway = await there.gateway()
        async with asyncio.timeout(20):
            while "cannot be opened" not in there.log:
                await asyncio.sleep(0.05)
        error = await refused(gateway.ask("list"))
        assert (error.code, "PostgreSQL" in error.message) == ("unavailable", False)
        begun = time.monotonic()
        assert await gateway.stop() == 0
        in_time(time.monotonic() - begun, 8)
        assert PASSWORD not in there.log
        assert "%20password" not in there.log


async def test_a_database_that_drops_its_connections_costs_no_job(server: Postgres, tmp_path: Path) -> None:
    async with site(tmp_path, server.database(), pace=0.3) as there:
        gateway = await there.gateway()
        jobs = [await gateway.submit(there.recording(2)) for _ in range(6)]
        for _ in range(8):
            await asyncio.to_thread(
                there.query,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            await asyncio.sleep(0.4)
        for job in jobs:
            async with asyncio.timeout(30):
                while (await gateway.ask("get", id=job["id"]))["status"] != "completed":
                    await asyncio.sleep(0.1)
        async with asyncio.timeout(30):  # a job is told of before its workflow is, which a lost connection delays
            while there.query(f"SELECT status, count(*) FROM {there.workflows} GROUP BY status") != [("SUCCESS", 6)]:
                await asyncio.sleep(0.1)


async def test_another_gateway_takes_the_jobs_of_a_dead_one(shared: Site) -> None:
    shared.watch()
    first = await shared.gateway("one", pace=5.0)
    job = await first.submit(shared.recording(10))
    await first.until(job["id"], "processing")
    second = await shared.gateway("two", pace=0.0)
    await second.ask("list")
    await first.kill()
    assert (await second.over(job["id"]))["text"] == words(10)
    assert [status for _, status in shared.moves()] == ["processing", "completed"]


async def test_a_job_is_cancelled_by_whichever_gateway_is_asked(shared: Site) -> None:
    first = await shared.gateway("one", pace=5.0, jobs_concurrency=1)
    job = await first.submit(shared.recording(20))
    await first.until(job["id"], "processing")
    second = await shared.gateway("two", pace=5.0, jobs_concurrency=1)
    async with asyncio.timeout(10):
        while not await busy(first):
            await asyncio.sleep(0.02)
    await second.ask("cancel", id=job["id"])
    begun = time.monotonic()
    while await busy(first):
        await asyncio.sleep(0.02)
    in_time(time.monotonic() - begun, AT_ONCE_S)


async def test_gateways_with_spools_of_their_own_do_their_own_jobs(server: Postgres, tmp_path: Path) -> None:
    async with site(tmp_path, server.database()) as there:
        one, two = await there.gateway("one"), await there.gateway("two")
        jobs = [await (one, two)[n % 2].submit(there.recording(0.4), options={"request_id": str(n)}) for n in range(6)]
        for job in jobs:
            assert (await two.over(job["id"]))["status"] == "completed"
        for name, wanted in (("one", {"0", "2", "4"}), ("two", {"1", "3", "5"})):
            assert set((tmp_path / name / "streams.log").read_text().split()) == wanted


async def busy(gateway: Gateway) -> int:
    return int(await gateway.ask("streams"))
