"""The NIM beside the gateway, in the same container: started when the port is open, ended after the last stream.

The gateway is nothing without it: where the NIM ends, or is not ready in time, the gateway ends too, with a status
that is not zero, so that whoever runs the container starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from asr.engine import Readiness
from server.nim.child import Child
from server.nim.orphans import reap_orphans

log = structlog.get_logger("server.nim")

LOOK_S = 0.5
STOP_S = 2.0
"""What a NIM gets to end by itself, once nobody needs it."""
LATE_S = 1.0
"""How much longer than it may a drain takes before the NIM is ended all the same."""


@dataclass(frozen=True, slots=True)
class NimPlan:
    """How a NIM is started.

    Attributes:
        command: program and arguments. No secret belongs into it: every user of the machine can read it.
        env: its whole environment.
        secrets: what must not be shown, should the NIM print it.
        start_timeout_ms: from its start until it is ready.
        drain_ms: how long the gateway's streams may take to end.
    """

    command: str
    env: Mapping[str, str] = field(repr=False)
    secrets: Sequence[str] = field(repr=False)
    start_timeout_ms: int
    drain_ms: int


class NimBeside:
    """Starts a NIM, and sets `stop` when the gateway cannot go on for its sake.

    Args:
        plan: how it is started.
        ready: whether the NIM can be used.
        stop: set by whoever wants the gateway to end.

    Attributes:
        ready: the same question, for probes.
        failure: why the gateway had to end, in one line; "" where it was asked to.
        was_never_started: `failure` is about a command that cannot be run at all.
    """

    def __init__(self, plan: NimPlan, ready: Callable[[], Awaitable[Readiness]], stop: asyncio.Event) -> None:
        self._plan = plan
        self.ready = ready
        self._stop = stop
        self._starting: asyncio.Task[Child] | None = None
        self._child: Child | None = None
        self._living: asyncio.Task[None] | None = None
        self.failure = ""
        self.was_never_started = False

    def start(self) -> None:
        """Start it now, in the background."""
        self._living = asyncio.create_task(self._live(), name="nim")

    def leave_at_second_signal(self) -> None:
        """Once stopping: SIGTERM or SIGINT ends this process and the NIM at once, without any more goodbyes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave, number)

    async def aclose(self) -> None:
        """End the NIM, as far as it runs. Within `STOP_S` and a moment."""
        if self._living is None:
            return
        self._living.cancel()
        await asyncio.gather(self._living, return_exceptions=True)
        if self._starting is not None:  # it may have been on its way
            await asyncio.gather(self._starting, return_exceptions=True)
            if self._starting.exception() is None:
                await self._starting.result().end(STOP_S)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)

    async def _live(self) -> None:
        plan = self._plan
        self._starting = asyncio.create_task(Child.start(shlex.split(plan.command), plan.env, plan.secrets))
        try:
            child = self._child = await asyncio.shield(self._starting)
        except OSError as error:
            self.was_never_started = True
            self._fail(f"NIM_COMMAND cannot be run: {error.strerror}. Correct it: {self._plan.command!r}.")
            return
        log.info("NIM started", pid=child.pid, timeout_ms=plan.start_timeout_ms)
        ended = asyncio.create_task(child.wait(), name="nim end")
        others = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("nim start", self._await_ready()),
                ("orphans", reap_orphans(child.pid)),
                ("nim limit", self._end_in_time(child)),
            )
        ]
        try:
            status = await ended
            self._fail(f"The NIM has ended ({_how(status)}), and the gateway with it.", last=list(child.last_lines))
        finally:
            for task in (ended, *others):
                task.cancel()
            await asyncio.gather(ended, *others, return_exceptions=True)

    async def _await_ready(self) -> None:
        state = Readiness(False)
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            async with asyncio.timeout(self._plan.start_timeout_ms / 1000):
                while True:
                    state = await self.ready()
                    if state.ready:
                        break
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            last = list(self._child.last_lines) if self._child is not None else []
            limit_s = self._plan.start_timeout_ms / 1000
            self._fail(f"The NIM was not ready within {limit_s:g} s (NIM_START_TIMEOUT_MS): {state.detail}", last=last)
            return
        log.info("NIM ready", after_ms=round((loop.time() - started_s) * 1000))

    async def _end_in_time(self, child: Child) -> None:
        """Whoever stops a container waits 30 s, whatever still holds the gateway up."""
        await self._stop.wait()
        await asyncio.sleep(self._plan.drain_ms / 1000 + LATE_S)
        log.warning("the gateway is late; the NIM is ended before it")
        await child.end(STOP_S)

    def _fail(self, text: str, **more: object) -> None:
        if self._stop.is_set():  # it ends because everything does
            return
        self.failure = text
        log.error("the gateway ends", reason=text, **more)
        self._stop.set()

    def _leave(self, number: signal.Signals) -> None:
        starting = self._starting
        if starting is not None and not starting.done():  # what is on its way must not be left behind
            starting.add_done_callback(lambda _: self._leave(number))
            return
        if starting is not None and not starting.cancelled() and starting.exception() is None:
            starting.result().signal(signal.SIGKILL)
        os._exit(128 + number)


def _how(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
