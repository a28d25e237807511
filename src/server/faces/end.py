"""The dialect of `/ws`: raw PCM16 in binary messages, the text `END`, one JSON object per result.

Client: 16 kHz mono PCM16 little-endian, then `END`. Server: `{"text", "is_final", "timestamp"}` with the
Unix time in seconds at which the result was sent, and the text `END` when everything is out. Audio that no result will
cover is an empty final with a `gap`: `{"start_ms", "end_ms"}`. A failure is
`{"error": {"code", "message", "retryable"}}`, then a close with the code of `server.refusals`, or 1013 when the
recognizer is full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from asr.audio import AudioDecoder, AudioFormat
from asr.engine import BYTES_PER_MS, Agreement
from asr.errors import ASRError, Code
from asr.events import Event, Final, Gap, Partial
from asr.options import Options
from server.conversation import Begin, Command, Feed, Finish, Hangup, Send
from server.refusals import GOING_AWAY, NORMAL, refusal

END = "END"
TRY_AGAIN_LATER = 1013
"""What generic clients know in place of 4503."""


def refusal_text(error: ASRError) -> str:
    """The message of a failure."""
    message = {"error": {"code": error.code.value, "message": error.message, "retryable": error.retryable}}
    return orjson.dumps(message).decode()


def close_code(code: Code) -> int:
    """The close code after that message."""
    return TRY_AGAIN_LATER if code is Code.OVERLOADED else refusal(code).close_code


class EndConversation:
    """One connection of the `END` dialect: listening from its opening, until `END`.

    Args:
        start_timeout_ms: how long the first message may take.
        max_session_ms: how long the connection may last.
        unix_time: the wall clock, in seconds, for `timestamp`.
    """

    def __init__(self, *, start_timeout_ms: int, max_session_ms: int, unix_time: Callable[[], float]) -> None:
        self._decoder = AudioDecoder(AudioFormat())
        self._start_timeout_s = start_timeout_ms / 1000
        self._unix_time = unix_time
        self._max_session_s = max_session_ms / 1000
        self._deadline: float | None = None
        self._session_ends_at = 0.0
        self._ended = False
        self._over = False
        self._heard_audio = False
        self._fed_bytes = 0
        self._covered_ms = 0
        self._broken: ASRError | None = None
        self._close_code = NORMAL

    def opened(self, now: float) -> list[Command]:
        """The engine's stream begins at once: there is nothing to agree on."""
        self._deadline = now + self._start_timeout_s
        self._session_ends_at = now + self._max_session_s
        return [Begin(0, Options(words=False))]

    def received(self, message: str | bytes, now: float) -> list[Command]:
        """Audio, or `END`."""
        self._deadline = None
        if self._over or self._ended:
            return []
        try:
            return self._hear(message)
        except ASRError as error:
            return self._break_off(error)

    def begun(self, take: int, agreement: Agreement, now: float) -> list[Command]:
        """Nothing is said about it in this dialect."""
        return []

    def heard(self, take: int, event: Event, now: float) -> list[Command]:
        """Partials, finals and gaps; an empty text is no result."""
        if isinstance(event, Final | Gap):
            self._covered_ms = max(self._covered_ms, event.end_ms)
        match event:
            case Partial(text=text) | Final(text=text) if text:
                topic = f"u{event.utterance} {event.channel}"
                return [self._result(text, topic, is_final=isinstance(event, Final))]
            case Gap(start_ms, end_ms):
                return [self._gap(start_ms, end_ms)]
            case _:
                return []

    def finished(self, take: int, now: float) -> list[Command]:
        """Everything is out: `END` confirms it."""
        if not self._ended:
            return self.refused(ASRError(Code.UNAVAILABLE, "The recognizer ended the stream too early."), now)
        if self._broken is not None:
            return self._told(self._broken)
        self._over = True
        return [Send(END), Hangup(self._close_code)]

    def failed(self, take: int, error: ASRError, now: float) -> list[Command]:
        """The client is told, and the connection ends."""
        return self.refused(error, now)

    def refused(self, error: ASRError, now: float) -> list[Command]:
        """A fatal error; before it, the audio that is lost because of it."""
        fed_ms = self._fed_bytes // BYTES_PER_MS
        lost = fed_ms > self._covered_ms and not self._over
        told: list[Command] = [self._gap(self._covered_ms, fed_ms)] if lost else []
        if self._close_code == GOING_AWAY and not self._over:
            self._over = True
            return [*told, Hangup(GOING_AWAY)]  # a drain whose recognizer is not done in time
        return [*told, *self._told(error)]

    def quiet(self, for_ms: int, limit_ms: int, now: float) -> list[Command]:
        """This dialect has no warnings."""
        return []

    def draining(self, deadline_ms: int, now: float) -> list[Command]:
        """The server goes down: what was said so far still becomes finals."""
        self._close_code = GOING_AWAY
        return [] if self._ended or self._over else self._finish()

    def cut_short(self, error: ASRError, now: float) -> list[Command]:
        """The client may go on no longer."""
        return [] if self._ended or self._over else self._break_off(error)

    def ticked(self, now: float) -> list[Command]:
        """The first message never came, or the connection has lasted long enough."""
        if self._deadline is not None and now >= self._deadline:
            text = f"No audio came within {self._start_timeout_s:g} s."
            return self.refused(ASRError(Code.IDLE_TIMEOUT, text), now)
        if now >= self._session_ends_at and not self._ended:
            text = f"The connection reached its limit of {self._max_session_s / 60:g} minutes. Connect again."
            return self._break_off(ASRError(Code.TOO_LARGE, text))
        return []

    @property
    def wake_at(self) -> float | None:
        """The deadline of the first message, then that of the whole connection."""
        if self._over or self._ended:
            return None
        return self._session_ends_at if self._deadline is None else self._deadline

    def _hear(self, message: str | bytes) -> list[Command]:
        if isinstance(message, bytes):
            self._heard_audio = self._heard_audio or bool(message)
            pcm = self._decoder.feed(message)
            return [self._feed(pcm)] if pcm else []
        if message.strip().upper() == END:
            return self._finish()
        text = 'This path takes binary PCM16 audio and the text "END", nothing else. /v1/stream takes settings.'
        return [Send(refusal_text(ASRError(Code.BAD_REQUEST, text)))]

    def _break_off(self, error: ASRError) -> list[Command]:
        """The audio cannot go on: what was heard before still becomes finals, then the error is told."""
        self._ended = True
        self._broken = error
        return [Finish(0)]

    def _finish(self) -> list[Command]:
        self._ended = True
        self._deadline = None
        rest = self._decoder.finish() if self._heard_audio else b""
        feed: list[Command] = [self._feed(rest)] if rest else []
        return [*feed, Finish(0)]

    def _told(self, error: ASRError) -> list[Command]:
        if self._over:
            return []
        self._over = True
        return [Send(refusal_text(error)), Hangup(close_code(error.code), error.code.value)]

    def _feed(self, pcm: bytes) -> Feed:
        self._fed_bytes += len(pcm)
        return Feed(0, pcm)

    def _gap(self, start_ms: int, end_ms: int) -> Send:
        return self._result("", is_final=True, gap={"start_ms": start_ms, "end_ms": end_ms})

    def _result(self, text: str, topic: str = "", *, is_final: bool, **more: Any) -> Send:
        message = {"text": text, "is_final": is_final, "timestamp": round(self._unix_time(), 3), **more}
        return Send(orjson.dumps(message).decode(), topic, lossy=not is_final)
