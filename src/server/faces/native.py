"""The native protocol `asr.v1` as a pure core: waiting → listening → stopping → closed.

The state is the method that takes the client's messages (`_receive`); what was heard, said and how
fast is in the `Ledger`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import orjson

from asr import wire
from asr.audio import AudioDecoder
from asr.engine import SAMPLE_RATE_HZ, Agreement, Features
from asr.errors import ASRError, Code, quoted
from asr.events import Event, Final, Flushed, Gap, GapCause, Partial, Progress, Status
from asr.options import Options
from server.conversation import Begin, Command, Cut, Drop, Feed, Finish, Hangup, Seen, Send
from server.faces.native_ledger import Ledger
from server.faces.native_messages import MAX_NAMED, id_of, numbered, parse, read_configure, read_seen, read_start
from server.faces.native_setup import ACK_INTERVAL_S, NativeSetup
from server.refusals import GOING_AWAY, NORMAL, TOO_BIG, refusal

IDLE_ACK_INTERVAL_S = 5.0
MAX_BAD_MESSAGES = 100
MAX_OWED = 1000  # finalize and mark messages that wait for their answers


class NativeConversation:
    """One session of `asr.v1`. Its messages get their `seq` when they are sent.

    `session_id` and `token`, with which a lost client may come back, are from outside, as the time is.
    """

    def __init__(self, setup: NativeSetup, session_id: str, token: str) -> None:
        self._setup = setup
        self._session_id = session_id
        self._token = token
        self._window_ms = 0
        self._receive: Callable[[str | bytes, float], list[Command]] = self._while_waiting
        self._opened_at = 0.0
        self._bad_messages = 0
        self._decoder: AudioDecoder | None = None
        self._told_warnings = 0
        self._options = Options()
        self._interim = True
        self._warnings: list[str] = []
        self._take = 0
        self._ready = False
        self._features: Features | None = None
        self._ended: ASRError | None = None
        self._close_code = NORMAL
        self._ledger = Ledger()
        # answers owed
        self._finalizes: deque[tuple[str | None, bool]] = deque()  # its name, and whether the client waits for it
        self._marks: deque[tuple[str | None, int]] = deque()
        self._acked_at = 0.0
        self._acked_bytes = 0

    # Doors ----------------------------------------------------------------------------------------

    def opened(self, now: float) -> list[Command]:
        """See `server.conversation.Conversation`, as for the other doors."""
        self._opened_at = now
        return []

    def received(self, message: str | bytes, now: float) -> list[Command]:
        """A text message is JSON with a `type`, a binary one is audio."""
        try:
            return self._receive(message, now)
        except ASRError as error:
            return self.refused(error, now)

    def begun(self, take: int, agreement: Agreement, now: float) -> list[Command]:
        """The engine agreed: the first take makes the session `ready`."""
        self._ledger.take_begun(take)
        self._features = agreement.features
        if take > 0:
            return []
        self._ready = True
        self._acked_at = now
        warnings = [*self._warnings, *agreement.warnings, *self._news_of_decoder()]
        ready = {
            "type": "ready",
            "session_id": self._session_id,
            "resume_token": self._token if self._window_ms else None,
            "protocol": wire.VERSION,
            "server": self._setup.server,
            "model": agreement.model.name,
            "language": agreement.options.language,
            "audio": {
                "encoding": "pcm_s16le",
                "sample_rate_hz": SAMPLE_RATE_HZ,
                "channels": self._options.channels,
            },
            "features": asdict(agreement.features),
            "limits": asdict(replace(self._setup.limits, resume_window_ms=self._window_ms)),
            "warnings": warnings,
        }
        return [self._send(ready), *self._owed()]

    def heard(self, take: int, event: Event, now: float) -> list[Command]:
        """An event of the current take, moved onto the session's clock."""
        ledger = self._ledger
        base = ledger.base_ms(take)
        match event:
            case Progress(processed_ms):
                ledger.processed(base + processed_ms)
                return self._owed()
            case Flushed(audio_ms):
                ledger.all_out(base + audio_ms)
                return self._answer_finalize(base + audio_ms)
            case Partial():
                ledger.guessed(event.channel)
                if not self._interim:
                    return []
            case Final():
                ledger.settled(take, event, now)
            case Gap():
                ledger.missed(take, event)
            case Status(state):
                ledger.changed(state)
        message = wire.encode(event, base_ms=base, base_utterance=ledger.base_utterance(take))
        if isinstance(event, Partial | Final):
            topic = f"{message['utterance_id']} {event.channel}"
            commands: list[Command] = [self._send(message, topic, lossy=isinstance(event, Partial))]
        else:
            commands = [self._send(message)]
        return commands + self._owed() if isinstance(event, Final | Gap) else commands

    def finished(self, take: int, now: float) -> list[Command]:
        """A take is over: a finalize that needed it is answered, or the session is."""
        if take == self._take and self._receive != self._while_stopping:
            error = ASRError(Code.UNAVAILABLE, "The recognizer ended the stream before the audio was over.")
            return self.refused(error, now)
        end_ms = self._ledger.end_ms(take)
        self._ledger.all_out(end_ms)
        if take < self._take:
            return self._answer_finalize(end_ms)
        commands: list[Command] = []
        while self._finalizes:
            commands += self._answer_finalize(end_ms)
        return [*commands, *self._end(now)]

    def failed(self, take: int, error: ASRError, now: float) -> list[Command]:
        """The take broke: the client is told, and the session ends."""
        return self.refused(error, now)

    def refused(self, error: ASRError, now: float) -> list[Command]:
        """A fatal error: said in a message, then by the close code.

        The engine has said what it lost of the audio it had taken; whatever else was accepted is lost as well.
        """
        if self._receive == self._while_closed:
            return []
        lost = self._ledger.uncovered() if self._ready else None
        self._receive = self._while_closed
        told: list[Command] = []
        if lost is not None:
            for channel in range(self._options.channels):
                gap = Gap(*lost, GapCause.UPSTREAM_LOST, channel)
                self._ledger.missed(0, gap)
                told.append(self._send(wire.encode(gap)))
        if self._close_code == GOING_AWAY and error.code in (Code.UNAVAILABLE, Code.TIMEOUT):
            return [*told, *self._end(now)]  # a drain whose recognizer is not done in time
        message = self._send(wire.encode_error(error, fatal=True, session_id=self._session_id))
        code = TOO_BIG if error.code is Code.TOO_LARGE else refusal(error.code).close_code
        return [*told, message, Hangup(code, error.code.value)]

    def quiet(self, for_ms: int, limit_ms: int, now: float) -> list[Command]:
        """The client is silent: a warning before the close."""
        text = f"Nothing was heard from you for {for_ms} ms; at {limit_ms} ms the connection is closed."
        return [self._warn("idle", text)] if self._ready else []

    def draining(self, deadline_ms: int, now: float) -> list[Command]:
        """The server goes down: what was said so far still becomes finals. Nobody can come back to it."""
        self._window_ms = 0
        if self._receive == self._while_waiting or not self._ready:
            return self.refused(ASRError(Code.UNAVAILABLE, "The gateway is going down. Connect again."), now)
        if self._receive != self._while_listening:
            return []
        self._close_code = GOING_AWAY
        return [self._send({"type": "status", "state": "draining", "deadline_ms": deadline_ms}), *self._stop(now)]

    def expiring(self, left_ms: int, now: float) -> list[Command]:
        """The client's credential expires: a warning, in time to fetch another."""
        text = f"Your credential expires in {left_ms / 1000:.0f} s. Fetch another, and resume with it."
        return [self._warn("token_expiring", text)] if self._receive == self._while_listening and self._ready else []

    def cut_short(self, error: ASRError, now: float) -> list[Command]:
        """The client may go on no longer, or not with this credential."""
        if self._receive == self._while_waiting or not self._ready:
            return self.refused(error, now)
        if self._receive != self._while_listening:
            return []
        return self._cut() if self._window_ms and error.code is Code.UNAUTHORIZED else self._break_off(error)

    def ticked(self, now: float) -> list[Command]:
        """Timers: the first message that never came, the session's limit, the heartbeat."""
        if self._receive == self._while_waiting:
            seconds = self._setup.limits.start_timeout_ms / 1000
            text = f'No start message came within {seconds:g} s. Send {{"type": "start"}} first.'
            return self.refused(ASRError(Code.IDLE_TIMEOUT, text), now)
        if self._receive == self._while_listening and now >= self._session_ends_at:
            minutes = self._setup.limits.max_session_ms / 60_000
            self._ended = ASRError(Code.TOO_LARGE, f"The session reached its limit of {minutes:g} minutes. Start anew.")
            return self._stop(now)
        if self._ready and now >= self._ack_due:
            return [self._ack(now)]
        return []

    @property
    def wake_at(self) -> float | None:
        """The nearest of the timers."""
        if self._receive == self._while_waiting:
            return self._opened_at + self._setup.limits.start_timeout_ms / 1000
        if self._receive == self._while_closed:
            return None
        listening = self._receive == self._while_listening
        if not self._ready:
            return self._session_ends_at if listening else None
        return min(self._ack_due, self._session_ends_at) if listening else self._ack_due

    # Connections ----------------------------------------------------------------------------------

    @property
    def window_ms(self) -> int:
        """See `server.conversation.Lasting`: none before `ready`, which carries what a client needs to come back."""
        return self._window_ms if self._ready else 0

    def resumed(self, last_seq: int, token: str) -> str:
        """The client came back, and has seen the messages up to `last_seq`: what it is told before all others."""
        self._token = token
        return numbered(
            {
                "type": "resumed",
                "session_id": self._session_id,
                "resume_token": token,
                "from_bytes": self._ledger.resumed(),
                "replaying_from_seq": last_seq + 1,
                "lost_ms": 0,
            },
            last_seq,
        )

    def parted(self, error: ASRError, seq: int) -> str:
        """See `server.conversation.Lasting`."""
        return numbered(wire.encode_error(error, fatal=True, session_id=self._session_id), seq)

    # States ---------------------------------------------------------------------------------------

    def _while_waiting(self, message: str | bytes, now: float) -> list[Command]:
        if isinstance(message, bytes):
            raise ASRError(Code.BAD_REQUEST, 'Audio came before the start message. Send {"type": "start"} first.')
        content = parse(message)
        if content["type"] != "start":
            raise ASRError(
                Code.BAD_REQUEST, f'The first message must be "start", not {quoted(content["type"])}.', param="type"
            )
        start = read_start(content)
        stereo = start.stereo(self._setup.stereo)
        channels = start.audio.channels if stereo == "split" else 1
        self._decoder = AudioDecoder(start.format(), stereo=stereo, exactly=channels if stereo == "split" else None)
        self._ledger = Ledger(channels)
        self._options = replace(start.options(), channels=channels)
        self._interim = start.interim
        longest_ms = self._setup.limits.resume_window_ms
        self._window_ms = longest_ms if start.resume_window_ms is None else min(start.resume_window_ms, longest_ms)
        unknown = start.unknown()
        self._warnings = [f"The field {name!r} is not known here and was ignored." for name in unknown[:MAX_NAMED]]
        if len(unknown) > MAX_NAMED:
            self._warnings.append(f"{len(unknown) - MAX_NAMED} more fields are not known here and were ignored.")
        self._receive = self._while_listening
        self._acked_at = now
        return [Begin(0, self._options)]

    def _while_listening(self, message: str | bytes, now: float) -> list[Command]:
        if isinstance(message, bytes):
            return self._audio(message, now)
        try:
            return self._control(parse(message), now)
        except ASRError as error:
            self._bad_messages += 1
            if self._bad_messages > MAX_BAD_MESSAGES:
                raise
            return [self._send(wire.encode_error(error, fatal=False, session_id=self._session_id))]

    def _while_stopping(self, message: str | bytes, now: float) -> list[Command]:
        if self._ended is not None or self._close_code == GOING_AWAY:
            return []  # it was not the client who stopped
        if isinstance(message, str):
            content = parse(message)
            if content["type"] == "cancel":
                return self._cancel(now)
            if content["type"] == "ack":
                return [Seen(read_seen(content))]
            if content["type"] in ("keepalive", "stop"):
                return []
        self._bad_messages += 1
        if self._bad_messages > 1:
            return []
        error = ASRError(Code.BAD_REQUEST, "The session is stopping: what comes after stop is not heard.")
        return [self._send(wire.encode_error(error, fatal=False, session_id=self._session_id))]

    def _while_closed(self, message: str | bytes, now: float) -> list[Command]:
        return []

    # What a client may ask ------------------------------------------------------------------------

    def _audio(self, data: bytes, now: float) -> list[Command]:
        if len(data) > self._setup.limits.max_frame_bytes:
            raise ASRError(
                Code.TOO_LARGE, f"A message is over the limit of {self._setup.limits.max_frame_bytes} bytes."
            )
        decoder = self._decoder
        assert decoder is not None
        self._ledger.received(len(data))
        try:
            pcm = decoder.feed(data)
        except ASRError as error:
            return self._break_off(error)
        commands: list[Command] = []
        if pcm:
            self._ledger.fed(len(pcm), now)
            commands.append(Feed(self._take, pcm))
        if self._ready and len(decoder.warnings) > self._told_warnings:
            commands += self._decoder_warnings()
        if self._ready and now >= self._ack_due:
            commands.append(self._ack(now))
        return commands

    def _control(self, content: dict[str, Any], now: float) -> list[Command]:
        ref = id_of(content)
        match content["type"]:
            case "finalize":
                return self._finalize(ref)
            case "mark":
                if len(self._marks) >= MAX_OWED:
                    raise ASRError(Code.RATE_LIMITED, "Too many marks wait for their audio.")
                self._marks.append((ref, self._ledger.fed_ms))
                return self._owed()
            case "keepalive":
                return [self._ack(now)] if self._ready else []
            case "ack":
                return [Seen(read_seen(content))]
            case "configure":
                return [self._configure(content, ref)]
            case "stop":
                return self._stop(now)
            case "cancel":
                return self._cancel(now)
            case "start":
                raise ASRError(Code.BAD_REQUEST, "The session has started already. Open a new one for other settings.")
            case other:
                names = "configure, finalize, mark, keepalive, ack, stop, cancel"
                raise ASRError(
                    Code.BAD_REQUEST, f"There is no message type {quoted(other)}. Types: {names}.", param="type"
                )

    def _finalize(self, ref: str | None) -> list[Command]:
        if len(self._finalizes) >= MAX_OWED:
            raise ASRError(Code.RATE_LIMITED, "Too many finalize messages wait for their answer.")
        return self._cut(ref, asked=True)

    def _cut(self, ref: str | None = None, *, asked: bool = False) -> list[Command]:
        self._finalizes.append((ref, asked))
        if self._features is not None and self._features.end_utterance:
            return [Cut(self._take)]
        # The engine cannot cut in mid-stream, or has not said yet: this take ends, another goes on, on one clock.
        ended, self._take = self._take, self._take + 1
        self._ledger.next_take()
        return [Finish(ended), Begin(self._take, self._options)]

    def _configure(self, content: dict[str, Any], ref: str | None) -> Send:
        """Partials can be turned off and on again, if the recognizer was asked for them; nothing else can change."""
        interim, ignored = read_configure(content)
        applied: dict[str, Any] = {}
        if interim is not None and (self._options.partials or not interim):
            self._interim = applied["interim"] = interim
        elif interim is not None:
            ignored.append("interim")
        return self._send({"type": "configured", "id": ref, "applied": applied, "ignored": ignored})

    def _stop(self, now: float) -> list[Command]:
        self._receive = self._while_stopping
        self._bad_messages = 0
        commands: list[Command] = []
        decoder = self._decoder
        if decoder is not None and self._ledger.received_bytes and self._ended is None:
            try:
                rest = decoder.finish()
            except ASRError as error:
                return self._break_off(error)
            if rest:
                self._ledger.fed(len(rest), now)
                commands.append(Feed(self._take, rest))
            if self._ready:
                commands += self._decoder_warnings()
        return [*commands, Finish(self._take)]

    def _break_off(self, error: ASRError) -> list[Command]:
        """The audio cannot be read on: what was heard so far still becomes finals, then the error is told."""
        self._receive = self._while_stopping
        self._ended = error
        return [Finish(self._take)]

    def _cancel(self, now: float) -> list[Command]:
        drops: list[Command] = [Drop(self._take)]
        return [*drops, *self._end(now, discarded_ms=self._ledger.fed_ms - self._ledger.covered_ms)]

    # Answers --------------------------------------------------------------------------------------

    def _end(self, now: float, discarded_ms: int = 0) -> list[Command]:
        commands = self._owed(everything=True)
        while self._finalizes:
            commands += self._answer_finalize(self._ledger.fed_ms)
        commands.append(self._ack(now))
        commands.append(self._send(self._ledger.summary(discarded_ms)))
        if self._ended is not None:
            message = wire.encode_error(self._ended, fatal=True, session_id=self._session_id)
            commands += [self._send(message), Hangup(refusal(self._ended.code).close_code, self._ended.code.value)]
        else:
            commands.append(Hangup(self._close_code))
        self._receive = self._while_closed
        return commands

    def _answer_finalize(self, audio_ms: int) -> list[Command]:
        commands = self._owed()
        if self._finalizes:
            ref, asked = self._finalizes.popleft()
            if asked:
                commands.append(self._send({"type": "finalized", "id": ref, "audio_ms": audio_ms}))
        return commands

    def _owed(self, *, everything: bool = False) -> list[Command]:
        """The marks whose audio is covered now; none before `ready`, so that it comes first."""
        commands: list[Command] = []
        covered_ms = self._ledger.processed_ms if self._ready else -1
        while self._marks and (everything or self._marks[0][1] <= covered_ms):
            ref, audio_ms = self._marks.popleft()
            commands.append(self._send({"type": "marked", "id": ref, "audio_ms": audio_ms}))
        return commands

    def _ack(self, now: float) -> Send:
        self._acked_at = now
        self._acked_bytes = self._ledger.received_bytes
        return self._send(self._ledger.ack(), "ack", lossy=True)

    def _decoder_warnings(self) -> list[Command]:
        return [self._warn("audio", text) for text in self._news_of_decoder()]

    def _news_of_decoder(self) -> list[str]:
        assert self._decoder is not None
        news = self._decoder.warnings[self._told_warnings :]
        self._told_warnings = len(self._decoder.warnings)
        return news

    def _warn(self, code: str, text: str, param: str | None = None) -> Send:
        return self._send({"type": "warning", "code": code, "message": text, "param": param})

    def _send(self, message: dict[str, Any], topic: str = "", *, lossy: bool = False) -> Send:
        return Send(orjson.dumps(message).decode(), topic, lossy)

    @property
    def _ack_due(self) -> float:
        flowing = self._ledger.received_bytes > self._acked_bytes
        return self._acked_at + (ACK_INTERVAL_S if flowing else IDLE_ACK_INTERVAL_S)

    @property
    def _session_ends_at(self) -> float:
        return self._opened_at + self._setup.limits.max_session_ms / 1000
