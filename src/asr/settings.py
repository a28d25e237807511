"""The keys that choose and set up a recognizer, in one class. `.env.example` lists them for people.

A key is its field's name in capitals. Units are in the names. `server.settings` adds the gateway's own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from asr.config import (
    GatedConfig,
    LocalConfig,
    MockConfig,
    ResilienceConfig,
    ResilientConfig,
    RivaConfig,
    SilenceGateConfig,
)
from asr.endpoints import PRINTABLE, is_ipv6, is_loopback, parse_endpoint, parse_metadata
from asr.loading import SettingsError, StrictSettings, load_settings

__all__ = [
    "EngineName",
    "EngineSettings",
    "SettingsError",
    "is_loopback",
    "load_settings",
    "parse_endpoint",
    "parse_metadata",
]

EngineName = Literal["local", "riva", "mock"]
Port = Annotated[int, Field(ge=0, le=65535)]
Timeout = Annotated[int, Field(ge=1, le=3_600_000)]
TimeoutOrNever = Annotated[int, Field(ge=0, le=3_600_000)]

_LOCAL = LocalConfig()
_RIVA = RivaConfig()
_RESILIENCE = ResilienceConfig()
_MB = 1024 * 1024
_IDLE_LIMIT_MS = 50_000
"""Riva gives a stream up after 60 s without audio; silence that is sent later than this may come too late."""


def sendable_key(value: SecretStr | None) -> SecretStr | None:
    """A key, where it can travel in a header.

    Raises:
        ValueError: it cannot; the key is not in the message.
    """
    if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("the key holds a blank or a character outside ASCII. Copy it again, without line ends.")
    return value


class EngineSettings(StrictSettings):
    """Which recognizer listens, and how it is set up."""

    own_prefixes: ClassVar[tuple[str, ...]] = ("ASR_", "RIVA_")
    foreign_keys: ClassVar[frozenset[str]] = frozenset(
        {
            # the command's own (`server.settings`); a program that uses the library may run beside it
            *("ASR_SERVER", "ASR_API_KEY", "ASR_CA_CERT", "ASR_INSECURE"),
            *("ASR_LANGUAGE", "ASR_MODEL", "ASR_WORDS", "ASR_FORMAT"),
            *("ASR_OUTPUT_DIR", "ASR_DEVICE", "ASR_MOCK_HOST", "ASR_MOCK_GRPC_PORT", "ASR_MOCK_HTTP_PORT"),
            # the gateway's
            *("ASR_SWITCH", "ASR_CANARY_PERCENT", "ASR_CANARY_MIN_STREAMS"),
            *("RIVA_FORMER_ENDPOINTS", "RIVA_CANARY_ENDPOINTS"),
        }
    )

    asr_engine: EngineName | None = None
    asr_mock_plan: Path | None = None
    asr_secrets_dir: Path | None = None
    asr_silence_gate: bool = False
    asr_silence_gate_after_ms: Annotated[int, Field(ge=500, le=60_000)] = 2_000
    asr_silence_gate_pad_ms: Annotated[int, Field(ge=100, le=5_000)] = 500
    asr_failover_timeout_ms: Timeout = _RESILIENCE.failover_timeout_ms
    asr_start_timeout_ms: Timeout = _RESILIENCE.start_timeout_ms
    asr_retry_base_ms: Annotated[int, Field(ge=1, le=60_000)] = _RESILIENCE.retry_base_ms
    asr_retry_cap_ms: Annotated[int, Field(ge=1, le=60_000)] = _RESILIENCE.retry_cap_ms
    asr_retry_budget_percent: Annotated[int, Field(ge=0, le=100)] = _RESILIENCE.retry_budget_percent
    asr_breaker_failures: Annotated[int, Field(ge=1, le=1_000)] = _RESILIENCE.breaker_failures
    asr_breaker_open_ms: Timeout = _RESILIENCE.breaker_open_ms
    asr_breaker_probe_ms: Timeout = _RESILIENCE.breaker_probe_ms
    asr_replay_max_ms: Annotated[int, Field(ge=1_000, le=3_600_000)] = _RESILIENCE.replay_max_ms
    asr_replay_total_mb: Annotated[int, Field(ge=1, le=1_048_576)] = _RESILIENCE.replay_total_bytes // _MB

    riva_endpoints: str = ""
    riva_host: str = ""
    riva_port: Annotated[int, Field(ge=1, le=65535)] = 50051
    riva_ssl: bool | None = None
    riva_ssl_root_cert: Path | None = None
    riva_ssl_client_cert: Path | None = None
    riva_ssl_client_key: Path | None = None
    nim_host: str = ""
    riva_grpc_port: Annotated[int, Field(ge=1, le=65535)] = 50051
    """Goes with `nim_host`."""
    riva_model: str = _RIVA.model
    riva_api_key: SecretStr | None = None
    riva_function_id: str = ""
    riva_metadata: SecretStr | None = None
    riva_force_eou: Literal["auto", "on", "off"] = _RIVA.force_eou
    riva_connect_timeout_ms: Timeout = _RIVA.connect_timeout_ms
    riva_first_response_timeout_ms: Timeout = _RIVA.first_response_timeout_ms
    riva_stall_timeout_ms: Timeout = _RIVA.stall_timeout_ms
    riva_degraded_after_ms: Timeout = _RIVA.degraded_after_ms
    riva_idle_silence_ms: Annotated[int, Field(ge=0)] = _RIVA.idle_silence_ms
    riva_quiet_final_ms: TimeoutOrNever = _RIVA.quiet_final_ms
    riva_call_timeout_ms: Timeout = _RIVA.call_timeout_ms
    riva_finalize_timeout_ms: Timeout = _RIVA.finalize_timeout_ms
    riva_drain_timeout_ms: Timeout = _RIVA.drain_timeout_ms
    riva_keepalive_time_ms: TimeoutOrNever = _RIVA.keepalive_time_ms
    riva_keepalive_timeout_ms: Timeout = _RIVA.keepalive_timeout_ms
    riva_streams_per_channel: Annotated[int, Field(ge=1, le=10_000)] = _RIVA.streams_per_channel
    riva_max_streams: Annotated[int, Field(ge=0, le=100_000)] = _RESILIENCE.max_streams
    riva_adaptive_limit: bool = _RESILIENCE.adaptive
    riva_max_lag_ms: Timeout = _RESILIENCE.max_lag_ms
    riva_max_stream_ms: Annotated[int, Field(ge=0, le=86_400_000)] = _RESILIENCE.max_stream_ms
    riva_health_interval_ms: Annotated[int, Field(ge=100, le=3_600_000)] = _RESILIENCE.health_interval_ms
    riva_max_message_bytes: Annotated[int, Field(ge=65_536, le=2**31 - 1)] = _RIVA.max_message_bytes

    local_workers: Annotated[int, Field(ge=0, le=256)] = _LOCAL.workers
    local_max_streams: Annotated[int, Field(ge=1, le=10_000)] = _LOCAL.max_streams
    local_silence_ms: Annotated[int, Field(ge=100, le=10_000)] = _LOCAL.silence_ms
    local_max_utterance_ms: Annotated[int, Field(ge=1_000, le=600_000)] = _LOCAL.max_utterance_ms
    local_partial_interval_ms: Annotated[int, Field(ge=20, le=10_000)] = _LOCAL.partial_interval_ms

    @field_validator("riva_endpoints")
    @classmethod
    def _endpoints(cls, value: str) -> str:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        seen: set[str] = set()
        for number, part in enumerate(parts, 1):
            where = f"endpoint {number}: " if len(parts) > 1 else ""
            try:
                address = parse_endpoint(part)[0].lower()
            except ValueError as error:
                raise ValueError(f"{where}{error}") from None
            if address in seen:
                raise ValueError(f"{where}{address} is named before, and cannot stand in for itself. Keep it once.")
            seen.add(address)
        return ",".join(parts)

    @field_validator("riva_idle_silence_ms")
    @classmethod
    def _in_time(cls, value: int) -> int:
        if value >= _IDLE_LIMIT_MS:
            raise ValueError(
                f"{value} is too late: Riva gives a stream up after 60 s without audio. Set it below "
                f"{_IDLE_LIMIT_MS}, or to 0 for a server that waits for ever."
            )
        return value

    @field_validator("riva_host", "nim_host")
    @classmethod
    def _bare_host(cls, value: str) -> str:
        if ":" in value.strip("[]") and not is_ipv6(value.strip("[]")):
            raise ValueError("this is a host name without a port. Put the port into RIVA_PORT, or use RIVA_ENDPOINTS.")
        if "/" in value or "@" in value or " " in value:
            raise ValueError("this is not a host name. Give only the name or address of the Riva server.")
        return value

    @field_validator("riva_function_id")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not PRINTABLE.match(value):
            raise ValueError("it holds a character that cannot travel in a header. Copy the id again.")
        return value

    @field_validator("riva_api_key")
    @classmethod
    def _printable_key(cls, value: SecretStr | None) -> SecretStr | None:
        return sendable_key(value)

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
        self._agree_on_tls()
        metadata = dict(self._own_metadata())
        if self.riva_api_key is not None and "authorization" in metadata:
            raise ValueError("RIVA_API_KEY: RIVA_METADATA has an authorization too. Keep one of them.")
        if self.riva_function_id and "function-id" in metadata:
            raise ValueError("RIVA_FUNCTION_ID: RIVA_METADATA has a function-id too. Keep one of them.")
        if self.engine == "riva" and self.riva_api_key is not None:
            for riva in self.riva_configs():
                if not (riva.ssl or riva.root_cert or riva.client_cert or is_loopback(riva.endpoint)):
                    raise ValueError(
                        "RIVA_API_KEY: it would travel unencrypted to another machine. "
                        "Set RIVA_SSL=on, or remove the key."
                    )
        if self.asr_retry_cap_ms < self.asr_retry_base_ms:
            raise ValueError(
                f"ASR_RETRY_CAP_MS: {self.asr_retry_cap_ms} is below ASR_RETRY_BASE_MS, the shortest pause. Raise it."
            )
        return self

    def _agree_on_tls(self) -> None:
        said = {secure for _, secure in self._addresses()}
        scheme = {True: "grpcs://", False: "grpc://"}
        if self.riva_ssl is not None and (not self.riva_ssl) in said:
            raise ValueError(
                f"RIVA_SSL: it is {'on' if self.riva_ssl else 'off'}, and RIVA_ENDPOINTS has a "
                f"{scheme[not self.riva_ssl]}. Change one of the two."
            )
        if self.riva_ssl is None and len(said) > 1 and None in said:
            raise ValueError(
                "RIVA_ENDPOINTS: some endpoints say grpc:// or grpcs://, others do not. "
                "Write it in front of all of them, or of none and set RIVA_SSL."
            )

    @property
    def engine(self) -> EngineName:
        """The chosen engine; unset: `riva` where an endpoint is named, else `local`."""
        if self.asr_engine is not None:
            return self.asr_engine
        return "riva" if self.riva_endpoints or self.riva_host or self.nim_host else "local"

    def engine_config(self) -> ResilientConfig | MockConfig | GatedConfig:
        """The record of the chosen engine, behind its silence gate where that is on."""
        chosen = self._chosen()
        if not self.asr_silence_gate:
            return chosen
        return GatedConfig(chosen, SilenceGateConfig(self.asr_silence_gate_after_ms, self.asr_silence_gate_pad_ms))

    def _chosen(self) -> ResilientConfig | MockConfig:
        match self.engine:
            case "local":
                return ResilientConfig((self.local_config(),), self._resilience())
            case "riva":
                return ResilientConfig(self.riva_configs(), self._riva_resilience())
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

    def riva_configs(self) -> tuple[RivaConfig, ...]:
        """How each Riva endpoint is spoken to; `localhost` where none is named."""
        return tuple(
            RivaConfig(
                endpoint=endpoint,
                ssl=bool(secure) if self.riva_ssl is None else self.riva_ssl,
                root_cert=self.riva_ssl_root_cert,
                client_cert=self.riva_ssl_client_cert,
                client_key=self.riva_ssl_client_key,
                metadata=self._metadata(),
                model=self.riva_model,
                connect_timeout_ms=self.riva_connect_timeout_ms,
                first_response_timeout_ms=self.riva_first_response_timeout_ms,
                stall_timeout_ms=self.riva_stall_timeout_ms,
                degraded_after_ms=self.riva_degraded_after_ms,
                idle_silence_ms=self.riva_idle_silence_ms,
                quiet_final_ms=self.riva_quiet_final_ms,
                streams_per_channel=self.riva_streams_per_channel,
                call_timeout_ms=self.riva_call_timeout_ms,
                finalize_timeout_ms=self.riva_finalize_timeout_ms,
                drain_timeout_ms=self.riva_drain_timeout_ms,
                keepalive_time_ms=self.riva_keepalive_time_ms,
                keepalive_timeout_ms=self.riva_keepalive_timeout_ms,
                max_message_bytes=self.riva_max_message_bytes,
                force_eou=self.riva_force_eou,
            )
            for endpoint, secure in self._addresses()
        )

    def _addresses(self) -> list[tuple[str, bool | None]]:
        if self.riva_endpoints:
            return [parse_endpoint(part) for part in self.riva_endpoints.split(",")]
        if self.nim_host and not self.riva_host:
            host, port = self.nim_host.strip("[]"), self.riva_grpc_port
        else:
            host, port = self.riva_host.strip("[]") or "localhost", self.riva_port
        return [(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", None)]

    def _resilience(self) -> ResilienceConfig:
        return replace(
            _RESILIENCE,
            failover_timeout_ms=self.asr_failover_timeout_ms,
            start_timeout_ms=self.asr_start_timeout_ms,
            retry_base_ms=self.asr_retry_base_ms,
            retry_cap_ms=self.asr_retry_cap_ms,
            retry_budget_percent=self.asr_retry_budget_percent,
            breaker_failures=self.asr_breaker_failures,
            breaker_open_ms=self.asr_breaker_open_ms,
            breaker_probe_ms=self.asr_breaker_probe_ms,
            replay_max_ms=self.asr_replay_max_ms,
            replay_total_bytes=self.asr_replay_total_mb * _MB,
        )

    def _riva_resilience(self) -> ResilienceConfig:
        return replace(
            self._resilience(),
            max_streams=self.riva_max_streams,
            adaptive=self.riva_adaptive_limit,
            max_lag_ms=self.riva_max_lag_ms,
            max_stream_ms=self.riva_max_stream_ms,
            health_interval_ms=self.riva_health_interval_ms,
        )

    def _own_metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.riva_metadata is None else parse_metadata(self.riva_metadata.get_secret_value())

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        metadata = self._own_metadata()
        if self.riva_function_id:
            metadata += (("function-id", self.riva_function_id),)
        if self.riva_api_key is not None:
            key = self.riva_api_key.get_secret_value()
            metadata += (("authorization", f"Bearer {key}"),)
        return metadata
