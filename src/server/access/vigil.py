"""Who is in, may they stay? Credentials expire and are revoked, and minutes are used up, while streams run.

One timer looks at all of them; a stream itself does nothing for it, least of all for each chunk.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from asr.errors import ASRError
from server.access.grants import Grant
from server.access.porter import Porter

log = structlog.get_logger("server.access")

INTERVAL_S = 1.0
WARNING_S = 30.0
"""A stream is told so long before its credential expires."""
FLUSH_S = 1.5
"""How long a stream that may come back with another credential gets for the results of what it said."""
GRACE_S = 3.0
"""How long one that ends gets. With `INTERVAL_S`, it is over within five seconds of its credential."""


class Subject(Protocol):
    """A stream."""

    @property
    def grant(self) -> Grant | None:
        """What its client may do; None while there is no client."""
        ...

    @property
    def audio_ms(self) -> float:
        """Audio so far."""
        ...

    def expiring(self, left_ms: int) -> None:
        """Its credential expires in `left_ms`: a dialect that can say so tells the client."""
        ...

    def cut_short(self, error: ASRError) -> None:
        """It may go on no longer. What was said so far still becomes results, then the client is told."""
        ...


@dataclass(slots=True)
class _Seen:
    grant: Grant | None = None
    counted_ms: float = 0.0
    warned: Grant | None = None
    told: Grant | None = None


class Vigil:
    """Looks at everybody who is in, each `INTERVAL_S`.

    Args:
        porter: knows who may stay, and what they have used.
    """

    def __init__(self, porter: Porter) -> None:
        self._porter = porter
        self._subjects: dict[Subject, _Seen] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many are in."""
        return len(self._subjects)

    def begin(self, subject: Subject) -> None:
        """A stream began. The timer runs while there are any."""
        self._subjects[subject] = _Seen()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._tick)

    def end(self, subject: Subject) -> None:
        """It is over; the rest of its audio is counted."""
        seen = self._subjects.pop(subject, None)
        if seen is not None:
            self._count(subject, seen)
        if not self._subjects and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Look at everybody once."""
        for subject, seen in list(self._subjects.items()):
            error = self._count(subject, seen)
            grant = seen.grant
            if subject.grant is None or grant is None or grant is seen.told:
                continue
            error = self._porter.gate.refusal(grant) or error
            try:
                if error is not None:
                    seen.told = grant  # the same credential is told once
                    log.info("stream cut short", principal=grant.principal, code=error.code.value)
                    subject.cut_short(error)
                elif grant is not seen.warned and (left_s := self._porter.gate.left_s(grant)) <= WARNING_S:
                    seen.warned = grant
                    subject.expiring(int(left_s * 1000))
            except Exception:
                log.exception("a stream could not be told about its credential")

    def _count(self, subject: Subject, seen: _Seen) -> ASRError | None:
        grant = subject.grant
        if grant is not None:
            seen.grant = grant
        if seen.grant is None:
            return None
        audio_ms = subject.audio_ms
        spent, seen.counted_ms = audio_ms - seen.counted_ms, audio_ms
        return self._porter.usage.spend(seen.grant, spent)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._tick)
        self.look()
