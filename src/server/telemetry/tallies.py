"""What other rooms count for `/metrics`, and have no metrics of their own for: each adds to its own line. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tallies:
    """Counts since the start, and how things stand. The names in them are few and known; never a client's own.

    Attributes:
        access_refused: by `missing`, `wrong`, `expired`, `scope`, `origin`.
        quota_refused: by the quota's name.
        certificate_expiry: when a certificate ends, in Unix seconds, by its use: `listener`, `riva_client`, `riva_ca`.
        rollout_position: `on`, `off` or `former`.
        canary_percent: of the streams, those that the canary gets.
        canary_streams: by arm (`base`, `canary`) and outcome.
        canary_aborts: canaries that were ended because they did worse.
        records_dropped, log_lines_suppressed, spans_dropped: what was not written, so that nobody had to wait for it.
    """

    access_refused: Counter[str] = field(default_factory=Counter)
    quota_refused: Counter[str] = field(default_factory=Counter)
    certificate_expiry: dict[str, float] = field(default_factory=dict)
    rollout_position: str = "on"
    canary_percent: int = 0
    canary_streams: Counter[tuple[str, str]] = field(default_factory=Counter)
    canary_aborts: int = 0
    records_dropped: int = 0
    log_lines_suppressed: int = 0
    spans_dropped: int = 0
