"""How each engine is set up, as frozen records. Nothing here reads the environment (`asr.settings` does)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """The embedded recognizer.

    Attributes:
        workers: recognizer processes; 0 means one per core.
        max_streams: streams at a time over all workers; further ones are refused as `overloaded`.
        silence_ms: the pause that ends an utterance.
        max_utterance_ms: an utterance that grows longer is cut there.
        partial_interval_ms: at most one partial in this much audio.
    """

    workers: int = 0
    max_streams: int = 8
    silence_ms: int = 500
    max_utterance_ms: int = 30_000
    partial_interval_ms: int = 200


@dataclass(frozen=True, slots=True)
class RivaConfig:
    """One Riva / Speech NIM gRPC endpoint.

    Attributes:
        endpoint: `host:port`.
        ssl: TLS towards it; also on when any of the three files is given.
        root_cert, client_cert, client_key: PEM files; a client certificate means mutual TLS.
        metadata: sent with every call (NVCF: `function-id`, `authorization`); never printed.
        model: used when a request names none; "" leaves the choice to the server.
        connect_timeout_ms: until the channel is up.
        first_response_timeout_ms: until the server says anything about a stream that sends audio.
        call_timeout_ms: deadline of the unary calls.
        finalize_timeout_ms: how long an answer to `force_eou` is awaited.
        drain_timeout_ms: after the end of the audio, the longest silence of the server that is taken for work.
        keepalive_time_ms: between HTTP/2 pings while a call is open; 0 for none. Many servers take pings
            that come much more often than this for abuse.
        max_message_bytes: gRPC message limit, both ways.
        force_eou: whether the server knows `runtime_config.force_eou`; `auto` judges by model name.
    """

    endpoint: str = "localhost:50051"
    ssl: bool = False
    root_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    model: str = ""
    connect_timeout_ms: int = 5_000
    first_response_timeout_ms: int = 15_000
    call_timeout_ms: int = 10_000
    finalize_timeout_ms: int = 2_000
    drain_timeout_ms: int = 30_000
    keepalive_time_ms: int = 60_000
    max_message_bytes: int = 64 * 1024 * 1024
    force_eou: Literal["auto", "on", "off"] = "auto"


@dataclass(frozen=True, slots=True)
class MockConfig:
    """The scripted recognizer.

    Attributes:
        plan: a plan file (TOML or JSON); None plays the built-in demonstration.
    """

    plan: Path | None = None


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Another riva-gateway, spoken to with `asr.v1`.

    Attributes:
        url: `https://host:port` or `wss://host:port`; plain `http`/`ws` too. A path before `/v1` is kept.
        token: sent as `Authorization: Bearer`; never printed.
        ca_cert: PEM file to trust beside the system's roots (a gateway's self-made certificate).
        insecure: do not verify the certificate.
        connect_timeout_ms: until the server has answered `start`.
        answer_timeout_ms: the longest silence of the server that is taken for life; after the end of the
            audio also the longest time without any progress.
        http_timeout_ms: for the list of models and the readiness.
    """

    url: str = "https://localhost:8443"
    token: str = field(default="", repr=False)
    ca_cert: Path | None = None
    insecure: bool = False
    connect_timeout_ms: int = 10_000
    answer_timeout_ms: int = 30_000
    http_timeout_ms: int = 5_000


EngineConfig = LocalConfig | RivaConfig | MockConfig | GatewayConfig
"""What `asr.build.build_engine` makes an engine from."""
