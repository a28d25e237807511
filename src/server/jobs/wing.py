"""All that there is of the jobs once their database is open. Imported then: what it needs takes a while to load.

Blocking.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from server.jobs.database import AWAY, Database, postgres_url, sqlite_url
from server.jobs.durable import Durable
from server.jobs.keeper import Keeper
from server.jobs.lives import Lives
from server.jobs.model import WorkRules
from server.jobs.places import PatientEngine
from server.jobs.store import Store
from server.jobs.work import Work
from server.settings import ServerSettings
from server.spool import Spool

log = structlog.get_logger("server.jobs")

SQLITE_NAME = "jobs.sqlite"


@dataclass(frozen=True, slots=True)
class Wing:
    """The jobs of a gateway, at work.

    Attributes:
        spool_id: the name of the spool among gateways.
        keeper: to be run on the event loop.
        database_errors: what is raised where the database fails.
    """

    database: Database
    store: Store
    durable: Durable
    lives: Lives
    work: Work
    keeper: Keeper
    spool_id: str
    database_errors: tuple[type[Exception], ...] = AWAY

    def close(self) -> None:
        """Let go of everything. What was begun is for others, or for the next life."""
        try:
            self.lives.leave()
        except Exception as error:  # then others find out by the lease
            log.warning("job database fails", error=type(error).__name__)
        self.let_go()

    def let_go(self) -> None:
        """`close`, without a word to others."""
        # Whoever still waits for the database gets an error now, and nothing is recorded that did not happen.
        self.durable.hush()
        self.database.shut()
        self.lives.let_go()
        try:
            self.durable.destroy()
            self.database.dispose()
        except Exception as error:
            log.warning("closing the jobs failed", error=type(error).__name__)


def open_wing(
    settings: ServerSettings,
    engine: PatientEngine,
    spool: Spool,
    rules: WorkRules,
    loop: asyncio.AbstractEventLoop,
    threads: Executor,
    met: Callable[[Database], None],
    heard: Callable[[str, float], None],
) -> Wing:
    """Open the database and begin to work.

    Args:
        settings: where the database is, and how much is done at a time.
        engine: whose streams take places by themselves.
        spool: where the uploads lie.
        rules: how jobs are done.
        loop: where they are recognized.
        threads: where the keeper asks the database.
        met: told of the database before it is asked anything: to shut it, should it never answer.
        heard: told of the audio, in ms, that was recognized for an owner of jobs.

    Raises:
        ASRError: `bad_request` for a URL that is none, `unavailable` where this process does jobs already.
        sqlalchemy.exc.SQLAlchemyError: the database is away.
    """
    secret = settings.jobs_database_url
    url = sqlite_url(settings.state_dir / SQLITE_NAME) if secret is None else postgres_url(secret.get_secret_value())
    spool_id = spool_identity(spool.folder)
    gateway_id = f"gateway-{secrets.token_hex(8)}"
    database = Database(url)
    met(database)
    durable = Durable(database, gateway_id=gateway_id, spool=spool_id, concurrency=settings.jobs_concurrency)
    store = Store(database, durable)
    lives = Lives(database, settings.state_dir / "lives", gateway_id, store.now_ms)
    work = Work(store, engine, spool, spool_id, rules, loop, heard)
    keeper = Keeper(
        store,
        durable,
        lives,
        work,
        spool=spool,
        spool_id=spool_id,
        result_ttl_ms=settings.jobs_result_ttl_ms,
        webhook_attempts=rules.webhook_attempts,
        threads=threads,
        renew=not database.is_sqlite,
    )
    wing = Wing(database, store, durable, lives, work, keeper, spool_id)
    try:
        database.create()
        lives.enter()
        durable.launch(work)
    except BaseException:
        wing.let_go()
        raise
    log.info("jobs ready", database="sqlite" if database.is_sqlite else "postgresql", gateway=gateway_id)
    return wing


def spool_identity(folder: Path) -> str:
    """The name of a spool among all gateways: gateways that share the folder share the name.

    Blocking.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "spool-id"
    if not path.exists():
        # Written aside and linked, so that nobody reads half of it and the first of two wins.
        mine = folder / f"spool-id.{secrets.token_hex(8)}"
        mine.write_text(secrets.token_hex(8), "ascii")
        with suppress(FileExistsError):
            path.hardlink_to(mine)
        mine.unlink()
    return path.read_text("ascii").strip()
