"""One audio clock where the server has heard more than the caller said.

A call that is left without audio is kept alive with digital silence. The server counts it, the caller must not
notice: every time that comes back is put on the caller's clock here.
"""

from __future__ import annotations

from bisect import bisect_right

from asr.engine import BYTES_PER_MS

MAX_INSERTIONS = 512
"""Places that are remembered. Of more, the oldest is forgotten: a server does not go back that far."""


class UpstreamClock:
    """The server's times → the caller's.

    Places are kept in bytes of the caller's audio, whole samples, since chunks may end between two milliseconds;
    what is inserted is a whole number of milliseconds, so that all other times stay exact.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._places: list[int] = []
        self._totals: list[int] = []
        self._forgotten = 0

    def inserted(self, at_bytes: int, for_ms: int) -> None:
        """The server is sent `for_ms` of silence after `at_bytes` of the caller's audio; places never go back."""
        size = for_ms * BYTES_PER_MS
        before = self._totals[-1] if self._totals else self._forgotten
        if self._places and self._places[-1] == at_bytes:
            self._totals[-1] = before + size
            return
        self._starts.append(at_bytes + before)
        self._places.append(at_bytes)
        self._totals.append(before + size)
        if len(self._starts) > MAX_INSERTIONS:
            self._forgotten = self._totals[0]
            del self._starts[0], self._places[0], self._totals[0]

    @property
    def has_insertions(self) -> bool:
        """Whether the two differ anywhere."""
        return bool(self._starts)

    def to_caller(self, ms: int) -> int:
        """Where a time of the server's lies in the caller's audio; inside the silence, at its beginning."""
        if not self._starts:
            return ms
        position = ms * BYTES_PER_MS
        last = bisect_right(self._starts, position) - 1
        if last < 0:
            return max(position - self._forgotten, 0) // BYTES_PER_MS
        return max(position - self._totals[last], self._places[last]) // BYTES_PER_MS
