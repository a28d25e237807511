"""A realtime client's connection, with large appends delivered in pieces.

An append may hold fifteen minutes of compressed sound. In one piece, to decode it would keep every other client waiting
for a second; piece by piece the others have their turn in between, and the reader waits for the recognizer as it does
with a client that sends small ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from server.faces.realtime.audio import large_append
from server.sockets import Incoming, Socket, SocketAround


class PiecewiseSocket(SocketAround):
    """A connection whose large appends come in pieces."""

    def __init__(self, inner: Socket) -> None:
        super().__init__(inner)
        self._pieces: Iterator[str | bytes] = iter(())

    async def receive(self) -> Incoming:
        """See `server.sockets.Socket`."""
        piece = next(self._pieces, None)
        if piece is not None:
            await asyncio.sleep(0)
            return piece
        message = await self._inner.receive()
        if not isinstance(message, str | bytes):
            return message
        append = large_append(message)
        if append is None:
            return message
        for flaw in append.flaws():
            if flaw is not None:
                return flaw
            await asyncio.sleep(0)
        self._pieces = append.pieces()
        return next(self._pieces)
