"""What a row of clients or processes is played on: a stand-in recognizer, a gateway, and clients who behave.

Those who behave are there to be harmed: each row plays its fault beside them, and they have to come out whole.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from chaos.behaviour import Behaviour
from chaos.clients import Record, Script, native
from chaos.gateway_process import Footprint, GatewayProcess
from chaos.numbered import FRAME_BYTES, FRAME_MS, FRAMES_PER_CLIENT, Verdict
from chaos.play import Outcome, seed
from chaos.standin import StandIn
from timing import TRIES, judge

MB = 1024 * 1024
LIMIT_S = 110.0
PARALLEL = 6
SPARE_S = 20.0
STRANGER = 500
"""Clients from this number on are not among those who behave."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One fault.

    Attributes:
        number: of the catalogue; letters tell variants apart.
        fault: what fails.
        injected: how.
        play: makes it fail, and looks.
        streams: clients that it is made with.
        settings: of the gateway; `why` tells why they differ from the defaults.
        behaviour: of the recognizer.
        alone: it measures time, and nothing else may run beside it.
        answer_ms: the longest that anything it waits for may take.
    """

    number: str
    fault: str
    injected: str
    play: Callable[[Scene], Awaitable[None]]
    streams: int = 20
    settings: dict[str, str] = field(default_factory=dict)
    why: str = ""
    behaviour: Behaviour = field(default_factory=Behaviour)
    alone: bool = False
    answer_ms: int = 15_000


class Scene:
    """Built for one row.

    Attributes:
        upstream, gateway: the processes.
        before: what the gateway held before its clients came.
        outcome: the line of the row.
        random: seeded.
    """

    def __init__(self, row: Row, seed: int) -> None:
        self.row = row
        self.outcome = Outcome(row.number, row.fault, row.injected, "gateway", seed, row.streams, row.answer_ms)
        self.random = random.Random(seed)
        self.stack = AsyncExitStack()
        self.upstream = StandIn(row.behaviour)
        self.gateway: GatewayProcess
        self.before: Footprint
        self.peak_rss = 0
        self._watching: asyncio.Task[None] | None = None

    async def build(self) -> None:
        """Start everything."""
        await self.stack.enter_async_context(self.upstream)
        self.gateway = await self.another_gateway()
        warm = await native(self.gateway.port, Script(999, 5, pace=10), patience_s=SPARE_S)
        if not warm.whole:
            raise RuntimeError(f"the gateway does not serve: {warm.messages[-1:]}")
        self.before = self.gateway.footprint()
        self._watching = asyncio.create_task(self._watch())

    async def another_gateway(self, **more: str) -> GatewayProcess:
        """One more process with the settings of the row."""
        return await self.stack.enter_async_context(
            GatewayProcess(self.upstream.endpoint, **{**self.row.settings, **more})
        )

    async def aclose(self) -> None:
        """End everything."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.stack.aclose()

    async def _watch(self) -> None:
        while self.gateway.returncode is None:
            self.peak_rss = max(self.peak_rss, self.gateway.footprint().rss_bytes)
            await asyncio.sleep(0.2)

    # --- what rows say

    def fail(self, text: str) -> None:
        """Something is not as promised."""
        if len(self.outcome.failures) < 12:
            self.outcome.failures.append(text[:3_000])

    def check(self, good: bool, text: str) -> None:
        """`text` is a failure, unless `good`."""
        if not good:
            self.fail(text)

    def in_time(self, good: bool, text: str) -> None:
        """`text` says how late something was, unless `good`: the machine's fault perhaps, and played again."""
        if not good:
            self.outcome.late.append(text)

    def note(self, text: str) -> None:
        """Worth to be seen in the table's notes."""
        self.outcome.notes.append(text)

    def answered(self, seconds: float) -> None:
        """Somebody waited so long for what the row promises."""
        self.outcome.answer_ms = max(self.outcome.answer_ms, int(seconds * 1000))
        self.outcome.wait_ms = max(self.outcome.wait_ms, int(seconds * 1000))

    def memory_below(self, megabytes: float, hostile: int = 1) -> None:
        """The gateway grew by less than so much for each hostile client."""
        grown = (self.peak_rss - self.before.rss_bytes) / MB / hostile
        self.note(f"memory +{grown:.1f} MB for each of {hostile}")
        self.check(grown <= megabytes, f"memory grew by {grown:.1f} MB for each of {hostile} hostile clients")

    # --- clients who behave

    def crowd(self, count: int, frames: int, **script: Any) -> list[asyncio.Task[Record]]:
        """That many begin now, at the pace of speech, one frame to the message, spread over a fifth of a second."""
        chunk = {"min_chunk": FRAME_BYTES, "max_chunk": FRAME_BYTES}
        scripts = [Script(n, frames, seed=self.outcome.seed, **{**chunk, **script}) for n in range(count)]
        for one in scripts:
            one.audio()

        async def begin(one: Script, after_s: float) -> Record:
            await asyncio.sleep(after_s)
            return await native(self.gateway.port, one, patience_s=frames * FRAME_MS / 1000 / one.pace + SPARE_S)

        return [asyncio.create_task(begin(one, n * 0.2 / count)) for n, one in enumerate(scripts)]

    async def come_out_whole(self, crowd: list[asyncio.Task[Record]]) -> list[Record]:
        """Wait for those who behave: nothing may have happened to them."""
        records = list(await asyncio.gather(*crowd))
        for record in records:
            self.count(record)
            if not record.whole:
                self.fail(f"client {record.script.client} is not whole: {record.close_code} {record.messages[-1:]}")
        return records

    def count(self, record: Record, verdict: Verdict | None = None) -> Verdict:
        """Put what became of a client's words into the line."""
        verdict = verdict or record.verdict()
        line = self.outcome
        for name in ("lost", "repeated", "reordered", "gapped", "misplaced", "uncovered_ms", "overlapping_ms"):
            setattr(line, name, getattr(line, name) + getattr(verdict, name))
        line.hung += record.hung
        line.whole += record.whole
        line.refused += bool(record.http_status)
        line.broken += not (record.whole or record.hung or record.http_status)
        if not verdict.faultless:
            self.fail(f"client {record.script.client}: {verdict}")
        return verdict

    def lags_ms(self, records: list[Record], since: float, until: float) -> list[float]:
        """How long after it was sent each frame of that time was first seen in a result, sorted."""
        lags = []
        for record in records:
            first_at = record.first_audio_at
            assert first_at is not None
            seen: dict[int, float] = {}
            for at, message in record.messages:
                if message.get("type") in ("partial", "final"):
                    for word in message["text"].split():
                        seen.setdefault(int(word[1:]) % FRAMES_PER_CLIENT, at)
            for n in range(record.script.frames):
                sent_at = first_at + n * FRAME_MS / 1000
                if since <= sent_at < until:
                    lags.append((seen.get(n, record.ended_at) - sent_at) * 1000)
        return sorted(lags)

    def unharmed(self, records: list[Record], since: float, until: float, *, slack_ms: float = 25.0) -> None:
        """The crowd's p95 in that time is within 1.25 times that of the second and a half before it, and a slack."""
        base, then = self.lags_ms(records, since - 1.5, since), self.lags_ms(records, since, until)
        base_ms, then_ms = (lags[int(len(lags) * 0.95)] for lags in (base, then))
        self.note(f"p95 of the others {base_ms:.0f} ms before, {then_ms:.0f} ms meanwhile")
        self.in_time(
            then_ms <= base_ms * 1.25 + slack_ms, f"the others' p95 went from {base_ms:.0f} ms to {then_ms:.0f} ms"
        )

    # --- afterwards

    async def clean_up(self, within_s: float = 6.0) -> None:
        """Nothing is left over, and nothing in the log tells of a fault of our own."""
        if self.gateway.returncode is not None:
            return
        for what in await self.gateway.leftovers(self.before, within_s=within_s):
            self.fail(f"left over: {what}")
        if self.upstream.answers:
            until = now() + within_s
            while (still := (await self.upstream.state())["open"]) and now() < until:
                await asyncio.sleep(0.2)
            self.check(not still, f"left over: {still} streams at the recognizer")
        self.read_log(self.gateway)

    def read_log(self, gateway: GatewayProcess) -> None:
        """No exception is in it."""
        log = gateway.log()
        places = [at for mark in ("Traceback", '"exception"') if (at := log.find(mark)) >= 0]
        if places:
            self.fail(f"an exception in the log: {log[max(min(places) - 300, 0) : min(places) + 2_500]}")


async def play(row: Row, seed: int, plays: int = 1) -> Outcome:
    """Play a row, for that many a time, and write its line."""
    scene = Scene(row, seed)
    scene.outcome.plays = plays
    try:
        async with asyncio.timeout(LIMIT_S):
            try:
                await scene.build()
                await row.play(scene)
                await scene.clean_up()
            finally:
                await scene.aclose()
    except Exception as error:
        scene.fail(f"the row could not be played: {error!r}")
    outcome = scene.outcome
    if outcome.answer_ms > row.answer_ms:
        scene.fail(f"someone waited for {outcome.answer_ms} ms, the bound is {row.answer_ms}")
    outcome.write()
    return outcome


async def play_all(rows: list[Row], seed: int, parallel: int) -> dict[str, Outcome]:
    """Those that measure time one after the other, then the rest, some at a time, since most of them wait.

    One with nothing wrong but a time is played again by itself.
    """
    found = {row.number: await play(row, seed) for row in rows if row.alone}
    gate = asyncio.Semaphore(parallel)

    async def one(row: Row) -> None:
        async with gate:
            found[row.number] = await play(row, seed)

    await asyncio.gather(*(one(row) for row in rows if not row.alone))
    for row in rows:
        while (last := found[row.number]).only_late and last.plays < TRIES:
            found[row.number] = await play(row, seed, last.plays + 1)
    return found


def play_selected(request: pytest.FixtureRequest, rows: Sequence[Row]) -> dict[str, Outcome]:
    """What became of those rows whose tests were selected, by their numbers."""
    selected = {
        row.number
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        if isinstance(row := item.callspec.params.get("row"), Row)
    }
    parallel = int(os.environ.get("CHAOS_PARALLEL", str(PARALLEL)))
    return asyncio.run(play_all([row for row in rows if row.number in selected], seed(), parallel))


def check(row: Row, outcome: Outcome) -> None:
    """Fail where the row did not go as promised."""
    print(f"seed {outcome.seed}, row {row.number} ({row.fault}): {outcome}")  # noqa: T201 - replay needs the seed
    judge(outcome.failures, outcome.late)


async def all_of(*work: Coroutine[Any, Any, Any]) -> None:
    """All at once; the first failure ends the rest."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)


def now() -> float:
    """The loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
