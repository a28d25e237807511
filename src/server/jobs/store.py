"""The jobs as rows: added, listed, claimed, finished exactly once, cancelled, forgotten. Blocking.

Every change of a state is one conditional UPDATE, so of two that want to make it one does. What a running attempt
writes is conditional on its `runner` word too: an attempt that was taken over, or whose job was cancelled, writes
nothing any more. Workflows are enqueued in the same transaction as the row that wants them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from asr.errors import ASRError, Code
from asr.options import Options
from asr.transcript import Transcript, from_json, to_json
from server.access.grants import payer_of
from server.jobs.database import JOBS, PARTS, Database
from server.jobs.model import (
    MAX_PAGE,
    OVER,
    JobView,
    NewJob,
    Status,
    may_become,
    moment,
    no_such_job,
    options_from_json,
    options_to_json,
    percent,
)

FULL_RETRY_MS = 15_000
RESERVE = 10
"""Of the places of jobs that wait, one in so many is kept for callers with few of them."""
_SEEN = [column for column in JOBS.c if column.name != "transcript"]


class Enqueue(Protocol):
    """Puts workflows into their queues, within a transaction."""

    def job(self, conn: sa.Connection, job_id: str, spool: str) -> None:
        """Do this job."""
        ...

    def webhook(self, conn: sa.Connection, job_id: str) -> None:
        """Tell of this job, for the first time."""
        ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that is to be done now. `attempts` counts those that ended without a word, this one included."""

    id: str
    runner: str
    file: str
    filename: str
    options: Options
    parts: int
    attempts: int
    warnings: tuple[str, ...] = ()
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a running attempt has come."""

    job_id: str
    runner: str
    audio_ms: int
    audio_total_ms: int


class Store:
    """The jobs of a database.

    Args:
        database: with its tables made.
        enqueue: where the work goes.
        clock: unix time in seconds, for SQLite; PostgreSQL's own clock is the one that all gateways share.
    """

    def __init__(self, database: Database, enqueue: Enqueue, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._engine = database.engine
        self._enqueue = enqueue
        self._clock = clock

    def add(self, job: NewJob, *, max_pending: int) -> tuple[JobView, bool]:
        """Add a job and enqueue it; or find the one that the same caller sent with the same key.

        Returns:
            The job, and whether it is new.

        Raises:
            ASRError: `overloaded` where too many wait, `rate_limited` where they are nearly so many and this caller's
                are many of them, `bad_request` for a key that stands for something else.
        """
        key = _key(job.owner, job.idempotency) if job.idempotency else None
        try:
            with self._engine.begin() as conn:
                if key is not None and (there := self._same(conn, key, job)) is not None:
                    return there, False
                self._check_share(conn, job, max_pending, self._check_room(conn, job.spool, max_pending))
                conn.execute(
                    sa.insert(JOBS).values(
                        id=job.id,
                        owner=job.owner,
                        spool=job.spool,
                        file=job.file,
                        filename=job.filename,
                        options=json.dumps(options_to_json(job.options)),
                        labels=json.dumps(dict(job.labels)),
                        warnings=json.dumps(job.warnings),
                        parts=job.parts,
                        status=Status.PENDING.value,
                        created_ms=self.now_ms(conn),
                        idempotency=key,
                        fingerprint=job.fingerprint,
                        webhook_url=job.webhook_url,
                    )
                )
                self._enqueue.job(conn, job.id, job.spool)
                row = conn.execute(sa.select(*_SEEN).where(JOBS.c.id == job.id)).one()
                return _view(row), True
        except sa.exc.IntegrityError:
            if key is None:
                raise
        with self._engine.connect() as conn:  # another request with this key came first
            there = self._same(conn, key, job)
        if there is None:
            raise ASRError(Code.OVERLOADED, "Another request with this key is under way.", retry_after_ms=1_000)
        return there, False

    def check_room(self, spool: str, max_pending: int) -> None:
        """Refuse where too many jobs wait.

        Raises:
            ASRError: `overloaded`.
        """
        with self._engine.connect() as conn:
            self._check_room(conn, spool, max_pending)

    def counts(self) -> dict[str, int]:
        """How many jobs there are, by their status."""
        query = sa.select(JOBS.c.status, sa.func.count().label("jobs")).group_by(JOBS.c.status)
        with self._engine.connect() as conn:
            return {row.status: row.jobs for row in conn.execute(query)}

    def get(self, job_id: str, owner: str | None = None) -> JobView | None:
        """A job with its transcript, or None; also None where it is not this owner's."""
        with self._engine.connect() as conn:
            row = conn.execute(sa.select(JOBS).where(JOBS.c.id == job_id)).one_or_none()
        if row is None or (owner is not None and row.owner != owner):
            return None
        return _view(row, row.transcript)

    def page(self, *, owner: str | None, statuses: Iterable[Status], limit: int, before: str | None) -> list[JobView]:
        """Jobs without their transcripts, newest first; with `before`, those older than that job.

        Raises:
            ASRError: `not_found` where there is no job `before`.
        """
        query = sa.select(*_SEEN).order_by(JOBS.c.created_ms.desc(), JOBS.c.id.desc()).limit(min(limit, MAX_PAGE))
        wanted = [status.value for status in statuses]
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        if wanted:
            query = query.where(JOBS.c.status.in_(wanted))
        with self._engine.connect() as conn:
            if before is not None:
                mark = conn.execute(sa.select(JOBS.c.created_ms, JOBS.c.owner).where(JOBS.c.id == before)).one_or_none()
                if mark is None or (owner is not None and mark.owner != owner):
                    raise no_such_job()
                query = query.where(sa.tuple_(JOBS.c.created_ms, JOBS.c.id) < sa.tuple_(mark.created_ms, before))
            return [_view(row) for row in conn.execute(query)]

    def claim(self, job_id: str, runner: str) -> Claimed | None:
        """Begin an attempt, also in place of one that has not been heard of; None where the job is over or gone.

        Raises:
            ASRError: `internal` where its options cannot be read; the attempt has begun, and can `fail`.
        """
        # A job that is being processed is claimed only when its gateway was lost: the workflow engine sees to that.
        claimable = [*may_become(Status.PROCESSING), Status.PROCESSING]
        with self._engine.begin() as conn:
            row = conn.execute(
                sa.update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.status.in_([one.value for one in claimable]))
                .values(
                    status=Status.PROCESSING.value,
                    started_ms=sa.func.coalesce(JOBS.c.started_ms, self.now_ms(conn)),
                    runner=runner,
                    attempts=JOBS.c.attempts + 1,
                )
                .returning(*_SEEN)
            ).one_or_none()
        if row is None:
            return None
        return Claimed(
            id=job_id,
            runner=runner,
            file=row.file,
            filename=row.filename,
            options=options_from_json(json.loads(row.options)),
            parts=row.parts,
            attempts=row.attempts,
            warnings=tuple(json.loads(row.warnings)),
            owner=row.owner,
        )

    def complete(self, job_id: str, runner: str, transcript: Transcript) -> bool:
        """Store the result. True exactly once in the life of a job, and only for the attempt that has it."""
        values = {"transcript": _storable(json.dumps(to_json(transcript), ensure_ascii=False))}
        heard = {"audio_ms": transcript.duration_ms, "audio_total_ms": transcript.duration_ms}
        return self._end(job_id, Status.COMPLETED, {**values, **heard}, runner)

    def fail(self, job_id: str, runner: str, error: ASRError) -> bool:
        """Store why it cannot be done; as `complete`."""
        return self._end(
            job_id, Status.FAILED, {"error": _storable(error.message), "error_code": error.code.value}, runner
        )

    def cancel(self, job_id: str, owner: str | None = None) -> JobView:
        """End a job that is not over.

        Raises:
            ASRError: `not_found`, or `bad_request` where it is over.
        """
        if self._end(job_id, Status.CANCELLED, {}, None, owner):
            found = self.get(job_id)
            assert found is not None, "a job that was just cancelled is kept for a while"
            return found
        there = self.get(job_id, owner)
        if there is None:
            raise no_such_job()
        what = f"The job is {there.status.value} already; only one that waits or is being processed can be cancelled."
        raise ASRError(Code.BAD_REQUEST, what, param="job_id")

    def hand_back(self, job_id: str, runner: str) -> None:
        """This gateway goes down: the attempt does not count, and the job waits again."""
        with self._engine.begin() as conn:
            conn.execute(
                self._mine(job_id, runner).values(status=Status.PENDING.value, runner="", attempts=JOBS.c.attempts - 1)
            )

    def stuck(self, job_id: str, runner: str, *, anew: bool = False) -> int:
        """The recognizer is away. Since when it has been for this job, in ms before now; it keeps over restarts.

        `anew`: since now, whatever was before.
        """
        with self._engine.begin() as conn:
            now_ms = self.now_ms(conn)
            since = conn.execute(
                self._mine(job_id, runner)
                .values(stuck_ms=now_ms if anew else sa.func.coalesce(JOBS.c.stuck_ms, now_ms))
                .returning(JOBS.c.stuck_ms)
            ).scalar()
        return 0 if since is None else max(0, now_ms - int(since))

    def beat(self, standings: Sequence[Standing]) -> set[str]:
        """Note how far attempts have come; the words of those that have lost their jobs."""
        lost = set()
        with self._engine.begin() as conn:
            for one in standings:
                # An attempt that begins anew does not take back what its caller was told.
                most = sa.case((JOBS.c.audio_ms > one.audio_ms, JOBS.c.audio_ms), else_=one.audio_ms)
                total = one.audio_total_ms or JOBS.c.audio_total_ms
                moved = conn.execute(self._mine(one.job_id, one.runner).values(audio_ms=most, audio_total_ms=total))
                if not moved.rowcount:
                    lost.add(one.runner)
        return lost

    def still_mine(self, standings: Sequence[Standing]) -> set[str]:
        """As `beat`, where there is nothing to note: reads only."""
        jobs = {one.job_id for one in standings}
        query = sa.select(JOBS.c.runner).where(JOBS.c.id.in_(jobs), JOBS.c.status == Status.PROCESSING.value)
        with self._engine.connect() as conn:
            return {one.runner for one in standings} - set(conn.execute(query).scalars())

    def load_part(self, job_id: str, part: int) -> Any | None:
        """What was saved of a part, as JSON; None for nothing."""
        query = sa.select(PARTS.c.result).where(PARTS.c.job_id == job_id, PARTS.c.part == part)
        with self._engine.connect() as conn:
            text = conn.execute(query).scalar()
        return None if text is None else json.loads(text)

    def save_part(self, job_id: str, runner: str, part: int, result: Any) -> None:
        """Keep a finished part, unless the attempt has lost its job. Progress: earlier failures are forgiven."""
        with self._engine.begin() as conn:
            mine = conn.execute(self._mine(job_id, runner).values(attempts=1, stuck_ms=None))
            if mine.rowcount:
                conn.execute(sa.delete(PARTS).where(PARTS.c.job_id == job_id, PARTS.c.part == part))
                text = _storable(json.dumps(result, ensure_ascii=False))
                conn.execute(sa.insert(PARTS).values(job_id=job_id, part=part, result=text))

    def remove(self, job_id: str, owner: str | None = None) -> tuple[str, str]:
        """Forget a job that is over; the spool and the name of its upload.

        Raises:
            ASRError: `not_found`, or `bad_request` where it is not over.
        """
        there = self.get(job_id, owner)
        if there is None:
            raise no_such_job()
        if not there.over:
            raise ASRError(Code.BAD_REQUEST, "The job is not over. Cancel it before you delete it.", param="job_id")
        with self._engine.begin() as conn:
            gone = conn.execute(sa.delete(JOBS).where(JOBS.c.id == job_id).returning(JOBS.c.spool, JOBS.c.file))
            row = gone.one_or_none()
        if row is None:
            raise no_such_job()
        return row.spool, row.file

    def expire(self, ttl_ms: int, *, most: int) -> list[str]:
        """Forget jobs that have been over for longer than `ttl_ms`; their ids."""
        with self._engine.begin() as conn:
            old = (
                sa.select(JOBS.c.id)
                .where(
                    JOBS.c.status.in_([status.value for status in OVER]),
                    JOBS.c.completed_ms < self.now_ms(conn) - ttl_ms,
                )
                .limit(most)
            )
            return [row.id for row in conn.execute(sa.delete(JOBS).where(JOBS.c.id.in_(old)).returning(JOBS.c.id))]

    def files(self, spool: str) -> dict[str, bool]:
        """The files of a spool that jobs name, and whether they are still needed."""
        query = sa.select(JOBS.c.file, JOBS.c.status).where(JOBS.c.spool == spool)
        with self._engine.connect() as conn:
            return {row.file: Status(row.status) not in OVER for row in conn.execute(query)}

    def file_of(self, job_id: str) -> tuple[str, str] | None:
        """The spool and the name of a job's upload."""
        with self._engine.connect() as conn:
            row = conn.execute(sa.select(JOBS.c.spool, JOBS.c.file).where(JOBS.c.id == job_id)).one_or_none()
        return None if row is None else (row.spool, row.file)

    def webhook_of(self, job_id: str) -> tuple[JobView, str] | None:
        """A job with where to tell of it; None where it is gone."""
        with self._engine.connect() as conn:
            row = conn.execute(sa.select(*_SEEN).where(JOBS.c.id == job_id)).one_or_none()
        return None if row is None else (_view(row), row.webhook_url)

    def now_ms(self, conn: sa.Connection) -> int:
        """The time, in ms since 1970."""
        if self._database.is_sqlite:
            return int(self._clock() * 1000)
        value = conn.execute(sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")).scalar_one()
        return int(value)

    def _same(self, conn: sa.Connection, key: str | None, job: NewJob) -> JobView | None:
        row = conn.execute(sa.select(*_SEEN).where(JOBS.c.idempotency == key)).one_or_none()
        if row is None:
            return None
        if row.fingerprint != job.fingerprint:
            what = "This Idempotency-Key was used for another recording or other options. Use a key for one job only."
            raise ASRError(Code.BAD_REQUEST, what, param="idempotency_key")
        return _view(row)

    def _check_room(self, conn: sa.Connection, spool: str, max_pending: int) -> int:
        query = sa.select(sa.func.count()).where(JOBS.c.status == Status.PENDING.value, JOBS.c.spool == spool)
        waiting = conn.execute(query).scalar_one()
        if waiting >= max_pending:
            what = f"{waiting} jobs wait already, and no more may. Send the job again later."
            raise ASRError(Code.OVERLOADED, what, retry_after_ms=FULL_RETRY_MS)
        return int(waiting)

    def _check_share(self, conn: sa.Connection, job: NewJob, max_pending: int, waiting: int) -> None:
        """The last places are for callers with few jobs; those without a credential cannot be told apart."""
        reserve = max_pending // RESERVE
        if not job.owner or waiting < max_pending - reserve:
            return
        payer = payer_of(job.owner)
        whose = sa.or_(JOBS.c.owner == payer, JOBS.c.owner.startswith(f"{payer} for ", autoescape=True))
        query = sa.select(sa.func.count()).where(
            JOBS.c.status == Status.PENDING.value, JOBS.c.spool == job.spool, whose
        )
        mine = conn.execute(query).scalar_one()
        if mine >= reserve:
            what = f"{waiting} jobs wait, {mine} of them yours. The last places are for others. Send the job later."
            raise ASRError(Code.RATE_LIMITED, what, retry_after_ms=FULL_RETRY_MS)

    def _mine(self, job_id: str, runner: str) -> sa.Update:
        return sa.update(JOBS).where(
            JOBS.c.id == job_id, JOBS.c.runner == runner, JOBS.c.status == Status.PROCESSING.value
        )

    def _end(
        self, job_id: str, status: Status, values: Mapping[str, Any], runner: str | None, owner: str | None = None
    ) -> bool:
        before = [one.value for one in may_become(status)]
        change = sa.update(JOBS).where(JOBS.c.id == job_id, JOBS.c.status.in_(before))
        if runner is not None:
            change = change.where(JOBS.c.runner == runner)
        if owner is not None:
            change = change.where(JOBS.c.owner == owner)
        with self._engine.begin() as conn:
            row = conn.execute(
                change.values(status=status.value, completed_ms=self.now_ms(conn), runner="", **values).returning(
                    JOBS.c.webhook_url
                )
            ).one_or_none()
            if row is None:
                return False
            conn.execute(sa.delete(PARTS).where(PARTS.c.job_id == job_id))
            if row.webhook_url:
                self._enqueue.webhook(conn, job_id)
        return True


def _storable(text: str) -> str:
    """Without what a database refuses: zeros, and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _key(owner: str, key: str) -> str:
    return hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()


def _view(row: Any, transcript: str | None = None) -> JobView:
    status = Status(row.status)
    created = moment(row.created_ms)
    assert created is not None
    return JobView(
        id=row.id,
        status=status,
        filename=row.filename,
        created_at=created,
        started_at=moment(row.started_ms),
        completed_at=moment(row.completed_ms),
        error=row.error,
        error_code=row.error_code,
        progress_percent=percent(status, row.audio_ms, row.audio_total_ms),
        audio_ms=row.audio_ms,
        audio_total_ms=row.audio_total_ms,
        transcript=None if transcript is None else from_json(json.loads(transcript)),
        owner=row.owner,
        labels=json.loads(row.labels),
    )
