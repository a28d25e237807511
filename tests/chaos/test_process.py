"""Rows 61 to 66 of the fault catalogue: signals, kills, descriptors and clocks.

The rows that were selected are played first, then each test looks at its own; `CHAOS_SEED` seeds them.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from chaos.play import Outcome, seed
from chaos.process_rows import PROCESS_ROWS
from chaos.scene import Row, play_all

ROWS = PROCESS_ROWS
PARALLEL = 4


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """What became of each selected row."""
    selected = {
        item.callspec.params["row"].number
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "row" in item.callspec.params
    }
    parallel = int(os.environ.get("CHAOS_PARALLEL", str(PARALLEL)))
    return asyncio.run(play_all([row for row in ROWS if row.number in selected], seed(), parallel))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_process(row: Row, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[row.number]
    print(f"seed {outcome.seed}, row {row.number} ({row.fault}): {outcome}")  # noqa: T201 - replay needs the seed
    assert not outcome.failures, "\n".join(outcome.failures)
