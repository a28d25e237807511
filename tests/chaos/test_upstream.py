"""Rows 1 to 36 of the fault catalogue: the recognizer and the way to it fail, 20 streams at a time are on.

The rows that were selected are played first, some at a time, since most of them wait; then each test looks at its
own. `CHAOS_SEED` seeds them, `CHAOS_TARGET=relay` plays them against the plain relay, whose failures are only
written down, and `CHAOS_PARALLEL` is how many are on at a time.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from chaos.catalogue import UPSTREAM, Row
from chaos.play import Outcome, play, seed, target

PARALLEL = 6
ROW_LIMIT_S = 120.0


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """What became of each selected row."""
    selected = {
        row
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        if isinstance(row := item.callspec.params.get("row"), Row)
    }
    able = [row for row in UPSTREAM if row in selected and (row.for_relay or target() != "relay")]
    return asyncio.run(_play_all(able))


async def _play_all(rows: list[Row]) -> dict[str, Outcome]:
    gate = asyncio.Semaphore(int(os.environ.get("CHAOS_PARALLEL", str(PARALLEL))))
    found: dict[str, Outcome] = {}

    async def one(row: Row) -> None:
        async with gate:
            try:
                async with asyncio.timeout(ROW_LIMIT_S):
                    outcome = await play(row, seed=seed(), target=target())
            except Exception as error:
                outcome = Outcome(row.number, row.fault, row.injected, target(), seed(), row.streams, row.answer_ms)
                outcome.failures.append(f"the row could not be played: {error!r}")
        outcome.write()
        found[row.number] = outcome

    await asyncio.gather(*map(one, rows))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", UPSTREAM, ids=lambda row: row.number)
def test_upstream(row: Row, outcomes: dict[str, Outcome]) -> None:
    if target() == "relay" and not row.for_relay:
        return
    outcome = outcomes[row.number]
    print(f"seed {outcome.seed}, row {row.number} ({row.fault}): {outcome}")  # noqa: T201 - replay needs the seed
    assert outcome.target == "relay" or not outcome.failures, "\n".join(outcome.failures)
