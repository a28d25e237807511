"""The gateway's own keys, beside those of the recognizer (`asr.settings`).

The address is `LISTEN_HOST`, not `HOST`: csh, zsh and conda's compilers export `HOST` for their own ends, and a
gateway must not come to listen somewhere else because of that. `PORT` is what hosting platforms set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from asr.settings import EngineSettings, Port

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
    state_dir: Path = Field(default_factory=lambda: default_state_dir(os.environ))

    stereo: Literal["mix", "refuse"] = "mix"
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

    @field_validator("tls_cert", "tls_key")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_file():
            raise ValueError(
                f"there is no file {value}. Give a PEM file, or leave it unset for a self-made certificate."
            )
        return value.expanduser() if value is not None else None

    @field_validator("state_dir")
    @classmethod
    def _expanded(cls, value: Path) -> Path:
        return value.expanduser()

    @model_validator(mode="after")
    def _certificate_with_key(self) -> ServerSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "TLS_KEY" if self.tls_key is None else "TLS_CERT"
            raise ValueError(f"{missing}: a certificate and its key go together. Set this one too.")
        if self.port and self.port == self.grpc_port:
            raise ValueError(f"GRPC_PORT: {self.port} is PORT already. Give the gRPC face a port of its own.")
        return self


def default_state_dir(env: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/riva-gateway`, which is `~/.local/state/riva-gateway` where nothing else is said."""
    base = env.get("XDG_STATE_HOME", "")
    # The XDG rules tell readers to ignore a relative path.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "riva-gateway"
