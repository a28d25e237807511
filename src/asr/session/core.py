"""What a session decides, as a pure core: what to send, what a message means, when to connect again and how.

Bytes are counted from the first one that the caller gave ("global"); a gateway counts from its own `start`, and
`Clock.base_bytes` lies between. A lost connection is resumed: the gateway says from which byte on it lacks audio,
and repeats the messages that were not seen. A lost gateway is replaced by a new session with the audio from
the last settled point on. Time (seconds, monotonic) and randomness are arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from asr import wire
from asr.engine import BYTES_PER_MS
from asr.errors import Action, ASRError, Code
from asr.events import Event, Flushed, Gap, GapCause, Progress, State, Status
from asr.session.attempts import Attempts
from asr.session.clock import Clock
from asr.session.limits import Limits
from asr.session.ring import Ring

MAX_FRAME_BYTES = 65_536
LOST = "The connection to the gateway was lost; it is being restored, and the audio is kept."
CREDIT_PARTS = 4  # the gateway is asked how far it is each time that so much of the ring has gone out


UNKNOWN_THERE = frozenset({Code.BAD_REQUEST, Code.NOT_FOUND, Code.EXPIRED})
"""Refusals of a resume after which a new session begins; `bad_request` is that of a gateway too old to resume."""


class LinkError(Exception):
    """This connection is of no use any more; another may be. The session itself is not lost."""

    def __init__(self, error: ASRError) -> None:
        super().__init__(error.message)
        self.error = error


class _Phase(Enum):
    AWAY = "no connection"
    STARTING = "start is sent"
    RESUMING = "resume is sent"
    OPEN = "audio flows"
    DONE = "the summary has come"


@dataclass(slots=True)
class _Ask:
    """A finalize: where it stands in the audio, and whether this connection has carried it."""

    name: str
    at: int
    sent: bool = False


class SessionCore:
    """One session of the caller's, over any number of connections and gateways.

    Attributes:
        attempts: when the next connection is due.
        resumable: whether the gateway keeps the session for a client that is gone.
        resumes: how many times a connection was restored.
        summary: the last message of a session that was stopped.
        ready: the last `ready` message.
        warnings: sentences of the gateway, oldest first; the holder takes them out.
    """

    def __init__(self, start: dict[str, Any], limits: Limits) -> None:
        self._start = start
        self._limits = limits
        self._phase = _Phase.AWAY
        self._clock = Clock()
        self._ring = Ring()
        self._next = 0
        self._received = 0
        self._says: deque[dict[str, Any]] = deque()
        self._asks: deque[_Ask] = deque()
        self._names = 0
        self._stop_at: int | None = None
        self._stop_sent = False
        self._max_frame_bytes = MAX_FRAME_BYTES
        self._session_id = ""
        self._token = ""
        self.resumable = False
        self._refused = False
        self._last_seq = 0
        self._acked_seq = 0
        self._asked_credit_at = 0
        # connections
        self._told_lost = False
        self.attempts = Attempts(limits)
        self._progressed_at = 0.0
        self._gaps_ms = 0
        self._told_gaps_ms = 0  # by this session of the gateway
        self.resumes = 0
        self.ready: dict[str, Any] = {}
        self.summary: dict[str, Any] | None = None
        self.warnings: list[str] = []

    # The caller ---------------------------------------------------------------------------------------

    @property
    def room_bytes(self) -> int:
        """How much audio can be taken now."""
        return max(self._limits.ring_bytes - (self._ring.high - self._arrived), 0)

    @property
    def given_ms(self) -> int:
        """How much audio was given."""
        return self._ring.high // BYTES_PER_MS

    def feed(self, data: bytes | memoryview) -> None:
        """Take audio; the caller has looked at `room_bytes`."""
        self._ring.add(data)

    def finalize(self) -> None:
        """End the utterance here: answered by one `Flushed`, in order."""
        self._names += 1
        self._asks.append(_Ask(f"f{self._names}", self._ring.high))

    def stop(self) -> None:
        """No more audio follows."""
        self._stop_at = self._ring.high

    @property
    def connected(self) -> bool:
        """Whether audio flows."""
        return self._phase is _Phase.OPEN

    @property
    def done(self) -> bool:
        """Whether the summary of all the audio has come."""
        return self._phase is _Phase.DONE

    # Connections --------------------------------------------------------------------------------------

    @property
    def session_hint(self) -> str:
        """The session that the next connection means to resume, or ""."""
        return self._session_id if self._token else ""

    def hello(self) -> dict[str, Any]:
        """The first message on a new connection."""
        if not self._token:
            self._phase = _Phase.STARTING
            self._last_seq = self._acked_seq = 0
            return self._start
        self._phase = _Phase.RESUMING
        return {
            "type": "resume",
            "session_id": self._session_id,
            "resume_token": self._token,
            "last_seq": self._last_seq,
            "sent_bytes": self._next - self._clock.base_bytes,
        }

    def next_out(self) -> bytes | dict[str, Any] | None:
        """What is to be sent now: audio, or a message; None while there is nothing."""
        if self._phase is not _Phase.OPEN:
            return None
        if self._says:
            return self._says.popleft()
        until = self._ring.high
        for ask in self._asks:
            if ask.sent:
                continue
            if ask.at <= self._next:
                ask.sent = True
                return {"type": "finalize", "id": ask.name}
            until = ask.at
            break
        if self._next < until:
            frame = self._ring.take(self._next, min(self._max_frame_bytes, until - self._next))
            self._next += len(frame)
            self._ask_credit()
            self._free()
            return frame
        if self._next == self._stop_at and not self._stop_sent:
            self._stop_sent = True
            return {"type": "stop"}
        return None

    def received(self, message: dict[str, Any], now: float) -> list[Event]:
        """What a message of the gateway says, on the caller's clock.

        Raises:
            LinkError: this connection is of no use any more.
            ASRError: the session has failed.
        """
        self.attempts.heard(now)
        if self._phase is _Phase.RESUMING:
            return self._answer_to_resume(message, now)
        if not self._is_next(message):
            return []
        events = self._heard(message, now)
        if self.resumable and self._last_seq - self._acked_seq >= self._limits.ack_every:
            self._ack()
        self._free()
        return events

    def lost(self, error: ASRError, now: float, random: Callable[[], float]) -> tuple[float, list[Event]]:
        """The connection is gone, or could not be had: the pause (seconds) before the next attempt, and what to say.

        `random` gives 0..1.

        Raises:
            ASRError: there is no further attempt.
        """
        if self._phase is _Phase.RESUMING and error.code in UNKNOWN_THERE:
            self._give_up_session()  # also where the close code came without its message
        was_open, self._phase = self._phase is _Phase.OPEN, _Phase.AWAY
        at_once, self._refused = self._refused, False
        if not self.resumable or not (error.retryable or at_once):
            raise error
        pause_s = self.attempts.lost(error, now, random, was_open=was_open, at_once=at_once)
        if self._told_lost:
            return pause_s, []
        self._told_lost = True
        return pause_s, [Status(State.FAILING_OVER, self.given_ms, int(pause_s * 1000), LOST)]

    def check(self, now: float) -> None:
        """Look at the clock.

        Raises:
            ASRError: `timeout`, when the gateway lives but nothing moves.
        """
        waits = self._stop_sent or any(ask.sent for ask in self._asks)
        chokes = self._next < self._ring.high
        timeout_ms = self._limits.progress_timeout_ms
        if not waits and not chokes:
            self._progressed_at = now
        elif now - self._progressed_at > timeout_ms / 1000:
            what = "made no progress" if waits else "took no audio and made no progress"
            raise ASRError(Code.TIMEOUT, f"The gateway {what} for {timeout_ms} ms.")

    # Messages -----------------------------------------------------------------------------------------

    def _is_next(self, message: dict[str, Any]) -> bool:
        """Whether it has not been seen before."""
        seq = message.get("seq")
        if not isinstance(seq, int):
            return True
        if seq <= self._last_seq:
            return False
        if seq != self._last_seq + 1:
            raise ASRError(Code.INTERNAL, f"The gateway left out messages: {seq} came after {self._last_seq}.")
        self._last_seq = seq
        return True

    def _heard(self, message: dict[str, Any], now: float) -> list[Event]:
        kind = message.get("type")
        match kind:
            case "ready" if self._phase is _Phase.STARTING:
                return self._on_ready(message, now)
            case "ack":
                return self._on_ack(message, now)
            case "finalized":
                return self._on_finalized(message, now)
            case "summary":
                self._on_summary(message)
                return []
            case "error":
                self._on_error(message)
                return []
            case "warning":
                self.warnings.append(str(message.get("message")))
                return []
        event = wire.decode(message)
        if event is None:
            return []
        moved = self._clock.move(event, self._next)
        if isinstance(moved, Gap):
            self._told_gaps_ms += moved.end_ms - moved.start_ms
        self._progress(now)
        return [] if moved is None else [moved]

    def _answer_to_resume(self, message: dict[str, Any], now: float) -> list[Event]:
        """Messages before `resumed` are no part of the session: they have numbers of their own, or none."""
        match message.get("type"):
            case "error" if message.get("fatal", True):
                error = wire.decode_error(message)
                if error.code not in UNKNOWN_THERE:
                    self._on_error(message)
                self._give_up_session()
                raise LinkError(error)
            case "resumed":
                at = self._clock.base_bytes + _number(message, "from_bytes")
                if not self._ring.low <= at <= self._next:
                    self._give_up_session()
                    raise LinkError(ASRError(Code.INTERNAL, f"The gateway asks for audio from byte {at} on."))
                self._token = str(message.get("resume_token") or "")
                self._next = at
                self._received = max(self._received, at)
                for ask in self._asks:
                    ask.sent = ask.at < at
                return self._opened(now)
        return []

    def _on_ready(self, message: dict[str, Any], now: float) -> list[Event]:
        self.ready = message
        limits = message.get("limits") or {}
        self._session_id = str(message.get("session_id") or "")
        self._token = str(message.get("resume_token") or "")
        self.resumable = bool(
            self._session_id and self._token and limits.get("resume_window_ms", 1) and self._limits.window_ms
        )
        if not self.resumable:
            self._token = ""
        limit = limits.get("max_frame_bytes")
        if isinstance(limit, int) and limit > 0:
            self._max_frame_bytes = min(limit, MAX_FRAME_BYTES)
        self.warnings += [str(text) for text in message.get("warnings") or ()]
        settled_ms = self._clock.settled_bytes // BYTES_PER_MS
        begins_at = max(settled_ms * BYTES_PER_MS, self._ring.low)
        missed_ms = (settled_ms, begins_at // BYTES_PER_MS)
        self._clock.begin_anew(begins_at)
        self._gaps_ms += self._told_gaps_ms
        self._told_gaps_ms = 0
        self._next = self._received = begins_at
        for ask in self._asks:
            ask.sent = False
        events = self._opened(now)
        if missed_ms[0] < missed_ms[1]:
            self._gaps_ms += missed_ms[1] - missed_ms[0]
            events.append(Gap(*missed_ms, GapCause.BUFFER_OVERRUN))
        return events

    def _opened(self, now: float) -> list[Event]:
        self._phase = _Phase.OPEN
        self._stop_sent = False
        self._says.clear()
        self._asked_credit_at = self._next
        self._progressed_at = now
        self.attempts.opened(now)
        if not self._told_lost:
            return []
        self._told_lost = False
        self.resumes += 1
        self._ack()  # the new token has arrived
        return [Status(State.RECOVERED, self.given_ms)]

    def _on_ack(self, message: dict[str, Any], now: float) -> list[Event]:
        base = self._clock.base_bytes
        progress = self._clock.move(Progress(_number(message, "processed_ms")), self._next)
        received = message.get("received_bytes")
        if isinstance(received, int) and base + received > self._received:
            self._received = base + received
            self._progress(now)
        safe = message.get("safe_bytes")
        if isinstance(safe, int):
            self._clock.settle(base + safe, self._next)
        if progress is None:
            return []
        self._progress(now)
        return [progress]

    def _on_finalized(self, message: dict[str, Any], now: float) -> list[Event]:
        audio_ms = _number(message, "audio_ms")
        name = message.get("id")
        if all(ask.name != name for ask in self._asks):
            return []  # asked twice, on two connections
        at = next(ask.at for ask in self._asks if ask.name == name)
        self._asks = deque(ask for ask in self._asks if ask.name != name)
        answer = self._clock.move(Flushed(audio_ms), self._next)
        self._clock.settle(min(at, self._clock.base_bytes + audio_ms * BYTES_PER_MS), self._next)
        self._progress(now)
        return [] if answer is None else [answer]

    def _on_summary(self, message: dict[str, Any]) -> None:
        heard_ms = self._clock.base_ms + _number(message, "audio_ms")
        discarded = bool(message.get("discarded_ms"))
        settled = self._clock.settled_bytes // BYTES_PER_MS >= self.given_ms
        whole = heard_ms >= self.given_ms and (not discarded or settled or not self.resumable)
        if self._stop_at is not None and whole:
            self._phase = _Phase.DONE
            gaps_ms = self._gaps_ms + int(message.get("gaps_ms") or 0)
            self.summary = message | {
                "audio_ms": self.given_ms,
                "utterances": self._clock.finals,
                "gaps_ms": gaps_ms,
                "resumes": self.resumes,
            }
            return
        # A gateway that goes down, or a limit: what was heard is settled, and the rest is for another session.
        # Where it threw audio away, only what finals and gaps say is settled.
        if not discarded:
            self._clock.settle(heard_ms * BYTES_PER_MS, self._next)
        self._token = ""

    def _on_error(self, message: dict[str, Any]) -> None:
        error = wire.decode_error(message)
        if not message.get("fatal", True) and not message.get("ref"):
            self.warnings.append(error.message)
            return
        opening = self._phase is not _Phase.OPEN
        comes_back = error.action is Action.RESUME or error.code in (Code.IDLE_TIMEOUT, Code.SLOW_READER)
        if self.resumable and (comes_back or (opening and error.retryable)):
            error.retryable = True
            raise LinkError(error)
        raise error

    # Accounts -----------------------------------------------------------------------------------------

    @property
    def _arrived(self) -> int:
        """Audio below this need not be kept for this session of the gateway."""
        return min(self._received, self._next) if self.resumable else self._next

    def _free(self) -> None:
        if self.resumable:
            overrun = self._ring.high - self._limits.ring_bytes
            self._ring.free(min(max(self._clock.settled_bytes, overrun), self._arrived))
        elif self._phase is _Phase.OPEN:
            self._ring.free(self._next)

    def _give_up_session(self) -> None:
        self._token = ""
        self._refused = True

    def _ask_credit(self) -> None:
        """Without this an answer comes once a second, which is little for a recording."""
        if self.resumable and self._next - self._asked_credit_at >= self._limits.ring_bytes // CREDIT_PARTS:
            self._asked_credit_at = self._next
            self._says.append({"type": "keepalive"})

    def _ack(self) -> None:
        self._acked_seq = self._last_seq
        self._says.append({"type": "ack", "seq": self._last_seq})

    def _progress(self, now: float) -> None:
        self._progressed_at = now
        furthest = max(self._received, self._clock.settled_bytes)
        self.attempts.moved(furthest, flows=self._phase is _Phase.OPEN)


def encode(message: dict[str, Any]) -> str:
    """A message as it is sent."""
    return orjson.dumps(message).decode()


def _number(message: dict[str, Any], key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int):
        raise ASRError(Code.INTERNAL, f"The gateway sent a {message.get('type')!r} message without a number {key!r}.")
    return value
