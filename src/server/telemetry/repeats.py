"""Lines that say the same over and over, bounded: so many in a minute, then a count. Pure; the clock is an argument.

An outage makes every stream fail in the same way; its log must neither fill a disk nor hide what else happens.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 60.0
MOST = 30
"""Lines of one kind in a window."""
MAX_KINDS = 512
"""Kinds that are told apart at a time; what is beyond counts as one."""
OTHERS = "other lines"


@dataclass(slots=True)
class _Kind:
    until: float
    passed: int = 0
    left_out: int = 0


class Repeats:
    """Which lines may pass."""

    def __init__(self, most: int = MOST, window_s: float = WINDOW_S) -> None:
        """`most` lines of one kind in `window_s` seconds, counted from the first."""
        self._most = most
        self._window_s = window_s
        self._kinds: dict[str, _Kind] = {}
        self._next_end = float("inf")

    def admit(self, kind: str, now: float) -> bool:
        """Whether a line of that kind may be written at `now`, in seconds of any steady clock."""
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= MAX_KINDS:
                kind = OTHERS
                found = self._kinds.get(kind)
            if found is None:
                found = self._kinds[kind] = _Kind(now + self._window_s)
                self._next_end = min(self._next_end, found.until)
        if found.passed < self._most:
            found.passed += 1
            return True
        found.left_out += 1
        return False

    def over(self, now: float, *, all_of_them: bool = False) -> list[tuple[str, int]]:
        """Kinds whose window is over and of which lines were left out, with their number; each is told once.

        Args:
            now: as in `admit`; to be asked before it.
            all_of_them: also windows that still last, for the end of the process.
        """
        if now < self._next_end and not all_of_them:
            return []
        ended = [name for name, kind in list(self._kinds.items()) if all_of_them or kind.until <= now]
        told = [(name, kind.left_out) for name in ended if (kind := self._kinds.pop(name)).left_out]
        self._next_end = min((kind.until for kind in self._kinds.values()), default=float("inf"))
        return told
