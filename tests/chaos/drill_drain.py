"""A node is drained under load: a balancer sends new streams elsewhere, and what was said on it comes home."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from types import TracebackType
from typing import Self

from chaos.clients import Record, Script, native, now
from chaos.drill_books import Samples, ask, of_metrics, scrape, status, total
from chaos.drill_clients import WHOLE_FRAME
from chaos.figures import Figure
from chaos.gateway_process import GatewayProcess
from chaos.numbered import judge
from chaos.resume_rows import resuming
from chaos.standin import StandIn

LIBRARY, PLAIN = 14, 16
FRAMES = 70
STRIKE_S = 2.5
CALLERS_EVERY_S = 0.15
LOOK_EVERY_S = 0.1
DELAY_MS = 1_000
PATIENCE_S = 30.0
BOUND_S = 10.0


class Balancer:
    """Passes each connection to a node whose `/readyz` said 200 at the last look; in turns.

    Attributes:
        port: where it listens.
        sent: connections by the node's port.
    """

    def __init__(self, *ports: int) -> None:
        self.port = 0
        self.sent = dict.fromkeys(ports, 0)
        self._ready = list(ports)
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def is_used(self, port: int) -> bool:
        """Whether that node gets connections."""
        return port in self._ready

    async def _look(self) -> None:
        while True:
            answers = await asyncio.gather(*(ask(port, "/readyz") for port in self.sent))
            self._ready = [port for port, (code, _) in zip(self.sent, answers, strict=True) if code == 200]
            await asyncio.sleep(LOOK_EVERY_S)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            port = self._ready[next(self._turn) % len(self._ready)]
            self.sent[port] += 1
            back, onwards = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pass_on(reader, onwards), _pass_on(back, writer))
        except (OSError, ZeroDivisionError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._looking.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._looking, *self._tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def drain() -> Figure:
    """Two nodes, one of them gets SIGTERM."""
    figure = Figure(
        "drill-drain", "A node is drained under load: no final is lost, no stream is dropped, nobody waits",
        f"two gateways behind a balancer, {LIBRARY} `asr.connect`, {PLAIN} plain clients, new ones all the while; "
        f"SIGTERM to one, DRAIN_DELAY_MS={DELAY_MS}",
    )  # fmt: skip
    settings = {"DRAIN_DELAY_MS": str(DELAY_MS)}
    async with (
        StandIn() as upstream,
        GatewayProcess(upstream.endpoint, **settings) as leaves,
        GatewayProcess(upstream.endpoint, **settings) as stays,
        Balancer(leaves.port, stays.port) as balancer,
    ):
        over = asyncio.Event()
        callers = asyncio.create_task(_callers(balancer, over))
        scripts = [Script(n, FRAMES, **WHOLE_FRAME) for n in range(LIBRARY + PLAIN)]
        library = [asyncio.create_task(resuming(balancer.port, s, patience_s=PATIENCE_S)) for s in scripts[:LIBRARY]]
        plain = [asyncio.create_task(native(balancer.port, s, patience_s=PATIENCE_S)) for s in scripts[LIBRARY:]]
        await asyncio.sleep(STRIKE_S)
        figure.add("streams on the node", total(await scrape(leaves.port), "streams_active"), 10, least=True)
        struck_at = now()
        leaves.terminate()
        last = await _while_it_says_so(figure, leaves, balancer, struck_at)
        code = await leaves.ended()
        figure.add("gone after", now() - struck_at, BOUND_S, "s")
        figure.add("exit status", code, 0)
        records = await asyncio.gather(*library, *plain)
        over.set()
        _judge(figure, await callers, records[:LIBRARY], records[LIBRARY:], struck_at)
        counted = of_metrics(last)
        figure.demand(bool(counted.admitted), "the last look at /metrics of the node shows nothing")
        if '"exception"' in leaves.log() + stays.log():
            figure.failures.append("an exception in the log")
        bad = of_metrics(await scrape(stays.port)).closed
        figure.add("streams that failed on the other", sum(n for (_, how), n in bad.items() if how != "ok"), 0)
    return figure


async def _while_it_says_so(figure: Figure, node: GatewayProcess, balancer: Balancer, struck_at: float) -> Samples:
    """What the node says while its doors are still open."""
    while (ready := await ask(node.port, "/readyz"))[0] == 200 and now() < struck_at + 2:
        await asyncio.sleep(0.01)
    figure.add("not ready after", (now() - struck_at) * 1000, 500, "ms", timed=True)
    figure.demand(ready[0] == 503 and "going down" in ready[1], f"readiness says {ready}")
    samples = await scrape(node.port)
    figure.demand(total(samples, "draining") == 1, "/metrics does not say that it drains")
    figure.demand(total(samples, "streams_active") > 0, "streams were cut before its doors were shut")
    said = (await status(node.port))["state"]
    figure.demand(said["level"] == "draining", f"the status page says {said}")
    while balancer.is_used(node.port) and now() < struck_at + 2:
        await asyncio.sleep(0.01)
    figure.add("out of the balancer after", (now() - struck_at) * 1000, DELAY_MS, "ms", timed=True)
    return samples


async def _callers(balancer: Balancer, over: asyncio.Event) -> list[list[Record]]:
    """New callers, one after the other; one who is refused comes again. All the tries of each."""

    async def call(number: int) -> list[Record]:
        tries: list[Record] = []
        while not (tries and tries[-1].whole) and len(tries) < 5:
            script = Script(500 + number, 4, **WHOLE_FRAME)
            tries.append(await native(balancer.port, script, patience_s=PATIENCE_S))
        return tries

    calls = []
    for number in itertools.count():
        if over.is_set():
            break
        calls.append(asyncio.create_task(call(number)))
        await asyncio.sleep(CALLERS_EVERY_S)
    return list(await asyncio.gather(*calls))


def _judge(
    figure: Figure, calls: list[list[Record]], library: list[Record], plain: list[Record], struck_at: float
) -> None:
    spoilt = [r for r in library if not r.whole or not r.verdict().faultless or r.of("gap")]
    figure.add("library sessions that missed a word", len(spoilt), 0)
    moved = sum(r.status != "0" for r in library)
    figure.add("of them moved to the other node", moved, 3, least=True)
    lost = finished = 0
    for record in plain:
        summary = record.of("summary")
        if record.whole:
            lost += record.verdict().lost
            continue
        finished += 1
        reached_ms = summary[0]["audio_ms"] if summary else 0
        sent = [s for s in record.script.audio()[1] if s.end_ms <= reached_ms]
        lost += judge(sent, record.heard()).lost
        said = [m for m in record.of("status") if m["state"] == "draining"]
        assert record.first_audio_at is not None
        late_ms = (struck_at + DELAY_MS / 1000 - record.first_audio_at) * 1000 - reached_ms
        if record.close_code != 1001 or not said or not summary or late_ms > 300:
            figure.failures.append(f"a plain client: {record.close_code}, {summary}, {late_ms:.0f} ms were not heard")
    figure.add("plain streams brought home with 1001", finished, 5, least=True)
    figure.add("words lost of what they were told was heard", lost, 0)
    tries = [record for call in calls for record in call]
    refused = [r for r in tries if r.http_status]
    figure.add("new callers", len(calls), 20, least=True)
    figure.add("of them served", sum(call[-1].whole for call in calls), len(calls), least=True)
    figure.add("refused before the balancer had looked", len(refused), 4)
    rude = [r for r in tries if not r.whole and not (r.http_status == 503 and r.retry_after) and r.close_code != 1001]
    figure.add("ended in any other way", len(rude), 0)
    figure.failures += [f"a caller: {r.http_status} {r.close_code} {r.messages[-1:]}" for r in rude[:3]]
