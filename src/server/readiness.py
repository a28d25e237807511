"""What is known of the recognizer's readiness, for probes that must be answered at once.

An engine may take seconds to say whether it is ready. Whoever asks here waits a moment at most, and then gets what was
known last; what takes longer is finished for the next one who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asr.engine import Readiness

PATIENCE_S = 0.1
STALE_S = 10.0
ASK_TIMEOUT_S = 30.0


class ReadinessWatch:
    """Asks one question at a time, however many want to know.

    Args:
        ask: the question; it may take long.
        patience_s: how long one who asks waits for news.
        stale_s: a "ready" that could not be confirmed for so long counts no more.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[Readiness]], *, patience_s: float = PATIENCE_S, stale_s: float = STALE_S
    ) -> None:
        self._ask = ask
        self._patience_s = patience_s
        self._stale_s = stale_s
        self._known = Readiness(False, "The recognizer has not said yet whether it is ready.")
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def state(self) -> Readiness:
        """What is known now. Never raises; answers within `patience_s`."""
        loop = asyncio.get_running_loop()
        if self._asking is None or self._asking.done():
            self._asked_at = loop.time()
            self._asking = asyncio.create_task(self._find_out(), name="readiness")
        await asyncio.wait({self._asking}, timeout=self._patience_s)
        if not self._asking.done() and loop.time() - self._asked_at > self._stale_s:
            return Readiness(False, f"The recognizer has not answered for {self._stale_s:g} s.")
        return self._known

    async def aclose(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _find_out(self) -> None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                self._known = await self._ask()
        except TimeoutError:
            self._known = Readiness(False, f"The recognizer has not answered for {ASK_TIMEOUT_S:g} s.")
