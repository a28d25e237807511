"""A WebSocket as the driver sees it, and the same in memory for tests.

`receive` hands out whole messages in order; `send` waits while the client reads too slowly, within
a bound. No implementation may keep more than a stated amount of unread input.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from asr.errors import ASRError, Code


class SocketClosed(Exception):
    """The connection is gone; nothing can be sent any more."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """Received in place of a message that is over the limit; it was not read."""

    limit_bytes: int


Incoming = str | bytes | Oversized | None
"""A message, an oversized one, or None when the client has gone."""


class Socket(Protocol):
    """One client's connection."""

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        ...

    @property
    def last_heard(self) -> float:
        """When the client last gave a sign of life (pongs too), on the loop's clock, in seconds."""
        ...

    async def receive(self) -> Incoming:
        """The next message; None, also on every later call, when the client has gone."""
        ...

    async def gone(self) -> None:
        """Wait until the connection is lost."""
        ...

    async def send(self, text: str) -> None:
        """Send a text message.

        Raises:
            SocketClosed: the client has gone.
            ASRError: `slow_reader`, when the client leaves no room for longer than the bound.
        """
        ...

    async def close(self, code: int, reason: str = "") -> None:
        """Close and wait, within a bound, until the client has answered."""
        ...


class MemorySocket:
    """A socket without a network: a test puts messages in and reads what came out.

    Attributes:
        sent: every text sent, in order.
        closed: the close code and reason, or None.
    """

    def __init__(self, peer: str = "memory") -> None:
        self._peer = peer
        self._inbox: deque[Incoming] = deque()
        self._arrived = asyncio.Event()
        self._gone = False
        self._lost = asyncio.Event()
        self.sent: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.blocked = False
        self._changed = asyncio.Event()

    @property
    def peer(self) -> str:
        """The name given at construction."""
        return self._peer

    @property
    def last_heard(self) -> float:
        """A memory socket is always alive."""
        return asyncio.get_running_loop().time()

    def put(self, message: str | bytes | Oversized) -> None:
        """The client sends a message."""
        self._inbox.append(message)
        self._arrived.set()

    def hang_up(self) -> None:
        """The client goes away without a word."""
        self._gone = True
        self._arrived.set()
        self._lost.set()

    async def receive(self) -> Incoming:
        """See `Socket.receive`."""
        while not self._inbox:
            if self._gone or self.closed is not None:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.popleft()

    async def gone(self) -> None:
        """See `Socket.gone`."""
        await self._lost.wait()

    async def send(self, text: str) -> None:
        """See `Socket.send`; with `blocked` set the client counts as one that does not read."""
        if self._gone or self.closed is not None:
            raise SocketClosed
        if self.blocked:
            raise ASRError(Code.SLOW_READER, "The client does not read what it is sent.")
        self.sent.append(text)
        self._changed.set()

    async def close(self, code: int, reason: str = "") -> None:
        """See `Socket.close`."""
        if self.closed is None:
            self.closed = (code, reason)
        self._arrived.set()
        self._changed.set()

    async def changed(self) -> None:
        """Wait until something more has been sent, or the socket was closed."""
        await self._changed.wait()
        self._changed.clear()
