"""Tests in several processes at a time (`pytest -n 2`), and those that measure by themselves.

Most of the suite waits: for a recognizer's pace, a bound, a browser. pytest-xdist lets another file's tests run
meanwhile. A test marked `alone` is given the machine: it waits until the others' tests are over, and none begins
before it has ended. Where a file's tests look at what one fixture has played, only the first of them is
(`first=True`). Its own process's other tests, and what they share, are as ever; so is a run in one process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WHOLE_FOLDERS = ("tests/contract/", "tests/image/")
"""The first says as a whole which clients were seen (docs/conformance.md), the second builds what all look at."""


class Room:
    """One that many enter together or one alone, from any number of processes; who asks first is let in first.

    Its locks are the system's: those of a process that dies are gone.

    Args:
        folder: in which every process of the run finds the two lock files.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._door, self._inside = ((folder / name).open("w") for name in ("door", "inside"))

    @contextmanager
    def entered(self, *, alone: bool) -> Iterator[None]:
        """Wait for one's turn. Who waits for the room to be empty stands in the door, so that it does get empty."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._inside, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._inside, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave the files to others."""
        self._door.close()
        self._inside.close()


def together(nodeid: str) -> str:
    """What names the tests that one process runs: their file, since they share its fixtures, or their folder."""
    path = nodeid.partition("::")[0]
    return next((folder for folder in WHOLE_FOLDERS if path.startswith(folder)), path)


def room_of_this_run(folder: Path) -> Room | None:
    """Where this is one of several processes of a run: the room that they share."""
    return Room(folder) if "PYTEST_XDIST_WORKER" in os.environ else None
