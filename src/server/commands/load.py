"""`riva-gateway load`: how many live streams a gateway carries, and what happens beyond.

The flags are read here; `load_run` does the work, and is imported when it is asked for: it brings numpy, which few
other commands need.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.commands.connection import CaCert, Connection, Insecure, read_settings, recognizer
from server.commands.exits import command
from server.commands.golden_flags import HtmlFlag, JsonFlag, QuietFlag
from server.commands.target import parse_server

DEFAULT_URL = "https://localhost:8443"
_LOAD = "Load"
_SLO = "What a row must keep"
_LOOK = "Looks at the gateway"


class Shape(StrEnum):
    """How the sessions come."""

    STEADY = "steady"
    RAMP = "ramp"
    SPIKE = "spike"
    SOAK = "soak"
    CHURN = "churn"


@command
def load(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            "--server",
            "-s",
            metavar="URL",
            help="Where the streams go: https://host:port is a gateway's WebSocket; host:port or grpcs://host:port is "
            f"gRPC, a gateway's or Riva's own. Default {DEFAULT_URL}. [dim]ASR_SERVER[/dim]",
        ),
    ] = None,
    sessions: Annotated[
        str, typer.Option("--sessions", "-n", metavar="N,N…", help="Sessions at a time: one row for each number.")
    ] = "1,5,10",
    mode: Annotated[
        Shape,
        typer.Option(
            help="steady: all speak together. ramp: one after another joins. spike: a few speak, then all come at "
            "once. soak: as many speak for long, looked at for leaks. churn: short sessions, some broken off.",
            rich_help_panel=_LOAD,
        ),
    ] = Shape.STEADY,
    duration: Annotated[
        str, typer.Option(metavar="TIME", help="How long a row takes: 30s, 5m, 1h.", rich_help_panel=_LOAD)
    ] = "30s",
    ramp: Annotated[
        str,
        typer.Option(metavar="TIME", help="Over how long the sessions come. Default: at once.", rich_help_panel=_LOAD),
    ] = "0s",
    session_length: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long one session speaks in soak (default 1m) and churn (default 1s to 5s).",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    find_limit: Annotated[
        bool,
        typer.Option(
            "--find-limit",
            help="Go on after the last number, by doubling and then by halves, until the limit is found.",
            rich_help_panel=_LOAD,
        ),
    ] = False,
    set_: Annotated[
        Path | None,
        typer.Option(
            "--set",
            metavar="DIR",
            help="What is said: a folder of sound with texts. Default: the short clean clips of tests/golden, where "
            "the working directory has it.",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only these conditions, as 'noise_*'. Can be repeated.", rich_help_panel=_LOAD
        ),
    ] = None,
    chunk_ms: Annotated[
        int,
        typer.Option("--chunk-ms", metavar="MS", min=10, max=1000, help="Audio per message.", rich_help_panel=_LOAD),
    ] = 100,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=256,
            help="Processes that send. Default: as many as the sessions need.",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    slo_first_partial_ms: Annotated[
        float,
        typer.Option("--slo-first-partial-ms", metavar="MS", min=1, help="First partial, p95.", rich_help_panel=_SLO),
    ] = 300.0,
    slo_final_ms: Annotated[
        float,
        typer.Option(
            "--slo-final-ms", metavar="MS", min=1, help="Final after the end of speech, p95.", rich_help_panel=_SLO
        ),
    ] = 800.0,
    slo_errors: Annotated[
        float,
        typer.Option(
            "--slo-errors",
            metavar="PERCENT",
            min=0,
            max=100,
            help="Sessions that fail or are refused.",
            rich_help_panel=_SLO,
        ),
    ] = 0.5,
    watch: Annotated[
        str | None,
        typer.Option(
            "--watch",
            metavar="URL",
            help="The gateway whose /readyz is looked at: its https://host:port. Default: that of --url.",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    pid: Annotated[
        list[int] | None,
        typer.Option(
            "--pid",
            metavar="PID",
            min=1,
            help="Look at this process of this machine too, with its children. Can be repeated.",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    json_: JsonFlag = None,
    html: HtmlFlag = None,
    quiet: QuietFlag = False,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
) -> None:
    """Stream clips in real time, as many at once as asked, and say how many sessions a gateway carries.

    [dim]$[/dim] riva-gateway load --sessions 1,10,50,100 --html load.html
    [dim]$[/dim] riva-gateway load --url riva.example:50051 --sessions 10 --find-limit
    [dim]$[/dim] riva-gateway load --mode soak --sessions 20 --duration 1h --json soak.json

    Exit status 0: a concurrency keeps the SLO; 1: none does, or a leak was found, or streams failed without a clear
    refusal.
    """
    from server.commands.load_run import LoadFlags, run_load

    settings = read_settings({"asr_server": url})
    named = settings.asr_server or DEFAULT_URL
    target = parse_server(named, flag="--url")
    flags = LoadFlags(
        sessions=sessions,
        mode=mode.value,
        duration=duration,
        ramp=ramp,
        session_length=session_length,
        find_limit=find_limit,
        set_folder=set_,
        only=tuple(only or ()),
        chunk_ms=chunk_ms,
        workers=workers,
        slo_first_partial_ms=slo_first_partial_ms,
        slo_final_ms=slo_final_ms,
        slo_errors=slo_errors,
        watch=watch,
        pids=tuple(dict.fromkeys(pid or ())),
        json_file=json_,
        html_file=html,
        quiet=quiet,
    )
    run_load(flags, target, recognizer(Connection(server=named, ca_cert=ca_cert, insecure=insecure)))
