"""One program as a child in a process group of its own: started, listened to, ended with all that it has started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections import deque
from collections.abc import Mapping, Sequence

import structlog

from server.nim.output import Flow, Lines

log = structlog.get_logger("server.nim")

PIECE_BYTES = 16_384
LAST_LINES = 5
LAST_WORDS_S = 1.0
"""After its end: so long its pipe is still read, which a process that it has started may hold open."""


class Child:
    """A running program. What it prints becomes lines of the log, named `nim`.

    Attributes:
        pid: its process id, and that of its group.
        last_lines: what it has printed last.
    """

    def __init__(self, process: asyncio.subprocess.Process, secrets: Sequence[str]) -> None:
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = process
        self._lines = Lines(secrets)
        self._flow = Flow()
        self._listening = asyncio.create_task(self._listen(), name="nim output")

    @staticmethod
    async def start(command: Sequence[str], env: Mapping[str, str], secrets: Sequence[str] = ()) -> Child:
        """Start `command` with the environment `env`; no shell is between.

        Raises:
            OSError: it cannot be started.
        """
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(env), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
        return Child(process, secrets)

    async def wait(self) -> int:
        """Its exit status, once it has ended; below 0: the signal that ended it."""
        status = await self._process.wait()
        await asyncio.wait({self._listening}, timeout=LAST_WORDS_S)
        return status

    async def end(self, grace_s: float) -> None:
        """SIGTERM for the whole group, and after `grace_s` SIGKILL for what is left of it."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        self.signal(signal.SIGKILL)
        await self._process.wait()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; nothing where nobody is left in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(PIECE_BYTES):
            self._tell(self._lines.feed(data))
        self._tell(self._lines.end())

    def _tell(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.last_lines.append(line)
            if not self._flow.passes(time.monotonic()):
                continue
            if self._flow.left_out:
                log.warning("lines of the NIM left out", count=self._flow.left_out)
                self._flow.left_out = 0
            log.info("nim", line=line)
