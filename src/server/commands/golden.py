"""`riva-gateway golden`: how well and how fast a recognizer hears a set of clips, and whether a new one is worse.

The flags are read here; `golden_run`, `golden_compare` and `golden_shadow` do the work, and are imported when it is
asked for: they bring numpy, which no other command needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.commands.connection import (
    CaCert,
    Connection,
    EngineFlag,
    Insecure,
    Language,
    MockPlan,
    ModelName,
    Server,
    read_settings,
    recognizer,
)
from server.commands.exits import Exit, Stop, command
from server.commands.golden_flags import (
    DEFAULT_ALPHA,
    AlphaFlag,
    ChunkFlag,
    ConcurrencyFlag,
    HtmlFlag,
    JsonFlag,
    LabelFlag,
    OnlyFlag,
    Pace,
    PaceFlag,
    ProfileFlag,
    QuietFlag,
    SampleFlag,
    SetFlag,
    TailFlag,
    WriteProfileFlag,
    labels,
)
from server.commands.target import parse_server

golden = typer.Typer(rich_markup_mode="rich")

ResultFile = Annotated[Path, typer.Argument(metavar="A.json", help="A result of `golden --json`.")]


@golden.callback(invoke_without_command=True)
@command
def run(
    context: typer.Context,
    set_: SetFlag = None,
    engine: EngineFlag = None,
    server: Server = None,
    language: Language = None,
    model: ModelName = None,
    profile: ProfileFlag = None,
    only: OnlyFlag = None,
    sample: SampleFlag = None,
    pace: PaceFlag = Pace.AUTO,
    chunk_ms: ChunkFlag = 100,
    tail_ms: TailFlag = 1500,
    concurrency: ConcurrencyFlag = 2,
    json_: JsonFlag = None,
    html: HtmlFlag = None,
    write_profile: WriteProfileFlag = None,
    label: LabelFlag = None,
    quiet: QuietFlag = False,
    mock_plan: MockPlan = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
) -> None:
    """Score a set of clips: word errors and latencies, with confidence intervals, held against limits.

    [dim]$[/dim] riva-gateway golden --engine local
    [dim]$[/dim] riva-gateway golden --server riva.example:50051 --json before.json --html before.html
    [dim]$[/dim] riva-gateway golden --server https://gateway:8443 --only clean --only 'noise_*'
    [dim]$[/dim] riva-gateway golden compare before.json after.json

    Exit status 0: every limit of the profile is kept and every stream ended well; 1: not so.
    """
    if context.invoked_subcommand is not None:
        _refuse_flags(context)
        return
    from server.commands.golden_run import GoldenFlags, run_golden

    settings = read_settings({"asr_language": language, "asr_model": model})
    flags = GoldenFlags(
        set_folder=set_,
        only=tuple(only or ()),
        sample=sample,
        pace=pace.value,
        chunk_ms=chunk_ms,
        tail_ms=tail_ms,
        concurrency=concurrency,
        language=settings.asr_language,
        model=settings.asr_model,
        labels=labels(label),
        json_file=json_,
        html_file=html,
        profile_file=write_profile,
        quiet=quiet,
    )
    run_golden(flags, recognizer(Connection(engine, server, ca_cert, insecure, mock_plan)), profile)


@golden.command()
@command
def compare(
    a: ResultFile,
    b: Annotated[Path, typer.Argument(metavar="B.json", help="A later result, of the same set.")],
    alpha: AlphaFlag = DEFAULT_ALPHA,
    json_: JsonFlag = None,
    html: HtmlFlag = None,
    quiet: QuietFlag = False,
) -> None:
    """Say whether B is worse than A: the release gate.

    [dim]$[/dim] riva-gateway golden compare before.json after.json --html change.html

    Exit status 0: B is not worse; 1: it is, by more than chance and the margin explain.
    """
    from server.commands.golden_compare import compare_files

    compare_files(a, b, alpha=alpha, json_file=json_, html_file=html, quiet=quiet)


@golden.command()
@command
def shadow(
    candidate: Annotated[
        str, typer.Option("--candidate", "-c", metavar="URL", help="The server that may replace it; as --server.")
    ],
    set_: SetFlag = None,
    engine: EngineFlag = None,
    server: Server = None,
    language: Language = None,
    model: ModelName = None,
    only: OnlyFlag = None,
    sample: SampleFlag = None,
    pace: PaceFlag = Pace.AUTO,
    chunk_ms: ChunkFlag = 100,
    tail_ms: TailFlag = 1500,
    concurrency: ConcurrencyFlag = 1,
    alpha: AlphaFlag = DEFAULT_ALPHA,
    json_: JsonFlag = None,
    html: HtmlFlag = None,
    label: LabelFlag = None,
    quiet: QuietFlag = False,
    mock_plan: MockPlan = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
) -> None:
    """Stream the same sound to two recognizers at the same moments, and tell what differs: for canaries.

    [dim]$[/dim] riva-gateway golden shadow --server https://gateway:8443 --candidate https://canary:8443

    Exit status 0: the candidate is not worse; 1: it is.
    """
    from server.commands.golden_run import GoldenFlags
    from server.commands.golden_shadow import run_shadowed

    settings = read_settings({"asr_language": language, "asr_model": model})
    flags = GoldenFlags(
        set_folder=set_,
        only=tuple(only or ()),
        sample=sample,
        pace=pace.value,
        chunk_ms=chunk_ms,
        tail_ms=tail_ms,
        concurrency=concurrency,
        language=settings.asr_language,
        model=settings.asr_model,
        labels=labels(label),
        json_file=json_,
        html_file=html,
        quiet=quiet,
    )
    parse_server(candidate, flag="--candidate")  # what is wrong with it is said of this flag
    one = recognizer(Connection(engine, server, ca_cert, insecure, mock_plan))
    run_shadowed(flags, one, recognizer(Connection(None, candidate, ca_cert, insecure)), alpha=alpha)


@golden.command()
@command
def report(
    result: ResultFile,
    profile: ProfileFlag = None,
    html: HtmlFlag = None,
    write_profile: WriteProfileFlag = None,
    quiet: QuietFlag = False,
) -> None:
    """Show a stored result again, and hold it against other limits.

    [dim]$[/dim] riva-gateway golden report before.json --profile riva --html before.html
    [dim]$[/dim] riva-gateway golden report before.json --write-profile mine.toml
    """
    from server.commands.golden_run import report_file

    report_file(result, profile, html_file=html, profile_file=write_profile, quiet=quiet)


def _refuse_flags(context: typer.Context) -> None:
    """A flag before `compare`, `shadow` or `report` would be read by nobody."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            word = context.invoked_subcommand
            raise Stop(f"{parameter.opts[0]} goes behind the word {word}: golden {word} …", Exit.CONFIGURATION)
