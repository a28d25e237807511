"""The command line's table of contents."""

from __future__ import annotations

from typing import Annotated

import typer

import asr
from server.commands.golden import golden
from server.commands.key import key
from server.commands.listen import listen
from server.commands.load import load
from server.commands.mock_riva import mock_riva
from server.commands.report import report
from server.commands.rollout import rollout
from server.commands.schema import schema
from server.commands.serve import serve
from server.commands.status import status
from server.commands.tables import health, models
from server.commands.token import token
from server.commands.transcribe import transcribe
from server.commands.usage import OneLineGroup

_EPILOG = (
    "A flag that has a key in the environment or in [bold].env[/bold] names it in its help; the flag wins. "
    "Exit status: 0 done, 1 failed, 2 wrong flag or setting, 3 not reachable or not ready, 4 bad input, 130 Ctrl-C."
)

app = typer.Typer(
    name="riva-gateway",
    cls=OneLineGroup,
    help="Speech in, words out: the gateway in front of NVIDIA Riva / Speech NIM, and its embedded recognizer.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # the pretty ones can show local variables, and those may hold secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"riva-gateway {asr.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


app.command()(serve)
app.command()(transcribe)
app.command()(listen)
app.command()(models)
app.command()(health)
app.command()(status)
app.command("mock-riva")(mock_riva)
app.command()(schema)
app.command()(report)
app.command()(rollout)
app.add_typer(golden, name="golden")
app.command()(load)
app.add_typer(key, name="key")
app.command()(token)
