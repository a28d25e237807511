"""The plain dialect of a SageMaker stream, as a core without sockets."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from asr.engine import Agreement, Features, Model
from asr.errors import ASRError, Code
from asr.events import Final, FinalReason, Flushed, Gap, GapCause, Partial, Word
from asr.options import Options
from server.conversation import Begin, Command, Cut, Feed, Finish, Hangup, Send
from server.faces.sagemaker_pcm import PlainConversation

SECOND = bytes(32_000)


def core(query: str = "", **more: Any) -> PlainConversation:
    given: dict[str, Any] = {"start_timeout_ms": 10_000, "max_session_ms": 100_000, **more}
    return PlainConversation(parse_qs(query), **given)


def listening(
    query: str = "", *, can_cut: bool = True, warnings: tuple[str, ...] = (), **more: Any
) -> PlainConversation:
    talk = core(query, **more)
    assert [type(command) for command in talk.opened(0.0)] == [Begin]
    talk.begun(0, agreement(can_cut=can_cut, warnings=warnings), 0.0)
    return talk


def agreement(*, can_cut: bool = True, warnings: tuple[str, ...] = ()) -> Agreement:
    features = Features(end_utterance=can_cut)
    return Agreement(Options(), Model("m", ("en-US",)), features, warnings)


def said(commands: list[Command]) -> list[dict[str, Any]]:
    return [json.loads(command.text) for command in commands if isinstance(command, Send)]


def final(text: str, start_ms: int, end_ms: int, reason: FinalReason = FinalReason.ENDPOINT, **more: Any) -> Final:
    return Final(0, 2, text, start_ms, end_ms, reason=reason, **more)


def test_audio_goes_on_as_it_is() -> None:
    assert listening().received(SECOND, 1.0) == [Feed(0, SECOND)]


def test_results_as_hosted_services_give_them() -> None:
    talk = listening()
    (partial,) = talk.heard(0, Partial(0, 1, "one", 100, 400), 1.0)
    assert isinstance(partial, Send)
    assert partial.lossy
    spoken = final("one two", 100, 900, words=(Word("one", 100, 400, confidence_raw=-0.2),), confidence_raw=-0.3)
    (message,) = said(talk.heard(0, spoken, 1.0))
    assert message == {
        "type": "Results",
        "channel_index": [0, 1],
        "start": 0.1,
        "duration": 0.8,
        "text": "one two",
        "is_final": True,
        "speech_final": True,
        "from_finalize": False,
        "channel": {
            "alternatives": [
                {
                    "transcript": "one two",
                    "confidence": -0.3,
                    "words": [{"word": "one", "start": 0.1, "end": 0.4, "confidence": -0.2}],
                }
            ]
        },
    }
    assert talk.heard(0, final("", 900, 1000), 1.0) == []


def test_no_partials_where_none_are_wanted() -> None:
    assert listening("interim_results=false").heard(0, Partial(0, 1, "one", 0, 1), 1.0) == []


def test_keepalive_is_nothing_but_a_sign_of_life() -> None:
    assert listening().received('{"type": "KeepAlive"}', 1.0) == []


def test_finalize_is_answered_once_by_the_result_it_brings() -> None:
    talk = listening()
    assert talk.received('{"type": "Finalize"}', 1.0) == [Cut(0)]
    (message,) = said(talk.heard(0, final("one", 0, 500, FinalReason.FINALIZE), 1.0))
    assert message["from_finalize"] is True
    assert talk.heard(0, Flushed(500), 1.0) == []


def test_finalize_in_silence_is_answered_by_an_empty_result() -> None:
    talk = listening()
    talk.received('{"type": "Finalize"}', 1.0)
    (message,) = said(talk.heard(0, Flushed(500), 1.0))
    assert (message["text"], message["from_finalize"], message["start"]) == ("", True, 0.5)


def test_two_finalizes_are_answered_by_two_results_in_order() -> None:
    talk = listening()
    talk.received('{"type": "Finalize"}', 1.0)
    talk.received('{"type": "Finalize"}', 1.0)
    told = said(talk.heard(0, final("one", 0, 500, FinalReason.FINALIZE), 1.0))
    told += said(talk.heard(0, Flushed(500), 1.0))
    told += said(talk.heard(0, final("two", 500, 900, FinalReason.FINALIZE), 1.0))
    told += said(talk.heard(0, Flushed(900), 1.0))
    assert [(message["text"], message["from_finalize"]) for message in told] == [("one", True), ("two", True)]


def test_an_engine_that_cannot_cut_gets_a_take_for_each_finalize_on_one_clock() -> None:
    talk = listening(can_cut=False)
    talk.received(SECOND, 1.0)
    commands = talk.received('{"type": "Finalize"}', 1.0)
    assert [type(command) for command in commands] == [Finish, Begin]
    (message,) = said(talk.heard(0, final("one", 0, 900, FinalReason.STOP), 1.0))
    assert message["from_finalize"] is True
    assert talk.finished(0, 1.0) == []
    talk.begun(1, agreement(can_cut=False), 1.0)
    assert talk.received(SECOND, 2.0) == [Feed(1, SECOND)]
    (message,) = said(talk.heard(1, final("two", 100, 500), 2.0))
    assert (message["start"], message["from_finalize"]) == (1.1, False)


def test_close_stream_ends_after_the_last_result() -> None:
    talk = listening()
    talk.received(SECOND, 1.0)
    assert talk.received('{"type": "CloseStream"}', 1.0) == [Finish(0)]
    assert talk.received(SECOND, 1.0) == []
    *told, hangup = talk.finished(0, 2.0)
    assert said(told) == [{"type": "Metadata", "duration": 1.0, "channels": 1}]
    assert hangup == Hangup(1000)
    assert talk.wake_at is None


def test_end_in_capital_letters_means_the_same() -> None:
    talk = listening()
    talk.received(SECOND, 1.0)
    assert talk.received("END", 1.0) == [Finish(0)]


def test_a_finalize_that_was_never_flushed_is_answered_at_the_end() -> None:
    talk = listening()
    talk.received('{"type": "Finalize"}', 1.0)
    talk.received('{"type": "CloseStream"}', 1.0)
    assert [message.get("from_finalize") for message in said(talk.finished(0, 1.0))] == [True, None]


@pytest.mark.parametrize("message", ["", "hello", "{", "[]", '{"type": 7}', '{"type": "start"}'])
def test_other_text_is_told_and_the_stream_goes_on(message: str) -> None:
    talk = listening()
    (warning,) = said(talk.received(message, 1.0))
    assert (warning["type"], warning["code"]) == ("Warning", "bad_request")
    assert talk.received(SECOND, 1.0) == [Feed(0, SECOND)]


def test_what_was_understood_differently_is_told_at_the_beginning() -> None:
    talk = core("model=nova-3")
    talk.opened(0.0)
    told = said(talk.begun(0, agreement(warnings=("left out",)), 0.0))
    assert [message["code"] for message in told] == ["options", "options"]
    assert "nova-3" in told[0]["message"]


def test_a_query_that_cannot_be_understood_ends_the_stream_at_once() -> None:
    error, hangup = core("encoding=smoke").opened(0.0)
    assert said([error])[0]["ModelStreamError"]["ErrorCode"] == "bad_request"
    assert isinstance(hangup, Hangup)
    assert hangup.code == 4400


def test_a_failure_tells_first_what_is_lost() -> None:
    talk = listening()
    talk.received(SECOND, 1.0)
    talk.heard(0, final("one", 0, 400), 1.0)
    *told, hangup = talk.failed(0, ASRError(Code.UNAVAILABLE, "Gone."), 2.0)
    gap, error = said(told)
    assert gap == {"type": "Gap", "start": 0.4, "duration": 0.6}
    assert error["ModelStreamError"] == {"ErrorCode": "unavailable", "Message": "Gone."}
    assert isinstance(hangup, Hangup)
    assert talk.failed(0, ASRError(Code.UNAVAILABLE, "Gone."), 2.0) == []


def test_an_engine_that_ends_too_early_is_a_failure() -> None:
    talk = listening()
    assert said(talk.finished(0, 1.0))[-1]["ModelStreamError"]["ErrorCode"] == "unavailable"


def test_gaps_are_told() -> None:
    (gap,) = said(listening().heard(0, Gap(1000, 3000, GapCause.UPSTREAM_LOST), 1.0))
    assert gap == {"type": "Gap", "start": 1.0, "duration": 2.0}


def test_audio_that_cannot_be_decoded_is_told_after_what_was_heard() -> None:
    talk = listening("encoding=flac")
    assert talk.received(b"no flac at all, by any means" * 10, 1.0) == [Finish(0)]
    assert said(talk.finished(0, 1.0))[0]["ModelStreamError"]["ErrorCode"] == "bad_audio"


def test_the_limit_of_a_session_is_announced_and_then_ends_it_with_its_results() -> None:
    talk = listening()
    talk.received(SECOND, 1.0)
    assert talk.wake_at == 90.0
    (notice,) = said(talk.ticked(90.0))
    assert (notice["type"], notice["code"]) == ("Warning", "session_limit")
    assert talk.wake_at == 100.0
    told = talk.ticked(100.0)
    assert said(told)[0]["code"] == "session_limit"
    assert told[-1] == Finish(0)
    assert talk.finished(0, 101.0)[-1] == Hangup(1001)


def test_a_stream_that_never_says_anything_ends() -> None:
    talk = listening()
    assert talk.wake_at == 10.0
    assert said(talk.ticked(10.0))[0]["ModelStreamError"]["ErrorCode"] == "idle_timeout"


def test_a_drain_brings_the_results_home() -> None:
    talk = listening()
    talk.received(SECOND, 1.0)
    told = talk.draining(5000, 1.0)
    assert said(told)[0]["code"] == "draining"
    assert told[-1] == Finish(0)
    assert talk.finished(0, 2.0)[-1] == Hangup(1001)


def test_silence_is_warned_of() -> None:
    (warning,) = said(listening().quiet(20_000, 30_000, 20.0))
    assert warning["code"] == "idle"
