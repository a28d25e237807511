"""What faces ask of the jobs: submit, look, list, cancel, delete. Nothing here blocks the event loop.

The database is opened in the background, once the gateway serves; a gateway without jobs from before opens no SQLite
file until the first one comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import structlog

from asr.engine import Engine
from asr.errors import ASRError, Code
from asr.options import Options
from server.admission import Admission
from server.forms import Upload
from server.jobs.model import (
    MAX_KEY_CHARS,
    MAX_PAGE,
    PAGE,
    JobView,
    NewJob,
    Status,
    WorkRules,
    check_database_url,
    checked_labels,
    no_such_job,
    wishes_of,
)
from server.jobs.places import PatientEngine
from server.jobs.webhook import checked_url
from server.settings import ServerSettings
from server.spool import Spool
from server.telemetry.hub import Telemetry

if TYPE_CHECKING:
    from server.jobs.database import Database
    from server.jobs.wing import Wing

log = structlog.get_logger("server.jobs")

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_TIMEOUT_S = 10.0
"""A request waits so long for what the database says."""
OPEN_TIMEOUT_S = 20.0
"""A request waits so long for the database to be opened."""
REOPEN_S = 5.0
PLACE_PATIENCE_MS = 30_000
END_TIMEOUT_S = 5.0
DATABASE_THREADS = 4
COUNT_AGAIN_S = 5.0
MAX_ID_CHARS = 64
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Jobs:
    """The jobs of a gateway.

    Args:
        settings: the `JOBS_…` keys, `STATE_DIR` and `STEREO`.
        engine: who recognizes; closed by its owner.
        admission: its streams take places there.
        spool: where the uploads lie.
        rules: how jobs are done; None for what the settings say.
        telemetry: told of every stream that a part of a recording makes.
        heard: told of the audio, in ms, that was recognized for an owner of jobs.

    Raises:
        ASRError: `bad_request` where JOBS_DATABASE_URL is none.
    """

    def __init__(
        self,
        settings: ServerSettings,
        engine: Engine,
        admission: Admission,
        spool: Spool,
        *,
        rules: WorkRules | None = None,
        telemetry: Telemetry | None = None,
        heard: Callable[[str, float], None] = lambda owner, audio_ms: None,
    ) -> None:
        self._heard = heard
        self._settings = settings
        told = telemetry if telemetry is not None else Telemetry()
        self._engine = PatientEngine(engine, admission, told, patience_ms=PLACE_PATIENCE_MS)
        self._spool = spool
        self._rules = rules or _rules(settings)
        self._file = settings.state_dir / "jobs.sqlite"
        if settings.jobs_database_url is not None:
            check_database_url(settings.jobs_database_url.get_secret_value())
        self._threads = ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="jobs")
        self._database: Database | None = None
        self._open: Wing | None = None
        self._drained: Wing | None = None
        self._opening: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._ending = asyncio.Event()
        self._trouble = ""
        self._counts: Mapping[str, int] = {}
        self._count_again_at = 0.0

    @property
    def max_upload_bytes(self) -> int:
        """Of one recording."""
        return self._settings.jobs_max_upload_bytes

    async def start(self) -> None:
        """Go on with the jobs of earlier lives and of other gateways. It returns at once."""
        if self._settings.jobs_database_url is not None or self._file.exists():
            self._begin()

    async def check_room(self) -> None:
        """Whether a further job may come; to be asked before its upload is read.

        Raises:
            ASRError: `overloaded` where too many wait, `unavailable` where the database is away.
        """
        there = await self._there()
        await self._ask(there.store.check_room, there.spool_id, self._settings.jobs_max_pending)

    async def submit(
        self,
        upload: Upload,
        options: Options,
        *,
        filename: str,
        owner: str,
        idempotency_key: str = "",
        webhook_url: str = "",
        parts: int | None = None,
        labels: Mapping[str, str] = _NOTHING,
        warnings: Iterable[str] = (),
    ) -> JobView:
        """Add a job. When this returns, the job is kept whatever happens.

        Args:
            upload: taken over, once there is a database to ask; until then it stays the caller's to close.
            options: matched with the engine when the job is done.
            filename: for people.
            owner: who may see the job (`server.principal`).
            idempotency_key: the same key with the same recording and options gives the same job again.
            webhook_url: told when the job is over, or "".
            parts: of the recording, recognized at a time; None and more than JOBS_PARTS mean JOBS_PARTS.
            labels: the caller's own words.
            warnings: sentences that go into the transcript.

        Raises:
            ASRError: `bad_request`, `unsupported` (a webhook without a secret to sign it), `overloaded`,
                `unavailable`, `too_large`.
        """
        if upload.size_bytes > self.max_upload_bytes:
            what = f"The recording is larger than the {self.max_upload_bytes} bytes that a job may have."
            raise ASRError(Code.TOO_LARGE, what, param="file")
        if len(idempotency_key) > MAX_KEY_CHARS:
            what = f"An Idempotency-Key has at most {MAX_KEY_CHARS} characters."
            raise ASRError(Code.BAD_REQUEST, what, param="idempotency_key")
        if webhook_url:
            self._check_webhook(webhook_url)
        there = await self._there()
        fingerprint = ""
        if idempotency_key:
            fingerprint = await asyncio.to_thread(_fingerprint, upload.path, wishes_of(options, webhook_url))
        most = self._settings.jobs_parts
        job = NewJob(
            id=str(uuid.uuid4()),
            owner=owner,
            spool=there.spool_id,
            file=upload.path.name,
            filename=filename,
            options=options,
            labels=checked_labels(labels),
            parts=most if parts is None else max(1, min(parts, most)),
            warnings=tuple(warnings),
            webhook_url=webhook_url,
            idempotency=idempotency_key,
            fingerprint=fingerprint,
        )
        # Not to be cut in half: once the row is there, the file is the job's, even if its caller has left.
        upload.keep()
        return await asyncio.shield(self._add(there, job, upload))

    async def get(self, job_id: str, owner: str | None = None) -> JobView | None:
        """A job, with its transcript where it is completed; None where there is none of this owner's.

        Raises:
            ASRError: `unavailable` where the database is away.
        """
        if self._is_untouched or not _is_id(job_id):
            return None
        there = await self._there()
        return await self._ask(there.store.get, job_id, owner)

    async def list(
        self,
        owner: str | None = None,
        status: Status | Iterable[Status] | None = None,
        limit: int = PAGE,
        before: str | None = None,
    ) -> list[JobView]:
        """Jobs without their transcripts, newest first.

        Args:
            owner: whose; None for everybody's.
            status: one or several; None for all.
            limit: 1 to 500.
            before: the id of the last job of the page before.

        Raises:
            ASRError: `bad_request`, `not_found` (no job `before`), `unavailable`.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise ASRError(Code.BAD_REQUEST, f"limit is {limit}; it must be 1 to {MAX_PAGE}.", param="limit")
        if self._is_untouched:
            return []
        if before is not None and not _is_id(before):
            raise no_such_job()
        there = await self._there()
        statuses = [status] if isinstance(status, Status) else [*(status or ())]
        return await self._ask(there.store.page, owner=owner, statuses=statuses, limit=limit, before=before)

    async def counts(self) -> dict[str, int]:
        """How many jobs there are, by their status, as it was `COUNT_AGAIN_S` ago at most: whoever asks often, costs
        the database nothing. Where nothing is open, nothing is opened for it.

        Raises:
            ASRError: `unavailable` where the database is away.
        """
        now = asyncio.get_running_loop().time()
        there = self._open
        if there is not None and now >= self._count_again_at:
            self._count_again_at = now + COUNT_AGAIN_S
            self._counts = await self._ask(there.store.counts)
        return {status.value: self._counts.get(status.value, 0) for status in Status}

    async def cancel(self, job_id: str, owner: str | None = None) -> JobView:
        """End a job that is not over; its work stops within a second, whichever gateway does it.

        Raises:
            ASRError: `not_found`, `bad_request` where it is over, `unavailable`.
        """
        if self._is_untouched or not _is_id(job_id):
            raise no_such_job()
        there = await self._there()
        cancelled = await self._ask(there.store.cancel, job_id, owner)
        there.work.cancel(job_id)
        with suppress(ASRError):  # else the sweep deletes it
            file = await self._ask(there.store.file_of, job_id)
            if file is not None:
                await self._ask(there.work.remove_file, *file)
        return cancelled

    async def delete(self, job_id: str, owner: str | None = None) -> None:
        """Forget a job that is over, with its transcript.

        Raises:
            ASRError: `not_found`, `bad_request` where it is not over, `unavailable`.
        """
        if self._is_untouched or not _is_id(job_id):
            raise no_such_job()
        there = await self._there()
        file = await self._ask(there.store.remove, job_id, owner)
        await self._ask(there.work.remove_file, *file)
        await self._ask(there.durable.forget, [job_id], self._rules.webhook_attempts)

    async def drain(self) -> None:
        """Stop the work; it goes on in the next life, or in another gateway. Looking at jobs is still possible."""
        self._ending.set()
        self._opened.set()  # nobody waits for it any more
        if self._open is not None and self._drained is not self._open:
            self._drained = self._open
            await self._open.work.end(END_TIMEOUT_S)

    async def aclose(self) -> None:
        """Let go of everything."""
        await self.drain()
        if self._opening is not None:
            done, _ = await asyncio.wait([self._opening], timeout=END_TIMEOUT_S)
            if not done and self._database is not None:
                self._database.shut()  # its thread would keep the process
        for task in (self._opening, self._keeping):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        there, self._open = self._open, None
        if there is not None:
            # A thread of its own, which nobody waits for at the end: a database that is away must not keep us.
            over = asyncio.Event()
            loop = asyncio.get_running_loop()

            def close() -> None:
                there.close()
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(over.set)

            threading.Thread(target=close, name="jobs-close", daemon=True).start()
            for _ in range(2):
                with suppress(TimeoutError):
                    async with asyncio.timeout(END_TIMEOUT_S):
                        await over.wait()
                if over.is_set():
                    break
                there.database.shut()  # whoever waits for it in vain
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _is_untouched(self) -> bool:
        """Whether there has never been a job, and nothing is open."""
        return self._opening is None and self._settings.jobs_database_url is None and not self._file.exists()

    def _check_webhook(self, url: str) -> None:
        if not self._rules.webhook_secret:
            what = "This gateway has no secret to sign webhooks with (JOBS_WEBHOOK_SECRET). Ask for the status instead."
            raise ASRError(Code.UNSUPPORTED, what, param="webhook_url")
        checked_url(url)

    async def _add(self, there: Wing, job: NewJob, upload: Upload) -> JobView:
        wanted = True  # also where this is cancelled: its thread goes on
        try:
            view, wanted = await self._ask(there.store.add, job, max_pending=self._settings.jobs_max_pending)
        except ASRError as error:
            # A database that did not answer may have the row, or be about to; if not, the sweep finds the file.
            wanted = error.code is Code.UNAVAILABLE
            raise
        except Exception:
            wanted = False
            raise
        finally:
            if not wanted:
                await asyncio.to_thread(self._spool.remove, upload.path)
        if wanted:
            log.info("job added", job_id=view.id, bytes=upload.size_bytes)
        return view

    def _begin(self) -> None:
        if self._opening is None and not self._ending.is_set():
            self._opening = asyncio.create_task(self._open_patiently(), name="jobs open")

    async def _there(self) -> Wing:
        self._begin()
        if self._open is None and not self._ending.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(OPEN_TIMEOUT_S if not self._trouble else REOPEN_S):
                    await self._opened.wait()
        if self._open is None:
            raise _away()
        return self._open

    async def _open_patiently(self) -> None:
        loop = asyncio.get_running_loop()
        there: Wing | None = None
        while there is None:
            if self._ending.is_set():
                return
            try:
                there = await loop.run_in_executor(self._threads, self._open_wing, loop)
            except Exception as error:
                if not self._trouble:
                    self._trouble = _reason(error)
                    log.error("job database cannot be opened; trying again", reason=self._trouble)
                with suppress(TimeoutError):
                    async with asyncio.timeout(REOPEN_S):
                        await self._ending.wait()
        self._open, self._trouble = there, ""
        self._keeping = asyncio.create_task(there.keeper.run(), name="jobs keeper")
        self._opened.set()

    def _open_wing(self, loop: asyncio.AbstractEventLoop) -> Wing:
        from server.jobs.wing import open_wing

        def met(database: Database) -> None:
            self._database = database

        return open_wing(self._settings, self._engine, self._spool, self._rules, loop, self._threads, met, self._heard)

    async def _ask(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: act(*args, **kwargs))
        except ASRError:
            raise
        except TimeoutError as error:
            log.warning("job database does not answer")
            raise _away() from error
        except Exception as error:
            if self._ending.is_set() or (self._open is not None and isinstance(error, self._open.database_errors)):
                log.warning("job database fails", error=type(error).__name__)
                raise (_full() if _is_full(error) else _away()) from error
            raise


def _reason(error: Exception) -> str:
    """For the log. What a database's own errors say may hold its password."""
    if isinstance(error, ASRError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return type(error).__name__


def _is_id(text: str) -> bool:
    """Whether it may be a job's: PostgreSQL refuses to look for some texts."""
    return len(text) <= MAX_ID_CHARS and text.isascii() and text.isprintable()


def _fingerprint(path: Path, said: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(said.encode())
    return digest.hexdigest()


def _rules(settings: ServerSettings) -> WorkRules:
    secret = settings.jobs_webhook_secret
    return WorkRules(
        max_audio_ms=settings.jobs_max_audio_ms,
        stereo=settings.stereo,
        webhook_secret="" if secret is None else secret.get_secret_value(),
        webhook_attempts=settings.jobs_webhook_attempts,
        webhook_timeout_ms=settings.jobs_webhook_timeout_ms,
        webhook_private=settings.jobs_webhook_private,
    )


def _is_full(error: Exception) -> bool:
    """Whether a database failed because there is no room for more."""
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlite_errorname", "") == "SQLITE_FULL" or getattr(cause, "sqlstate", "") == "53100"


def _full() -> ASRError:
    return ASRError(Code.STORAGE_FULL, "The disk of the job database is full. Try again later.", retry_after_ms=30_000)


def _away() -> ASRError:
    return ASRError(
        Code.UNAVAILABLE, "The job database cannot be reached at the moment. Try again soon.", retry_after_ms=5_000
    )
