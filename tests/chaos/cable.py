"""A proxy whose present connections can go silent while new ones are good: a path that was lost on the way.

Of a host that vanished nothing is heard, but a connection that is opened afterwards finds another way to it.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from chaos.proxy import Proxy, Way


class Cable(Proxy):
    """See `chaos.proxy.Proxy`."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._frozen: set[Any] = set()

    def freeze(self) -> None:
        """On the connections that are open, bytes vanish both ways from now on; they stay open."""
        self._frozen = set(self._links)

    def away(self) -> None:
        """Connections are accepted, counted and reset: the host is there and its service is not."""
        self.target_port, self._kept = 1, self.target_port
        self.reset()

    def back(self) -> None:
        """The service is there again."""
        self.target_port = self._kept

    async def _pump(self, link: Any, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await super()._pump(link, way, cast(asyncio.StreamReader, _Frozen(self, link, reader)), writer)

    def is_frozen(self, link: object) -> bool:
        """Whether nothing passes there any more."""
        return link in self._frozen


class _Frozen:
    def __init__(self, cable: Cable, link: object, reader: asyncio.StreamReader) -> None:
        self._cable = cable
        self._link = link
        self._reader = reader

    async def read(self, size: int) -> bytes:
        while True:
            data = await self._reader.read(size)
            if not data or not self._cable.is_frozen(self._link):
                return data
