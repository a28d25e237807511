"""Probes are answered at once, whatever the recognizer does."""

from __future__ import annotations

import asyncio

from asr.engine import Readiness
from server.readiness import ReadinessWatch


class Recognizer:
    """Says whether it is ready when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.says: asyncio.Queue[Readiness] = asyncio.Queue()

    async def ready(self) -> Readiness:
        self.asked += 1
        return await self.says.get()


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_an_answer_that_is_there_is_given() -> None:
    async def ready() -> Readiness:
        return Readiness(True)

    assert (await ReadinessWatch(ready, patience_s=5).state()).ready


async def test_one_question_at_a_time_and_the_answer_is_for_the_next_who_asks() -> None:
    recognizer = Recognizer()
    watch = ReadinessWatch(recognizer.ready, patience_s=0.001)
    assert not any(state.ready for state in await asyncio.gather(*(watch.state() for _ in range(20))))
    assert recognizer.asked == 1
    recognizer.says.put_nowait(Readiness(True))
    await settled()
    assert (await watch.state()).ready  # known, while the next question is under way
    await watch.aclose()


async def test_ready_that_cannot_be_confirmed_counts_no_more_after_a_while() -> None:
    recognizer = Recognizer()
    watch = ReadinessWatch(recognizer.ready, patience_s=0.001, stale_s=0.05)
    recognizer.says.put_nowait(Readiness(True))
    assert (await watch.state()).ready
    assert (await watch.state()).ready
    async with asyncio.timeout(5):
        while (state := await watch.state()).ready:
            await asyncio.sleep(0.01)
    assert "not answered" in state.detail
    await watch.aclose()


async def test_closing_leaves_nothing_behind() -> None:
    watch = ReadinessWatch(Recognizer().ready, patience_s=0.001)
    await watch.state()
    await watch.aclose()
    assert len(asyncio.all_tasks()) == 1
