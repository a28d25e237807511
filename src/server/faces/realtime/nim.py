"""A NIM's realtime transcription as a pure core.

`conversation.created`, then nothing until `transcription_session.update` is answered by `…updated`; then audio, deltas,
a `completed` for each utterance, and after `input_audio_buffer.done` a last one with `is_last_result`, on silence too.

NVIDIA's own client keeps the transcript of the last `completed` alone, other clients join those of all. Both are right
for a file (`input_audio_format` none, which is how NVIDIA's client sends one): its utterances are one item, told as
deltas while they come and as one `completed` at the end. That comes sooner, in pieces to be joined, when the client
forces the end of an utterance, when it pauses without saying `done`, and when the words would not fit in one message.
With `pcm16`, which is how live audio comes, each utterance is told at once, and the last event holds the last of them.

`commit` ends nothing. `clear` throws away what came since the last commit, and with it the utterance being spoken; one
whose end was forced before keeps its words.

Audio that comes before any update is taken with the session's defaults, and nothing is answered: older clients of
other servers know neither updates nor `done`, and ask for their words with `response.create`. It ends the utterance,
and behind the item's own events come `response.output_text.delta` and `response.completed`. An update that does come
later is granted all the same, and what was heard before it is thrown away.
Failures are `error` events: clients wait on after a `…failed`, which only tells of audio that is lost on the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from asr.audio import AudioDecoder
from asr.engine import BYTES_PER_MS, Agreement
from asr.errors import ASRError, Code, quoted
from asr.events import Event, Final, Flushed, Gap, Partial, Progress
from asr.options import Options
from server.conversation import Begin, Command, Cut, Drop, Feed, Finish, Hangup, Send
from server.faces.realtime import nim_events as events
from server.faces.realtime.audio import decoded, read_audio
from server.faces.realtime.nim_results import Results
from server.faces.realtime.nim_session import Wishes, merged, new_session, read_session
from server.faces.realtime.reading import RESPOND, check_depth, forces_end, ref_of
from server.faces.realtime.setup import RealtimeSetup
from server.refusals import GOING_AWAY, NORMAL

Json = dict[str, Any]

MAX_UPDATE_CHARS = 256 * 1024
"""Of an update: it is shown again whole, and clients take messages of 1 MiB."""
MAX_OWED = 256
"""Forced ends that the recognizer has not answered, and takes that it has not begun."""
MAX_BAD_MESSAGES = 100
END_GRACE_S = 60.0
"""How long, once a connection has lasted as long as it may, its last results may take."""
HOLD_S = 3.0
"""A client that sends a file and is silent for so long, without `done`, waits for what was heard."""
LINGER_S = 10.0
"""How long a client may keep a connection on which everything is told."""
BEHIND_MS = 1_000
"""How far the recognizer may be behind the audio to be taken for done with it."""

_FIXABLE = (Code.BAD_REQUEST, Code.BAD_AUDIO, Code.UNSUPPORTED, Code.NOT_FOUND)


class NimConversation:
    """One socket of a NIM's realtime API.

    Args:
        setup: what every conversation of a server has in common.
        session_config: the fields given when the session was made beforehand, or None.
        new_id: makes an id with the prefix that it is given.
    """

    def __init__(
        self, setup: RealtimeSetup, session_config: Mapping[str, Any] | None, new_id: Callable[[str], str]
    ) -> None:
        self._setup = setup
        self._new_id = new_id
        self._session = new_session(new_id("sess"))
        self._given = session_config
        self._wishes: Wishes | None = None  # of the running session; None before the first update
        self._options = Options()
        self._warnings: tuple[str, ...] = ()
        self._is_told = False  # whether the update has been answered
        self._is_default = False  # whether audio came without an update
        self._was_updated = False
        self._was_early = False
        self._bad_messages = 0
        self._decoder: AudioDecoder | None = None
        self._decoder_warnings = 0
        self._take: int | None = None  # the one that takes audio
        self._next_take = 0
        self._begun_takes = 0
        self._bases: dict[int, int] = {}  # where a take's clock begins on the connection's
        self._void: set[int] = set()  # takes of which only what they owe is wanted
        self._cuts = False
        self._owed: deque[tuple[int, bool]] = deque()  # forced ends: the take, and whether a response.create asked
        self._answered = False
        self._fed_bytes = 0
        self._responded_bytes = 0
        self._uncommitted_bytes = 0
        self._covered_ms = 0
        self._progresses = False
        self._results = Results(new_id)
        self._deadline: float | None = None
        self._hold_until: float | None = None
        self._session_ends_at = 0.0
        self._ending = False
        self._is_done = False
        self._complete = False
        self._broken: ASRError | None = None
        self._close_code = NORMAL
        self._over = False

    # Doors ----------------------------------------------------------------------------------------

    def opened(self, now: float) -> list[Command]:
        """See `server.conversation.Conversation`, as for the other doors."""
        self._deadline = now + self._setup.start_timeout_ms / 1000
        self._session_ends_at = now + self._setup.max_session_ms / 1000
        if self._given:
            # What was given beforehand was read then; an update says it again, or something else.
            self._session = merged(self._session, self._given)
        return [self._send(events.created(self._new_id("conv")))]

    def received(self, message: str | bytes, now: float) -> list[Command]:
        """One JSON event."""
        if self._over:
            return []
        if not self._complete:
            self._deadline = None
        if self._hold_until is not None:
            self._hold_until = now + HOLD_S
        ref: str | None = None
        try:
            event = events.read(message)
            ref = ref_of(event)
            commands = self._act(event, len(message), now)
        except ASRError as error:
            self._bad_messages += 1
            if self._bad_messages > MAX_BAD_MESSAGES:
                text = f"More than {MAX_BAD_MESSAGES} messages in a row could not be used; the last: {error.message}"
                return self.refused(ASRError(Code.BAD_REQUEST, text), now)
            return [self._send(events.error_event(error, ref))]
        self._bad_messages = 0
        return commands

    def begun(self, take: int, agreement: Agreement, now: float) -> list[Command]:
        """The engine agreed: an update is answered with what holds."""
        self._begun_takes = max(self._begun_takes, take + 1)
        if take not in self._bases:
            return []
        self._cuts = agreement.features.end_utterance
        if self._is_told:
            return []
        self._is_told = True
        self._results.speak(agreement.options.language)
        agreed = {"model": agreement.model.name, "language": agreement.options.language}
        self._session = merged(self._session, {"input_audio_transcription": agreed})
        self._warnings = tuple(dict.fromkeys((*self._warnings, *agreement.warnings)))
        return [] if self._is_default else [self._send(events.updated(self._session, self._warnings))]

    def heard(self, take: int, event: Event, now: float) -> list[Command]:
        """What the engine says becomes deltas and transcripts."""
        base_ms = self._bases.get(take)
        if base_ms is None or self._over or (take in self._void and not self._owes(take)):
            return []
        match event:
            case Partial(text=text) if text:
                return self._guess(event)
            case Final():
                self._covered_ms = max(self._covered_ms, base_ms + event.end_ms)
                return self._final(event, base_ms, now)
            case Progress(processed_ms):
                self._progresses = True
                self._covered_ms = max(self._covered_ms, base_ms + processed_ms)
                return []
            case Flushed():
                return self._flushed()
            case Gap():
                return self._gap(event, base_ms)
            case _:
                return []

    def finished(self, take: int, now: float) -> list[Command]:
        """A take's engine is done."""
        if self._bases.pop(take, None) is None or self._over:
            return []
        self._void.discard(take)
        if take == self._take:
            return self.refused(ASRError(Code.UNAVAILABLE, "The recognizer ended the stream too early."), now)
        commands: list[Command] = []
        while self._owes(take):
            commands += self._flushed()
        return commands if not self._ending or self._bases else [*commands, *self._end(now)]

    def failed(self, take: int, error: ASRError, now: float) -> list[Command]:
        """A take could not begin, which the client may put right, or broke, which ends the connection."""
        if self._bases.pop(take, None) is None or self._over:
            return []
        self._begun_takes = max(self._begun_takes, take + 1)
        if self._is_told or self._ending or error.code not in _FIXABLE:
            return self.refused(self._broken or error, now)
        dropped = self._forget_takes()
        self._take, self._wishes, self._decoder = None, None, None
        self._was_early = True
        return [self._send(events.error_event(error)), *dropped]

    def refused(self, error: ASRError, now: float) -> list[Command]:
        """A fatal error: what was heard, then the error, then the close code."""
        if self._over:
            return []
        self._over = True
        code = GOING_AWAY if self._close_code == GOING_AWAY else events.close_code(error.code)
        held = self._tell() if self._results.holds else []
        return [*held, self._send(events.error_event(error)), Hangup(code, error.code.value)]

    def quiet(self, for_ms: int, limit_ms: int, now: float) -> list[Command]:
        """This dialect has no warnings of that kind."""
        return []

    def draining(self, deadline_ms: int, now: float) -> list[Command]:
        """The server goes down: what was said so far still becomes transcripts."""
        self._close_code = GOING_AWAY
        if self._complete or (self._take is None and not self._bases and not self._over):
            self._over = True
            return [Hangup(GOING_AWAY)]
        return [] if self._over or self._ending else self._finish()

    def cut_short(self, error: ASRError, now: float) -> list[Command]:
        """The client may go on no longer."""
        if self._over or (self._ending and not self._complete):
            return []
        return self.refused(error, now) if self._complete else self._break_off(error, now)

    def ticked(self, now: float) -> list[Command]:
        """The first message never came, a file's client waits, everything is told, or the session is too long."""
        if self._over:
            return []
        if self._deadline is not None and now >= self._deadline:
            if self._complete:
                self._over = True
                return [Hangup(self._close_code)]
            text = f"No event came within {self._setup.start_timeout_ms / 1000:g} s."
            return self.refused(ASRError(Code.IDLE_TIMEOUT, text), now)
        commands: list[Command] = []
        if self._hold_until is not None and now >= self._hold_until:
            behind_ms = self._fed_ms - self._covered_ms
            if self._progresses and behind_ms > BEHIND_MS:
                self._hold_until = now + HOLD_S  # the recognizer has more to say
            else:
                commands = self._tell()
        if now >= self._ends_by and self._ending and not self._complete:
            return self.refused(ASRError(Code.TIMEOUT, "The recognizer did not come to its end in time."), now)
        if now >= self._session_ends_at and not self._ending:
            minutes = self._setup.max_session_ms / 60_000
            text = f"The connection reached its limit of {minutes:g} minutes. Connect again."
            return [*commands, *self._break_off(ASRError(Code.TOO_LARGE, text), now)]
        return commands

    @property
    def wake_at(self) -> float | None:
        """The soonest of: the deadline of the first message or of the last, a pause of a file, the session's end."""
        if self._over:
            return None
        session = None if self._complete else self._ends_by
        return min((at for at in (self._deadline, self._hold_until, session) if at is not None), default=None)

    # What a client may ask ------------------------------------------------------------------------

    def _act(self, event: Json, size: int, now: float) -> list[Command]:
        kind = event.get("type")
        if self._ending:
            if self._is_done and kind in ("transcription_session.update", "input_audio_buffer.append", RESPOND):
                raise ASRError(Code.BAD_REQUEST, "This connection is done. Open another for more audio.", param="type")
            return []
        match kind:
            case "transcription_session.update":
                if size > MAX_UPDATE_CHARS:
                    limit = MAX_UPDATE_CHARS // 1024
                    raise ASRError(Code.TOO_LARGE, f"An update holds {limit} KiB at most.", param="session")
                self._was_updated = True
                return self._update(event.get("session"))
            case "input_audio_buffer.append":
                return self._append(event, now)
            case "input_audio_buffer.commit":
                if self._wishes is None:
                    return []
                self._uncommitted_bytes = 0
                told = events.committed(self._results.items.previous, self._results.items.current)
                return [self._send(told, topic="committed", lossy=True)]
            case "input_audio_buffer.clear":
                return [*self._clear(), self._send(events.cleared())]
            case "input_audio_buffer.done":
                if self._wishes is None:
                    raise events.not_set_up()
                self._is_done = True
                return self._finish()
            case kind if kind == RESPOND:
                return self._respond()
            case _:
                known = "transcription_session.update and input_audio_buffer.append, commit, clear and done"
                text = f"There is no event {quoted(event['type'])}. Events: {known}."
                raise ASRError(Code.BAD_REQUEST, text, param="type")

    def _update(self, wanted: object) -> list[Command]:
        began = self._fed_bytes or (self._decoder is not None and self._decoder.received_bytes)
        if began and (not self._is_default or self._responded_bytes):
            text = "The session cannot change once audio has come. Open another connection."
            raise ASRError(Code.BAD_REQUEST, text, param="session")
        if not isinstance(wanted, dict):
            raise ASRError(Code.BAD_REQUEST, "session must be an object.", param="session")
        check_depth(wanted)
        self._check_waiting()
        session = merged(self._session, wanted)
        wishes = read_session(session)
        options, notes = self._setup.settle(wishes.options)
        decoder = self._new_decoder(wishes)
        early = ("The audio that came before this update was thrown away.",) if began else ()
        dropped = self._forget_takes()
        self._session, self._wishes, self._options = session, wishes, options
        self._results.wants_words, self._results.gathers = wishes.words, False
        self._warnings = (*early, *wishes.warnings, *notes)
        self._decoder, self._decoder_warnings = decoder, 0
        self._is_told = self._was_early = self._is_default = False
        return [*dropped, *self._begin()]

    def _forget_takes(self) -> list[Command]:
        """Nothing that came until now counts."""
        dropped: list[Command] = [Drop(take) for take in self._bases]
        self._bases.clear()
        self._void.clear()
        self._owed.clear()
        self._results.forget()
        self._fed_bytes = self._uncommitted_bytes = self._responded_bytes = self._covered_ms = 0
        self._hold_until = None
        return dropped

    def _begin_unasked(self) -> list[Command]:
        """Audio is there, and nobody has said what it is: the session is as it was made."""
        commands = self._update({})
        self._is_default = self._results.gathers = True
        return commands

    def _append(self, event: Json, now: float) -> list[Command]:
        commands: list[Command] = []
        audio = read_audio(event.get("audio"))
        if self._wishes is None:
            if self._was_early:
                return []
            self._was_early = True  # said once: such a client goes on
            if self._was_updated:
                raise events.not_set_up()
            commands = self._begin_unasked()
        assert self._decoder is not None, "it comes with the wishes"
        try:
            pcm = decoded(self._decoder, audio)
        except ASRError as error:
            return [*commands, *self._break_off(error, now)]
        self._uncommitted_bytes += len(audio)
        commands += self._feed(pcm)
        if forces_end(event):
            commands += self._cut()
        return commands

    def _respond(self) -> list[Command]:
        if self._wishes is None or self._fed_bytes == self._responded_bytes:
            text = "There is no audio to transcribe: append some before response.create."
            raise ASRError(Code.BAD_REQUEST, text, param="type")
        commands = self._cut(asked=True)
        self._responded_bytes = self._fed_bytes
        return commands

    def _new_decoder(self, wishes: Wishes) -> AudioDecoder:
        return AudioDecoder(wishes.format, stereo=self._setup.stereo)

    def _feed(self, pcm: bytes) -> list[Command]:
        if not pcm or self._take is None:
            return []
        self._fed_bytes += len(pcm)
        return [Feed(self._take, pcm)]

    def _begin(self) -> list[Command]:
        self._take = self._next_take
        self._next_take += 1
        self._bases[self._take] = self._fed_ms
        return [Begin(self._take, self._options)]

    def _check_waiting(self) -> None:
        if self._next_take - self._begun_takes >= MAX_OWED:
            raise ASRError(Code.RATE_LIMITED, "Too many new beginnings wait for the recognizer. Send them more slowly.")

    def _owes(self, take: int) -> bool:
        return any(owing == take for owing, _ in self._owed)

    def _cut(self, *, asked: bool = False) -> list[Command]:
        if len(self._owed) >= MAX_OWED:
            raise ASRError(Code.RATE_LIMITED, "Too many forced ends wait for their transcripts. Wait for some of them.")
        assert self._take is not None, "audio is taken by a take"
        if not self._owed:
            self._answered = False
        self._owed.append((self._take, asked))
        if self._cuts:
            return [Cut(self._take)]
        # The engine cannot cut in mid-stream, or has not said yet: this take ends, and another goes on.
        return [Finish(self._take), *self._begin()]

    def _clear(self) -> list[Command]:
        if not self._uncommitted_bytes or self._take is None or self._wishes is None:
            return []
        self._check_waiting()
        self._uncommitted_bytes, self._responded_bytes = 0, self._fed_bytes
        if not self._wishes.is_file:
            self._decoder = self._new_decoder(self._wishes)
        ended: list[Command] = []
        for take in list(self._bases):
            if not self._owes(take):
                del self._bases[take]
                ended.append(Drop(take))
            elif take not in self._void:
                self._void.add(take)
                ended += [Finish(take)] if take == self._take else []
        if self._owed:  # what was told last belongs to the utterance that is still to come
            return [*ended, *self._begin()]
        told = self._tell() if self._results.holds else []
        self._results.forget()
        return [*told, *ended, *self._begin()]

    def _finish(self) -> list[Command]:
        """No more audio is taken; what there is becomes transcripts."""
        self._ending = True
        self._deadline = self._hold_until = None
        take, rest = self._take, b""
        decoder = self._decoder
        # A microphone may be silent; a file of no bytes is none.
        is_due = decoder is not None and (decoder.received_bytes or (self._is_file and self._is_done))
        if decoder is not None and is_due and self._broken is None:
            try:
                rest = decoder.finish()
            except ASRError as error:
                self._broken = error
        fed = self._feed(rest)
        self._take = None
        return [*fed, Finish(take)] if take is not None else []

    def _break_off(self, error: ASRError, now: float) -> list[Command]:
        """It cannot go on: what was heard before is told, then the error."""
        if self._take is None:
            return self.refused(error, now)
        self._broken = error
        return self._finish()

    # What the engine says -------------------------------------------------------------------------

    def _guess(self, event: Partial) -> list[Command]:
        if self._results.holds and not self._is_file:
            return []
        return [self._send(told) for told in self._results.guess(event)]

    def _final(self, event: Final, base_ms: int, now: float) -> list[Command]:
        if not self._results.says(event):
            return []
        commands = self._tell() if self._results.holds and not self._is_file else []
        commands += [self._send(told) for told in self._results.keep(event, base_ms)]
        if self._is_file and not self._results.is_full:
            self._hold_until = None if self._ending else now + HOLD_S
            return commands
        # Once the audio is over, the last one is marked as such: it is told when the engine is done.
        return commands if self._ending and not self._is_file else [*commands, *self._tell()]

    def _flushed(self) -> list[Command]:
        if not self._owed:
            return []
        _, asked = self._owed.popleft()
        told = self._tell() if self._results.holds or not self._answered else []
        self._answered = False
        if asked:
            told += [self._send(event) for event in self._results.answer()]
        return told

    def _gap(self, gap: Gap, base_ms: int) -> list[Command]:
        start_ms, end_ms = base_ms + gap.start_ms, base_ms + gap.end_ms
        text = f"The audio from {start_ms} ms to {end_ms} ms was lost with the recognizer: no words of it will come."
        self._covered_ms = max(self._covered_ms, end_ms)
        return [self._send(events.failed(self._new_id("item"), ASRError(Code.UNAVAILABLE, text)))]

    def _end(self, now: float) -> list[Command]:
        """Everything is out."""
        if self._broken is not None:
            return self.refused(self._broken, now)
        if not self._is_done:
            self._over = True
            return [*(self._tell() if self._results.holds else []), Hangup(self._close_code)]
        told = self._tell(is_last=True)
        if self._close_code == GOING_AWAY:
            self._over = True
            return [*told, Hangup(GOING_AWAY)]
        self._complete = True
        self._deadline = now + LINGER_S
        return told

    def _tell(self, *, is_last: bool = False) -> list[Command]:
        """The held finals, as one `completed`."""
        self._hold_until = None
        self._answered = True
        odd = self._decoder.warnings[self._decoder_warnings :] if self._decoder is not None else []
        self._decoder_warnings += len(odd)
        if self._is_default:  # no answer to an update told them
            odd, self._warnings = [*self._warnings, *odd], ()
        return [self._send(self._results.tell(self._fed_ms, odd, is_last=is_last))]

    @property
    def _ends_by(self) -> float:
        return self._session_ends_at + (END_GRACE_S if self._ending else 0.0)

    @property
    def _is_file(self) -> bool:
        return self._wishes is not None and self._wishes.is_file

    @property
    def _fed_ms(self) -> int:
        return self._fed_bytes // BYTES_PER_MS

    def _send(self, event: Json, *, topic: str = "", lossy: bool = False) -> Send:
        return Send(orjson.dumps({"event_id": self._new_id("event"), **event}).decode(), topic, lossy)
