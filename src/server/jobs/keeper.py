"""Watches over the jobs while the gateway lives: progress, cancels, the dead, and what is no longer needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

import structlog

from asr.errors import ASRError
from server.jobs.database import AWAY
from server.jobs.durable import Durable
from server.jobs.lives import RENEW_S, Lives
from server.jobs.store import Store
from server.jobs.work import Work
from server.spool import Spool

log = structlog.get_logger("server.jobs")

P = ParamSpec("P")
T = TypeVar("T")

BEAT_S = 0.4
"""So often it is seen whether a job was cancelled by another gateway."""
NEWS_S = 1.0
"""So often progress is written."""
SWEEP_S = 60.0
EXPIRE_AT_ONCE = 500
ORPHAN_AFTER_S = 2 * 3_600
"""A file of the spool that no job names may belong to a call that still runs; after so long it does not."""
STRAY_AFTER_S = 60.0


class Keeper:
    """One for each gateway.

    Args:
        store, durable, lives, work: of this gateway.
        spool: whose files are swept; `spool_id` is its name among gateways.
        result_ttl_ms: how long a job is kept after it is over.
        webhook_attempts: for each job.
        threads: where the database is asked.
        renew: whether other gateways go by a lease.
    """

    def __init__(
        self,
        store: Store,
        durable: Durable,
        lives: Lives,
        work: Work,
        *,
        spool: Spool,
        spool_id: str,
        result_ttl_ms: int,
        webhook_attempts: int,
        threads: Executor,
        renew: bool,
    ) -> None:
        self._store = store
        self._durable = durable
        self._lives = lives
        self._work = work
        self._spool = spool
        self._spool_id = spool_id
        self._result_ttl_ms = result_ttl_ms
        self._webhook_attempts = webhook_attempts
        self._threads = threads
        self._renew = renew
        self._strange: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        every = {
            self._look_after_the_dead: RENEW_S,
            self._note: NEWS_S,
            self._sweep: min(SWEEP_S, max(self._result_ttl_ms / 1000, 1.0)),
            self._find_strays: STRAY_AFTER_S,
        }
        due = dict.fromkeys(every, loop.time())
        away = False
        while True:
            pause_s = BEAT_S
            try:
                await self._watch()
                for act, at in due.items():
                    if at <= loop.time():
                        due[act] = loop.time() + every[act]
                        await act()
                away = False
            except (*AWAY, ASRError) as error:
                if not away:
                    log.warning("job database fails", error=type(error).__name__)
                away = True
            except Exception as error:
                log.error("watching the jobs failed", exc_info=error)
                pause_s = RENEW_S
            await asyncio.sleep(pause_s)

    async def _watch(self) -> None:
        standings = self._work.standings(news_only=False)
        if standings:
            for runner in await self._ask(self._store.still_mine, standings):
                self._work.drop(runner)

    async def _note(self) -> None:
        news = self._work.standings(news_only=True)
        if news:
            for runner in await self._ask(self._store.beat, news):
                self._work.drop(runner)

    async def _look_after_the_dead(self) -> None:
        if self._renew:
            await self._ask(self._lives.renew)
        for gateway_id in await self._ask(self._lives.dead):
            taken = await self._ask(self._durable.take_over, gateway_id)
            await self._ask(self._lives.bury, gateway_id)
            if taken:
                log.info("jobs of another life taken over", gateway=gateway_id, workflows=taken)

    async def _sweep(self) -> None:
        gone = await self._ask(self._store.expire, self._result_ttl_ms, most=EXPIRE_AT_ONCE)
        if gone:
            await self._ask(self._durable.forget, gone, self._webhook_attempts)
            log.info("old jobs forgotten", jobs=len(gone))
        removed = await self._ask(self._sweep_files)
        if removed:
            log.info("files without a use removed", files=removed)

    async def _find_strays(self) -> None:
        # Work that was given to this gateway, and that it did not begin (the database failed just then).
        strays = await self._ask(self._durable.strays, self._work.begun())
        if strays & self._strange:
            await self._ask(self._durable.put_back, strays & self._strange)
        self._strange = strays

    def _sweep_files(self) -> int:
        wanted = self._store.files(self._spool_id)
        removed = 0
        for path in self._spool.folder.glob("*.upload"):
            try:
                old = time.time() - path.stat().st_mtime > ORPHAN_AFTER_S
            except OSError:
                continue
            needed = wanted.get(path.name)
            if needed is False or (needed is None and old):
                self._spool.remove(path)
                removed += 1
        return removed

    async def _ask(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: act(*args, **kwargs))
