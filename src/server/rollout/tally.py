"""One stream of a canary's time, of either arm, as it goes by: what its outcome says is told to the comparison.

The same is noted of both arms, at the same boundary. Nothing waits for the end of a stream that may last hours: its
first finals tell its latency, its first minute how much is said, and a failure is told at once.
"""

from __future__ import annotations

from collections import deque

from asr.engine import BYTES_PER_MS
from asr.events import Event, Final, FinalReason, Partial, State, Status
from server.rollout.verdict import Comparison, Lot
from server.telemetry.record import Outcome, outcome_of

EARLY_FINALS = 3
"""So many finals make the stream's latency; fewer where it ends before."""
WINDOW_MS = 60_000
"""Words are counted in so much audio."""
SETTLE_MS = 15_000
"""So long after it, its finals should be out."""
MIN_AUDIO_MS = 5_000
"""Less audio may well have no words in it."""
MAX_MARKS = 1_200
"""Chunks whose arrival is remembered: two minutes of 100 ms each."""

_MADE_UP = (FinalReason.FAILOVER, FinalReason.TIMEOUT)


class StreamTally:
    """A stream that was drawn for one of the arms.

    Args:
        lot: what was drawn.
        comparison: is told.
        channels: of its audio.
        live: whether the audio comes as it is spoken; a recording has no latencies.
    """

    def __init__(self, lot: Lot, comparison: Comparison, *, channels: int, live: bool) -> None:
        self.lot = lot
        self._comparison = comparison
        self._bytes_per_ms = BYTES_PER_MS * channels
        self._channels = channels
        self._live = live
        self._bytes = 0
        self._marks: deque[tuple[int, float]] = deque(maxlen=MAX_MARKS)
        self._late_s = 0.0
        self._finals = 0
        self._words = 0
        self._spoke = False
        self._failed = False
        self._told_latency = not live
        self._told_words = False

    @property
    def failed(self) -> bool:
        """Whether its recognizer failed, as far as is known."""
        return self._failed

    def pulled(self, n_bytes: int, now: float) -> None:
        """The recognizer took audio, at `now` (s)."""
        self._bytes += n_bytes
        audio_ms = self._bytes // self._bytes_per_ms
        if not self._told_latency:
            self._marks.append((audio_ms, now))
        if self._live and not self._told_words and audio_ms >= WINDOW_MS + SETTLE_MS:
            self._tell_words(audio_ms)

    def heard(self, event: Event, now: float) -> None:
        """The recognizer said something, at `now` (s)."""
        kind = type(event)
        if isinstance(event, Final):
            self._final(event, now)
        elif kind is Partial:
            self._spoke = True
        elif isinstance(event, Status) and event.state in (State.FAILING_OVER, State.THROTTLED):
            self.lost()

    def lost(self) -> None:
        """Its recognizer failed; another one may carry it on, which then says nothing of this arm."""
        if self._failed:
            return
        self._failed = True
        self._comparison.failed(self.lot, spoke=self._spoke)

    def ended(self, code: str, *, complete: bool) -> Outcome:
        """The stream is over: with that error code, or without one, with all of its results or not."""
        outcome = outcome_of(code, complete=complete)
        if outcome is Outcome.SERVER:
            self.lost()
        if self._failed:
            outcome = Outcome.SERVER
        else:
            self._tell_latency()
            audio_ms = self._bytes // self._bytes_per_ms
            if not self._told_words and audio_ms >= MIN_AUDIO_MS and outcome is not Outcome.CLIENT:
                self._tell_words(audio_ms)
            self._comparison.ended(self.lot)
        return outcome

    def _final(self, final: Final, now: float) -> None:
        if self._failed or final.reason in _MADE_UP:
            return
        if final.text:
            self._spoke = True
        if not self._told_words and (final.end_ms <= WINDOW_MS or not self._live):
            self._words += len(final.text.split())
        if final.confidence is not None:
            self._comparison.confidence(self.lot, final.confidence)
        if self._told_latency:
            return
        marks = self._marks
        while marks and marks[0][0] < final.end_ms:
            marks.popleft()
        if marks:
            self._finals += 1
            self._late_s += now - marks[0][1]
            if self._finals >= EARLY_FINALS:
                self._tell_latency()

    def _tell_latency(self) -> None:
        if not self._told_latency and self._finals:
            self._comparison.latency(self.lot, self._late_s / self._finals)
        self._told_latency = True
        self._marks.clear()

    def _tell_words(self, audio_ms: int) -> None:
        self._told_words = True
        if not self._failed:
            heard_ms = min(audio_ms, WINDOW_MS) if self._live else audio_ms
            self._comparison.words(self.lot, self._words * 60_000 / (heard_ms * self._channels))
