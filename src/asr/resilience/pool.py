"""The endpoints that stand in for each other: which are up, which may take a stream, and who gets it.

Three things keep a stream away from an endpoint: its health (it does not answer, or lists no model), its circuit
breaker (streams fail there), and its limit (it has as many as it can carry). One task looks after the health of all,
often while one is down; a stream that fails asks it to look at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from asr.config import ResilienceConfig
from asr.engine import Engine, Model
from asr.errors import ASRError, Code
from asr.resilience.breaker import Breaker, BreakerState, Ticket
from asr.resilience.limit import AdaptiveLimit
from asr.resilience.retry import counts_as_failure

log = logging.getLogger("asr.resilience")

CHECK_TIMEOUT_S = 3.0
DOWN_INTERVAL_S = 1.0
"""Between two looks at an endpoint that is down."""
DOWN_AFTER = 2
"""Looks in a row that must fail before an endpoint that was up counts as down."""
MAX_EJECTION = 8
"""An endpoint whose probes keep failing is left alone for up to so many times `breaker_open_ms`."""
RAMP_S = 8.0
"""After an outage the waiting streams come back over so long, not all at once."""
MIN_RAMP_STREAMS = 10.0
RAMP_RETRY_MS = 250
"""Meanwhile those who wait look for their turn so often."""
TOGETHER_S = 0.5
"""Streams that break within so long of each other are one failure."""
SHY_S = 5.0
"""For so long after a failure an endpoint gets streams only where others are no better."""


class Health(StrEnum):
    """What the last look at an endpoint said."""

    UNKNOWN = "unknown"
    UP = "up"
    LOADING = "loading"
    DOWN = "down"


@dataclass(slots=True)
class Endpoint:
    """One recognizer and what is known of it.

    Attributes:
        name: `1`, `2` …: for people, without an address.
        engine: the recognizer.
        streams: open now.
        reserve: whether it gets streams only where no other may take them.
        recoveries: how often it has come back, as its health or its breaker says; to have come at all counts, too.
        was_up: it has been up before.
        failure: the last failure of a look or a stream, or None.
        attempts: streams that were opened there, since the start.
        errors: how many of them failed, by their codes.
    """

    name: str
    engine: Engine
    breaker: Breaker
    limit: AdaptiveLimit
    streams: int = 0
    reserve: bool = False
    health: Health = Health.UNKNOWN
    misses: int = 0
    models: tuple[Model, ...] = ()
    failure: ASRError | None = None
    attempts: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    openings: int = 0
    ejected_until: float = 0.0
    struck_at: float = -1e9
    recoveries: int = 0
    was_up: bool = False
    ramp_until: float = 0.0
    ramp_tokens: float = 0.0
    ramp_at: float = 0.0


class Lease:
    """One stream's place at an endpoint; to be released."""

    def __init__(self, pool: Pool, endpoint: Endpoint, ticket: Ticket) -> None:
        self._pool = pool
        self._ticket = ticket
        self._released = False
        self._spoken = False
        self.endpoint = endpoint

    def spoke(self, now: float) -> None:
        """The recognizer has said something: the endpoint works."""
        self._spoken = True
        self._ticket.succeeded(now)
        if now - self.endpoint.struck_at > SHY_S:
            self.endpoint.failure = None

    def lag(self, lag_ms: int, now: float) -> None:
        """How far results are behind the audio of a live stream."""
        self.endpoint.limit.sample(lag_ms, self.endpoint.streams, now)

    def failed(self, error: ASRError, now: float) -> None:
        """The stream broke."""
        if not counts_as_failure(error):
            return
        endpoint = self.endpoint
        endpoint.failure = _for_people(error)
        # Streams under way that die together died of one thing, a connection for instance.
        if not (self._spoken and now - endpoint.struck_at < TOGETHER_S):
            endpoint.struck_at = now
            self._ticket.failed(now)
        self._pool.look_now()

    def return_unused(self) -> None:
        """No stream is opened after all."""
        self.endpoint.ramp_tokens += 1
        self._released = True
        self.endpoint.streams -= 1
        self._ticket.released()

    def release(self) -> None:
        """The stream is over, whatever the reason."""
        if not self._released:
            self._released = True
            self.endpoint.streams -= 1
            self._ticket.released()
            self._pool.tell_change()


class Pool:
    """The endpoints of one kind of recognizer."""

    def __init__(
        self,
        members: Sequence[Engine],
        config: ResilienceConfig,
        clock: Callable[[], float],
        reserve: Sequence[Engine] = (),
    ) -> None:
        """Nothing is asked before the first use."""
        self._config = config
        self._clock = clock
        self._watcher: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._waiters: set[asyncio.Future[None]] = set()
        self._first_look: asyncio.Future[None] | None = None
        self._closed = False
        self.endpoints = [self._endpoint(str(number), engine) for number, engine in enumerate([*members, *reserve], 1)]
        for endpoint in self.endpoints[len(members) :]:
            endpoint.reserve = True

    # What streams ask -----------------------------------------------------------------------------

    def lease(self, model: str, avoid: Endpoint | None = None, *, under_way: bool = False) -> Lease:
        """A place at the endpoint that is up, serves the model and has the fewest streams.

        `avoid` is taken only where there is no other. A stream that is `under_way` has been let in before: the
        limit that follows the lag is for new ones.

        Raises:
            ASRError: `overloaded` or `unavailable`, with the time after which it may be otherwise.
        """
        self.watch()
        now = self._clock()
        open_ones = [endpoint for endpoint in self.endpoints if self._obstacle(endpoint, model, now, under_way) is None]
        open_ones = [e for e in open_ones if e.ejected_until <= now] or open_ones  # the last one is always asked
        others = [endpoint for endpoint in open_ones if endpoint is not avoid]
        # One that fails has few streams because of that; it must not attract all the new ones.
        for endpoint in sorted(others or open_ones, key=lambda e: (e.reserve, now - e.struck_at < SHY_S, e.streams)):
            ticket = endpoint.breaker.enter(now)
            if ticket is None:
                continue
            if endpoint.ramp_until > now:
                endpoint.ramp_tokens -= 1
            endpoint.streams += 1
            return Lease(self, endpoint, ticket)
        raise self._refusal(model, now, under_way)

    def refusal(self) -> ASRError | None:
        """Why no stream would be taken now, or None."""
        self.watch()
        now = self._clock()
        if any(self._obstacle(endpoint, "", now) is None for endpoint in self.endpoints):
            return None
        return self._refusal("", now)

    def may_renew(self, lease: Lease, model: str) -> bool:
        """Whether a stream that gives its place up would find one again."""
        lease.endpoint.streams -= 1
        try:
            now = self._clock()
            return any(self._obstacle(endpoint, model, now, True) is None for endpoint in self.endpoints)
        finally:
            lease.endpoint.streams += 1

    async def change(self, timeout_s: float) -> None:
        """Wait until something about the endpoints has changed, or the time is over."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)

    def tell_change(self) -> None:
        """Something changed: streams that wait look again."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Health ---------------------------------------------------------------------------------------

    async def models(self) -> tuple[Model, ...]:
        """Every model that an endpoint served when it was last asked.

        Raises:
            ASRError: as the endpoints failed, where none has ever answered.
        """
        self.watch()
        models = self._known_models()
        if not models:
            try:
                await self._looked()
            except TimeoutError:
                raise ASRError(Code.TIMEOUT, "The recognizer does not answer. Try again shortly.") from None
            models = self._known_models()
        if not models:
            failure = next((endpoint.failure for endpoint in self.endpoints if endpoint.failure is not None), None)
            if failure is not None and not any(endpoint.health is Health.LOADING for endpoint in self.endpoints):
                raise failure
        return models

    async def looked(self) -> None:
        """Wait until one endpoint is up, or all have been looked at, within a bound."""
        self.watch()
        await self._looked()

    def watch(self) -> None:
        """Look after the endpoints from now on."""
        if (self._watcher is None or self._watcher.done()) and not self._closed:
            loop = asyncio.get_running_loop()
            self._first_look = loop.create_future()
            self._watcher = loop.create_task(self._keep_looking(), name="endpoint health")

    def look_now(self) -> None:
        """A stream failed: look at the endpoints at once."""
        self._look.set()

    async def aclose(self) -> None:
        """Look no more, and close the engines."""
        self._closed = True
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        self.tell_change()
        await asyncio.gather(*(endpoint.engine.aclose() for endpoint in self.endpoints))

    def describe(self) -> list[dict[str, Any]]:
        """The endpoints for people: no addresses."""
        now = self._clock()
        return [
            {
                "name": endpoint.name,
                "state": endpoint.health.value,
                "breaker": endpoint.breaker.state.value,
                "streams": endpoint.streams,
                "limit": endpoint.limit.limit(now),
                "attempts": endpoint.attempts,
                "errors": dict(endpoint.errors),
                "detail": "" if endpoint.failure is None else endpoint.failure.message,
            }
            for endpoint in self.endpoints
        ]

    # Inside ---------------------------------------------------------------------------------------

    def _endpoint(self, name: str, engine: Engine) -> Endpoint:
        config = self._config

        def moved(before: BreakerState, after: BreakerState) -> None:
            self._breaker_moved(endpoint, before, after)

        endpoint = Endpoint(
            name,
            engine,
            Breaker(config.breaker_failures, config.breaker_open_ms, config.breaker_probe_ms, on_change=moved),
            AdaptiveLimit(config.max_streams, config.max_lag_ms, config.adaptive),
        )
        return endpoint

    def _breaker_moved(self, endpoint: Endpoint, before: BreakerState, after: BreakerState) -> None:
        now = self._clock()
        level = logging.WARNING if after is BreakerState.OPEN else logging.INFO
        log.log(level, "endpoint %s (%s): breaker %s → %s", endpoint.name, endpoint.engine.name, before, after)
        if after is BreakerState.OPEN:
            endpoint.openings += 1
            others = any(other is not endpoint and other.health is Health.UP for other in self.endpoints)
            if others:  # the last one is never left alone for longer than its breaker asks
                times = min(2 ** (endpoint.openings - 1), MAX_EJECTION)
                endpoint.ejected_until = now + times * self._config.breaker_open_ms / 1000
        elif after is BreakerState.CLOSED:
            endpoint.openings = 0
            endpoint.ejected_until = 0.0
            self._came_back(endpoint)
        self.tell_change()

    def _came_back(self, endpoint: Endpoint) -> None:
        endpoint.recoveries += 1
        if not endpoint.was_up and not self._waiters:
            return  # its very first time, and nobody has waited for it: what comes now is no crowd
        now = self._clock()
        endpoint.ramp_until = now + RAMP_S
        endpoint.ramp_tokens = 1.0
        endpoint.ramp_at = now

    def _obstacle(self, endpoint: Endpoint, model: str, now: float, under_way: bool = False) -> ASRError | None:
        """Why this endpoint cannot take a stream now, or None."""
        if endpoint.health in (Health.DOWN, Health.LOADING):
            if endpoint.health is Health.LOADING:
                text = "The recognizer is starting: it serves no model yet. Try again shortly."
            else:
                text = "The recognizer cannot be reached. Try again shortly."
            return ASRError(Code.UNAVAILABLE, text, retry_after_ms=int(DOWN_INTERVAL_S * 1000))
        if model and endpoint.models and all(known.name != model for known in endpoint.models):
            return ASRError(Code.UNAVAILABLE, "The recognizer that serves this model is not there at the moment.")
        if not endpoint.breaker.admits(now):
            wait_ms = max(endpoint.breaker.wait_ms(now), 1)
            text = "The recognizer has failed repeatedly and is given a rest. Try again shortly."
            return ASRError(Code.UNAVAILABLE, text, retry_after_ms=wait_ms)
        refused = endpoint.engine.refusal()
        if refused is not None:
            return refused
        limit = self._config.max_streams or None if under_way else endpoint.limit.limit(now)
        if limit is not None and endpoint.streams >= limit:
            return _full(limit)
        if endpoint.ramp_until > now and not self._ramp(endpoint, now):
            text = "The recognizer has just come back and takes its streams one by one. Try again in a moment."
            return ASRError(Code.OVERLOADED, text, retry_after_ms=RAMP_RETRY_MS)
        return None

    def _ramp(self, endpoint: Endpoint, now: float) -> bool:
        per_s = max(MIN_RAMP_STREAMS, 0.2 * (len(self._waiters) + endpoint.streams))
        passed_s, endpoint.ramp_at = now - endpoint.ramp_at, now
        # No more than a fifth of a second's worth at a time: what was not used is no reason for a burst.
        endpoint.ramp_tokens = min(endpoint.ramp_tokens + passed_s * per_s, max(per_s / 5, 1.0))
        return endpoint.ramp_tokens >= 1

    def _refusal(self, model: str, now: float, under_way: bool = False) -> ASRError:
        """The mildest of the obstacles: a place that is taken is better news than a recognizer that is gone."""
        if self._closed:
            return ASRError(Code.UNAVAILABLE, "The recognizer's connection has been closed.", retryable=False)
        found = [self._obstacle(endpoint, model, now, under_way) for endpoint in self.endpoints]
        obstacles = [obstacle for obstacle in found if obstacle is not None]
        if not obstacles:  # a probe was taken in the same moment
            return ASRError(Code.UNAVAILABLE, "The recognizer is being tried again. Try shortly.", retry_after_ms=500)
        full = [obstacle for obstacle in obstacles if obstacle.code is Code.OVERLOADED]
        return min(full or obstacles, key=lambda obstacle: obstacle.retry_after_ms or 0)

    def _known_models(self) -> tuple[Model, ...]:
        found: dict[str, Model] = {}
        for endpoint in sorted(self.endpoints, key=lambda endpoint: endpoint.health is not Health.UP):
            for model in endpoint.models:
                found.setdefault(model.name, model)
        return tuple(found.values())

    async def _looked(self) -> None:
        assert self._first_look is not None or self._closed
        if self._first_look is not None and not self._first_look.done():
            async with asyncio.timeout(2 * CHECK_TIMEOUT_S):
                await asyncio.shield(self._first_look)

    async def _keep_looking(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._look.clear()
            await asyncio.gather(*(self._look_at(endpoint) for endpoint in self.endpoints))
            if self._first_look is not None and not self._first_look.done():
                self._first_look.set_result(None)
            well = all(endpoint.health is Health.UP for endpoint in self.endpoints)
            interval_s = self._config.health_interval_ms / 1000
            not_before = loop.time() + 0.1  # a storm of failing streams asks for one look, not for a storm of them
            try:
                async with asyncio.timeout(interval_s if well else min(interval_s, DOWN_INTERVAL_S)):
                    await self._look.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(max(not_before - loop.time(), 0))

    async def _look_at(self, endpoint: Endpoint) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                models = tuple(await endpoint.engine.models())
        except TimeoutError:
            failure = ASRError(Code.TIMEOUT, "The recognizer does not answer.")
            self._found(endpoint, Health.DOWN, failure)
        except ASRError as error:
            self._found(endpoint, Health.DOWN, error)
        except Exception:
            log.exception("endpoint %s: looking at it failed", endpoint.name)
            self._found(endpoint, Health.DOWN, ASRError(Code.INTERNAL, "The recognizer's health is not known."))
        else:
            endpoint.models = models or endpoint.models
            self._found(endpoint, Health.UP if models else Health.LOADING, None)

    def _found(self, endpoint: Endpoint, health: Health, failure: ASRError | None) -> None:
        before = endpoint.health
        if health is Health.DOWN:
            endpoint.failure = None if failure is None else _for_people(failure)
            endpoint.misses += 1
            if before is Health.UP and endpoint.misses < DOWN_AFTER:
                self._look.set()
                return
        else:
            endpoint.misses = 0
        if health is before:
            return
        endpoint.health = health
        log.log(
            logging.INFO if health is Health.UP else logging.WARNING,
            "endpoint %s (%s) is %s%s",
            endpoint.name,
            endpoint.engine.name,
            health.value,
            f": {failure.message}" if failure is not None else "",
        )
        if health is Health.UP:
            endpoint.failure = None
            if self._first_look is not None and not self._first_look.done():
                self._first_look.set_result(None)
            if before is not Health.UNKNOWN:
                endpoint.breaker.recovered(self._clock())
                endpoint.ejected_until = 0.0
                self._came_back(endpoint)
            endpoint.was_up = True
        self.tell_change()


def _for_people(error: ASRError) -> ASRError:
    """What is shown of a failure: without the frames and tasks that a raised one holds on to."""
    return ASRError(error.code, error.message, retryable=error.retryable, retry_after_ms=error.retry_after_ms)


def _full(limit: int) -> ASRError:
    return ASRError(
        Code.OVERLOADED,
        f"The recognizer has as many streams as it can carry ({limit}). Try again in a moment.",
        retry_after_ms=1_000,
    )
