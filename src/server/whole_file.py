"""A small file that is there whole or not at all: written beside the old one, then moved over it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, content: bytes, *, mode: int = 0o600, owned: Callable[[int], None] | None = None) -> None:
    """Put this content into the file; whoever reads it meanwhile reads the old or the new one.

    Args:
        path: in a folder that exists.
        content: all of it.
        mode: the file's, from the beginning.
        owned: given the new file's descriptor before anything is in it, to say whose it is.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as handle:
            if owned is not None:
                owned(handle.fileno())
            os.fchmod(handle.fileno(), mode)
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
