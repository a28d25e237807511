"""Uploads on their way through the gateway: files in one folder, bounded together.

Blocking: call it off the event loop. A file belongs to whoever asked for it, until `remove`.
"""

from __future__ import annotations

import errno
import secrets
import threading
import time
from pathlib import Path
from typing import BinaryIO

import structlog

from asr.errors import ASRError, Code

log = structlog.get_logger("server.spool")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RETRY_MS = 30_000
COUNT_AGAIN_S = 5.0
"""Other gateways may write into the folder too: what they add and remove is known so long afterwards."""


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
        self._counted_at = 0.0
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
            used = self._count()
            if used + size > self._max_bytes:
                raise _full("The gateway holds as many uploads as it may.")
            self._used = used + size

    def give_back(self, size: int) -> None:
        """Bytes that were counted and never reached the disk."""
        with self._lock:
            if self._used is not None:
                self._used = max(0, self._used - size)

    def _count(self) -> int:
        # Files of an earlier life of this gateway count too, and those of others.
        now = time.monotonic()
        if self._used is None or now - self._counted_at >= COUNT_AGAIN_S:
            try:
                files = list(self.folder.iterdir()) if self.folder.is_dir() else []
            except OSError as error:
                raise _told(error) from error
            self._used = sum(_size(file) for file in files)
            self._counted_at = now
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


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:  # it was removed just now
        return 0


def _told(error: OSError) -> ASRError:
    log.error("uploads cannot be stored", error=str(error))
    if error.errno in _FULL:
        return _full("The gateway's disk is full.")
    return ASRError(Code.INTERNAL, "The gateway cannot store uploads; its log says why.")


def _full(what: str) -> ASRError:
    return ASRError(Code.STORAGE_FULL, f"{what} Try again later.", retry_after_ms=RETRY_MS, param="file")
