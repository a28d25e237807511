"""Where lines of the log go: stderr, which may be a full disk, or a pipe that nobody reads any more.

A write to a full pipe would wait for its reader, and every stream of the gateway with it. So a line is written only
where it will be taken at once, or soon; what is not is left out, and counted.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable
from typing import TextIO

PATIENCE_S = 0.05
"""So long, of each second, lines wait all together for a reader who is behind."""
_PIECE_CHARS = select.PIPE_BUF // 4
"""A pipe that takes anything takes so much at once: a sign has up to four bytes."""


class LogOutput:
    """Writes lines.

    Args:
        clock: steady seconds.
        on_left_out: told of each line that is not written.
        on_again: told how many that were, as soon as lines are written again.
    """

    def __init__(
        self, clock: Callable[[], float], on_left_out: Callable[[], None], on_again: Callable[[int], None]
    ) -> None:
        self._clock = clock
        self._on_left_out = on_left_out
        self._on_again = on_again
        # One that a thread may take twice: what is freed in the middle of a line may log a line itself.
        self._lock = threading.RLock()
        self._second = clock()
        self._waited_s = 0.0
        self._is_cut_off = False
        self._left_out = 0

    def write(self, file: TextIO, line: str) -> None:
        """Write a line and its end, if that is possible now. Never raises."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            text = f"\n{line}\n" if self._is_cut_off else f"{line}\n"
            for start in range(0, len(text), _PIECE_CHARS):
                if not self._takes_more(file):
                    self._is_cut_off = self._is_cut_off or start > 0
                    self._left_out += 1
                    self._on_left_out()
                    return
                file.write(text[start : start + _PIECE_CHARS])
                file.flush()
            self._is_cut_off = False
            count, self._left_out = self._left_out, 0
            if count:
                self._on_again(count)

    def _takes_more(self, file: TextIO) -> bool:
        try:
            look = select.poll()
            look.register(file.fileno(), select.POLLOUT)
        except OSError:  # no file of the system's
            return True
        if look.poll(0):
            return True
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._waited_s = now, 0.0
        if self._waited_s >= PATIENCE_S:
            return False
        takes = bool(look.poll((PATIENCE_S - self._waited_s) * 1000))
        self._waited_s += self._clock() - now if takes else PATIENCE_S
        return takes
