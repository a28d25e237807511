"""The files of the records: one thread writes what a bounded queue holds, so that no stream waits for a disk.

Several gateways may share a folder: lines are only ever added, at the end and whole. A line that a full disk or a kill
cut off is ended before the next one, and whoever reads passes over it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import date
from pathlib import Path

import structlog

from asr.errors import Code
from server.telemetry.record import StreamRecord, StreamStart
from server.telemetry.records import day_of, day_of_file, file_name, is_old, line_of, row_of, row_of_refusals

log = structlog.get_logger("server.telemetry")

MAX_WAITING = 10_000
"""Records that the disk has not taken; with more the newest are dropped and counted."""
MAX_BATCH = 256
LOOK_EVERY_S = 1.0
SAY_EVERY_S = 60.0
CLOSE_TIMEOUT_S = 2.0


class RecordSink:
    """See `server.telemetry.hub.Sink`; `start` it, and `close` it in the end.

    Attributes:
        dropped: records that were not written, so far.
    """

    def __init__(
        self,
        folder: Path,
        keep_days: int,
        *,
        on_dropped: Callable[[int], None] = lambda records: None,
        unix_time: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is opened yet.

        Args:
            folder: made when the first record is written.
            keep_days: days before today that are kept.
            on_dropped: told of records that are lost, in any thread.
            unix_time: Unix seconds; a new day begins a new file.
            clock: steady seconds.
        """
        self._folder = folder
        self._keep_days = keep_days
        self._on_dropped = on_dropped
        self._unix_time = unix_time
        self._clock = clock
        self._waiting: deque[StreamRecord] = deque()
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._file = _DayFile(folder)
        self._tidied: date | None = None
        self._say_at = 0.0
        self._overflowing = False
        self.dropped = 0

    # What streams tell ----------------------------------------------------------------------------

    def opened(self, start: StreamStart) -> None:
        """Its record is written when it is over."""

    def happened(self, start: StreamStart, what: str, at_s: float, **about: str | int | float) -> None:
        """The record has it."""

    def closed(self, record: StreamRecord) -> None:
        """A stream is over."""
        if len(self._waiting) >= MAX_WAITING or self._ending:
            self._drop(1)
            return
        self._waiting.append(record)
        if len(self._waiting) >= MAX_BATCH:
            self._wake.set()

    def refused(self, face: str, code: Code) -> None:
        """Somebody was not let in."""
        with self._lock:
            self._refusals[face, code.value] += 1

    # The thread -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, for `CLOSE_TIMEOUT_S` at most; blocks so long, so not on the event loop."""
        self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_TIMEOUT_S)
        left = len(self._waiting)
        if left:
            self._drop(left)

    def _run(self) -> None:
        lines: list[bytes] = []
        while True:
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
            ending = self._ending
            self._tidy(day_of(self._unix_time()))
            lines += self._refusal_lines()
            while lines or self._waiting:
                lines += self._take(MAX_BATCH - len(lines))
                lines = self._write(lines)
                if lines:
                    break  # the disk takes no more: the next look tries again
            else:
                self._overflowing = False
            if ending:
                if lines:
                    self._drop(len(lines))
                self._file.close()
                return

    def _refusal_lines(self) -> list[bytes]:
        with self._lock:
            counted, self._refusals = self._refusals, Counter()
        now = self._unix_time()
        return [line_of(row_of_refusals(face, code, count, now)) for (face, code), count in counted.items()]

    def _take(self, most: int) -> list[bytes]:
        taken: list[bytes] = []
        while self._waiting and len(taken) < most:
            taken.append(line_of(row_of(self._waiting.popleft())))
        return taken

    def _write(self, lines: list[bytes]) -> list[bytes]:
        """Those that could not be written."""
        if not lines:
            return lines
        try:
            written = self._file.append(day_of(self._unix_time()), lines)
        except OSError as error:
            self._file.close()  # on a network's disk a file may be gone for good, and another one there
            self._trouble(error)
            # Refusals come on top of what the queue bounds.
            if len(lines) > 2 * MAX_BATCH:
                self._drop(len(lines) - MAX_BATCH)
                return lines[:MAX_BATCH]
            return lines
        return lines[written:]

    def _tidy(self, today: date) -> None:
        if self._tidied == today:
            return
        self._tidied = today
        with contextlib.suppress(OSError):  # no folder yet; another gateway was faster; the next day tries again
            for path in self._folder.iterdir():
                day = day_of_file(path.name)
                if day is not None and is_old(day, today, self._keep_days):
                    path.unlink(missing_ok=True)

    def _trouble(self, error: OSError) -> None:
        now = self._clock()
        if now >= self._say_at:
            self._say_at = now + SAY_EVERY_S
            log.error(
                "records cannot be written; streams go on",
                folder=str(self._folder),
                reason=error.strerror or type(error).__name__,
                waiting=len(self._waiting),
                dropped=self.dropped,
                advice="RECORDS_DIR names another folder; RECORDS=off writes none",
            )

    def _drop(self, count: int) -> None:
        with self._lock:
            self.dropped += count
            first, self._overflowing = not self._overflowing, True
        self._on_dropped(count)
        if first:
            log.warning("records dropped: the disk is slower than the streams, or takes none", at_once=MAX_WAITING)


class _DayFile:
    """The file of a day, open for adding lines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._day: date | None = None
        self._handle = -1

    def append(self, day: date, lines: list[bytes]) -> int:
        """Add lines to the file of that day; how many of them are in it as a whole.

        Raises:
            OSError: none of them is.
        """
        if day != self._day or not self._is_there():
            self._open(day)
        size = os.fstat(self._handle).st_size
        # What a full disk or a kill cut off ends here.
        whole = True
        if size:
            os.lseek(self._handle, size - 1, os.SEEK_SET)
            whole = os.read(self._handle, 1) == b"\n"
        before = b"" if whole else b"\n"
        # One call for all: the system adds it at the end in one piece, whoever else does the same.
        written = os.write(self._handle, before + b"".join(lines)) - len(before)
        count = 0
        for line in lines:
            written -= len(line)
            if written < 0:
                break
            count += 1
        return count

    def _is_there(self) -> bool:
        """Whether the file has not been taken away."""
        return self._handle >= 0 and os.fstat(self._handle).st_nlink > 0

    def _open(self, day: date) -> None:
        self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._handle = os.open(self._folder / file_name(day), flags, 0o600)
        self._day = day

    def close(self) -> None:
        """Let go of it."""
        handle, self._handle, self._day = self._handle, -1, None
        if handle >= 0:
            with contextlib.suppress(OSError):
                os.close(handle)
