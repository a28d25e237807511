"""More callers than places: those who are in feel nothing of it, the others know at once when to come again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chaos.behaviour import Behaviour
from chaos.clients import Record, Script, native
from chaos.figures import Figure, percentile, settle_all
from chaos.gateway_process import GatewayProcess
from chaos.knocks import Doors, Told, crowd, readyz
from chaos.numbered import word
from chaos.play import seed
from chaos.standin import StandIn

PLACES = 10
FRAMES = 45
WHOLE_FRAME = {"min_chunk": 3_200, "max_chunk": 3_200}
SLACK_MS = 25.0
"""What two busy cores may add to a latency of some milliseconds."""
PATIENCE_S = 40.0


def latencies_ms(record: Record) -> list[float]:
    """From the time at which each frame was due to the first result that has its word."""
    begun = record.first_audio_at
    first: dict[str, float] = {}
    for at, message in record.messages:
        if message.get("type") in ("partial", "final"):
            for text in message["text"].split():
                first.setdefault(text, at)
    sent = record.script.audio()[1]
    if begun is None:
        return []
    due = ((word(s.number), begun + (s.start_ms - sent[0].start_ms) / 1000) for s in sent)
    return [(first[text] - at) * 1000 for text, at in due if text in first]


async def full_house(gateway: GatewayProcess, doors: Doors, first: int, knockers: int) -> tuple[list[Record], Told]:
    """Every place is taken, for some seconds, and so many others knock."""
    scripts = [Script(first + n, FRAMES, **WHOLE_FRAME) for n in range(PLACES)]
    talking = asyncio.gather(*(native(gateway.port, script, patience_s=PATIENCE_S) for script in scripts))
    async with asyncio.timeout(PATIENCE_S):  # who knocks before all are in would take one's place
        while (await asyncio.to_thread(readyz, gateway.port))["streams"]["in_use"] < PLACES:
            await asyncio.sleep(0.05)
    until = asyncio.get_running_loop().time() + FRAMES / 10 - 1.5
    told = await crowd(doors, knockers, until, seed=seed())
    return await talking, told


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_callers_beyond_the_limit() -> None:
    async with StandIn() as upstream, GatewayProcess(upstream.endpoint, MAX_STREAMS=str(PLACES)) as gateway:
        doors = Doors(gateway.port, gateway.grpc_port)
        try:
            await native(gateway.port, Script(900, 10, pace=5), patience_s=PATIENCE_S)
            calm, _ = await full_house(gateway, doors, 0, 0)
            usual = percentile([ms for r in calm for ms in latencies_ms(r)], 95)
            figures = []
            for times in (2, 5):
                records, told = await full_house(gateway, doors, times * PLACES, (times - 1) * PLACES)
                figure = Figure(
                    f"overload-{times}",
                    "Admitted streams feel nothing; refusals are fast and say when to come again",
                    f"{times}× the {PLACES} places, refused callers come again twice a second",
                )
                p95 = percentile([ms for r in records for ms in latencies_ms(r)], 95)
                figure.add(
                    "latency of admitted streams p95", p95, max(usual * 1.25, usual + SLACK_MS), "ms", timed=True
                )
                figure.add("without the crowd", usual, unit="ms")
                bad = [r for r in records if not r.whole or not r.verdict().faultless]
                figure.add("admitted streams dropped or spoilt", len(bad), 0)
                figure.add("refusals", len(told.times_ms), 5 * times, least=True)
                figure.add("refusal p99", percentile(told.times_ms, 99), 100, "ms", timed=True)
                figure.add("refusals without the right code or a time to come again", len(told.wrong), 0)
                figure.add("admitted beyond the limit", told.admitted, 0)
                figure.failures += told.wrong[:3]
                figures.append(figure)
            settle_all(figures)
        finally:
            await doors.aclose()


async def keyed(port: int, key: str, frames: int) -> bool:
    """A stream under that key, with so many frames; whether it was let in."""
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            connect(
                f"ws://127.0.0.1:{port}/v1/stream", proxy=None, compression=None, additional_headers={"x-api-key": key}
            ) as websocket,
        ):
            await websocket.send('{"type":"start"}')
            async for chunk in Script(0, frames, **WHOLE_FRAME).chunks():
                await websocket.send(chunk)
            await websocket.send('{"type":"stop"}')
            while True:
                await websocket.recv()
    except InvalidStatus:
        return False
    except ConnectionClosed as closed:
        return closed.rcvd is not None and closed.rcvd.code == 1000


@pytest.mark.slow
@pytest.mark.alone
async def test_a_second_key_gets_its_share() -> None:
    """One key's callers hammer at every place; somebody else's single caller still gets in."""
    figure = Figure(
        "fair-share", "A second key gets in although the first one takes all it can get",
        f"{5 * PLACES} callers with one key, streams of 2 s, {PLACES} places; another key comes once a second",
    )  # fmt: skip
    async with StandIn() as upstream, GatewayProcess(upstream.endpoint, MAX_STREAMS=str(PLACES)) as gateway:
        clock = asyncio.get_running_loop().time
        until = clock() + 9.0
        greedy: list[bool] = []
        small = asyncio.Event()

        async def hammer(number: int) -> None:
            await asyncio.sleep(number * 0.02)
            while clock() < until and not small.is_set():
                greedy.append(await keyed(gateway.port, "greedy", 20))
                await asyncio.sleep(0.3)

        hammering = asyncio.gather(*(hammer(n) for n in range(5 * PLACES)))
        await asyncio.sleep(1.5)
        begun, tries, whole = clock(), 0, False
        while clock() < until and not whole:
            tries += 1
            whole = await keyed(gateway.port, "small", 5)
            got_in_s = clock() - begun
            if not whole:
                await asyncio.sleep(1.0)
        figure.demand(whole, f"the second key was refused {tries} times in {got_in_s:.0f} s")
        figure.add("tries of the second key", tries, 4)
        figure.add("until its stream was done", got_in_s, 6, "s", timed=True)
        small.set()
        await hammering
        figure.add("streams of the first key meanwhile", greedy.count(True), 10, least=True)
    figure.settle()


# --- a recognizer that says nothing of its limit


@dataclass(slots=True)
class Season:
    """What a gateway made of callers who keep coming."""

    records: list[Record]
    endpoint: dict[str, Any]
    peak: int

    def late(self) -> list[Record]:
        """The admitted ones among those who came when a limit may have been found."""
        begun = min(r.begun_at for r in self.records)
        return [r for r in self.records if r.begun_at > begun + LATE_S and not r.http_status and not r.errors]


MAX_LAG_MS = 400
LATE_S = 14.0
"""When a limit should have been found."""
KNEE = Behaviour(lag_free_streams=6, lag_s=0.03)
"""Up to nine streams get each answer before the next is due; with more a backlog grows for all of them."""


async def season(adaptive: str, patience_s: float = PATIENCE_S) -> Season:
    """A new caller every 0.6 s, who stays for ten seconds: nearly twice what the recognizer can carry."""
    async with (
        StandIn(KNEE) as upstream,
        GatewayProcess(upstream.endpoint, RIVA_ADAPTIVE_LIMIT=adaptive, RIVA_MAX_LAG_MS=str(MAX_LAG_MS)) as gateway,
    ):

        async def come(number: int) -> Record:
            await asyncio.sleep(number * 0.6)
            return await native(gateway.port, Script(number, 100, **WHOLE_FRAME), patience_s=patience_s)

        coming = asyncio.gather(*map(come, range(40)))
        await asyncio.sleep(23)
        status = await asyncio.to_thread(readyz, gateway.port)
        records = await coming
        return Season(records, status["endpoints"][0], (await upstream.state())["peak"])


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_it_finds_the_limit_of_a_recognizer_that_only_gets_slower() -> None:
    # Without a limit the callers are late by more and more, which half of it shows.
    found, without = await asyncio.gather(season("on"), season("off", PATIENCE_S / 2))
    figure = Figure(
        "adaptive-limit", "A recognizer that only gets slower is not given more streams than it can carry",
        "stand-in that lags with more than 9 streams; 16 callers at a time; a lag of 400 ms is allowed",
    )  # fmt: skip
    p95 = percentile([ms for r in found.late() for ms in latencies_ms(r)], 95)
    figure.add("latency p95 of those admitted", p95, 5 * MAX_LAG_MS, "ms", timed=True)
    figure.add("without the adaptive limit", percentile([ms for r in without.late() for ms in latencies_ms(r)], 95),
               5 * p95, "ms", least=True)  # fmt: skip
    figure.add("limit found", found.endpoint["limit"] or 0, 12)
    figure.add("limit found", found.endpoint["limit"] or 0, 5, least=True)
    figure.add("served", len([r for r in found.records if r.whole]), 20, least=True)
    begun = [r for r in found.records if not r.http_status and not r.errors]
    bad = [r for r in begun if not r.whole or not r.verdict().faultless]
    figure.add("admitted streams dropped or spoilt", len(bad), 0)
    refused = [r for r in found.records if r.http_status or r.errors]
    figure.add("refusals", len(refused), 5, least=True)
    dumb = [r for r in refused if not r.retry_after and not all(e.get("retry_after_ms") for e in r.errors)]
    figure.add("refusals without a time to come again", len(dumb), 0)
    figure.settle()
