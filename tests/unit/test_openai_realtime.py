"""OpenAI's realtime core, told by hand what the engine says: turns, joins, losses, ends."""

from __future__ import annotations

import base64
import itertools
import json
import random
from typing import Any

import pytest

from asr.engine import Agreement, Features, Model
from asr.errors import ASRError, Code
from asr.events import (
    Event,
    Final,
    FinalReason,
    Flushed,
    Gap,
    GapCause,
    Partial,
    Progress,
    SpeechEnded,
    SpeechStarted,
)
from asr.options import Options
from server.conversation import Begin, Command, Cut, Drop, Feed, Finish, Hangup, Send
from server.faces.realtime.dialect import Dialect
from server.faces.realtime.openai import MAX_BAD_MESSAGES, MAX_OWED, OpenAIRealtime
from server.faces.realtime.setup import RealtimeSetup

MODEL = Model("m", ("en-US", "ja-JP"))
ALL = Features(phrases=True, endpointing=True)


class Bench:
    """A core, what it said so far, and the commands it gave."""

    def __init__(self, turns: bool = False, features: Features = ALL, given: dict[str, Any] | None = None) -> None:
        numbers = itertools.count(1)
        setup = RealtimeSetup(models=(MODEL,), features=features)
        self.core = OpenAIRealtime(Dialect.OPENAI, setup, given or {}, lambda prefix: f"{prefix}_{next(numbers)}")
        self.features = features
        self.said: list[dict[str, Any]] = []
        self.commands: list[Command] = []
        self.do(self.core.opened(0.0))
        heard: dict[str, Any] = {"format": {"type": "audio/pcm", "rate": 16_000}}
        if not turns:
            heard["turn_detection"] = None
        self.send("session.update", session={"audio": {"input": heard}})
        self.said.clear()

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Send):
                self.said.append(json.loads(command.text))
            else:
                self.commands.append(command)
                if isinstance(command, Begin):
                    options = Options(language=command.options.language or "en-US")
                    self.do(self.core.begun(command.take, Agreement(options, MODEL, self.features), 0.0))

    def send(self, kind: str, **fields: Any) -> None:
        self.do(self.core.received(json.dumps({"type": kind, **fields}), 0.0))

    def append(self, ms: int, **fields: Any) -> None:
        self.send("input_audio_buffer.append", audio=base64.b64encode(bytes(32 * ms)).decode(), **fields)

    def commit(self) -> None:
        self.send("input_audio_buffer.commit")

    def hear(self, *events: Event, take: int = 0) -> None:
        for event in events:
            self.do(self.core.heard(take, event, 0.0))

    def news(self) -> list[str]:
        """The types of what was said since the last look."""
        said, self.said = self.said, []
        return [event["type"].replace("conversation.item.input_audio_transcription.", "") for event in said]

    def taken(self, *kinds: type) -> list[Command]:
        return [command for command in self.commands if isinstance(command, kinds)]

    def only(self, kind: str) -> dict[str, Any]:
        found = [event for event in self.said if event["type"].endswith(kind)]
        assert len(found) == 1, self.said
        return found[0]


def partial(text: str, *, at: int = 0, stable: int | None = None, utterance: int = 0) -> Partial:
    return Partial(utterance, 1, text, at, at + 100, len(text) if stable is None else stable)


def final(text: str, *, at: int = 0, end: int = 500, reason: FinalReason = FinalReason.ENDPOINT) -> Final:
    return Final(0, 1, text, at, end, reason=reason)


# The client commits --------------------------------------------------------------------------------


def test_the_deltas_of_an_item_make_its_transcript_over_the_pauses_inside_it() -> None:
    bench = Bench()
    bench.append(1000)
    bench.hear(partial("hello", stable=0), partial("hello there", stable=5), final("hello there."))
    bench.hear(partial("how are", stable=3), final("how are you?"))
    bench.commit()
    bench.hear(Flushed(1000))
    deltas = "".join(event["delta"] for event in bench.said if event["type"].endswith("delta"))
    assert bench.only("completed")["transcript"] == deltas == "hello there. how are you?"
    assert bench.only("completed")["usage"] == {"type": "duration", "seconds": 1.0}


def test_scripts_without_blanks_are_joined_without() -> None:
    bench = Bench()
    bench.send("session.update", session={"audio": {"input": {"transcription": {"language": "ja"}}}})
    bench.append(100)
    bench.hear(final("今日は。"), final("元気ですか。"))
    bench.commit()
    bench.hear(Flushed(100))
    assert bench.only("completed")["transcript"] == "今日は。元気ですか。"


def test_what_the_engine_changed_its_mind_about_is_right_in_completed() -> None:
    bench = Bench()
    bench.append(100)
    bench.hear(partial("I scream"), final("ice cream"))
    bench.commit()
    bench.hear(Flushed(100))
    assert bench.only("completed")["transcript"] == "ice cream"


def test_commits_that_wait_are_answered_in_order() -> None:
    bench = Bench()
    for _ in range(3):
        bench.append(100)
        bench.commit()
    assert bench.taken(Cut) == [Cut(0)] * 3
    bench.news()
    bench.hear(final("one"), Flushed(100), Flushed(200), final("three"), Flushed(300))
    assert [event["transcript"] for event in bench.said if event["type"].endswith("completed")] == ["one", "", "three"]


def test_without_cuts_each_item_has_a_take_of_its_own() -> None:
    bench = Bench(features=Features(end_utterance=False))
    bench.append(100)
    bench.commit()
    bench.append(100)
    assert [type(command) for command in bench.taken(Begin, Finish, Cut)] == [Begin, Finish, Begin]
    bench.hear(final("one"))
    bench.do(bench.core.finished(0, 0.0))
    bench.hear(partial("two"), take=1)
    assert bench.only("completed")["transcript"] == "one"
    assert bench.said[-1]["delta"] == "two"
    assert bench.said[-1]["item_id"] != bench.only("completed")["item_id"]


@pytest.mark.parametrize("cuts", [True, False])
def test_force_eou_ends_an_utterance_and_not_the_item(cuts: bool) -> None:
    bench = Bench(features=Features(end_utterance=cuts))
    bench.append(50)
    bench.append(50, runtime_config={"force_eou": "true"})
    bench.hear(final("one"))
    bench.do(bench.core.heard(0, Flushed(100), 0.0) if cuts else bench.core.finished(0, 0.0))
    assert "completed" not in bench.news()
    bench.append(100)
    bench.commit()
    last = 0 if cuts else 1
    bench.hear(final("two"), take=last)
    bench.do(bench.core.heard(last, Flushed(200), 0.0) if cuts else bench.core.finished(last, 0.0))
    assert bench.only("completed")["transcript"] == "one two"


def test_too_many_commits_are_refused_and_the_audio_stays() -> None:
    bench = Bench()
    for _ in range(MAX_OWED + 1):
        bench.append(1)
        bench.commit()
    assert bench.said[-1]["error"]["code"] == "rate_limit_exceeded"
    bench.hear(Flushed(1))
    bench.commit()
    assert bench.said[-1]["type"] == "conversation.item.done"


def test_too_many_forced_ends_are_refused_before_anything_of_them_is_heard() -> None:
    bench = Bench(features=Features(end_utterance=False))
    for _ in range(MAX_OWED + 1):
        bench.append(1, runtime_config={"force_eou": "true"})
    assert bench.said[-1]["error"]["code"] == "rate_limit_exceeded"
    assert len(bench.taken(Begin)) == MAX_OWED + 1
    assert len(bench.taken(Feed)) == MAX_OWED


def test_what_is_cleared_is_dropped_and_the_clock_goes_on() -> None:
    bench = Bench()
    bench.append(300)
    bench.hear(partial("never"))
    bench.send("input_audio_buffer.clear")
    assert bench.taken(Drop) == [Drop(0)]
    bench.hear(final("never"))
    assert bench.news() == ["delta", "input_audio_buffer.cleared"]
    bench.append(200)
    bench.commit()
    bench.hear(final("heard"), Flushed(200), take=1)
    assert bench.only("completed")["transcript"] == "heard"
    assert bench.only("completed")["usage"]["seconds"] == 0.2


def test_a_clear_leaves_what_was_committed_before() -> None:
    bench = Bench()
    bench.append(300)
    bench.commit()
    bench.append(300)
    bench.send("input_audio_buffer.clear")
    assert bench.taken(Drop) == []
    assert bench.commands[-1] == Finish(0)
    bench.news()
    bench.hear(final("kept"), Flushed(300), partial("gone"), final("gone"))
    bench.do(bench.core.finished(0, 0.0))
    assert bench.only("completed")["transcript"] == "kept"
    assert bench.news() == ["delta", "completed"]


def test_settings_change_with_the_next_item() -> None:
    bench = Bench()
    bench.append(100)
    bench.send("session.update", session={"audio": {"input": {"transcription": {"language": "ja"}}}})
    bench.append(100)
    assert len(bench.taken(Begin)) == 1
    bench.commit()
    bench.append(100)
    assert [begin.options.language for begin in bench.commands if isinstance(begin, Begin)] == ["en-US", "ja-JP"]
    assert bench.taken(Finish) == [Finish(0)]
    bench.hear(Flushed(200))
    assert bench.news().count("completed") == 1


def test_the_same_settings_again_change_nothing() -> None:
    bench = Bench()
    bench.append(100)
    bench.commit()
    bench.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    bench.append(100)
    assert len(bench.taken(Begin)) == 1


def test_response_create_after_a_commit_speaks_of_that_item() -> None:
    bench = Bench()
    bench.append(100)
    bench.commit()
    bench.send("response.create")
    bench.hear(final("hello"), Flushed(100))
    assert bench.news()[-3:] == ["completed", "response.output_text.delta", "response.completed"]


def test_half_a_sample_is_no_audio_and_no_harm() -> None:
    bench = Bench()
    bench.send("input_audio_buffer.append", audio=base64.b64encode(b"x").decode())
    bench.commit()
    bench.hear(Flushed(0))
    assert bench.only("completed")["transcript"] == ""
    bench.append(100)
    assert bench.commands[-1] == Feed(0, bytes(3200))


# The server finds the turns ------------------------------------------------------------------------


def test_a_turn_begins_with_its_padding_and_ends_with_the_final() -> None:
    bench = Bench(turns=True)
    bench.append(3000)
    bench.hear(SpeechStarted(1000), partial("hi"), SpeechEnded(2000), final("hi", at=1100, end=1900))
    assert bench.only("speech_started")["audio_start_ms"] == 700
    assert bench.only("speech_stopped")["audio_end_ms"] == 2000
    assert bench.only("completed")["usage"]["seconds"] == 1.3
    assert bench.news() == [
        "input_audio_buffer.speech_started",
        "delta",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "completed",
    ]


def test_a_noise_that_was_no_speech_completes_empty() -> None:
    bench = Bench(turns=True)
    bench.append(3000)
    bench.hear(SpeechStarted(1000), SpeechEnded(1500), Progress(1400))
    assert "completed" not in bench.news()
    bench.hear(Progress(1500))
    assert bench.only("completed")["transcript"] == ""
    bench.news()
    bench.hear(SpeechStarted(2000), SpeechEnded(2200), SpeechStarted(2500))
    assert bench.news()[-2:] == ["completed", "input_audio_buffer.speech_started"]


def test_an_empty_final_without_speech_is_nothing() -> None:
    bench = Bench(turns=True)
    bench.append(100)
    bench.hear(final("", end=100))
    assert bench.said == []


def test_turns_of_a_later_take_are_on_the_sessions_clock() -> None:
    bench = Bench(turns=True)
    bench.append(1000)
    bench.send("session.update", session={"audio": {"input": {"transcription": {"language": "en"}}}})
    bench.append(1000)
    bench.hear(final("old", at=100, end=900))
    bench.do(bench.core.finished(0, 0.0))
    bench.hear(SpeechStarted(400), final("new", at=400, end=800), take=1)
    starts = [e["audio_start_ms"] for e in bench.said if e["type"].endswith("speech_started")]
    assert starts == [0, 1100]
    stops = [e["audio_end_ms"] for e in bench.said if e["type"].endswith("speech_stopped")]
    assert stops == [900, 1800]
    assert [e["transcript"] for e in bench.said if e["type"].endswith("completed")] == ["old", "new"]


def test_a_turn_that_waits_for_its_final_is_not_what_a_client_commits_after_it() -> None:
    bench = Bench(turns=True)
    bench.append(1000)
    bench.hear(SpeechStarted(100), SpeechEnded(500))
    bench.append(1000)
    bench.commit()
    bench.hear(final("a turn", end=500), final("the rest", at=1200, end=1900), Flushed(2000))
    assert [e["transcript"] for e in bench.said if e["type"].endswith("completed")] == ["a turn", "the rest"]
    assert bench.news().count("input_audio_buffer.committed") == 2


def test_a_commit_takes_in_what_an_earlier_take_has_yet_to_say() -> None:
    bench = Bench(turns=True)
    bench.append(1000)
    bench.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    bench.append(1000)
    bench.commit()
    bench.hear(final("before"))
    bench.do(bench.core.finished(0, 0.0))
    bench.hear(final("after"), Flushed(1000), take=1)
    assert bench.only("completed")["transcript"] == "before after"
    assert bench.only("completed")["usage"]["seconds"] == 2.0


def test_speech_that_goes_on_when_the_audio_ends_is_completed() -> None:
    bench = Bench(turns=True)
    bench.append(1000)
    bench.hear(SpeechStarted(100), partial("and so"))
    bench.do(bench.core.draining(1000, 0.0))
    assert bench.commands[-1] == Finish(0)
    bench.hear(final("and so on", end=1000, reason=FinalReason.STOP))
    bench.do(bench.core.finished(0, 0.0))
    assert bench.news()[-1] == "completed"
    assert bench.commands[-1] == Hangup(1001)


# Losses --------------------------------------------------------------------------------------------


def test_a_gap_without_words_fails_the_item_and_one_beside_words_is_a_warning() -> None:
    bench = Bench()
    bench.append(100)
    bench.hear(Gap(0, 100, GapCause.UPSTREAM_LOST))
    bench.commit()
    bench.hear(Flushed(100))
    assert bench.only("failed")["error"]["type"] == "server_error"
    bench.news()
    bench.append(200)
    bench.hear(Gap(100, 200, GapCause.BUFFER_OVERRUN), final("the rest"))
    bench.commit()
    bench.hear(Flushed(300))
    assert bench.only("completed")["transcript"] == "the rest"
    assert "100 ms to 200 ms" in bench.only("completed")["warnings"][0]


def test_a_gap_between_turns_is_an_item_that_failed() -> None:
    bench = Bench(turns=True)
    bench.append(2000)
    bench.hear(Gap(500, 1500, GapCause.UPSTREAM_LOST))
    assert bench.news() == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "failed",
    ]


def test_a_guess_in_place_of_a_final_is_told() -> None:
    bench = Bench()
    bench.append(100)
    bench.hear(final("perhaps", reason=FinalReason.FAILOVER))
    bench.commit()
    bench.hear(Flushed(100))
    assert "guess" in bench.only("completed")["warnings"][0]


def test_when_the_recognizer_is_lost_all_that_is_owed_is_told_before_the_close() -> None:
    bench = Bench()
    bench.append(100)
    bench.commit()
    bench.append(100)
    bench.hear(final("one"))
    bench.news()
    bench.do(bench.core.failed(0, ASRError(Code.OVERLOADED, "Full."), 0.0))
    assert [event["type"].rpartition(".")[2] for event in bench.said] == [
        "completed",
        "committed",
        "added",
        "done",
        "failed",
        "error",
    ]
    assert bench.said[0]["warnings"] == ["Full."]
    assert bench.commands[-1] == Hangup(1013, "overloaded")
    assert bench.core.received("{}", 0.0) == []


def test_what_the_client_can_put_right_leaves_the_socket_open() -> None:
    bench = Bench()
    bench.append(100)
    bench.do(bench.core.failed(0, ASRError(Code.NOT_FOUND, "No such model.", param="model"), 0.0))
    assert bench.only("error")["error"]["code"] == "model_not_found"
    bench.append(100)
    assert len(bench.taken(Begin)) == 1
    bench.commit()
    assert bench.only("failed")["error"]["message"] == "No such model."
    bench.append(100)
    assert len(bench.taken(Begin)) == 2


def test_audio_lost_before_a_setting_was_put_right_is_told_with_the_item() -> None:
    bench = Bench()
    bench.append(100)
    bench.do(bench.core.failed(0, ASRError(Code.UNSUPPORTED, "Not so."), 0.0))
    bench.send("session.update", session={"audio": {"input": {"transcription": {"language": "en"}}}})
    bench.append(100)
    bench.commit()
    bench.hear(final("later"), Flushed(100), take=1)
    assert bench.only("completed")["warnings"] == ["Not so."]


def test_an_engine_that_ends_before_the_audio_is_lost() -> None:
    bench = Bench()
    bench.append(100)
    bench.do(bench.core.finished(0, 0.0))
    assert bench.commands[-1] == Hangup(4502, "unavailable")


# Limits and ends -----------------------------------------------------------------------------------


def test_a_first_event_that_never_comes_ends_in_a_clear_error() -> None:
    core = OpenAIRealtime(Dialect.OPENAI, RealtimeSetup(start_timeout_ms=5_000), {}, lambda prefix: prefix)
    core.opened(100.0)
    assert core.wake_at == 105.0
    error, hangup = core.ticked(105.0)
    assert isinstance(error, Send)
    assert json.loads(error.text)["error"]["code"] == "idle_timeout"
    assert hangup == Hangup(4408, "idle_timeout")
    assert core.wake_at is None


def test_at_the_end_of_the_session_what_was_said_is_completed_first() -> None:
    bench = Bench()
    bench.append(100)
    assert bench.core.wake_at == 3600.0
    bench.do(bench.core.ticked(3600.0))
    assert bench.core.wake_at == 3660.0
    bench.append(100)
    bench.hear(final("all"))
    bench.do(bench.core.finished(0, 0.0))
    assert bench.news()[-2:] == ["completed", "error"]
    assert bench.commands[-1] == Hangup(1009, "too_large")


def test_a_drain_without_audio_ends_at_once_and_one_with_a_slow_engine_by_force() -> None:
    idle = Bench()
    idle.do(idle.core.draining(1000, 0.0))
    assert idle.commands == [Hangup(1001)]
    busy = Bench()
    busy.append(100)
    busy.do(busy.core.draining(1000, 0.0))
    busy.do(busy.core.refused(ASRError(Code.UNAVAILABLE, "Going down."), 0.0))
    assert busy.news()[-1] == "failed"
    assert busy.commands[-1] == Hangup(1001)


def test_a_client_that_only_says_nonsense_is_let_go() -> None:
    bench = Bench()
    for _ in range(MAX_BAD_MESSAGES):
        bench.send("nonsense")
    bench.append(1)
    for _ in range(MAX_BAD_MESSAGES):
        bench.send("nonsense")
    assert bench.taken(Hangup) == []
    bench.send("nonsense")
    assert bench.commands[-1] == Hangup(4400, "bad_request")


def test_what_is_too_large_is_refused_and_never_repeated() -> None:
    bench = Bench()
    bench.send("session.update", session={"audio": {"input": {"transcription": {"prompt": "x" * 300_000}}}})
    assert bench.only("error")["error"]["code"] == "too_large"
    bench.news()
    bench.send("nonsense" * 100_000, event_id="x" * 100_000)
    assert len(json.dumps(bench.said)) < 1000
    bench.news()
    bench.send("session.update", session={"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    bench.news()
    bench.send("input_audio_buffer.append", audio=base64.b64encode(bytes(9 * 1024 * 1024)).decode())
    assert bench.only("error")["error"]["code"] == "too_large"
    bench.commit()
    assert bench.said[-1]["error"]["code"] == "input_audio_buffer_commit_empty"


def test_settings_given_before_the_connection_hold_and_are_told() -> None:
    given = {"audio": {"input": {"turn_detection": None, "noise_reduction": {"type": "near_field"}}}}
    setup = RealtimeSetup(models=(MODEL,))
    core = OpenAIRealtime(Dialect.OPENAI, setup, given, lambda prefix: prefix)
    (created,) = core.opened(0.0)
    assert isinstance(created, Send)
    event = json.loads(created.text)
    assert event["session"]["audio"]["input"]["turn_detection"] is None
    assert "Noise" in event["warnings"][0]


def test_what_the_engine_leaves_out_is_told_with_the_update_and_once() -> None:
    bench = Bench(features=Features(endpointing=False))
    turns = {"type": "server_vad", "silence_duration_ms": 300}
    bench.send("session.update", session={"audio": {"input": {"turn_detection": turns}}})
    assert "endpointing" in bench.only("updated")["warnings"][0]
    bench.news()
    bench.append(100)
    news = Agreement(
        Options(), MODEL, ALL, ("This recognizer does not support endpointing settings; it was left out.",)
    )
    bench.do(bench.core.begun(0, news, 0.0))
    assert bench.said == []
    bench.do(bench.core.begun(0, Agreement(Options(), MODEL, ALL, ("Something else.",)), 0.0))
    assert bench.only("updated")["warnings"] == ["Something else."]


# Anything in any order -----------------------------------------------------------------------------


class Chance(Bench):
    """A client and an engine that do what the dice say, with the checks that hold whatever they do."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.live: dict[int, list[str]] = {}  # takes in order: what their engine still owes
        self.fed: dict[int, int] = {}
        self.said_ms: dict[int, int] = {}
        super().__init__(turns=self.dice.random() < 0.5, features=Features(end_utterance=self.dice.random() < 0.7))

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Begin(take):
                    assert take not in self.live
                    self.live[take] = []
                    self.fed[take] = 0
                case Feed(take, pcm):
                    assert "end" not in self.live[take]
                    self.fed[take] += len(pcm)
                case Cut(take):
                    assert "end" not in self.live[take]
                    self.live[take].append("flush")
                case Finish(take):
                    assert "end" not in self.live[take]
                    self.live[take].append("end")
                case Drop(take):
                    del self.live[take]
        super().do(commands)

    def step(self) -> None:
        dice = self.dice
        match dice.randrange(10):
            case 0 | 1 | 2:
                self.append(dice.choice([0, 7, 100]), runtime_config={"force_eou": dice.choice(["true", "false"])})
            case 3:
                self.commit()
            case 4:
                self.send(dice.choice(["input_audio_buffer.clear", "response.create", "nonsense"]))
            case 5:
                turns = dice.choice([None, {"type": "server_vad"}, {"type": "semantic_vad"}])
                rate = {"format": {"type": "audio/pcm", "rate": dice.choice([8_000, 16_000])}}
                heard = {"turn_detection": turns, **(rate if dice.random() < 0.3 else {})}
                self.send("session.update", session={"audio": {"input": heard}})
            case _:
                self.engine()

    def engine(self) -> None:
        if not self.live:
            return
        take = min(self.live)
        at = self.dice.randint(self.said_ms.get(take, 0), max(self.fed[take] // 32, self.said_ms.get(take, 0)))
        self.said_ms[take] = at
        if self.live[take] and self.dice.random() < 0.5:
            if self.live[take].pop(0) == "flush":
                self.hear(Flushed(at), take=take)
            else:
                del self.live[take]
                self.do(self.core.finished(take, 0.0))
            return
        says: list[Event] = [
            SpeechStarted(at),
            SpeechEnded(at),
            partial("a b", at=at, stable=1),
            final("a b c", at=at, end=at),
            final("", at=at, end=at),
            Gap(at, at, GapCause.UPSTREAM_LOST),
            Progress(at),
        ]
        self.hear(self.dice.choice(says), take=take)


@pytest.mark.parametrize("seed", range(40))
def test_every_item_gets_one_last_word_in_order_whatever_happens(seed: int) -> None:
    chance = Chance(seed)
    for _ in range(80):
        chance.step()
    chance.do(chance.core.draining(1000, 0.0))
    while chance.live:
        chance.engine()
    assert chance.commands[-1] == Hangup(1001)
    told = [(event["type"].rpartition(".")[2], event.get("item_id")) for event in chance.said]
    committed = [item for kind, item in told if kind == "committed"]
    last = [item for kind, item in told if kind in ("completed", "failed") and item]
    assert last == committed
    started = [item for kind, item in told if kind == "speech_started"]
    assert len(set(started)) == len(started)
    starts = [event["audio_start_ms"] for event in chance.said if "audio_start_ms" in event]
    assert starts == sorted(starts)
    assert len({event["event_id"] for event in chance.said}) == len(chance.said)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "heard",
    [
        {"noise_reduction": {"type": nested(300)}},
        {"turn_detection": {"type": "server_vad", "threshold": nested(300)}},
        {"format": {"type": "audio/pcmu", "rate": nested(900)}},
    ],
)
def test_session_that_is_nested_too_deeply_is_refused(heard: dict[str, Any]) -> None:
    bench = Bench()
    bench.send("session.update", session={"audio": {"input": heard}})
    assert bench.only("error")["error"]["code"] == "invalid_value"


def test_forced_end_that_is_no_word_is_passed_over() -> None:
    bench = Bench()
    bench.append(100, runtime_config={"force_eou": nested(900)})
    assert not bench.taken(Cut, Hangup)


def test_new_beginnings_that_the_recognizer_does_not_get_to_are_bounded() -> None:
    core = Bench().core
    begins, last = 0, ""
    for _ in range(1_000):
        for kind in ("append", "clear"):
            for command in core.received(json.dumps({"type": f"input_audio_buffer.{kind}", "audio": "AAAA"}), 0.0):
                begins += isinstance(command, Begin)
                last = command.text if isinstance(command, Send) and "error" in command.text else last
    assert begins <= MAX_OWED
    assert "rate_limit_exceeded" in last


def test_recognizer_that_never_ends_does_not_keep_a_client_for_ever() -> None:
    bench = Bench()
    bench.append(100)
    bench.do(bench.core.ticked(3600.0))
    assert bench.core.wake_at == 3660.0
    bench.do(bench.core.ticked(3660.0))
    assert bench.said[-1]["error"]["code"] == "timeout"
    assert [command.code for command in bench.taken(Hangup) if isinstance(command, Hangup)] == [4504]
