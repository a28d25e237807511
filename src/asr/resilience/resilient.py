"""An engine around engines: a stream goes on when its recognizer is lost.

Its audio is kept until a final covers it (`tape`). When a recognizer dies, hangs or refuses, another one from the
`pool` (or the same, back again) gets what is kept, and `story` tells both as one. All the ways out of a stream are in
`_Run.events`: a clean end, the caller's closing, a failure that no other recognizer would mend, or no recognizer in
time. In the last two, what was guessed becomes final and the rest of the audio an explicit gap.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import Any

from asr.config import ResilienceConfig
from asr.engine import BYTES_PER_MS, AudioInput, Engine, Features, Model, Readiness
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Gap, GapCause, Partial, Progress, State, Status
from asr.options import Options
from asr.pipe import Ahead, AudioPipe, pour
from asr.resilience.pool import Endpoint, Health, Lease, Pool
from asr.resilience.retry import Backoff, RetryBudget, Verdict, verdict
from asr.resilience.story import Story
from asr.resilience.tape import Cursor, ReplayMemory, Tape

log = logging.getLogger("asr.resilience")

PAUSE_MARGIN_MS = 3_000
"""Of processed audio with no utterance open, so much is kept: the words of its end may still be on their way."""
WHOLE_RECORDING_BYTES = 64 * 1024 * 1024
"""A model that cannot stream works through a recording in one go: all of it is kept."""
STEADY_S = 1.0
CATCH_UP_MS = 300
"""Audio that comes faster than time passes, by more than this in a second (a recording, or what had to wait), tells
nothing of how far results lag behind a speaker."""
LET_GO_S = 5.0
"""How long the caller's own audio is waited for, at the end."""
MAX_HISTORY = 20


@dataclass(slots=True)
class Figures:
    """What an engine has been through, since it was made.

    Attributes:
        streams: begun.
        attempts: streams opened at an endpoint; in peace as many.
        retries: those of them that came after one that had failed.
        failovers: streams that were carried on by another attempt.
        rotations: streams that were renewed because of their age.
        replayed_ms: audio that was sent again.
        gaps_ms: audio that was lost.
        given_up: streams that found no recognizer in time.
    """

    streams: int = 0
    attempts: int = 0
    retries: int = 0
    failovers: int = 0
    rotations: int = 0
    replayed_ms: int = 0
    gaps_ms: int = 0
    given_up: int = 0


class ResilientEngine:
    """Several engines of one kind that stand in for each other; or one, which is tried again."""

    def __init__(
        self,
        members: Sequence[Engine],
        config: ResilienceConfig | None = None,
        *,
        reserve: Sequence[Engine] = (),
        clock: Callable[[], float] = monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is asked of the engines before the first use; `aclose` closes them.

        Args:
            members: the engines, in order of preference where they are equally busy.
            config: bounds and times.
            reserve: engines that get a stream only where no member takes it, or has lost it.
            clock: seconds.
            chance: 0 ≤ x < 1, for the pauses between attempts.
        """
        self.config = config or ResilienceConfig()
        self.clock = clock
        self.pool = Pool(members, self.config, clock, reserve)
        self.backoff = Backoff(self.config.retry_base_ms, self.config.retry_cap_ms, chance)
        self.budget = RetryBudget(self.config.retry_budget_percent)
        self.memory = ReplayMemory(self.config.replay_total_bytes)
        self.figures = Figures()
        self._members = (*members, *reserve)

    @property
    def name(self) -> str:
        """That of its members."""
        return self._members[0].name

    @property
    def features(self) -> Features:
        """What every member can do that has been reached; before that, what the first can."""
        known = [endpoint.engine for endpoint in self.pool.endpoints if endpoint.health is Health.UP]
        found = [engine.features for engine in known or self._members[:1]]
        if len(found) == 1:
            return found[0]
        return Features(**{name: all(getattr(one, name) for one in found) for name in Features.__slots__})

    async def models(self) -> Sequence[Model]:
        """Every model that a member serves, or served when it was last reached."""
        return await self.pool.models()

    async def ready(self) -> Readiness:
        """Whether at least one member is up."""
        with suppress(TimeoutError):
            await self.pool.looked()
        refused = self.pool.refusal()
        if refused is None or refused.code is Code.OVERLOADED:
            return Readiness(True)
        return Readiness(False, refused.message)

    def refusal(self) -> ASRError | None:
        """Why no member would take a stream now, or None."""
        return self.pool.refusal()

    def endpoints(self) -> list[dict[str, Any]]:
        """The members' states, for people: without addresses."""
        return self.pool.describe()

    def counts(self) -> dict[str, int]:
        """See `asr.engine.counts_of`: its figures."""
        return asdict(self.figures)

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """Recognize `audio`, whatever becomes of the recognizer."""
        return _Run(self, audio, options).events()

    async def aclose(self) -> None:
        """Close the members."""
        await self.pool.aclose()


class _Run:
    """One stream over all its attempts."""

    def __init__(self, engine: ResilientEngine, audio: AsyncIterable[AudioInput], options: Options) -> None:
        self._engine = engine
        self._audio = audio
        # Words tell where a final ends, which is where a replay begins.
        # Partials show that it is at work, and whether an utterance is open.
        self._options = replace(options, words=True, partials=True)
        self._partials = options.partials
        self._story = Story(words=options.words)
        model = next((m for e in engine.pool.endpoints for m in e.models if m.name == options.model), None)
        whole = model is not None and not model.streaming
        max_bytes = WHOLE_RECORDING_BYTES if whole else engine.config.replay_max_ms * BYTES_PER_MS
        self._tape = Tape(max_bytes, engine.memory)
        self._heard = False  # a recognizer has ever spoken, or listened for long
        self._lost_at: float | None = None  # since when no recognizer has brought the stream forward
        self._attempts_failed = 0  # since then
        self._history: list[ASRError] = []  # since then
        self._tried: dict[str, int] = {}  # endpoints that failed since then, and how often they had come back before
        self._last_failure: ASRError | None = None
        self._avoid: Endpoint | None = None
        self._hopeless: set[str] = set()  # endpoints whose failure no second attempt would mend
        self._began_at = 0.0
        self._attempts = 0
        self._told_loss = False
        self._renewing = False
        self._replayed_ms = 0  # since the last recovery was told
        self._furthest_ms = 0  # of the audio that results have reached
        self._behind_ms = 0.0  # how far the audio is behind the time that has passed
        self._steady_at = 0.0  # when that was last looked at
        self._steady = False
        self._replaying_until = 0.0  # what an attempt has to make up for is no lag of its recognizer
        self._own_failure: ASRError | None = None  # the caller's own audio broke

    async def events(self) -> AsyncGenerator[Event]:
        """See `Engine.stream`. Raises what no further attempt would mend."""
        engine, tape = self._engine, self._tape
        engine.figures.streams += 1
        engine.budget.started()
        self._began_at = self._steady_at = engine.clock()
        source, feeder = _source(self._audio)
        try:
            while True:
                lease, error = self._lease()
                if lease is not None:
                    try:
                        async with aclosing(self._attempt(lease, source)) as events:
                            async for event in events:
                                yield event
                    except ASRError as failure:
                        error = failure
                    except Exception as own:  # the caller's audio raised it: what was accepted before is told
                        for event in self._give_up(ASRError(Code.INTERNAL, "The audio broke off.")):
                            yield event
                        raise own from own.__cause__
                    else:
                        if not self._renewing:
                            return
                        engine.figures.rotations += 1
                        continue
                assert error is not None
                if error is self._own_failure or not self._may_go_on(error, lease):
                    for event in self._give_up(error):
                        yield event
                    raise self._with_history(error)
                if not self._told_loss and (tape.end_bytes or self._heard):
                    self._told_loss = True
                    yield self._loss(error)
                await self._pause(error, lease)
        finally:
            tape.forget()
            if feeder is not None:
                feeder.cancel()
                await asyncio.wait([feeder], timeout=LET_GO_S)

    # --- an attempt

    async def _attempt(self, lease: Lease, source: AudioPipe) -> AsyncGenerator[Event]:
        engine, tape, story = self._engine, self._tape, self._story
        cursor = Cursor(tape, source)
        events: AsyncGenerator[Event] | None = None
        born_at = engine.clock()
        spoke = False
        self._renewing = False
        engine.figures.attempts += 1
        engine.figures.retries += self._attempts_failed > 0
        lease.endpoint.attempts += 1
        try:
            if self._attempts:
                for event in self._begin_again(cursor):
                    yield event
            self._attempts += 1
            events = lease.endpoint.engine.stream(cursor, self._options)
            async for event in events:
                # `Flushed` may be our own side's patience; only what was recognized shows that somebody listens.
                if not spoke and type(event) is not Status and type(event) is not Flushed:
                    spoke = self._heard = True
                    lease.spoke(engine.clock())
                    if self._told_loss:
                        self._told_loss = False
                        engine.figures.failovers += 1
                        replayed_ms, self._replayed_ms = self._replayed_ms, 0
                        yield Status(State.RECOVERED, tape.end_ms, replayed_ms=replayed_ms)
                told = story.tell(event)
                if told is None:
                    continue
                self._account(told, lease)
                if self._partials or type(told) is not Partial:
                    yield told
                if type(told) is Final and self._is_old(born_at) and engine.pool.may_renew(lease, self._options.model):
                    self._renewing = True
                    return
            for told in story.end():
                yield told
        except Exception as error:
            if cursor.failure is not None:
                self._own_failure = error if isinstance(error, ASRError) else None
                raise
            failed = self._failed(error, lease, born_at)
            if failed is error:
                raise
            raise failed from error
        finally:
            cursor.close()
            try:
                if events is not None:
                    await events.aclose()
            finally:
                lease.release()

    def _failed(self, error: Exception, lease: Lease, born_at: float) -> ASRError:
        """An attempt broke: what that says of its endpoint, and of the stream."""
        engine = self._engine
        now = engine.clock()
        if not isinstance(error, ASRError):
            log.exception("endpoint %s failed in a way that it should not", lease.endpoint.name, exc_info=error)
            error = ASRError(Code.INTERNAL, "The recognizer failed in an unknown way. Try again.", retryable=True)
        lease.endpoint.errors[error.code.value] += 1
        lived_ms = (now - born_at) * 1000
        # In silence a recognizer says nothing. One that was well and has listened for so long had the stream.
        well = lease.endpoint.health is Health.UP and error.code is Code.UNAVAILABLE
        self._heard = self._heard or (well and lived_ms >= engine.config.start_timeout_ms)
        if lived_ms >= engine.config.failover_timeout_ms and not self._tape.ended:
            self._found()  # whatever came before is long over
        lease.failed(error, now)
        return error

    def _lease(self) -> tuple[Lease | None, ASRError | None]:
        """A place for the next attempt, or why there is none."""
        engine = self._engine
        try:
            lease = engine.pool.lease(self._options.model, self._avoid, under_way=self._attempts > 0)
        except ASRError as refused:
            return None, refused
        if not self._is_free(lease.endpoint) and not engine.budget.spend(engine.clock()):
            lease.return_unused()
            return None, self._last_failure
        return lease, None

    def _is_free(self, endpoint: Endpoint) -> bool:
        """Whether an attempt there is none of those that multiply an outage; the others have a common budget."""
        if self._attempts_failed <= (1 if self._heard else 0):
            return True  # a stream that was under way is carried on
        # A first try there, or the first since it came back.
        return self._tried.get(endpoint.name) != endpoint.recoveries

    def _begin_again(self, cursor: Cursor) -> list[Event]:
        tape, story = self._tape, self._story
        base_ms = cursor.base_bytes // BYTES_PER_MS
        events: list[Event] = []
        if cursor.base_bytes > tape.settled_bytes:
            events += story.overrun(base_ms)
            self._lost(events)
            tape.settle(cursor.base_bytes)
        story.attempt(base_ms)
        for _ in range(tape.flushes_lost):
            events.append(Flushed(base_ms))
            tape.answered()
        replay_ms = tape.end_ms - base_ms
        self._engine.figures.replayed_ms += replay_ms
        self._replayed_ms += replay_ms
        # What was said meanwhile comes on top, from further up. A recognizer that works at twice the pace of speech
        # has made up for all of it by then.
        now = self._engine.clock()
        away_s = now - self._lost_at if self._lost_at is not None else 0.0
        self._replaying_until = now + away_s + replay_ms / 1000
        self._steady, self._steady_at = False, now
        self._behind_ms = (now - self._began_at) * 1000 - tape.end_ms
        return events

    def _account(self, told: Event, lease: Lease) -> None:
        """What an event means for what must be kept."""
        tape, story = self._tape, self._story
        kind = type(told)
        if isinstance(told, Partial):
            self._came_to(told.end_ms)
        elif kind is Progress:
            processed_ms = story.processed_ms
            self._came_to(processed_ms)
            if story.resting:
                tape.settle((processed_ms - PAUSE_MARGIN_MS) * BYTES_PER_MS)
            now = self._engine.clock()
            if self._is_steady(now):
                lease.lag(tape.end_ms - processed_ms, now)
        elif kind is Final:
            self._found()
            tape.settle(story.settled_ms * BYTES_PER_MS)
        elif kind is Flushed:
            tape.answered()
        elif kind is Gap:
            tape.settle(story.settled_ms * BYTES_PER_MS)

    def _is_steady(self, now: float) -> bool:
        """Whether the audio comes as it is spoken, and nothing has to be made up for."""
        if self._options.recording:
            return False
        if now - self._steady_at >= STEADY_S:
            behind_ms = (now - self._began_at) * 1000 - self._tape.end_ms
            caught_up_ms = self._behind_ms - behind_ms
            self._steady = caught_up_ms < CATCH_UP_MS * (now - self._steady_at)
            if not self._steady:
                self._replaying_until = max(self._replaying_until, now + caught_up_ms / 1000)
            self._behind_ms, self._steady_at = behind_ms, now
        return self._steady and now >= self._replaying_until

    def _came_to(self, audio_ms: int) -> None:
        """Results reach as far as this. To hear the same again after a loss is no step forward."""
        if audio_ms > self._furthest_ms:
            self._furthest_ms = audio_ms
            if self._lost_at is not None:
                self._found()

    def _found(self) -> None:
        """The stream has come forward again."""
        self._lost_at = None
        self._attempts_failed = 0
        self._history.clear()
        self._tried.clear()
        self._avoid = None

    def _is_old(self, born_at: float) -> bool:
        limit_ms = self._engine.config.max_stream_ms
        return bool(limit_ms) and not self._tape.ended and (self._engine.clock() - born_at) * 1000 >= limit_ms

    # --- between two attempts

    def _may_go_on(self, error: ASRError, lease: Lease | None) -> bool:
        """Whether another attempt is worth waiting for."""
        engine = self._engine
        now = engine.clock()
        if self._lost_at is None:
            self._lost_at = now
        if len(self._history) < MAX_HISTORY:
            self._history.append(error)
        kind = verdict(error)
        if kind is Verdict.GIVE_UP and self._heard and error.code in (Code.NOT_FOUND, Code.BAD_REQUEST):
            kind = Verdict.RETRY_ANYWHERE  # it was understood before: a server that restarts has no model for a while
        names = {endpoint.name for endpoint in engine.pool.endpoints}
        if lease is not None:
            self._attempts_failed += 1
            self._tried[lease.endpoint.name] = lease.endpoint.recoveries
            self._last_failure = error
            self._avoid = lease.endpoint
            log.info(
                "stream lost its recognizer at endpoint %s after %d ms of audio, %d ms to replay: %s",
                lease.endpoint.name,
                self._tape.end_ms,
                (self._tape.end_bytes - self._tape.replay_bytes) // BYTES_PER_MS,
                error.message,
            )
        if kind is Verdict.GIVE_UP:
            return False
        if kind is Verdict.RETRY_ELSEWHERE:
            if lease is None:
                return False
            self._hopeless.add(lease.endpoint.name)
            if self._hopeless >= names:
                return False
        left_ms = self._left_ms()
        if lease is None:
            # Nothing can be tried before that: a start that cannot succeed is refused at once.
            return (error.retry_after_ms or 0) <= left_ms if not self._heard else left_ms > 0
        everywhere = self._tried.keys() >= names
        if kind is Verdict.BACK_OFF and everywhere:
            return (error.retry_after_ms or 0) <= left_ms
        return left_ms > 0 or not everywhere

    def _left_ms(self) -> float:
        config = self._engine.config
        patience_ms = config.failover_timeout_ms if self._heard else config.start_timeout_ms
        lost_at = self._lost_at if self._lost_at is not None else self._engine.clock()
        return patience_ms - (self._engine.clock() - lost_at) * 1000

    async def _pause(self, error: ASRError, lease: Lease | None) -> None:
        engine = self._engine
        elsewhere = len(engine.pool.endpoints) > len(self._tried)
        pushed_back = verdict(error) is Verdict.BACK_OFF and not elsewhere
        if lease is not None and self._attempts_failed == 1 and (self._heard or elsewhere) and not pushed_back:
            return
        pause_ms: float = engine.backoff.pause_ms(max(self._attempts_failed, 1))
        if lease is not None and pushed_back:
            pause_ms = max(pause_ms, error.retry_after_ms or 0)
        if lease is None:
            # An endpoint that comes back wakes everyone who waits; chance spreads them.
            wait_ms = min(max(error.retry_after_ms or 0, pause_ms, 50), max(self._left_ms(), 0))
            await engine.pool.change(wait_ms / 1000)
            pause_ms = engine.backoff.pause_ms(1)
        await asyncio.sleep(min(pause_ms, max(self._left_ms(), 0)) / 1000)

    def _loss(self, error: ASRError) -> Status:
        state = State.THROTTLED if verdict(error) is Verdict.BACK_OFF else State.FAILING_OVER
        return Status(state, self._tape.end_ms, error.retry_after_ms)

    def _give_up(self, error: ASRError) -> list[Event]:
        tape = self._tape
        self._engine.figures.given_up += 1
        reason = FinalReason.TIMEOUT if error.code is Code.TIMEOUT else FinalReason.FAILOVER
        settled_ms = tape.settled_bytes // BYTES_PER_MS
        events = self._story.give_up(tape.end_ms, settled_ms, reason, GapCause.UPSTREAM_LOST)
        self._lost(events)
        for _ in range(tape.flushes_open):
            events.append(Flushed(tape.end_ms))
            tape.answered()
        return events

    def _lost(self, events: list[Event]) -> None:
        self._engine.figures.gaps_ms += sum(e.end_ms - e.start_ms for e in events if isinstance(e, Gap))

    def _with_history(self, error: ASRError) -> ASRError:
        earlier = tuple(one for one in self._history if one is not error)
        if not earlier:
            return error
        told = ASRError(
            error.code,
            error.message,
            retryable=error.retryable,
            retry_after_ms=error.retry_after_ms,
            action=error.action,
            param=error.param,
            earlier=earlier,
        )
        told.__cause__ = error.__cause__ or error
        return told


def _source(audio: AsyncIterable[AudioInput]) -> tuple[AudioPipe, asyncio.Task[None] | None]:
    """The audio as one that may be left in the middle of a wait, and the task that makes it so."""
    if isinstance(audio, AudioPipe):
        return audio, None
    ahead = Ahead(1)
    pipe = AudioPipe(ahead)
    return pipe, asyncio.create_task(pour(audio, pipe, ahead), name="audio feeder")
