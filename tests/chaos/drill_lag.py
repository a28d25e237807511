"""How late this process itself is: on a machine that does other work, too, a client's clock tells of that as well."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from chaos.clients import now
from chaos.figures import percentile

EVERY_S = 0.01
REFUSED_MS = 250
"""A refusal while the gateway ends every stream at once; without an outage it is 100 ms (`test_overload`)."""


class Lag:
    """Measures while it is entered.

    Attributes:
        seen: when it looked, and how many ms too late.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        self._task: asyncio.Task[None] | None = None

    def ms(self, percent: float, since: float = 0.0, until: float = float("inf")) -> float:
        """That percentile of it in that time. The gateway, on the same machine, is as late: count it twice."""
        return percentile([late for at, late in self.seen if since <= at < until], percent)

    async def _look(self) -> None:
        while True:
            due = now() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self.seen.append((due, (now() - due) * 1000))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
