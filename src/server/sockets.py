"""A WebSocket as the driver sees it, and the same in memory for tests.

`receive` hands out whole messages in order. `send_now` never waits: it says whether there is room for more, and
`writable` waits for it. No implementation may keep more than a stated amount of unread input.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from server.access.grants import Grant


class SocketClosed(Exception):
    """The connection is gone; nothing can be sent any more."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """Received in place of a message that is over the limit; it was not read."""

    limit_bytes: int


Incoming = str | bytes | Oversized | None
"""A message, an oversized one, or None when the client has gone."""


def size_of(message: Incoming) -> int:
    """Bytes of a message on the wire, without its frame."""
    if isinstance(message, str):
        return len(message) if message.isascii() else len(message.encode(errors="replace"))
    return len(message) if isinstance(message, bytes) else 0


class Place(Protocol):
    """A place among the streams that are served at once."""

    def release(self) -> None:
        """Give it back; once is enough, and twice does no harm."""
        ...


class Socket(Protocol):
    """One client's connection."""

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        ...

    @property
    def principal(self) -> str:
        """Who the client is: a digest of its credential, or its address without the port."""
        ...

    @property
    def trace(self) -> tuple[str, str]:
        """The client's `traceparent` and `tracestate`, or "" for each."""
        ...

    @property
    def grant(self) -> Grant | None:
        """What the client may do, where somebody asked."""
        ...

    @property
    def last_heard(self) -> float:
        """When the client last gave a sign of life (pongs too), on the loop's clock, in seconds."""
        ...

    @property
    def arrived_at(self) -> float:
        """When the message came that `receive` gave last, on the loop's clock, in seconds."""
        ...

    @property
    def close_received(self) -> int | None:
        """The code of the client's close frame (1005 for one without a code); None while there has been none."""
        ...

    async def receive(self) -> Incoming:
        """The next message; None, also on every later call, when the client has gone."""
        ...

    async def gone(self) -> None:
        """Wait until the connection is lost."""
        ...

    def send_now(self, text: str) -> bool:
        """Send a text message without waiting. Returns whether there is room for more; the message is sent anyway.

        Raises:
            SocketClosed: nothing can be sent any more.
        """
        ...

    async def writable(self) -> None:
        """Wait until there is room again, or the connection is lost."""
        ...

    async def close(self, code: int, reason: str = "") -> None:
        """Close and wait, within a bound, until the client has answered."""
        ...


class SocketAround:
    """A `Socket` that is another one, for those that change only what is received."""

    def __init__(self, inner: Socket) -> None:
        self._inner = inner

    async def receive(self) -> Incoming:
        """See `Socket`."""
        return await self._inner.receive()

    @property
    def peer(self) -> str:
        """See `Socket`."""
        return self._inner.peer

    @property
    def principal(self) -> str:
        """See `Socket`."""
        return self._inner.principal

    @property
    def grant(self) -> Grant | None:
        """See `Socket`."""
        return self._inner.grant

    @property
    def trace(self) -> tuple[str, str]:
        """See `Socket`."""
        return self._inner.trace

    @property
    def last_heard(self) -> float:
        """See `Socket`."""
        return self._inner.last_heard

    @property
    def arrived_at(self) -> float:
        """See `Socket`."""
        return self._inner.arrived_at

    @property
    def close_received(self) -> int | None:
        """See `Socket`."""
        return self._inner.close_received

    async def gone(self) -> None:
        """See `Socket`."""
        await self._inner.gone()

    def send_now(self, text: str) -> bool:
        """See `Socket`."""
        return self._inner.send_now(text)

    async def writable(self) -> None:
        """See `Socket`."""
        await self._inner.writable()

    async def close(self, code: int, reason: str = "") -> None:
        """See `Socket`."""
        await self._inner.close(code, reason)


class MemorySocket:
    """A socket without a network: a test puts messages in and reads what came out.

    Attributes:
        sent: every text sent, in order.
        closed: the close code and reason, or None.
        principal, grant: see `Socket`.
        trace, arrived_at: see `Socket`.
        answers_close: whether the client answers a close frame; one that does not is cut off.
        close_received: see `Socket.close_received`.
    """

    def __init__(self, peer: str = "memory", *, principal: str = "memory") -> None:
        self._peer = peer
        self._inbox: deque[tuple[float, Incoming]] = deque()
        self._arrived = asyncio.Event()
        self._gone = False
        self._lost = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._changed = asyncio.Event()
        self.principal = principal
        self.grant: Grant | None = None
        self.trace = ("", "")
        self.arrived_at = 0.0
        self.sent: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.answers_close = True
        self.close_received: int | None = None

    @property
    def peer(self) -> str:
        """The name given at construction."""
        return self._peer

    @property
    def last_heard(self) -> float:
        """A memory socket is always alive."""
        return asyncio.get_running_loop().time()

    @property
    def blocked(self) -> bool:
        """Whether the client reads nothing: what is sent then still goes out, and there is no room for more."""
        return not self._room.is_set()

    @blocked.setter
    def blocked(self, blocked: bool) -> None:
        if blocked:
            self._room.clear()
        else:
            self._room.set()

    def put(self, message: str | bytes | Oversized) -> None:
        """The client sends a message."""
        self._inbox.append((asyncio.get_running_loop().time(), message))
        self._arrived.set()

    def hang_up(self, code: int | None = None) -> None:
        """The client goes away: without a word, or with a close frame of that code."""
        self.close_received = code
        self._gone = True
        self._arrived.set()
        self._room.set()
        self._lost.set()

    async def receive(self) -> Incoming:
        """See `Socket.receive`."""
        while not self._inbox:
            if self._gone or self.closed is not None:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self.arrived_at, message = self._inbox.popleft()
        return message

    async def gone(self) -> None:
        """See `Socket.gone`."""
        await self._lost.wait()

    def send_now(self, text: str) -> bool:
        """See `Socket.send_now`."""
        if self._gone or self.closed is not None:
            raise SocketClosed
        self.sent.append(text)
        self._changed.set()
        return not self.blocked

    async def writable(self) -> None:
        """See `Socket.writable`."""
        await self._room.wait()

    async def close(self, code: int, reason: str = "") -> None:
        """See `Socket.close`."""
        if self.closed is None and not self._gone:
            self.closed = (code, reason)
            if self.answers_close:
                self.close_received = code
        self._arrived.set()
        self._changed.set()
        self._lost.set()

    async def changed(self) -> None:
        """Wait until something more has been sent, or the socket was closed."""
        await self._changed.wait()
        self._changed.clear()
