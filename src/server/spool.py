"""Uploads on their way through the gateway: files in one folder, bounded together.

Blocking: call it off the event loop. A file belongs to whoever asked for it, until `remove`.
"""

from __future__ import annotations

import errno
import secrets
import threading
from pathlib import Path
from typing import BinaryIO

from asr.errors import ASRError, Code

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RETRY_MS = 30_000


class Spool:
    """The folder of uploads.

    Args:
        folder: made when it is first needed, for this user alone.
        max_bytes: of all files together; more are refused as `storage_full`.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._used: int | None = None
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Of all files in the folder."""
        with self._lock:
            return self._count()

    def create(self) -> SpoolFile:
        """A new, empty file.

        Raises:
            ASRError: `storage_full`.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.folder / f"{secrets.token_hex(16)}.upload"
            return SpoolFile(self, path, path.open("xb"))
        except OSError as error:
            raise _told(error) from error

    def remove(self, path: Path) -> None:
        """Delete a file; one that is gone already does no harm."""
        with self._lock:
            try:
                size = path.stat().st_size
                path.unlink()
            except OSError:
                return
            if self._used is not None:
                self._used = max(0, self._used - size)

    def take(self, size: int) -> None:
        """Count `size` more bytes.

        Raises:
            ASRError: `storage_full`, and they are not counted.
        """
        with self._lock:
            if self._count() + size > self._max_bytes:
                raise _full("The gateway holds as many uploads as it may.")
            self._used = self._count() + size

    def give_back(self, size: int) -> None:
        """Bytes that were counted and never reached the disk."""
        with self._lock:
            if self._used is not None:
                self._used = max(0, self._used - size)

    def _count(self) -> int:
        # Files of an earlier life of this gateway count too.
        if self._used is None:
            files = self.folder.iterdir() if self.folder.is_dir() else ()
            self._used = sum(file.stat().st_size for file in files if file.is_file())
        return self._used


class SpoolFile:
    """A file that is being written. `close` it, or `discard` it."""

    def __init__(self, spool: Spool, path: Path, file: BinaryIO) -> None:
        self._spool = spool
        self._file = file
        self.path = path
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            ASRError: `storage_full`: the bound is reached, or the disk is full. The file is to be discarded.
        """
        self._spool.take(len(data))
        self.size_bytes += len(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise _told(error) from error

    def close(self) -> None:
        """Everything is written.

        Raises:
            ASRError: `storage_full`, as in `write`.
        """
        try:
            self._file.close()
        except OSError as error:
            raise _told(error) from error

    def discard(self) -> None:
        """Delete it."""
        try:
            self._file.close()
        except OSError:
            self._file.close()
        # What did not reach the disk was counted nevertheless.
        written = self.path.stat().st_size if self.path.exists() else 0
        self._spool.remove(self.path)
        self._spool.give_back(self.size_bytes - written)
        self.size_bytes = 0


def _told(error: OSError) -> ASRError:
    if error.errno in _FULL:
        return _full("The gateway's disk is full.")
    return ASRError(Code.INTERNAL, "The gateway cannot store uploads; its log says why.")


def _full(what: str) -> ASRError:
    return ASRError(Code.STORAGE_FULL, f"{what} Try again later.", retry_after_ms=RETRY_MS, param="file")
