"""The rows of jobs: each change is made by one, and by none that has lost its job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from asr.errors import ASRError, Code
from asr.options import Options
from asr.transcript import Transcript
from server.jobs.database import AWAY, Database, postgres_url, sqlite_url
from server.jobs.lives import LEASE_MS, Lives
from server.jobs.model import NewJob, Status, check_database_url
from server.jobs.service import _is_full
from server.jobs.store import Standing, Store
from server.jobs.wing import spool_identity

NEW = NewJob("a", "me", "spool", "a.upload", "a.wav", Options(), {"k": "v"}, 4)
DONE = Transcript("hello", language="en-US", model="m", duration_ms=1200)


class Queue:
    """Notes what is enqueued."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.webhooks: list[str] = []

    def job(self, conn: sa.Connection, job_id: str, spool: str) -> None:
        self.jobs.append(job_id)

    def webhook(self, conn: sa.Connection, job_id: str) -> None:
        self.webhooks.append(job_id)


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(sqlite_url(tmp_path / "state" / "jobs.sqlite"))
    found.create()
    yield found
    found.dispose()


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database, queue: Queue, clock: Clock) -> Store:
    return Store(database, queue, clock)


def status(store: Store, job_id: str = "a") -> Status:
    found = store.get(job_id)
    assert found is not None
    return found.status


def test_the_result_is_stored_once_and_by_the_last_who_claimed_the_job(store: Store, queue: Queue) -> None:
    store.add(replace(NEW, webhook_url="https://example.com/"), max_pending=9)
    first, second = store.claim("a", "one"), store.claim("a", "two")
    assert first is not None
    assert second is not None
    assert (first.attempts, second.attempts, second.options) == (1, 2, Options())
    assert not store.complete("a", "one", replace(DONE, text="too late"))
    assert store.complete("a", "two", DONE)
    assert not store.complete("a", "two", DONE)
    assert not store.fail("a", "two", ASRError(Code.INTERNAL, "no"))
    found = store.get("a")
    assert found is not None
    assert (found.status, found.transcript, found.progress_percent) == (Status.COMPLETED, DONE, 100)
    assert store.claim("a", "three") is None
    assert queue.jobs == queue.webhooks == ["a"]


def test_an_attempt_that_lost_its_job_writes_nothing(store: Store) -> None:
    store.add(NEW, max_pending=9)
    store.claim("a", "one")
    store.claim("a", "two")
    store.save_part("a", "one", 0, {"of": "one"})
    assert store.load_part("a", 0) is None
    store.hand_back("a", "one")
    assert status(store) is Status.PROCESSING
    one, two = Standing("a", "one", 5, 10), Standing("a", "two", 6, 10)
    assert store.still_mine([one]) == store.beat([one]) == {"one"}
    assert store.still_mine([two]) == store.beat([two]) == set()
    found = store.get("a")
    assert found is not None
    assert (found.audio_ms, found.progress_percent) == (6, 60)


def test_a_full_disk_is_told_from_a_database_that_is_away(database: Database, store: Store) -> None:
    store.add(NEW, max_pending=9)
    with database.engine.connect() as conn:
        conn.exec_driver_sql("PRAGMA max_page_count=1")
    with pytest.raises(AWAY) as caught:
        store.add(replace(NEW, id="b", filename="x" * 1_000_000), max_pending=9)
    assert _is_full(caught.value)
    assert not _is_full(sa.exc.OperationalError("", {}, Exception("away")))


def test_progress_never_goes_back(store: Store) -> None:
    store.add(NEW, max_pending=9)
    store.claim("a", "one")
    store.beat([Standing("a", "one", 6, 10)])
    store.claim("a", "two")
    store.beat([Standing("a", "two", 1, 0)])
    found = store.get("a")
    assert found is not None
    assert (found.audio_ms, found.audio_total_ms, found.progress_percent) == (6, 10, 60)
    store.beat([Standing("a", "two", 7, 10)])
    found = store.get("a")
    assert found is not None
    assert found.progress_percent == 70


def test_a_part_that_is_saved_forgives_earlier_failures_and_goes_with_the_job(store: Store) -> None:
    store.add(NEW, max_pending=9)
    for _ in range(5):
        store.claim("a", "one")
    assert store.stuck("a", "one") == 0
    store.save_part("a", "one", 2, {"n": 1})
    store.save_part("a", "one", 2, {"n": 2})
    assert store.load_part("a", 2) == {"n": 2}
    again = store.claim("a", "two")
    assert again is not None
    assert again.attempts == 2
    store.complete("a", "two", DONE)
    assert store.load_part("a", 2) is None


def test_waiting_for_a_recognizer_is_counted_over_attempts(store: Store, clock: Clock) -> None:
    store.add(NEW, max_pending=9)
    store.claim("a", "one")
    assert store.stuck("a", "one") == 0
    clock.now_s += 7
    store.claim("a", "two")
    assert store.stuck("a", "two") == 7000
    assert store.stuck("a", "two", anew=True) == 0, "it was the operator who had it wait"
    clock.now_s += 1
    assert store.stuck("a", "two") == 1000


def test_cancelling_and_handing_back(store: Store, queue: Queue) -> None:
    store.add(replace(NEW, webhook_url="https://example.com/"), max_pending=9)
    store.claim("a", "one")
    store.hand_back("a", "one")
    assert status(store) is Status.PENDING
    again = store.claim("a", "two")
    assert again is not None
    assert again.attempts == 1
    with pytest.raises(ASRError, match="no such job"):
        store.cancel("a", "another")
    assert store.cancel("a", "me").status is Status.CANCELLED
    assert not store.complete("a", "two", DONE)
    with pytest.raises(ASRError, match="cancelled already"):
        store.cancel("a")
    assert queue.webhooks == ["a"]


def test_jobs_are_counted_by_their_status(store: Store) -> None:
    assert store.counts() == {}
    for name in "abcd":
        store.add(replace(NEW, id=name), max_pending=9)
    store.claim("a", "one")
    store.claim("b", "two")
    store.complete("b", "two", DONE)
    assert store.counts() == {"pending": 2, "processing": 1, "completed": 1}


def test_a_key_stands_for_one_job_of_one_owner(store: Store, queue: Queue) -> None:
    keyed = replace(NEW, idempotency="k", fingerprint="f")
    assert store.add(keyed, max_pending=9)[1]
    there, new = store.add(replace(keyed, id="b"), max_pending=0)  # also where no more may wait
    assert (there.id, new) == ("a", False)
    assert store.add(replace(keyed, id="c", owner="another"), max_pending=9)[1]
    with pytest.raises(ASRError) as caught:
        store.add(replace(keyed, id="d", fingerprint="g"), max_pending=9)
    assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, "idempotency_key")
    assert queue.jobs == ["a", "c"]


def test_what_is_refused_or_fails_leaves_no_row(store: Store, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(NEW, max_pending=1)
    with pytest.raises(ASRError) as caught:
        store.add(replace(NEW, id="b"), max_pending=1)
    assert caught.value.code is Code.OVERLOADED
    assert caught.value.retry_after_ms
    store.add(replace(NEW, id="b", spool="another"), max_pending=1)

    def broken(*_: object) -> None:
        raise RuntimeError("no queue")

    queue.job = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        store.add(replace(NEW, id="c"), max_pending=9)
    assert store.get("c") is None


def test_the_last_places_are_for_callers_with_few_jobs(store: Store) -> None:
    def add(number: int, owner: str) -> None:
        store.add(replace(NEW, id=f"{owner} {number}", owner=owner), max_pending=20)

    for number in range(9):
        add(number, "key app")
        add(number, "key app for ann")
    for owner in ("key app", "key app for bob"):
        with pytest.raises(ASRError, match="18 of them yours") as caught:
            add(99, owner)
        assert caught.value.code is Code.RATE_LIMITED
    add(1, "key apple")
    add(1, "")


def test_a_text_that_no_database_takes_is_stored_without_it(store: Store) -> None:
    for name, outcome in (("a", replace(DONE, text="x\0\ud800y")), ("b", ASRError(Code.INTERNAL, "x\0\ud800y"))):
        store.add(replace(NEW, id=name), max_pending=9)
        store.claim(name, "one")
        if isinstance(outcome, ASRError):
            assert store.fail(name, "one", outcome)
        else:
            assert store.complete(name, "one", outcome)
    found = store.get("b")
    assert found is not None
    assert found.error == "x?y"
    assert status(store, "a") is Status.COMPLETED


def test_old_jobs_expire_and_live_ones_do_not(store: Store, clock: Clock) -> None:
    for name in ("a", "b", "c"):
        store.add(replace(NEW, id=name, file=f"{name}.upload"), max_pending=9)
    store.claim("a", "one")
    store.complete("a", "one", DONE)
    store.cancel("b")
    clock.now_s += 10
    assert store.expire(10_000, most=9) == []
    assert store.files("spool") == {"a.upload": False, "b.upload": False, "c.upload": True}
    clock.now_s += 0.001
    assert sorted(store.expire(10_000, most=9)) == ["a", "b"]
    assert status(store, "c") is Status.PENDING


def test_a_life_that_ended_is_found_once(database: Database, store: Store, tmp_path: Path) -> None:
    def life(name: str) -> Lives:
        return Lives(database, tmp_path / "lives", name, store.now_ms)

    one, two, three = life("one"), life("two"), life("three")
    for each in (one, two, three):
        each.enter()
    assert two.dead() == three.dead() == []
    one.let_go()  # as the system does for a process that is killed
    assert two.dead() == ["one"]
    assert three.dead() == []  # somebody sees to it
    assert two.dead() == ["one"]
    two.bury("one")
    assert two.dead() == three.dead() == []
    assert not (tmp_path / "lives" / "one.lock").exists()
    two.leave()
    assert three.dead() == ["two"]
    three.leave()


def test_elsewhere_a_life_is_known_by_its_lease(database: Database, tmp_path: Path) -> None:
    now_ms = 1_000_000
    database.is_sqlite = False  # as on a server, whose clock all share

    def life(name: str) -> Lives:
        return Lives(database, tmp_path / name, name, lambda _: now_ms)

    one, two, three = life("one"), life("two"), life("three")
    for each in (one, two, three):
        each.enter()
    now_ms += LEASE_MS
    two.renew()
    three.renew()
    assert two.dead() == []
    now_ms += 1
    assert two.dead() == ["one"]
    assert three.dead() == []  # somebody sees to it
    two.let_go()  # and dies
    now_ms += LEASE_MS + 1
    assert sorted(three.dead()) == ["one", "two"]
    three.bury("one")
    one.renew()  # it had only been asleep
    assert three.dead() == []
    one.leave()
    assert three.dead() == ["one"]


def test_a_spool_has_one_name(tmp_path: Path) -> None:
    first = spool_identity(tmp_path / "one")
    assert first == spool_identity(tmp_path / "one")
    assert first != spool_identity(tmp_path / "two")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["spool-id"]


def test_the_file_is_for_this_user_alone(database: Database) -> None:
    path = Path(str(database.url.database))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_shut_answers_nobody(database: Database, store: Store) -> None:
    store.add(NEW, max_pending=9)
    database.shut()
    with pytest.raises(RuntimeError, match="closed"):
        store.get("a")


@pytest.mark.parametrize("text", ["postgresql://u:secret@host/db", "postgres://u:secret@host:5433/db?sslmode=require"])
def test_urls_of_postgresql(text: str) -> None:
    check_database_url(text)
    url = postgres_url(text)
    assert (url.drivername, url.database, url.password) == ("postgresql+psycopg", "db", "secret")


@pytest.mark.parametrize(
    "text", ["", "secret", "mysql://u:secret@host/db", "postgresql://u:secret@host", "sqlite:///x"]
)
def test_urls_that_are_none_are_not_quoted(text: str) -> None:
    with pytest.raises(ASRError) as caught:
        check_database_url(text)
    assert caught.value.param == "JOBS_DATABASE_URL"
    assert "secret" not in caught.value.message
