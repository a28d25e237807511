"""The plain dialect of a SageMaker two-way stream: audio in binary messages, results as JSON.

Client: audio as the query says (16 kHz mono PCM16 where it says nothing); `{"type": "KeepAlive"}` for a sign of life,
`{"type": "Finalize"}` for the results of what was said so far, `{"type": "CloseStream"}` at the end. Server: `Results`
as clients of hosted speech services read them (`channel.alternatives[0].transcript`, `is_final`, `from_finalize`),
with `text` beside; a last `Metadata` before it closes. Exactly one result with `from_finalize` answers each `Finalize`.
Times are seconds from the beginning of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson

from asr.audio import AudioDecoder
from asr.engine import BYTES_PER_MS, Agreement
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Gap, Partial, Word
from asr.options import Options
from server.conversation import Begin, Command, Cut, Feed, Finish, Hangup, Send
from server.faces.sagemaker_options import read_query
from server.faces.sagemaker_stream import close_code, error_text
from server.refusals import GOING_AWAY, NORMAL

END = "END"
MAX_OWED = 1000
"""`Finalize` messages that wait for their answers."""
MAX_NOTICE_S = 30.0
"""How long before its limit a session is told of it, at most; else a tenth of the session."""

Json = dict[str, Any]


class PlainConversation:
    """One plain stream: listening from its opening, until `CloseStream`.

    Args:
        queries: the values of each name in the query.
        start_timeout_ms: how long the first message may take.
        max_session_ms: how long the stream may last; its client is told before.
        resolve: the model that a client's name for one means, and a note where that is not the one it gave.
        refuse_unsupported: whether what the engine cannot do ends the stream; else it is told as a warning.
        stereo: what becomes of several channels.
    """

    def __init__(
        self,
        queries: Mapping[str, list[str]],
        *,
        start_timeout_ms: int,
        max_session_ms: int,
        resolve: Callable[[str], tuple[str, str]] = lambda model: (model, ""),
        refuse_unsupported: bool = False,
        stereo: Literal["mix", "refuse"] = "mix",
    ) -> None:
        self._queries = queries
        self._start_timeout_s = start_timeout_ms / 1000
        self._session_s = max_session_ms / 1000
        self._resolve = resolve
        self._refuse_unsupported = refuse_unsupported
        self._stereo: Literal["mix", "refuse"] = stereo
        self._options = Options()
        self._decoder: AudioDecoder | None = None
        self._interim = True
        self._notes: tuple[str, ...] = ()
        self._told_warnings = 0
        self._start_due: float | None = None
        self._notice_at: float | None = None
        self._ends_at = 0.0
        self._take = 0
        self._bases = [0]  # where each take begins, in bytes of PCM
        self._fed_bytes = 0
        self._covered_ms = 0
        self._heard_audio = False
        self._can_cut: bool | None = None
        self._owed = 0  # Finalize messages without their result
        self._answered = False  # whether a result has answered the first of them
        self._ended = False
        self._over = False
        self._broken: ASRError | None = None
        self._close_code = NORMAL

    # Doors ----------------------------------------------------------------------------------------

    def opened(self, now: float) -> list[Command]:
        """See `server.conversation.Conversation`, as for the other doors."""
        self._start_due = now + self._start_timeout_s
        self._ends_at = now + self._session_s
        self._notice_at = self._ends_at - min(MAX_NOTICE_S, self._session_s / 10)
        try:
            request = read_query(self._queries, refuse_unsupported=self._refuse_unsupported)
            self._decoder = AudioDecoder(request.format, stereo=self._stereo)
        except ASRError as error:
            return self.refused(error, now)
        model, note = self._resolve(request.options.model)
        self._options, self._interim = replace(request.options, model=model), request.interim
        self._notes = (*request.notes, note) if note else request.notes
        return [Begin(0, self._options)]

    def received(self, message: str | bytes, now: float) -> list[Command]:
        """Audio, or one of the three messages."""
        self._start_due = None
        if self._over or self._ended:
            return []
        try:
            return self._hear(message) if isinstance(message, bytes) else self._control(message)
        except ASRError as error:
            return self._break_off(error)

    def begun(self, take: int, agreement: Agreement, now: float) -> list[Command]:
        """The first take tells what was understood differently."""
        self._can_cut = agreement.features.end_utterance
        if take > 0:
            return []
        return [self._warning("options", text) for text in dict.fromkeys((*self._notes, *agreement.warnings))]

    def heard(self, take: int, event: Event, now: float) -> list[Command]:
        """Results, and gaps."""
        base_ms = self._bases[take] // BYTES_PER_MS
        match event:
            case Partial(text=text) if text and self._interim:
                return [self._result(event, base_ms)]
            case Final():
                self._covered_ms = max(self._covered_ms, base_ms + event.end_ms)
                asked = self._is_answer(take, event.reason)
                self._answered = self._answered or asked
                return [self._result(event, base_ms, from_finalize=asked)] if event.text or asked else []
            case Flushed(audio_ms):
                return self._answer(base_ms + audio_ms)
            case Gap(start_ms, end_ms):
                self._covered_ms = max(self._covered_ms, base_ms + end_ms)
                return [self._gap(base_ms + start_ms, base_ms + end_ms)]
            case _:
                return []

    def finished(self, take: int, now: float) -> list[Command]:
        """A take is over: a `Finalize` that needed it is answered, or the stream is at its end."""
        if take < self._take:
            return self._answer(self._bases[take + 1] // BYTES_PER_MS)
        if not self._ended:
            return self.refused(ASRError(Code.UNAVAILABLE, "The recognizer ended the stream too early."), now)
        if self._broken is not None:
            return self._told(self._broken)
        end_ms = self._fed_bytes // BYTES_PER_MS
        told: list[Command] = []
        while self._owed:
            told += self._answer(end_ms)
        self._over = True
        metadata = self._send({"type": "Metadata", "duration": end_ms / 1000, "channels": 1})
        return [*told, metadata, Hangup(self._close_code)]

    def failed(self, take: int, error: ASRError, now: float) -> list[Command]:
        """The client is told, and the stream ends."""
        return self.refused(error, now)

    def refused(self, error: ASRError, now: float) -> list[Command]:
        """A fatal error; before it, the audio that is lost because of it."""
        fed_ms = self._fed_bytes // BYTES_PER_MS
        lost = fed_ms > self._covered_ms and not self._over
        gap: list[Command] = [self._gap(self._covered_ms, fed_ms)] if lost else []
        return [*gap, *self._told(error)]

    def quiet(self, for_ms: int, limit_ms: int, now: float) -> list[Command]:
        """The client is silent: a warning before the close."""
        text = f"Nothing was heard from you for {for_ms} ms; at {limit_ms} ms the stream is closed. Send KeepAlive."
        return [] if self._over else [self._warning("idle", text)]

    def draining(self, deadline_ms: int, now: float) -> list[Command]:
        """The server goes down: what was said so far still becomes results."""
        return self._leave("draining", "The gateway is going down. Connect again.")

    def cut_short(self, error: ASRError, now: float) -> list[Command]:
        """The client may go on no longer."""
        if self._over or self._ended:
            return []
        return self.refused(error, now) if self._decoder is None else self._break_off(error)

    def ticked(self, now: float) -> list[Command]:
        """The first message never came, or the session nears its limit, or has reached it."""
        if self._start_due is not None and now >= self._start_due:
            text = f"No audio came within {self._start_timeout_s:g} s."
            return self.refused(ASRError(Code.IDLE_TIMEOUT, text), now)
        if now >= self._ends_at:
            return self._leave("session_limit", "The stream has reached its limit. Connect again.")
        if self._notice_at is not None and now >= self._notice_at:
            self._notice_at = None
            seconds = self._ends_at - now
            return [self._warning("session_limit", f"The stream ends in {seconds:.3g} s. Connect again before that.")]
        return []

    @property
    def wake_at(self) -> float | None:
        """The nearest of the timers."""
        if self._over or self._ended:
            return None
        return min(due for due in (self._start_due, self._notice_at, self._ends_at) if due is not None)

    # What a client may say ------------------------------------------------------------------------

    def _hear(self, data: bytes) -> list[Command]:
        assert self._decoder is not None
        self._heard_audio = self._heard_audio or bool(data)
        return [*self._feed(self._decoder.feed(data)), *self._news()]

    def _control(self, message: str) -> list[Command]:
        if message.strip().upper() == END:
            return self._finish()
        try:
            content: Any = orjson.loads(message)
        except orjson.JSONDecodeError:
            content = None
        match content.get("type") if isinstance(content, dict) else None:
            case "KeepAlive":
                return []
            case "Finalize":
                return self._finalize()
            case "CloseStream":
                return self._finish()
        text = 'This stream takes audio and {"type": "KeepAlive"}, "Finalize" or "CloseStream"; this was left out.'
        return [self._warning("bad_request", text)]

    def _finalize(self) -> list[Command]:
        if self._owed >= MAX_OWED:
            raise ASRError(Code.RATE_LIMITED, "Too many Finalize messages wait for their answer.")
        self._owed += 1
        if self._can_cut:
            return [Cut(self._take)]
        # The engine cannot cut in mid-stream, or has not said yet: this take ends, another goes on.
        ended, self._take = self._take, self._take + 1
        self._bases.append(self._fed_bytes)
        return [Finish(ended), Begin(self._take, self._options)]

    def _finish(self) -> list[Command]:
        self._ended = True
        assert self._decoder is not None
        try:
            rest = self._decoder.finish() if self._heard_audio else b""
        except ASRError as error:
            return self._break_off(error)
        return [*self._feed(rest), *self._news(), Finish(self._take)]

    def _break_off(self, error: ASRError) -> list[Command]:
        """The audio cannot go on: what was heard before still becomes results, then the error is told."""
        self._ended = True
        self._broken = error
        return [Finish(self._take)]

    def _leave(self, code: str, text: str) -> list[Command]:
        if self._ended or self._over:
            return []
        self._close_code = GOING_AWAY
        return [self._warning(code, text), *self._finish()]

    # What is told ---------------------------------------------------------------------------------

    def _feed(self, pcm: bytes) -> list[Command]:
        self._fed_bytes += len(pcm)
        return [Feed(self._take, pcm)] if pcm else []

    def _news(self) -> list[Command]:
        assert self._decoder is not None
        news = self._decoder.warnings[self._told_warnings :]
        self._told_warnings += len(news)
        return [self._warning("audio", text) for text in news]

    def _answer(self, audio_ms: int) -> list[Command]:
        """All is out of what came before a `Finalize`: where no result has answered it, an empty one does."""
        if not self._owed:
            return []
        self._owed -= 1
        answered, self._answered = self._answered, False
        if answered:
            return []
        empty = Final(0, 1, "", audio_ms, audio_ms, reason=FinalReason.FINALIZE)
        return [self._result(empty, 0, from_finalize=True)]

    def _is_answer(self, take: int, reason: FinalReason) -> bool:
        if not self._owed or self._answered:
            return False
        return reason is FinalReason.FINALIZE or (take < self._take and reason is FinalReason.STOP)

    def _told(self, error: ASRError) -> list[Command]:
        if self._over:
            return []
        self._over = True
        return [Send(error_text(error)), Hangup(close_code(error), error.code.value)]

    def _result(self, event: Partial | Final, base_ms: int, *, from_finalize: bool = False) -> Send:
        final = isinstance(event, Final)
        alternative: Json = {
            "transcript": event.text,
            "confidence": _confidence(event.confidence_raw, event.confidence) if isinstance(event, Final) else 0.0,
            "words": [_word(word, base_ms) for word in event.words],
        }
        message = {
            "type": "Results",
            "channel_index": [event.channel, 1],
            "start": (base_ms + event.start_ms) / 1000,
            "duration": (event.end_ms - event.start_ms) / 1000,
            "text": event.text,
            "is_final": final,
            "speech_final": final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [alternative]},
        }
        return self._send(message, f"u{event.utterance} {event.channel}", lossy=not final)

    def _gap(self, start_ms: int, end_ms: int) -> Send:
        return self._send({"type": "Gap", "start": start_ms / 1000, "duration": (end_ms - start_ms) / 1000})

    def _warning(self, code: str, text: str) -> Send:
        return self._send({"type": "Warning", "code": code, "message": text})

    def _send(self, message: Json, topic: str = "", *, lossy: bool = False) -> Send:
        return Send(orjson.dumps(message).decode(), topic, lossy)


def _word(word: Word, base_ms: int) -> Json:
    said: Json = {
        "word": word.text,
        "start": (base_ms + word.start_ms) / 1000,
        "end": (base_ms + word.end_ms) / 1000,
        "confidence": _confidence(word.confidence_raw, word.confidence),
    }
    return said if word.speaker is None else {**said, "speaker": word.speaker}


def _confidence(raw: float | None, probability: float | None) -> float:
    return raw if raw is not None else probability if probability is not None else 0.0
