"""Small files that hold something secret, or something that must not be half written.

Written beside the old one and moved over it, for the owner's eyes only; who changes one holds its lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.whole_file import write_whole

Signature = tuple[int, int, int]


def signature(path: Path) -> Signature | None:
    """What differs once a file was changed or replaced: its time, size and inode; None where there is no such file.

    Raises:
        OSError: it cannot be told.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The file's bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `max_bytes`.
    """
    with path.open("rb") as handle:
        content = handle.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is longer than {max_bytes} bytes")
    return content


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file, which need not exist; its folder is made where it is missing.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _hand_over(lock, path.parent)
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for milliseconds; freed by the kernel if its holder dies
        yield
    finally:
        os.close(lock)


def write_private(path: Path, content: bytes) -> None:
    """Put this content into the file, whole or not at all; nobody but its owner may read it.

    Written by root, it goes to whoever had it before, or has its folder: the gateway has to read it.

    Raises:
        OSError: it cannot be written.
    """
    like = path if path.exists() else path.parent
    write_whole(path, content, owned=lambda descriptor: _hand_over(descriptor, like))


def _hand_over(descriptor: int, like: Path) -> None:
    owner = like.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
