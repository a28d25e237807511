"""Rows 37 to 53 of the fault catalogue: what clients can do to a gateway and to each other.

The rows that were selected are played first, then each test looks at its own; `CHAOS_SEED` seeds them.
"""

from __future__ import annotations

import pytest

from chaos.client_rows import CLIENT_ROWS
from chaos.crowd_rows import CROWD_ROWS
from chaos.input_rows import INPUT_ROWS
from chaos.play import Outcome
from chaos.resume_rows import RESUME_ROWS
from chaos.scene import Row, check, play_selected

ROWS = (*CLIENT_ROWS, *RESUME_ROWS, *INPUT_ROWS, *CROWD_ROWS)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """What became of each selected row."""
    return play_selected(request, ROWS)


@pytest.mark.slow
@pytest.mark.alone(first=True)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_client(row: Row, outcomes: dict[str, Outcome]) -> None:
    check(row, outcomes[row.number])


def test_every_row_is_there_once() -> None:
    numbers = [row.number for row in ROWS]
    assert len(set(numbers)) == len(numbers)
    assert {int(number.rstrip("ab")) for number in numbers} == {*range(37, 54), 65}
    assert all(row.why or not row.settings for row in ROWS)
