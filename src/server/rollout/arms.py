"""The engine of a canary: streams begin at its endpoints, and are carried on by the base when these fail them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from asr.config import ResilienceConfig
from asr.engine import AudioInput, Engine, Features, Model, Readiness, agree
from asr.errors import ASRError
from asr.events import Event
from asr.options import Options
from asr.pipe import AudioPipe
from asr.resilience.pool import Health
from asr.resilience.resilient import ResilientEngine

WARM_UP_S = 6.0
"""A look at an endpoint takes no longer."""


@dataclass(frozen=True, slots=True)
class Marked(Options):
    """Options that know whose stream they belong to, whatever engines it goes through.

    Attributes:
        on_lost: told when the canary has failed the stream and the base is asked.
    """

    on_lost: Callable[[], None] | None = None


def marked(options: Options, on_lost: Callable[[], None]) -> Marked:
    """The same options, with that mark."""
    return Marked(**{name: getattr(options, name) for name in Options.__slots__}, on_lost=on_lost)


class Reserve:
    """The base, as the canary's last resort. It is not closed with the canary."""

    def __init__(self, base: Engine) -> None:
        self._base = base

    @property
    def name(self) -> str:
        """See `Engine`."""
        return self._base.name

    @property
    def features(self) -> Features:
        """See `Engine`."""
        return self._base.features

    async def models(self) -> Sequence[Model]:
        """See `Engine`."""
        return await self._base.models()

    async def ready(self) -> Readiness:
        """See `Engine`."""
        return await self._base.ready()

    def refusal(self) -> ASRError | None:
        """See `Engine`."""
        return self._base.refusal()

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """See `Engine`. That it is asked means that the canary has failed."""
        if isinstance(options, Marked) and options.on_lost is not None:
            options.on_lost()
        return self._base.stream(audio, options)

    async def aclose(self) -> None:
        """Nothing: the base is another's."""


class Canary:
    """The recognizer on trial.

    Args:
        members: its endpoints.
        base: carries on what they lose.
        config: how that is done.
        wrap: what belongs around it (channels, a silence gate).

    Attributes:
        engine: gets the canary's streams.
    """

    def __init__(
        self,
        members: Sequence[Engine],
        base: Engine,
        config: ResilienceConfig,
        wrap: Callable[[Engine], Engine] = lambda engine: engine,
    ) -> None:
        self._carried = ResilientEngine(members, config, reserve=[Reserve(base)])
        self._endpoints = self._carried.pool.endpoints[: len(members)]
        self.engine = wrap(self._carried)

    @property
    def models(self) -> tuple[Model, ...]:
        """Those that its own endpoints served when they were last asked; none before they have answered."""
        return tuple(model for endpoint in self._endpoints for model in endpoint.models)

    @property
    def is_full(self) -> bool:
        """Whether those of its endpoints that are up have all the streams that they can carry."""
        now = self._carried.clock()
        up = [endpoint for endpoint in self._endpoints if endpoint.health is Health.UP]
        limits = [(endpoint.streams, endpoint.limit.limit(now)) for endpoint in up]
        return bool(up) and all(limit is not None and streams >= limit for streams, limit in limits)

    def watch(self) -> None:
        """Look after its endpoints from now on; they get streams as soon as they say what they serve."""
        self._carried.pool.watch()

    async def warm_up(self) -> None:
        """Wait until its endpoints have said what they serve, or are known to be down. Bounded; never raises."""
        self.watch()
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_UP_S):
                while not self.models and any(endpoint.health is Health.UNKNOWN for endpoint in self._endpoints):
                    await self._carried.pool.change(WARM_UP_S)

    def fits(self, options: Options, ends_utterances: bool) -> bool:
        """Whether it can grant all that was agreed with the base.

        Args:
            options: as agreed.
            ends_utterances: whether the stream's client was promised `EndUtterance`.
        """
        strict = replace(options, fail_on_unsupported=True)
        try:
            agreement = agree(strict, self.models, self._carried.features)
        except ASRError:
            return False
        if ends_utterances and not agreement.features.end_utterance:
            return False
        return agreement.options == strict and not agreement.warnings

    def endpoints(self) -> list[dict[str, Any]]:
        """Its own endpoints, for people."""
        return self._carried.endpoints()[: len(self._endpoints)]

    async def aclose(self) -> None:
        """Let go of its endpoints."""
        await self.engine.aclose()


class WatchedPipe(AudioPipe):
    """The audio of a stream, with somebody who is told how much of it is taken; no copy, no task.

    It can be left in the middle of a wait as the pipe itself can.
    """

    def __init__(self, pipe: AudioPipe, on_taken: Callable[[int], None]) -> None:
        self._pipe = pipe
        self._on_taken = on_taken

    def __aiter__(self) -> WatchedPipe:
        return self

    async def __anext__(self) -> AudioInput:
        item = await self._pipe.__anext__()
        if isinstance(item, bytes):
            self._on_taken(len(item))
        return item


class WatchedAudio:
    """The same for audio that is no pipe."""

    def __init__(self, audio: AsyncIterable[AudioInput], on_taken: Callable[[int], None]) -> None:
        self._audio = aiter(audio)
        self._on_taken = on_taken

    def __aiter__(self) -> WatchedAudio:
        return self

    async def __anext__(self) -> AudioInput:
        item = await anext(self._audio)
        if isinstance(item, bytes):
            self._on_taken(len(item))
        return item


def watched(audio: AsyncIterable[AudioInput], on_taken: Callable[[int], None]) -> AsyncIterable[AudioInput]:
    """`audio`, with somebody who is told how many bytes are taken."""
    return WatchedPipe(audio, on_taken) if isinstance(audio, AudioPipe) else WatchedAudio(audio, on_taken)
