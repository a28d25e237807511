"""`riva-gateway golden compare`: two stored runs, and whether the second is worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from asr.errors import ASRError
from evaluation.compare import Comparison, Disagreement, compare, disagreements
from evaluation.report import comparison_page
from evaluation.results import GoldenRun
from server.commands.exits import Exit, Stop, exit_of
from server.commands.golden_files import check_places, read_run, write_json, write_text
from server.commands.golden_tables import show_comparison
from server.commands.golden_words import comparison_verdict

SCHEMA = "riva-gateway.comparison/1"


def compare_files(
    a_file: Path, b_file: Path, *, alpha: float, json_file: Path | None, html_file: Path | None, quiet: bool
) -> None:
    """Compare, show, write.

    Raises:
        Stop: a file cannot be read, or the runs have no clip in common.
        Exit: with status 1, when B is worse.
    """
    check_places(("--json", json_file), ("--html", html_file))
    a, b = read_run(a_file), read_run(b_file)
    comparison, differing = compared(a, b, alpha)
    show(comparison, quiet=quiet)
    if json_file is not None:
        write_json(json_file, document(comparison, differing))
    if html_file is not None:
        write_text(html_file, comparison_page(a, b, comparison, differing))
    if comparison.worse:
        raise typer.Exit(Exit.FAILED)


def compared(a: GoldenRun, b: GoldenRun, alpha: float) -> tuple[Comparison, Sequence[Disagreement]]:
    """The comparison, and the clips in which words differ.

    Raises:
        Stop: the runs cannot be compared.
    """
    try:
        return compare(a, b, alpha=alpha), disagreements(a, b)
    except ASRError as error:
        raise Stop(error.message, exit_of(error)) from None


def document(comparison: Comparison, differing: Sequence[Disagreement]) -> dict[str, Any]:
    """The comparison for other programs."""
    return {
        "schema": SCHEMA,
        "worse": comparison.worse,
        **asdict(comparison),
        "disagreements": [asdict(one) for one in differing],
    }


def show(comparison: Comparison, *, quiet: bool) -> None:
    """The table and the verdict on stdout."""
    if not quiet:
        show_comparison(comparison)
    for line in comparison_verdict(comparison):
        typer.echo(line)
