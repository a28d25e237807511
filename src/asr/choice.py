"""Which recognizer a client speaks to: its arguments, or else the environment, turned into a config record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asr.config import EngineConfig, GatewayConfig, MockConfig, ResilientConfig, RivaConfig
from asr.engine import Engine
from asr.errors import ASRError, Code
from asr.settings import EngineName, EngineSettings, is_loopback, load_settings, parse_endpoint


@dataclass(frozen=True, slots=True)
class Credentials:
    """What goes with an endpoint that is named as text; see `RivaASRClient`."""

    ssl: bool | None = None
    token: str = ""
    ca_cert: str | Path | None = None
    insecure: bool = False
    metadata: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def given(self) -> str:
        """The name of the first one that is set, or ""."""
        values = {
            "ssl": self.ssl is not None,
            "token": bool(self.token),
            "ca_cert": self.ca_cert is not None,
            "insecure": self.insecure,
            "metadata": bool(self.metadata),
        }
        return next((name for name, is_set in values.items() if is_set), "")


def choose(
    endpoint: str | EngineConfig | None,
    engine: Engine | EngineName | None,
    mock_mode: bool,
    settings: EngineSettings | None,
    credentials: Credentials,
) -> Engine | EngineConfig:
    """The engine, or the record to build one from.

    With an endpoint the environment is not read, so that a key meant for one server is never sent to another.

    Raises:
        ASRError: `bad_request`: arguments that exclude each other, or a bad address or setting.
    """
    ways = {"endpoint": endpoint is not None, "engine": engine is not None, "mock_mode": mock_mode}
    chosen = [name for name, is_set in ways.items() if is_set]
    if len(chosen) > 1:
        raise _bad(chosen[1], f"{chosen[0]} and {chosen[1]} both choose the recognizer. Give one of them.")
    if credentials.given and not isinstance(endpoint, str):
        raise _bad(credentials.given, f"{credentials.given} goes with an endpoint, such as 'https://gateway:8443'.")
    if isinstance(endpoint, str):
        return _from_endpoint(endpoint, credentials)
    if endpoint is not None:
        return endpoint
    name = "mock" if mock_mode else engine
    if name is not None and not isinstance(name, str):
        return name
    if mock_mode and settings is None:
        return MockConfig()
    if settings is None:
        # No `.env`: in somebody's own project that file is theirs, and its keys are none of our business.
        return load_settings(EngineSettings, {"asr_engine": name}, env_file=None).engine_config()
    if name is None:
        return settings.engine_config()
    return settings.model_copy(update={"asr_engine": name}).engine_config()


def _from_endpoint(endpoint: str, credentials: Credentials) -> EngineConfig:
    ca_cert = None if credentials.ca_cert is None else Path(credentials.ca_cert)
    if ca_cert is not None and not ca_cert.is_file():
        raise _bad("ca_cert", f"There is no certificate file {str(ca_cert)!r}.")
    if endpoint.partition("://")[0].lower() in ("https", "wss", "http", "ws"):
        if credentials.metadata or credentials.ssl is not None:
            raise _bad(
                "metadata" if credentials.metadata else "ssl", "metadata and ssl are for Riva servers, not URLs."
            )
        return GatewayConfig(endpoint, credentials.token, ca_cert, credentials.insecure)
    problem = ""
    try:
        address, secure = parse_endpoint(endpoint)
    except ValueError as error:
        address, secure, problem = "", None, str(error)
    if problem:
        raise _bad("endpoint", f"{endpoint!r}: {problem} A gateway is named as https://host:port.")
    if credentials.insecure:
        raise _bad("insecure", "insecure is for gateways; gRPC always verifies. Give ca_cert=….")
    ssl = bool(secure) if credentials.ssl is None else credentials.ssl
    metadata = tuple((key.lower(), value) for key, value in (credentials.metadata or {}).items())
    if credentials.token:
        if not (ssl or ca_cert or is_loopback(address)):
            raise _bad(
                "token", "The token would travel unencrypted to another machine. Give ssl=True, or leave it out."
            )
        metadata += (("authorization", f"Bearer {credentials.token}"),)
    return ResilientConfig((RivaConfig(endpoint=address, ssl=ssl, root_cert=ca_cert, metadata=metadata),))


def _bad(param: str, message: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, message, param=param)
