"""What the process does to keep what it knows to itself."""

from __future__ import annotations

import contextlib
import sys


def no_core_dumps() -> None:
    """From here on a crash of this process, or of one that it starts, leaves no image of its memory behind.

    In it would be every key, and what people are saying. Without effect on Windows.
    """
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(OSError, ValueError):
            _, most = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (0, most))
