"""Riva dies under load; and whether the clients' books, `/metrics`, the records and the log agree, to the stream."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

from chaos.clients import Script, now
from chaos.drill_books import (
    Samples,
    lines_of,
    of_log,
    of_metrics,
    of_records,
    scrape,
    status,
    torn,
    total,
    until,
    until_over,
)
from chaos.drill_clients import WHOLE_FRAME, House
from chaos.drill_lag import REFUSED_MS, Lag
from chaos.figures import Figure, percentile
from chaos.gateway_process import GatewayProcess
from chaos.knocks import readyz
from chaos.standin import StandIn

PLACES = 48
NATIVE, RIVA = 32, 16
ROUNDS = 4
"""How often somebody comes to each door, when all places are taken, and when Riva is gone."""
OTHER_LINES = 120
"""Lines of the log that are not the beginning or the end of a stream: kinds of them times 30 in a minute at most."""
SETTINGS = {
    "MAX_STREAMS": str(PLACES),
    "ASR_FAILOVER_TIMEOUT_MS": "1500",
    "RESUME_WINDOW_MS": "5000",
}


def _script(client: int, frames: int, pace: float = 1.0) -> Script:
    return Script(client, frames, pace=pace, **WHOLE_FRAME)


async def calm(house: House) -> None:
    """Every way in and every way to end, side by side."""
    await asyncio.gather(
        *(house.native(_script(n, 15)) for n in range(6)),
        *(house.resumed(_script(20 + n, 36), cuts=2) for n in range(4)),
        *(house.end(_script(30 + n, 15)) for n in range(3)),
        *(house.nim(_script(40 + n, 15)) for n in range(3)),
        *(house.openai_realtime(_script(50 + n, 15), "openai") for n in range(2)),
        *(house.openai_realtime(_script(54 + n, 15), "openai-beta") for n in range(2)),
        *(house.sagemaker_socket(_script(60 + n, 15)) for n in range(2)),
        *(house.riva(_script(70 + n, 15)) for n in range(3)),
    )
    await asyncio.gather(
        *(house.recognize(80 + n) for n in range(2)),
        *(house.post("openai", "/v1/audio/transcriptions", 90 + n, model="numbered-asr") for n in range(2)),
        *(house.post("rest", "/transcribe", 92 + n) for n in range(2)),
        *(house.post("sagemaker", "/invocations", 94 + n) for n in range(2)),
        *(house.post("openai", "/v1/audio/transcriptions", 0, audio=b"noise") for _ in range(2)),
        house.post("rest", "/transcribe", 0, audio=b"noise"),
        house.job(98),
        *(house.tears_off("native", "/v1/stream", 100 + n) for n in range(4)),
        *(house.tears_off("end", "/ws", 110 + n) for n in range(2)),
        *(house.tears_off("realtime nim", "/v1/realtime?dialect=nim", 120 + n) for n in range(2)),
        *(house.tears_off("sagemaker", "/invocations-bidirectional-stream?dialect=plain", 130 + n) for n in range(2)),
        *(house.cancels(140 + n) for n in range(2)),
        house.stops_sending("openai", "/v1/audio/transcriptions"),
        house.stops_sending("rest", "/transcribe"),
        house.stops_sending("sagemaker", "/invocations"),
        *(house.says_nonsense() for _ in range(2)),
        *(house.begins_wrongly() for _ in range(2)),
    )


async def outage(house: House, gateway: GatewayProcess, upstream: StandIn, figure: Figure) -> None:
    """48 live streams, no place for others; then Riva is killed, and comes back."""

    words: list[str] = []

    async def said() -> str:
        return str((await status(gateway.port))["state"]["words"])

    async def told() -> bool:
        return (await said()) not in (words[0], f"Refusing: all {PLACES} streams are in use")

    async def broken() -> bool:
        return total(await scrape(gateway.port), "upstream_breaker_open") == 1

    async def full() -> bool:
        return bool((await asyncio.to_thread(readyz, gateway.port))["streams"]["in_use"] == PLACES)

    words.append(await said())
    talking = [
        *(asyncio.create_task(house.native(_script(200 + n, 400))) for n in range(NATIVE)),
        *(asyncio.create_task(house.riva(_script(250 + n, 400))) for n in range(RIVA)),
    ]
    await until("48 streams", full)
    for _ in range(ROUNDS):
        await house.knocks_everywhere(4503)
    await upstream.kill()
    struck_at = now()
    await until("status tells of the outage", told)
    figure.add("status page says so after", now() - struck_at, 5, "s")
    words.append(await said())
    breaking = asyncio.create_task(until("the breaker opens", broken))
    await asyncio.gather(*talking)
    figure.add("live streams ended after", now() - struck_at, 5, "s")
    await breaking
    for _ in range(ROUNDS):
        await house.knocks_everywhere(4502)
    before = house.ledger.books.refused["native", 503]
    await upstream.start()
    back_at = now()
    for n in range(40):  # callers go on coming, and nobody does anything else
        if (await house.native(_script(300 + n, 5))).whole:
            break
        await asyncio.sleep(0.25)
    figure.add("first whole stream after", now() - back_at, 10, "s")
    await asyncio.gather(*(house.native(_script(350 + n, 5)) for n in range(4)))
    figure.add("attempts to connect refused until then", house.ledger.books.refused["native", 503] - before, 40)
    words.append(await said())
    if not (words[0] == "Serving" and words[1].startswith("Refusing: ") and "endpoint" not in words[2]):
        figure.failures.append(f"the status page said {words}")


async def agreement() -> list[Figure]:
    """Two figures: of the outage, and of the books."""
    dies = Figure(
        "drill-upstream-dies", "Riva's death under load is told, refused cleanly, and over by itself",
        f"{PLACES} live streams on two faces, every place taken, kill -9 of Riva, a second start",
    )  # fmt: skip
    agree = Figure(
        "drill-books-agree", "Clients, metrics, records and log agree on every stream",
        "ten faces; ends, errors, aborts, refusals, resumes, an outage",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        records = Path(folder) / "records"
        async with (
            StandIn() as upstream,
            GatewayProcess(upstream.endpoint, RECORDS_DIR=str(records), **SETTINGS) as gateway,
            Lag() as lag,
        ):
            house = House(gateway.port, gateway.grpc_port)
            await calm(house)
            await outage(house, gateway, upstream, dies)
            samples = await until_over(gateway.port)
            gateway.terminate()
            dies.demand(await gateway.ended() == 0, f"it ended with {gateway.returncode}")
            _look(dies, house, gateway.log(), lag.ms(99))
            _compare(agree, house, samples, gateway.log(), records)
    return [dies, agree]


def _look(figure: Figure, house: House, log: str, lag_ms: float) -> None:
    ledger = house.ledger
    ended = sum(count for (_, how), count in ledger.books.closed.items() if how == "server_error")
    figure.add("streams that Riva's death ended", ended, NATIVE + RIVA, least=True)
    figure.add("refusals", ledger.books.refused.total(), 2 * ROUNDS * 9, least=True)
    figure.add("refusal p99", percentile(ledger.refusal_ms, 99), REFUSED_MS + 2 * lag_ms, "ms", timed=True)
    figure.add("not as they should be", len(ledger.wrong), 0)
    figure.failures += ledger.wrong[:5]
    events = Counter(line["event"] for line in lines_of(log))
    others = events.total() - events["stream opened"] - events["stream closed"]
    figure.add("other lines in the log", others, OTHER_LINES)
    if '"exception"' in log:
        figure.failures.append(
            "an exception in the log: " + next(x for x in log.splitlines() if '"exception"' in x)[:600]
        )


def _compare(figure: Figure, house: House, samples: Samples, log: str, records: Path) -> None:
    mine = house.ledger.books
    counted = of_metrics(samples)
    written, logged = of_records(records), of_log(log)
    unlike = [
        *mine.unlike(counted, "metrics", "admitted", "closed", "refused", "resumes"),
        *mine.unlike(written, "records", "closed", "refused", "resumes", "words"),
        *mine.unlike(logged, "log", "admitted", "closed", "resumes", "words"),
    ]
    figure.add("streams", mine.admitted.total(), 100, least=True)
    for outcome in ("ok", "gone", "client_error", "server_error"):
        figure.add(outcome, sum(count for (_, how), count in mine.closed.items() if how == outcome), 4, least=True)
    figure.add("faces", len(mine.admitted), 10, least=True)
    figure.add("refused", mine.refused.total(), 2 * ROUNDS * 9, least=True)
    figure.add("resumes", mine.resumes, 8, least=True)
    figure.add("words of whole streams", mine.words.total(), 300, least=True)
    figure.add("counts that differ", len(unlike), 0)
    figure.add("torn records", torn(records), 0)
    figure.failures += unlike[:20]
