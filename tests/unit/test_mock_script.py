"""The scripted recognizer: what it says to which audio, in which shape, and that nothing else decides it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.mock.plan import DEFAULT_PLAN, MockPlan, load_plan
from asr.mock.responses import RawResponse, RawResult, Request
from asr.mock.script import ScriptedRecognizer

BYTES_PER_MS = 32


def tone(ms: int, rate_hz: int = 16_000) -> bytes:
    t = np.arange(rate_hz * ms // 1000) / rate_hz
    return (8000 * np.sin(2 * math.pi * 440 * t)).astype("<i2").tobytes()


def silence(ms: int) -> bytes:
    return bytes(ms * BYTES_PER_MS)


def plan(**keys: Any) -> MockPlan:
    base: dict[str, Any] = {"hears": "clock", "loop": False, "utterances": ["one two three four five six", "seven"]}
    return load_plan(base | keys)


def play(a_plan: MockPlan, pcm: bytes, request: Request = Request(), stream: int = 1) -> list[RawResponse]:  # noqa: B008
    script = ScriptedRecognizer(a_plan, request, stream=stream)
    return script.feed(pcm) + script.finish()


def results(responses: list[RawResponse]) -> list[RawResult]:
    return [r for response in responses for r in response.results]


def texts(responses: list[RawResponse], *, final: bool) -> list[str]:
    return [r.alternatives[0].transcript for r in results(responses) if r.is_final == final and r.alternatives]


def test_words_come_one_by_one_and_a_pause_ends_the_utterance() -> None:
    responses = play(plan(), silence(6000))
    assert texts(responses, final=False)[:3] == ["one", "one two", "one two three"]
    assert texts(responses, final=True) == ["one two three four five six ", "seven "]


def test_one_response_for_each_server_chunk_many_of_them_empty() -> None:
    script = ScriptedRecognizer(plan(chunk_ms=160))
    responses = script.feed(silence(1600))
    assert len(responses) == 10
    assert sum(not r.results for r in responses) >= 4
    assert script.processed_ms == 1600


def test_the_script_loops_or_stops() -> None:
    assert len(texts(play(plan(loop=True, utterances=["hello"]), silence(6000)), final=True)) == 5
    assert len(texts(play(plan(utterances=["hello"]), silence(6000)), final=True)) == 1


def test_no_utterances_say_nothing() -> None:
    assert results(play(plan(utterances=[], loop=True), silence(3000))) == []


def test_silence_is_silent_when_the_plan_hears_speech() -> None:
    assert results(play(DEFAULT_PLAN, silence(10_000))) == []


def test_noise_below_the_threshold_is_silence() -> None:
    hiss = np.random.default_rng(1).normal(0, 20, 16_000 * 3).astype("<i2").tobytes()
    assert results(play(DEFAULT_PLAN, hiss)) == []


def test_a_click_is_no_word() -> None:
    pcm = tone(60) + silence(1500)
    assert results(play(plan(hears="speech"), pcm * 3)) == []


def test_real_pauses_end_utterances_and_start_the_next() -> None:
    pcm = silence(400) + (tone(700) + silence(900)) * 3
    finals = texts(play(plan(hears="speech", loop=True), pcm), final=True)
    assert finals == ["one two three ", "seven ", "one two three "]


def test_speech_goes_on_through_short_dips() -> None:
    pcm = (tone(300) + silence(100)) * 4 + silence(1000)
    assert len(texts(play(plan(hears="speech"), pcm), final=True)) == 1


def test_word_times_lie_on_the_clock_of_the_stream_and_do_not_overlap() -> None:
    pcm = silence(1000) + tone(700) + silence(1000)
    final = next(r for r in results(play(plan(hears="speech"), pcm, Request(words=True))) if r.is_final)
    words = final.alternatives[0].words
    assert [w.text for w in words] == ["one", "two", "three"]
    assert words[0].start_ms == 1000
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(words))
    assert words[-1].end_ms <= 1900


PCM = tone(900) + silence(700) + tone(1500) + silence(900) + tone(333)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, len(PCM)), max_size=30), hears=st.sampled_from(["clock", "speech"]))
def test_the_same_bytes_in_any_chunking_give_the_same_responses(cuts: list[int], hears: str) -> None:
    a_plan = plan(hears=hears, loop=True, shape={"partials": "rewrite", "eager_eou_ms": 200})
    request = Request(words=True, diarization=True)
    whole = play(a_plan, PCM, request)
    script = ScriptedRecognizer(a_plan, request)
    edges = [0, *sorted(cuts), len(PCM)]
    pieces = [r for a, b in itertools.pairwise(edges) for r in script.feed(PCM[a:b])]
    assert pieces + script.finish() == whole


@settings(max_examples=12, deadline=None)
@given(cut=st.integers(0, len(PCM)), eou=st.integers(0, len(PCM)))
def test_force_eou_depends_on_its_place_only(cut: int, eou: int) -> None:
    def run(*edges: int) -> list[RawResponse]:
        script = ScriptedRecognizer(plan(), Request(words=True))
        found: list[RawResponse] = []
        at = 0
        for edge in sorted({*edges, eou, len(PCM)}):
            found += script.feed(PCM[at:edge])
            if edge == eou:
                found += script.force_eou()
            at = edge
        return found + script.finish()

    assert run(cut) == run()


def test_force_eou_ends_the_utterance_and_the_stream_goes_on() -> None:
    script = ScriptedRecognizer(plan())
    script.feed(silence(700))
    assert texts(script.force_eou(), final=True) == ["one two three "]
    assert script.force_eou() == []
    assert texts(script.feed(silence(1000)), final=True) == ["seven "]


def test_server_chunks_keep_their_places_after_a_forced_end() -> None:
    script = ScriptedRecognizer(plan())
    script.feed(silence(250))
    script.force_eou()
    assert len(script.feed(silence(69))) == 0
    assert len(script.feed(silence(1))) == 1
    assert script.processed_ms == 320


def test_the_end_includes_a_word_that_was_half_heard() -> None:
    assert texts(play(plan(), silence(430)), final=True) == ["one two "]
    assert texts(play(plan(), silence(400)), final=True) == ["one "]


def test_partials_split_into_a_stable_head_and_a_tail() -> None:
    responses = play(plan(shape={"partials": "split"}), silence(1800))
    split = [r for r in responses if len([x for x in r.results if not x.is_final]) == 2]
    assert split
    head, tail = split[-1].results[:2]
    assert head.stability > tail.stability
    assert head.alternatives[0].transcript + tail.alternatives[0].transcript == "one two three four five six"


def test_partials_are_rewritten() -> None:
    partials = texts(play(plan(shape={"partials": "rewrite"}), silence(700)), final=False)
    assert partials[:3] == ["eno", "one", "one owt"]


def test_partials_shrink() -> None:
    partials = texts(play(plan(shape={"partials": "shrink"}), silence(1800)), final=False)
    assert "four five" in partials
    assert any(len(b) < len(a) for a, b in itertools.pairwise(partials))


def test_partials_can_be_left_out_or_repeated() -> None:
    assert texts(play(plan(shape={"partials": "none"}), silence(2000)), final=False) == []
    assert texts(play(plan(), silence(2000), Request(interim_results=False)), final=False) == []
    repeated = texts(play(plan(shape={"repeat_partials": True}), silence(960)), final=False)
    assert repeated == ["one", "one", "one two", "one two", "one two three"]


def test_partials_may_carry_words() -> None:
    found = results(play(plan(shape={"partial_words": True, "partials": "split"}), silence(1200)))
    assert [w.text for w in found[-2].alternatives[0].words] == ["three", "four"]


def test_two_pass_end_of_utterance() -> None:
    for a_plan, request in (
        (plan(shape={"eager_eou_ms": 240}), Request()),
        (plan(), Request(eager_ms=240)),
    ):
        found = results(play(a_plan, silence(2400), request))
        eager = [r for r in found if r.stability == 1.0]
        assert [r.alternatives[0].transcript for r in eager] == ["one two three four five six"]
        assert found[found.index(eager[0]) + 1].is_final


@pytest.mark.parametrize(
    ("space", "expected"),
    [("trailing", ["a ", "b "]), ("leading", ["a", " b"]), ("none", ["a", "b"])],
)
def test_blanks_around_finals(space: str, expected: list[str]) -> None:
    a_plan = plan(utterances=["a", "b"], shape={"final_space": space})
    assert texts(play(a_plan, silence(4000)), final=True) == expected


def test_empty_finals_and_finals_without_alternatives() -> None:
    a_plan = plan(
        utterances=[{"words": []}, {"words": "noise", "final": "empty"}, {"words": "x", "final": "no_alternatives"}]
    )
    finals = [r for r in results(play(a_plan, silence(6000))) if r.is_final]
    assert [[a.transcript for a in f.alternatives] for f in finals] == [[""], [""], []]
    assert texts(play(a_plan, silence(6000)), final=False) == ["noise", "x"]


def test_a_final_and_the_next_partial_in_one_response() -> None:
    responses = play(plan(shape={"hold_final": True}), silence(6000))
    both = [r for r in responses if [x.is_final for x in r.results] == [True, False]]
    assert [x.alternatives[0].transcript for x in both[0].results] == ["one two three four five six ", "seven"]
    assert texts(responses, final=True) == ["one two three four five six ", "seven "]


def test_never_final() -> None:
    responses = play(plan(shape={"never_final": True}), silence(6000))
    assert texts(responses, final=True) == []
    assert texts(responses, final=False)[-1] == "one two three four five six seven"


def test_an_endless_utterance_forgets_its_head() -> None:
    a_plan = plan(loop=True, utterances=[{"words": "a b", "word_ms": 1, "pause_ms": 0}], shape={"never_final": True})
    partials = texts(play(a_plan, silence(6000)), final=False)
    assert len(partials[-1].split()) == 2000


def test_voice_activity_comes_in_a_result_of_its_own() -> None:
    pcm = tone(160) + silence(160)
    first, second = ScriptedRecognizer(plan(hears="speech"), Request(vad_probabilities=True)).feed(pcm)
    assert first.results[0].alternatives == ()
    assert min(first.results[0].vad) > 0.9 > 0.1 > max(second.results[0].vad)
    assert not any(r.vad for r in results(play(plan(hears="speech"), pcm)))
    assert any(r.vad for r in results(play(plan(hears="speech", shape={"pipeline_states": "always"}), pcm)))


def test_confidence_speakers_and_languages() -> None:
    a_plan = plan(
        utterances=[{"words": "hi", "speaker": 0}, {"words": "hola", "speaker": 1, "language": "es-US"}],
        shape={"confidence": -1.78, "word_confidence": -0.5, "speaker_base": 0},
    )
    finals = [r for r in results(play(a_plan, silence(4000), Request(diarization=True))) if r.is_final]
    assert [f.alternatives[0].confidence for f in finals] == [-1.78, -1.78]
    assert [f.alternatives[0].words[0].speaker_tag for f in finals] == [0, 1]
    assert [f.alternatives[0].words[0].language for f in finals] == ["en-US", "es-US"]
    based = plan(utterances=["hi"], shape={"speaker_base": 1})
    assert results(play(based, silence(2000), Request(diarization=True)))[-1].alternatives[0].words[0].speaker_tag == 1


def test_alternatives_as_far_as_asked_for() -> None:
    a_plan = plan(utterances=[{"words": "hi there", "alternatives": ["hi their", "high there"]}])

    def final(wanted: int) -> RawResult:
        return results(play(a_plan, silence(2000), Request(max_alternatives=wanted)))[-1]

    assert [a.transcript for a in final(2).alternatives] == ["hi there ", "hi their "]
    assert len(final(1).alternatives) == 1


def test_a_request_may_set_the_silence_or_take_it_away() -> None:
    utterances = [{"words": "a", "pause_ms": 600}, {"words": "b", "pause_ms": 600}]
    a_plan = plan(utterances=utterances)
    assert texts(play(a_plan, silence(3000)), final=True) == ["a ", "b "]
    assert texts(play(a_plan, silence(3000), Request(silence_ms=800)), final=True) == ["a b "]
    responses = play(a_plan, silence(3000), Request(manual=True))
    assert texts(responses, final=True) == ["a b "]
    assert responses[-1].results[-1].is_final


def test_times_hold_at_any_rate() -> None:
    for rate_hz in (8000, 11_025, 44_100, 48_000):
        found = results(play(plan(hears="speech"), tone(1000, rate_hz), Request(rate_hz=rate_hz, words=True)))
        starts = [w.start_ms for w in found[-1].alternatives[0].words]
        assert starts == pytest.approx([0, 280, 560, 840], abs=20)
        assert abs(found[-1].audio_processed_ms - 1000) <= 1


@pytest.mark.parametrize(
    ("fault", "answered"),
    [
        ({"kind": "unavailable", "at_ms": 500}, 4),
        ({"kind": "internal", "at_chunk": 3}, 3),
        ({"kind": "hang", "at_chunk": 9, "at_ms": 320}, 2),
        ({"kind": "half_open"}, 0),
    ],
)
def test_faults_fall_at_their_place_and_silence_the_script(fault: dict[str, Any], answered: int) -> None:
    script = ScriptedRecognizer(plan(faults=[fault]))
    assert len(script.feed(silence(3000))) == answered
    assert script.fault is not None
    assert script.fault.kind == fault["kind"]
    assert script.feed(silence(1000)) + script.force_eou() + script.finish() == []


def test_faults_may_name_their_streams() -> None:
    a_plan = plan(faults=[{"kind": "unavailable", "streams": [2, 3]}])
    assert [ScriptedRecognizer(a_plan, stream=n).fault is not None for n in (1, 2, 3, 4)] == [False, True, True, False]


def test_a_fault_in_the_tail_is_seen_at_the_end() -> None:
    script = ScriptedRecognizer(plan(faults=[{"kind": "internal", "at_ms": 90}]))
    assert script.feed(silence(100)) == []
    script.finish()
    assert script.fault is not None
