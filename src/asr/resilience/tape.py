"""The audio of a stream since its last final, kept to be given to another recognizer: bounded, and counted.

One reader owns the source: the `Cursor` of the attempt that is alive. It takes what is new from the source and files
it here on the way, so that the next attempt's cursor finds it. Positions are bytes from the stream's first sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance


class ReplayMemory:
    """What all streams of an engine keep for replay, together.

    Attributes:
        max_bytes: the bound.
        used_bytes: what is kept now.
        streams: how many keep something.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.streams = 0

    def is_over(self, kept_bytes: int) -> bool:
        """Whether a stream that keeps so much must let go of some: there is too much in all, and it has its share."""
        return self.used_bytes > self.max_bytes and kept_bytes * max(self.streams, 1) > self.max_bytes


class Tape:
    """One stream's audio that no final covers yet.

    Attributes:
        end_bytes: how much audio the stream has had.
        settled_bytes: finals (or a pause) cover the audio before this.
        ended: the source has no more.
    """

    def __init__(self, max_bytes: int, memory: ReplayMemory) -> None:
        """`max_bytes` are kept at most; `memory` is shared with other streams."""
        self._max_bytes = max_bytes
        self._memory = memory
        memory.streams += 1
        self._items: deque[AudioInput] = deque()
        self._first = 0  # running number of the first item that is kept
        self._head_bytes = 0  # where it begins
        self._flushes_put = 0
        self._flushes_kept = 0
        self._flushes_answered = 0
        self.end_bytes = 0
        self.settled_bytes = 0
        self.ended = False

    @property
    def end_ms(self) -> int:
        """How much audio the stream has had."""
        return self.end_bytes // BYTES_PER_MS

    @property
    def kept_bytes(self) -> int:
        """What is kept now."""
        return self.end_bytes - self._head_bytes

    @property
    def replay_bytes(self) -> int:
        """Where a replay begins: behind the last final, or (on a whole millisecond) where the memory begins."""
        if self.settled_bytes >= self._head_bytes:
            return self.settled_bytes
        return -(-self._head_bytes // BYTES_PER_MS) * BYTES_PER_MS

    @property
    def flushes_lost(self) -> int:
        """`EndUtterance`s that are unanswered and will not be replayed."""
        return max(self._flushes_put - self._flushes_kept - self._flushes_answered, 0)

    @property
    def flushes_open(self) -> int:
        """`EndUtterance`s that are unanswered."""
        return max(self._flushes_put - self._flushes_answered, 0)

    @property
    def last(self) -> int:
        """The running number of the next item."""
        return self._first + len(self._items)

    def put(self, item: AudioInput) -> None:
        """File the next item of the source."""
        self._items.append(item)
        if isinstance(item, EndUtterance):
            self._flushes_put += 1
            self._flushes_kept += 1
            return
        size = len(item)
        self.end_bytes += size
        memory = self._memory
        memory.used_bytes += size
        if self.kept_bytes > self._max_bytes or memory.is_over(self.kept_bytes):
            self._overflow()

    def settle(self, until_bytes: int) -> None:
        """A final, a gap or a pause covers the audio before this position."""
        if until_bytes <= self.settled_bytes:
            return
        self.settled_bytes = min(until_bytes, self.end_bytes)
        self._trim()

    def answered(self) -> None:
        """The oldest open `EndUtterance` has had its answer."""
        self._flushes_answered += 1
        self._trim()

    def forget(self) -> None:
        """The stream is over."""
        self._memory.used_bytes -= self.kept_bytes
        self._memory.streams -= 1
        self._head_bytes = self.end_bytes
        self._first += len(self._items)
        self._items.clear()

    def at(self, number: int) -> AudioInput:
        """The item with this running number; it must be kept."""
        return self._items[number - self._first]

    def begin(self) -> tuple[int, int, int]:
        """Of the first item that is kept: its running number, its position, and how many flushes came before it."""
        return self._first, self._head_bytes, self._flushes_put - self._flushes_kept

    def is_answered(self, flush: int) -> bool:
        """Whether the `EndUtterance` with this running number has had its answer."""
        return flush < self._flushes_answered

    def _trim(self) -> None:
        while self._items:
            item = self._items[0]
            if isinstance(item, EndUtterance):
                if self._flushes_put - self._flushes_kept >= self._flushes_answered:
                    return
                self._flushes_kept -= 1
            elif self._head_bytes + len(item) > self.settled_bytes:
                return
            self._drop()

    def _overflow(self) -> None:
        memory = self._memory
        while len(self._items) > 1 and (self.kept_bytes > self._max_bytes or memory.is_over(self.kept_bytes)):
            if isinstance(self._items[0], EndUtterance):
                self._flushes_kept -= 1
            self._drop()

    def _drop(self) -> None:
        item = self._items.popleft()
        self._first += 1
        if not isinstance(item, EndUtterance):
            self._head_bytes += len(item)
            self._memory.used_bytes -= len(item)


class Cursor:
    """The audio of one attempt: first what is kept, then what the source brings. It must be closed before the next."""

    def __init__(self, tape: Tape, source: AsyncIterator[AudioInput]) -> None:
        """`source` must stand being left in the middle of a wait (`asr.pipe.AudioPipe` does)."""
        self._tape = tape
        self._source = source
        self._number, self._at_bytes, self._flush = tape.begin()
        self._closed = False
        self.base_bytes = tape.replay_bytes
        self.failure: Exception | None = None

    def close(self) -> None:
        """The attempt is over: whoever still reads here gets nothing more."""
        self._closed = True

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> AudioInput:
        if self._closed:
            raise StopAsyncIteration
        tape = self._tape
        while self._number < tape.last:
            item = self._replay(tape)
            if item is not None:
                return item
        if tape.ended:
            raise StopAsyncIteration
        try:
            item = await self._source.__anext__()
        except StopAsyncIteration:
            tape.ended = True
            raise
        except Exception as error:
            self.failure = error
            raise
        tape.put(item)
        self._number = tape.last
        return item

    def _replay(self, tape: Tape) -> AudioInput | None:
        begin_of_tape = tape.begin()
        if self._number < begin_of_tape[0]:
            # What was kept has been settled while it was replayed.
            self._number, self._at_bytes, self._flush = begin_of_tape
            if self._number >= tape.last:
                return None
        item = tape.at(self._number)
        self._number += 1
        if isinstance(item, EndUtterance):
            self._flush += 1
            return None if tape.is_answered(self._flush - 1) else item
        begin, self._at_bytes = self._at_bytes, self._at_bytes + len(item)
        if self._at_bytes <= self.base_bytes:
            return None
        return item[self.base_bytes - begin :] if begin < self.base_bytes else item
