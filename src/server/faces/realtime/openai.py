"""OpenAI's realtime transcription, today's and the beta's, as a pure core.

The client's audio is one stream for the recognizer, whose utterances become *items*. With `turn_detection` null only
the client ends an item, by `commit`, and the pauses that the recognizer finds inside it are joined. Otherwise the
recognizer's own ends of utterances commit. Deltas come while the audio does, also before the commit; `completed`
decides.

Older clients ask with `response.create`: it commits, and `response.output_text.delta` and `response.completed` follow
the item's own events. Nothing else of a conversation is served. See `openai_session` for the settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from asr.audio import AudioDecoder
from asr.engine import BYTES_PER_MS, Agreement
from asr.errors import ASRError, Code
from asr.events import Event
from server.conversation import Begin, Command, Cut, Drop, Feed, Finish, Hangup, Send
from server.faces.realtime import openai_events as events
from server.faces.realtime.audio import MAX_PCM_BYTES, decoded, read_audio
from server.faces.realtime.dialect import Dialect
from server.faces.realtime.items import NewId
from server.faces.realtime.nim_events import close_code
from server.faces.realtime.openai_events import (
    COMMIT_EMPTY,
    BadEvent,
    Json,
    read,
    unknown,
)
from server.faces.realtime.openai_items import Item, Ledger, Take
from server.faces.realtime.openai_session import OpenAISession, updated
from server.faces.realtime.reading import RESPOND, check_depth, forces_end, ref_of
from server.faces.realtime.setup import RealtimeSetup
from server.refusals import GOING_AWAY, NORMAL

MAX_OWED = 256  # answers that the recognizer owes, and takes that it has not begun
MAX_WARNED = 256  # warnings that are remembered so as not to be told again
MAX_UPDATE_CHARS = 256 * 1024
MAX_BAD_MESSAGES = 100  # one after another
END_GRACE_S = 60.0  # for the last results of a session that has lasted as long as it may

UPDATES = ("session.update", "transcription_session.update")

_FIXABLE = (Code.BAD_REQUEST, Code.BAD_AUDIO, Code.UNSUPPORTED, Code.NOT_FOUND)


class OpenAIRealtime:
    """One socket of OpenAI's realtime transcription.

    Args:
        dialect: today's or the beta's.
        setup: what every conversation of a server has in common.
        session_config: the settings given before the connection, as an update spells them.
        new_id: makes an id with the prefix that it is given.
    """

    def __init__(
        self, dialect: Dialect, setup: RealtimeSetup, session_config: Mapping[str, Any], new_id: NewId
    ) -> None:
        self._beta = dialect is Dialect.OPENAI_BETA
        self._setup = setup
        self._new_id = new_id
        self._given = dict(session_config)
        self._session_id = new_id("sess")
        self._session = OpenAISession()
        self._options = self._session.options()
        self._warned: set[str] = set()
        self._bad_messages = 0
        # the audio, in ms since the session began
        self._decoder = AudioDecoder(self._session.format)
        self._items = Ledger(beta=self._beta, new_id=new_id)
        self._takes: dict[int, Take] = {}
        self._take: Take | None = None  # the one that takes audio
        self._next_take = 0
        self._begun_takes = 0
        self._lost: ASRError | None = None  # why audio since the last commit was not heard
        self._deaf = False  # no take can begin until the client does something about that
        # the end
        self._deadline: float | None = None
        self._session_ends_at = 0.0
        self._ending = False
        self._ended: ASRError | None = None
        self._close_code = NORMAL
        self._over = False

    # Doors ----------------------------------------------------------------------------------------

    def opened(self, now: float) -> list[Command]:
        """See `server.conversation.Conversation`, as for the other doors."""
        self._deadline = now + self._setup.start_timeout_ms / 1000
        self._session_ends_at = now + self._setup.max_session_ms / 1000
        try:
            warnings = self._change(self._given, flat=self._beta)
        except ASRError as error:
            error_told = [self._send(events.error_event(error))]
            return [self._told_session("created", flat=self._beta), *error_told]
        return [self._told_session("created", warnings, flat=self._beta)]

    def received(self, message: str | bytes, now: float) -> list[Command]:
        """One JSON event."""
        self._deadline = None
        if self._over or self._ending:
            return []
        ref: str | None = None
        try:
            event = read(message)
            ref = ref_of(event)
            if event["type"] in UPDATES and len(message) > MAX_UPDATE_CHARS:
                raise ASRError(Code.TOO_LARGE, f"An update is {MAX_UPDATE_CHARS // 1024} KiB at most.", param="session")
            commands = self._act(event, ref)
        except ASRError as error:
            self._bad_messages += 1
            if self._bad_messages > MAX_BAD_MESSAGES:
                text = f"More than {MAX_BAD_MESSAGES} messages in a row could not be used; the last: {error.message}"
                return self.refused(ASRError(Code.BAD_REQUEST, text), now)
            return [self._send(events.error_event(error, ref))]
        self._bad_messages = 0
        return commands

    def begun(self, take: int, agreement: Agreement, now: float) -> list[Command]:
        """The engine agreed; what it will not do is told, where that is news."""
        self._begun_takes = max(self._begun_takes, take + 1)
        began = self._takes.get(take)
        if began is None:
            return []
        began.language = agreement.options.language
        began.cuts = agreement.features.end_utterance
        news = self._news(agreement.warnings)
        return [self._told_session("updated", news, flat=self._beta)] if news else []

    def heard(self, take: int, event: Event, now: float) -> list[Command]:
        """What the engine says becomes turns, deltas and transcripts."""
        heard = self._takes.get(take)
        return [] if heard is None else self._tell(self._items.heard(heard, event))

    def finished(self, take: int, now: float) -> list[Command]:
        """A take's engine is done: what it owed is complete."""
        ended = self._takes.get(take)
        if ended is None:
            return []
        if not ended.is_finished:
            text = "The recognizer ended the stream before the audio was over."
            return self.failed(take, ASRError(Code.UNAVAILABLE, text), now)
        commands = self._tell(self._items.finished(ended))
        del self._takes[take]
        return [*commands, *self._end_if_done()]

    def failed(self, take: int, error: ASRError, now: float) -> list[Command]:
        """A take broke: its items are told. What the client can put right leaves the socket open."""
        broken = self._takes.get(take)
        if broken is None:
            return []
        self._begun_takes = max(self._begun_takes, take + 1)
        if self._ending or error.code not in _FIXABLE:
            return self.refused(error, now)
        commands: list[Command] = [self._send(events.error_event(error))]
        if broken.session.turns is None:
            broken.item = None  # the client has not committed it yet, and is told when it does
        commands += self._tell(self._items.lose([broken], error))
        del self._takes[take]
        if self._take is broken:
            self._take, self._lost, self._deaf = None, error, True
        return commands

    def refused(self, error: ASRError, now: float) -> list[Command]:
        """A fatal error: what is owed is told as failed, then the error, then the close code."""
        return [] if self._over else self._break_off(error)

    def quiet(self, for_ms: int, limit_ms: int, now: float) -> list[Command]:
        """This dialect has no warnings of that kind."""
        return []

    def draining(self, deadline_ms: int, now: float) -> list[Command]:
        """The server goes down: what was said so far still gets its transcript."""
        self._close_code = GOING_AWAY
        return [] if self._over or self._ending else self._wind_up()

    def cut_short(self, error: ASRError, now: float) -> list[Command]:
        """The client may go on no longer."""
        if self._over or self._ending:
            return []
        self._ended = error
        return self._wind_up()

    def ticked(self, now: float) -> list[Command]:
        """The first message never came, or the session has lasted long enough."""
        if self._over:
            return []
        if self._ending:
            if now < self._session_ends_at + END_GRACE_S:
                return []
            return self.refused(ASRError(Code.TIMEOUT, "The recognizer did not come to its end in time."), now)
        if self._deadline is not None and now >= self._deadline:
            text = f"No event came within {self._setup.start_timeout_ms / 1000:g} s."
            return self.refused(ASRError(Code.IDLE_TIMEOUT, text), now)
        if now >= self._session_ends_at:
            minutes = self._setup.max_session_ms / 60_000
            self._ended = ASRError(Code.TOO_LARGE, f"The session reached its limit of {minutes:g} minutes. Start anew.")
            return self._wind_up()
        return []

    @property
    def wake_at(self) -> float | None:
        """The deadline of the first message, then that of the session."""
        if self._over:
            return None
        if self._ending:
            return self._session_ends_at + END_GRACE_S
        return self._session_ends_at if self._deadline is None else min(self._deadline, self._session_ends_at)

    # What a client may ask ------------------------------------------------------------------------

    def _act(self, event: Json, ref: str | None) -> list[Command]:
        match event["type"]:
            case "input_audio_buffer.append":
                return self._append(event, ref)
            case "input_audio_buffer.commit":
                return self._commit()
            case "input_audio_buffer.clear":
                return self._clear()
            case kind if kind in UPDATES:
                flat = self._beta or kind != "session.update"
                if "session" not in event:
                    raise BadEvent("The update has no session.", "missing_required_parameter", "session")
                check_depth(event["session"])
                return [self._told_session("updated", self._change(event["session"], flat=flat), flat=flat)]
            case kind if kind == RESPOND:
                return self._respond()
            case other:
                raise unknown(other)

    def _change(self, wanted: Any, *, flat: bool) -> list[str]:
        session, warnings = updated(self._session, wanted, flat=flat)
        reformatted = session.format != self._session.format
        if reformatted and self._items.is_buffered:
            text = "The audio format cannot change while the buffer holds audio. Commit or clear it first."
            raise BadEvent(text, "input_audio_buffer_not_empty", "session.audio.input.format")
        options, notes = self._setup.settle(session.options())
        self._remember(notes)
        if reformatted:
            self._decoder = AudioDecoder(session.format)
        self._deaf = False
        if session != self._session or options != self._options:
            self._session, self._options = session, options
        return [*warnings, *notes]

    def _append(self, event: Json, ref: str | None) -> list[Command]:
        audio, forced = read_audio(event.get("audio")), forces_end(event)
        duration_ms = len(audio) / self._session.bytes_per_ms
        if duration_ms * BYTES_PER_MS > MAX_PCM_BYTES:
            text = f"An append holds {MAX_PCM_BYTES / BYTES_PER_MS / 60_000:.0f} minutes of sound at most."
            raise ASRError(Code.TOO_LARGE, f"{text} Send smaller chunks.", param="audio")
        if forced:
            self._check_owed()
        if self._take is None and self._next_take - self._begun_takes >= MAX_OWED:
            text = "Too many new beginnings wait for the recognizer. Send them more slowly."
            raise ASRError(Code.RATE_LIMITED, text)
        commands: list[Command] = []
        if audio:
            commands = [] if self._deaf else self._listen()
            try:
                pcm = decoded(self._decoder, audio)
            except ASRError as error:
                return [*commands, self._send(events.error_event(error, ref))]
            self._items.written_ms += duration_ms
            if self._take is not None and pcm:
                commands.append(Feed(self._take.number, pcm))
        if forced and self._take is not None:
            commands += self._cut(self._take, None)
        return commands

    def _listen(self) -> list[Command]:
        """See to it that a take hears what comes, with the settings of now; inside an item they do not change."""
        take, commands = self._take, list[Command]()
        if take is not None and take.session is not self._session and take.item is None:
            commands = self._finish(take)
            take = None
        if take is None:
            commands += self._begin()
        elif take.session.turns is None and take.item is None:
            take.item = self._items.new(self._options.language)
        return commands

    def _begin(self, item: Item | None = None) -> list[Command]:
        take = Take(self._next_take, self._items.now_ms, self._session, self._options.language, item=item)
        if item is None and take.session.turns is None:
            take.item = self._items.new(self._options.language)
            take.item.lost = self._lost
        self._next_take += 1
        self._takes[take.number] = self._take = take
        return [Begin(take.number, self._options)]

    def _commit(self, *, asked: bool = False) -> list[Command]:
        if not self._items.is_buffered:
            raise BadEvent("The buffer holds no audio since the last commit. Append audio first.", COMMIT_EMPTY)
        self._check_owed()
        take = self._take
        item, commands = self._commit_open()
        item.asked = asked
        if take is None:
            last = next((one for one in reversed(self._takes.values()) if not one.is_void), None)
            if last is not None:  # all its audio was given to takes that have ended
                last.owed.append(item)
                return commands
            self._decoder = AudioDecoder(self._session.format)  # or nobody hears it: its take broke
            return [*commands, *self._tell(self._items.complete(item, ""))]
        return [*commands, *self._cut(take, item)]

    def _commit_open(self) -> tuple[Item, list[Command]]:
        """All audio since the last commit becomes one item, also what earlier takes have yet to say of it."""
        takes = [take for take in self._takes.values() if not take.is_void]
        begun = [take.item for take in takes if take.item is not None and not take.item.is_committed]
        item = begun[0] if begun else self._items.new(self._options.language)
        for take in takes:
            if take.item is not None and not take.item.is_committed:
                take.item = None
            if take is not self._take:
                take.rest = take.rest or item
        item.lost = item.lost or self._lost
        self._lost, self._deaf = None, False
        return item, self._tell(self._items.commit(item, self._items.now_ms))

    def _cut(self, take: Take, item: Item | None) -> list[Command]:
        """End the utterance that `take` hears; `item` is complete with it, or goes on where it is None."""
        if take.cuts:
            take.owed.append(item)
            return [*self._rest_of(take), Cut(take.number)]
        # The engine cannot cut in mid-stream, or has not said yet: this take ends, and another goes on.
        commands = self._finish(take, item)
        if take.item is not None and take.session.turns is None:
            commands += self._begin(take.item)
        return commands

    def _finish(self, take: Take, item: Item | None = None) -> list[Command]:
        take.owed.append(item)
        take.is_finished = True
        if self._take is take:
            self._take = None
        return [*self._rest_of(take), Finish(take.number)]

    def _rest_of(self, take: Take) -> list[Command]:
        """What the decoder holds back belongs to what was said before; the next audio starts anew."""
        decoder, self._decoder = self._decoder, AudioDecoder(self._session.format)
        try:
            rest = decoder.finish() if decoder.received_bytes else b""
        except ASRError:  # less than a sample
            rest = b""
        return [Feed(take.number, rest)] if rest else []

    def _check_owed(self) -> None:
        if sum(len(take.owed) for take in self._takes.values()) >= MAX_OWED:
            raise ASRError(Code.RATE_LIMITED, "Too many commits wait for their transcripts. Wait for some of them.")

    def _clear(self) -> list[Command]:
        commands: list[Command] = []
        for take in list(self._takes.values()):
            if take.item is not None and not take.item.is_committed:
                take.item = None
            if take.current is None:
                del self._takes[take.number]
                commands.append(Drop(take.number))
                continue
            take.is_void = True  # transcripts of what was committed before are still to come
            if not take.is_finished:
                take.is_finished = True
                commands.append(Finish(take.number))
        self._take, self._lost, self._deaf = None, None, False
        self._decoder = AudioDecoder(self._session.format)
        self._items.committed_ms = self._items.written_ms
        return [*commands, self._send(events.cleared())]

    def _respond(self) -> list[Command]:
        if self._items.is_buffered:
            return self._commit(asked=True)
        waiting = [item for take in self._takes.values() for item in take.owed if item is not None and not item.asked]
        if not waiting:
            raise BadEvent("There is no audio to transcribe: append some before response.create.", COMMIT_EMPTY)
        waiting[-1].asked = True
        return []

    # Ends -----------------------------------------------------------------------------------------

    def _break_off(self, error: ASRError) -> list[Command]:
        commands = self._tell(self._items.lose(self._takes.values(), error))
        self._over = True
        if self._close_code == GOING_AWAY and error.code in (Code.UNAVAILABLE, Code.TIMEOUT):
            return [*commands, Hangup(GOING_AWAY)]  # a drain whose recognizer is not done in time
        return [*commands, *self._told_end(error)]

    def _wind_up(self) -> list[Command]:
        """No more audio is taken; what there is still gets its transcript, and then the connection ends."""
        self._ending = True
        commands: list[Command] = []
        take = self._take
        if take is not None:
            item = None
            if take.session.turns is None and take.item is not None:
                item, commands = self._commit_open()
            commands += self._finish(take, item)
        return [*commands, *self._end_if_done()]

    def _end_if_done(self) -> list[Command]:
        if not self._ending or self._over or self._takes:
            return []
        self._over = True
        return [Hangup(self._close_code)] if self._ended is None else self._told_end(self._ended)

    def _told_end(self, error: ASRError) -> list[Command]:
        return [self._send(events.error_event(error)), Hangup(close_code(error.code), error.code.value)]

    def _news(self, warnings: Iterable[str]) -> list[str]:
        news = [warning for warning in warnings if warning not in self._warned]
        self._remember(news)
        return news

    def _remember(self, warnings: Iterable[str]) -> None:
        self._warned.update(warnings)
        if len(self._warned) > MAX_WARNED:
            self._warned.clear()

    def _told_session(self, kind: str, warnings: Sequence[str] = (), *, flat: bool) -> Send:
        session = self._session.to_json(self._session_id, flat=flat)
        return self._send(events.session_event(kind, session, warnings, flat=flat))

    def _tell(self, told: Iterable[Json]) -> list[Command]:
        return [self._send(event) for event in told]

    def _send(self, event: Json) -> Send:
        return Send(orjson.dumps({"event_id": self._new_id("event"), **event}).decode())
