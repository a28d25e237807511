"""Who may come in at the Riva gRPC face, for how long it may be silent, and how all are asked to finish.

Kept apart from the services because each of them asks here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asr.errors import ASRError, Code
from asr.riva_proto import Message


@dataclass(frozen=True, slots=True)
class RivaFaceLimits:
    """The bounds of this face.

    Attributes:
        max_streams: calls that may be recognized at a time, streams and whole recordings together.
        first_message_timeout_ms: until a client must have sent its configuration.
        idle_timeout_ms: the longest silence of a client between two messages.
        slow_reader_timeout_ms: how long one response may wait for the client to take it.
        health_interval_ms: how often a watched health state is looked at.
    """

    max_streams: int = 1000
    first_message_timeout_ms: int = 10_000
    idle_timeout_ms: int = 300_000
    slow_reader_timeout_ms: int = 30_000
    health_interval_ms: int = 2_000


def shutting_down() -> ASRError:
    """What a call is told that comes while the face is draining."""
    return ASRError(Code.UNAVAILABLE, "The gateway is shutting down. Open a new stream in a moment.")


class Door:
    """Open until it is drained."""

    def __init__(self, limits: RivaFaceLimits) -> None:
        self._limits = limits
        self._streams = 0
        self._reads: set[asyncio.Timeout] = set()
        self._drained = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether the face was asked to finish."""
        return self._drained.is_set()

    def drain(self) -> None:
        """Let nobody in any more, and wake everyone who waits here."""
        self._drained.set()
        now = asyncio.get_running_loop().time()
        for bound in self._reads:
            if not bound.expired():
                bound.reschedule(now)

    def check(self) -> None:
        """Raises `unavailable` while the face is draining."""
        if self.draining:
            raise shutting_down()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Take one of the places for as long as a call is recognized.

        Raises:
            ASRError: `unavailable` while draining, `overloaded` when every place is taken.
        """
        self.check()
        if self._streams >= self._limits.max_streams:
            raise ASRError(
                Code.OVERLOADED,
                f"All {self._limits.max_streams} streams of this gateway are in use. Try again in a moment.",
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def read(self, context: Message, limit_s: float) -> Message | None:
        """The next message of a stream, `grpc.aio.EOF` at its end, or None as soon as the face is draining.

        Raises:
            TimeoutError: none came within `limit_s` seconds.
        """
        if self.draining:
            return None
        # No task for each message: what wakes a reader is the bound that it has anyway.
        bound = asyncio.timeout(limit_s)
        try:
            async with bound:
                self._reads.add(bound)
                try:
                    return await context.read()
                finally:
                    self._reads.discard(bound)
        except TimeoutError:
            if self.draining:
                return None
            raise

    async def pause(self, limit_s: float) -> None:
        """Sleep for `limit_s` seconds, or until the face is draining."""
        try:
            async with asyncio.timeout(limit_s):
                await self._drained.wait()
        except TimeoutError:
            pass
