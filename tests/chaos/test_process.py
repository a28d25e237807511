"""Rows 61 to 66 of the fault catalogue: signals, kills, descriptors and clocks.

The rows that were selected are played first, then each test looks at its own; `CHAOS_SEED` seeds them.
"""

from __future__ import annotations

import pytest

from chaos.play import Outcome
from chaos.process_rows import PROCESS_ROWS
from chaos.scene import Row, check, play_selected

ROWS = PROCESS_ROWS


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """What became of each selected row."""
    return play_selected(request, ROWS)


@pytest.mark.slow
@pytest.mark.alone(first=True)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_process(row: Row, outcomes: dict[str, Outcome]) -> None:
    check(row, outcomes[row.number])
