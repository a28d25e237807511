"""Which way a SageMaker invocation goes, and what it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from asr.errors import ASRError, Code
from asr.options import Diarization, Options
from server.faces.sagemaker_request import (
    ATTRIBUTES_HEADER,
    MAX_HTTP_BYTES,
    Way,
    choose,
    forced_way,
    left_out,
    read_attributes,
    read_members,
    read_options,
)


@pytest.mark.parametrize(
    ("header", "way"),
    [
        ("", Way.AUTO),
        ("/invocations", Way.AUTO),
        ("/invocations/", Way.AUTO),
        ("/invocations/http", Way.HTTP),
        ("/invocations/grpc", Way.GRPC),
        ("/invocations/grpc/", Way.GRPC),
        (f"{ATTRIBUTES_HEADER}=/invocations/http", Way.HTTP),
        (f"{ATTRIBUTES_HEADER}=/invocations/grpc", Way.GRPC),
        (f"{ATTRIBUTES_HEADER.lower()}=/invocations/grpc", Way.GRPC),
        (f'"{ATTRIBUTES_HEADER}=/invocations/grpc"', Way.GRPC),
        (f"{ATTRIBUTES_HEADER}=transport=grpc", Way.GRPC),
        ("transport=grpc", Way.GRPC),
        ("Transport=HTTP", Way.HTTP),
        ("trace_id=abc-123; transport=grpc", Way.GRPC),
        ("trace_id=abc-123,transport=http", Way.HTTP),
        ("some words of the caller's own", Way.AUTO),
        ("/elsewhere", Way.AUTO),
        ("=;=,,;", Way.AUTO),
    ],
)
def test_every_spelling_of_the_custom_attributes(header: str, way: Way) -> None:
    assert forced_way(Way.AUTO, read_attributes(header)) is way


def test_the_path_wins_over_the_attributes() -> None:
    assert forced_way(Way.GRPC, {"transport": "http"}) is Way.GRPC


@pytest.mark.parametrize("header", ["/invocations/smoke", "transport=carrier-pigeon"])
def test_a_route_that_there_is_not_is_refused_by_name(header: str) -> None:
    with pytest.raises(ASRError, match=r"smoke|carrier-pigeon") as told:
        forced_way(Way.AUTO, read_attributes(header))
    assert told.value.code is Code.BAD_REQUEST


def chosen(way: Way = Way.AUTO, **more: Any) -> tuple[str, bool, str]:
    given: dict[str, Any] = {"size_bytes": 1000, "head": b"RIFF", "diarization": False, "has_nim": True, **more}
    found = choose(way, **given)
    return found.way.value, found.may_turn, found.why_not


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ("http", True, "")),
        ({"size_bytes": MAX_HTTP_BYTES}, ("http", True, "")),
        ({"size_bytes": MAX_HTTP_BYTES + 1}, ("grpc", False, "")),
        ({"diarization": True}, ("grpc", False, "")),
        ({"has_nim": False}, ("grpc", False, "")),
        ({"head": b"fLaC"}, ("http", True, "")),
        ({"head": b"OggS"}, ("http", True, "")),
        ({"head": b"ID3\x04"}, ("grpc", False, "")),
        ({"head": b""}, ("grpc", False, "")),
    ],
)
def test_small_and_simple_recordings_go_over_http(more: dict[str, Any], expected: tuple[str, bool, str]) -> None:
    assert chosen(**more) == expected


def test_a_forced_route_is_taken_whatever_the_recording_is() -> None:
    assert chosen(Way.HTTP, size_bytes=10**8, head=b"ID3\x04") == ("http", False, "")
    assert chosen(Way.GRPC) == ("grpc", False, "")


def test_what_the_http_route_cannot_do_is_told_or_refused_by_policy() -> None:
    for more, why in (({"has_nim": False}, "not-configured"), ({"diarization": True}, "")):
        given: dict[str, Any] = {"size_bytes": 1, "head": b"RIFF", "diarization": False, "has_nim": True, **more}
        found = choose(Way.HTTP, **given)
        assert found.note
        assert found.why_not == why
        with pytest.raises(ASRError) as told:
            choose(Way.HTTP, **given, refuse_unsupported=True)
        assert told.value.code is Code.UNSUPPORTED


def options(**fields: str) -> Options:
    return read_options(lambda name: fields.get(name, ""))


def test_fields_become_options() -> None:
    asked = options(language_code="en-US", model="m", speaker_diarization="true", max_speakers="4")
    assert (asked.language, asked.model, asked.diarization) == ("en-US", "m", Diarization(4))
    assert asked.words
    assert not asked.partials


def test_language_has_two_names_and_speakers_a_default() -> None:
    assert options(language="de-DE").language == "de-DE"
    assert options(language="de-DE", language_code="en-US").language == "en-US"
    assert options(speaker_diarization="True").diarization == Diarization(10)
    assert options(speaker_diarization="false", max_speakers="3").diarization is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"speaker_diarization": "perhaps"}, "speaker_diarization"),
        ({"speaker_diarization": "true", "max_speakers": "many"}, "max_speakers"),
        ({"speaker_diarization": "true", "max_speakers": "-1"}, "diarization.max_speakers"),
    ],
)
def test_a_field_that_cannot_be_understood_is_named(fields: dict[str, str], param: str) -> None:
    with pytest.raises(ASRError) as told:
        options(**fields)
    assert told.value.param == param


def test_members_of_json_as_a_forms_fields() -> None:
    fields = read_members({"speaker_diarization": True, "max_speakers": 4, "language_code": " en-US\r\n", "x": [1]})
    assert fields == {"speaker_diarization": "true", "max_speakers": "4", "language_code": "en-US", "x": ""}


def test_fields_that_mean_nothing_here_are_said() -> None:
    (note,) = left_out(["language_code", "punctuate", "filename", "colour"])
    assert "'punctuate', 'colour'" in note
    assert left_out(["model", "max_speakers"]) == ()
