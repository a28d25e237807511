"""One session of a worker, whatever it speaks: its turns, its notes, its end. What it hears is not read here.

A session only writes down moments and bytes; the conductor reads them, in another process, when the session is over. So
nothing is decoded where chunks have to leave on time.
"""

from __future__ import annotations

import base64
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import orjson

KEPT_BYTES = 256 * 1024
"""What a session keeps of what it heard before it is handed on."""
CONNECT_S = 10.0
READY_S = 30.0
"""How long `ready` may take."""
HELD_S = 30.0
"""How long a connection may take nothing, and how far behind it may be."""
LAST_WORDS_S = 30.0
"""How long the end may take after the last chunk."""
FAREWELL_S = 2.0
"""How long the other side may take to close."""
BUSY = frozenset({"overloaded", "rate_limited", "unavailable"})
"""Codes of a refusal that another moment may not bring."""

clock = time.monotonic


class Phase(Enum):
    """How far a session is."""

    OPENING = auto()
    """Not connected, or not ready."""
    SPEAKING = auto()
    ENDING = auto()
    """All is said; the last words of the other side are awaited."""
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Order:
    """One session to be held.

    Attributes:
        number: of the session.
        rate_hz: of its audio.
        chunk_bytes: PCM per message.
        count: messages to send; fewer than there are when it breaks off.
        messages: the messages.
        cut: break off instead of an end.
    """

    number: int
    rate_hz: int
    chunk_bytes: int
    count: int
    messages: Iterator[bytes]
    cut: bool


@dataclass(frozen=True, slots=True)
class House:
    """What sessions share. Moments are seconds of `clock`.

    Attributes:
        go_s: 0 of the step's clock.
        chunk_ms: audio per message.
        join: gives a session its turns; returns when the first is due.
        tell: takes a line for the conductor.
        over: is told when a session has ended.
    """

    go_s: float
    chunk_ms: int
    join: Callable[[Session], float]
    tell: Callable[[bytes], None]
    over: Callable[[Session], None]


class Session(ABC):
    """See the module. A protocol adds `_send` and what it hears.

    Attributes:
        phase: how far it is.
        outcome: how it ended ("" until then).
        partials, finals: how many came.
    """

    def _begin(self, order: Order, house: House) -> None:
        self.order = order
        self.phase = Phase.OPENING
        self.outcome = ""
        self.partials = self.finals = 0
        self._house = house
        self._next = order.messages.__next__
        self._left = order.count
        self._owed = 0
        self._blocked = False
        self._began_s = clock()
        self._deadline_s = self._began_s + CONNECT_S
        self._connected_s: float | None = None
        self._ready_s: float | None = None
        self._first_due_s: float | None = None
        self._sent = array("d")
        self._held = array("I")
        self._at = array("d")
        self._heard: list[bytes] = []
        self._kept = 0

    # What a protocol has to say -------------------------------------------------------------------

    @abstractmethod
    def _send(self, message: bytes) -> None:
        """Hand a message to the connection."""

    @abstractmethod
    def _stop(self) -> None:
        """Say that the audio is over."""

    @abstractmethod
    def _hang_up(self) -> None:
        """Let go of the connection, whatever its state."""

    @abstractmethod
    def _frames(self, heard: list[bytes]) -> list[object]:
        """What was heard, as values of JSON."""

    # Turns ----------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Send the chunk that is due; False when it was the last one."""
        if self.phase is not Phase.SPEAKING:
            return False
        if self._blocked:
            self._owed += 1
            if self._owed * self._house.chunk_ms > HELD_S * 1000:
                self._end("timeout", "timeout", f"The connection is {HELD_S:g} s behind with the audio.")
                return False
        else:
            self._send(self._next())
            self._sent.append(clock())
        self._left -= 1
        if self._left:
            return True
        if not self._owed:
            self._finish()
        return False

    def pause_writing(self) -> None:
        """The connection takes no more: chunks that come due are owed."""
        self._blocked = True
        if self.phase is Phase.SPEAKING:
            self._deadline_s = clock() + HELD_S

    def resume_writing(self) -> None:
        """It takes again: what is owed goes first."""
        self._blocked = False
        if self.phase is not Phase.SPEAKING:
            return
        self._deadline_s = float("inf")
        while self._owed and not self._blocked and self.phase is Phase.SPEAKING:
            self._held.append(len(self._sent))
            self._send(self._next())
            self._sent.append(clock())
            self._owed -= 1
        if not self._left and not self._owed and self.phase is Phase.SPEAKING:
            self._finish()

    def _speak(self) -> None:
        self.phase = Phase.SPEAKING
        self._deadline_s = float("inf")
        self._first_due_s = self._house.join(self)

    def _finish(self) -> None:
        if self.order.cut:
            self._end("ok")
            return
        self.phase = Phase.ENDING
        self._deadline_s = clock() + LAST_WORDS_S
        self._stop()

    # Hearing --------------------------------------------------------------------------------------

    def _keep(self, message: bytes) -> None:
        self._at.append(clock())
        self._heard.append(message)
        self._kept += len(message)
        if self._kept > KEPT_BYTES:
            self._hand_on()

    def _hand_on(self) -> None:
        """Too much to keep: what was heard so far is the conductor's."""
        self._house.tell(self._line("heard", {}))

    def _line(self, kind: str, more: Mapping[str, Any]) -> bytes:
        heard, self._heard, self._kept = self._heard, [], 0
        at, self._at = self._at, array("d")
        line = {"type": kind, "number": self.order.number, "at": packed(at), "frames": self._frames(heard), **more}
        return orjson.dumps(line) + b"\n"

    # The end --------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        """End what has waited for too long."""
        if now_s < self._deadline_s:
            return
        match self.phase:
            case Phase.OPENING if self._connected_s is None:
                self._end("timeout", "timeout", f"No connection came about in {CONNECT_S:g} s.")
            case Phase.OPENING:
                self._end("timeout", "timeout", f"The gateway did not say that it is ready in {READY_S:g} s.")
            case Phase.SPEAKING:
                self._end("timeout", "timeout", f"The connection took no audio for {HELD_S:g} s.")
            case Phase.ENDING:
                self._end("timeout", "timeout", f"The last results did not come in {LAST_WORDS_S:g} s after the audio.")
            case Phase.OVER:
                pass

    def crashed(self, error: BaseException) -> None:
        """What holds it has failed: a defect of this tool, and told as one."""
        self._end("error", "internal", f"The load tool failed in this session: {error!r}.")

    def refuse_or_fail(self, code: str, detail: str, retry_after_ms: int | None) -> None:
        """It was told no: a refusal when nothing had been taken and another moment may do, else an error."""
        early = self.phase is Phase.OPENING
        refused = early and (code in BUSY or retry_after_ms is not None)
        self._end("refused" if refused else "error", code, detail, retry_after_ms)

    def _end(self, outcome: str, code: str = "", detail: str = "", retry_after_ms: int | None = None) -> None:
        if self.phase is Phase.OVER:
            return
        now = clock()
        self.phase, self.outcome = Phase.OVER, outcome
        self._hang_up()
        go = self._house.go_s
        self._house.tell(
            self._line(
                "session",
                {
                    "connected_ms": _ms(self._connected_s, self._began_s),
                    "queue_ms": _ms(self._ready_s, self._connected_s),
                    "first_due_ms": _ms(self._first_due_s, go),
                    "ended_ms": _ms(now, go),
                    "sent": packed(self._sent),
                    "held": list(self._held),
                    "outcome": outcome,
                    "code": code,
                    "detail": detail,
                    "retry_after_ms": retry_after_ms,
                    "partials": self.partials,
                    "finals": self.finals,
                },
            )
        )
        self._house.over(self)


def packed(moments: array[float]) -> str:
    """Moments as text: base64 of doubles, which costs next to nothing to make and to read."""
    return base64.b64encode(moments).decode("ascii")


def _ms(moment_s: float | None, from_s: float | None) -> float | None:
    return None if moment_s is None or from_s is None else (moment_s - from_s) * 1000
