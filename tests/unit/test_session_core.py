"""A session's core against a model of the gateway: whatever connections and gateways are lost, the words stay."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.engine import BYTES_PER_MS
from asr.errors import ASRError, Code
from asr.events import Event, Final, Flushed, Gap, GapCause, Partial, State, Status
from asr.options import Options
from asr.session.core import LinkError, SessionCore, encode
from asr.session.limits import Limits
from asr.session.start import start_message
from model_gateway import Connection, ModelGateway, sound

GONE = ASRError(Code.UNAVAILABLE, "The connection broke.")
TALK = sound((0, 15), (1, 60), (2, 30), (0, 90), (3, 25), (0, 20), (4, 70), (0, 41), (5, 50), (0, 5), (6, 120), (0, 70))

Step = tuple[str, int]


class Pair:
    """A core and the gateway, with a wire that loses what is on it when it is cut."""

    def __init__(self, limits: Limits | None = None, gateway: ModelGateway | None = None) -> None:
        self.core = SessionCore(start_message(Options(), "live"), limits or Limits())
        self.gateway = gateway or ModelGateway()
        self.up: deque[str | bytes] = deque()
        self.events: list[Event] = []
        self.now = 0.0
        self.pauses: list[float] = []
        self.dial()
        self.settle()

    def dial(self) -> None:
        self.up.clear()
        self.far = Connection(self.gateway)
        self.up.append(encode(self.core.hello()))

    def send(self, n: int) -> None:
        """The client writes at most `n` frames; they arrive in time, or never."""
        for _ in range(n):
            item = self.core.next_out()
            if item is None:
                return
            self.up.append(item if isinstance(item, bytes) else encode(item))

    def carry(self, n: int) -> None:
        for _ in range(min(n, len(self.up))):
            self.far.receive(self.up.popleft())

    def hear(self, n: int) -> None:
        """The client reads at most `n` messages, then how the connection ended."""
        for _ in range(n):
            if self.core.done:
                return
            if not self.far.said:
                if self.far.close_code is not None:
                    self.lost()
                return
            try:
                self.events += self.core.received(json.loads(self.far.said.popleft()), self.now)
            except LinkError as failed:
                self.lost(failed.error)
                return

    def lost(self, error: ASRError = GONE) -> None:
        if self.far.session is not None and self.far.session.connection is self.far:
            self.far.session.connection = None
        pause_s, events = self.core.lost(error, self.now, lambda: 0.5)
        self.now += pause_s
        self.pauses.append(pause_s)
        self.events += events
        self.dial()

    def give(self, audio: bytes) -> None:
        while audio:
            room = self.core.room_bytes
            self.core.feed(audio[:room])
            audio = audio[room:]
            if audio:
                self.settle()

    def settle(self) -> None:
        """Until nothing moves any more."""
        for _ in range(10_000):
            before = (len(self.up), len(self.far.said), len(self.events), self.far)
            self.send(50)
            self.carry(50)
            self.hear(50)
            if self.core.done or (before == (len(self.up), len(self.far.said), len(self.events), self.far)):
                return
        raise AssertionError("it never rests")

    def finish(self) -> list[Event]:
        self.core.stop()
        self.settle()
        assert self.core.done
        return self.events

    def step(self, step: Step) -> None:
        name, n = step
        match name:
            case "send":
                self.send(n)
            case "carry":
                self.carry(n)
            case "hear":
                self.hear(n)
            case "cut":
                self.lost()
            case "restart":
                self.gateway.restart()
                self.lost()


def finals(events: Sequence[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def said(events: Sequence[Event]) -> list[tuple[object, ...]]:
    return [(f.utterance, f.text, f.start_ms, f.end_ms, f.words, f.reason) for f in finals(events)]


def check_numbers(events: Sequence[Event]) -> None:
    seen = (0, 0)
    for event in events:
        if isinstance(event, Partial | Final):
            assert (event.utterance, event.revision) > seen, "revisions grow, utterances are numbered on"
            seen = (event.utterance, event.revision)


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "carry", "hear", "send", "carry", "hear", "cut", "restart"]), st.integers(1, 6)),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(1, 4000), STEPS, st.booleans()), min_size=1, max_size=12),
    frame=st.sampled_from([70, 1000, 5000]),
)
def test_whatever_is_lost_the_words_are_the_same(pieces: list[tuple[int, list[Step], bool]], frame: int) -> None:
    plain, torn = Pair(), Pair(Limits(window_ms=10**9), ModelGateway(max_frame_bytes=frame))
    rest = TALK
    asked = 0
    for n_bytes, steps, finalize in pieces:
        for pair in (plain, torn):
            pair.give(rest[:n_bytes])
            if finalize:
                pair.core.finalize()
        asked += finalize
        rest = rest[n_bytes:]
        for step in steps:
            torn.step(step)
    for pair in (plain, torn):
        pair.give(rest)
        pair.finish()
    assert said(torn.events) == said(plain.events)
    assert not [event for event in torn.events if isinstance(event, Gap)]
    assert len([event for event in torn.events if isinstance(event, Flushed)]) == asked
    check_numbers(torn.events)
    states = [event.state for event in torn.events if isinstance(event, Status)]
    assert states == [State.FAILING_OVER, State.RECOVERED] * torn.core.resumes


def test_a_gateway_that_ends_in_order_loses_no_word() -> None:
    pair = Pair()
    quiet_at = len(sound((0, 15), (1, 60), (2, 30), (0, 60)))
    pair.give(TALK[:quiet_at])
    pair.settle()
    pair.core.feed(TALK[quiet_at : quiet_at + 999])
    pair.send(1)  # on its way when the gateway ends
    pair.gateway.drain()
    pair.far.close_code = 1001
    pair.give(TALK[quiet_at + 999 :])
    plain = Pair()
    plain.give(TALK)
    assert said(pair.finish()) == said(plain.finish())
    assert pair.gateway.begun == 2
    assert pair.core.summary is not None
    assert pair.core.summary["audio_ms"] == len(TALK) // BYTES_PER_MS
    assert (pair.core.summary["utterances"], pair.core.summary["resumes"]) == (3, 1)


def test_audio_that_is_needed_again_and_not_kept_is_a_gap() -> None:
    pair = Pair(Limits(ring_bytes=200 * BYTES_PER_MS))
    pair.give(sound((1, 100), (0, 50), (2, 500)))  # the second utterance is longer than the ring
    pair.settle()
    pair.step(("restart", 1))
    pair.settle()
    (gap,) = [event for event in pair.events if isinstance(event, Gap)]
    assert (gap.start_ms, gap.cause) == (100, GapCause.BUFFER_OVERRUN)
    assert gap.end_ms >= 650 - 200
    pair.give(sound((0, 50)))
    pair.finish()
    assert [(f.text, f.start_ms) for f in finals(pair.events)] == [("w1", 0), ("w2", gap.end_ms)]
    assert pair.core.summary is not None
    assert pair.core.summary["gaps_ms"] == gap.end_ms - gap.start_ms


def test_a_full_ring_is_full_until_the_audio_has_arrived() -> None:
    pair = Pair(Limits(ring_bytes=10_000))
    assert pair.core.room_bytes == 10_000
    pair.core.feed(bytes(10_000))
    assert pair.core.room_bytes == 0
    pair.send(50)
    assert pair.core.room_bytes == 0, "sent is not arrived"
    pair.settle()
    assert pair.core.room_bytes == 10_000
    kinds = [message["type"] for message in pair.far.heard]
    assert "keepalive" in kinds, "how far the gateway is was asked for"


def test_messages_that_were_seen_are_acknowledged_and_forgotten() -> None:
    pair = Pair()
    for _ in range(50):
        pair.give(bytes(3_000))
        pair.settle()
    acks = [message["seq"] for message in pair.far.heard if message["type"] == "ack"]
    assert acks == [20, 40]


def test_a_resume_proves_at_once_that_its_token_has_come() -> None:
    pair = Pair()
    pair.lost()
    pair.settle()
    assert [message["type"] for message in pair.far.heard] == ["resume", "ack"]
    (session,) = pair.gateway.sessions.values()
    assert len(session.tokens) == 1


def test_a_number_twice_is_dropped_and_a_number_left_out_is_a_failure() -> None:
    pair = Pair()
    started = {"type": "speech_started", "audio_ms": 5, "source": "vad"}
    assert len(pair.core.received({**started, "seq": 2}, 0.0)) == 1
    assert pair.core.received({**started, "seq": 2}, 0.0) == []
    assert pair.core.received({**started, "seq": 1}, 0.0) == []
    with pytest.raises(ASRError, match="left out messages: 4 came after 2"):
        pair.core.received({**started, "seq": 4}, 0.0)


def test_a_finalize_that_is_answered_twice_is_answered_once() -> None:
    pair = Pair()
    pair.core.finalize()
    answer = {"type": "finalized", "id": "f1", "audio_ms": 0}
    assert pair.core.received(answer, 0.0) == [Flushed(0)]
    assert pair.core.received(answer, 0.0) == []


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_the_pauses_grow_and_are_drawn(drawn: float) -> None:
    core = Pair().core
    pauses = []
    now = 0.0
    for _ in range(8):
        pause_s, _ = core.lost(GONE, now, lambda: drawn)
        pauses.append(pause_s)
    assert pauses == [drawn * longest for longest in (0.25, 0.5, 1, 2, 4, 5, 5, 5)]


def test_what_a_gateway_asks_to_wait_is_waited() -> None:
    core = Pair().core
    busy = ASRError(Code.OVERLOADED, "Full.", retry_after_ms=7000)
    pause_s, (status,) = core.lost(busy, 0.0, lambda: 0.0)
    assert pause_s == 7.0
    assert isinstance(status, Status)
    assert (status.state, status.audio_ms, status.retry_after_ms) == (State.FAILING_OVER, 0, 7000)
    assert "lost" in status.detail
    with pytest.raises(ASRError) as caught:
        core.lost(ASRError(Code.RATE_LIMITED, "Later.", retry_after_ms=54_000), 7.0, lambda: 0.0)
    assert caught.value.code is Code.UNAVAILABLE, "longer than there is time"


def given_up(pair: Pair, lose: Callable[[], object]) -> ASRError:
    for _ in range(100):
        try:
            lose()
        except ASRError as error:
            return error
    raise AssertionError("it is tried for ever")


def test_the_attempts_end_with_the_window() -> None:
    pair = Pair(Limits(window_ms=10_000))
    got = given_up(pair, pair.lost)
    assert (got.code, got.retryable) == (Code.UNAVAILABLE, True)
    assert "within 10 s" in got.message
    assert GONE.message in got.message
    assert set(got.earlier) == {GONE}
    assert 9.0 < pair.now + 2.5 < 13.0
    assert pair.core.resumes == 0


def test_audio_that_kills_every_gateway_ends_the_attempts() -> None:
    pair = Pair(Limits(window_ms=10_000))
    pair.give(sound((1, 200)))
    pair.settle()

    def replay() -> None:
        pair.step(("restart", 1))
        pair.settle()

    got = given_up(pair, replay)
    assert "within 10 s" in got.message


def test_a_connection_that_held_begins_the_attempts_anew() -> None:
    pair = Pair(Limits(window_ms=10_000))
    for _ in range(20):
        pair.lost()
        pair.settle()
        pair.now += 6.0
        pair.far.say({"type": "warning", "code": "idle", "message": "Are you there?"})
        pair.settle()
    assert set(pair.pauses) == {0.125}
    assert pair.core.resumes == 20


def test_without_a_token_a_loss_is_a_failure() -> None:
    core = Pair(gateway=ModelGateway(resumable=False)).core
    with pytest.raises(ASRError) as caught:
        core.lost(GONE, 0.0, lambda: 0.5)
    assert caught.value is GONE
    switched_off = Pair(Limits(window_ms=0)).core
    with pytest.raises(ASRError):
        switched_off.lost(GONE, 0.0, lambda: 0.5)


def error(code: str, **more: object) -> dict[str, object]:
    return {"type": "error", "code": code, "message": "So it is.", "fatal": True, **more}


@pytest.mark.parametrize(
    "message",
    [error("idle_timeout", retryable=True), error("slow_reader"), error("unavailable", action="resume")],
)
def test_a_gateway_that_lets_a_client_go_is_come_back_to(message: dict[str, object]) -> None:
    pair = Pair()
    with pytest.raises(LinkError) as caught:
        pair.core.received(message, 0.0)
    pair.lost(caught.value.error)
    pair.settle()
    assert pair.core.connected
    assert pair.gateway.begun == 1


@pytest.mark.parametrize("code", ["superseded", "bad_audio", "unavailable", "unauthorized"])
def test_other_fatal_errors_are_failures(code: str) -> None:
    with pytest.raises(ASRError) as caught:
        Pair().core.received(error(code), 0.0)
    assert caught.value.code is Code(code)


@pytest.mark.parametrize("code", ["not_found", "expired"])
def test_a_session_that_is_gone_is_replaced_at_once(code: str) -> None:
    pair = Pair()
    pair.core.lost(GONE, 0.0, lambda: 0.5)
    assert pair.core.hello()["type"] == "resume"
    with pytest.raises(LinkError) as caught:
        pair.core.received(error(code), 0.0)
    assert pair.core.lost(caught.value.error, 0.0, lambda: 0.5) == (0.0, [])
    assert pair.core.session_hint == ""
    assert pair.core.hello()["type"] == "start"
    with pytest.raises(LinkError):
        pair.core.received(error("overloaded", retryable=True, retry_after_ms=3000), 0.0)
    with pytest.raises(ASRError):
        pair.core.received(error("unauthorized"), 0.0)


def test_audio_that_the_gateway_lacks_and_nobody_has_makes_a_new_session() -> None:
    pair = Pair(Limits(ring_bytes=200 * BYTES_PER_MS))
    pair.give(sound((1, 100), (0, 50), (2, 500)))
    pair.settle()
    pair.core.lost(GONE, 0.0, lambda: 0.5)
    pair.core.hello()
    with pytest.raises(LinkError):
        pair.core.received({"type": "resumed", "seq": 1, "resume_token": "t", "from_bytes": 32}, 0.0)
    assert pair.core.hello()["type"] == "start"


def test_a_gateway_that_lives_but_does_not_move_is_given_up() -> None:
    pair = Pair()
    pair.give(bytes(3_000))
    pair.settle()
    pair.core.check(1000.0)
    pair.core.finalize()
    pair.send(1)
    pair.core.check(1030.0)
    with pytest.raises(ASRError, match="no progress for 30000 ms"):
        pair.core.check(1031.0)


def test_a_gateway_that_takes_no_audio_is_given_up() -> None:
    core = Pair().core
    core.check(1000.0)
    core.feed(bytes(100))
    with pytest.raises(ASRError, match="took no audio"):
        core.check(1031.0)


def newest_session_heard(pair: Pair) -> int:
    (session,) = pair.gateway.sessions.values()
    return session.received_bytes


def test_a_finalize_that_was_lost_at_the_very_end_of_the_audio_is_asked_again() -> None:
    pair = Pair()
    pair.give(sound((1, 50)))
    pair.settle()
    pair.core.finalize()
    pair.send(1)
    pair.lost()
    pair.settle()
    assert [event for event in pair.events if isinstance(event, Flushed)] == [Flushed(50)]


def test_a_summary_that_was_said_to_nobody_is_said_again() -> None:
    pair = Pair()
    pair.give(sound((1, 50)))
    pair.core.stop()
    pair.send(50)
    pair.carry(50)
    pair.lost()
    pair.settle()
    assert pair.core.done
    assert pair.gateway.begun == 1
    assert [final.text for final in finals(pair.events)] == ["w1"]


def test_a_new_session_hears_nothing_again_that_is_settled() -> None:
    pair = Pair()
    pair.give(sound((1, 50), (0, 20)))
    pair.core.finalize()
    pair.settle()
    pair.step(("restart", 1))
    pair.settle()
    assert newest_session_heard(pair) == 0, "the answer to finalize covers the silence after the words"
    pair.give(sound((0, 1000)))
    pair.settle()
    pair.step(("restart", 1))
    pair.settle()
    assert newest_session_heard(pair) < 3_000, "what is safe is not sent again"


def test_losses_with_progress_between_them_go_on_for_long() -> None:
    pair = Pair(Limits(window_ms=10_000))
    for _ in range(30):
        pair.give(bytes(3_200))
        pair.settle()
        pair.now += 1.0
        pair.lost()
    pair.settle()
    assert pair.core.resumes == 30
    assert pair.now > 30


@pytest.mark.parametrize("code", [Code.BAD_REQUEST, Code.NOT_FOUND, Code.EXPIRED])
def test_a_session_that_is_gone_is_replaced_also_where_only_the_close_says_so(code: Code) -> None:
    core = Pair().core
    core.lost(GONE, 0.0, lambda: 0.5)
    assert core.hello()["type"] == "resume"
    assert core.lost(ASRError(code, "Closed."), 0.0, lambda: 0.5) == (0.0, [])
    assert core.hello()["type"] == "start"
    with pytest.raises(ASRError):
        core.lost(ASRError(code, "Closed."), 0.0, lambda: 0.5)


def replaced(pair: Pair) -> int:
    """Where the next session begins, in ms, after the gateway is gone."""
    pair.step(("restart", 1))
    pair.settle()
    return pair.core._clock.base_ms


def spoken(kind: str, start_ms: int, end_ms: int) -> dict[str, object]:
    said = {"type": kind, "utterance_id": "u0", "revision": 1, "text": "a", "start_ms": start_ms, "end_ms": end_ms}
    return said | ({"reason": "endpoint", "words": []} if kind == "final" else {})


def missing(start_ms: int, end_ms: int) -> dict[str, object]:
    return {"type": "gap", "start_ms": start_ms, "end_ms": end_ms, "cause": "upstream_lost", "channel": 0}


def test_a_gap_settles_audio_like_a_final() -> None:
    pair = Pair()
    pair.give(sound((1, 1000)))
    pair.settle()
    for message in (spoken("final", 0, 100), missing(100, 500)):
        pair.core.received(message, 0.0)
    assert replaced(pair) == 500
    pair.finish()
    assert pair.core.summary is not None
    assert pair.core.summary["gaps_ms"] == 400, "also of the gateway that is gone"


def test_a_gap_behind_an_open_utterance_waits_for_its_final() -> None:
    pair = Pair()
    pair.give(sound((1, 1000)))
    pair.settle()
    for message in (spoken("partial", 0, 100), missing(100, 500)):
        pair.core.received(message, 0.0)
    assert pair.core._clock.settled_bytes == 0
    pair.core.received(spoken("final", 0, 100), 0.0)
    assert replaced(pair) == 500


@pytest.mark.parametrize(("discarded_ms", "begins_ms"), [(0, 1000), (900, 100)])
def test_what_a_gateway_threw_away_is_not_settled(discarded_ms: int, begins_ms: int) -> None:
    pair = Pair()
    pair.give(sound((1, 1000)))
    pair.settle()
    pair.core.received(spoken("final", 0, 100), 0.0)
    summary = {"type": "summary", "audio_ms": 1000, "gaps_ms": 0, "discarded_ms": discarded_ms}
    if discarded_ms:
        pair.core.stop()
    pair.core.received(summary, 0.0)
    assert not pair.core.done
    assert replaced(pair) == begins_ms
