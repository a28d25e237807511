"""A process that sends, as the conductor sees it: what it has said so far, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process
from typing import Any

LAST_WORDS_BYTES = 4_096

Json = dict[str, Any]


class Crew:
    """One worker.

    Attributes:
        process: it; its input and output are the conductor's.
        numbers: the sessions that it holds.
        progress, seen_s: its last word on how it goes, and when that came, on the step's clock.
        done: its last line, once all its sessions are over.
        over: how many are.
        ended_ms: when its output ended, on the step's clock.
        obituary: how it died, in a sentence, or "".
    """

    def __init__(self, process: Process, numbers: list[int]) -> None:
        """It has just been started."""
        self.process = process
        self.numbers = numbers
        self.complaint = b""
        self.progress: Json = {}
        self.seen_s = 0.0
        self.done: Json | None = None
        self.over = 0
        self.ended_ms = 0.0
        self.obituary = ""
        self.listening = asyncio.create_task(self._listen())

    def cpu_share(self) -> float:
        """Of a core, while the step ran; of one that was not done as far as is known, its start included."""
        if self.done is not None:
            return float(self.done["cpu_s"] / self.done["wall_s"])
        return float(self.progress["cpu_s"] / self.seen_s) if self.seen_s > 1 else 0.0

    async def last_words(self) -> str:
        """The last line that it wrote for people, once it is gone; "" where there is none."""
        await asyncio.wait([self.listening], timeout=1.0)
        return self.complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while text := await self.process.stderr.read(LAST_WORDS_BYTES):
            self.complaint = (self.complaint + text)[-LAST_WORDS_BYTES:]


async def gone(process: Process, patience_s: float) -> int:
    """Wait for its end, and see to it."""
    try:
        async with asyncio.timeout(patience_s):
            return await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await process.wait()
