"""The log of a bad hour: a crowd knocks, the recognizer comes and goes, and what is written stays bounded."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

from chaos.clients import Script, now
from chaos.drill_books import Samples, lines_of, of_log, of_metrics, total, until_over
from chaos.drill_clients import WHOLE_FRAME, House
from chaos.drill_lag import REFUSED_MS, Lag
from chaos.figures import Figure, percentile
from chaos.gateway_process import GatewayProcess
from chaos.proxy import Proxy
from chaos.standin import StandIn

KNOCKS_PER_S = 300
LASTS_S = 5.0
SPEAKERS = 15
OUTAGE_S = 1.5
HERE_S, FLAP_S = 1.2, 0.4
LINES = 300
"""In a minute, beside the beginnings and ends of streams."""
KINDS_MOST = 30
"""Lines of one kind in a minute."""
DOORS = {"native": "/v1/stream", "end": "/ws", "realtime": "/v1/realtime?dialect=nim"}
FACES = {"realtime": "realtime nim"}


async def noise() -> Figure:
    """A while without a recognizer, then one that flaps."""
    figure = Figure(
        "drill-log-bounded", "An outage fills no disk: the log is bounded, says what it left out, has every stream",
        f"{KNOCKS_PER_S} knocks a second for {LASTS_S:g} s, {SPEAKERS} who stay; LOG_LEVEL=debug; Riva away for "
        f"{OUTAGE_S:g} s, then {HERE_S:g} s here and {FLAP_S:g} s away",
    )  # fmt: skip
    async with (
        StandIn() as upstream,
        Proxy(upstream.port) as way,
        GatewayProcess(way.endpoint, ASR_FAILOVER_TIMEOUT_MS="500", RESUME_WINDOW_MS="0", LOG_LEVEL="debug") as gateway,
        Lag() as lag,
    ):
        house = House(gateway.port, gateway.grpc_port)
        await house.native(Script(999, 5, pace=5, **WHOLE_FRAME))
        until = now() + LASTS_S
        speaking = [asyncio.create_task(_speak(house, n, until)) for n in range(SPEAKERS)]
        await asyncio.sleep(0.5)
        flapping = asyncio.create_task(_flap(way, until))
        knocked = await _knock(house, until)
        await flapping
        await asyncio.gather(*speaking)
        samples = await until_over(gateway.port)
        gateway.terminate()
        figure.demand(await gateway.ended() == 0, f"it ended with {gateway.returncode}")
        figure.add("knocks", knocked, KNOCKS_PER_S * LASTS_S * 0.5, least=True)
        _judge(figure, house, samples, gateway.log(), lag.ms(99))
    return figure


async def _flap(way: Proxy, until: float) -> None:
    await way.down()
    await asyncio.sleep(OUTAGE_S)
    while now() < until:
        await way.up()
        await asyncio.sleep(HERE_S)
        await way.down()
        await asyncio.sleep(FLAP_S)
    await way.up()


async def _speak(house: House, number: int, until: float) -> None:
    """One who comes back whatever happens to the stream."""
    for turn in itertools.count():
        if now() >= until:
            return
        await house.native(Script(number + turn * SPEAKERS, 8, pace=2, **WHOLE_FRAME))
        await asyncio.sleep(0.1)


async def _knock(house: House, until: float) -> int:
    """So many a second; a whole crowd's connections, so each is as cheap as can be."""
    tasks = []
    doors = itertools.cycle(DOORS)
    begun = now()
    while now() < until:
        due = int((now() - begun) * KNOCKS_PER_S)
        tasks += [asyncio.create_task(_one(house, next(doors))) for _ in range(due - len(tasks))]
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    return len(tasks)


async def _one(house: House, door: str) -> None:
    begun = now()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        writer.write(
            f"GET {DOORS[door]} HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        async with asyncio.timeout(20):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        code = int(head.split(" ", 2)[1])
        if code == 101:  # it was well for a moment; whoever knocks does not stay
            house.ledger.over(FACES.get(door, door), "unasked")
            return
        house.ledger.refused(door, code, now() - begun, "retry-after" in head.lower())
    finally:
        writer.transport.abort()


def _judge(figure: Figure, house: House, samples: Samples, log: str, lag_ms: float) -> None:
    mine, ledger = house.ledger.books, house.ledger
    figure.add("refusals", len(ledger.refusal_ms), 500, least=True)
    figure.add("refusal p99", percentile(ledger.refusal_ms, 99), REFUSED_MS + 2 * lag_ms, "ms", timed=True)
    figure.add("not as they should be", len(ledger.wrong), 0)
    figure.failures += ledger.wrong[:5]
    logged, counted = of_log(log), of_metrics(samples)
    unlike = [*mine.unlike(counted, "metrics", "admitted", "refused"), *mine.unlike(logged, "log", "admitted")]
    figure.add("streams let in", mine.admitted.total(), SPEAKERS, least=True)
    figure.add("of them without their first and last line", logged.admitted.total() - logged.closed.total(), 0)
    figure.add("counts that differ", len(unlike), 0)
    figure.failures += unlike[:10]
    lines = list(lines_of(log))
    others = [line for line in lines if line["event"] not in ("stream opened", "stream closed")]
    figure.add("other lines in the log", len(others), LINES)
    figure.add("bytes of them", sum(len(str(line)) for line in others), LINES * 500)
    most = Counter(line["event"] for line in others if line["event"] != "lines left out").most_common(1)
    figure.add("of one kind at most", most[0][1], KINDS_MOST)
    suppressed = total(samples, "log_lines_suppressed_total")
    figure.add("lines left out, by the metric", suppressed, 500, least=True)
    told = sum(line["count"] for line in others if line["event"] == "lines left out")
    figure.add("left out and not told in the log", abs(told - suppressed), 0)
    if '"exception"' in log:
        figure.failures.append(
            "an exception in the log: " + next(x for x in log.splitlines() if '"exception"' in x)[:600]
        )
