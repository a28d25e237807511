"""`riva-gateway schema`: the JSON Schemas, for code generators and validators."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from asr import transcript, wire
from server.commands.exits import command
from server.telemetry import log_schema


class SchemaName(StrEnum):
    """What there is a schema of."""

    MESSAGES = "messages"
    TRANSCRIPT = "transcript"
    LOG = "log"


@command
def schema(
    name: Annotated[
        SchemaName,
        typer.Argument(
            help="messages: the WebSocket protocol asr.v1. transcript: `transcribe --format json`. "
            "log: a line of the gateway's log with LOG_FORMAT=json."
        ),
    ] = SchemaName.MESSAGES,
) -> None:
    """Print a JSON Schema (2020-12).

    [dim]$[/dim] riva-gateway schema > asr.v1.schema.json
    """
    schemas = {
        SchemaName.MESSAGES: wire.schema,
        SchemaName.TRANSCRIPT: transcript.schema,
        SchemaName.LOG: log_schema.schema,
    }
    body = schemas[name]()
    typer.echo(json.dumps(body, indent=2, ensure_ascii=False))
