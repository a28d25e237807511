"""What this process uses of its machine: the `process` object of `/readyz`, which leaks and load are watched by."""

from __future__ import annotations

import asyncio
import contextlib

import psutil


class ProcessGauges:
    """Looks at its own process. A look takes about a millisecond with a thousand streams: it counts files and tasks."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def look(self) -> dict[str, int | float]:
        """How it stands now. To be called in the loop whose tasks are counted.

        Returns:
            `memory_bytes` (resident), `cpu_s` (of all cores, since the start), `threads`, `tasks` (of asyncio), and
            `open_files` (sockets count too) where the platform tells.
        """
        process = self._process
        with process.oneshot():
            times = process.cpu_times()
            told: dict[str, int | float] = {
                "memory_bytes": process.memory_info().rss,
                "cpu_s": round(times.user + times.system, 3),
                "threads": process.num_threads(),
                "tasks": len(asyncio.all_tasks()),
            }
        with contextlib.suppress(psutil.Error, OSError, AttributeError):  # Windows has handles instead
            told["open_files"] = process.num_fds()
        return told
