"""`riva-gateway report`: how the streams of the last minutes, hours and days went, by the gateway's own records."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from asr.settings import load_settings
from server.commands.exits import Exit, Stop, command
from server.settings import ServerSettings
from server.telemetry.records import day_of_file
from server.telemetry.report import (
    ERRORS,
    FINAL_S,
    FIRST_PARTIAL_S,
    Figures,
    Report,
    Spread,
    Window,
    parse_window,
    tally,
)
from server.telemetry.report import as_json as figures_json

DEFAULT_WINDOWS = "30m,1h,3h,6h,12h,24h,3d"
MAX_WINDOWS = 32
MAX_LINE_BYTES = 65_536
_PIPE_COLUMNS = 200
_COLUMNS = (
    "window",
    "streams",
    "errors",
    "refused",
    "1st partial s\np50 / p95 / p99",
    "final s\np50 / p95 / p99",
    "queue wait s\np50 / p95 / p99",
    "RTFx\np50 / p95 / p99",
    "audio h",
)
_LESS = (_COLUMNS[7], _COLUMNS[6], _COLUMNS[8], _COLUMNS[3])
_KEPT = {None: "", True: " ✓", False: " ✗"}
_STYLES = {None: "", True: "green", False: "bold red"}


@command
def report(
    more: Annotated[list[str] | None, typer.Argument(metavar="WINDOW", help="More windows, as --windows.")] = None,
    windows: Annotated[
        list[str] | None,
        typer.Option(
            "--windows",
            "-w",
            metavar="WINDOW...",
            help="How far back: numbers with m, h, d or w, with spaces or commas in between. "
            f"Default {DEFAULT_WINDOWS.replace(',', ' ')}.",
        ),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option("--records", metavar="DIR", help="The folder of the records. [dim]RECORDS_DIR[/dim]"),
    ] = None,
    face: Annotated[
        str, typer.Option("--face", metavar="NAME", help="Only streams of this protocol: native, riva_grpc, openai …")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Tell how the gateway did: streams, errors, latencies, speed; no Prometheus is needed.

    [dim]$[/dim] riva-gateway report --windows 30m 1h 24h
    [dim]$[/dim] riva-gateway report --records /var/lib/riva-gateway/records --face riva_grpc --json

    ✓ and ✗ tell whether an objective is kept: the first words within 0.3 s and finals within 0.8 s in 95 of 100
    streams, and fewer than 5 of 1000 streams failed.
    """
    asked = _windows([*(windows or ()), *(more or ())] or [DEFAULT_WINDOWS])
    folder = records.expanduser() if records is not None else load_settings(ServerSettings).records_folder
    now = datetime.now(UTC)
    found = tally(_lines(_files(folder, asked, now)), asked, now, face)
    if as_json:
        _print_json(found, folder, now)
    else:
        _print_table(found, folder, face)


def _windows(texts: Sequence[str]) -> list[Window]:
    names = [name for text in texts for name in text.replace(",", " ").split()]
    if not 0 < len(names) <= MAX_WINDOWS:
        raise Stop(f"--windows: give 1 to {MAX_WINDOWS} windows, as in --windows 30m 1h 24h.", Exit.CONFIGURATION)
    try:
        return list({window.seconds: window for window in map(parse_window, names)}.values())
    except ValueError as error:
        raise Stop(f"--windows: {error}", Exit.CONFIGURATION) from None


def _files(folder: Path, windows: Sequence[Window], now: datetime) -> list[Path]:
    """Those that may hold records of the windows, oldest first."""
    oldest = (now - timedelta(seconds=max(window.seconds for window in windows))).date()
    try:
        days = {path: day_of_file(path.name) for path in folder.iterdir()}
    except FileNotFoundError:
        raise Stop(
            f"There is no folder {folder}. A gateway makes it with its first stream, unless RECORDS=off; "
            "--records or RECORDS_DIR name another.",
            Exit.BAD_INPUT,
        ) from None
    except OSError as error:
        raise Stop(f"The folder {folder} cannot be read: {error.strerror}.", Exit.BAD_INPUT) from None
    return sorted(path for path, day in days.items() if day is not None and day >= oldest)


def _lines(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        try:
            with path.open("rb") as file:
                while line := file.readline(MAX_LINE_BYTES):
                    yield line
        except FileNotFoundError:  # a gateway has just tidied up
            continue
        except OSError as error:
            raise Stop(f"The file {path} cannot be read: {error.strerror}.", Exit.BAD_INPUT) from None


def _print_json(found: Report, folder: Path, now: datetime) -> None:
    told = {
        "now": now.isoformat(),
        "records": str(folder),
        "unreadable": found.unreadable,
        "ahead": found.ahead,
        "windows": figures_json(found),
    }
    typer.echo(json.dumps(told, indent=2, ensure_ascii=False))


def _print_table(found: Report, folder: Path, face: str) -> None:
    if not any(figures.streams or figures.refused for figures in found.windows):
        others = f" There are some of: {', '.join(sorted(found.faces))}." if face and found.faces else ""
        of_face = f" of {face}" if face else ""
        typer.echo(f"{folder} has no record{of_face} within these windows.{others}")
    else:
        _show(found)
        typer.echo(
            f"objectives: 1st partial p95 ≤ {FIRST_PARTIAL_S:g} s, final p95 ≤ {FINAL_S:g} s, errors < {ERRORS:.1%}"
        )
    if found.unreadable:
        typer.echo(f"{found.unreadable} lines are no records: cut off, or still being written.")
    if found.ahead:
        typer.echo(f"{found.ahead} records are from after now and in no window: a clock was, or is, wrong.")


def _show(found: Report) -> None:
    """A row for each window; where they do not fit on the terminal, without the columns that matter less."""
    terminal = sys.stdout.isatty()
    console = Console() if terminal else Console(width=_PIPE_COLUMNS)
    shown = list(_COLUMNS)
    left_out = []
    table = _table(found, shown, framed=terminal)
    for name in _LESS:
        if console.measure(table, options=console.options.update(max_width=_PIPE_COLUMNS)).maximum <= console.width:
            break
        shown.remove(name)
        left_out.append(name.partition("\n")[0])
        table = _table(found, shown, framed=terminal)
    console.print(table)
    if left_out:
        typer.echo(f"no room for: {', '.join(left_out)}; --json has them")


def _table(found: Report, shown: Sequence[str], *, framed: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if framed else None, pad_edge=False, collapse_padding=framed)
    for name in shown:
        table.add_column(name, justify="left" if name == _COLUMNS[0] else "right", vertical="bottom", no_wrap=True)
    for figures in found.windows:
        cells = dict(zip(_COLUMNS, _cells(figures), strict=True))
        table.add_row(*(cells[name] for name in shown))
    return table


def _cells(figures: Figures) -> list[Text]:
    errors = "–" if figures.errors is None else f"{figures.errors:.2%}"
    return [
        Text(figures.window.name),
        Text(str(figures.streams)),
        _marked(errors, figures.errors_keep),
        Text(str(figures.refused)),
        _marked(_three(figures.first_partial), figures.first_partial.keeps),
        _marked(_three(figures.final), figures.final.keeps),
        Text(_three(figures.queue_wait)),
        Text(_three(figures.rtfx, digits=1)),
        Text(f"{figures.audio_s / 3600:.2f}"),
    ]


def _three(spread: Spread, digits: int = 3) -> str:
    if not spread.count:
        return "–"
    return " / ".join(f"{spread.percentile(percent) or 0.0:.{digits}f}" for percent in (50, 95, 99))


def _marked(text: str, kept: bool | None) -> Text:
    return Text(text + _KEPT[kept], style=_STYLES[kept])
