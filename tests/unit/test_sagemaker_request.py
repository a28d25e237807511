"""Which way a SageMaker invocation goes, and what it asks for."""

from __future__ import annotations

import base64
import json
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
    read_attributes,
    read_json,
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


def test_json_with_base64() -> None:
    audio = base64.b64encode(b"RIFF...").decode()
    request = read_json(
        json.dumps({"audio": audio, "speaker_diarization": True, "max_speakers": 4, "x": None}).encode()
    )
    assert request.audio == b"RIFF..."
    assert [request.field(name) for name in ("speaker_diarization", "max_speakers", "x", "y")] == ["true", "4", "", ""]


def test_base64_may_be_a_data_url_and_in_lines() -> None:
    audio = base64.encodebytes(bytes(200)).decode()
    assert read_json(json.dumps({"audio": f"data:audio/wav;base64,{audio}"}).encode()).audio == bytes(200)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"audio": 7}',
        b'{"file": "UklG"}',
        b'{"audio": "*"}',
        b'{"audio": "U"}',
        b'{"audio": ""}',
    ],
)
def test_json_that_cannot_be_used(body: bytes) -> None:
    with pytest.raises(ASRError) as told:
        read_json(body)
    assert told.value.code in (Code.BAD_REQUEST, Code.BAD_AUDIO)
