"""`models` and `health`: what the recognizer serves, and whether it can."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from asr.engine import Model, Readiness
from asr.errors import Action, ASRError, Code
from server.commands.connection import CaCert, Connection, EngineFlag, Insecure, Recognizer, Server, connect, recognizer
from server.commands.exits import Exit, command, exit_of, run_async

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


@command
def models(
    engine: EngineFlag = None,
    server: Server = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """List the models that can be asked for, with their languages.

    [dim]$[/dim] riva-gateway models --server riva.example:50051
    """
    rows = run_async(_models(recognizer(Connection(engine, server, ca_cert, insecure))))
    if as_json:
        typer.echo(json.dumps([model_json(row) for row in rows], indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        table = Table("model", "languages", "streaming", "offline")
        for row in rows:
            table.add_row(escape(row.name), escape(", ".join(row.languages)), _yes(row.streaming), _yes(row.offline))
        Console().print(table)
    else:
        for row in rows:
            typer.echo("\t".join((row.name, ",".join(row.languages), _yes(row.streaming), _yes(row.offline))))


@command
def health(
    engine: EngineFlag = None,
    server: Server = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Say whether streams can be served now: exit status 0 when ready, 3 when not.

    [dim]$[/dim] riva-gateway health --server https://localhost:8443 && echo up
    """
    to = recognizer(Connection(engine, server, ca_cert, insecure))
    name, readiness = run_async(_health(to))
    status = Exit.OK if readiness.ready else Exit.UNAVAILABLE
    if not readiness.ready:
        advised = to.advise(ASRError(Code.UNAVAILABLE, readiness.detail, retryable=False, action=Action.NONE))
        status, readiness = exit_of(advised), Readiness(False, advised.message)
    if as_json:
        body = {"engine": name, "ready": readiness.ready, "detail": readiness.detail}
        typer.echo(json.dumps(body, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        table = Table("engine", "ready", "detail")
        style = "green" if readiness.ready else "red"
        table.add_row(name, f"[{style}]{_yes(readiness.ready)}[/{style}]", escape(readiness.detail))
        Console().print(table)
    else:
        typer.echo("\t".join((name, "ready" if readiness.ready else "not ready", readiness.detail)).rstrip())
    if status is not Exit.OK:
        raise typer.Exit(status)


def model_json(model: Model) -> dict[str, object]:
    """A model as `models --json` prints it."""
    return {
        "name": model.name,
        "languages": list(model.languages),
        "streaming": model.streaming,
        "offline": model.offline,
        "parameters": dict(model.parameters),
    }


async def _models(to: Recognizer) -> list[Model]:
    async with connect(to) as client:
        return list(await client.models())


async def _health(to: Recognizer) -> tuple[str, Readiness]:
    async with connect(to) as client:
        return client.engine_name, await client.health()


def _yes(value: bool) -> str:
    return "yes" if value else "no"
