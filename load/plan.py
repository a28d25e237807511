"""What one step of a load run does: who speaks when, to whom, in what pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evaluation.clips import Clip

Wire = Literal["websocket", "grpc"]
_PATHS = ("ca_cert", "client_cert", "client_key")


@dataclass(frozen=True, slots=True)
class Door:
    """Where the streams go.

    Attributes:
        wire: asr.v1 over WebSocket, or Riva's gRPC.
        address: a URL (`wss://host:port`), or `host:port`.
        tls: whether it is encrypted.
        ca_cert: a PEM file to trust too.
        insecure: do not verify the certificate (WebSocket only).
        metadata: sent with every stream, as headers of the handshake or metadata of the call; never printed.
        client_cert, client_key: PEM files for mutual TLS (gRPC only).
    """

    wire: Wire
    address: str
    tls: bool = False
    ca_cert: Path | None = None
    insecure: bool = False
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    client_cert: Path | None = None
    client_key: Path | None = None

    def files(self) -> tuple[Path, ...]:
        """The PEM files that it names."""
        return tuple(path for path in (self.ca_cert, self.client_cert, self.client_key) if path is not None)

    def as_json(self) -> dict[str, Any]:
        """For the standard input of a process that sends, and for nothing else: secrets are in it."""
        paths = {name: str(path) if path else None for name, path in self._paths()}
        return {
            "wire": self.wire,
            "address": self.address,
            "tls": self.tls,
            "insecure": self.insecure,
            **paths,
            "metadata": self.metadata,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Door:
        """What `as_json` made."""
        made: dict[str, Any] = {
            key: Path(value) if key in _PATHS and value else value for key, value in document.items()
        }
        made["metadata"] = tuple((key, value) for key, value in document.get("metadata", ()))
        return cls(**made)

    def _paths(self) -> tuple[tuple[str, Path | None], ...]:
        return tuple((name, getattr(self, name)) for name in _PATHS)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One session to come.

    Attributes:
        start_ms: when it connects, on the clock of its step.
        speech_ms: how long it speaks at the least: clips follow one another, with pauses, until then.
        cut_ms: break the connection without a word after so much audio; None: never.
        after: the number of the session whose place it takes: it does not connect before that one is over.
    """

    start_ms: float
    speech_ms: int
    cut_ms: int | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: so many sessions, as they arrive.

    Attributes:
        door: where they go.
        arrivals: in the order of their starts.
        sessions: how many are meant to speak at a time (the row's name).
        clips: what they say; session i begins with another clip than session i+1.
        chunk_ms: audio per message.
        pause_ms, tail_ms: silence between clips, and after the last one before the stream is ended.
        workers: processes to use; None: as many as the streams need, at most one per core.
        seed: of whatever is left to chance.
    """

    door: Door
    arrivals: tuple[Arrival, ...]
    sessions: int
    clips: tuple[Clip, ...]
    chunk_ms: int = 100
    pause_ms: int = 1000
    tail_ms: int = 1500
    workers: int | None = None
    seed: int = 1
