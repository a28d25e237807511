"""A line says what was measured against which bound, and fails where it was not kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos import figures
from chaos.figures import Figure, figures_table, load_figures, percentile


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


def test_percentiles() -> None:
    assert percentile([], 95) == 0
    assert percentile([5], 50) == 5
    assert percentile(list(range(1, 101)), 99) == 99
    assert percentile([1, 2, 3, 4], 50) == 2
