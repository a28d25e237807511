"""An engine whose streams take places of the gateway, patiently: jobs fill what live streams leave free."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from asr.engine import AudioInput, EndUtterance, Engine, Features, Model, Readiness
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from server.admission import Admission, Place
from server.rollout.state import SwitchedOff
from server.telemetry.hub import Telemetry
from server.telemetry.takes import TakeWatch

PRINCIPAL = "jobs"
RESERVE_PERCENT = 10
"""Of the places, those that jobs leave to live streams."""
RETRY_S = 0.5


class PatientEngine:
    """An engine around an engine.

    Args:
        engine: closed by its owner, not here.
        admission: where the places are.
        telemetry: told of every stream.
        patience_ms: how long a stream waits for a recognizer that refuses, before it fails with that. For a place among
            live streams it waits as long as these need them all, and while the operator has switched transcription off
            as long as that lasts.
    """

    def __init__(self, engine: Engine, admission: Admission, telemetry: Telemetry, *, patience_ms: int) -> None:
        self._engine = engine
        self._telemetry = telemetry
        self._admission = admission
        self._patience_s = patience_ms / 1000
        self._off_until_s = -math.inf

    @property
    def off_until_s(self) -> float:
        """The loop's time when a stream last waited because transcription is switched off; -inf: never."""
        return self._off_until_s

    @property
    def name(self) -> str:
        """The inner engine's."""
        return self._engine.name

    @property
    def features(self) -> Features:
        """The inner engine's."""
        return self._engine.features

    async def models(self) -> Sequence[Model]:
        """The inner engine's."""
        return await self._engine.models()

    async def ready(self) -> Readiness:
        """The inner engine's."""
        return await self._engine.ready()

    def refusal(self) -> ASRError | None:
        """None: a stream waits."""
        return None

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """The inner engine's stream, once there is a place for it."""
        place = await self._place()
        watch = self._telemetry.open(
            "job", kind="recording", peer="", principal=PRINCIPAL, traceparent=options.traceparent
        )
        watch.agreed(options.model, options.language)
        take = watch.take(options.channels)
        traced = replace(options, traceparent=watch.start.trace.header())
        try:
            with watch.until_over():
                async with aclosing(self._engine.stream(_counted(audio, take), traced)) as events:
                    async for event in events:
                        take.heard(event)
                        yield event
        finally:
            place.release()

    async def aclose(self) -> None:
        """Nothing: the inner engine is another's."""

    async def _place(self) -> Place:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while True:
            try:
                if self._crowded():
                    raise ASRError(Code.OVERLOADED, "Live streams need the places of this gateway.")
                return self._admission.admit(PRINCIPAL)
            except ASRError as error:
                refused = self._engine.refusal()
                if isinstance(refused, SwitchedOff):
                    self._off_until_s = loop.time()
                if refused is None or isinstance(refused, SwitchedOff):
                    until = loop.time() + self._patience_s
                if not error.retryable or loop.time() >= until:
                    raise
            await asyncio.sleep(RETRY_S)

    def _crowded(self) -> bool:
        most = self._admission.max_streams
        reserve = min(most - 1, max(1, most * RESERVE_PERCENT // 100))
        return most - self._admission.in_use <= reserve


async def _counted(audio: AsyncIterable[AudioInput], take: TakeWatch) -> AsyncGenerator[AudioInput]:
    async for item in audio:
        if not isinstance(item, EndUtterance):
            take.fed(len(item))
            take.taken()
        yield item
