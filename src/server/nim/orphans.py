"""The first process of a container is given the children of those that end, and must take their exit statuses.

Only what is not of our own session is taken: the processes that we start ourselves are waited for by who started them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import psutil

LOOK_S = 2.0
FIRST_PID = 1


async def reap_orphans(but: int, *, every_s: float = LOOK_S) -> None:
    """Take what has ended, until cancelled. Does nothing where this is not the first process.

    Args:
        but: a child of another session that somebody else waits for.
        every_s: between two looks.
    """
    if os.getpid() != FIRST_PID:
        return
    while True:
        await asyncio.sleep(every_s)
        take_ended(but)


def take_ended(but: int) -> list[int]:
    """Take the statuses of orphans that have ended; their process ids."""
    taken: list[int] = []
    own_session = os.getsid(0)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            if child.pid == but or child.status() != psutil.STATUS_ZOMBIE or os.getsid(child.pid) == own_session:
                continue
            if os.waitpid(child.pid, os.WNOHANG)[0]:
                taken.append(child.pid)
    return taken
