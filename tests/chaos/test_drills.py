"""Drills: what goes wrong in a service's life, under load, with what its operators look at in the midst of it.

They are played before the first test, some side by side; the one that measures latencies is alone. Each test looks at
its own figure, which `chaos.report` writes into docs/reliability.md. What those who watch make of such an outage is
in tests/e2e/test_monitoring.py, certificates in test_tls_rotation.py there, the way back in test_rollout.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chaos.drill_agreement import agreement
from chaos.drill_disk import disk
from chaos.drill_drain import drain
from chaos.drill_keys import keys
from chaos.drill_noise import noise
from chaos.drill_sinks import sinks
from chaos.figures import Figure
from timing import TRIES

Drill = Callable[[], Awaitable[Figure | list[Figure]]]
WAVES: tuple[tuple[Drill, ...], ...] = ((agreement, keys), (drain, disk, noise), (sinks,))
"""Those of a wave are played side by side."""
DRILLS = [drill for wave in WAVES for drill in wave]
LIMIT_S = 120.0
ROWS = {
    "drill-upstream-dies": agreement,
    "drill-books-agree": agreement,
    "drill-key-revoked": keys,
    "drill-drain": drain,
    "drill-disk-fills": disk,
    "drill-log-bounded": noise,
    "drill-sinks-sick": sinks,
}


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> dict[str, Figure | Exception]:
    """What came of each drill that was selected, by its row."""
    wanted = {
        ROWS[item.callspec.params["row"]]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")
    }
    return asyncio.run(_play(wanted))


async def _play(wanted: set[Drill]) -> dict[str, Figure | Exception]:
    found: dict[str, Figure | Exception] = {}

    async def one(drill: Drill) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                came = await drill()
        except Exception as error:
            found.update({row: error for row, its in ROWS.items() if its is drill})
        else:
            found.update({figure.row: figure for figure in (came if isinstance(came, list) else [came])})

    for wave in WAVES:
        await asyncio.gather(*(one(drill) for drill in wave if drill in wanted))
    for plays in range(2, TRIES + 1):
        for drill in sorted(
            {ROWS[row] for row, figure in found.items() if isinstance(figure, Figure) and figure.only_late},
            key=DRILLS.index,
        ):
            await one(drill)
            for row, figure in found.items():
                if ROWS[row] is drill and isinstance(figure, Figure):
                    figure.plays = plays
    return found


@pytest.mark.slow
@pytest.mark.alone(first=True)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", ROWS)
def test_drill(row: str, figures: dict[str, Figure | Exception]) -> None:
    figure = figures[row]
    if isinstance(figure, Exception):
        raise figure
    figure.settle()
