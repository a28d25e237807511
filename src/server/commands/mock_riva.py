"""`riva-gateway mock-riva`: a Riva server that is not there, for tests and demonstrations without a GPU."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer

from asr.mock.plan import DEFAULT_PLAN, MockPlan
from asr.settings import load_settings
from server.commands.connection import read_plan
from server.commands.exits import Exit, Stop, command, run_async
from server.logs import configure_logs
from server.settings import ServerSettings


@command
def mock_riva(
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on. Default 127.0.0.1. [dim]ASR_MOCK_HOST[/dim]"),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            "--grpc-port", help="Riva's gRPC; 0 takes a free one. Default 50051. [dim]ASR_MOCK_GRPC_PORT[/dim]"
        ),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            "--http-port",
            help="A NIM's HTTP and realtime WebSocket; 0 takes a free one. Default 9000. [dim]ASR_MOCK_HTTP_PORT[/dim]",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="What it says, when, and how it fails: TOML or JSON. [dim]ASR_MOCK_PLAN[/dim]",
        ),
    ] = None,
) -> None:
    """Run a stand-in for a Riva / Speech NIM container. It hears nothing; it plays its plan.

    [dim]$[/dim] riva-gateway mock-riva &
    [dim]$[/dim] riva-gateway transcribe talk.wav --server localhost:50051
    """
    settings = load_settings(
        ServerSettings,
        {
            "asr_mock_plan": plan,
            "asr_mock_host": host,
            "asr_mock_grpc_port": grpc_port,
            "asr_mock_http_port": http_port,
        },
    )
    configure_logs(settings.log_level, settings.log_format)
    address = (settings.asr_mock_host, settings.asr_mock_grpc_port, settings.asr_mock_http_port)
    script = DEFAULT_PLAN if settings.asr_mock_plan is None else read_plan(settings.asr_mock_plan)
    try:
        run_async(_serve(script, *address))
    except OSError as error:
        raise _cannot_listen(error, *address) from None


def _cannot_listen(error: OSError, host: str, grpc_port: int, http_port: int) -> Stop:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        message = f"{host} is not an address of this machine. Correct --host or ASR_MOCK_HOST."
        return Stop(message, Exit.CONFIGURATION)
    # gRPC tells no number: only the HTTP port's own socket does.
    port, flag, key = grpc_port, "--grpc-port", "ASR_MOCK_GRPC_PORT"
    if error.errno is not None:
        port, flag, key = http_port, "--http-port", "ASR_MOCK_HTTP_PORT"
    return Stop(
        f"Cannot listen on {host}:{port}: the port is in use, or this user may not open it. Choose another with "
        f"{flag} or {key}; 0 takes a free one.",
        Exit.CONFIGURATION,
    )


async def _serve(plan: MockPlan, host: str, grpc_port: int, http_port: int) -> None:
    # The HTTP stack is heavy, and the other commands do without it.
    from server.standin import StandinAddress, serve_standin

    def started(address: StandinAddress) -> None:
        typer.echo(f"Riva gRPC: {address.host}:{address.grpc_port}")
        typer.echo(f"NIM HTTP: http://{address.host}:{address.http_port}")

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await serve_standin(plan, stop=stop, started=started, host=host, grpc_port=grpc_port, http_port=http_port)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
