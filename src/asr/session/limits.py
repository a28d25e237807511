"""The bounds of a session."""

from __future__ import annotations

from dataclasses import dataclass

from asr.engine import BYTES_PER_MS


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a session.

    Attributes:
        ring_bytes: audio kept: given and not yet known to have arrived (more is not taken), or not yet settled
            (the oldest is forgotten).
        window_ms: how long a connection is tried for again; 0 for not at all.
        progress_timeout_ms: the longest time without any progress while something is waited for.
        retry_base_ms, retry_cap_ms: the pause before attempt n is a random part of base·2ⁿ, at most the cap.
        stable_ms: a connection that held so long begins the pauses anew.
        ack_every: messages of the gateway between two acknowledgements.
    """

    ring_bytes: int = 60_000 * BYTES_PER_MS
    window_ms: int = 60_000
    progress_timeout_ms: int = 30_000
    retry_base_ms: int = 250
    retry_cap_ms: int = 5_000
    stable_ms: int = 5_000
    ack_every: int = 20
