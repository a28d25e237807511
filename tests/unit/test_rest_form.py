"""What a client of the transcription REST may ask for, in whatever words."""

from __future__ import annotations

import pytest

from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Options, Phrase
from server.faces.rest_form import Asked, read_asked, read_format, read_json_fields


def asked(**fields: str) -> Asked:
    return read_asked(list(fields.items()))


def refused(**fields: str) -> ASRError:
    with pytest.raises(ASRError) as caught:
        asked(**fields)
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.param in fields
    return caught.value


def test_nothing_said_is_text_with_segments() -> None:
    found = asked()
    assert found == Asked(Options(partials=False, words=True))
    assert found.timestamps
    assert found.format == "json"


def test_the_documented_fields() -> None:
    found = asked(model="canary", language="de", include_timestamps="false")
    assert (found.options.model, found.options.language) == ("canary", "de")
    assert not found.timestamps
    assert not found.options.words


def test_values_may_end_in_a_line_end_and_names_in_brackets() -> None:
    found = read_asked([("language", "en\r\n"), ("phrases[]", "Riva"), ("phrases[]", "Triton ")])
    assert found.options.language == "en"
    assert found.options.phrases == (Phrase("Riva"), Phrase("Triton"))


def test_the_last_of_several_counts() -> None:
    assert read_asked([("language", "en"), ("language", "fr")]).options.language == "fr"


@pytest.mark.parametrize(("word", "means"), [("TRUE", True), ("1", True), ("off", False), ("no", False), ("", None)])
def test_flags(word: str, means: bool | None) -> None:
    assert asked(punctuate=word).options.punctuate is means


def test_every_wish_reaches_the_recognizer() -> None:
    found = asked(
        words="true", punctuate="true", verbatim="false", profanity_filter="1", diarization="true", max_speakers="3",
        silence_ms="900", stereo="split", format="vtt",
    )  # fmt: skip
    assert found.options == Options(
        partials=False, words=True, punctuate=True, verbatim=False, profanity_filter=True,
        diarization=Diarization(3), endpointing=Endpointing(silence_ms=900),
    )  # fmt: skip
    assert (found.words, found.stereo, found.format) == (True, "split", "vtt")


def test_captions_need_the_times_of_words() -> None:
    assert asked(format="srt", include_timestamps="false").options.words


def test_a_number_of_speakers_asks_for_them() -> None:
    assert asked(max_speakers="2").options.diarization == Diarization(2)
    assert asked(max_speakers="2", diarization="false").options.diarization is None


@pytest.mark.parametrize(
    "given",
    ["Riva NIM", '["Riva NIM"]', '{"text": "Riva NIM"}', '[{"text": "Riva NIM", "boost": 0.5}]'],
)
def test_phrases_in_every_form(given: str) -> None:
    assert asked(phrases=given).options.phrases == (Phrase("Riva NIM"),)


def test_wrong_values_are_named() -> None:
    refused(include_timestamps="perhaps")
    refused(max_speakers="many")
    refused(silence_ms="long")
    refused(stereo="left")
    refused(format="docx")
    refused(phrases='[{"boost": 1}]')
    refused(phrases='{"text": "Riva", "boost": 7}')


def test_unknown_fields_are_said_to_be() -> None:
    (note,) = asked(modell="x", temperature="0").notes
    assert "'modell'" in note
    assert "'temperature'" in note
    assert asked(model="x").notes == ()


def test_fields_of_jobs_are_theirs_alone() -> None:
    fields = [("webhook_url", "https://example.org/x"), ("labels", '{"a": "b"}'), ("idempotency_key", "k")]
    found = read_asked(fields, job=True)
    assert (found.webhook_url, found.labels, found.idempotency_key) == ("https://example.org/x", (("a", "b"),), "k")
    assert found.notes == ()
    waiting = read_asked(fields)
    assert (waiting.webhook_url, waiting.labels, waiting.idempotency_key) == ("", (), "")
    assert "webhook_url" in waiting.notes[0]
    for wrong in ("[1]", "x", '{"a": 1}', '{"a": "\\ud800"}'):
        with pytest.raises(ASRError, match="labels"):
            read_asked([("labels", wrong)], job=True)


def test_formats() -> None:
    assert read_format("") == read_format("JSON") == "json"


def test_a_job_says_that_it_leaves_stereo_to_the_gateway() -> None:
    assert "'stereo'" in read_asked([("stereo", "split")], job=True).notes[0]
    assert read_asked([("stereo", "split")]).notes == ()


def test_json_means_what_the_form_means() -> None:
    members = {"filename": "a.wav", "include_timestamps": False, "max_speakers": 2, "x": None}
    fields = read_json_fields(members | {"phrases": ["a", {"text": "b"}]})
    found = read_asked(fields)
    assert not found.timestamps
    assert found.options.diarization == Diarization(2)
    assert found.options.phrases == (Phrase("a"), Phrase("b"))
    assert dict(fields)["filename"] == "a.wav"
    assert found.notes == ()


def test_json_that_is_no_set_of_fields() -> None:
    deep: list[object] = []
    for _ in range(5_000):
        deep = [deep]
    for members, words in (({"labels": deep[0]}, "too deep"), ({"phrases": ["x"] * 3_000}, "more than 2000")):
        with pytest.raises(ASRError, match=words) as caught:
            read_json_fields(members)
        assert caught.value.code is Code.BAD_REQUEST


def test_values_of_json_as_text() -> None:
    assert read_json_fields({"a": True, "b": 1.5, "c": ["x", 2], "audio": "…", "d": None}) == [
        ("a", "true"), ("b", "1.5"), ("c", "x"), ("c", "2"),
    ]  # fmt: skip
