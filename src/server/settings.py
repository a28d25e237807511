"""The gateway's own keys, beside those of the recognizer (`asr.settings`).

The address is `LISTEN_HOST`, not `HOST`: csh, zsh and conda's compilers export `HOST` for their own ends, and a
gateway must not come to listen somewhere else because of that. `PORT` is what hosting platforms set.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from asr.settings import EngineSettings, Port, sendable_key
from server.access.jwt_settings import check_keys_address, parse_algorithms
from server.access.origins import parse_origins
from server.access.own_tokens import read_secrets
from server.certificates import parse_names

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]


class ServerSettings(EngineSettings):
    """Where the gateway listens, how it shows itself, and what it tolerates."""

    foreign_keys: ClassVar[frozenset[str]] = EngineSettings.foreign_keys | {
        # OpenTelemetry's own, for other signals and other programs, that look like ours misspelt
        *(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" for signal in ("TRACES", "METRICS", "LOGS", "PROFILES")),
        *(f"OTEL_EXPORTER_OTLP_{signal}_HEADERS" for signal in ("TRACES", "METRICS", "LOGS", "PROFILES")),
        # a NIM's own
        *("NIM_HTTP_API_PORT", "NIM_GRPC_API_PORT"),
        *("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "OTEL_EXPORTER_JAEGER_ENDPOINT", "OTEL_TRACES_SAMPLER"),
    }

    host: str = Field(default="127.0.0.1", validation_alias="listen_host")
    port: Port = 8443
    """0: a free port, chosen by the system and printed."""
    grpc_port: Port | None = 50052
    """0: a free port; `off` (here None): no gRPC face."""
    tls: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_names: str = ""
    """Names and addresses that the self-made certificate is for, besides localhost; separated by commas."""
    tls_client_ca: Path | None = None
    """Set: clients must show a certificate that one of these has signed."""
    grpc_tls: bool | None = None
    """Unset: see `grpc_secure`."""
    state_dir: Path = Field(default_factory=lambda: default_state_dir(os.environ))

    stereo: Literal["mix", "refuse", "split"] = "mix"
    on_unsupported: Literal["warn", "refuse"] = "warn"
    model_aliases: str = ""
    """`name=served model`, separated by commas; an empty right side is the recognizer's choice."""

    spool_dir: Path | None = None
    """Unset: `spool` in `state_dir`."""
    spool_max_bytes: Annotated[int, Field(ge=1_048_576)] = 20 * _GIB
    max_upload_bytes: Annotated[int, Field(ge=1_024, le=4 * _GIB)] = 64 * _MIB
    max_audio_ms: Milliseconds = 3_600_000

    auth: Literal["on", "off"] | None = None
    """Unset: on where there is something to check a credential with; see `auth_wanted`."""
    api_keys_file: Path | None = None
    """Unset: `keys.json` in `state_dir`."""
    jwt_keys: str = ""
    """A file (PEM or JWKS), or the https address of a JWKS."""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_algorithms: str = "RS256,ES256,EdDSA"
    jwt_scope_claim: Annotated[str, Field(min_length=1, max_length=200)] = "scope"
    jwt_ca_cert: Path | None = None
    """Trusted beside the usual authorities where the JWKS is fetched."""
    token_secret: SecretStr | None = None
    """Unset: made on the first run and kept in `state_dir`."""
    token_ttl_ms: Annotated[int, Field(ge=1_000, le=86_400_000)] = 300_000
    allowed_origins: str = ""
    quota_starts_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    quota_audio_minutes_per_day: Annotated[int, Field(ge=0, le=10_000_000)] = 0

    realtime_auth_mint_api_key: SecretStr | None = None
    realtime_token_ttl_ms: Annotated[int, Field(ge=1_000, le=3_600_000)] = 60_000

    jobs: bool = True
    jobs_database_url: SecretStr | None = None
    """Unset: an SQLite file in `state_dir`."""
    jobs_concurrency: Annotated[int, Field(ge=1, le=256)] = 2
    jobs_parts: Annotated[int, Field(ge=1, le=64)] = 4
    jobs_max_pending: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    jobs_max_upload_bytes: Annotated[int, Field(ge=1_024, le=64 * _GIB)] = 2 * _GIB
    jobs_max_audio_ms: Milliseconds = 86_400_000
    jobs_result_ttl_ms: Annotated[int, Field(ge=1_000, le=366 * 86_400_000)] = 7 * 86_400_000
    jobs_webhook_secret: SecretStr | None = None
    jobs_webhook_attempts: Annotated[int, Field(ge=1, le=30)] = 8
    jobs_webhook_timeout_ms: Annotated[int, Field(ge=100, le=120_000)] = 10_000
    jobs_webhook_private: bool = False

    sagemaker_bind_to_port: Port | None = None
    sagemaker_max_bytes: Annotated[int, Field(ge=1_024, le=_GIB)] = 25 * _MIB
    sagemaker_timeout_ms: Milliseconds = 58_000
    sagemaker_max_session_ms: Annotated[int, Field(ge=1_000, le=86_400_000)] = 1_770_000
    nim_http_port: Annotated[int, Field(ge=1, le=65535)] = 9000
    """Goes with `nim_host`."""
    nim_command: str = ""
    """How a NIM is started in this same container; unset: it runs elsewhere."""
    nim_start_timeout_ms: Milliseconds = 2_340_000
    nim_tags_selector: str = ""
    ngc_api_key: SecretStr | None = None
    """For the NIM that `nim_command` starts."""

    max_frame_bytes: Annotated[int, Field(ge=1_024, le=16_777_216)] = 1_048_576
    start_timeout_ms: Milliseconds = 10_000
    idle_timeout_ms: Annotated[int, Field(ge=1_000, le=86_400_000)] = 30_000
    max_session_ms: Annotated[int, Field(ge=1_000, le=86_400_000)] = 14_400_000
    max_ahead_ms: Annotated[int, Field(ge=100, le=600_000)] = 5_000
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    max_streams: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    max_streams_per_key: Annotated[int, Field(ge=0, le=100_000)] = 0
    """0: no bound of its own for each caller."""
    fair_share_reserve_percent: Annotated[int, Field(ge=0, le=90)] = 10
    resume_window_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 60_000
    """0: no session can be resumed."""
    drain_delay_ms: Annotated[int, Field(ge=0, le=600_000)] = 0
    drain_timeout_ms: Milliseconds = 25_000

    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_format: Literal["console", "json"] = "console"

    log_transcripts: bool = False
    metrics: bool = True
    metrics_dir: Path | None = None
    """Shared by the gateways of one machine, whose figures `/metrics` then tells as one."""
    records: bool = True
    records_dir: Path | None = None
    """Unset: `records` in `state_dir`."""
    records_keep_days: Annotated[int, Field(ge=1, le=366)] = 7
    otel_exporter_otlp_endpoint: str = ""
    otel_exporter_otlp_headers: SecretStr | None = None
    otel_service_name: str = "riva-gateway"
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 1.0

    asr_switch: Literal["on", "off", "former"] = "on"
    riva_former_endpoints: str = ""
    riva_canary_endpoints: str = ""
    asr_canary_percent: Annotated[int, Field(ge=0, le=100)] = 0
    asr_canary_min_streams: Annotated[int, Field(ge=1, le=1_000_000)] = 50

    # What the commands do where no flag says otherwise.
    asr_server: str = ""
    asr_api_key: SecretStr | None = None
    """A key or token for the gateway that `asr_server` or a flag names."""
    asr_ca_cert: Path | None = None
    asr_insecure: bool = False
    asr_language: str = ""
    asr_model: str = ""
    asr_words: bool = True
    asr_format: Literal["text", "json", "srt", "vtt"] = "text"
    asr_output_dir: Path | None = None
    asr_device: str = ""
    asr_mock_host: str = "127.0.0.1"
    asr_mock_grpc_port: Port = 50051
    asr_mock_http_port: Port = 9000

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return {"warn": "warning", "fatal": "critical"}.get(value.lower(), value.lower())

    @field_validator("grpc_port", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return None if isinstance(value, str) and value.lower() == "off" else value

    @field_validator("model_aliases")
    @classmethod
    def _pairs(cls, value: str) -> str:
        parse_aliases(value)
        return value

    @field_validator("nim_command")
    @classmethod
    def _words(cls, value: str) -> str:
        try:
            words = shlex.split(value)
        except ValueError:
            raise ValueError("a quotation mark is not closed. Close it.") from None
        if value and not words:
            raise ValueError("it names no program. Give its path, or leave it unset.")
        return value

    @model_validator(mode="before")
    @classmethod
    def _beside(cls, given: dict[str, Any]) -> dict[str, Any]:
        """A NIM that is started here is the recognizer, unless another is named."""
        named = given.get("nim_host") or given.get("riva_host") or given.get("riva_endpoints")
        return given if named or not given.get("nim_command") else {**given, "nim_host": "127.0.0.1"}

    @field_validator("host")
    @classmethod
    def _only_host(cls, value: str) -> str:
        if "/" in value or " " in value or value.count(":") == 1:
            raise ValueError("this is not an address. Give a host name or address; the port belongs into PORT.")
        return value.strip("[]")

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _collector(cls, value: str) -> str:
        address = value.strip()
        if address:
            check_collector(address)
        return address

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def _headers(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_headers(value.get_secret_value())
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        parse_origins(value)
        return value

    @field_validator("jwt_keys")
    @classmethod
    def _keys_address(cls, value: str) -> str:
        check_keys_address(value)
        return value

    @field_validator("jwt_algorithms")
    @classmethod
    def _algorithms(cls, value: str) -> str:
        parse_algorithms(value)
        return value

    @field_validator("token_secret")
    @classmethod
    def _token_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_secrets(value.get_secret_value())
        return value

    @field_validator("asr_api_key")
    @classmethod
    def _sendable_key(cls, value: SecretStr | None) -> SecretStr | None:
        return sendable_key(value)

    @field_validator("asr_ca_cert", "jwt_ca_cert")
    @classmethod
    def _certificate(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_file():
            raise ValueError(f"there is no file {value}. Give the PEM file of the certificate to trust.")
        return value.expanduser() if value is not None else None

    @field_validator("tls_names")
    @classmethod
    def _names(cls, value: str) -> str:
        parse_names(value)
        return value

    @field_validator("tls_cert", "tls_key", "tls_client_ca")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_file():
            raise ValueError(
                f"there is no file {value}. Give a PEM file, or leave it unset for a self-made certificate."
            )
        return value.expanduser() if value is not None else None

    @field_validator("state_dir", "spool_dir", "records_dir", "metrics_dir", "api_keys_file")
    @classmethod
    def _expanded(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @classmethod
    def shares_environment(cls, env: Mapping[str, str]) -> bool:
        """A NIM's image has variables of its own, and some may begin like ours."""
        return bool(env.get("NIM_COMMAND"))

    @property
    def records_folder(self) -> Path:
        """Where the records of streams are kept."""
        return self.records_dir if self.records_dir is not None else self.state_dir / "records"

    @property
    def keys_file(self) -> Path:
        """Where API keys are kept, hashed; it need not exist."""
        return self.api_keys_file if self.api_keys_file is not None else self.state_dir / "keys.json"

    @property
    def auth_wanted(self) -> bool:
        """Whether clients must show a credential."""
        if self.auth is not None:
            return self.auth == "on"
        return self.api_keys_file is not None or bool(self.jwt_keys) or self.token_secret is not None

    @property
    def auth_is_on(self) -> bool:
        """Whether clients must show a credential: it is said, or there is something to check one with."""
        return self.auth_wanted or (self.auth is None and self.keys_file.is_file())

    @property
    def asks_certificates(self) -> bool:
        """Whether nobody comes in on any port without a certificate of theirs."""
        return self.tls and self.tls_client_ca is not None and (self.grpc_port is None or self.grpc_secure)

    @property
    def grpc_secure(self) -> bool:
        """Whether the gRPC port speaks TLS. Unset: with a certificate of one's own, or where clients show theirs."""
        if self.grpc_tls is not None:
            return self.grpc_tls
        return self.tls and (self.tls_cert is not None or self.tls_client_ca is not None)

    @property
    def spool_folder(self) -> Path:
        """Where uploads wait."""
        return self.spool_dir if self.spool_dir is not None else self.state_dir / "spool"

    @model_validator(mode="after")
    def _fits(self) -> ServerSettings:
        if self.jwt_keys and not (self.jwt_issuer and self.jwt_audience):
            missing = "JWT_AUDIENCE" if self.jwt_issuer else "JWT_ISSUER"
            raise ValueError(f"{missing}: without it JWT_KEYS would take tokens that are meant for others. Set it.")
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "TLS_KEY" if self.tls_key is None else "TLS_CERT"
            raise ValueError(f"{missing}: a certificate and its key go together. Set this one too.")
        if self.grpc_tls and not self.tls and self.tls_cert is None:
            raise ValueError(
                "GRPC_TLS: with TLS=off there is no self-made certificate. Set TLS_CERT and TLS_KEY, or leave this out."
            )
        if self.port and self.port == self.grpc_port:
            raise ValueError(f"GRPC_PORT: {self.port} is PORT already. Give the gRPC face a port of its own.")
        return self


def check_collector(address: str) -> None:
    """Nothing, where spans can be sent to that address.

    Raises:
        ValueError: it is not the base address of an OTLP collector over HTTP.
    """
    fix = "Give the base address of an OTLP/HTTP collector, as in http://localhost:4318."
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(f"this is not an address. {fix}") from None
    if not is_whole or any(not sign.isprintable() or sign == " " for sign in address):
        raise ValueError(f"this is not an http or https address. {fix}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a user or password does not belong into it. Put credentials into OTEL_EXPORTER_OTLP_HEADERS.")
    if parts.query or parts.fragment:
        raise ValueError(f"it has a query or a fragment. {fix}")


def parse_headers(text: str) -> dict[str, str]:
    """HTTP headers as OpenTelemetry writes them: `key=value,key=value`, with %20 and the like in the values.

    Raises:
        ValueError: a part is not `key=value`. No part is repeated: it may be a secret.

    >>> parse_headers("x-team=speech, authorization=Basic%20c2k=")
    {'x-team': 'speech', 'authorization': 'Basic c2k='}
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = part.partition("=")
        name, value = name.strip().lower(), unquote(value.strip())
        if not sign or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError("a part of it is not key=value. Write key=value,key=value, with %2C for a comma.")
        found[name] = value
    return found


def parse_aliases(text: str) -> dict[str, str]:
    """`a=b,c=` as a mapping.

    Raises:
        ValueError: a part is not `name=model`.

    >>> parse_aliases("whisper-1=parakeet-1.1b, tiny=")
    {'whisper-1': 'parakeet-1.1b', 'tiny': ''}
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, model = part.partition("=")
        if not sign or not name.strip():
            raise ValueError(f"{part!r} is not name=model. Write name=model,name=model.")
        found[name.strip()] = model.strip()
    return found


def default_state_dir(env: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/riva-gateway`, which is `~/.local/state/riva-gateway` where nothing else is said."""
    base = env.get("XDG_STATE_HOME", "")
    # The XDG rules tell readers to ignore a relative path.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "riva-gateway"
