"""Runs and comparisons as tables: framed on a terminal, plain columns in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from evaluation.compare import Comparison, Difference
from evaluation.figures import NOTHING, duration, named, revised, written
from evaluation.results import GoldenRun
from evaluation.summary import Row, Summary
from server.commands.golden_words import bracketed, change, count, findable, pair, probability, with_interval

_PIPE_COLUMNS = 200
"""In a pipe nothing is folded."""

_RUN = (
    "condition",
    "clips",
    "WER [95 %]",
    "CER",
    "1st partial\np50 / p95 ms",
    "final\np50 / p95 ms",
    "cadence\nms",
    "revised",
    "RTFx",
)
_LESS_OF_A_RUN = ("CER", "cadence\nms", "RTFx", "revised", "clips")
_COMPARISON = ("figure", "of", "clips", "A", "B", "B - A [95 %]", "p", "detectable", "verdict")
_LESS_OF_A_COMPARISON = ("clips", "p", "detectable")


def show_run(run: GoldenRun, summary: Summary) -> None:
    """One row per condition, and one over all."""
    info = run.info
    model = f" ({info.model})" if info.model else ""
    _line(
        f"{info.set_name}: {count(len(run.clips), 'clip')}, {duration(summary.all.audio_ms)}, on {info.target}{model}"
    )
    rows = [(_cells(row), "") for row in summary.conditions]
    _show(_RUN, [rows, [(_cells(summary.all), "bold")]], _LESS_OF_A_RUN)


def show_comparison(comparison: Comparison) -> None:
    """One row per figure that decides, then those of single conditions that moved."""
    a, b = comparison.a, comparison.b
    _line(f"A: {a.target}, {a.started_at}")
    _line(f"B: {b.target}, {b.started_at}")
    deciding = [one for one in comparison.differences if one.condition == "all"]
    others = [one for one in comparison.differences if one.condition != "all"]
    moved = [one for one in others if abs(one.difference) > one.margin and one.p_value <= comparison.alpha]
    groups = [[(_compared(one), _style(one)) for one in deciding], [(_compared(one), "dim") for one in moved]]
    _show(_COMPARISON, groups, _LESS_OF_A_COMPARISON)
    if len(moved) < len(others):
        _line(f"not shown: {len(others) - len(moved)} figures of single conditions that did not get worse for certain")


def _cells(row: Row) -> Sequence[str]:
    wer = with_interval("wer", row.wer)
    if row.wer.value is None:
        wer = count(row.false_finals, "false final") if row.false_finals else "none heard"
    gap = row.partial_gap_p50_ms.value
    return (
        row.condition,
        f"{row.clips} ({row.failed} failed)" if row.failed else str(row.clips),
        wer,
        written("cer", row.cer.value),
        pair(row.first_partial_p50_ms, row.first_partial_p95_ms),
        pair(row.final_p50_ms, row.final_p95_ms),
        NOTHING if gap is None else f"{gap:.0f}",
        revised(row.revised.value, row.revised.count, said=row.wer.count),
        written("speed", row.speed.value),
    )


def _compared(one: Difference) -> Sequence[str]:
    metric = one.metric
    return (
        named(metric),
        one.condition,
        str(one.clips),
        written(metric, one.a),
        written(metric, one.b),
        f"{change(metric, one.difference)} {bracketed(metric, one.interval)}".rstrip(),
        probability(one.p_value),
        change(metric, findable(one)),
        _verdict(one),
    )


def _verdict(one: Difference) -> str:
    if one.condition != "all":
        return NOTHING  # single conditions do not decide
    return "worse" if one.worse else "better" if one.better else "same"


def _style(one: Difference) -> str:
    return "bold red" if one.worse else "green" if one.better else ""


def _show(columns: Sequence[str], groups: Sequence[Sequence[tuple[Sequence[str], str]]], less: Sequence[str]) -> None:
    """Print rows (cells, style); where they do not fit on the terminal, without the columns that matter less."""
    terminal = sys.stdout.isatty()
    console = Console() if terminal else Console(width=_PIPE_COLUMNS)
    shown = list(columns)
    left_out = []
    table = _table(columns, groups, shown, framed=terminal)
    for name in less:
        if console.measure(table, options=console.options.update(max_width=_PIPE_COLUMNS)).maximum <= console.width:
            break
        shown.remove(name)
        left_out.append(name.replace("\n", " "))
        table = _table(columns, groups, shown, framed=terminal)
    console.print(table)
    if left_out:
        _line(f"no room for: {', '.join(left_out)}")


def _table(
    columns: Sequence[str],
    groups: Sequence[Sequence[tuple[Sequence[str], str]]],
    shown: Sequence[str],
    *,
    framed: bool,
) -> Table:
    table = Table(box=box.SIMPLE_HEAD if framed else None, pad_edge=False, collapse_padding=framed)
    for name in shown:
        first = name == columns[0]
        table.add_column(escape(name), justify="left" if first else "right", vertical="bottom", overflow="fold")
    for rows in groups:
        for cells, style in rows:
            kept = [cell for name, cell in zip(columns, cells, strict=True) if name in shown]
            table.add_row(*(Text(cell) for cell in kept), style=style)
        table.add_section()
    return table


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
