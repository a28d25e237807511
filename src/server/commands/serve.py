"""`riva-gateway serve`: the gateway itself, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import structlog
import typer
from rich.console import Console

import asr
from asr.errors import ASRError, Code
from asr.settings import load_settings
from server.access.origins import is_loopback
from server.certificates import local_certificate
from server.commands import banner
from server.commands.connection import EngineFlag, MockPlan, chosen_engine, read_plan
from server.commands.exits import Exit, Stop, command, run_async
from server.hardening import no_core_dumps
from server.logs import configure_logs
from server.settings import ServerSettings

log = structlog.get_logger("server")

_SAMPLE = Path("tests/fixtures/greeting.wav")  # there in a checkout


@command
def serve(
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            help="Address to listen on; 0.0.0.0 lets other machines in. Default 127.0.0.1. [dim]LISTEN_HOST[/dim]",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", "-p", help="Page, HTTP and WebSocket. 0: any free one. Default 8443. [dim]PORT[/dim]"),
    ] = None,
    grpc_port: Annotated[
        str | None,
        typer.Option(
            "--grpc-port",
            metavar="PORT|off",
            help="Riva's gRPC. 0: any free one, off: none. Default 50052. [dim]GRPC_PORT[/dim]",
        ),
    ] = None,
    no_tls: Annotated[
        bool, typer.Option("--no-tls", help="Plain HTTP: enough on localhost, or behind a proxy. [dim]TLS=off[/dim]")
    ] = False,
    auth: Annotated[
        Literal["on", "off"] | None,
        typer.Option(
            "--auth",
            help="Whether clients must show a key or token. Default: where there are any. [dim]AUTH[/dim]",
        ),
    ] = None,
    engine: EngineFlag = None,
    mock_plan: MockPlan = None,
) -> None:
    """Start the gateway: browser page, WebSocket, HTTP and Riva's gRPC in one process.

    [dim]$[/dim] riva-gateway serve
    [dim]$[/dim] RIVA_ENDPOINTS=riva.example:50051 riva-gateway serve --host 0.0.0.0 --auth on
    [dim]$[/dim] riva-gateway serve --engine mock --no-tls --port 8080

    Ctrl-C and SIGTERM let running streams finish, within 25 seconds; a second one ends it at once.
    """
    no_core_dumps()
    cautions: list[str] = []
    settings = as_container(
        load_settings(
            ServerSettings,
            {
                "host": host,
                "port": port,
                "grpc_port": grpc_port,
                "tls": False if no_tls else None,
                "auth": auth,
                "asr_engine": chosen_engine(engine, mock_plan),
                "asr_mock_plan": mock_plan,
            },
            caution=cautions.append,
        )
    )
    repeated = configure_logs(settings.log_level, settings.log_format)
    for caution in cautions:
        log.warning(caution)
    if settings.engine == "mock" and settings.asr_mock_plan is not None:
        read_plan(settings.asr_mock_plan)
    # The web stack is loaded after the settings are known to be good: a mistake in them is told at once.
    from server.serve import Addresses
    from server.serve import serve as serve_gateway

    def announce(addresses: Addresses) -> None:
        _announce(facts_of(settings, addresses.url, addresses.grpc_port))

    async def until_stopped() -> None:
        stop = asyncio.Event()
        # It waits before the gateway does, so it is woken before the draining begins.
        second = asyncio.create_task(_end_at_second_interrupt(stop))
        try:
            await serve_gateway(settings, announce=announce, stop=stop)
        finally:
            second.cancel()

    try:
        run_async(until_stopped())
    except ASRError as error:
        if error.code is Code.BAD_REQUEST:  # a port or a certificate, said in one line
            raise Stop(error.message, Exit.CONFIGURATION) from None
        raise
    finally:
        repeated.tell(all_of_them=True)


async def _end_at_second_interrupt(stop: asyncio.Event) -> None:
    """Once stopping, let Ctrl-C end the process itself: raised inside a gRPC callback it would print a traceback."""
    await stop.wait()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def as_container(settings: ServerSettings) -> ServerSettings:
    """In a SageMaker container: the port that SageMaker calls, on every address and without TLS, unless said otherwise.

    `PORT` (or `--port`), `LISTEN_HOST`, `TLS` and `AUTH` win where they are set, and so do keys that there are. AWS
    asks callers of an endpoint who they are, and passes no credential of theirs on.
    """
    port, said = settings.sagemaker_bind_to_port, settings.model_fields_set
    if port is None or "port" in said:
        return settings
    container: dict[str, object] = {"port": port, "host": "0.0.0.0", "tls": False}  # noqa: S104 - the contract there
    if not settings.auth_is_on:
        container["auth"] = "off"
    return settings.model_copy(update={name: value for name, value in container.items() if name not in said})


def facts_of(settings: ServerSettings, url: str, grpc_port: int | None) -> banner.Facts:
    """What the banner tells of these settings."""
    engine = settings.engine
    open_to_others = not is_loopback(settings.host)
    wildcard = settings.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    grpc_host = "localhost" if wildcard or not open_to_others else settings.host
    return banner.Facts(
        url=url,
        grpc="" if grpc_port is None else f"{'grpcs://' * settings.grpc_secure}{_bracketed(grpc_host)}:{grpc_port}",
        engine=engine,
        endpoint=", ".join(riva.endpoint for riva in settings.riva_configs()) if engine == "riva" else "",
        self_made=str(local_certificate(settings.state_dir).cert) if settings.tls and settings.tls_cert is None else "",
        open_to_others=open_to_others,
        asks=" and ".join(_asked(settings)),
        clear=_clear_ports(settings, grpc_port) if open_to_others and settings.auth_is_on else "",
        sample=str(_SAMPLE) if _SAMPLE.is_file() else "",
        version=asr.__version__,
        command=_as_typed("riva-gateway", Path(sys.argv[0])),
    )


def _announce(facts: banner.Facts) -> None:
    if sys.stdout.isatty():
        Console(highlight=False, soft_wrap=True).print("\n".join(banner.friendly(facts)))
    else:
        for line in banner.plain(facts):
            typer.echo(line)


def _as_typed(name: str, program: Path) -> str:
    """`name` where the shell would find this very program by it, else the shortest path to it."""
    found = shutil.which(name)
    if program.name != name or (found is not None and Path(found).absolute() == program.absolute()):
        return name
    here = Path.cwd()
    absolute = program.absolute()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _asked(settings: ServerSettings) -> list[str]:
    """What clients must show."""
    certificate = ["a client certificate"] if settings.asks_certificates else []
    return [*certificate, *(["a key or token"] if settings.auth_is_on else [])]


def _clear_ports(settings: ServerSettings, grpc_port: int | None) -> str:
    """The ports without TLS."""
    ports = [] if settings.tls else ["HTTP"]
    if grpc_port is not None and not settings.grpc_secure:
        ports.append("gRPC")
    return " and ".join(ports)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
