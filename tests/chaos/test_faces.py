"""The other faces are carried over a dead recognizer just as the native one is."""

from __future__ import annotations

import asyncio

from chaos.clients import Script, native
from chaos.gateway_process import GatewayProcess
from chaos.other_clients import end_dialect, riva_grpc
from chaos.standin import StandIn

PATIENCE_S = 40.0


async def test_every_face_survives_the_death_of_a_recognizer() -> None:
    async with (
        StandIn() as first,
        StandIn() as second,
        GatewayProcess(f"{first.endpoint},{second.endpoint}") as gateway,
    ):
        before = gateway.footprint()
        scripts = [Script(n, 45, seed=3) for n in range(9)]
        talking = asyncio.gather(
            *(end_dialect(gateway.port, script, patience_s=PATIENCE_S) for script in scripts[:3]),
            *(riva_grpc(gateway.grpc_port, script, patience_s=PATIENCE_S) for script in scripts[3:6]),
            *(native(gateway.port, script, patience_s=PATIENCE_S) for script in scripts[6:]),
        )
        await asyncio.sleep(1.7)
        await first.kill()
        await asyncio.sleep(1.0)
        await first.start()
        await asyncio.sleep(1.0)
        await second.kill()
        for record in await talking:
            assert record.whole, (record.script.client, record.messages[-2:], gateway.log()[-2_000:])
            assert record.verdict().faultless, (record.script.client, record.verdict())
        assert await gateway.leftovers(before) == []
        assert (await first.state())["open"] == 0
