"""A file or pipe that can be peeked into, as the decoders and libav read it."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import BinaryIO


class Reader:
    """A file whose first bytes can be looked at, also where it cannot be wound back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._head = b""
        self._start: int | None = None
        with suppress(OSError, AttributeError, ValueError):
            if file.seekable():
                self._start = file.tell()
        if self._start is not None:
            self.seek = self._seek
            self.tell = self._tell

    def peek(self, count: int) -> bytes:
        """Up to `count` bytes, which `read` gives again."""
        while len(self._head) < count and (block := self._some(count)):
            self._head += block
        return self._head

    def read(self, count: int) -> bytes:
        """The next bytes; empty at the end."""
        if self._head:
            block, self._head = self._head[:count], self._head[count:]
            return block
        return self._some(count)

    def _some(self, count: int) -> bytes:
        # What is there, rather than waiting for the whole count: a pipe may carry live audio.
        read1 = getattr(self._file, "read1", None)
        data: bytes = read1(count) if read1 is not None else self._file.read(count)
        return data

    def seekable(self) -> bool:
        """Whether it can be wound back."""
        return self._start is not None

    def size(self) -> int | None:
        """How many bytes there are from the start, or None for a pipe."""
        if self._start is None:
            return None
        here = self._file.tell()
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(here)
        return end - self._start

    def _tell(self) -> int:
        return self._file.tell() - (self._start or 0) - len(self._head)

    def _seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = self._start or 0
        if whence == io.SEEK_CUR:
            offset += self._tell()
        elif whence == io.SEEK_END:
            offset += self._file.seek(0, io.SEEK_END) - start
        self._head = b""
        return self._file.seek(start + max(0, offset)) - start
