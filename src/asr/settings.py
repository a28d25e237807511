"""The keys that choose and set up a recognizer, in one class. `.env.example` lists them for people.

A key is its field's name in capitals. Units are in the names. `server.settings` adds the gateway's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from asr.config import LocalConfig, MockConfig, RivaConfig
from asr.loading import SettingsError, StrictSettings, load_settings

__all__ = ["EngineName", "EngineSettings", "SettingsError", "is_loopback", "load_settings", "parse_endpoint"]

EngineName = Literal["local", "riva", "mock"]
Port = Annotated[int, Field(ge=0, le=65535)]
Timeout = Annotated[int, Field(ge=1, le=3_600_000)]

_LOCAL = LocalConfig()
_RIVA = RivaConfig()
_METADATA_KEY = re.compile(r"^[0-9a-z_.-]+$")
_PRINTABLE = re.compile(r"^[\x20-\x7e]*$")


class EngineSettings(StrictSettings):
    """Which recognizer listens, and how it is set up."""

    own_prefixes: ClassVar[tuple[str, ...]] = ("ASR_", "RIVA_")
    foreign_keys: ClassVar[frozenset[str]] = frozenset(
        {
            "RIVA_GRPC_PORT",  # the container's own
            # the command's own (`server.settings`); a program that uses the library may run beside it
            *("ASR_SERVER", "ASR_CA_CERT", "ASR_INSECURE", "ASR_LANGUAGE", "ASR_MODEL", "ASR_WORDS", "ASR_FORMAT"),
            *("ASR_OUTPUT_DIR", "ASR_DEVICE", "ASR_MOCK_HOST", "ASR_MOCK_GRPC_PORT", "ASR_MOCK_HTTP_PORT"),
        }
    )

    asr_engine: EngineName | None = None
    asr_mock_plan: Path | None = None
    asr_secrets_dir: Path | None = None

    riva_endpoints: str = ""
    riva_host: str = ""
    riva_port: Annotated[int, Field(ge=1, le=65535)] = 50051
    riva_ssl: bool | None = None
    riva_ssl_root_cert: Path | None = None
    riva_ssl_client_cert: Path | None = None
    riva_ssl_client_key: Path | None = None
    riva_model: str = _RIVA.model
    riva_api_key: SecretStr | None = None
    riva_function_id: str = ""
    riva_metadata: SecretStr | None = None
    riva_force_eou: Literal["auto", "on", "off"] = _RIVA.force_eou
    riva_connect_timeout_ms: Timeout = _RIVA.connect_timeout_ms
    riva_first_response_timeout_ms: Timeout = _RIVA.first_response_timeout_ms
    riva_call_timeout_ms: Timeout = _RIVA.call_timeout_ms
    riva_finalize_timeout_ms: Timeout = _RIVA.finalize_timeout_ms
    riva_drain_timeout_ms: Timeout = _RIVA.drain_timeout_ms
    riva_keepalive_time_ms: Annotated[int, Field(ge=0, le=3_600_000)] = _RIVA.keepalive_time_ms
    riva_max_message_bytes: Annotated[int, Field(ge=65_536, le=2**31 - 1)] = _RIVA.max_message_bytes

    local_workers: Annotated[int, Field(ge=0, le=256)] = _LOCAL.workers
    local_max_streams: Annotated[int, Field(ge=1, le=10_000)] = _LOCAL.max_streams
    local_silence_ms: Annotated[int, Field(ge=100, le=10_000)] = _LOCAL.silence_ms
    local_max_utterance_ms: Annotated[int, Field(ge=1_000, le=600_000)] = _LOCAL.max_utterance_ms
    local_partial_interval_ms: Annotated[int, Field(ge=20, le=10_000)] = _LOCAL.partial_interval_ms

    @field_validator("riva_endpoints")
    @classmethod
    def _one_endpoint(cls, value: str) -> str:
        endpoints = [part.strip() for part in value.split(",") if part.strip()]
        if len(endpoints) > 1:
            raise ValueError(
                f"{len(endpoints)} endpoints are given, and this release speaks to one, because it cannot yet carry a "
                "stream over to another when one fails. Keep one of them."
            )
        for endpoint in endpoints:
            parse_endpoint(endpoint)
        return ",".join(endpoints)

    @field_validator("riva_host")
    @classmethod
    def _bare_host(cls, value: str) -> str:
        if ":" in value.strip("[]") and not _is_ipv6(value.strip("[]")):
            raise ValueError("this is a host name without a port. Put the port into RIVA_PORT, or use RIVA_ENDPOINTS.")
        if "/" in value or "@" in value or " " in value:
            raise ValueError("this is not a host name. Give only the name or address of the Riva server.")
        return value

    @field_validator("riva_function_id")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not _PRINTABLE.match(value):
            raise ValueError("it holds a character that cannot travel in a header. Copy the id again.")
        return value

    @field_validator("riva_api_key")
    @classmethod
    def _printable_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("the key holds a blank or a character outside ASCII. Copy it again, without line ends.")
        return value

    @field_validator("riva_metadata")
    @classmethod
    def _readable_metadata(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_metadata(value.get_secret_value())
        return value

    @field_validator("asr_mock_plan", "riva_ssl_root_cert", "riva_ssl_client_cert", "riva_ssl_client_key")
    @classmethod
    def _existing_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_file():
            raise ValueError(f"there is no file {value}. Give the path of an existing file, or leave it unset.")
        return value.expanduser() if value is not None else None

    @model_validator(mode="after")
    def _fits_together(self) -> EngineSettings:
        if self.riva_endpoints and self.riva_host:
            raise ValueError("RIVA_HOST: RIVA_ENDPOINTS is set too, and both name the server. Keep one of them.")
        if (self.riva_ssl_client_cert is None) != (self.riva_ssl_client_key is None):
            missing = "KEY" if self.riva_ssl_client_key is None else "CERT"
            raise ValueError(
                f"RIVA_SSL_CLIENT_{missing}: a client certificate and its key go together. Set this one too."
            )
        metadata = dict(self._own_metadata())
        if self.riva_api_key is not None and "authorization" in metadata:
            raise ValueError("RIVA_API_KEY: RIVA_METADATA has an authorization too. Keep one of them.")
        if self.riva_function_id and "function-id" in metadata:
            raise ValueError("RIVA_FUNCTION_ID: RIVA_METADATA has a function-id too. Keep one of them.")
        if self.engine == "riva" and self.riva_api_key is not None:
            riva = self.riva_config()
            if not (riva.ssl or riva.root_cert or riva.client_cert or is_loopback(riva.endpoint)):
                raise ValueError(
                    "RIVA_API_KEY: it would travel unencrypted to another machine. Set RIVA_SSL=on, or remove the key."
                )
        return self

    @property
    def engine(self) -> EngineName:
        """The chosen engine; unset: `riva` where an endpoint is named, else `local`."""
        if self.asr_engine is not None:
            return self.asr_engine
        return "riva" if self.riva_endpoints or self.riva_host else "local"

    def engine_config(self) -> LocalConfig | RivaConfig | MockConfig:
        """The record of the chosen engine."""
        match self.engine:
            case "local":
                return self.local_config()
            case "riva":
                return self.riva_config()
            case "mock":
                return MockConfig(plan=self.asr_mock_plan)

    def local_config(self) -> LocalConfig:
        """How the embedded recognizer is set up."""
        return replace(
            _LOCAL,
            workers=self.local_workers,
            max_streams=self.local_max_streams,
            silence_ms=self.local_silence_ms,
            max_utterance_ms=self.local_max_utterance_ms,
            partial_interval_ms=self.local_partial_interval_ms,
        )

    def riva_config(self) -> RivaConfig:
        """How the Riva endpoint is spoken to; `localhost` where none is named."""
        if self.riva_endpoints:
            endpoint, secure = parse_endpoint(self.riva_endpoints)
        else:
            host = self.riva_host.strip("[]") or "localhost"
            endpoint, secure = f"[{host}]:{self.riva_port}" if ":" in host else f"{host}:{self.riva_port}", None
        return RivaConfig(
            endpoint=endpoint,
            ssl=bool(secure) if self.riva_ssl is None else self.riva_ssl,
            root_cert=self.riva_ssl_root_cert,
            client_cert=self.riva_ssl_client_cert,
            client_key=self.riva_ssl_client_key,
            metadata=self._metadata(),
            model=self.riva_model,
            connect_timeout_ms=self.riva_connect_timeout_ms,
            first_response_timeout_ms=self.riva_first_response_timeout_ms,
            call_timeout_ms=self.riva_call_timeout_ms,
            finalize_timeout_ms=self.riva_finalize_timeout_ms,
            drain_timeout_ms=self.riva_drain_timeout_ms,
            keepalive_time_ms=self.riva_keepalive_time_ms,
            max_message_bytes=self.riva_max_message_bytes,
            force_eou=self.riva_force_eou,
        )

    def _own_metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.riva_metadata is None else parse_metadata(self.riva_metadata.get_secret_value())

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        metadata = self._own_metadata()
        if self.riva_function_id:
            metadata += (("function-id", self.riva_function_id),)
        if self.riva_api_key is not None:
            metadata += (("authorization", f"Bearer {self.riva_api_key.get_secret_value()}"),)
        return metadata


def parse_endpoint(text: str) -> tuple[str, bool | None]:
    """`host:port`, `grpc://host:port` or `grpcs://host:port` → (`host:port`, whether TLS is meant).

    The second is None where no scheme says. Raises ValueError, in a sentence.
    """
    scheme, mark, rest = text.strip().rpartition("://")
    if mark and scheme.lower() not in ("grpc", "grpcs"):
        raise ValueError(f"{scheme}:// is not how a Riva server is spoken to. Give host:port, or grpcs://host:port.")
    host, colon, port = rest.rstrip("/").rpartition(":")
    if "@" in rest or "/" in host or " " in rest:
        raise ValueError("an endpoint is only a host and a port. Give host:port, such as riva.example:50051.")
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("an endpoint needs a host and a port. Give host:port, such as riva.example:50051.")
    if ":" in host and not (host.startswith("[") and host.endswith("]") and _is_ipv6(host[1:-1])):
        raise ValueError("an IPv6 address stands in brackets before its port. Give [::1]:50051.")
    return f"{host}:{int(port)}", scheme.lower() == "grpcs" if mark else None


def parse_metadata(text: str) -> tuple[tuple[str, str], ...]:
    """gRPC metadata from a JSON object of texts, or from `key=value,key=value`.

    Raises ValueError, in a sentence that repeats no value.
    """
    pairs: Mapping[str, object]
    if text.lstrip().startswith("{"):
        pairs = _json_object(text)
    else:
        parts = [part.partition("=") for part in text.split(",") if part.strip()]
        if not all(mark for _, mark, _ in parts):
            raise ValueError("a part of it has no '='. Write key=value,key=value, or a JSON object.")
        pairs = {key.strip(): value.strip() for key, _, value in parts}
    for key, value in pairs.items():
        if not _METADATA_KEY.match(key.lower()) or key.lower().endswith("-bin") or key.lower().startswith("grpc-"):
            raise ValueError("one of its keys is not a gRPC metadata key. Use letters, digits, '-', '_' and '.'.")
        if not isinstance(value, str) or not _PRINTABLE.match(value):
            raise ValueError("one of its values is not printable ASCII text. Quote numbers; drop line ends.")
    return tuple((key.lower(), str(value)) for key, value in pairs.items())


def _json_object(text: str) -> Mapping[str, object]:
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise ValueError('it begins like JSON and is not a JSON object. Write {"key": "value"}, or key=value.')
    return loaded


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def is_loopback(endpoint: str) -> bool:
    """Whether `host:port` is on this machine."""
    host = endpoint.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
