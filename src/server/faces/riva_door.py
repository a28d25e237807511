"""Who may come in at the Riva gRPC face, for how long it may be silent, and how all are asked to finish.

Kept apart from the services because each of them asks here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from asr.errors import ASRError
from asr.riva_proto import Message
from server.access.grants import Grant, Scope
from server.access.grpc import current_grant
from server.access.porter import Porter
from server.access.vigil import Vigil
from server.admission import Admission
from server.faces.riva_visit import Visit
from server.principal import grpc_address
from server.telemetry.hub import Telemetry
from server.telemetry.record import Kind
from server.telemetry.watch import StreamWatch

log = structlog.get_logger("server.stream")

FACE = "riva_grpc"


@dataclass(frozen=True, slots=True)
class RivaFaceLimits:
    """The bounds of this face.

    Attributes:
        first_message_timeout_ms: until a client must have sent its configuration.
        idle_timeout_ms: the longest silence of a client between two messages.
        slow_reader_timeout_ms: how long one response may wait for the client to take it.
        health_interval_ms: how often a watched health state is looked at.
        max_audio_ms: the longest recording that `Recognize` takes.
    """

    first_message_timeout_ms: int = 10_000
    idle_timeout_ms: int = 300_000
    slow_reader_timeout_ms: int = 30_000
    health_interval_ms: int = 2_000
    max_audio_ms: int = 3_600_000


class Door:
    """Open until it is drained.

    Args:
        admission: gives each call its place.
        porter: lets in, and counts what callers use.
        telemetry: told of every call.
    """

    def __init__(self, admission: Admission, porter: Porter, telemetry: Telemetry) -> None:
        self._admission = admission
        self._telemetry = telemetry
        self._porter = porter
        self._vigil = Vigil(porter)
        self._visits: dict[Message, Visit] = {}
        self._reads: set[asyncio.Timeout] = set()
        self._closing = asyncio.Event()
        self._drained = asyncio.Event()

    @property
    def closing(self) -> bool:
        """Whether nobody is let in any more."""
        return self._admission.draining or self._drained.is_set()

    @property
    def draining(self) -> bool:
        """Whether the streams were asked to finish."""
        return self._drained.is_set()

    def close(self) -> None:
        """Let nobody in any more, and have health say so; streams go on."""
        self._admission.drain()
        self._closing.set()

    def drain(self) -> None:
        """Close, and wake everyone who waits here: streams end."""
        self.close()
        self._drained.set()
        now = asyncio.get_running_loop().time()
        for bound in self._reads:
            if not bound.expired():
                bound.reschedule(now)

    def shutting_down(self) -> ASRError:
        """What a call is told that comes while the face is closing."""
        return self._admission.going_down()

    def check(self) -> None:
        """Raises `unavailable` while the face is draining."""
        if self.draining:
            raise self.shutting_down()

    @contextmanager
    def admitted(self, context: Message, kind: Kind) -> Iterator[StreamWatch]:
        """Take one of the gateway's places for as long as a call is recognized, and watch over it.

        Raises:
            ASRError: see `Admission.admit`.
        """
        grant = self._grant(context)
        try:
            place = self._porter.admit(self._admission, grant)
        except ASRError as error:
            log.debug("stream refused", face=FACE, principal=grant.principal, code=error.code.value)
            self._telemetry.refused(FACE, error.code)
            raise
        try:
            shown = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            watch = self._telemetry.open(
                FACE,
                kind=kind,
                peer=context.peer(),
                principal=grant.principal,
                traceparent=shown.get("traceparent", ""),
                tracestate=shown.get("tracestate", ""),
            )
            visit = Visit(grant, watch)
            with watch.until_over(), visit.within(), self._attended(context, visit, kind):
                yield watch
        finally:
            place.release()

    @contextmanager
    def _attended(self, context: Message, visit: Visit, kind: Kind) -> Iterator[None]:
        """A stream is looked after; a recording that was taken is served to its end, and then counted."""
        try:
            if kind == "live":
                self._visits[context] = visit
                self._vigil.begin(visit)
            yield
        finally:
            if kind == "live":
                del self._visits[context]
                self._vigil.end(visit)
            else:
                self._porter.usage.spend(visit.grant, visit.audio_ms)

    def _grant(self, context: Message) -> Grant:
        """What the caller may do: as it was let in; where no interceptor stands in front, as the gate says."""
        grant = current_grant()
        if grant is None:
            address = grpc_address(context.peer())
            grant = self._porter.gate.enter(context.invocation_metadata() or (), address, Scope.TRANSCRIBE)
        return grant

    async def read(self, context: Message, limit_s: float) -> Message | None:
        """The next message of a stream, `grpc.aio.EOF` at its end, or None as soon as the face is draining.

        Raises:
            ASRError: the caller may stay no longer.
            TimeoutError: none came within `limit_s` seconds.
        """
        if self.draining:
            return None
        visit = self._visits.get(context)
        if visit is not None and visit.error is not None:
            raise visit.error
        # No task for each message: what wakes a reader is the bound that it has anyway.
        bound = asyncio.timeout(limit_s)
        try:
            async with bound:
                self._reads.add(bound)
                if visit is not None:
                    visit.bound = bound
                try:
                    return await context.read()
                finally:
                    self._reads.discard(bound)
                    if visit is not None:
                        visit.bound = None
        except TimeoutError:
            if self.draining:
                return None
            if visit is not None and visit.error is not None:
                raise visit.error from None
            raise

    async def pause(self, limit_s: float) -> None:
        """Sleep for `limit_s` seconds, or until the face closes, or until it drains where it has closed."""
        try:
            async with asyncio.timeout(limit_s):
                await (self._drained if self.closing else self._closing).wait()
        except TimeoutError:
            pass
