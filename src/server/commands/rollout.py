"""`riva-gateway rollout`: where new streams go: on, off, back to the former recognizer, a part to a canary."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from asr.config import GatewayConfig
from server.commands.connection import CaCert, Gateway, Insecure, read_settings
from server.commands.exits import Exit, Stop, command, run_async
from server.commands.rollout_ask import ask_gateway, change_file
from server.commands.tables import AsJson
from server.commands.target import certificate_to_trust, parse_server
from server.rollout.control import read_file
from server.rollout.state import Position, Wanted, in_words
from server.settings import ServerSettings

TIMEOUT_MS = 5_000
_PIPE_COLUMNS = 200


class What(StrEnum):
    """What is to be done."""

    SHOW = "show"
    ON = "on"
    OFF = "off"
    FORMER = "former"
    CANARY = "canary"
    ABORT = "abort"


@command
def rollout(
    what: Annotated[
        What,
        typer.Argument(
            help="on: new streams go to the usual recognizer. off: they are refused. former: they go to "
            "RIVA_FORMER_ENDPOINTS. canary PERCENT: so many go to RIVA_CANARY_ENDPOINTS. abort: none do. "
            "show: how things are."
        ),
    ] = What.SHOW,
    percent: Annotated[int | None, typer.Argument(min=0, max=100, help="After canary.", show_default=False)] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For the log, and for those refused.")] = "",
    server: Gateway = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Ask nobody: read or write this state file (rollout.json)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send new streams elsewhere, within two seconds and without a restart; streams under way are left alone.

    [dim]$[/dim] riva-gateway rollout
    [dim]$[/dim] riva-gateway rollout canary 5 --reason "parakeet 1.2 on trial"
    [dim]$[/dim] riva-gateway rollout off --reason "the recognizer is being replaced"

    A gateway with AUTH on wants a key with the scope admin, in ASR_API_KEY.
    """
    change = _change(what, percent, reason)
    if file is not None:
        if server is not None or ca_cert is not None or insecure:
            raise Stop("--file asks no gateway: leave --server, --ca-cert and --insecure out.", Exit.CONFIGURATION)
        told = _by_file(file, change)
    else:
        told = run_async(ask_gateway(gateway_at(server, ca_cert, insecure=insecure), change))
    if as_json:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif change is None:
        _show(told)
    else:
        typer.echo(" ".join(filter(None, (told["in_words"], told.get("note", "")))))


def _change(what: What, percent: int | None, reason: str) -> dict[str, Any] | None:
    if (percent is not None) != (what is What.CANARY):
        text = "Give canary its percentage: riva-gateway rollout canary 5." if percent is None else ""
        raise Stop(text or f"A percentage goes with canary, not with {what.value}.", Exit.CONFIGURATION)
    match what:
        case What.SHOW:
            return None
        case What.CANARY:
            return {"canary_percent": percent, "reason": reason}
        case What.ABORT:
            return {"canary_percent": 0, "reason": reason}
        case _:
            return {"position": Position(what.value).value, "reason": reason}


def _by_file(path: Path, change: dict[str, Any] | None) -> dict[str, Any]:
    settings = read_settings({})
    configured = Wanted(Position(settings.asr_switch), settings.asr_canary_percent)
    wanted = read_file(path, configured) if change is None else change_file(path, configured, change)
    note = "" if change is None else f"Written to {path}; a gateway that watches it obeys within two seconds."
    return {**json.loads(wanted.to_json()), "in_words": in_words(wanted), "note": note}


def gateway_at(server: str | None, ca_cert: Path | None, *, insecure: bool) -> GatewayConfig:
    """How to ask the gateway that is meant: the one of `server`, of ASR_SERVER, or of this machine.

    Raises:
        Stop: it cannot be told which one that is.
    """
    settings = read_settings({"asr_server": server, "asr_insecure": insecure or None})
    address = settings.asr_server or _own_address(settings)
    target = parse_server(address)
    if target.kind != "gateway":
        raise Stop(f"{address} is a Riva server. A gateway is named as https://host:port.", Exit.CONFIGURATION)
    if ca_cert is not None and not ca_cert.is_file():
        raise Stop(f"--ca-cert {ca_cert}: there is no such file.", Exit.CONFIGURATION)
    trusted = ca_cert or settings.asr_ca_cert
    if trusted is None and not settings.asr_insecure:
        trusted = certificate_to_trust(target, settings.state_dir, own=settings.tls_cert)
    token = settings.asr_api_key.get_secret_value() if settings.asr_api_key is not None else ""
    return GatewayConfig(
        url=target.address,
        token=token,
        ca_cert=trusted,
        insecure=settings.asr_insecure,
        http_timeout_ms=TIMEOUT_MS,
    )


def _own_address(settings: ServerSettings) -> str:
    """Where a gateway with these settings is, seen from its own machine."""
    if not settings.port:
        raise Stop("PORT is 0, so the gateway may be anywhere. Name it with --server.", Exit.CONFIGURATION)
    host = "localhost" if settings.host in ("0.0.0.0", "::", "127.0.0.1", "::1") else settings.host  # noqa: S104 - compared
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls else 'http'}://{shown}:{settings.port}"


def _show(told: dict[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, soft_wrap=True, highlight=False)
    console.print(escape(told["in_words"]))
    if told["changed_at"]:
        why = f": {told['reason']}" if told["reason"] else ""
        console.print(escape(f"Since {told['changed_at']}, by {told['by'] or 'nobody named'}{why}"))
    canary = told.get("canary")
    if not canary:
        return
    console.print(escape(f"The canary, step {canary['step']}: {canary['verdict']}. {canary['in_words']}"))
    if canary["not_compared"]:
        served = ", ".join(canary["models"]) or "nothing yet"
        text = f"{canary['not_compared']} streams only the base could serve; the canary serves {served}."
        console.print(escape(text))
    arms = Table("arm", "streams", "errors", "before words", "without words", "confidence")
    for name, arm in canary["arms"].items():
        counts = (arm["streams"], arm["errors"], arm["errors_before_words"], arm["without_words"])
        arms.add_row(name, *map(str, counts), _number(arm["confidence"], ".2f"))
    console.print(arms)
    figures = Table("figure", "base", "canary", "difference", "between", "evidence")
    for row in canary["figures"]:
        figures.add_row(*_figure_row(row))
    console.print(figures)


def _figure_row(row: dict[str, Any]) -> tuple[str, ...]:
    name = str(row["figure"])
    style = {"final_latency": ".3f", "words_per_minute": ".0f"}.get(name, ".1%")
    between = ""
    if row["low"] is not None and row["high"] is not None:
        between = f"{row['low']:+.1%} and {row['high']:+.1%}"
    return (
        {"final_latency": "final latency (s)"}.get(name, name.replace("_", " ")),
        _number(row["base"], style),
        _number(row["canary"], style),
        _number(row["difference"], "+.1%"),
        between,
        f"{row['evidence']:.2g} of 80",
    )


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)
