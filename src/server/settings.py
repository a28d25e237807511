"""The gateway's own keys, beside those of the recognizer (`asr.settings`).

The address is `LISTEN_HOST`, not `HOST`: csh, zsh and conda's compilers export `HOST` for their own ends, and a
gateway must not come to listen somewhere else because of that. `PORT` is what hosting platforms set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from asr.settings import EngineSettings, Port

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]


class ServerSettings(EngineSettings):
    """Where the gateway listens, how it shows itself, and what it tolerates."""

    host: str = Field(default="127.0.0.1", validation_alias="listen_host")
    port: Port = 8443
    """0: a free port, chosen by the system and printed."""
    grpc_port: Port | None = 50052
    """0: a free port; `off` (here None): no gRPC face."""
    tls: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Set: clients must show a certificate that one of these has signed."""
    grpc_tls: bool | None = None
    """Unset: where `tls_cert` is set."""
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
    jwt_scope_claim: str = "scope"
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

    @field_validator("host")
    @classmethod
    def _only_host(cls, value: str) -> str:
        if "/" in value or " " in value or value.count(":") == 1:
            raise ValueError("this is not an address. Give a host name or address; the port belongs into PORT.")
        return value.strip("[]")

    @field_validator("asr_ca_cert")
    @classmethod
    def _certificate(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_file():
            raise ValueError(f"there is no file {value}. Give the PEM file of the certificate to trust.")
        return value.expanduser() if value is not None else None

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
    def spool_folder(self) -> Path:
        """Where uploads wait."""
        return self.spool_dir if self.spool_dir is not None else self.state_dir / "spool"

    @model_validator(mode="after")
    def _certificate_with_key(self) -> ServerSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "TLS_KEY" if self.tls_key is None else "TLS_CERT"
            raise ValueError(f"{missing}: a certificate and its key go together. Set this one too.")
        if self.port and self.port == self.grpc_port:
            raise ValueError(f"GRPC_PORT: {self.port} is PORT already. Give the gRPC face a port of its own.")
        return self


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
