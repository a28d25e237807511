"""The words between a conversation's core and the driver that acts for it.

A face for a message-ordered protocol is a pure core: what happens goes in through the doors of
`Conversation`, a list of commands comes out, and `server.drive` carries them out in order. A core
knows no loop, socket or clock; the time is an argument of every door, in seconds of a monotonic
clock. One conversation may hold several *takes* (engine streams), one after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from asr.engine import Agreement
from asr.errors import ASRError
from asr.events import Event
from asr.options import Options


@dataclass(frozen=True, slots=True)
class Send:
    """Send a text message to the client.

    Attributes:
        text: the message; a numbered dialect's JSON object without its `seq`, which it gets when it is sent.
        topic: what it is about; a later message on the same topic makes a lossy one that still waits needless.
        lossy: whether it may be left out for a client that reads too slowly (a partial, an ack; never a final).
    """

    text: str
    topic: str = ""
    lossy: bool = False


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the connection with this WebSocket close code; nothing may follow."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Begin:
    """Open take number `take`. The engine's stream starts when the takes before it are over."""

    take: int
    options: Options


@dataclass(frozen=True, slots=True)
class Feed:
    """Give a take its next audio: 16 kHz mono PCM16."""

    take: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """End the current utterance of a take (`EndUtterance` in its audio)."""

    take: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The audio of a take is complete: let the engine flush and end."""

    take: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Throw a take away: its results are not wanted."""

    take: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The client has seen every message up to number `seq`: they need not be kept for it."""

    seq: int


Command = Send | Hangup | Begin | Feed | Cut | Finish | Drop | Seen


class Conversation(Protocol):
    """What the driver tells a face's core. Each door returns the commands to carry out, in order."""

    def opened(self, now: float) -> list[Command]:
        """The connection is up."""
        ...

    def received(self, message: str | bytes, now: float) -> list[Command]:
        """The client sent a message."""
        ...

    def begun(self, take: int, agreement: Agreement, now: float) -> list[Command]:
        """The engine agreed to a take; its stream starts."""
        ...

    def heard(self, take: int, event: Event, now: float) -> list[Command]:
        """A take's engine said something."""
        ...

    def finished(self, take: int, now: float) -> list[Command]:
        """A take's engine ended cleanly, after its last event."""
        ...

    def failed(self, take: int, error: ASRError, now: float) -> list[Command]:
        """A take could not begin, or broke."""
        ...

    def refused(self, error: ASRError, now: float) -> list[Command]:
        """The driver ends the conversation: an oversized message, silence, a limit."""
        ...

    def quiet(self, for_ms: int, limit_ms: int, now: float) -> list[Command]:
        """The client has given no sign of life for `for_ms`; at `limit_ms` the driver will refuse it."""
        ...

    def draining(self, deadline_ms: int, now: float) -> list[Command]:
        """The server is going down, and waits `deadline_ms` at most: bring the conversation to a clean end soon."""
        ...

    def cut_short(self, error: ASRError, now: float) -> list[Command]:
        """The client may go on no longer: what it said so far still becomes results, then it is told `error`.

        A conversation that waits for another credential (`Lasting`, and the error is `unauthorized`) only sees to it
        that its results come soon; the driver ends its connection.
        """
        ...

    def ticked(self, now: float) -> list[Command]:
        """The moment that `wake_at` named has come."""
        ...

    @property
    def wake_at(self) -> float | None:
        """When `ticked` must be called at the latest; read again after every door."""
        ...


@runtime_checkable
class Forewarned(Protocol):
    """A dialect that can tell its client that the credential will not last."""

    def expiring(self, left_ms: int, now: float) -> list[Command]:
        """The client's credential expires in `left_ms`."""
        ...


class Lasting(Protocol):
    """A dialect whose messages are numbered, and whose conversations may outlive a connection."""

    @property
    def window_ms(self) -> int:
        """How long the conversation waits, as things are, for a client that is lost; 0: it ends with its client."""
        ...

    def parted(self, error: ASRError, seq: int) -> str:
        """The last words on a connection that ends while the conversation goes on.

        They have no number of their own: they repeat `seq`, the last one sent on that connection.
        """
        ...
