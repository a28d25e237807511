"""What is told of one stream: at its beginning, and when it is over. Pure data; nothing of what was said is in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from asr.errors import Code
from server.telemetry.trace import TraceContext

Kind = Literal["live", "recording"]


class Outcome(StrEnum):
    """How a stream ended, as seen by an objective for errors."""

    OK = "ok"
    """With all of its results."""
    GONE = "gone"
    """The client went away before them."""
    CLIENT = "client_error"
    """What the client sent, or did not send, ended it."""
    SERVER = "server_error"
    """The gateway or the recognizer failed it."""


SERVERS_FAULT = frozenset({Code.INTERNAL, Code.OVERLOADED, Code.STORAGE_FULL, Code.TIMEOUT, Code.UNAVAILABLE})


def outcome_of(code: str, *, complete: bool) -> Outcome:
    """What an error code comes to; without one, whether the client stayed until its results were complete."""
    if not code:
        return Outcome.OK if complete else Outcome.GONE
    try:
        return Outcome.SERVER if Code(code) in SERVERS_FAULT else Outcome.CLIENT
    except ValueError:
        return Outcome.CLIENT


@dataclass(frozen=True, slots=True)
class StreamStart:
    """A stream that was admitted.

    Attributes:
        stream_id: unique; in every line that is written about it.
        face: `native`, `end`, `realtime …`, `riva_grpc`, `openai` …: one of a small set.
        kind: audio as it is spoken, or a recording.
        peer: the client's address.
        principal: who the client is, without its credential.
        trace: where it stands in a trace.
        unix_s: when it began.
        session_id: that the client knows it by, or "".
    """

    stream_id: str
    face: str
    kind: Kind
    peer: str
    principal: str
    trace: TraceContext
    unix_s: float
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """A stream that is over. Durations are wall time in ms, unless they are audio's.

    Attributes:
        start: its beginning.
        unix_s: when it ended.
        outcome: how.
        code: the error code that ended it, or "".
        close_code: of its WebSocket, or None.
        model: that recognized it, or "".
        language: that it was recognized as, or "".
        audio_ms: audio given to the recognizer.
        duration_ms: from its beginning to its end.
        queue_wait_ms: from when its first audio was there until the recognizer took it; None where it took none.
        first_partial_ms: from the arrival of the audio in which the first words ended to those words on the wire.
        partial_latency_ms: the same for all partials, their 95th percentile.
        final_latency_ms: the same for finals, their 95th percentile.
        partials, finals, words: told by the recognizer.
        received_bytes, sent_bytes: of the client's messages, and of ours.
        failovers, replayed_ms, gaps_ms: what it went through upstream.
        resumes: how often its client came back.
        left_out: messages that were never sent, because its client read too slowly.
    """

    start: StreamStart
    unix_s: float
    outcome: Outcome
    code: str = ""
    close_code: int | None = None
    model: str = ""
    language: str = ""
    audio_ms: int = 0
    duration_ms: int = 0
    queue_wait_ms: int | None = None
    first_partial_ms: int | None = None
    partial_latency_ms: int | None = None
    final_latency_ms: int | None = None
    partials: int = 0
    finals: int = 0
    words: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    failovers: int = 0
    replayed_ms: int = 0
    gaps_ms: int = 0
    resumes: int = 0
    left_out: int = 0

    @property
    def rtfx(self) -> float:
        """Seconds of audio for each second that it took."""
        return self.audio_ms / self.duration_ms if self.duration_ms else 0.0
