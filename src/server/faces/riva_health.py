"""`grpc.health.v1.Health` beside the Riva face: whether streams can be served."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import grpc.aio

from asr.engine import Engine
from asr.riva_proto import Message, health
from server.faces.riva_door import Door

SERVICES = ("", "nvidia.riva.asr.RivaSpeechRecognition")


class Health:
    """The servicer. A state that is watched is looked at every `interval_ms`."""

    def __init__(self, engine: Engine, door: Door, interval_ms: int) -> None:
        self._engine = engine
        self._door = door
        self._interval_s = interval_ms / 1000

    async def Check(self, request: Message, context: Message) -> Message:  # noqa: N802 - the proto's name
        """Whether streams can be served now."""
        if request.service not in SERVICES:
            names = ", ".join(repr(name) for name in SERVICES)
            await context.abort(grpc.StatusCode.NOT_FOUND, f"No such service. Services here: {names}.")
        return health.HealthCheckResponse(status=await self._status(request.service))

    async def Watch(self, request: Message, context: Message) -> AsyncIterator[Message]:  # noqa: N802
        """The same, and again whenever it changes, until the client goes or the server drains."""
        last: int | None = None
        while not context.cancelled():
            # Asked before the state is: what is said last must be what holds while draining.
            draining = self._door.draining
            status = await self._status(request.service)
            if status != last:
                last = status
                yield health.HealthCheckResponse(status=status)
            if draining:
                return
            await self._door.pause(self._interval_s)

    async def _status(self, service: str) -> int:
        kinds = health.HealthCheckResponse
        if service not in SERVICES:
            return int(kinds.UNKNOWN)
        if self._door.closing:
            return int(kinds.NOT_SERVING)
        readiness = await self._engine.ready()
        return int(kinds.SERVING if readiness.ready else kinds.NOT_SERVING)
