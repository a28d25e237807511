"""What was sent and what was heard, with the moments of both: all that is measured is a function of it.

Moments (`at_ms`) are milliseconds on one monotonic clock of the machine that streams; 0 is when the clip's first sample
was due to be spoken. Audio times (`_ms` of words and ends) are milliseconds on the audio clock of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "refused", "error", "disconnected", "timeout"]


@dataclass(frozen=True, slots=True)
class Heard:
    """One partial or final, as it came.

    Attributes:
        at_ms: when it came.
        kind: which of both.
        utterance: 0, 1, 2 … within the stream.
        text: its whole text.
        start_ms, end_ms: the audio that it covers.
        words: its words with their places, where the recognizer tells them.
    """

    at_ms: float
    kind: Literal["partial", "final"]
    utterance: int
    text: str
    start_ms: int
    end_ms: int
    words: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """One clip's way through a recognizer.

    Attributes:
        chunk_ms: how much audio one chunk holds.
        sent_at_ms: when chunk 0, 1, 2 … was handed to the connection; chunk i holds the audio from i * chunk_ms on.
        heard: in the order of arrival.
        realtime: whether the chunks were sent at the pace of speech; else no latency can be told.
        audio_ms: what was sent in all, the silence after the clip included.
        ready_ms: from asking for the stream to its being ready, or None where the protocol does not tell.
        total_ms: from the first chunk to the end of the stream.
        late_ms: how late the chunks were sent, at worst (the sender's own fault, not the recognizer's).
        outcome: how the stream ended.
        detail: what went wrong, for people.
        gaps_ms: audio that no final will ever cover, as told by the stream.
        retry_after_ms: how long to wait before trying again, where a refusal told it.
    """

    chunk_ms: int
    sent_at_ms: Sequence[float]
    heard: Sequence[Heard]
    realtime: bool
    audio_ms: int
    ready_ms: float | None = None
    total_ms: float = 0.0
    late_ms: float = 0.0
    outcome: Outcome = "ok"
    detail: str = ""
    gaps_ms: int = 0
    retry_after_ms: int | None = None

    def sent_when(self, audio_ms: float) -> float | None:
        """When the chunk that holds this audio instant was sent; None when it never was.

        An instant on the border of two chunks is complete with the earlier one.
        """
        index = max(-(-int(audio_ms) // self.chunk_ms) - 1, 0)
        return self.sent_at_ms[index] if index < len(self.sent_at_ms) else None
