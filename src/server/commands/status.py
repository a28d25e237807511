"""`riva-gateway status`: what the status page shows, for somebody at a shell."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer

from server.commands.connection import CaCert, Gateway, Insecure
from server.commands.exits import Exit, command, run_async
from server.commands.rollout import gateway_at
from server.commands.rollout_ask import ask_status
from server.commands.tables import AsJson
from server.telemetry.state import Level

_STYLES = {Level.SERVING: "green", Level.DEGRADED: "yellow"}
_NONE = "-"


@command
def status(
    server: Gateway = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Say how a gateway is: its recognizers, latencies, errors, jobs. Exit status 3 while it refuses new streams.

    [dim]$[/dim] riva-gateway status
    [dim]$[/dim] riva-gateway status --server https://gateway:8443

    A gateway with AUTH on wants a key with the scope metrics, in ASR_API_KEY.
    """
    told = run_async(ask_status(gateway_at(server, ca_cert, insecure=insecure)))
    level, words = told["state"]["level"], told["state"]["words"]
    if as_json:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        typer.secho(words, fg=_STYLES.get(level, "red") if sys.stdout.isatty() else None, bold=sys.stdout.isatty())
        for line in lines(told):
            typer.echo(line)
    if level not in _STYLES:
        raise typer.Exit(Exit.UNAVAILABLE)


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The status document in lines of text, but for its first sentence. Pure."""
    streams = told["streams"]
    faces = ", ".join(f"{face} {count}" for face, count in streams["by_face"].items())
    yield f"version {told['version']}, up for {_span(told['uptime_s'])}"
    yield f"streams {streams['in_use']} of {streams['limit']}" + (f": {faces}" if faces else "")
    if told["jobs"] is not None:
        yield "jobs " + ", ".join(f"{name} {count}" for name, count in told["jobs"].items() if name != "cancelled")
    if told["rollout"]:
        yield f"rollout: {told['rollout']['words']}"
    if told["endpoints"]:
        yield from _table(
            ("endpoint", "state", "breaker", "streams", "limit", "last failure"),
            [_endpoint(each) for each in told["endpoints"]],
        )
    yield from _table(
        ("last 5 minutes", "results", "p50 ms", "p95 ms", "in time", "objective"),
        [_latency(name, each) for name, each in told["latencies"].items()],
    )
    if told["errors"]:
        yield from _table(
            ("last hour's errors", "protocol", "times", "whose", "last at"), [_error(each) for each in told["errors"]]
        )


def _endpoint(each: Mapping[str, Any]) -> tuple[str, ...]:
    limit = _NONE if each["limit"] is None else str(each["limit"])
    return each["name"], each["state"], each["breaker"], str(each["streams"]), limit, each["detail"] or _NONE


def _latency(name: str, each: Mapping[str, Any]) -> tuple[str, ...]:
    in_time = _NONE if each["in_time"] is None else f"{each['in_time']:.1%}"
    objective = _NONE if each["objective_ms"] is None else f"95% in {each['objective_ms']} ms"
    times = (_NONE if each[key] is None else str(round(each[key])) for key in ("p50_ms", "p95_ms"))
    return name.replace("_", " "), str(each["count"]), *times, in_time, objective


def _error(each: Mapping[str, Any]) -> tuple[str, ...]:
    last = datetime.fromtimestamp(each["last_s"], UTC).strftime("%H:%M:%SZ")
    what = each["code"] + (" (refused)" if each["refused"] else "")
    return what, each["face"], str(each["count"]), "ours" if each["ours"] else "the client's", last


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _span(seconds: int) -> str:
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
