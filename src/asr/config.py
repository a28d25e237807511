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
        stall_timeout_ms: the longest silence of the server while speech is sent to it.
        degraded_after_ms: a silence of the server, while speech is sent, that is worth telling the caller.
        idle_silence_ms: without audio for so long, the server is sent silence, which is taken off the clock again:
            Riva gives up a stream after a minute without audio. 0 for never.
        quiet_final_ms: a partial that does not change for so long while audio flows is made a final, for servers
            that never send one. 0 for never.
        streams_per_channel: streams on one connection; a further connection is opened for more.
        keepalive_timeout_ms: how long an answer to a ping is awaited.
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
    connect_timeout_ms: int = 2_000
    first_response_timeout_ms: int = 10_000
    stall_timeout_ms: int = 8_000
    degraded_after_ms: int = 2_000
    idle_silence_ms: int = 15_000
    quiet_final_ms: int = 6_000
    streams_per_channel: int = 80
    call_timeout_ms: int = 10_000
    finalize_timeout_ms: int = 2_000
    drain_timeout_ms: int = 12_000
    keepalive_time_ms: int = 60_000
    keepalive_timeout_ms: int = 5_000
    max_message_bytes: int = 64 * 1024 * 1024
    force_eou: Literal["auto", "on", "off"] = "auto"


@dataclass(frozen=True, slots=True)
class ResilienceConfig:
    """How the loss of a recognizer is survived; see `asr.resilience`.

    Attributes:
        failover_timeout_ms: how long a stream looks for another recognizer after it has lost one.
        start_timeout_ms: the same for a stream that has not heard from any recognizer yet: refused soon is
            better than served late.
        retry_base_ms, retry_cap_ms: the pause before retry n is a random part of base·2ⁿ⁻¹, at most the cap.
        retry_budget_percent: retries in proportion to streams, over all streams (a few are always allowed).
        breaker_failures: failures in a row that open an endpoint's circuit breaker.
        breaker_open_ms: how long it stays open before one stream may probe.
        breaker_probe_ms: a probe that says nothing for so long counts for nothing: another may probe.
        replay_max_ms: audio kept per stream since its last final; what falls out becomes a gap if the recognizer
            is lost before its final.
        replay_total_bytes: the same over all streams together.
        max_stream_ms: a stream to a recognizer that is older is renewed at the next pause; 0 for never.
        health_interval_ms: between two looks at an endpoint's list of models.
        max_streams: streams per endpoint; 0 for no fixed limit.
        adaptive: lower that limit while results lag behind the audio.
        max_lag_ms: results that lag by more than this show that an endpoint has too many streams.
    """

    failover_timeout_ms: int = 15_000
    start_timeout_ms: int = 1_000
    retry_base_ms: int = 100
    retry_cap_ms: int = 2_000
    retry_budget_percent: int = 10
    breaker_failures: int = 5
    breaker_open_ms: int = 5_000
    breaker_probe_ms: int = 2_000
    replay_max_ms: int = 60_000
    replay_total_bytes: int = 256 * 1024 * 1024
    max_stream_ms: int = 1_800_000
    health_interval_ms: int = 5_000
    max_streams: int = 0
    adaptive: bool = True
    max_lag_ms: int = 1_500


@dataclass(frozen=True, slots=True)
class ResilientConfig:
    """Recognizers of one kind that stand in for each other.

    Attributes:
        members: one for each endpoint, in order of preference where they are equally busy.
        resilience: how the loss of one is survived.
    """

    members: tuple[RivaConfig, ...] | tuple[LocalConfig, ...]
    resilience: ResilienceConfig = field(default_factory=ResilienceConfig)


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
        resume_window_ms: how long a lost connection is tried for again; 0 for not at all.
    """

    url: str = "https://localhost:8443"
    token: str = field(default="", repr=False)
    ca_cert: Path | None = None
    insecure: bool = False
    connect_timeout_ms: int = 10_000
    answer_timeout_ms: int = 30_000
    http_timeout_ms: int = 5_000
    resume_window_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class SilenceGateConfig:
    """When silence is kept off a recognizer; see `asr.silence_gate`.

    Attributes:
        after_ms: without speech for so long, sound is held back.
        pad_ms: how much sound before speech is sent with it.
    """

    after_ms: int = 2_000
    pad_ms: int = 500


@dataclass(frozen=True, slots=True)
class GatedConfig:
    """A recognizer behind a silence gate.

    Attributes:
        member: the recognizer.
        gate: when silence is kept off it.
    """

    member: LocalConfig | RivaConfig | MockConfig | ResilientConfig
    gate: SilenceGateConfig = field(default_factory=SilenceGateConfig)


EngineConfig = LocalConfig | RivaConfig | MockConfig | GatewayConfig | ResilientConfig | GatedConfig
"""What `asr.build.build_engine` makes an engine from."""
