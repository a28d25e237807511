"""How many of one caller are in at a time, so that nobody keeps the others out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asr.errors import ASRError, Code

RETRY_MS = 5_000


class Crowd:
    """Those who are in, counted by caller. It holds those alone who are in."""

    def __init__(self) -> None:
        self._inside: dict[str, int] = {}

    def __len__(self) -> int:
        """How many callers are in."""
        return len(self._inside)

    @contextmanager
    def joined(self, caller: str, most: int) -> Iterator[None]:
        """Be in for as long as this lasts, as one of at most `most` of this caller.

        Raises:
            ASRError: `rate_limited`, where so many are.
        """
        inside = self._inside.get(caller, 0)
        if inside >= most:
            text = f"{most} calls at a time are open to one caller here, and you have them. End one first."
            raise ASRError(Code.RATE_LIMITED, text, retry_after_ms=RETRY_MS)
        self._inside[caller] = inside + 1
        try:
            yield
        finally:
            left = self._inside[caller] - 1
            if left:
                self._inside[caller] = left
            else:
                del self._inside[caller]
