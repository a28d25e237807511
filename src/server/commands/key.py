"""`riva-gateway key`: API keys are made, listed and revoked, in the file that the gateway follows."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from server.access.grants import CLIENT_SCOPES, Allowance, Scope
from server.access.key_file import BadKeyFile, KeyRecord, make_key
from server.access.keys import changing, load_keys
from server.commands.connection import read_settings
from server.commands.exits import Exit, Stop, command, complain
from server.commands.lengths import seconds
from server.commands.tables import AsJson

key = typer.Typer(
    help="API keys of a gateway: make, list, revoke.\n\n[dim]$[/dim] riva-gateway key create mobile-app --expires 90d",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_LIMITS = "What it may have; unset: what the settings allow to all"
ScopeFlag = Annotated[
    list[Scope] | None,
    typer.Option(
        "--scope",
        help="What it may do: transcribe (streams, recordings), jobs, mint (tokens for others), metrics, admin. Can be "
        "repeated. Default: transcribe and jobs.",
    ),
]


@key.command("create")
@command
def create(
    name: Annotated[
        str,
        typer.Argument(help="Whose it is. Keys of one name are one caller: make a second, then revoke the first."),
    ],
    scope: ScopeFlag = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="It ends after: 12h, 90d. Default: never.")
    ] = None,
    streams: Annotated[
        int,
        typer.Option(
            "--streams",
            metavar="N",
            min=0,
            max=100_000,
            help="Streams at a time.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = 0,
    starts_per_minute: Annotated[
        int,
        typer.Option(
            "--starts-per-minute",
            metavar="N",
            min=0,
            max=1_000_000,
            help="Streams and requests begun in a minute.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = 0,
    minutes_per_day: Annotated[
        int,
        typer.Option(
            "--minutes-per-day",
            metavar="N",
            min=0,
            max=10_000_000,
            help="Minutes of audio in a day (UTC).",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = 0,
) -> None:
    """Make a key and print it, this once; the file keeps a hash. A running gateway knows it within 5 seconds.

    [dim]$[/dim] riva-gateway key create mobile-app --expires 90d --streams 20
    [dim]$[/dim] riva-gateway key create dashboard --scope metrics > key.txt
    """
    lifetime = None if expires is None else timedelta(seconds=seconds(expires, "--expires"))
    settings = read_settings({})
    try:
        made, record = make_key(
            name,
            token_hex=secrets.token_hex,
            now=datetime.now(UTC),
            scopes=frozenset(scope) if scope else CLIENT_SCOPES,
            allowance=Allowance(streams, starts_per_minute, minutes_per_day),
            lifetime=lifetime,
        )
    except ValueError as error:
        raise Stop(str(error), Exit.CONFIGURATION) from None
    was_first = not settings.keys_file.is_file()
    with _changing(settings.keys_file) as records:
        records[record.id] = record
    typer.echo(made)
    if sys.stdout.isatty():
        complain(f"this key is shown only now; its hash, as {record.id}, is in {settings.keys_file}")
    if was_first and settings.auth != "on":
        off = settings.auth == "off"
        complain(
            "AUTH is off: no gateway asks for it" if off else "a gateway that runs asks for it from its next start"
        )


@key.command("list")
@command
def list_(as_json: AsJson = False) -> None:
    """List the keys there are, without anything secret.

    [dim]$[/dim] riva-gateway key list
    """
    path = read_settings({}).keys_file
    with _told(path):
        records = load_keys(path) if path.is_file() else {}
    now = datetime.now(UTC)
    if as_json:
        typer.echo(json.dumps([_as_json(record, now) for record in records.values()], indent=2))
        return
    columns = ("id", "name", "state", "scopes", "limits", "created", "expires", "last used")
    rows = [_row(record, now) for record in records.values()]
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table if rows else "No keys yet. Make one with: riva-gateway key create NAME")


@key.command("revoke")
@command
def revoke(
    which: Annotated[str, typer.Argument(metavar="ID|NAME", help="One key by its id, or all keys of a name.")],
) -> None:
    """Revoke a key, for ever. Streams that run with it end within 5 seconds.

    [dim]$[/dim] riva-gateway key revoke 3f9a1c5be207
    """
    now = datetime.now(UTC).replace(microsecond=0)
    with _changing(read_settings({}).keys_file) as records:
        meant = [record for record in records.values() if record.id == which]
        meant = meant or [record for record in records.values() if record.name == which]
        if not meant:
            raise Stop(f"There is no key {which!r}. `riva-gateway key list` names those there are.", Exit.BAD_INPUT)
        good = [record for record in meant if record.revoked is None]
        for record in good:
            records[record.id] = replace(record, revoked=now)
    for record in good:
        typer.echo(f"revoked {record.id} {record.name}")
    if not good:
        complain(f"{which} was revoked before")


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, KeyRecord]]:
    with _told(path), changing(path) as records:
        yield records


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except BadKeyFile as error:
        raise Stop(f"The file of API keys, {path}, cannot be used: {error}.", Exit.CONFIGURATION) from None
    except OSError as error:
        raise Stop(f"The file of API keys, {path}, cannot be used: {error.strerror}.", Exit.CONFIGURATION) from None


def _state(record: KeyRecord, now: datetime) -> str:
    if record.revoked is not None:
        return "revoked"
    return "expired" if record.expires is not None and record.expires <= now else "good"


def _row(record: KeyRecord, now: datetime) -> tuple[str, ...]:
    limits = record.allowance
    bounds = (
        (limits.streams, "streams"),
        (limits.starts_per_minute, "starts/min"),
        (limits.audio_minutes_per_day, "min/day"),
    )
    return (
        record.id,
        record.name,
        _state(record, now),
        ",".join(sorted(record.scopes)),
        ", ".join(f"{count} {what}" for count, what in bounds if count) or "-",
        f"{record.created:%Y-%m-%d}",
        "never" if record.expires is None else f"{record.expires:%Y-%m-%d}",
        "-" if record.last_used is None else record.last_used.isoformat(),
    )


def _as_json(record: KeyRecord, now: datetime) -> dict[str, object]:
    limits = record.allowance
    return {
        "id": record.id,
        "name": record.name,
        "state": _state(record, now),
        "scopes": sorted(record.scopes),
        "streams": limits.streams,
        "starts_per_minute": limits.starts_per_minute,
        "minutes_per_day": limits.audio_minutes_per_day,
        "created": record.created.isoformat(),
        "expires": None if record.expires is None else record.expires.isoformat(),
        "last_used": None if record.last_used is None else record.last_used.isoformat(),
    }
