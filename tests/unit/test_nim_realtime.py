"""The NIM core where golden conversations do not reach: time, drains, losses, and what deltas add up to."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import speech
from asr.audio import Stereo
from asr.engine import Agreement, Features, Model
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Flushed, Gap, GapCause, Partial, Progress, Word
from asr.utterances import UtteranceCounter
from playbook import wav_header
from server.conversation import Begin, Command, Cut, Drop, Feed, Finish, Hangup, Send
from server.faces.realtime.nim import HOLD_S, LINGER_S, NimConversation
from server.faces.realtime.nim_results import MAX_HELD_WORDS
from server.faces.realtime.nim_session import new_session
from server.faces.realtime.setup import RealtimeSetup

Json = dict[str, Any]
MODEL = Model("m", ("en-US",))
DELTA, COMPLETED = "delta", "completed"


class Nim:
    """A core with its update answered, and what it says kept."""

    def __init__(
        self,
        session: Json | None = None,
        *,
        features: Features | None = None,
        stereo: Stereo = "mix",
        update: bool = True,
    ) -> None:
        numbers = itertools.count(1)
        self.now = 100.0
        self.setup = RealtimeSetup(stereo=stereo, models=(MODEL,), features=features or Features())
        self.core = NimConversation(self.setup, None, lambda prefix: f"{prefix}_{next(numbers)}")
        self.commands: list[Command] = []
        self.do(self.core.opened(self.now))
        if update:
            self.say("transcription_session.update", session=session or {})
            self.begin(0)

    def do(self, commands: list[Command]) -> list[Command]:
        self.commands += commands
        return commands

    def say(self, kind: str, **fields: Any) -> list[Command]:
        prefix = "" if kind.startswith("transcription_session") else "input_audio_buffer."
        return self.do(self.core.received(json.dumps({"type": prefix + kind, **fields}), self.now))

    def append(self, audio: bytes, **fields: Any) -> list[Command]:
        return self.say("append", audio=base64.b64encode(audio).decode(), **fields)

    def begin(self, take: int) -> list[Command]:
        begun = next(c for c in self.commands if isinstance(c, Begin) and c.take == take)
        return self.do(self.core.begun(take, Agreement(begun.options, MODEL, self.setup.features), self.now))

    def hear(self, event: Event, take: int = 0) -> list[Command]:
        return self.do(self.core.heard(take, event, self.now))

    def finish(self, take: int = 0) -> list[Command]:
        return self.do(self.core.finished(take, self.now))

    def tick(self, seconds: float) -> list[Command]:
        self.now += seconds
        at = self.core.wake_at
        return self.do(self.core.ticked(self.now)) if at is not None and at <= self.now else []

    def told(self) -> list[Json]:
        return [json.loads(c.text) for c in self.commands if isinstance(c, Send)]

    def told_of(self, kind: str) -> list[Json]:
        return [event for event in self.told() if event["type"].endswith(kind)]


def final(text: str, utterance: int = 0, *, words: int = 0, reason: FinalReason = FinalReason.ENDPOINT) -> Final:
    said = tuple(Word(f"w{n}", n, n + 1) for n in range(words))
    return Final(utterance, 1, text, 0, 1000, words=said, reason=reason)


def hangups(commands: list[Command]) -> list[int]:
    return [c.code for c in commands if isinstance(c, Hangup)]


FILE: Json = {"input_audio_format": "none"}


def test_nothing_is_said_between_the_first_event_and_the_update() -> None:
    nim = Nim(update=False)
    nim.say("commit")
    assert [event["type"] for event in nim.told()] == ["conversation.created"]


def test_first_event_that_never_comes_ends_the_connection() -> None:
    nim = Nim(update=False)
    assert nim.tick(9.9) == []
    assert hangups(nim.tick(0.2)) == [4408]
    assert nim.told()[-1]["type"] == "error"


def test_connection_on_which_all_is_told_is_closed_after_a_while() -> None:
    nim = Nim()
    nim.say("done")
    nim.finish()
    assert nim.told_of(COMPLETED)[-1]["is_last_result"] is True
    assert nim.tick(LINGER_S - 1) == []
    assert hangups(nim.tick(1.1)) == [1000]


def test_last_final_is_marked_and_those_before_it_are_not() -> None:
    nim = Nim()
    nim.append(bytes(3200))
    nim.hear(final("one"))
    nim.say("done")
    nim.hear(final("two", 1))
    nim.hear(final("three", 2))
    nim.finish()
    told = [(event["transcript"], event["is_last_result"]) for event in nim.told_of(COMPLETED)]
    assert told == [("one", False), ("two", False), ("three", True)]
    assert len({event["item_id"] for event in nim.told_of(COMPLETED)}) == 3


def test_drain_tells_what_was_said_and_does_not_call_it_the_last() -> None:
    nim = Nim(FILE)
    nim.append(wav_header(16_000) + bytes(3200))
    nim.hear(final("one"))
    assert any(isinstance(c, Finish) for c in nim.do(nim.core.draining(5_000, nim.now)))
    nim.hear(final("two", 1))
    assert hangups(nim.finish()) == [1001]
    (completed,) = nim.told_of(COMPLETED)
    assert (completed["transcript"], completed["is_last_result"]) == ("one two", False)


def test_drain_without_a_session_and_after_the_end_closes_at_once() -> None:
    nim = Nim(update=False)
    assert hangups(nim.core.draining(5_000, nim.now)) == [1001]
    nim = Nim()
    nim.say("done")
    nim.finish()
    assert hangups(nim.core.draining(5_000, nim.now)) == [1001]


def test_drain_that_the_recognizer_does_not_meet_is_told() -> None:
    nim = Nim()
    nim.do(nim.core.draining(5_000, nim.now))
    commands = nim.do(nim.core.refused(ASRError(Code.UNAVAILABLE, "down"), nim.now))
    assert hangups(commands) == [1001]
    assert nim.told()[-1]["error"]["message"] == "down"


def test_session_that_lasts_too_long_gets_its_finals_before_the_error() -> None:
    nim = Nim()
    nim.append(bytes(3200))
    assert any(isinstance(c, Finish) for c in nim.tick(3601))
    nim.hear(final("one"))
    assert hangups(nim.finish()) == [1009]
    assert [event["type"].rpartition(".")[2] for event in nim.told()[-2:]] == ["completed", "error"]


def test_file_without_done_is_told_when_its_client_waits() -> None:
    nim = Nim(FILE)
    nim.append(wav_header(16_000) + bytes(32_000))
    nim.hear(Progress(500))
    nim.hear(final("one"))
    nim.hear(Progress(1000))
    nim.tick(HOLD_S - 1)
    nim.append(bytes(320))
    assert nim.tick(HOLD_S - 1) == []
    nim.tick(2)
    assert [event["transcript"] for event in nim.told_of(COMPLETED)] == ["one"]
    assert nim.tick(HOLD_S) == []


def test_file_that_the_recognizer_is_behind_with_is_not_told_early() -> None:
    nim = Nim(FILE)
    nim.append(wav_header(16_000) + bytes(320_000))
    nim.hear(Progress(1000))
    nim.hear(final("one"))
    nim.tick(HOLD_S + 0.1)
    assert nim.told_of(COMPLETED) == []


def test_file_with_more_words_than_a_message_takes_comes_in_pieces() -> None:
    nim = Nim({**FILE, "recognition_config": {"enable_word_time_offsets": True}})
    nim.append(wav_header(16_000) + bytes(3200))
    for number in range(5):
        nim.hear(final(f"part{number}", number, words=MAX_HELD_WORDS // 2))
    nim.say("done")
    nim.finish()
    told = [event["transcript"] for event in nim.told_of(COMPLETED)]
    assert told == ["part0 part1", "part2 part3", "part4"]
    assert all(len(json.dumps(event)) < 2**20 for event in nim.told_of(COMPLETED))


def test_forced_end_of_a_file_tells_what_is_held() -> None:
    nim = Nim(FILE)
    commands = nim.append(wav_header(16_000) + bytes(3200), runtime_config={"force_eou": "true"})
    assert any(isinstance(c, Cut) for c in commands)
    nim.hear(final("one", reason=FinalReason.FINALIZE))
    assert nim.told_of(COMPLETED) == []
    nim.hear(Flushed(100))
    assert [event["transcript"] for event in nim.told_of(COMPLETED)] == ["one"]


def test_forced_ends_are_bounded() -> None:
    nim = Nim()
    for _ in range(300):
        nim.append(b"", runtime_config={"force_eou": "true"})
    assert sum(isinstance(c, Cut) for c in nim.commands) == 256
    assert nim.told()[-1]["error"]["code"] == "rate_limited"


def test_gap_is_told_and_does_not_stop_a_client_that_stops_at_errors() -> None:
    nim = Nim()
    nim.append(bytes(3200))
    nim.hear(Gap(0, 100, GapCause.BUFFER_OVERRUN))
    kind = nim.told()[-1]["type"]
    assert kind.endswith("failed")
    assert "error" not in kind
    assert "0 ms to 100 ms" in nim.told()[-1]["error"]["message"]


def test_last_guess_of_a_lost_recognizer_is_marked() -> None:
    nim = Nim()
    nim.append(bytes(3200))
    nim.hear(final("one", reason=FinalReason.FAILOVER))
    assert nim.told_of(COMPLETED)[0]["warnings"]


def test_clear_drops_the_take_and_goes_on_on_the_same_clock() -> None:
    nim = Nim({"recognition_config": {"enable_word_time_offsets": True}})
    nim.append(b"\1" * 3201)  # half a sample too much
    assert [type(c) for c in nim.say("clear")[:2]] == [Drop, Begin]
    nim.begin(1)
    nim.append(bytes(3200))
    nim.hear(final("late"))  # of the take that was dropped
    nim.hear(final("one", words=1), take=1)
    (completed,) = nim.told_of(COMPLETED)
    assert completed["words_info"]["words"][0]["start_time"] == 100
    fed = [c for c in nim.commands if isinstance(c, Feed)]
    assert [(c.take, c.pcm) for c in fed] == [(0, b"\1" * 3200), (1, bytes(3200))]


def test_speakers_and_confidences_are_numbers_whatever_the_recognizer_says() -> None:
    nim = Nim({"speaker_diarization": {"enable_speaker_diarization": True}}, features=Features(diarization=True))
    nim.append(bytes(3200))
    labels = ("alice", "bob", "alice", "7", None)
    words = tuple(Word("w", n, n, speaker=label) for n, label in enumerate(labels))
    nim.hear(Final(0, 1, "w w w w w", 0, 5, words=words))
    told = nim.told_of(COMPLETED)[0]["words_info"]["words"]
    assert [word["speaker_tag"] for word in told] == [1, 2, 1, 7, 0]
    assert all(isinstance(word["confidence"], float) for word in told)


def test_too_many_bad_messages_end_the_connection() -> None:
    nim = Nim()
    commands: list[Command] = []
    for _ in range(101):
        commands = nim.say("nonsense")
    assert hangups(commands) == [4400]


def test_what_does_not_fit_in_a_message_back_is_refused() -> None:
    nim = Nim()
    nim.say("transcription_session.update", session={"input_audio_transcription": {"prompt": "x" * 300_000}})
    assert nim.told()[-1]["error"]["code"] == "too_large"


def test_message_that_holds_more_sound_than_memory_should_is_refused() -> None:
    nim = Nim({"input_audio_params": {"sample_rate_hz": 4_000}})
    assert any(isinstance(c, Finish) for c in nim.append(bytes(9 * 2**20)))
    assert hangups(nim.finish()) == [1009]
    assert nim.told()[-1]["error"]["code"] == "too_large"


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", "c"]), max_size=6), min_size=1, max_size=12), st.data())
def test_deltas_grow_and_end_in_the_transcript_where_the_final_agrees(guesses: list[list[str]], data: Any) -> None:
    nim = Nim()
    nim.append(bytes(3200))
    counter, agreed = UtteranceCounter(), ""
    for guess in guesses:
        partial = counter.partial(" ".join(guess), 0, 100)
        if partial is None:
            continue
        before = "".join(event["delta"] for event in nim.told_of(DELTA))
        nim.hear(partial)
        head = partial.text[: partial.stable_chars]
        agreed = head if len(head) > len(before) and head.startswith(before) else before
        assert "".join(event["delta"] for event in nim.told_of(DELTA)) == agreed.rstrip()
    text = data.draw(st.sampled_from([" ".join(guesses[-1]), agreed + " more", "other words"])).strip()
    nim.hear(counter.final(text, 0, 100, reason=FinalReason.ENDPOINT))
    out = "".join(event["delta"] for event in nim.told_of(DELTA))
    assert out.startswith(agreed.rstrip())
    completed = nim.told_of(COMPLETED)
    if text:
        assert [event["transcript"] for event in completed] == [text]
    if text.startswith(agreed.rstrip()) and text:
        assert out == text
    assert all(event["item_id"] == completed[0]["item_id"] for event in nim.told_of(DELTA))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = tuple(new_session("s"))


@given(st.lists(st.tuples(st.sampled_from(SECTIONS), st.data()), min_size=1, max_size=4))
def test_no_update_breaks_the_core(changes: list[tuple[str, Any]]) -> None:
    session: Json = {}
    for name, data in changes:
        known = new_session("s")[name]
        inner = st.dictionaries(st.sampled_from(tuple(known)), JUNK) if isinstance(known, dict) else JUNK
        session[name] = data.draw(inner | JUNK)
    nim = Nim(update=False)
    nim.say("transcription_session.update", session=session)
    if any(isinstance(c, Begin) for c in nim.commands):
        nim.begin(0)
        nim.append(bytes(64))
    assert nim.told()[-1]["type"] in ("error", "transcription_session.updated")


@given(st.sampled_from(["append", "commit", "clear", "done", "x"]), st.dictionaries(st.text(max_size=5), JUNK), JUNK)
def test_no_message_breaks_the_core(kind: str, more: Json, audio: Any) -> None:
    nim = Nim()
    more.pop("type", None)
    nim.say(kind, **{**more, "audio": audio, "runtime_config": audio})
    nim.do(nim.core.received(json.dumps(audio), nim.now))
    assert not hangups(nim.commands)


@pytest.mark.parametrize(
    "audio",
    [
        b"",
        b"R",
        b"RIFF",
        wav_header(16_000),
        wav_header(16_000)[:30],
        b"RIFX" + wav_header(16_000)[4:] + bytes(320),
        b"hello, this is text and no audio at all",
        bytes(4000),
        speech.path("greeting.flac").read_bytes()[:100],
    ],
)
def test_what_is_no_file_is_an_error_and_never_an_empty_transcript(audio: bytes) -> None:
    nim = Nim(FILE)
    nim.append(audio)
    nim.say("done")
    nim.finish()
    assert hangups(nim.commands) == [4415]
    assert nim.told()[-1]["error"]["code"] in ("bad_audio", "unsupported")
    assert nim.told_of(COMPLETED) == []


@pytest.mark.parametrize("name", ["greeting.flac", "greeting_24bit.wav"])
def test_file_cut_anywhere_gives_an_error_or_a_transcript(name: str) -> None:
    data = speech.path(name).read_bytes()
    for end in (*range(60), *range(60, len(data), len(data) // 12)):
        nim = Nim(FILE)
        for start in range(0, end, 9_973):
            nim.append(data[start : min(end, start + 9_973)])
        nim.say("done")
        nim.finish()
        last = nim.told()[-1]
        assert last.get("is_last_result") is True or last["type"] == "error"


def test_several_channels_are_mixed_and_told_or_refused() -> None:
    params = {"sample_rate_hz": 16_000, "num_channels": 2}
    nim = Nim({"input_audio_params": params})
    assert "mixed" in nim.told()[-1]["warnings"][0]
    nim.append(bytes(6400))
    assert [len(c.pcm) for c in nim.commands if isinstance(c, Feed)] == [3200]
    nim = Nim(stereo="refuse", update=False)
    nim.say("transcription_session.update", session={"input_audio_params": params})
    assert nim.told()[-1]["error"]["code"] == "bad_audio"
    nim.say("transcription_session.update", session={})
    assert any(isinstance(c, Begin) for c in nim.commands)


def test_partials_of_nothing_are_no_deltas() -> None:
    nim = Nim()
    nim.hear(Partial(0, 1, "", 0, 100))
    assert nim.told_of(DELTA) == []


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("transcription_session.update", {"session": {"mine": nested(300)}}),
        ("transcription_session.update", {"session": {"input_audio_format": nested(900)}}),
        (
            "transcription_session.update",
            {"session": {"recognition_config": {"custom_configuration": {"k": nested(900)}}}},
        ),
        ("append", {"audio": "AAAA", "runtime_config": {"force_eou": nested(900)}}),
    ],
)
def test_what_is_nested_too_deeply_is_refused_or_passed_over(kind: str, fields: Json) -> None:
    nim = Nim()
    commands = nim.say(kind, **fields)
    assert not hangups(commands)
    if kind != "append":
        assert nim.told()[-1]["error"]["code"] == "bad_request"


def test_type_that_is_no_text_is_refused() -> None:
    nim = Nim()
    nim.do(nim.core.received(json.dumps({"type": nested(900)}), nim.now))
    assert nim.told()[-1]["error"]["param"] == "type"


def test_event_id_that_is_no_id_is_not_repeated() -> None:
    nim = Nim()
    nim.say("nonsense", event_id="x" * 100_000)
    assert len(json.dumps(nim.told()[-1])) < 1_000


def test_clear_leaves_the_utterance_whose_end_was_forced_before() -> None:
    nim = Nim({"recognition_config": {"enable_word_time_offsets": True}})
    nim.append(bytes(3200), runtime_config={"force_eou": "true"})
    nim.say("commit")
    nim.append(bytes(3200))
    commands = nim.say("clear")
    assert [type(c) for c in commands[:2]] == [Finish, Begin]
    nim.hear(final("kept", reason=FinalReason.FINALIZE))
    nim.hear(Flushed(100))
    nim.hear(final("cleared", 1))
    nim.finish()
    nim.begin(1)
    nim.append(bytes(3200))
    nim.hear(final("new", words=1), take=1)
    assert [event["transcript"] for event in nim.told_of(COMPLETED)] == ["kept", "new"]
    assert nim.told_of(COMPLETED)[-1]["words_info"]["words"][0]["start_time"] == 200


def test_clear_of_an_engine_that_cannot_cut_leaves_the_forced_utterance() -> None:
    nim = Nim(features=Features(end_utterance=False))
    nim.append(bytes(3200), runtime_config={"force_eou": "true"})
    nim.say("commit")
    nim.append(bytes(3200))
    assert [c.take for c in nim.say("clear") if isinstance(c, Drop)] == [1]
    nim.hear(final("kept", reason=FinalReason.STOP))
    nim.finish()
    nim.begin(2)
    nim.say("done")
    nim.finish(2)
    told = [(event["transcript"], event["is_last_result"]) for event in nim.told_of(COMPLETED)]
    assert told == [("kept", False), ("", True)]


def test_new_beginnings_that_the_recognizer_does_not_get_to_are_bounded() -> None:
    nim = Nim()
    for _ in range(1_000):
        nim.append(bytes(64))
        nim.say("clear")
    assert sum(isinstance(c, Begin) for c in nim.commands) < 300
    assert nim.told_of("cleared")[-1:] != nim.told()[-1:]
    assert nim.told()[-1]["error"]["code"] == "rate_limited"
    nim = Nim(update=False)
    for _ in range(1_000):
        nim.say("transcription_session.update", session={})
        nim.core.ticked(nim.now)
        if hangups(nim.commands):
            break
    assert sum(isinstance(c, Begin) for c in nim.commands) < 300


def test_recognizer_that_never_ends_does_not_keep_a_client_for_ever() -> None:
    nim = Nim()
    nim.append(bytes(3200))
    nim.say("done")
    assert nim.tick(3_600) == []
    assert hangups(nim.tick(60)) == [4504]
    assert nim.core.wake_at is None


def test_answer_to_response_create_is_bounded_and_what_is_left_out_was_told_before() -> None:
    nim = Nim(update=False)
    nim.append(bytes(3200))
    nim.begin(0)
    for number in range(30):
        nim.hear(final(f"{number:02}" + "x" * 9_998, number))
    nim.do(nim.core.received('{"type":"response.create"}', nim.now))
    nim.hear(Flushed(100))
    assert sum(bool(event.get("transcript")) for event in nim.told_of(COMPLETED)) == 30
    said = nim.told_of("response.output_text.delta")[0]["delta"]
    assert said.startswith("10")
    assert said.count("x") == 20 * 9_998


def test_client_that_set_its_session_up_is_answered_with_the_utterance_it_ended() -> None:
    nim = Nim()
    nim.append(bytes(3200))
    nim.hear(final("one"))
    nim.append(bytes(3200))
    nim.do(nim.core.received('{"type":"response.create"}', nim.now))
    nim.hear(final("two", 1))
    nim.hear(Flushed(200))
    assert nim.told_of("response.output_text.delta")[0]["delta"] == "two"


def test_warnings_of_a_session_that_nobody_set_up_come_with_the_first_transcript() -> None:
    nim = Nim(update=False)
    nim.core = NimConversation(nim.setup, {"recognition_config": {"max_alternatives": 3}}, lambda prefix: prefix)
    nim.commands.clear()
    nim.do(nim.core.opened(nim.now))
    nim.append(bytes(3200))
    nim.begin(0)
    nim.hear(final("one"))
    nim.hear(final("two", 1))
    first, second = nim.told_of(COMPLETED)
    assert len(first["warnings"]) == 1
    assert "warnings" not in second


def test_default_session_that_cannot_be_is_told_once() -> None:
    nim = Nim(update=False)
    nim.core = NimConversation(nim.setup, {"input_audio_transcription": {"model": "no"}}, lambda prefix: prefix)
    nim.commands.clear()
    nim.do(nim.core.opened(nim.now))
    for _ in range(200):
        nim.append(bytes(3200))
    assert [event["type"] for event in nim.told()] == ["conversation.created", "error"]
    assert nim.told()[-1]["error"]["code"] == "not_found"


def test_default_session_that_the_recognizer_refuses_leaves_room_for_an_update() -> None:
    nim = Nim(update=False)
    nim.append(bytes(3200))
    nim.do(nim.core.received('{"type":"response.create"}', nim.now))
    commands = nim.do(nim.core.failed(0, ASRError(Code.NOT_FOUND, "no such model"), nim.now))
    assert [c.take for c in commands if isinstance(c, Drop)] == [1]
    nim.append(bytes(3200))
    nim.say("transcription_session.update", session={})
    nim.begin(2)
    nim.append(bytes(3200))
    nim.hear(final("one"), take=2)
    assert [event["type"].rpartition(".")[2] for event in nim.told()] == [
        "created",
        "error",
        "updated",
        "delta",
        "completed",
    ]
    assert nim.told()[-1]["usage"]["seconds"] == 0.1
