"""The second mount of the WebSocket dialects: `/invocations-bidirectional-stream`, which SageMaker connects to.

Which dialect a connection speaks is found out by `server.faces.sagemaker_stream`; who serves it is given from outside,
by the room that knows every face. SageMaker delivers JSON in binary frames unless its client said otherwise; here it
comes out as text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from asr.errors import ASRError, Code
from server.faces.sagemaker_stream import (
    Dialect,
    Target,
    as_text,
    by_first,
    by_target,
    close_code,
    error_text,
    for_realtime,
)
from server.sockets import Incoming, Oversized, Place, Socket, SocketAround, SocketClosed


class SageMakerSocket(SocketAround):
    """A connection whose first message can be looked at before anybody reads it.

    Attributes:
        translate: what becomes of each text message before it is delivered.
    """

    def __init__(self, inner: Socket) -> None:
        super().__init__(inner)
        self._held: list[Incoming] = []
        self._patience: asyncio.Timeout | None = None
        self.translate: Callable[[str], str] = lambda text: text

    async def first(self, timeout_s: float) -> Incoming:
        """The first message, which stays to be received; None when none can come.

        Raises:
            TimeoutError: there was none in time.
        """
        try:
            async with asyncio.timeout(timeout_s) as self._patience:
                message = await self._next()
        finally:
            self._patience = None
        self._held.append(message)
        return message

    def hurry(self) -> None:
        """Whoever waits for the first message waits no longer."""
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def receive(self) -> Incoming:
        """See `server.sockets.Socket`."""
        message = self._held.pop() if self._held else await self._next()
        return self.translate(message) if isinstance(message, str) else message

    async def _next(self) -> Incoming:
        message = await self._inner.receive()
        if isinstance(message, str | Oversized | None):
            return message
        text = as_text(message)
        return message if text is None else text


KeepPlace = Callable[[], Place | None]
"""Hands over the place that a connection took, if it did."""
Serve = Callable[[Socket, Target, KeepPlace], Awaitable[None]]
"""Runs a connection to its end."""


@dataclass(frozen=True, slots=True)
class Served:
    """Who serves which dialect."""

    native: Serve
    realtime: Serve
    plain: Serve


class SageMakerMount:
    """Finds out what a connection speaks, and hands it over.

    Args:
        served: who serves which dialect.
        start_timeout_ms: how long a first message may take where only that can tell.
    """

    def __init__(self, served: Served, *, start_timeout_ms: int) -> None:
        self._served = served
        self._timeout_s = start_timeout_ms / 1000
        self._waiting: set[SageMakerSocket] = set()
        self._draining = False

    async def serve(self, inner: Socket, target: Target, keep_place: KeepPlace) -> None:
        """Run a connection to its end."""
        socket = SageMakerSocket(inner)
        dialect = by_target(target)
        if dialect is None:
            dialect = await self._find_out(socket)
        match dialect:
            case Dialect.NATIVE:
                await self._served.native(socket, target, keep_place)
            case Dialect.REALTIME:
                socket.translate = for_realtime
                await self._served.realtime(socket, target, keep_place)
            case Dialect.PLAIN:
                await self._served.plain(socket, target, keep_place)
            case None:
                pass

    def drain(self) -> None:
        """The server goes down: nobody waits for a first message any more."""
        self._draining = True
        for socket in list(self._waiting):
            socket.hurry()

    async def _find_out(self, socket: SageMakerSocket) -> Dialect | None:
        self._waiting.add(socket)
        try:
            message = await socket.first(0 if self._draining else self._timeout_s)
        except TimeoutError:
            if self._draining:
                error = ASRError(Code.UNAVAILABLE, "The gateway is going down. Connect again.")
            else:
                error = ASRError(Code.IDLE_TIMEOUT, f"No message came within {self._timeout_s:g} s.")
            with suppress(SocketClosed):
                socket.send_now(error_text(error))
            await socket.close(close_code(error), error.code.value)
            return None
        finally:
            self._waiting.discard(socket)
        if message is None:
            return None
        return Dialect.PLAIN if isinstance(message, Oversized) else by_first(message)
