"""Whoever takes traces, records and metrics is sick, and the streams feel nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from chaos.clients import Record, Script, native, now
from chaos.drill_books import fetch, lines_of, scrape, total, until_over
from chaos.drill_clients import WHOLE_FRAME
from chaos.drill_lag import Lag
from chaos.figures import Figure, percentile
from chaos.gateway_process import GatewayProcess
from chaos.numbered import FRAME_MS, word
from chaos.scene import MB
from chaos.standin import StandIn

STREAMS = 100
FRAMES = 90
CALM_S, SICK_S, OVER_S = 2.0, 4.5, 9.0
"""Since the beginning of the streams: from when it is measured, from when all is sick, and until when."""
SCRAPERS = 20
SCRAPE_EVERY_S = 1.0
GUESTS_EVERY_S = 0.1
SLACK_MS = 25.0
"""What two busy cores may add to a latency of some milliseconds."""
PATIENCE_S = 40.0


class Collector:
    """Takes spans over HTTP, as well or badly as `mood` says: `well`, `hangs`, `fails` or `slow`."""

    def __init__(self) -> None:
        self.mood = "well"
        self.asked = Counter[str]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
                mood = self.mood
                self.asked[mood] += 1
                if mood != "well":
                    await asyncio.sleep({"hangs": 3600, "fails": 0, "slow": 2}[mood])
                code = "500 Internal Server Error" if mood == "fails" else "200 OK"
                writer.write(f"HTTP/1.1 {code}\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    """A collector, and its address."""
    collector, tasks = Collector(), set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(collector.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield collector, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def sinks() -> Figure:
    """A hundred streams: some seconds with all well, then with everything sick."""
    figure = Figure(
        "drill-sinks-sick", "Sick telemetry costs the streams nothing, and nothing leaks",
        f"{STREAMS} paced streams and ten short ones a second; the collector fails, is slow, hangs; records cannot be "
        f"written; {SCRAPERS} scrape /metrics each second",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        records = Path(folder) / "records"
        async with (
            StandIn() as upstream,
            collecting() as (collector, address),
            GatewayProcess(
                upstream.endpoint, OTEL_EXPORTER_OTLP_ENDPOINT=address, RECORDS_DIR=str(records), RESUME_WINDOW_MS="0"
            ) as gateway,
            Lag() as lag,
        ):
            warm = [Script(900 + n, 5, pace=5, **WHOLE_FRAME) for n in range(20)]
            await asyncio.gather(*(native(gateway.port, script, patience_s=PATIENCE_S) for script in warm))
            samples = await until_over(gateway.port)
            before, tasks = gateway.footprint(), total(samples, "tasks")
            begun = now()
            talking = [asyncio.create_task(_talk(gateway.port, n)) for n in range(STREAMS)]
            guests = asyncio.create_task(_guests(gateway.port, begun + OVER_S))
            await asyncio.sleep(SICK_S)
            refuse_records(records)
            sick = asyncio.create_task(_sicken(collector))
            scraped = await asyncio.gather(*(_scraper(gateway.port, begun + OVER_S) for _ in range(SCRAPERS)))
            peak = gateway.footprint().rss_bytes
            await sick
            heard = await asyncio.gather(*talking)
            figure.add("short streams that were not whole", sum(not r.whole for r in await guests), 0)
            figure.add("paced streams not whole and faultless",
                       sum(not (r.whole and r.verdict().faultless) for r in heard), 0)  # fmt: skip
            _latencies(figure, heard, begun, lag)
            figure.add("scrapes", sum(map(len, scraped)), SCRAPERS * 3, least=True)
            figure.add(
                "scrape p95", percentile([s * 1000 for times in scraped for s in times], 95), 2_000, "ms", timed=True
            )
            accept_records(records)
            samples = await until_over(gateway.port)
            await asyncio.sleep(1.5)
            _leaks(figure, await gateway.leftovers(before), total(samples, "tasks") - tasks)
            figure.add("memory while all were on", (peak - before.rss_bytes) / MB, 80, "MB")
            figure.demand(set(collector.asked) == {"well", "fails", "slow", "hangs"}, f"asked {collector.asked}")
            lost = total(await scrape(gateway.port), "spans_dropped_total")
            figure.add("spans dropped, and counted", lost, 1, least=True)
            leave_at = now()
            gateway.terminate()
            figure.demand(await gateway.ended() == 0, f"it ended with {gateway.returncode}")
            figure.add("end with a collector that hangs", now() - leave_at, 8, "s")
            _lines(figure, gateway.log())
    return figure


async def _talk(port: int, number: int) -> Record:
    await asyncio.sleep(number / STREAMS)
    return await native(port, Script(number, FRAMES, **WHOLE_FRAME), patience_s=PATIENCE_S)


async def _guests(port: int, until: float) -> list[Record]:
    """Each is a span and a record."""
    tasks = []
    for number in itertools.count(200):
        if now() >= until:
            break
        script = Script(number, 4, pace=2, **WHOLE_FRAME)
        tasks.append(asyncio.create_task(native(port, script, patience_s=PATIENCE_S)))
        await asyncio.sleep(GUESTS_EVERY_S)
    return list(await asyncio.gather(*tasks))


async def _sicken(collector: Collector) -> None:
    for mood in ("fails", "slow", "hangs"):
        collector.mood = mood
        due = now() + 8
        while not collector.asked[mood] and now() < due:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)


def refuse_records(folder: Path) -> None:
    """Nobody can write into today's file any more, not even root: it is a folder."""
    for path in folder.glob("streams-*.jsonl"):
        path.unlink()
    (folder / f"streams-{datetime.now(UTC).date().isoformat()}.jsonl").mkdir()


def accept_records(folder: Path) -> None:
    """It can be written again."""
    for path in folder.glob("streams-*.jsonl"):
        shutil.rmtree(path)


async def _scraper(port: int, until: float) -> list[float]:
    """One of many who come at the same moment; the seconds that each scrape took."""
    took = []
    while now() < until:
        begun = now()
        if "riva_gateway_info" in await fetch(port, "/metrics"):
            took.append(now() - begun)
        await asyncio.sleep(max(begun + SCRAPE_EVERY_S - now(), 0))
    return took


def _latencies(figure: Figure, records: list[Record], begun: float, lag: Lag) -> None:
    calm: list[float] = []
    sick: list[float] = []
    for record in records:
        first: dict[str, float] = {}
        for at, message in record.messages:
            if message.get("type") in ("partial", "final"):
                for text in message["text"].split():
                    first.setdefault(text, at)
        assert record.first_audio_at is not None
        for sent in record.script.audio()[1]:
            due = record.first_audio_at + (sent.end_ms - FRAME_MS) / 1000
            text = word(sent.number)
            if text not in first:
                continue
            if begun + CALM_S <= due < begun + SICK_S:
                calm.append((first[text] - due) * 1000)
            elif begun + SICK_S <= due < begun + OVER_S:
                sick.append((first[text] - due) * 1000)
    usual, then = percentile(calm, 95), percentile(sick, 95)
    figure.add("latency p95 while all is well", usual, unit="ms")
    late = lag.ms(95, begun + SICK_S, begun + OVER_S)
    figure.add("while all is sick", then, max(usual * 1.25, usual + SLACK_MS) + 2 * late, "ms", timed=True)


def _leaks(figure: Figure, left: list[str], tasks: float) -> None:
    figure.add("kinds of leftovers (descriptors, threads, connections)", len(left), 0)
    figure.failures += left
    figure.add("tasks more than before", tasks, 2)


def _lines(figure: Figure, log: str) -> None:
    events = Counter(line["event"] for line in lines_of(log))
    said = sum(count for event, count in events.items() if event.startswith(("traces cannot", "records cannot")))
    figure.add("lines that say what is sick", said, 2)
    figure.demand(said == 2, f"it is not said what is sick: {dict(events)}")
    if '"exception"' in log:
        figure.failures.append(
            "an exception in the log: " + next(x for x in log.splitlines() if '"exception"' in x)[:600]
        )
