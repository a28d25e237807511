"""A process that holds sessions: `python -m load.worker`, started by the conductor and by nobody else.

One line of JSON comes in, the plan; then, when this process has said that it is ready, the moment at which the step
begins. Out go lines of JSON: `progress` twice a second, `heard` and `session` with what the sessions wrote down, and at
last `done`. When its input ends the conductor is gone, and so is this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson
import uvloop

from load.pacer import Pacer, Wheel
from load.plan import Door
from load.session import House, Order, Phase, Session, clock
from load.speech import Measure, Phrasebook

PROGRESS_S = 0.5
LINE_BYTES = 64 * 1024
Json = dict[str, Any]


class Way(Protocol):
    """How sessions of one wire come about, and what of it they share."""

    @property
    def wrap(self) -> Callable[[bytes], bytes]:
        """How a piece of PCM becomes a message."""
        ...

    def session(self, order: Order, house: House) -> tuple[Session, Coroutine[Any, Any, None]]:
        """A session, and what opens it."""
        ...

    async def __aenter__(self) -> Self:
        """What sessions share is there from here on."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """And gone."""
        ...


class Worker:
    """All sessions of this process."""

    def __init__(self, plan: Json, way: Way, book: Phrasebook, tell: Callable[[bytes], None], go_s: float) -> None:
        """`plan`: as the conductor wrote it; `go_s`: 0 of the step's clock, on `clock`."""
        self._way, self._book, self._tell = way, book, tell
        self._loop = asyncio.get_running_loop()
        self._wheel = Wheel(plan["chunk_ms"] / 1000, go_s + plan["phase_ms"] / 1000)
        self._pacer = Pacer(self._wheel, self._loop, clock)
        self._house = House(go_s, plan["chunk_ms"], self._pacer.join, tell, self._over)
        self._orders: dict[int, Json] = {order["number"]: order for order in plan["sessions"]}
        self._followers = {order["after"]: order["number"] for order in plan["sessions"] if order["after"] is not None}
        self._patient: set[int] = set()
        """Those whose time has come, and whose place is not free yet."""
        self._live: dict[int, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts = {"done": 0, "refused": 0, "failed": 0, "partials": 0, "finals": 0}
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Hold all sessions; returns when the last is over."""
        for order in self._orders.values():
            self._loop.call_later(max(self._house.go_s + order["start_ms"] / 1000 - clock(), 0), self._due, order)
        try:
            while self._orders or self._live:
                self._done.clear()
                await self._look()
                self._progress()
        finally:
            for task in self._tasks:
                task.cancel()

    async def _look(self) -> None:
        """Wait for a moment, or until all is over; then end what has waited for too long."""
        try:
            async with asyncio.timeout(PROGRESS_S):
                await self._done.wait()
        except TimeoutError:
            now = clock()
            for session in list(self._live.values()):
                session.check(now)

    def _due(self, order: Json) -> None:
        before = order["after"]
        if before is not None and (before in self._orders or before in self._live):
            self._patient.add(order["number"])
        else:
            self._begin(order)

    def _begin(self, order: Json) -> None:
        number, said = order["number"], order["said"]
        del self._orders[number]
        count, messages = self._book.messages(said)
        rate = self._book.rate(said)
        cut = order["cut"]
        wanted = Order(number, rate, self._book.chunk_bytes(rate), min(cut or count, count), messages, cut is not None)
        session, opening = self._way.session(wanted, self._house)
        self._live[number] = session
        task = self._loop.create_task(opening)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._opened(session, task))

    def _opened(self, session: Session, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            session.crashed(error)

    def _over(self, session: Session) -> None:
        number = session.order.number
        kind = {"ok": "done", "refused": "refused"}.get(session.outcome, "failed")
        self._counts[kind] += 1
        self._counts["partials"] += session.partials
        self._counts["finals"] += session.finals
        self._live.pop(number, None)
        follower = self._followers.get(number)
        if follower in self._patient:
            self._patient.discard(follower)
            self._loop.call_soon(self._begin, self._orders[follower])
        elif not self._orders and not self._live:
            self._done.set()

    def _progress(self) -> None:
        live = self._live.values()
        speaking = sum(session.phase is not Phase.OPENING for session in live)
        counts = {
            **self._counts,
            "partials": self._counts["partials"] + sum(session.partials for session in live),
            "finals": self._counts["finals"] + sum(session.finals for session in live),
            "active": speaking,
            "waiting": len(self._orders) + len(live) - speaking,
        }
        self.say({"type": "progress", "late_p99_ms": self._wheel.late_p99_ms(), "cpu_s": time.process_time(), **counts})

    def say(self, line: Json) -> None:
        """A line for the conductor."""
        self._tell(orjson.dumps(line) + b"\n")


async def main(plan: Json) -> None:
    """Do what the plan says."""
    door = Door.from_json(plan["door"])
    measure = Measure(plan["chunk_ms"], plan["pause_ms"], plan["tail_ms"])
    way = _way(door, len(plan["sessions"]))
    book = Phrasebook(_clips(plan), measure, way.wrap)
    # What lives now lives to the end; what comes makes few cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    with contextlib.suppress(OSError):  # only the superuser may; a sender needs little time, but needs it at once
        os.nice(-5)
    output, orders = await _pipes()
    tell = output.write
    tell(b'{"type":"ready"}\n')
    first = await orders.readline()
    if not first:
        return
    go_s = orjson.loads(first)["go_s"]
    gone = asyncio.create_task(orders.read(1))
    async with way:
        worker = Worker(plan, way, book, tell, go_s)
        before_s = time.process_time()
        work = asyncio.create_task(worker.run())
        await asyncio.wait((gone, work), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            os._exit(3)  # nobody is there who could be told anything
        work.result()
        worker.say({"type": "done", "cpu_s": time.process_time() - before_s, "wall_s": clock() - go_s})
    # The pipe is emptied, or the conductor ends this process.
    output.close()
    await gone


def _way(door: Door, sessions: int) -> Way:
    # Each wire's library is half a second and tens of megabytes: only the one that is used is loaded.
    if door.wire == "websocket":
        from load.websocket_client import WebSocketWay

        return WebSocketWay(door)
    from load.grpc_client import GrpcWay

    return GrpcWay(door, sessions)


def _clips(plan: Json) -> list[tuple[int, bytes]]:
    with Path(plan["pcm"]).open("rb") as file:
        return [(clip["rate_hz"], file.read(clip["bytes"])) for clip in plan["clips"]]


async def _pipes() -> tuple[asyncio.WriteTransport, asyncio.StreamReader]:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), os.fdopen(os.dup(0), "rb", 0))
    output, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(os.dup(1), "wb", 0))
    return output, orders


if __name__ == "__main__":
    uvloop.run(main(orjson.loads(sys.stdin.buffer.readline())))
