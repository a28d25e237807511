"""`riva-gateway golden shadow`: two recognizers hear the same at the same time; what differs is told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import typer

from asr.errors import ASRError
from evaluation.clips import ClipSet
from evaluation.compare import Disagreement
from evaluation.report import comparison_page
from evaluation.results import GoldenRun
from evaluation.shadow import run_shadow
from server.commands.connection import Recognizer, connect
from server.commands.exits import Exit, Stop, exit_of, run_async
from server.commands.golden_choice import target_of
from server.commands.golden_compare import compared, document, show
from server.commands.golden_files import check_places, write_json, write_text
from server.commands.golden_progress import ClipBar
from server.commands.golden_run import GoldenFlags, told_failures
from server.commands.golden_words import count

MAX_SHOWN = 10
"""So many clips with different words are shown; the files have all."""


def run_shadowed(flags: GoldenFlags, one: Recognizer, candidate: Recognizer, *, alpha: float) -> None:
    """Measure both, compare, show, write.

    Raises:
        Stop: one of them cannot be measured.
        Exit: with status 1, when the candidate is worse, or a stream of its failed.
    """
    check_places(*flags.places)
    a, b = run_async(_measure(flags, one, candidate, flags.clips()))
    told_failures(a, "A: ")
    failed = told_failures(b, "the candidate: ")
    comparison, differing = compared(a, b, alpha)
    if not flags.quiet:
        _show_words(differing, len(a.clips))
    show(comparison, quiet=flags.quiet)
    if flags.json_file is not None:
        runs = {"a_run": a.to_json(), "b_run": b.to_json()}
        write_json(flags.json_file, {**document(comparison, differing), **runs})
    if flags.html_file is not None:
        write_text(flags.html_file, comparison_page(a, b, comparison, differing))
    if failed or comparison.worse:
        raise typer.Exit(Exit.FAILED)


async def _measure(
    flags: GoldenFlags, one: Recognizer, candidate: Recognizer, clips: ClipSet
) -> tuple[GoldenRun, GoldenRun]:
    async with connect(one) as a:
        await a.models()  # what is wrong with A is told of A
        try:
            async with connect(candidate) as b:
                with ClipBar(clips.clips, tail_ms=flags.tail_ms, quiet=flags.quiet) as bar:
                    return await run_shadow(
                        a,
                        b,
                        clips,
                        flags.plan(target_of(one.config)),
                        now=datetime.now(UTC),
                        candidate=target_of(candidate.config),
                        on_clip=bar.done,
                    )
        except ASRError as error:
            raise Stop(f"--candidate: {error.message}", exit_of(error)) from None


def _show_words(differing: Sequence[Disagreement], clips: int) -> None:
    typer.echo(f"different words in {len(differing)} of {count(clips, 'clip')}")
    for one in differing[:MAX_SHOWN]:
        typer.echo(f"  {one.id}")
        typer.echo(f"    said       {one.reference or '(nothing)'}")
        typer.echo(f"    A          {one.a or '(nothing)'}  [{count(one.a_errors, 'error')}]")
        typer.echo(f"    candidate  {one.b or '(nothing)'}  [{count(one.b_errors, 'error')}]")
    if len(differing) > MAX_SHOWN:
        typer.echo(f"  and {len(differing) - MAX_SHOWN} more")
