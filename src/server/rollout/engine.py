"""An engine around up to three: the base, the former one, the canary. A position says which of them new streams get.

A stream stays with the engine that it began with; only a canary's stream that the canary has failed goes on at the
base. What clients may ask for is agreed with the base (or the former one, in its position): a stream tries the canary
only if the canary can grant all of that. Without a canary nothing stands between a stream and its engine.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import structlog

from asr.engine import AudioInput, Engine, Features, Model, Readiness, counts_of, endpoints_of
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from server.rollout.arms import Canary, marked, watched
from server.rollout.state import Position, SwitchedOff, Wanted
from server.rollout.tally import StreamTally
from server.rollout.verdict import Comparison, Lot, Verdict
from server.telemetry.tallies import Tallies

log = structlog.get_logger("server.rollout")

WATCH = "the canary watch"
"""Who aborts a canary by itself."""


class RolloutEngine:
    """See the module.

    Args:
        base: closed with this one, as are the others.
        make_former: makes the engine of before, when it is first needed; None where there is none.
        make_canary: the same for the one on trial.
        min_streams: of a canary, before it may be called good.
        chance: 0 ≤ x < 1, for each stream.
        clock: seconds.

    Attributes:
        on_worse: told when a canary has been aborted by itself.
        tallies: what metrics tell of it.
    """

    def __init__(
        self,
        base: Engine,
        *,
        make_former: Callable[[], Engine] | None = None,
        make_canary: Callable[[], Canary] | None = None,
        min_streams: int = 50,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.base = base
        self.on_worse: Callable[[Verdict], None] | None = None
        self._make_former = make_former
        self._make_canary = make_canary
        self._min_streams = min_streams
        self._chance = chance
        self._clock = clock
        self._former: Engine | None = None
        self._canary: Canary | None = None
        self._wanted = Wanted()
        self._comparison: Comparison | None = None
        self._base_models: Sequence[Model] = ()
        self.tallies = Tallies()
        self._left_out = 0

    # What an operator asks ----------------------------------------------------------------------

    @property
    def wanted(self) -> Wanted:
        """What holds now."""
        return self._wanted

    @property
    def comparison(self) -> Comparison | None:
        """Of the canary that runs, or ran last."""
        return self._comparison

    @property
    def has_former(self) -> bool:
        """Whether there is a recognizer to go back to."""
        return self._make_former is not None

    @property
    def has_canary(self) -> bool:
        """Whether there is one to try."""
        return self._make_canary is not None

    @property
    def left_out(self) -> int:
        """Streams of this canary that only the base could serve; they are not compared."""
        return self._left_out

    @property
    def canary_models(self) -> tuple[str, ...]:
        """Names of what the canary serves, as far as is known."""
        return () if self._canary is None else tuple(model.name for model in self._canary.models)

    def report_to(self, tallies: Tallies) -> None:
        """From now on what metrics tell is counted there; what was counted before goes with it."""
        before, self.tallies = self.tallies, tallies
        tallies.canary_streams.update(before.canary_streams)
        tallies.canary_aborts += before.canary_aborts
        self._tell()

    def check(self, wanted: Wanted) -> None:
        """Raises:
        ASRError: `bad_request`, where it needs an endpoint that is not set.
        """
        if wanted.position is Position.FORMER and self._make_former is None:
            text = "There is no former recognizer to go back to. Set RIVA_FORMER_ENDPOINTS, and start the gateway anew."
            raise ASRError(Code.BAD_REQUEST, text, param="position")
        if wanted.canary_percent and self._make_canary is None:
            text = "There is no canary. Set RIVA_CANARY_ENDPOINTS, and start the gateway anew."
            raise ASRError(Code.BAD_REQUEST, text, param="canary_percent")

    async def prepare(self, wanted: Wanted) -> str:
        """Ask the recognizers that are about to get streams what they serve.

        Returns:
            What an operator should know of that, or "".
        """
        if wanted.position is Position.FORMER and self._wanted.position is not Position.FORMER:
            state = await self._former_engine().ready()
            return "" if state.ready else f"The former recognizer is not ready: {state.detail}"
        if wanted.position is Position.ON and wanted.canary_percent and not self.canary_models:
            await self._canary_engine().warm_up()
            if not self.canary_models:
                return "The canary does not answer yet. Until it does, it gets no streams."
        return ""

    def apply(self, wanted: Wanted) -> None:
        """From now on this holds, for new streams.

        Raises:
            ASRError: see `check`.
        """
        self.check(wanted)
        before, self._wanted = self._wanted, wanted
        self._tell()
        if wanted.canary_percent and wanted.canary_percent != before.canary_percent:
            self._canary_engine()
            if self._comparison is None or not before.canary_percent:
                self._comparison = Comparison(self._min_streams)
                self._left_out = 0
            else:
                self._comparison.next_step()

    def watch(self) -> None:
        """Look after a canary that is to get streams, and abort it if it has turned out to be worse."""
        if self._wanted.canary_percent:
            self._canary_engine().watch()
        self.look()

    def look(self) -> None:
        """Abort the canary if it has turned out to be worse. Quick: it is done after every event."""
        comparison = self._comparison
        if comparison is None or comparison.worse is None or not self._wanted.canary_percent:
            return
        verdict = comparison.worse
        self.tallies.canary_aborts += 1
        self._wanted = replace(self._wanted, canary_percent=0, by=WATCH, reason=verdict.words)
        self._tell()
        log.error("canary aborted", figure=verdict.figure, verdict=verdict.words)
        if self.on_worse is not None:
            self.on_worse(verdict)

    # Engine -------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """That of the engine that new streams get."""
        return self._target.name

    @property
    def features(self) -> Features:
        """The same engine's."""
        return self._target.features

    async def models(self) -> Sequence[Model]:
        """The same engine's."""
        target = self._target
        models = await target.models()
        if target is self.base:
            self._base_models = models
        return models

    async def ready(self) -> Readiness:
        """The same engine's; not ready while it is switched off."""
        if self._wanted.position is Position.OFF:
            return Readiness(False, SwitchedOff(self._wanted.reason).message)
        return await self._target.ready()

    def refusal(self) -> ASRError | None:
        """The same engine's; `SwitchedOff` while it is."""
        if self._wanted.position is Position.OFF:
            return SwitchedOff(self._wanted.reason)
        return self._target.refusal()

    def endpoints(self) -> list[dict[str, Any]]:
        """Those of all engines there are; the canary's are `canary-1` …, the former's `former-1` …"""
        rows = endpoints_of(self.base)
        if self._canary is not None:
            rows += [{**row, "name": f"canary-{row['name']}"} for row in self._canary.endpoints()]
        if self._former is not None:
            rows += [{**row, "name": f"former-{row['name']}"} for row in endpoints_of(self._former)]
        return rows

    def counts(self) -> dict[str, int]:
        """See `counts_of`: of all engines together."""
        found = Counter(counts_of(self.base))
        for engine in (self._former, None if self._canary is None else self._canary.engine):
            if engine is not None:
                found.update(counts_of(engine))
        return dict(found)

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """Recognize `audio` with the engine that the position and chance say."""
        wanted = self._wanted
        if wanted.position is Position.OFF:
            return _refused(SwitchedOff(wanted.reason))
        if wanted.position is Position.ON and wanted.canary_percent:
            canary, comparison = self._canary_engine(), self._comparison
            assert comparison is not None, "made when the percentage was applied"
            lot = self._draw(canary, comparison, options)
            if lot is not None:
                return self._compared(canary.engine if lot.canary else self.base, comparison, lot, audio, options)
        return self._target.stream(audio, options)

    async def aclose(self) -> None:
        """Close all of them."""
        try:
            if self._canary is not None:
                await self._canary.aclose()
        finally:
            try:
                if self._former is not None:
                    await self._former.aclose()
            finally:
                await self.base.aclose()

    # Inside -------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self.tallies.rollout_position = self._wanted.position.value
        self.tallies.canary_percent = self._wanted.canary_percent

    @property
    def _target(self) -> Engine:
        return self._former_engine() if self._wanted.position is Position.FORMER else self.base

    def _former_engine(self) -> Engine:
        if self._former is None:
            assert self._make_former is not None, "checked when it was applied"
            self._former = self._make_former()
        return self._former

    def _canary_engine(self) -> Canary:
        if self._canary is None:
            assert self._make_canary is not None, "checked when it was applied"
            self._canary = self._make_canary()
        return self._canary

    def _draw(self, canary: Canary, comparison: Comparison, options: Options) -> Lot | None:
        """Which arm gets the stream; None where there is no choice, and nothing to compare."""
        percent = self._wanted.canary_percent
        if not canary.models or not canary.fits(options, self._ends_utterances(options.model)):
            self._left_out += 1
            return None
        if canary.is_full:  # before the lot is drawn: else the base's streams alone would be compared meanwhile
            return None
        return Lot(self._chance() * 100 < percent, percent / 100, comparison.step)

    def _ends_utterances(self, model: str) -> bool:
        known = next((one.end_utterance for one in self._base_models if one.name == model), None)
        return self.base.features.end_utterance if known is None else known

    async def _compared(
        self, engine: Engine, comparison: Comparison, lot: Lot, audio: AsyncIterable[AudioInput], options: Options
    ) -> AsyncGenerator[Event]:
        clock = self._clock
        tally = StreamTally(lot, comparison, channels=options.channels, live=not options.recording)
        heard = watched(audio, lambda n_bytes: tally.pulled(n_bytes, clock()))
        events = engine.stream(heard, marked(options, tally.lost))
        code, complete = "", False
        try:
            async for event in events:
                tally.heard(event, clock())
                yield event
                self.look()
            complete = True
        except ASRError as error:
            code = error.code.value
            raise
        except Exception:
            code = Code.INTERNAL.value
            raise
        finally:
            try:
                outcome = tally.ended(code, complete=complete)
                self.tallies.canary_streams["canary" if lot.canary else "base", outcome.value] += 1
                self.look()
            finally:
                await events.aclose()


async def _refused(error: ASRError) -> AsyncGenerator[Event]:
    raise error
    yield  # makes it a generator
