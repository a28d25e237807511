"""The golden conversations against the cores alone: no loop, no socket, no clock."""

from __future__ import annotations

import json
from collections import deque

import pytest
from jsonschema import Draft202012Validator

from asr import wire
from asr.engine import BYTES_PER_MS, Features, Model, agree
from asr.errors import ASRError, Code
from asr.events import Final, FinalReason, Gap, GapCause, Partial
from asr.options import Options
from playbook import Playbook, SeqCheck, all_playbooks, compare, to_message
from realtime_cores import PATH, realtime_core
from server.conversation import Begin, Command, Conversation, Cut, Drop, Feed, Finish, Hangup, Seen, Send
from server.faces.end import EndConversation
from server.faces.native import NativeConversation
from server.faces.native_messages import unheard
from server.faces.native_setup import NativeLimits, NativeSetup
from server.outbox import Outbox
from word_engine import MODELS, WordEngine, WordScript

LIMITS = NativeLimits(max_frame_bytes=1024 * 1024)


class SyncDriver:
    """What `server.drive` does, without a loop: commands are carried out on the spot, take after take."""

    def __init__(self, core: Conversation, engine: WordEngine) -> None:
        self.core = core
        self.engine = engine
        self.answers: deque[str] = deque()
        self.now = 100.0
        self.hangup: Hangup | None = None
        self.outbox = Outbox(numbered=isinstance(core, NativeConversation))
        self._scripts: dict[int, WordScript] = {}
        self._fed: dict[int, int] = {}
        self._do(core.opened(self.now))

    def say(self, message: str | bytes) -> None:
        self._do(self.core.received(message, self.now))

    def tick(self, seconds: float) -> None:
        self.now += seconds
        if self.core.wake_at is not None and self.core.wake_at <= self.now:
            self._do(self.core.ticked(self.now))

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            assert self.hangup is None, f"{command} after a hangup"
            match command:
                case Send():
                    self.outbox.put(command)
                    self.answers.append(self.outbox.take(keep=True) or "")
                case Seen(seq):
                    self.outbox.seen(seq)
                case Hangup(code):
                    self.hangup = command
                    self.answers.append(f"close {code}")
                case Begin(take, options):
                    self._begin(take, options)
                case Feed(take, pcm):
                    self._feed(take, pcm)
                case Cut(take):
                    self._hear(take, self._scripts[take].cut())
                case Finish(take):
                    if take in self._scripts:
                        self._hear(take, self._scripts.pop(take).end())
                        self._do(self.core.finished(take, self.now))
                case Drop(take):
                    self._scripts.pop(take, None)

    def _begin(self, take: int, options: Options) -> None:
        try:
            agreement = agree(options, MODELS if self.engine.fault != "no-model" else (), self.engine.features)
        except ASRError as error:
            self._do(self.core.failed(take, error, self.now))
            return
        self._scripts[take] = WordScript()
        self._fed[take] = 0
        self._do(self.core.begun(take, agreement, self.now))
        if self.engine.fault == "refuses":
            error = ASRError(Code.OVERLOADED, "The recognizer is full.", retry_after_ms=2000)
            self._do(self.core.failed(take, error, self.now))

    def _feed(self, take: int, pcm: bytes) -> None:
        script = self._scripts.get(take)
        if script is None:
            return
        self._hear(take, script.feed(pcm))
        self._fed[take] += len(pcm)
        if self.engine.fault == "unavailable" and self._fed[take] >= self.engine._at_ms * BYTES_PER_MS:
            self._do(self.core.failed(take, ASRError(Code.UNAVAILABLE, "The recognizer went away."), self.now))

    def _hear(self, take: int, events: list) -> None:  # type: ignore[type-arg]
        for event in events:
            self._do(self.core.heard(take, event, self.now))


def native(engine: WordEngine, limits: NativeLimits = LIMITS) -> NativeConversation:
    return NativeConversation(NativeSetup("riva-gateway test", limits), "session-1", "token-1")


def core_for(book: Playbook, engine: WordEngine) -> Conversation:
    if book.path == "/ws":
        return EndConversation(start_timeout_ms=10_000, max_session_ms=3_600_000, unix_time=lambda: 1_700_000_000.0)
    return realtime_core(book.path, engine) if book.path.startswith(PATH) else native(engine)


@pytest.mark.parametrize("book", [b for b in all_playbooks() if not b.reconnects], ids=lambda book: book.name)
def test_golden_conversation_with_the_core(book: Playbook) -> None:
    engine = WordEngine(book.fault)
    driver = SyncDriver(core_for(book, engine), engine)
    check = SeqCheck()
    names: dict[str, str] = {}
    schema = Draft202012Validator(wire.schema())
    for number, (who, line) in enumerate(book.lines, 1):
        if who == ">":
            driver.say(to_message(line))
            continue
        while True:
            assert driver.answers, f"{book.name}, line {number}: nothing was answered, expected {line}"
            got = driver.answers.popleft()
            if got.startswith("{"):
                message = check(got)
                if book.path == "/v1/stream":
                    schema.validate(message)
                if message.get("type") == "ack":
                    continue
            break
        problem = compare(line, got, names)
        assert not problem, f"{book.name}, line {number}: {problem}\n{line}\n{got}"
    left = [answer for answer in driver.answers if '"type":"ack"' not in answer]
    assert not left, f"{book.name}: unexpected at the end: {left}"


def test_a_first_message_that_never_comes_ends_in_a_clear_error() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine), engine)
    driver.tick(9.9)
    assert not driver.answers
    driver.tick(0.2)
    assert json.loads(driver.answers[0])["code"] == "idle_timeout"
    assert driver.answers[1] == "close 4408"


def test_acks_come_every_second_while_audio_flows_and_every_five_otherwise() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine), engine)
    driver.say('{"type":"start"}')
    for _ in range(30):
        driver.say(bytes(3200))
        driver.tick(0.1)
    acks = [json.loads(a) for a in driver.answers if '"type":"ack"' in a]
    assert 2 <= len(acks) <= 3
    assert acks[-1]["received_ms"] == acks[-1]["received_bytes"] // 32
    driver.answers.clear()
    for _ in range(100):
        driver.tick(0.1)
    assert 1 <= len([a for a in driver.answers if '"type":"ack"' in a]) <= 3


def test_safe_bytes_never_pass_what_finals_cover() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine), engine)
    driver.say('{"type":"start"}')
    covered_ms, safe = 0, 0
    for _ in range(100):
        driver.say(bytes(640 * 5))
        driver.tick(0.1)
        driver.say('{"type":"keepalive"}')
        while driver.answers:
            message = json.loads(driver.answers.popleft())
            if message["type"] == "final":
                covered_ms = message["end_ms"]
            if message["type"] == "ack":
                assert safe <= message["safe_bytes"] <= max(covered_ms * 32, message["safe_bytes"] * 0)
                safe = message["safe_bytes"]
    assert safe >= 9_000 * 32


def test_a_session_over_its_limit_gets_its_finals_before_the_error() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine, NativeLimits(max_session_ms=60_000)), engine)
    driver.say('{"type":"start"}')
    driver.say(bytes(32 * 600))
    driver.tick(61)
    kinds = [json.loads(a)["type"] if a[0] == "{" else a for a in driver.answers if '"type":"ack"' not in a]
    assert kinds[-4:] == ["final", "summary", "error", "close 4413"]


def test_draining_flushes_the_last_final_and_says_why() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine), engine)
    driver.say('{"type":"start"}')
    driver.say(bytes(32 * 600))
    driver.answers.clear()
    driver._do(driver.core.draining(5000, driver.now))
    kinds = [json.loads(a)["type"] if a[0] == "{" else a for a in driver.answers if '"type":"ack"' not in a]
    assert kinds == ["status", "final", "summary", "close 1001"]


def test_too_many_bad_messages_end_the_session() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine), engine)
    driver.say('{"type":"start"}')
    for _ in range(101):
        driver.say("not json")
    assert driver.answers[-1] == "close 4400"


def test_the_end_dialect_does_not_wait_for_ever() -> None:
    engine = WordEngine()
    core = EndConversation(start_timeout_ms=10_000, max_session_ms=3_600_000, unix_time=lambda: 0.0)
    driver = SyncDriver(core, engine)
    driver.tick(10.1)
    assert json.loads(driver.answers[0])["error"]["code"] == "idle_timeout"
    assert driver.answers[1] == "close 4408"


def test_the_end_dialect_has_a_longest_connection_and_flushes_at_its_end() -> None:
    engine = WordEngine()
    core = EndConversation(start_timeout_ms=10_000, max_session_ms=60_000, unix_time=lambda: 0.0)
    driver = SyncDriver(core, engine)
    driver.say(bytes(32 * 200))
    driver.tick(61)
    assert [json.loads(a).get("is_final") for a in list(driver.answers)[:2]] == [False, True]
    assert json.loads(driver.answers[2])["error"]["code"] == "too_large"
    assert driver.answers[3] == "close 4413"


def test_a_session_that_is_over_its_limit_asks_to_be_woken_no_more_than_the_heartbeat() -> None:
    engine = WordEngine()
    core = native(engine, NativeLimits(max_session_ms=60_000))
    core.opened(0.0)
    core.received('{"type":"start"}', 0.0)
    core.begun(0, agree(Options(), MODELS, engine.features), 0.0)
    core.ticked(61.0)
    core.ticked(61.0)  # the heartbeat was due too
    assert core.wake_at is not None
    assert core.wake_at > 61.0


def test_a_drain_before_ready_is_an_answer_at_once() -> None:
    core = native(WordEngine())
    core.opened(0.0)
    core.received('{"type":"start"}', 0.0)
    commands = core.draining(5000, 1.0)
    assert isinstance(commands[-1], Hangup)
    assert commands[-1].code == 4502


def test_a_refused_mark_is_answered_once() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine), engine)
    driver.say('{"type":"start"}')
    driver.say(bytes(32 * 100))
    for number in range(1001):
        driver.say(json.dumps({"type": "mark", "id": str(number)}))
    assert json.loads(driver.answers[-1])["code"] == "rate_limited"
    driver.say('{"type":"stop"}')
    marked = [json.loads(a)["id"] for a in driver.answers if '"type":"marked"' in a]
    assert marked == [str(number) for number in range(1000)]


def test_cancel_leaves_no_request_without_its_answer() -> None:
    engine = WordEngine("no-cut")
    core = native(engine)
    core.opened(0.0)
    core.received('{"type":"start"}', 0.0)
    core.begun(0, agree(Options(), MODELS, engine.features), 0.0)
    core.received(bytes(3200), 0.0)
    core.received('{"type":"finalize","id":"f"}', 0.0)
    core.received('{"type":"mark","id":"m"}', 0.0)
    said = [json.loads(c.text) for c in core.received('{"type":"cancel"}', 0.0) if isinstance(c, Send)]
    assert [m["type"] for m in said] == ["marked", "finalized", "ack", "summary"]


def test_what_the_agreed_model_can_do_counts_not_what_the_engine_said_before() -> None:
    cutting = Model("cuts", ("en-US",), end_utterance=True)
    agreement = agree(Options(), (cutting,), Features(end_utterance=False))
    core = native(WordEngine("no-cut"))
    core.opened(0.0)
    core.received('{"type":"start"}', 0.0)
    ready = core.begun(0, agreement, 0.0)[0]
    assert isinstance(ready, Send)
    assert json.loads(ready.text)["features"]["end_utterance"] is True
    assert core.received('{"type":"finalize","id":"f"}', 0.0) == [Cut(0)]


def test_a_gap_settles_audio_once_all_before_it_is_settled() -> None:
    core = native(WordEngine())
    core.opened(0.0)
    core.received('{"type":"start"}', 0.0)
    core.begun(0, agree(Options(), MODELS, WordEngine().features), 0.0)

    def safe_ms() -> int:
        ack = core.received('{"type":"keepalive"}', 0.0)[0]
        assert isinstance(ack, Send)
        return int(json.loads(ack.text)["safe_bytes"]) // 32

    for _ in range(20):
        core.received(bytes(3200), 0.0)
        assert safe_ms() == 0  # each ack is a point that can become safe
    core.heard(0, Final(0, 1, "a", 0, 1000), 0.0)
    core.heard(0, Partial(1, 1, "b", 1000, 1200), 0.0)
    assert safe_ms() == 1000
    core.heard(0, Gap(1300, 1600, GapCause.UPSTREAM_LOST), 0.0)
    assert safe_ms() == 1000, "no final covers the audio before the gap yet"
    core.heard(0, Final(1, 2, "b", 1000, 1300, reason=FinalReason.FAILOVER), 0.0)
    assert safe_ms() == 1600
    core.heard(0, Gap(1700, 1900, GapCause.UPSTREAM_LOST), 0.0)  # after a silence
    core.heard(0, Partial(2, 1, "c", 1900, 2000), 0.0)
    assert safe_ms() == 1900


def test_an_ack_from_the_client_lets_go_of_messages() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine), engine)
    driver.say('{"type":"start"}')
    driver.say(bytes(32 * 200))
    assert driver.outbox.has_after(0)
    driver.say('{"type":"ack","seq":1}')
    assert not driver.outbox.has_after(0)
    assert driver.outbox.has_after(1)
    driver.say('{"type":"ack"}')
    assert json.loads(driver.answers[-1])["param"] == "seq"


def test_there_is_nothing_to_come_back_to_before_ready_and_in_a_drain() -> None:
    engine = WordEngine()
    core = native(engine, NativeLimits(resume_window_ms=5000))
    core.opened(0.0)
    core.received('{"type":"start","resume_window_ms":7000}', 0.0)
    assert core.window_ms == 0
    core.begun(0, agree(Options(), MODELS, engine.features), 0.0)
    assert core.window_ms == 5000
    core.draining(1000, 0.0)
    assert core.window_ms == 0


def test_words_about_the_connection_repeat_a_number_and_are_in_the_schema() -> None:
    core = native(WordEngine())
    schema = Draft202012Validator(wire.schema())
    for text, seq in (
        (core.parted(ASRError(Code.SUPERSEDED, "x"), 7), 7),
        (core.resumed(7, "token-2"), 7),
        (unheard(ASRError(Code.EXPIRED, "x"), 0)[0], 1),
    ):
        message = json.loads(text)
        schema.validate(message)
        assert message["seq"] == seq


def test_partials_that_were_not_asked_for_cannot_be_turned_on() -> None:
    engine = WordEngine()
    driver = SyncDriver(native(engine), engine)
    driver.say('{"type":"start","interim":false}')
    driver.say('{"type":"configure","interim":true}')
    configured = json.loads(driver.answers[-1])
    assert (configured["applied"], configured["ignored"]) == ({}, ["interim"])


def test_the_end_dialect_marks_its_partials_as_ones_that_may_be_left_out() -> None:
    core = EndConversation(start_timeout_ms=10_000, max_session_ms=60_000, unix_time=lambda: 0.0)
    partial, final = (core.heard(0, event, 0.0)[0] for event in (Partial(0, 1, "a", 0, 1), Final(0, 2, "a", 0, 1)))
    assert isinstance(partial, Send)
    assert isinstance(final, Send)
    assert (partial.lossy, final.lossy) == (True, False)
    assert partial.topic == final.topic != ""
