"""What looks right and is not: the traps of speaking gRPC to a recognizer that the rows of the catalogue do not cover.

What the rows cover: a stream limit that queues silently (20), undecodable messages (30), corruption under TLS (33).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from chaos.cable import Cable
from chaos.clients import Record, Script, native
from chaos.figures import Figure
from chaos.gateway_process import GatewayProcess
from chaos.proxy import Proxy, Toxic
from chaos.standin import StandIn

PATIENCE_S = 40.0
NO_WATCHDOG = {
    "RIVA_STALL_TIMEOUT_MS": "60000",
    "RIVA_FIRST_RESPONSE_TIMEOUT_MS": "60000",
    "RIVA_DRAIN_TIMEOUT_MS": "60000",
}


def moved_after_s(record: Record, since: float) -> float:
    """From then to the first word that the next recognizer said."""
    back = [at for at, m in record.messages if m.get("type") == "status" and m["state"] == "recovered" and at > since]
    return min(back, default=float("inf")) - since


async def test_a_ping_that_is_not_answered_is_enough() -> None:
    """A frozen process whose kernel goes on acknowledging: found by the ping alone, with no watchdog to help.

    The usual two keepalive options would wait for a minute.
    """
    figure = Figure(
        "trap-ping", "A frozen recognizer is noticed by its missing answer to a ping",
        "SIGSTOP, keepalive 2 s + 2 s, the stall watchdog set to a minute",
    )  # fmt: skip
    settings = {"RIVA_KEEPALIVE_TIME_MS": "2000", "RIVA_KEEPALIVE_TIMEOUT_MS": "2000", **NO_WATCHDOG}
    async with (
        StandIn() as first,
        StandIn() as second,
        GatewayProcess(f"{first.endpoint},{second.endpoint}", **settings) as gateway,
    ):
        scripts = [Script(n, 80) for n in range(2)]
        talking = asyncio.gather(*(native(gateway.port, script, patience_s=PATIENCE_S) for script in scripts))
        await asyncio.sleep(2.0)
        first.freeze()
        since = asyncio.get_running_loop().time()
        records = await talking
        first.thaw()
        figure.add("streams not whole and faultless", sum(not (r.whole and r.verdict().faultless) for r in records), 0)
        moved = [s for s in (moved_after_s(r, since) for r in records) if s < PATIENCE_S]
        figure.add("streams that were moved", len(moved), 1, least=True)
        figure.add("noticed and moved after", max(moved, default=0.0), 8, "s")
    figure.settle()


async def test_what_is_only_written_is_not_acknowledged() -> None:
    """Upwards everything vanishes: every write succeeds, and no audio of these seconds may be called safe."""
    figure = Figure(
        "trap-ack", "No audio is called safe before a final or a gap covers it",
        "nothing arrives upwards for 5 s, then the connection is reset and the way is clear",
    )  # fmt: skip
    async with (
        StandIn() as upstream,
        Proxy(upstream.port, Toxic()) as proxy,
        GatewayProcess(proxy.endpoint) as gateway,
    ):
        talking = asyncio.create_task(native(gateway.port, Script(0, 110), patience_s=PATIENCE_S))
        await asyncio.sleep(2.05)
        proxy.toxic = replace(proxy.toxic, blackhole=frozenset({"up"}))
        hidden_at = asyncio.get_running_loop().time()
        await asyncio.sleep(5.0)
        proxy.toxic = Toxic()
        proxy.reset()
        shown_at = asyncio.get_running_loop().time()
        record = await talking
        acks = [m["safe_bytes"] for at, m in record.messages if m["type"] == "ack" and hidden_at + 0.5 < at < shown_at]
        figure.add("acks meanwhile", len(acks), 3, least=True)
        figure.add("bytes that became safe meanwhile", max(acks, default=0) - min(acks, default=0), 0)
        # The end of a frame is not the end of the millisecond after it.
        figure.add("audio called safe too early", record.overacknowledged_ms(), 2, "ms")
        figure.add("not whole and faultless", int(not (record.whole and record.verdict().faultless)), 0)
    figure.settle()


async def test_who_has_not_spoken_yet_is_carried_over_too() -> None:
    """A recognizer says nothing in silence: that it has not spoken is no reason to give its caller up."""
    figure = Figure(
        "trap-silent-caller", "A caller who has not spoken yet survives an outage as any other",
        "6 s of silence, an outage of 3 s in its midst, then speech",
    )  # fmt: skip
    async with StandIn() as upstream, Cable(upstream.port) as cable, GatewayProcess(cable.endpoint) as gateway:
        scripts = [Script(n, 20, pauses=((0, 60),)) for n in range(3)]
        talking = asyncio.gather(*(native(gateway.port, script, patience_s=PATIENCE_S) for script in scripts))
        await asyncio.sleep(2.0)
        cable.away()
        await asyncio.sleep(3.0)
        cable.back()
        records = await talking
        figure.add("streams not whole and faultless", sum(not (r.whole and r.verdict().faultless) for r in records), 0)
        figure.failures += [str(r.errors)[:300] for r in records if r.errors][:1]
    figure.settle()


async def test_the_wrong_status_of_a_broken_call_reaches_nobody() -> None:
    """grpc.aio says INTERNAL where its own write met the end of a call: for a recognizer that is gone it is no bug."""
    figure = Figure(
        "trap-status", "A recognizer that is lost is called unavailable or late, never an internal error",
        "20 streams at a fast pace, the recognizer killed in their midst and gone for good",
    )  # fmt: skip
    settings = {"ASR_FAILOVER_TIMEOUT_MS": "1500"}
    async with StandIn() as upstream, GatewayProcess(upstream.endpoint, **settings) as gateway:
        scripts = [Script(n, 200, pace=4.0, min_chunk=400, max_chunk=800) for n in range(20)]
        talking = asyncio.gather(*(native(gateway.port, script, patience_s=PATIENCE_S) for script in scripts))
        await asyncio.sleep(2.0)
        await upstream.kill()
        records = await talking
        codes = [e["code"] for r in records for e in r.errors]
        figure.add("streams told", len(codes), 20, least=True)
        figure.add("told of an internal error", sum(code not in ("unavailable", "timeout") for code in codes), 0)
        figure.add("words lost without a gap", sum(r.verdict().lost for r in records), 0)
        figure.demand("Traceback" not in gateway.log(), "a traceback in the log")
    figure.settle()
