"""The audio of one take on its way from the socket to the engine: bounded, one reader."""

from __future__ import annotations

import asyncio
from collections import deque

from asr.engine import AudioInput, EndUtterance


class AudioPipe:
    """An async iterator of audio that the reader of a socket fills.

    The writer asks for room *before* it reads its next message, so what a client sends ahead of the
    engine stays in its own socket buffer.

    Attributes:
        buffered_bytes: audio put in and not yet taken out.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[AudioInput] = deque()
        self._ended = False
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.buffered_bytes = 0

    @property
    def full(self) -> bool:
        """Whether the writer should wait."""
        return self.buffered_bytes >= self._max_bytes and not self._ended

    async def room(self) -> None:
        """Wait until the engine has taken enough, or needs no more."""
        while self.full:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def put(self, item: AudioInput) -> None:
        """Add audio. After `end` or `abandon` it is dropped."""
        if self._ended:
            return
        self._items.append(item)
        if not isinstance(item, EndUtterance):
            self.buffered_bytes += len(item)
        self._wake_reader()

    def end(self) -> None:
        """No more audio follows: the reader ends when it has taken what is there."""
        self._ended = True
        self._wake_reader()
        self._wake_writer()

    def abandon(self) -> None:
        """Nobody reads any more: forget what is there and let the writer go on."""
        self._items.clear()
        self.buffered_bytes = 0
        self.end()

    def __aiter__(self) -> AudioPipe:
        return self

    async def __anext__(self) -> AudioInput:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        item = self._items.popleft()
        if not isinstance(item, EndUtterance):
            self.buffered_bytes -= len(item)
            if self._room is not None and not self.full:
                self._wake_writer()
        return item

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writer(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
