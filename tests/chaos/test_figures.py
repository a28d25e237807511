"""A line says what was measured against which bound, and fails where it was not kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos import figures, scene
from chaos.figures import Figure, figures_table, load_figures, percentile, settle_all
from chaos.play import Outcome
from chaos.scene import Row, Scene, check, play_all
from timing import TRIES, Late


def test_a_bound_that_is_not_kept_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    figure = Figure("r", "fast", "much", seed=7)
    figure.add("latency", 12.345, 20, "ms")
    figure.settle()
    figure.add("late", 21, 20, "ms")
    figure.add("few", 19, 20, least=True)
    with pytest.raises(AssertionError, match=r"late 21 ms \(≤ 20\)\nfew 19 \(≥ 20\)"):
        figure.settle()
    (line,) = load_figures(tmp_path)
    row = figures_table([line]).splitlines()[-1]
    assert row == ("| r | fast | much | latency 12.35 ms (≤ 20); late 21 ms (≤ 20); few 19 (≥ 20) | **2 failures** |")


def test_what_is_only_late_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    late = Figure("a", "fast", "much", seed=7, plays=2)
    late.add("latency", 22, 20, "ms", timed=True)
    with pytest.raises(Late, match=r"^latency 22 ms \(≤ 20\)$"):
        late.settle()
    wrong = Figure("b", "right", "little", seed=7, failures=["a word was lost"])
    with pytest.raises(AssertionError, match="a word was lost") as raised:
        settle_all([late, wrong])
    assert raised.type is AssertionError, "nothing but a time is measured again"
    rows = figures_table(load_figures(tmp_path)).splitlines()[-2:]
    assert [row.rsplit("| ", 1)[1] for row in rows] == [
        "**1 failures** (time 2 that it was measured) |", "**1 failures** |",
    ]  # fmt: skip


@pytest.mark.parametrize(("late", "wrong", "plays"), [(0, [], 1), (1, [], 2), (9, [], TRIES), (9, ["lost"], 1)])
async def test_a_row_that_is_only_late_is_played_again(
    late: int, wrong: list[str], plays: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def played(row: Row, seed: int, plays: int = 1) -> Outcome:
        outcome = Outcome(row.number, row.fault, row.injected, "gateway", seed, 1, 1_000, plays=plays)
        outcome.late += ["too late"] if plays <= late else []
        outcome.failures += wrong
        return outcome

    monkeypatch.setattr(scene, "play", played)
    row = Row("1", "a fault", "somehow", nothing)
    outcome = (await play_all([row], seed=7, parallel=1))["1"]
    assert outcome.plays == plays
    if not late:
        check(row, outcome)
    elif wrong:
        with pytest.raises(AssertionError, match="lost\ntoo late") as raised:
            check(row, outcome)
        assert raised.type is AssertionError
    elif late > TRIES:
        with pytest.raises(Late, match="too late"):
            check(row, outcome)


async def nothing(_: Scene) -> None:
    """It is not played here."""


def test_percentiles() -> None:
    assert percentile([], 95) == 0
    assert percentile([5], 50) == 5
    assert percentile(list(range(1, 101)), 99) == 99
    assert percentile([1, 2, 3, 4], 50) == 2
