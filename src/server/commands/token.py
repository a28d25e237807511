"""`riva-gateway token`: a short-lived token, made here with the gateways' secret, or by a gateway for a key."""

from __future__ import annotations

import secrets
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from asr.config import GatewayConfig
from server.access.grants import Grant, Scope
from server.access.own_tokens import Minted, OwnTokens
from server.access.token_secret import token_secrets
from server.commands.connection import CaCert, Connection, Insecure, engine_config, read_settings
from server.commands.exits import Exit, Stop, command, complain, run_async
from server.commands.key import ScopeFlag
from server.commands.lengths import seconds
from server.commands.minting import ask_gateway
from server.settings import ServerSettings

OPERATOR = Grant("key local operator")
"""Whoever holds the secret itself."""


@command
def token(
    scope: ScopeFlag = None,
    ttl: Annotated[
        str | None,
        typer.Option("--ttl", metavar="TIME", help="It ends after: 30s, 5m. Default, and most: TOKEN_TTL_MS."),
    ] = None,
    single_use: Annotated[bool, typer.Option("--single-use", help="It opens one connection only.")] = False,
    subject: Annotated[
        str,
        typer.Option(
            "--subject",
            metavar="S",
            help="For whom it is, in your own words: what one subject makes is hidden from others. Only a digest of it "
            "is kept.",
        ),
    ] = "",
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            "-s",
            metavar="URL",
            help="Let this gateway make it, for the key in ASR_API_KEY, which needs the scope mint. Unset: made here, "
            "with TOKEN_SECRET or the secret in STATE_DIR. [dim]No key in the environment[/dim]",
        ),
    ] = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
) -> None:
    """Make a short-lived token, as for a browser, which must not hold a key.

    [dim]$[/dim] riva-gateway token --single-use
    [dim]$[/dim] ASR_API_KEY=rgw_… riva-gateway token --server https://gateway:8443 --subject user-17
    """
    settings = read_settings({})
    ttl_ms = None if ttl is None else seconds(ttl, "--ttl") * 1000
    if server is None:
        if ttl_ms is not None and ttl_ms > settings.token_ttl_ms:
            text = f"--ttl {ttl}: {settings.token_ttl_ms // 1000} s is the most here; TOKEN_TTL_MS sets it."
            raise Stop(text, Exit.CONFIGURATION)
        if ca_cert is not None or insecure:
            raise Stop("--ca-cert and --insecure say how to reach a server: give --server too.", Exit.CONFIGURATION)
        made = _made_here(settings, scope, ttl_ms, subject, single_use)
    else:
        config = engine_config(Connection(server=server, ca_cert=ca_cert, insecure=insecure))
        if not isinstance(config, GatewayConfig):
            raise Stop(f"--server {server!r}: tokens are made over https://host:port.", Exit.CONFIGURATION)
        if not config.token:
            raise Stop("ASR_API_KEY is not set: the gateway makes a token for a key only.", Exit.CONFIGURATION)
        asked: dict[str, object] = {"single_use": single_use}
        if scope:
            asked["scopes"] = [one.value for one in scope]
        if ttl_ms is not None:
            asked["ttl_ms"] = ttl_ms
        if subject:
            asked["subject"] = subject
        made = run_async(ask_gateway(config, asked))
    typer.echo(made.token)
    if sys.stdout.isatty():
        until = datetime.fromtimestamp(made.expires_at, UTC)
        scopes = ", ".join(sorted(made.scopes))
        complain(f"allows {scopes}{' once' if made.single_use else ''}, until {until:%H:%M:%S} UTC")


def _made_here(
    settings: ServerSettings, scopes: list[Scope] | None, ttl_ms: int | None, subject: str, single_use: bool
) -> Minted:
    tokens = OwnTokens(
        token_secrets(settings),
        max_ttl_ms=settings.token_ttl_ms,
        unix_time=time.time,
        token_hex=secrets.token_hex,
    )
    return tokens.mint(OPERATOR, scopes=scopes, ttl_ms=ttl_ms, subject=subject, single_use=single_use)
