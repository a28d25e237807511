"""The recognizer is away for everyone: nobody tramples on it, neither while it is away nor when it is back.

Callers behave as callers do: those who were told when to come again come then, and newcomers keep coming.
`CHAOS_LONG` makes the outage one of a minute.
"""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from chaos.behaviour import Behaviour
from chaos.cable import Cable
from chaos.clients import Record, Script, native
from chaos.figures import Figure, long_tier, percentile, settle_all
from chaos.gateway_process import GatewayProcess
from chaos.knocks import readyz
from chaos.play import seed
from chaos.standin import StandIn

CLIENTS = 20
OUTAGE_S = 60.0 if long_tier() else 10.0
BEFORE_S, AFTER_S = 2.0, 13.0
NEWCOMERS_PER_S = 8
BREAKER_OPEN_MS = 5_000
FLOOR = 10
"""Attempts that are allowed however few have come (`asr.resilience.retry.RetryBudget`)."""
WELL = Behaviour(delay_s=0.02)
"""It works at five times the pace of speech: what was kept during an outage takes some seconds."""
BROKEN = replace(WELL, abort_after=0)
MAX_WAIT_S = 5.0


@dataclass(slots=True)
class World:
    """One gateway, its recognizer, and what their callers lived through; times of the loop's clock but `wall`."""

    standin: StandIn
    cable: Cable
    gateway: GatewayProcess
    held: list[list[Record]] = field(default_factory=list)
    newcomers: list[Record] = field(default_factory=list)
    struck_at: float = 0.0
    healed_at: float = 0.0
    healed_wall: float = 0.0
    opened_before: int = 0
    connections: int = 0
    limit: int | None = None

    def healed(self) -> None:
        """From now on all is well."""
        self.healed_at, self.healed_wall = _now(), time.time()

    def sessions(self) -> list[Record]:
        """Every session that anyone began."""
        return [record for one in self.held for record in one] + self.newcomers

    def back_ms(self) -> list[float]:
        """For each of those who stay: from the healing to its first words."""
        found = []
        for one in self.held:
            heard = [
                at for record in one for at, m in record.messages
                if m.get("type") in ("partial", "final") and m["text"] and at > self.healed_at
            ]  # fmt: skip
            found.append((min(heard) - self.healed_at) * 1000 if heard else float("inf"))
        return found


Fault = Callable[[World], Awaitable[None]]


async def gone(world: World) -> None:
    """Every connection is reset, and so is every new one."""
    world.cable.away()
    await asyncio.sleep(OUTAGE_S)
    world.cable.back()


async def broken(world: World) -> None:
    """It answers, lists its model, and fails every stream."""
    await world.standin.behave(BROKEN)
    await asyncio.sleep(OUTAGE_S)
    await world.standin.behave(WELL)


async def flapping(world: World) -> None:
    """A second broken, a second well, six times."""
    for _ in range(6):
        await world.standin.behave(BROKEN)
        await asyncio.sleep(1)
        await world.standin.behave(WELL)
        await asyncio.sleep(1)


async def live_in(world: World, fault: Fault, lasts_s: float) -> None:
    """Twenty callers who stay, others who come and go while it lasts, and the fault."""
    standin, cable, gateway = world.standin, world.cable, world.gateway
    chance = random.Random(seed())
    end = _now() + BEFORE_S + lasts_s + AFTER_S

    async def stay(number: int) -> list[Record]:
        records: list[Record] = []
        await asyncio.sleep(chance.uniform(0, 0.5))
        while (left_s := end - _now()) > 1:
            script = Script(number, int(left_s * 10), seed=len(records))
            records.append(await native(gateway.port, script, patience_s=left_s + 30))
            if not records[-1].whole:
                await asyncio.sleep(wait_s(records[-1], chance))
        return records

    async def come() -> list[Record]:
        coming = []
        while not world.healed_at:
            script = Script(500 + len(coming) % 400, 10, pace=4.0)
            coming.append(asyncio.create_task(native(gateway.port, script, patience_s=60)))
            await asyncio.sleep(1 / NEWCOMERS_PER_S)
        return list(await asyncio.gather(*coming))

    staying = asyncio.gather(*map(stay, range(CLIENTS)))
    await asyncio.sleep(BEFORE_S)
    world.opened_before = (await standin.state())["opened"]
    world.struck_at, accepted = _now(), cable.accepted
    coming = asyncio.create_task(come())
    await fault(world)
    world.connections = cable.accepted - accepted
    world.healed()
    await asyncio.sleep(AFTER_S - 2)
    world.limit = (await asyncio.to_thread(readyz, gateway.port))["endpoints"][0]["limit"]
    world.held = await staying
    world.newcomers = await coming


def wait_s(record: Record, chance: random.Random) -> float:
    """When a polite caller comes again."""
    told = [e["retry_after_ms"] for e in record.errors if e.get("retry_after_ms")]
    told += [int(record.retry_after) * 1000] if record.retry_after.isdigit() else []
    return min(max([*told, chance.uniform(200, 1_000)]) / 1000, MAX_WAIT_S)


def most_in_a_second(times: list[float]) -> int:
    """The fullest window of one second."""
    times = sorted(times)
    return max((bisect_left(times, at + 1.0) - n for n, at in enumerate(times)), default=0)


async def judge(world: World, figure: Figure) -> None:
    """What holds of every outage."""
    state = await world.standin.state()
    sessions = world.sessions()
    interruptions = sum(m["state"] == "failing_over" for r in sessions for m in r.of("status"))
    figure.add("streams at the recognizer", state["opened"], 1.1 * len(sessions) + FLOOR)
    figure.add("sessions begun", len(sessions))
    figure.add("interruptions", interruptions)
    figure.add("clients hung", sum(r.hung for r in sessions), 0)
    spoilt = [r for r in sessions if r.whole and not r.verdict().faultless]
    figure.add("whole sessions with a word lost or repeated", len(spoilt), 0)
    figure.add("words lost without a gap", sum(r.verdict().lost for r in sessions if r.of("final")), 0)
    dumb = [r for r in sessions if not (r.whole or r.errors or r.http_status or r.hung)]
    figure.add("sessions that ended without an error", len(dumb), 0)
    back = world.back_ms()
    figure.add("first words after it is back", min(back), BREAKER_OPEN_MS + 1_000, "ms")
    figure.add("95 % of callers served after", percentile(back, 95), 10_000, "ms")
    reopened = [s["opened_at"] for s in state["streams"] if s["opened_at"] > world.healed_wall]
    # Ten at least, and a fifth of a second's worth at the edge of the window.
    figure.add("streams opened in the fullest second after", most_in_a_second(reopened), 1.2 * max(10, 0.2 * CLIENTS))
    figure.add("limit that the gateway has put on the recognizer", world.limit or 0, 0)


async def played(row: str, promise: str, load: str, fault: Fault, lasts_s: float) -> Figure:
    """The line of one kind of outage."""
    figure = Figure(row, promise, load)
    async with StandIn(WELL) as standin, Cable(standin.port) as cable, GatewayProcess(cable.endpoint) as gateway:
        world = World(standin, cable, gateway)
        await live_in(world, fault, lasts_s)
        await judge(world, figure)
        if fault is gone:
            figure.add("attempts to connect meanwhile", world.connections, 1.1 * len(world.sessions()) + FLOOR)
    return figure


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(400)
async def test_outages() -> None:
    calls = f"{CLIENTS} callers stay, {NEWCOMERS_PER_S} come each second"
    figures = await asyncio.gather(
        played("outage-gone", "No stampede, neither during nor after", f"{OUTAGE_S:.0f} s without connections; {calls}",
               gone, OUTAGE_S),
        played("outage-broken", "An outage is not multiplied", f"{OUTAGE_S:.0f} s of failing streams; {calls}",
               broken, OUTAGE_S),
        played("outage-flapping", "A recognizer that comes and goes is not worn out",
               f"a second broken, a second well, six times; {calls}", flapping, 12.0),
    )  # fmt: skip
    settle_all(figures)


def _now() -> float:
    return asyncio.get_running_loop().time()
