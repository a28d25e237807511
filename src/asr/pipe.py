"""Audio on its way to an engine: bounded, and read by one reader at a time.

An `AudioPipe` may be left by its reader in the middle of a wait, and read on by another: nothing is lost. That is
what a stream needs that is carried from one recognizer to the next (`asr.resilience`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable

from asr.engine import AudioInput, EndUtterance
from asr.errors import ASRError, Code


class Ahead:
    """How much audio of one conversation waits for its engine, over all takes.

    The reader of the socket asks for room *before* it takes its next message, so what a client sends ahead of
    the engine stays in its own socket buffer.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def widen(self, max_bytes: int) -> None:
        """The bound is at least this."""
        self._max_bytes = max(self._max_bytes, max_bytes)

    @property
    def full(self) -> bool:
        """Whether the reader should wait."""
        return self._bytes >= self._max_bytes

    async def room(self) -> None:
        """Wait until an engine has taken enough."""
        while self.full:
            if self._waiter is None:
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)

    def add(self, n_bytes: int) -> None:
        """Audio was put in, or (negative) taken out."""
        self._bytes += n_bytes
        if self._waiter is not None and not self.full:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(None)


class AudioPipe:
    """The audio of one take: an async iterator that the reader of a socket fills.

    Args:
        ahead: counts what waits in it.
        on_taken: called each time a piece of audio is taken out, in the order in which they were put in.
    """

    def __init__(self, ahead: Ahead, on_taken: Callable[[], None] | None = None) -> None:
        self._ahead = ahead
        self._on_take = on_taken
        self._items: deque[AudioInput] = deque()
        self._ended = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, item: AudioInput) -> None:
        """Add audio. After `end` or `abandon` it is dropped."""
        if self._ended:
            return
        self._items.append(item)
        if not isinstance(item, EndUtterance):
            self._ahead.add(len(item))
        self._wake_reader()

    def end(self) -> None:
        """No more audio follows: the engine ends when it has taken what is there."""
        self._ended = True
        self._wake_reader()

    def fail(self, error: Exception) -> None:
        """The audio broke: the reader gets `error` after what is there."""
        self._failure = error
        self.end()

    def abandon(self) -> None:
        """Nobody reads any more: forget what is there."""
        self._ahead.add(-sum(len(item) for item in self._items if not isinstance(item, EndUtterance)))
        self._items.clear()
        self.end()

    def __aiter__(self) -> AudioPipe:
        return self

    async def __anext__(self) -> AudioInput:
        while not self._items:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        item = self._items.popleft()
        if not isinstance(item, EndUtterance):
            self._ahead.add(-len(item))
            if self._on_take is not None:
                self._on_take()
        return item

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


async def pour(audio: AsyncIterable[AudioInput], pipe: AudioPipe, ahead: Ahead) -> None:
    """Read `audio` into a pipe, one item ahead of the pipe's reader, to its end.

    For audio whose own reader must not be interrupted: a generator that is cancelled in the middle of a wait is over.
    """
    try:
        async for item in audio:
            pipe.put(item)
            if ahead.full:
                await ahead.room()
        pipe.end()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Not this task was cancelled, but something that the caller's audio waited for.
        pipe.fail(ASRError(Code.INTERNAL, "The audio was cancelled in mid-stream."))
    except Exception as error:
        pipe.fail(error)
