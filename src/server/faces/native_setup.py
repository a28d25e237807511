"""What every session of a server has in common: its bounds, and how fast it acknowledges."""

from __future__ import annotations

from dataclasses import dataclass

from asr.audio import Stereo

ACK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class NativeLimits:
    """Bounds of a session; those of its `ready` message."""

    start_timeout_ms: int = 10_000
    idle_ms: int = 30_000
    max_session_ms: int = 4 * 3600 * 1000
    max_frame_bytes: int = 1024 * 1024
    max_ahead_ms: int = 5_000
    resume_window_ms: int = 60_000
    ack_interval_ms: int = int(ACK_INTERVAL_S * 1000)


@dataclass(frozen=True, slots=True)
class NativeSetup:
    """What every session of a server has in common.

    Attributes:
        server: name and version, for `ready`.
        limits: the bounds.
        stereo: what becomes of audio with several channels.
    """

    server: str
    limits: NativeLimits
    stereo: Stereo = "mix"
