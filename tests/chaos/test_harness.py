"""The three kinds of client through a real gateway, without any fault: the measure reads zero."""

from __future__ import annotations

import asyncio

from chaos.clients import Record, Script, native
from chaos.gateway_process import GatewayProcess
from chaos.other_clients import end_dialect, riva_grpc
from chaos.standin import StandIn

PATIENCE_S = 30.0


async def test_nothing_is_wrong_where_nothing_fails() -> None:
    async with StandIn() as upstream, GatewayProcess(upstream.endpoint) as gateway:
        warm = await native(gateway.port, Script(0, 5, pace=10), patience_s=PATIENCE_S)
        assert warm.whole, (warm.messages, gateway.log())
        before = gateway.footprint()
        scripts = [Script(n, 25, pauses=((12, 5),), pace=4, seed=n, min_chunk=1) for n in range(6)]
        records: list[Record] = await asyncio.gather(
            *(native(gateway.port, s, patience_s=PATIENCE_S) for s in scripts[:4]),
            end_dialect(gateway.port, scripts[4], patience_s=PATIENCE_S),
            riva_grpc(gateway.grpc_port, scripts[5], patience_s=PATIENCE_S),
        )
        for record in records:
            assert record.whole, record.messages[-2:]
            assert record.verdict().faultless, record.verdict()
            assert not record.hung
            assert record.misnumbered() == 0
            assert record.wait_ms() < 2_000
        assert await gateway.leftovers(before) == []
        state = await upstream.state()
        assert (state["open"], state["opened"]) == (0, 7)
        assert not any(stream["torn"] or stream["damaged"] for stream in state["streams"])


async def test_a_fault_shows_on_the_measure() -> None:
    async with StandIn() as upstream, GatewayProcess(upstream.endpoint) as gateway:
        talking = asyncio.create_task(native(gateway.port, Script(0, 60), patience_s=PATIENCE_S))
        await asyncio.sleep(2.5)
        await upstream.kill()
        record = await talking
        assert not record.hung
        assert not record.whole
        assert record.errors
        assert record.verdict().gapped > 10
