"""The audio that may have to be sent again: a window on all bytes that the caller has given."""

from __future__ import annotations

from asr.engine import BYTES_PER_MS


class Ring:
    """Bytes `low` to `high`, counted from the first one ever added."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self.low = 0

    @property
    def high(self) -> int:
        """How many bytes were ever added."""
        return self.low + len(self._kept)

    def add(self, data: bytes | memoryview) -> None:
        """Append audio."""
        self._kept += data

    def take(self, at: int, n_bytes: int) -> bytes:
        """At most `n_bytes` from `at` on, which must not lie below `low`."""
        assert at >= self.low, "what was freed is not asked for"
        return bytes(memoryview(self._kept)[at - self.low : at - self.low + n_bytes])

    def free(self, until: int) -> None:
        """Forget what lies below `until`, cut down to a whole millisecond."""
        until = min(until, self.high)
        n_bytes = until - until % BYTES_PER_MS - self.low
        if n_bytes > 0:
            del self._kept[:n_bytes]
            self.low += n_bytes
