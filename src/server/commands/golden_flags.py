"""The flags that `golden` and its words share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.commands.exits import Exit, Stop

_STREAM = "Streaming"
_OUTPUT = "Output"

DEFAULT_ALPHA = 0.05


class Pace(StrEnum):
    """How fast the clips are streamed."""

    AUTO = "auto"
    REALTIME = "realtime"
    FAST = "fast"


SetFlag = Annotated[
    Path | None,
    typer.Option(
        "--set",
        metavar="DIR",
        help="The clips: a folder of sound with texts, or a set's own folder. Default: tests/golden, where the working "
        "directory has it.",
    ),
]
OnlyFlag = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Only these conditions, as 'noise_*'. Can be repeated."),
]
SampleFlag = Annotated[
    int | None,
    typer.Option(
        "--sample", metavar="N", min=1, help="Only N clips, spread evenly over the conditions; always the same ones."
    ),
]
PaceFlag = Annotated[
    Pace,
    typer.Option(
        "--pace",
        help="auto: as spoken, and clips over a minute as fast as they are taken. Latencies are told only of clips "
        "streamed as they are spoken.",
        rich_help_panel=_STREAM,
    ),
]
ChunkFlag = Annotated[
    int,
    typer.Option("--chunk-ms", metavar="MS", min=10, max=2000, help="Audio in one chunk.", rich_help_panel=_STREAM),
]
TailFlag = Annotated[
    int,
    typer.Option(
        "--tail-ms",
        metavar="MS",
        min=0,
        max=30_000,
        help="Silence streamed after each clip, in which its last final may come.",
        rich_help_panel=_STREAM,
    ),
]
ConcurrencyFlag = Annotated[
    int,
    typer.Option("--concurrency", metavar="N", min=1, max=1000, help="Clips at a time.", rich_help_panel=_STREAM),
]
LabelFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="Kept with the result, as build=1234. Can be repeated.",
        rich_help_panel=_OUTPUT,
    ),
]
JsonFlag = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result there.", rich_help_panel=_OUTPUT)
]
HtmlFlag = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Write a report with plots there, in one file.", rich_help_panel=_OUTPUT
    ),
]
WriteProfileFlag = Annotated[
    Path | None,
    typer.Option(
        "--write-profile",
        metavar="FILE",
        help="Write limits there, as TOML for --profile, that this run keeps and a worse one does not.",
        rich_help_panel=_OUTPUT,
    ),
]
QuietFlag = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no table, only the verdict.", rich_help_panel=_OUTPUT)
]
ProfileFlag = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="Limits to keep: riva, local, a TOML file, or none. Default: riva for Riva, local for the embedded "
        "recognizer where the set has the conditions that it names, none for the mock.",
    ),
]
AlphaFlag = Annotated[
    float,
    typer.Option(
        "--alpha",
        metavar="P",
        min=0.001,
        max=0.5,
        help="How probable it may be that B is called worse although it is not.",
    ),
]


def labels(given: list[str] | None) -> dict[str, str]:
    """`--label key=value` as a mapping.

    Raises:
        Stop: one has no `=`, or no key.
    """
    found: dict[str, str] = {}
    for label in given or []:
        key, equals, value = label.partition("=")
        if not equals or not key.strip():
            raise Stop(f"--label {label!r}: write it as key=value.", Exit.CONFIGURATION)
        found[key.strip()] = value.strip()
    return found
