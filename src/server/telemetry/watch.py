"""One stream as it happens: what faces and the driver tell of it, and what is worked out from that.

What is told often costs next to nothing: a chunk of audio is a row in the audio clock, an event a few comparisons. The
sinks hear of latencies and of what happens seldom; what only grows is read when somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import structlog

from asr.errors import ASRError, Code
from asr.events import Final
from server.telemetry.latency import Spread
from server.telemetry.record import StreamRecord, StreamStart, outcome_of
from server.telemetry.takes import TakeWatch, Told

if TYPE_CHECKING:
    from server.telemetry.hub import MeasuringSink, Sink

log = structlog.get_logger("server.telemetry")

TOLD_TOGETHER = 16
"""Partials whose latencies the sinks are told of at once, unless something else is told or somebody asks before."""
MAX_PENDING = 1_024
"""Results on their way to a slow client whose latency is still open; of the oldest beyond it none is told."""


class Grown(NamedTuple):
    """What only grows while a stream is open; see `StreamWatch`."""

    audio_ms: int = 0
    partials: int = 0
    finals: int = 0
    words: int = 0


class ClientGone(ASRError):
    """The client went away before its answer was ready: nobody reads this, and nobody is to blame."""

    def __init__(self) -> None:
        super().__init__(Code.IDLE_TIMEOUT, "The client went away before its answer was ready.")


class StreamWatch:
    """To be told of a stream, in the event loop; `close` ends it, once.

    A watch that nobody holds any more and that was not closed closes itself: its stream failed.

    Attributes:
        start: the stream's beginning.
        model, language: that it is recognized with.
        audio_ms: given to the recognizer.
        partials, finals, words: told by it.
        received_bytes, sent_bytes: of messages, both added to by who has them.
        left_out: messages that were never sent, because the client read too slowly.
        resumes: how often the client came back.
        failovers, replayed_ms, gaps_ms: what the stream went through upstream.
        first_word_at: when the stream's first word was received, once there is one.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_clock",
        "_closed",
        "_final_latencies",
        "_first_partial_ms",
        "_late",
        "_measuring",
        "_on_final",
        "_partial_latencies",
        "_pending",
        "_queue_wait_ms",
        "_sinks",
        "_unix_time",
        "audio_ms",
        "failovers",
        "finals",
        "first_word_at",
        "gaps_ms",
        "language",
        "left_out",
        "model",
        "partials",
        "received_bytes",
        "replayed_ms",
        "resumes",
        "sent_bytes",
        "start",
        "words",
    )

    def __init__(
        self,
        start: StreamStart,
        sinks: tuple[Sink, ...],
        measuring: tuple[MeasuringSink, ...],
        clock: Callable[[], float],
        unix_time: Callable[[], float],
        on_final: Callable[[StreamStart, Final], None] | None = None,
    ) -> None:
        self._closed = False
        self._on_final = on_final
        self.start = start
        self._sinks = sinks
        self._measuring = measuring
        self._clock = clock
        self._unix_time = unix_time
        self._began = clock()
        self._pending: deque[tuple[int, Told]] = deque(maxlen=MAX_PENDING)
        self._queue_wait_ms: int | None = None
        self._first_partial_ms: int | None = None
        self.first_word_at: float | None = None
        self._late: list[float] = []  # of partials, not told yet
        self._partial_latencies = Spread()
        self._final_latencies = Spread()
        self.model = self.language = ""
        self.audio_ms = 0.0
        self.partials = self.finals = self.words = 0
        self.received_bytes = self.sent_bytes = 0
        self.left_out = self.resumes = 0
        self.failovers = self.replayed_ms = self.gaps_ms = 0

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._closed

    @property
    def grown(self) -> Grown:
        """How far it has come."""
        return Grown(int(self.audio_ms), self.partials, self.finals, self.words)

    def take(self, channels: int = 1) -> TakeWatch:
        """One of the stream's takes: audio with a clock of its own, and what is recognized of it."""
        return TakeWatch(self, channels, self._clock)

    def agreed(self, model: str, language: str) -> None:
        """What the stream is recognized with, from now on."""
        self.model, self.language = model, language

    # What its takes tell ---------------------------------------------------------------------------

    def waited(self, seconds: float) -> None:
        """The recognizer takes a take's first audio, which was there for so long; that of the first take counts."""
        if self._queue_wait_ms is None:
            self._queue_wait_ms = round(seconds * 1000)
            self._tell("queue_wait", seconds)

    def said(self, final: Final) -> None:
        """A final."""
        self.finals += 1
        self.words += len(final.words) or len(final.text.split())
        if self._on_final is not None:
            try:
                self._on_final(self.start, final)
            except Exception:
                log.exception("telemetry failed", sink="on_final")

    # What the client gets -------------------------------------------------------------------------

    def sent(self, told: Told) -> None:
        """A result is on the wire."""
        self._measure(told, self._clock())

    def settle(self) -> None:
        """Tell the sinks of all that was measured and not told yet."""
        late, self._late = self._late, []
        for late_s in late:
            self._partial_latencies.add(late_s)
            self._tell("partial", late_s)

    @property
    def is_waiting(self) -> bool:
        """Whether there are results that wait for the client to read."""
        return bool(self._pending)

    def waits(self, told: Told, number: int) -> None:
        """A result waits for the client to read, in the message of this number; the numbers grow."""
        self._pending.append((number, told))

    def flushed(self, number: int) -> None:
        """The message of this number was sent, and of those before it what had not become needless."""
        pending = self._pending
        now = 0.0
        while pending and pending[0][0] <= number:
            at, told = pending.popleft()
            if at == number or told.way is not None:  # finals are never left out
                now = now or self._clock()
                self._measure(told, now)

    def lost(self, window_ms: int) -> None:
        """The client is away, and may come back within `window_ms`. What it misses meanwhile has no latency."""
        self._pending.clear()
        self.happened("lost", window_ms=window_ms)

    def resumed(self, peer: str, missed: int) -> None:
        """The client came back, from `peer`, and had missed so many messages."""
        self.resumes += 1
        self.happened("resumed", peer=peer, missed=missed)

    # What happens ---------------------------------------------------------------------------------

    def happened(self, what: str, **about: str | int | float) -> None:
        """Something seldom; see `server.telemetry.hub.Sink`."""
        at_s = self._unix_time()
        for sink in self._sinks:
            try:
                sink.happened(self.start, what, at_s, **about)
            except Exception:
                failed(sink)

    def close(self, code: str = "", *, complete: bool = True, close_code: int | None = None) -> None:
        """The stream is over; the first call counts.

        Args:
            code: of the error that ended it, or "".
            complete: whether the client was there for all of its results.
            close_code: of its WebSocket, or None.
        """
        if self._closed:
            return
        self._closed = True
        self.settle()
        record = StreamRecord(
            self.start,
            self._unix_time(),
            outcome_of(code, complete=complete),
            code,
            close_code,
            self.model,
            self.language,
            audio_ms=int(self.audio_ms),
            duration_ms=round((self._clock() - self._began) * 1000),
            queue_wait_ms=self._queue_wait_ms,
            first_partial_ms=self._first_partial_ms,
            partial_latency_ms=self._partial_latencies.percentile_ms(95),
            final_latency_ms=self._final_latencies.percentile_ms(95),
            partials=self.partials,
            finals=self.finals,
            words=self.words,
            received_bytes=self.received_bytes,
            sent_bytes=self.sent_bytes,
            failovers=self.failovers,
            replayed_ms=self.replayed_ms,
            gaps_ms=self.gaps_ms,
            resumes=self.resumes,
            left_out=self.left_out,
        )
        for sink in self._sinks:
            try:
                sink.closed(record)
            except Exception:
                failed(sink)

    @contextmanager
    def until_over(self) -> Iterator[None]:
        """Around all that is done for the stream: its end closes the watch, and what was raised tells how it ended."""
        code, complete = "", False
        try:
            yield
            complete = True
        except ClientGone:
            raise
        except Exception as failure:
            code = failure.code.value if isinstance(failure, ASRError) else Code.INTERNAL.value
            raise
        finally:
            self.close(code, complete=complete)

    def __del__(self) -> None:
        # Half made, or half taken down with the interpreter: then there is nobody to tell.
        if not getattr(self, "_closed", True):
            self.close(Code.INTERNAL.value, complete=False)

    # Inside ---------------------------------------------------------------------------------------

    def _measure(self, told: Told, now: float) -> None:
        late_s = now - told.received
        if late_s < 0:  # out before it could have been spoken
            return
        if self._first_partial_ms is None and self.first_word_at is not None:
            first_s = max(now - self.first_word_at, 0.0)
            self._first_partial_ms = round(first_s * 1000)
            self._tell("first_partial", first_s)
            self.happened("first_partial", latency_ms=self._first_partial_ms)
        way = told.way
        if way is None:
            self._late.append(late_s)
            if len(self._late) >= TOLD_TOGETHER:
                self.settle()
            return
        self.settle()
        self._final_latencies.add(late_s)
        self._tell("final", late_s)
        heard = max(told.heard, way.taken)
        self._tell("ingress", way.put - way.received)
        self._tell("queue", way.taken - way.put)
        self._tell("upstream", heard - way.taken)
        self._tell("egress", max(now - heard, 0.0))
        self.happened("final", latency_ms=round(late_s * 1000))

    def _tell(self, what: str, seconds: float) -> None:
        for sink in self._measuring:
            try:
                sink.measured(self.start, what, seconds)
            except Exception:
                failed(sink)


def failed(sink: Sink) -> None:
    """A sink raised: that is told, and disturbs nobody."""
    log.exception("telemetry failed", sink=type(sink).__name__)
