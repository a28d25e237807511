"""The workflow engine behind the jobs: DBOS, set up so that it keeps to itself.

A job is one workflow in the queue of its spool, with the job's id; each attempt to deliver a webhook is one in a queue
that all gateways share. A workflow whose gateway died is put back into its queue by the one that finds that out. DBOS
has one instance for a process, hence so has this; it is imported only here and only when there are jobs.

The steps of a workflow are known by their order: when that changes, `VERSION` must, and gateways of the version before
must finish what they have.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa
import structlog

from asr.errors import ASRError, Code
from server.jobs.database import AWAY, Database

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions

log = structlog.get_logger("server.jobs")

APPLICATION = "riva-gateway"
VERSION = "jobs-1"
JOB = "gateway.job"
WEBHOOK = "gateway.webhook"
WEBHOOK_QUEUE = "gateway-webhooks"
WEBHOOKS_AT_A_TIME = 8
JOB_POLL_S = 0.25
WEBHOOK_POLL_S = 0.5
_NEVER_S = 86_400.0

_one_per_process = threading.Lock()


class HandedBack(BaseException):
    """A step ends without an outcome: the gateway goes down, and another life of it does the step again.

    No `Exception`, which the workflow engine would record as the step's outcome.
    """


class Steps(Protocol):
    """What the workflows do. Blocking; called in threads of the workflow engine."""

    def transcribe(self, job_id: str) -> str:
        """Do the job, and store how it ended; one word about that comes back."""
        ...

    def clean_up(self, job_id: str) -> str:
        """Delete what is no longer needed."""
        ...

    def deliver(self, job_id: str, attempt: int) -> int:
        """Tell of the job once. Milliseconds until it is to be tried again, or 0 where that is over."""
        ...


class Durable:
    """The engine's instance.

    Args:
        database: shared with the store.
        gateway_id: of this life of the gateway.
        spool: the id of the spool whose jobs are done here.
        concurrency: jobs at a time.
    """

    def __init__(self, database: Database, *, gateway_id: str, spool: str, concurrency: int) -> None:
        self._database = database
        self._gateway_id = gateway_id
        self._spool = spool
        self._concurrency = concurrency
        self._client: DBOSClient | None = None
        self._has_process = False

    def launch(self, steps: Steps) -> None:
        """Begin to work.

        Raises:
            ASRError: `unavailable`, where another gateway of this process has jobs.
        """
        if not _one_per_process.acquire(blocking=False):
            what = "Another gateway of this process does its jobs; there can be one. Set JOBS=off for this one."
            raise ASRError(Code.UNAVAILABLE, what)
        self._has_process = True
        _route_logs()
        from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer

        # JSON, not pickles: who can write to the database must not be able to run code here.
        serializer = DBOSPortableJSONSerializer()
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": self._database.url.render_as_string(hide_password=False),
                "system_database_engine": self._database.engine,
                "application_version": VERSION,
                "executor_id": self._gateway_id,
                "serializer": serializer,
                "use_listen_notify": False,
                "enable_otlp": False,
                "log_level": "WARNING",
                "scheduler_polling_interval_sec": _NEVER_S,
                "notification_listener_polling_interval_sec": 0.25,
            }
        )
        self._register(steps)
        queue = job_queue(self._spool)
        DBOS.listen_queues([queue, WEBHOOK_QUEUE])
        DBOS.launch()
        self._client = DBOSClient(
            system_database_engine=self._database.engine,
            serializer=serializer,
            application_name=APPLICATION,
            retry_connection_errors=False,
        )
        DBOS.register_queue(
            queue, worker_concurrency=self._concurrency, polling_interval_sec=JOB_POLL_S, on_conflict="always_update"
        )
        DBOS.register_queue(
            WEBHOOK_QUEUE,
            worker_concurrency=WEBHOOKS_AT_A_TIME,
            polling_interval_sec=WEBHOOK_POLL_S,
            on_conflict="always_update",
        )

    def hush(self) -> None:
        """No more lines: what fails from now on fails because the database was closed."""
        if self._has_process:
            logging.getLogger("dbos").setLevel(logging.CRITICAL)

    def destroy(self) -> None:
        """Work no more. Steps must have ended, or end with `HandedBack` soon."""
        if not self._has_process:
            return
        from dbos import DBOS

        try:
            if self._client is not None:
                self._client.destroy()
            DBOS.destroy(destroy_registry=True)
        finally:
            self._client, self._has_process = None, False
            _one_per_process.release()

    def job(self, conn: sa.Connection, job_id: str, spool: str) -> None:
        """See `server.jobs.store.Enqueue`."""
        self._ready.enqueue_in_transaction(conn, _options(JOB, job_queue(spool), job_id), job_id)

    def webhook(self, conn: sa.Connection, job_id: str) -> None:
        """See `server.jobs.store.Enqueue`."""
        self._ready.enqueue_in_transaction(conn, _options(WEBHOOK, WEBHOOK_QUEUE, _webhook_id(job_id, 1)), job_id, 1)

    def take_over(self, gateway_id: str) -> int:
        """Put what a dead gateway had begun back into the queues; how much that was."""
        return self.put_back(self._pending(gateway_id))

    def strays(self, begun: set[str]) -> set[tuple[str, str]]:
        """Jobs that were given to this gateway and that it has not begun, for `put_back`."""
        return {(queue, one) for queue, one in self._pending(self._gateway_id) if queue != WEBHOOK_QUEUE} - {
            (job_queue(self._spool), one) for one in begun
        }

    def put_back(self, workflows: Iterable[tuple[str, str]]) -> int:
        """Put workflows back into their queues: pairs of queue and id."""
        queues: dict[str, list[str]] = defaultdict(list)
        for queue, one in workflows:
            queues[queue].append(one)
        for queue, ids in queues.items():
            self._ready.resume_workflows(ids, queue_name=queue)
        return sum(map(len, queues.values()))

    def _pending(self, gateway_id: str) -> set[tuple[str, str]]:
        found = self._ready.list_workflows(
            status="PENDING", executor_id=gateway_id, load_input=False, load_output=False
        )
        return {(one.queue_name, one.workflow_id) for one in found if one.queue_name is not None}

    def forget(self, job_ids: Iterable[str], webhook_attempts: int) -> None:
        """Delete the workflows of jobs that are forgotten."""
        found = [[one, *(_webhook_id(one, number + 1) for number in range(webhook_attempts))] for one in job_ids]
        for ids in found:
            self._ready.delete_workflows(ids)

    @property
    def _ready(self) -> DBOSClient:
        if self._client is None:
            raise ASRError(Code.UNAVAILABLE, "The gateway's jobs are not running at the moment. Try again soon.")
        return self._client

    def _register(self, steps: Steps) -> None:
        from dbos import DBOS

        @DBOS.workflow(name=JOB, max_recovery_attempts=None)
        def job(job_id: str) -> str:
            outcome = DBOS.run_step({"name": "transcribe"}, steps.transcribe, job_id)
            DBOS.run_step({"name": "clean up"}, steps.clean_up, job_id)
            return outcome

        @DBOS.workflow(name=WEBHOOK, max_recovery_attempts=None)
        def webhook(job_id: str, attempt: int) -> int:
            again_ms = DBOS.run_step({"name": "deliver"}, steps.deliver, job_id, attempt)
            if again_ms:
                # A workflow for each attempt: one that waits needs no thread, and keeps no place in the queue.
                options = _options(WEBHOOK, WEBHOOK_QUEUE, _webhook_id(job_id, attempt + 1))
                options["delay_seconds"] = again_ms / 1000
                self._persistently(lambda: self._ready.enqueue(options, job_id, attempt + 1))
            return again_ms

    def _persistently(self, act: Callable[[], object]) -> None:
        wait_s = 0.5
        while True:
            try:
                act()
            except AWAY as error:
                log.warning("job database fails; trying again", error=type(error).__name__)
                threading.Event().wait(wait_s)
                wait_s = min(wait_s * 2, 5.0)
            else:
                return


def job_queue(spool: str) -> str:
    """The queue of the jobs whose files lie in a spool: only gateways that reach it take from it."""
    return f"gateway-jobs-{spool}"


def _webhook_id(job_id: str, attempt: int) -> str:
    return f"{job_id}.webhook.{attempt}"


def _options(workflow: str, queue: str, workflow_id: str) -> EnqueueOptions:
    return {"workflow_name": workflow, "queue_name": queue, "workflow_id": workflow_id, "app_version": VERSION}


def _route_logs() -> None:
    """The engine speaks where all others do, and only when something is wrong."""
    own = logging.getLogger("dbos")
    own.propagate = False
    own.handlers = [_Lines(logging.WARNING)]


class _Lines(logging.Handler):
    """The engine's lines in the house's format."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on, without its trace: it may quote what a database holds."""
        cause = record.exc_info[1] if record.exc_info else None
        more = {} if cause is None else {"cause": type(cause).__name__}
        log.log(record.levelno, "workflow engine: " + record.getMessage().partition("\n")[0][:300], **more)
