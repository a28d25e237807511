"""A gateway for tests as a pure model of `asr.v1`: start, acks, finals, finalize, resume, stop, and its own death.

Its recognizer hears one word in each run of equal milliseconds (their first byte names it, 0 is silence) and ends
an utterance after `PAUSE_MS` of silence, so that the same audio gives the same words however it is cut.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from asr import wire
from asr.engine import BYTES_PER_MS
from asr.events import Event, FinalReason, Word
from asr.utterances import UtteranceCounter

PAUSE_MS = 40
ACK_BYTES = 3_000
UNKNOWN = {"type": "error", "code": "not_found", "message": "No such session.", "fatal": True, "action": "restart"}


def sound(*runs: tuple[int, int]) -> bytes:
    """Audio of (word, milliseconds); word 0 is silence."""
    return b"".join(bytes([word]) * (n_ms * BYTES_PER_MS) for word, n_ms in runs)


class Hearing:
    """The recognizer."""

    def __init__(self) -> None:
        self._counter = UtteranceCounter()
        self._rest = b""
        self._words: list[Word] = []
        self._run = (0, 0)
        self.heard_ms = 0
        self.settled_ms = 0

    @property
    def quiet(self) -> bool:
        return not self._words and not self._run[0]

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        audio = self._rest + data
        for at in range(0, len(audio) - BYTES_PER_MS + 1, BYTES_PER_MS):
            events += self._hear(audio[at])
        self._rest = audio[len(audio) - len(audio) % BYTES_PER_MS :]
        return events

    def _hear(self, word: int) -> list[Event]:
        events: list[Event] = []
        if word != self._run[0]:
            events += self._close_run()
            self._run = (word, self.heard_ms)
        self.heard_ms += 1
        if not word and self._words and self.heard_ms - self._run[1] >= PAUSE_MS:
            events += self.cut(FinalReason.ENDPOINT)
        return events

    def _close_run(self) -> list[Event]:
        word, began = self._run
        self._run = (0, self.heard_ms)
        if not word:
            return []
        self._words.append(Word(f"w{word}", began, self.heard_ms))
        partial = self._counter.partial(self._text, self._words[0].start_ms, self.heard_ms)
        return [] if partial is None else [partial]

    @property
    def _text(self) -> str:
        return " ".join(word.text for word in self._words)

    def cut(self, reason: FinalReason) -> list[Event]:
        self._close_run()
        if not self._words:
            return []
        words, text = tuple(self._words), self._text
        self._words = []
        self.settled_ms = words[-1].end_ms
        return [self._counter.final(text, words[0].start_ms, words[-1].end_ms, reason=reason, words=words)]


class Connection:
    """The gateway's end of one connection: what it has said and not been heard, and how it ended."""

    def __init__(self, gateway: ModelGateway) -> None:
        self._gateway = gateway
        self.session: Kept | None = None
        self.said: deque[str] = deque()
        self.close_code: int | None = None
        self.heard: list[dict[str, Any]] = []

    def receive(self, message: str | bytes) -> None:
        if self.close_code is not None:
            return
        if isinstance(message, bytes):
            assert self.session is not None, "audio before the session"
            self.session.proven()
            self.session.audio(message)
            return
        content = json.loads(message)
        self.heard.append(content)
        if content["type"] == "start":
            self._gateway.begin(self, content)
        elif content["type"] == "resume":
            self._gateway.resume(self, content)
        else:
            assert self.session is not None
            self.session.proven()
            self.session.control(content)

    def say(self, message: dict[str, Any]) -> None:
        self.said.append(json.dumps(message))

    def close(self, code: int) -> None:
        self.close_code = code
        if self.session is not None and self.session.connection is self:
            self.session.connection = None


class Kept:
    """A session: it lives longer than its connection."""

    def __init__(self, name: str, token: str) -> None:
        self.name = name
        self.tokens = [token]
        self.connection: Connection | None = None
        self.received_bytes = 0
        self._hearing = Hearing()
        self._outbox: list[dict[str, Any]] = []
        self._seq = 0
        self._acked_bytes = 0
        self._over = False

    def tell(self, message: dict[str, Any]) -> None:
        self._seq += 1
        message["seq"] = self._seq
        self._outbox.append(message)
        if self.connection is not None:
            self.connection.say(message)

    def proven(self) -> None:
        del self.tokens[:-1]

    def audio(self, data: bytes) -> None:
        if self._over:
            return
        self.received_bytes += len(data)
        self._events(self._hearing.feed(data))
        if self.received_bytes - self._acked_bytes >= ACK_BYTES:
            self._ack()

    def control(self, content: dict[str, Any]) -> None:
        match content["type"]:
            case "finalize":
                self._events(self._hearing.cut(FinalReason.FINALIZE))
                self.tell({"type": "finalized", "id": content["id"], "audio_ms": self._hearing.heard_ms})
            case "keepalive":
                self._ack()
            case "ack":
                self._outbox = [message for message in self._outbox if message["seq"] > content["seq"]]
            case "stop" if not self._over:
                self.end(1000)

    def end(self, code: int) -> None:
        self._over = True
        self._events(self._hearing.cut(FinalReason.STOP))
        self.tell({"type": "summary", "audio_ms": self._hearing.heard_ms, "gaps_ms": 0})
        if self.connection is not None:
            self.connection.close(code)

    def replay(self, connection: Connection, last_seq: int, token: str) -> None:
        assert not self._outbox or last_seq + 1 >= self._outbox[0]["seq"], "what was trimmed had been seen"
        self.tokens.append(token)
        self.connection = connection
        connection.session = self
        connection.say(
            {
                "type": "resumed",
                "seq": last_seq,
                "session_id": self.name,
                "resume_token": token,
                "from_bytes": self.received_bytes,
                "replaying_from_seq": last_seq + 1,
                "lost_ms": 0,
            }
        )
        for message in self._outbox:
            if message["seq"] > last_seq:
                connection.say(message)
        if self._over:
            connection.close(1000)

    def _ack(self) -> None:
        self._acked_bytes = self.received_bytes
        hearing = self._hearing
        settled_ms = hearing.heard_ms if hearing.quiet else hearing.settled_ms
        self.tell(
            {
                "type": "ack",
                "received_bytes": self.received_bytes,
                "received_ms": hearing.heard_ms,
                "processed_ms": hearing.heard_ms,
                "buffered_ms": 0,
                "safe_bytes": settled_ms * BYTES_PER_MS,
            }
        )

    def _events(self, events: list[Event]) -> None:
        for event in events:
            self.tell(wire.encode(event))


class ModelGateway:
    """One process after another; each knows only its own sessions."""

    def __init__(self, *, resumable: bool = True, max_frame_bytes: int = 5_000) -> None:
        self._resumable = resumable
        self._max_frame_bytes = max_frame_bytes
        self._tokens = 0
        self.sessions: dict[str, Kept] = {}
        self.begun = 0

    def begin(self, connection: Connection, start: dict[str, Any]) -> None:
        self.begun += 1
        session = Kept(f"s{self.begun}", self._token())
        session.connection, connection.session = connection, session
        self.sessions[session.name] = session
        ready = {"type": "ready", "session_id": session.name, "limits": {"max_frame_bytes": self._max_frame_bytes}}
        session.tell(ready | ({"resume_token": session.tokens[0]} if self._resumable else {}))

    def resume(self, connection: Connection, content: dict[str, Any]) -> None:
        session = self.sessions.get(content["session_id"])
        if session is None or content["resume_token"] not in session.tokens:
            connection.say({**UNKNOWN, "seq": 1})
            connection.close(4404)
            return
        assert content["sent_bytes"] >= session.received_bytes
        if session.connection is not None:
            session.connection.close(4409)
        session.replay(connection, content["last_seq"], self._token())

    def restart(self) -> None:
        """The process dies, and another takes its place."""
        for session in self.sessions.values():
            session.connection = None
        self.sessions.clear()

    def drain(self) -> None:
        """The process ends in order: what was heard becomes final, with a summary."""
        for session in self.sessions.values():
            session.end(1001)
        self.restart()

    def _token(self) -> str:
        self._tokens += 1
        return f"t{self._tokens}"
