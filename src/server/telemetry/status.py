"""What the status page tells of streams: how many are open, how late their words are, and what went wrong of late.

A sink that keeps a bounded amount, whatever happens: slices of counts for the latencies, one entry for each kind of
error. Nothing of what was said is in it, no client and no address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from asr.errors import Code
from server.telemetry.recent import Recent, Summary
from server.telemetry.record import Outcome, StreamRecord, StreamStart, outcome_of

OBJECTIVES_S = {"first_partial": None, "partial": 0.3, "final": 0.8}
"""The latencies that are shown, and what 95 % of each should not exceed. The alert rules know the same bounds."""
REMEMBERED_S = 3_600.0
"""Errors of a kind are told until there was none for so long."""
MAX_KINDS = 20


@dataclass(slots=True)
class Trouble:
    """One kind of error.

    Attributes:
        face: where.
        code: which.
        refused: whether somebody was not let in; else a stream ended with it.
        ours: whether it counts against the gateway and its recognizer, not against the client.
        count: how often, since it began or was quiet for an hour.
        last_s: when it was seen last, in Unix seconds.
    """

    face: str
    code: str
    refused: bool
    ours: bool
    count: int
    last_s: float


class StatusSink:
    """See `server.telemetry.hub.Sink`.

    Args:
        clock: monotonic, in seconds.
        unix_time: the wall clock, in seconds.
    """

    def __init__(self, *, clock: Callable[[], float], unix_time: Callable[[], float]) -> None:
        self._clock = clock
        self._unix_time = unix_time
        self._open: Counter[str] = Counter()
        self._latencies = {name: Recent(objective_s) for name, objective_s in OBJECTIVES_S.items()}
        self._troubles: dict[tuple[str, str, bool], Trouble] = {}

    # What streams tell ----------------------------------------------------------------------------

    def opened(self, start: StreamStart) -> None:
        """A stream began."""
        self._open[start.face] += 1

    def happened(self, start: StreamStart, what: str, at_s: float, **about: str | int | float) -> None:
        """Nothing of it is shown."""

    def measured(self, start: StreamStart, what: str, seconds: float) -> None:
        """A latency."""
        recent = self._latencies.get(what)
        if recent is not None:
            recent.add(seconds, self._clock())

    def closed(self, record: StreamRecord) -> None:
        """A stream is over."""
        face = record.start.face
        self._open[face] -= 1
        if self._open[face] <= 0:
            del self._open[face]
        if record.code:
            self._note(face, record.code, refused=False, ours=record.outcome is Outcome.SERVER)

    def refused(self, face: str, code: Code) -> None:
        """Somebody was not let in."""
        ours = outcome_of(code.value, complete=False) is Outcome.SERVER
        self._note(face, code.value, refused=True, ours=ours)

    # What the page asks ---------------------------------------------------------------------------

    def streams_by_face(self) -> dict[str, int]:
        """Streams that are open, most first."""
        return dict(self._open.most_common())

    def latencies(self) -> dict[str, Summary]:
        """Those of the last five minutes, by the names in `OBJECTIVES_S`."""
        now = self._clock()
        return {name: recent.summary(now) for name, recent in self._latencies.items()}

    def troubles(self) -> list[Trouble]:
        """What went wrong within the last hour, latest first."""
        since = self._unix_time() - REMEMBERED_S
        self._troubles = {key: trouble for key, trouble in self._troubles.items() if trouble.last_s >= since}
        return sorted(self._troubles.values(), key=lambda trouble: -trouble.last_s)

    def _note(self, face: str, code: str, *, refused: bool, ours: bool) -> None:
        now = self._unix_time()
        key = (face, code, refused)
        trouble = self._troubles.get(key)
        if trouble is None or trouble.last_s < now - REMEMBERED_S:
            self._troubles[key] = Trouble(face, code, refused, ours, 1, now)
            if len(self._troubles) > MAX_KINDS:
                del self._troubles[min(self._troubles, key=lambda key: self._troubles[key].last_s)]
            return
        trouble.count += 1
        trouble.last_s = now
