"""The form of OpenAI's transcription call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing
from server.faces.openai_form import Wanted, read_wanted


def read(*values: tuple[str, str], refuse: bool = False) -> Wanted:
    return read_wanted(values, refuse=refuse)


def test_an_empty_form_wants_json_without_partials_or_word_times() -> None:
    wanted = read()
    assert (wanted.response_format, wanted.stream, wanted.granularities) == ("json", False, ("segment",))
    assert (wanted.options.language, wanted.options.model) == ("", "")
    assert not wanted.options.partials
    assert not wanted.options.words
    assert wanted.notes == ()


def test_the_fields_that_say_what_is_spoken() -> None:
    wanted = read(("model", "whisper-1"), ("language", "english"), ("prompt", "Riva, NIM"), ("keywords[]", "Triton"))
    assert (wanted.options.model, wanted.options.language) == ("whisper-1", "en")
    assert [phrase.text for phrase in wanted.options.phrases] == ["Triton", "Riva", "NIM"]


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
def test_granularities_with_and_without_brackets(name: str) -> None:
    wanted = read(("response_format", "verbose_json"), (name, "word"), (name, "segment"))
    assert wanted.granularities == ("word", "segment")
    assert wanted.options.words
    listed = read(("response_format", "verbose_json"), (name, '["word"]'))
    assert listed.granularities == ("word",)
    assert read(("response_format", "verbose_json"), (name, "word,segment")).granularities == ("word", "segment")


@pytest.mark.parametrize(("response_format", "words"), [("json", False), ("text", False), ("srt", True), ("vtt", True)])
def test_captions_follow_the_words_own_times(response_format: str, *, words: bool) -> None:
    assert read(("response_format", response_format)).options.words is words


def test_diarized_json_asks_for_speakers() -> None:
    wanted = read(("response_format", "diarized_json"))
    assert wanted.options.diarization == Diarization()
    assert wanted.options.words


def test_partials_are_wanted_for_a_stream_alone() -> None:
    assert read(("stream", "true")).options.partials
    assert read(("stream", "TRUE")).stream
    assert not read(("stream", "false")).stream
    assert not read(("stream", "true"), ("response_format", "diarized_json")).options.partials


@pytest.mark.parametrize(
    "fields",
    [
        [("chunking_strategy", '{"type":"server_vad","silence_duration_ms":400}')],
        [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[silence_duration_ms]", "400")],
    ],
)
def test_a_chunking_strategy_sets_the_pause_that_ends_an_utterance(fields: list[tuple[str, str]]) -> None:
    wanted = read(*fields)
    assert wanted.options.endpointing == Endpointing(silence_ms=400)
    assert wanted.notes == ()
    assert read(("chunking_strategy", "auto")).options.endpointing is None


NOTED = [
    ([("include[]", "logprobs")], "include"),
    ([("known_speaker_names[]", "agent")], "known_speaker_names"),
    ([("known_speaker_references[]", "data:audio/wav;base64,AA==")], "known_speaker"),
    ([("chunking_strategy", '{"type":"server_vad","threshold":0.4}')], "threshold"),
    ([("timestamp_granularities[]", "word")], "verbose_json"),
    ([("stream", "true"), ("response_format", "srt")], "srt"),
    ([("languages[]", "en"), ("languages[]", "de")], "One language"),
]


@pytest.mark.parametrize(("fields", "said"), NOTED)
def test_what_cannot_be_done_is_noted_or_refused_by_policy(fields: list[tuple[str, str]], said: str) -> None:
    (note,) = read(*fields).notes
    assert said in note
    with pytest.raises(ASRError) as refused:
        read(*fields, refuse=True)
    assert refused.value.code is Code.UNSUPPORTED
    assert refused.value.param


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([("temperature", "0.4")], "temperature"),
        ([("user", "me"), ("seed", "1")], "'user', 'seed'"),
        ([("prompt", "and so on and so forth until the end")], "prompt"),
    ],
)
def test_what_does_no_harm_is_noted_only(fields: list[tuple[str, str]], said: str) -> None:
    (note,) = read(*fields, refuse=True).notes
    assert said in note


def test_a_temperature_of_zero_is_what_happens_anyway() -> None:
    assert read(("temperature", "0")).notes == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("response_format", "docx")], "response_format"),
        ([("stream", "maybe")], "stream"),
        ([("temperature", "warm")], "temperature"),
        ([("temperature", "nan")], "temperature"),
        ([("temperature", "2")], "temperature"),
        ([("timestamp_granularities[]", "letter")], "timestamp_granularities"),
        ([("chunking_strategy", "{")], "chunking_strategy"),
        ([("chunking_strategy", "sometimes")], "chunking_strategy"),
        ([("chunking_strategy", '{"type":"server_vad","silence_duration_ms":1e999}')], "chunking_strategy"),
        ([("chunking_strategy", '{"type":"server_vad","silence_duration_ms":null}')], "chunking_strategy"),
    ],
)
def test_a_wrong_value_names_its_field(fields: list[tuple[str, str]], param: str) -> None:
    with pytest.raises(ASRError) as wrong:
        read(*fields)
    assert (wrong.value.code, wrong.value.param) == (Code.BAD_REQUEST, param)


NAMES = ["response_format", "stream", "temperature", "chunking_strategy", "languages[]", "timestamp_granularities[]"]


def outcome(values: list[tuple[str, str]]) -> Code | None:
    try:
        read_wanted(values)
    except ASRError as error:
        error.message.encode()
        return error.code
    return None


@given(st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=9), st.text(max_size=40))))
def test_nothing_but_an_answer_in_words_comes_of_any_form(values: list[tuple[str, str]]) -> None:
    assert outcome(values) in (None, Code.BAD_REQUEST)
