"""Faults that begin while the streams run: each takes the stage and strikes its first site."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from chaos.proxy import Proxy, Way
from chaos.stage import Stage
from chaos.standin import StandIn

Strike = Callable[[Stage], Awaitable[None]]


def _standin(stage: Stage) -> StandIn:
    standin = stage.sites[0].standin
    assert standin is not None
    return standin


def _proxy(stage: Stage) -> Proxy:
    proxy = stage.sites[0].proxy
    assert proxy is not None
    return proxy


def _healed(stage: Stage) -> None:
    stage.healed_at = asyncio.get_running_loop().time()


async def kill(stage: Stage) -> None:
    """SIGKILL, for good."""
    await _standin(stage).kill()


async def kill_and_restart(stage: Stage) -> None:
    """SIGKILL; a second later it is started again on its port."""
    await _standin(stage).kill()
    await asyncio.sleep(1.0)
    await _standin(stage).start()
    _healed(stage)


async def freeze(stage: Stage) -> None:
    """SIGSTOP."""
    _standin(stage).freeze()


async def reset(stage: Stage) -> None:
    """RST on every connection; new ones are accepted."""
    _proxy(stage).reset()


async def finish(stage: Stage) -> None:
    """FIN on every connection; new ones are accepted."""
    _proxy(stage).finish()


def blackhole(*ways: Way) -> Strike:
    """Bytes vanish on these ways, for good."""

    async def strike(stage: Stage) -> None:
        _proxy(stage).toxic.blackhole = frozenset(ways)

    return strike


async def flap(stage: Stage) -> None:
    """Two seconds away, two seconds there, three times."""
    for _ in range(3):
        await _proxy(stage).down()
        await asyncio.sleep(2)
        await _proxy(stage).up()
        _healed(stage)
        await asyncio.sleep(2)


def outage(seconds: float) -> Strike:
    """Refused connections for so long."""

    async def strike(stage: Stage) -> None:
        await _proxy(stage).down()
        await asyncio.sleep(seconds)
        await _proxy(stage).up()
        _healed(stage)

    return strike


async def corrupt(stage: Stage) -> None:
    """A byte in every piece is wrong, for a third of a second."""
    proxy = _proxy(stage)
    proxy.toxic = replace(proxy.toxic, corrupt=frozenset({"up", "down"}))
    await asyncio.sleep(0.3)
    proxy.toxic = replace(proxy.toxic, corrupt=frozenset())
    _healed(stage)
