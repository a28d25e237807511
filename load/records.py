"""What a step of a load run leaves behind: one record per session, and samples of the processes."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.recording import Outcome
from evaluation.results import NO_TIMINGS, Timings


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session's fate. Moments are milliseconds on the step's clock.

    Attributes:
        number: 0, 1, 2 … in the order of arrival.
        start_ms: when it was due to connect.
        connected_ms: how long connecting took, or None when it never was.
        queue_ms: from asking for the stream to the gateway's `ready`, or None where the protocol does not tell (gRPC).
        ended_ms: when it was over.
        clips: ids of what it said.
        reference: the text of the clips that were sent to their ends.
        hypothesis: the finals' texts, joined by blanks.
        audio_ms: audio sent.
        outcome: how it ended; `refused` is a clear answer before any audio was taken, `disconnected` a connection that
            broke without a word.
        code: the error's code, or "".
        detail: for people.
        retry_after_ms: what a refusal told, or None.
        timings: as of a golden clip.
        partials, finals: messages that came.
        chunks: messages of audio sent.
        late_p99_ms, late_max_ms: how late this tool sent them (its own fault, not the gateway's).
        held_chunks, held_max_ms: messages that the connection did not take when they were due, and the longest wait.
        cut: it broke its connection on purpose; its words are not held against the gateway.
        speaking_ms: when its first audio was due, or None when it came to none.
    """

    number: int
    start_ms: float
    connected_ms: float | None
    queue_ms: float | None
    ended_ms: float
    clips: tuple[str, ...]
    reference: str
    hypothesis: str
    audio_ms: int
    outcome: Outcome
    code: str = ""
    detail: str = ""
    retry_after_ms: int | None = None
    timings: Timings = NO_TIMINGS
    partials: int = 0
    finals: int = 0
    chunks: int = 0
    late_p99_ms: float = 0.0
    late_max_ms: float = 0.0
    held_chunks: int = 0
    held_max_ms: float = 0.0
    cut: bool = False
    speaking_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How a step is doing, twice a second or so.

    Attributes:
        elapsed_ms: on the step's clock.
        active: sessions that speak now.
        waiting, done, refused, failed: how the others stand (`failed`: error, disconnected, timeout).
        late_p99_ms: the senders' lateness in the last moment.
        partials, finals: messages so far.
    """

    elapsed_ms: float
    active: int
    waiting: int
    done: int
    refused: int
    failed: int
    late_p99_ms: float
    partials: int
    finals: int


@dataclass(frozen=True, slots=True)
class StepRecord:
    """All of one step.

    Attributes:
        sessions: how many were meant to speak at a time.
        wall_ms: how long the step took.
        chunk_ms: audio per message.
        records: by number.
        peak: the most sessions that spoke at a time.
        workers: processes that sent.
        worker_cpu: the busiest worker's share of one core, 0..1.
        late_p99_ms, late_max_ms: lateness over all chunks of the step.
        notes: what was odd about the step itself, in sentences: a worker that died, a sender that was too slow.
    """

    sessions: int
    wall_ms: float
    chunk_ms: int
    records: tuple[SessionRecord, ...]
    peak: int
    workers: int
    worker_cpu: float
    late_p99_ms: float
    late_max_ms: float
    notes: tuple[str, ...] = ()
