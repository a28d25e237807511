"""Which recognizer a command speaks to: the flags that say so, and the client they lead to."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from asr.client import RivaASRClient
from asr.config import EngineConfig, GatedConfig, GatewayConfig, MockConfig
from asr.errors import ASRError
from asr.mock.plan import MockPlan as Plan
from asr.mock.plan import load_plan
from asr.settings import SettingsError, load_settings
from server.commands.advice import advise
from server.commands.exits import Exit, Stop
from server.commands.target import Target, certificate_to_trust, parse_server
from server.logs import configure_logs
from server.settings import ServerSettings

_PANEL = "Recognizer"


class EngineChoice(StrEnum):
    """The recognizers that `--engine` names."""

    LOCAL = "local"
    RIVA = "riva"
    MOCK = "mock"


EngineFlag = Annotated[
    EngineChoice | None,
    typer.Option(
        "--engine",
        help="local: embedded, English. riva: the server of RIVA_ENDPOINTS. mock: scripted. "
        "Unset: riva where an endpoint is set, else local. [dim]ASR_ENGINE[/dim]",
        rich_help_panel=_PANEL,
    ),
]
MockPlan = Annotated[
    Path | None,
    typer.Option(
        "--mock-plan",
        metavar="FILE",
        help="What the mock says, and how it fails. [dim]ASR_MOCK_PLAN[/dim]",
        rich_help_panel=_PANEL,
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="URL",
        help="Ask another machine: https://host:port is a gateway; host:port or grpcs://host:port is Riva "
        "or a gateway's gRPC port. [dim]ASR_SERVER[/dim]",
        rich_help_panel=_PANEL,
    ),
]
Gateway = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="URL",
        help="The gateway, https://host:port. Default: the one on this machine. [dim]ASR_SERVER[/dim]",
    ),
]
CaCert = Annotated[
    Path | None,
    typer.Option(
        "--ca-cert",
        metavar="FILE",
        help="Trust this certificate (PEM) too. A gateway's self-made one on this machine is trusted by itself. "
        "[dim]ASR_CA_CERT[/dim]",
        rich_help_panel=_PANEL,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Do not verify the gateway's certificate. [dim]ASR_INSECURE[/dim]", rich_help_panel=_PANEL
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        "--language",
        "-l",
        metavar="TAG",
        help="Language spoken, as en-US. Unset: the model's own. [dim]ASR_LANGUAGE[/dim]",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="One of `riva-gateway models`. [dim]ASR_MODEL[/dim]"),
]


@dataclass(frozen=True, slots=True)
class Connection:
    """The flags that choose a recognizer, as given."""

    engine: EngineChoice | None = None
    server: str | None = None
    ca_cert: Path | None = None
    insecure: bool = False
    mock_plan: Path | None = None


def engine_config(connection: Connection) -> EngineConfig:
    """The recognizer that the flags, and the settings beneath them, lead to.

    Raises:
        Stop: flags that contradict each other.
        SettingsError: a setting is wrong.
    """
    flag = _own_recognizer(connection)
    if connection.server is not None and flag:
        raise Stop(f"{flag} and --server exclude each other: the server has its own recognizer.", Exit.CONFIGURATION)
    settings = read_settings({"asr_server": connection.server, "asr_insecure": connection.insecure or None})
    if flag or not settings.asr_server:
        if connection.insecure or connection.ca_cert is not None:
            flag = "--insecure" if connection.insecure else "--ca-cert"
            raise Stop(f"{flag} says how to reach a server: give --server too.", Exit.CONFIGURATION)
        engine = chosen_engine(connection.engine, connection.mock_plan)
        config = read_settings({"asr_engine": engine, "asr_mock_plan": connection.mock_plan}).engine_config()
        chosen = config.member if isinstance(config, GatedConfig) else config
        if isinstance(chosen, MockConfig) and chosen.plan is not None:
            read_plan(chosen.plan)
        return config
    target = parse_server(settings.asr_server)
    ca_cert = _readable(connection.ca_cert) or settings.asr_ca_cert
    if ca_cert is None and not settings.asr_insecure and (target.kind == "gateway" or not settings.riva_ssl_root_cert):
        ca_cert = certificate_to_trust(target, settings.state_dir, own=settings.tls_cert)
    if target.kind == "riva":
        return _riva(target, ca_cert, settings.asr_api_key, insecure=settings.asr_insecure)
    token = settings.asr_api_key.get_secret_value() if settings.asr_api_key is not None else ""
    return GatewayConfig(url=target.address, token=token, ca_cert=ca_cert, insecure=settings.asr_insecure)


def read_settings(flags: Mapping[str, object]) -> ServerSettings:
    """The settings with these flags over them (None: not given), and logs set up for a command.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = load_settings(ServerSettings, flags)
    # stderr is for people here: the daily course of things is told on demand only.
    configure_logs("debug" if settings.log_level == "debug" else "warning", settings.log_format)
    return settings


@dataclass(frozen=True, slots=True)
class Recognizer:
    """The recognizer a command speaks to.

    Attributes:
        config: which, and how.
        named: whether a flag or a setting names its server.
        schemed: whether it says `grpc://`, `grpcs://` or another scheme there.
    """

    config: EngineConfig
    named: bool = True
    schemed: bool = False

    def advise(self, error: ASRError) -> ASRError:
        """The failure as somebody at a command line needs it."""
        return advise(error, self.config, named=self.named, schemed=self.schemed)


def recognizer(connection: Connection) -> Recognizer:
    """`engine_config`, and how its address was chosen, if anybody did.

    Raises:
        Stop, SettingsError: as there.
    """
    config = engine_config(connection)
    settings = read_settings({"asr_server": connection.server})
    own = _own_recognizer(connection) or not settings.asr_server
    address = (settings.riva_endpoints or settings.riva_host) if own else settings.asr_server
    named = bool(settings.asr_server or settings.riva_endpoints or settings.riva_host)
    return Recognizer(config, named=named, schemed="://" in address)


def chosen_engine(engine: EngineChoice | None, mock_plan: Path | None) -> str | None:
    """The value of ASR_ENGINE that the flags ask for: a plan alone asks for the mock.

    Raises:
        Stop: a plan is given to a recognizer that listens.
    """
    if mock_plan is None:
        return None if engine is None else engine.value
    if engine not in (None, EngineChoice.MOCK):
        raise Stop(
            f"--mock-plan is for --engine mock; --engine {engine.value} plays no plan. Leave one out.",
            Exit.CONFIGURATION,
        )
    return EngineChoice.MOCK.value


def read_plan(path: Path) -> Plan:
    """The plan in that file, judged before anything starts.

    Raises:
        Stop: it cannot be read or is no plan; the line names the file.
    """
    try:
        return load_plan(path)
    except ASRError as error:
        named = error.message if str(path) in error.message else f"{path}: {error.message}"
        raise Stop(named, Exit.CONFIGURATION) from None


@asynccontextmanager
async def connect(to: Recognizer) -> AsyncIterator[RivaASRClient]:
    """A client of that recognizer, closed at the end. Failures that leave the block are told as `advise` does."""
    # What an endpoint goes through is a service's news; a command says itself, and once, what became of it.
    news = logging.getLogger("asr.resilience")
    level = news.level
    news.setLevel(logging.ERROR)
    try:
        async with RivaASRClient(to.config) as client:
            yield client
    except ASRError as error:
        raise to.advise(error) from error
    finally:
        news.setLevel(level)


def _riva(target: Target, ca_cert: Path | None, key: SecretStr | None, *, insecure: bool) -> EngineConfig:
    if insecure:
        raise Stop(
            "--insecure is for gateways (https://…); gRPC always verifies. Give --ca-cert FILE.", Exit.CONFIGURATION
        )
    overrides = {
        "asr_engine": "riva",
        "riva_endpoints": target.address,
        "riva_host": "",  # the flag wins over a host in the settings
        "riva_ssl": target.tls,
        "riva_ssl_root_cert": ca_cert,
        "riva_api_key": key,  # the one for this server wins over that of the recognizer in the settings
    }
    try:
        return read_settings(overrides).engine_config()
    except SettingsError as error:
        if key is None or error.param != "RIVA_API_KEY":
            raise
        raise Stop(error.message.replace("RIVA_API_KEY", "ASR_API_KEY"), Exit.CONFIGURATION) from None


def _own_recognizer(connection: Connection) -> str:
    """The flag that asks for a recognizer of this command's own, or ""."""
    if connection.engine is not None:
        return "--engine"
    return "--mock-plan" if connection.mock_plan is not None else ""


def _readable(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise Stop(f"--ca-cert {path}: there is no such file.", Exit.CONFIGURATION)
    return path
