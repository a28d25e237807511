"""The work of a job: its upload recognized on the gateway's loop, with the gateway's engine; the end of it stored once.

The workflow engine calls the steps in threads of its own. Recognition runs on the event loop, where it can be stopped
at once: because the job was cancelled or taken over, or because the gateway goes down.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from asr.cutting import PartResult, transcribe_long
from asr.errors import ASRError, Code
from asr.transcript import Transcript
from server.jobs.database import AWAY
from server.jobs.delivery import Delivery, deliver, public_trust
from server.jobs.durable import HandedBack
from server.jobs.model import WorkRules, retry_delay_ms
from server.jobs.places import PatientEngine
from server.jobs.store import Claimed, Standing, Store
from server.jobs.webhook import DELIVERY, EVENT, SIGNATURE, body_of, delivery_id, event_of, sign
from server.rollout.state import SwitchedOff
from server.spool import Spool

log = structlog.get_logger("server.jobs")

T = TypeVar("T")

RETRY_FIRST_MS = 1_000
RETRY_MOST_MS = 30_000
MAX_ATTEMPTS = 10
"""Attempts in a row that ended with the gateway's death and without a finished part: the recording is to blame."""
WEBHOOK_MOST_MS = 3_600_000
_POLL_S = 0.5
_GLANCE_S = 0.02


class _Running:
    """An attempt that runs."""

    def __init__(self, claimed: Claimed, task: asyncio.Task[Any]) -> None:
        self.claimed = claimed
        self.task = task
        self.audio_ms = 0
        self.total_ms = 0
        self.told = True
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        self.task.cancel()


class Work:
    """Does jobs. `server.jobs.durable.Steps` are its blocking side; the rest is for the event loop.

    Args:
        store: of the jobs.
        engine: who recognizes; its streams take places by themselves.
        spool: where the uploads lie; `spool_id` is its name among gateways.
        rules: see there.
        loop: the gateway's.
        heard: told there of the audio, in ms, that was recognized for an owner of jobs.
    """

    def __init__(
        self,
        store: Store,
        engine: PatientEngine,
        spool: Spool,
        spool_id: str,
        rules: WorkRules,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[str, float], None] = lambda owner, audio_ms: None,
    ) -> None:
        self._store = store
        self._heard = heard
        self._engine = engine
        self._spool = spool
        self._spool_id = spool_id
        self._rules = rules
        self._loop = loop
        # Both by the attempt's own word: a job may be here twice, when it was taken from this gateway and given back.
        self._running: dict[str, _Running] = {}
        self._begun: dict[str, str] = {}
        self._ending = threading.Event()
        self._trust: ssl.SSLContext | None = None

    def begun(self) -> set[str]:
        """Jobs whose steps are on a thread of this process."""
        return set(self._begun.copy().values())

    def standings(self, *, news_only: bool) -> list[Standing]:
        """How far the running attempts are. With `news_only`, those that have come further since they were asked."""
        found = []
        for runner, running in self._running.items():
            if news_only and running.told:
                continue
            running.told = running.told or news_only
            found.append(Standing(running.claimed.id, runner, running.audio_ms, running.total_ms))
        return found

    def drop(self, runner: str) -> None:
        """Stop an attempt whose job is not its own any more. Nothing is stored."""
        running = self._running.get(runner)
        if running is not None:
            running.stop()

    def cancel(self, job_id: str) -> None:
        """Stop what is done here of a job that was cancelled."""
        for running in self._running.values():
            if running.claimed.id == job_id:
                running.stop()

    async def end(self, bound_s: float) -> None:
        """Stop all attempts; their jobs wait again. Steps that come from now on end at once."""
        self._ending.set()
        for running in list(self._running.values()):
            running.stop()
        for _ in range(int(bound_s / _GLANCE_S)):
            if not self._begun:
                return
            await asyncio.sleep(_GLANCE_S)

    def transcribe(self, job_id: str) -> str:
        """See `Steps`."""
        runner = secrets.token_hex(8)
        self._begun[runner] = job_id
        try:
            claimed = self._patiently(lambda: self._store.claim(job_id, runner))
            if claimed is None:
                return "over"
            if claimed.attempts > MAX_ATTEMPTS:
                return self._stored(job_id, runner, _poison())
            try:
                outcome = self._on_loop(lambda: self._attempt(claimed))
            except HandedBack:
                self._hand_back(claimed)
                raise
            if outcome is None:
                return "dropped"
            word = self._stored(job_id, runner, outcome)
            if word == "completed" and isinstance(outcome, Transcript):
                with suppress(RuntimeError):  # the loop has gone down
                    self._loop.call_soon_threadsafe(self._heard, claimed.owner, outcome.duration_ms)
            return word
        except ASRError as error:  # its options cannot be read
            return self._stored(job_id, runner, error)
        except Exception as error:
            if self._ending.is_set():
                raise HandedBack from error
            log.error("job failed", job_id=job_id, exc_info=error)
            return self._stored(job_id, runner, _defect())
        finally:
            del self._begun[runner]

    def clean_up(self, job_id: str) -> str:
        """See `Steps`. The upload of a job that is over is of no more use."""
        found = self._patiently(lambda: self._store.file_of(job_id))
        if found is not None:
            self.remove_file(*found)
        return "done"

    def remove_file(self, spool: str, name: str) -> None:
        """Delete an upload, where it is in reach."""
        if spool == self._spool_id:
            self._spool.remove(self._spool.folder / name)

    def deliver(self, job_id: str, attempt: int) -> int:
        """See `Steps`."""
        found = self._patiently(lambda: self._store.webhook_of(job_id))
        if found is None or not found[1]:
            return 0
        job, url = found
        rules = self._rules
        body = body_of(job)
        headers = {
            "Content-Type": "application/json",
            DELIVERY: delivery_id(job.id),
            EVENT: event_of(job),
            SIGNATURE: sign(rules.webhook_secret, body, int(time.time())),
        }
        delivery = Delivery(url, headers, body, rules.webhook_timeout_ms, rules.webhook_private)
        if rules.webhook_secret:
            trust = self._trust = self._trust or public_trust()
            trouble = self._on_loop(lambda: deliver(delivery, trust))
        else:
            trouble = "no JOBS_WEBHOOK_SECRET here"  # another gateway of this database may know it
        if not trouble:
            log.info("webhook delivered", job_id=job_id, attempt=attempt)
            return 0
        given_up = attempt >= rules.webhook_attempts
        log.warning("webhook failed", job_id=job_id, attempt=attempt, reason=trouble, given_up=given_up)
        if given_up:
            return 0
        return retry_delay_ms(attempt, first_ms=rules.webhook_first_ms, most_ms=WEBHOOK_MOST_MS)

    def _stored(self, job_id: str, runner: str, outcome: Transcript | ASRError) -> str:
        if isinstance(outcome, ASRError):
            failure = outcome
            first = self._patiently(lambda: self._store.fail(job_id, runner, failure))
            word, code = "failed", failure.code.value
        else:
            result = outcome
            first = self._patiently(lambda: self._store.complete(job_id, runner, result))
            word, code = "completed", None
        if not first:
            return "dropped"
        log.info("job over", job_id=job_id, status=word, error=code)
        return word

    def _hand_back(self, claimed: Claimed) -> None:
        try:
            self._store.hand_back(claimed.id, claimed.runner)
        except (*AWAY, RuntimeError) as error:  # then it is taken over as after a sudden death
            log.warning("job not handed back", job_id=claimed.id, error=type(error).__name__)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What the database says, however long it is away; but no longer than the gateway lives."""
        wait_s = 0.2
        while True:
            try:
                return ask()
            except AWAY as error:
                log.warning("job database fails; trying again", error=type(error).__name__)
            if self._ending.wait(wait_s):
                raise HandedBack
            wait_s = min(wait_s * 2, 5.0)

    def _on_loop(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the gateway's loop and wait for it."""
        if self._ending.is_set() or self._loop.is_closed():
            raise HandedBack
        future = asyncio.run_coroutine_threadsafe(make(), self._loop)
        while True:
            try:
                return future.result(_POLL_S)
            except CancelledError:  # the loop goes down
                raise HandedBack from None
            except TimeoutError:
                if future.done():
                    raise
                if self._loop.is_closed():
                    raise HandedBack from None

    async def _attempt(self, claimed: Claimed) -> Transcript | ASRError | None:
        """None: the job is no longer this attempt's.

        Raises:
            HandedBack: the gateway goes down.
        """
        task = asyncio.create_task(self._recognize(claimed), name=f"job {claimed.id}")
        running = self._running[claimed.runner] = _Running(claimed, task)
        try:
            if self._ending.is_set():
                running.stop()
            await asyncio.wait([task])
        finally:
            task.cancel()
            del self._running[claimed.runner]
        if running.stopped and task.cancelled():
            if self._ending.is_set():
                raise HandedBack
            return None
        return task.result()

    async def _recognize(self, claimed: Claimed) -> Transcript | ASRError:
        tries = 0
        while True:
            tries += 1
            begun_s = self._loop.time()
            try:
                transcript = await self._once(claimed)
            except ASRError as error:
                if not error.retryable:
                    return self._told(claimed, error)
                # The time that the operator has taken is not the recognizer's.
                was_off = isinstance(error, SwitchedOff) or self._engine.off_until_s >= begun_s
                wait_ms = await self._wait_ms(claimed, error, tries, anew=was_off)
                if wait_ms is None:
                    return self._told(claimed, _gave_up(error, self._rules.retry_for_ms))
                log.info("job waits for the recognizer", job_id=claimed.id, error=error.code.value, wait_ms=wait_ms)
                await asyncio.sleep(wait_ms / 1000)
            except AWAY as error:  # parts could not be saved; nothing is lost
                log.warning("job database fails; trying again", job_id=claimed.id, error=type(error).__name__)
                await asyncio.sleep(retry_delay_ms(tries, first_ms=500, most_ms=5_000) / 1000)
            except Exception as error:
                log.error("job failed", job_id=claimed.id, exc_info=error)
                return _defect()
            else:
                warnings = dict.fromkeys((*claimed.warnings, *transcript.warnings))
                return replace(transcript, warnings=tuple(warnings))

    async def _once(self, claimed: Claimed) -> Transcript:
        path = self._spool.folder / claimed.file
        if not await asyncio.to_thread(path.is_file):
            raise ASRError(Code.INTERNAL, "The recording is no longer in the gateway's spool. Send the job again.")
        return await transcribe_long(
            path,
            self._engine,
            claimed.options,
            parts=claimed.parts,
            on_progress=lambda done_ms, total_ms: self._progress(claimed, done_ms, total_ms),
            saved=_SavedParts(self._store, claimed),
            stereo=self._rules.stereo,
            max_audio_ms=self._rules.max_audio_ms,
        )

    async def _wait_ms(self, claimed: Claimed, error: ASRError, tries: int, *, anew: bool) -> int | None:
        """How long to wait after a failure that may pass, or None where there was enough of that; `anew`: since now."""
        try:
            stuck_ms = await asyncio.to_thread(self._store.stuck, claimed.id, claimed.runner, anew=anew)
        except AWAY:
            stuck_ms = 0
        if stuck_ms >= self._rules.retry_for_ms:
            return None
        wait_ms = retry_delay_ms(tries, first_ms=RETRY_FIRST_MS, most_ms=RETRY_MOST_MS)
        return min(max(wait_ms, error.retry_after_ms or 0), RETRY_MOST_MS, self._rules.retry_for_ms)

    def _progress(self, claimed: Claimed, done_ms: int, total_ms: int | None) -> None:
        running = self._running.get(claimed.runner)
        if running is not None:
            running.audio_ms, running.total_ms, running.told = done_ms, total_ms or 0, False

    def _told(self, claimed: Claimed, error: ASRError) -> ASRError:
        """With the caller's name for the file in place of our own."""
        message = error.message.replace(str(self._spool.folder / claimed.file), claimed.filename or "the recording")
        message = message.replace(claimed.file, claimed.filename or "the recording")
        return ASRError(error.code, message, param=error.param)


class _SavedParts:
    """Finished parts in the store; see `asr.cutting.PartStore`."""

    def __init__(self, store: Store, claimed: Claimed) -> None:
        self._store = store
        self._claimed = claimed

    async def load(self, index: int) -> PartResult | None:
        """A part from an earlier attempt."""
        found: Mapping[str, Any] | None = await asyncio.to_thread(self._store.load_part, self._claimed.id, index)
        return None if found is None else PartResult.from_json(dict(found))

    async def save(self, index: int, result: PartResult) -> None:
        """Keep a part."""
        claimed = self._claimed
        await asyncio.to_thread(self._store.save_part, claimed.id, claimed.runner, index, result.to_json())


def _poison() -> ASRError:
    return ASRError(
        Code.INTERNAL,
        f"The gateway went down {MAX_ATTEMPTS} times while it worked on this recording, so it is given up. "
        "Check the recording before you send it again.",
    )


def _defect() -> ASRError:
    return ASRError(Code.INTERNAL, "The recording could not be recognized: a defect of the gateway. Its log says more.")


def _gave_up(error: ASRError, after_ms: int) -> ASRError:
    minutes = after_ms / 60_000
    return ASRError(error.code, f"{error.message} It was tried for {minutes:.3g} minutes; send the job again later.")
