"""`riva-gateway mock-riva`: a Riva server that is not there, for tests and demonstrations without a GPU."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from asr.errors import ASRError
from asr.mock.plan import DEFAULT_PLAN, MockPlan, load_plan
from asr.settings import load_settings
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
    try:
        script = DEFAULT_PLAN if settings.asr_mock_plan is None else load_plan(settings.asr_mock_plan)
    except ASRError as error:
        raise Stop(error.message, Exit.CONFIGURATION) from None
    try:
        run_async(_serve(script, *address))
    except OSError as error:
        raise Stop(
            f"Cannot listen on {address[0]}, ports {address[1]} and {address[2]}: {error.strerror or error} "
            "Choose others with --grpc-port and --http-port; 0 takes a free one.",
            Exit.CONFIGURATION,
        ) from None


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
