"""A gap in what was recognized, as a sentence for people."""

from __future__ import annotations

from asr.events import Gap, GapCause

_CAUSES = {
    GapCause.BUFFER_OVERRUN: "the recognizer or the connection was lost for longer than audio is kept",
    GapCause.UPSTREAM_LOST: "the recognizer was lost",
    GapCause.DECODE_ERROR: "it could not be decoded",
}


def gap_sentence(gap: Gap) -> str:
    """Which audio is missing, in seconds from the beginning, and why."""
    return f"{gap.start_ms / 1000:.1f} s to {gap.end_ms / 1000:.1f} s was not recognized: {_CAUSES[gap.cause]}"
