"""Looks at the gateway while it is loaded: its own `/readyz`, and processes of this machine by their numbers.

A look that fails is counted and never ends a run: a gateway that is too busy to answer `/readyz` is a finding.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import psutil

from load.summary import Sample

GATEWAY = "gateway"
"""Source of the looks by `/readyz`."""
_LOOK_TIMEOUT_S = 2.0
_SETTLED_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Facts:
    """What a gateway says of itself.

    Attributes:
        engine: its recognizer's name.
        endpoints: recognizers behind it that can be used now, or None where it names none.
        limit: streams that it admits at a time, or None.
        gauges: whether it tells of its process (memory, open files, tasks).
    """

    engine: str
    endpoints: int | None
    limit: int | None
    gauges: bool


class Watch:
    """Keeps the looks at all sources. To be used in one loop."""

    def __init__(
        self, readyz: str | None, context: ssl.SSLContext | None, pids: Sequence[int] = (), *, token: str = ""
    ) -> None:
        """Nothing is looked at yet.

        Args:
            readyz: base URL of a gateway, or None where there is none to be asked.
            context: for TLS.
            pids: processes of this machine, their children included.
            token: a credential; a gateway that asks for one tells of its process only to the scope `metrics`.
        """
        self.samples: list[Sample] = []
        self.unanswered = 0
        """Looks at `/readyz` without an answer in time."""
        self.sessions = 0
        """The step that runs, or 0; samples carry it."""
        self._url = None if readyz is None else f"{readyz}/readyz"
        self._client = httpx2.AsyncClient(
            verify=True if context is None else context,
            timeout=_LOOK_TIMEOUT_S,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            trust_env=False,
            follow_redirects=False,
        )
        self._processes = [psutil.Process(pid) for pid in pids]
        self._began = time.monotonic()
        self._cpu: dict[str, tuple[float, float]] = {}

    async def facts(self) -> Facts | None:
        """What the gateway says of itself; None where nobody answers as one."""
        told = await self._ask()
        if told is None:
            return None
        endpoints, streams = told.get("endpoints"), told.get("streams")
        return Facts(
            engine=str(told.get("engine") or ""),
            endpoints=_serving(endpoints) if isinstance(endpoints, list) else None,
            limit=_whole(streams.get("limit")) if isinstance(streams, dict) else None,
            gauges=isinstance(told.get("process"), dict),
        )

    async def look(self) -> None:
        """One look at every source."""
        if self._url is not None:
            told = await self._ask()
            if told is None:
                self.unanswered += 1
            else:
                self._keep_gateway(told)
        for process in self._processes:
            sample = await asyncio.to_thread(self._of_process, process)
            if sample is not None:
                self.samples.append(sample)

    @asynccontextmanager
    async def looking(self, every_s: float) -> AsyncIterator[None]:
        """Look in this rhythm while the block runs."""
        task = asyncio.create_task(self._forever(every_s))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def settled(self, timeout_s: float) -> bool:
        """Wait until the gateway has no streams any more; True at once where it does not tell."""
        deadline = time.monotonic() + timeout_s
        while self._url is not None:
            told = await self._ask()
            streams = told.get("streams") if told is not None else None
            if not isinstance(streams, dict) or not streams.get("in_use"):
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_SETTLED_POLL_S)
        return True

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _forever(self, every_s: float) -> None:
        while True:
            began = time.monotonic()
            await self.look()
            await asyncio.sleep(max(every_s - (time.monotonic() - began), every_s / 10))

    async def _ask(self) -> dict[str, Any] | None:
        if self._url is None:
            return None
        try:
            told = (await self._client.get(self._url)).json()
        except (httpx2.HTTPError, ValueError):
            return None
        return told if isinstance(told, dict) else None

    def _keep_gateway(self, told: dict[str, Any]) -> None:
        process, streams = told.get("process"), told.get("streams")
        if not isinstance(process, dict):
            process = {}
        cpu = process.get("cpu_s")
        self.samples.append(
            Sample(
                self._at_ms(),
                GATEWAY,
                self.sessions,
                cpu_share=self._share(GATEWAY, float(cpu)) if isinstance(cpu, int | float) else None,
                memory_bytes=_whole(process.get("memory_bytes")),
                open_files=_whole(process.get("open_files")),
                threads=_whole(process.get("threads")),
                tasks=_whole(process.get("tasks")),
                streams=_whole(streams.get("in_use")) if isinstance(streams, dict) else None,
            )
        )

    def _of_process(self, process: psutil.Process) -> Sample | None:
        cpu, memory, files, threads = 0.0, 0, 0, 0
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.Error:
            return None
        seen = False
        for one in family:
            with contextlib.suppress(psutil.Error), one.oneshot():
                times = one.cpu_times()
                cpu += times.user + times.system
                memory += one.memory_info().rss
                files += one.num_fds()
                threads += one.num_threads()
                seen = True
        if not seen:
            return None
        source = f"pid {process.pid}"
        return Sample(self._at_ms(), source, self.sessions, self._share(source, cpu), memory, files, threads)

    def _share(self, source: str, cpu_s: float) -> float | None:
        now = time.monotonic()
        before = self._cpu.get(source)
        self._cpu[source] = (now, cpu_s)
        if before is None or now - before[0] < 0.05:
            return None
        return max(cpu_s - before[1], 0.0) / (now - before[0])

    def _at_ms(self) -> float:
        return (time.monotonic() - self._began) * 1000


def _serving(endpoints: list[Any]) -> int | None:
    """Recognizers without those that are out of use: they carry nothing of what is measured."""
    return sum(not (isinstance(one, dict) and one.get("breaker") == "open") for one in endpoints) or None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
