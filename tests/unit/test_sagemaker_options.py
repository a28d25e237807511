"""What the query of a plain SageMaker stream means."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from asr.audio import AudioFormat, Encoding
from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Phrase
from server.faces.sagemaker_options import PlainRequest, read_query


def read(query: str) -> PlainRequest:
    return read_query(parse_qs(query, keep_blank_values=True))


def test_nothing_said() -> None:
    request = read("")
    assert request.format == AudioFormat(Encoding.PCM_S16LE, 16_000, 1)
    assert request.interim
    assert request.options.partials
    assert not request.notes


def test_what_a_hosted_services_client_sends_unasked() -> None:
    request = read(
        "detect_entities=false&diarize=false&dictation=false&interim_results=true&numerals=false&punctuate=true"
        "&smart_format=false&model=nova-3&language=en&encoding=linear16&channels=1&multichannel=false&sample_rate=24000"
    )
    assert request.format == AudioFormat(Encoding.PCM_S16LE, 24_000, 1)
    assert (request.options.language, request.options.model, request.options.punctuate) == ("en", "", True)
    assert request.options.diarization is None
    assert len(request.notes) == 1
    assert "nova-3" in request.notes[0]


def test_everything_that_is_understood() -> None:
    request = read(
        "language_code=de-DE&model=parakeet&interim_results=false&diarize=true&max_speakers=3&keyterm=Riva&keyterm=NIM"
        "&endpointing=300&profanity_filter=true&encoding=mulaw&sample_rate=8000&channels=2"
    )
    options = request.options
    assert (options.language, options.model, options.partials, request.interim) == ("de-DE", "parakeet", False, False)
    assert options.diarization == Diarization(3)
    assert options.phrases == (Phrase("Riva"), Phrase("NIM"))
    assert options.endpointing == Endpointing(silence_ms=300)
    assert options.profanity_filter
    assert request.format == AudioFormat(Encoding.MULAW, 8_000, 2)
    assert read("endpointing=false").options.endpointing == Endpointing(manual=True)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("encoding=smoke", "encoding"),
        ("sample_rate=fast", "sample_rate"),
        ("sample_rate=1", "audio.sample_rate_hz"),
        ("channels=99", "audio.channels"),
        ("interim_results=perhaps", "interim_results"),
        ("endpointing=0", "endpointing.silence_ms"),
        ("channels=-1", "channels"),
    ],
)
def test_a_value_that_cannot_be_understood_is_named(query: str, param: str) -> None:
    with pytest.raises(ASRError) as told:
        read(query)
    assert (told.value.code, told.value.param) == (Code.BAD_REQUEST, param)
