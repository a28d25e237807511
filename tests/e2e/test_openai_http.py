"""OpenAI's HTTP dialect on the running server: formats, streams, bounds, and an answer in words for whatever comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import sound
import speech
from asr.engine import AudioInput, Features
from asr.events import Event
from asr.options import Options
from server.serve import Addresses
from word_engine import WordEngine

from .gateway import PATIENCE_S, running

SECOND = bytes(32_000)
URL = "/v1/audio/transcriptions"


@contextlib.asynccontextmanager
async def client(addresses: Addresses) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=addresses.url, timeout=PATIENCE_S, trust_env=False) as opened:
        yield opened


async def send(
    addresses: Addresses, data: bytes | None = None, name: str = "a.wav", **fields: str | list[str]
) -> httpx2.Response:
    files = {"file": (name, sound.wav(SECOND * 2) if data is None else data)}
    async with client(addresses) as http:
        return await http.post(URL, files=files, data=fields)


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def notes(answer: httpx2.Response) -> list[str]:
    return answer.headers.get_list("riva-gateway-note")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


class Listening(WordEngine):
    """Remembers what it was asked for."""

    def __init__(self, fault: str = "", **features: bool) -> None:
        super().__init__(fault)
        self.asked: list[Options] = []
        self._features = features

    @property
    def features(self) -> Features:
        return Features(**self._features)

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self.asked.append(options)
        async with contextlib.aclosing(super().stream(audio, options)) as heard:
            async for event in heard:
                yield event


async def until(what: str, holds: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)
    assert holds(), what


async def test_every_format(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        plain = await send(addresses)
        text = await send(addresses, response_format="text")
        verbose = await send(
            addresses, response_format="verbose_json", **{"timestamp_granularities[]": ["word", "segment"]}
        )
        srt = await send(addresses, response_format="srt")
        vtt = await send(addresses, response_format="vtt")
    words = [f"w{n}" for n in range(1, 11)]
    assert plain.json() == {"text": " ".join(words), "usage": {"type": "duration", "seconds": 2.0}}
    assert text.text == " ".join(words) + "\n"
    assert [word["word"] for word in verbose.json()["words"]] == words
    assert [segment["end"] for segment in verbose.json()["segments"]] == [1.0, 2.0]
    assert verbose.json()["language"] == "english"
    assert srt.text.startswith("1\n00:00:00,000 --> ")
    assert vtt.text.startswith("WEBVTT\n")
    for answer in (text, srt, vtt):
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert not any(notes(answer) for answer in (plain, text, verbose, srt, vtt))


def _tone() -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.frombuffer(sound.pcm16(sound.tone(300, 2.0, 48_000)), dtype=np.int16)


KINDS = [
    ("a.flac", "flac", "flac"),
    ("a.mp3", "libmp3lame", "mp3"),
    ("a.ogg", "libopus", "ogg"),
    ("a.webm", "libopus", "webm"),
    ("a.m4a", "aac", "ipod"),
    ("a.mp4", "aac", "mp4"),
]


async def test_every_container_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        for name, codec, container in KINDS:
            data = sound.encoded(_tone(), 48_000, codec, container)
            for called in (name, "audio", "wrong.wav"):
                answer = await send(addresses, data, called)
                assert answer.status_code == 200, (name, answer.text)
                assert answer.json()["usage"]["seconds"] == pytest.approx(2.0, abs=0.1), name
                assert answer.json()["text"].startswith("w1 w2"), name


@pytest.mark.slow
async def test_the_greeting_gives_its_words(tmp_path: Path) -> None:
    clip = speech.clip("greeting")
    async with running(None, tmp_path, asr_engine="local") as addresses:
        for name in ("greeting.wav", "greeting.flac", "greeting_44k_stereo.wav"):
            answer = await send(addresses, speech.path(name).read_bytes(), name, language="en", model="whisper-1")
            assert speech.wer(clip.text, answer.json()["text"]) <= clip.max_wer, name


BAD: list[tuple[str, bytes, str]] = [
    ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(5000), "a.png: "),
    ("text", b"This is a letter, not a recording. " * 50, "a.png: "),
    ("a header without audio", sound.wav(b""), "empty"),
    ("half a header", sound.wav(SECOND)[:30], "header"),
    ("an mp3 that is none", b"ID3\x04" + bytes(4000), "a.png: "),
    ("a flac that ends in its header", speech.path("greeting.flac").read_bytes()[:40], "a.png: "),
    ("nothing", b"", "empty"),
    ("a rate from nowhere", sound.wav(SECOND, sound.fmt(rate_hz=1)), "rates from"),
    ("nine channels", sound.wav(SECOND, sound.fmt(channels=9)), "channels"),
]


@pytest.mark.parametrize(("data", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
@pytest.mark.parametrize("stream", ["false", "true"])
async def test_what_is_not_audio_is_a_400_in_words(data: bytes, words: str, stream: str, tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await send(addresses, data, "folder/a.png", stream=stream)
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["code"], error["type"], error["param"]) == ("bad_audio", "invalid_request_error", "file")
    assert words in error["message"]
    assert ".upload" not in error["message"]


ODD: list[tuple[str, bytes, float, str]] = [
    ("a truncated wav", sound.wav(SECOND, size=96_000), 1.0, "truncated"),
    ("a wav of unknown length", sound.wav(SECOND, size=0xFFFFFFFF), 1.0, ""),
    ("a wav that claims nothing", sound.wav(SECOND, size=0), 1.0, ""),
    ("a wav that claims too little", sound.wav(SECOND, size=8_000), 1.0, "header"),
    ("stereo", sound.wav(SECOND * 2, sound.fmt(channels=2)), 1.0, "mixed down"),
    ("8 kHz", sound.wav(SECOND[:16_000], sound.fmt(rate_hz=8_000)), 1.0, ""),
    ("44.1 kHz", sound.wav(bytes(88_200), sound.fmt(rate_hz=44_100)), 1.0, ""),
    ("48 kHz", sound.wav(bytes(96_000), sound.fmt(rate_hz=48_000)), 1.0, ""),
    ("24 bits", sound.wav(bytes(48_000), sound.fmt(bits=24)), 1.0, ""),
    ("µ-law", sound.wav(bytes([0xFF]) * 8_000, sound.fmt(tag=7, rate_hz=8_000, bits=8)), 1.0, ""),
    ("an odd byte", sound.wav(SECOND + b"\0"), 1.0, "odd"),
]


@pytest.mark.parametrize(("data", "seconds", "note"), [o[1:] for o in ODD], ids=[o[0] for o in ODD])
async def test_what_is_odd_is_heard_whole_and_noted(data: bytes, seconds: float, note: str, tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await send(addresses, data)
    assert answer.status_code == 200
    assert answer.json()["usage"]["seconds"] == pytest.approx(seconds, abs=0.002)
    assert bool(notes(answer)) == bool(note), notes(answer)
    assert all(note in said for said in notes(answer))


async def test_flac_announced_as_wav_is_flac(tmp_path: Path) -> None:
    files = {"file": ("a.wav", speech.path("greeting.flac").read_bytes(), "audio/wav")}
    async with running(WordEngine(), tmp_path) as addresses, client(addresses) as http:
        answer = await http.post(URL, files=files)
    assert answer.json()["text"].startswith("w1 w2")


async def test_audio_that_turns_bad_is_an_error_and_a_stream_keeps_the_words_before_it(tmp_path: Path) -> None:
    data = sound.wav(SECOND) + sound.wav(SECOND, sound.fmt(rate_hz=8_000))
    async with running(WordEngine(), tmp_path) as addresses:
        whole = await send(addresses, data)
        stream = events((await send(addresses, data, stream="true")).text)
    assert (whole.status_code, error_of(whole)["code"]) == (400, "bad_audio")
    assert "".join(event["delta"] for event in stream[:-1]) == "w1 w2 w3 w4 w5"
    assert stream[-1]["error"]["code"] == "bad_audio"


async def test_stereo_is_refused_by_setting(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, stereo="refuse") as addresses:
        answer = await send(addresses, sound.wav(SECOND, sound.fmt(channels=2)))
    assert answer.status_code == 400
    assert "channel" in error_of(answer)["message"]


async def test_forms_that_are_none(tmp_path: Path) -> None:
    whole = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + sound.wav(SECOND)
    cases: list[tuple[str, bytes, str]] = [
        ("application/json", b"{}", "content-type"),
        ("audio/wav", sound.wav(SECOND), "content-type"),
        ("multipart/form-data", whole, "content-type"),
        ("multipart/form-data; boundary=b", whole, "body"),
        ("multipart/form-data; boundary=other", whole + b"\r\n--b--\r\n", "body"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n', "body"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
         "file"),
        ("application/x-www-form-urlencoded", b"file=x", "file"),
    ]  # fmt: skip
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses, client(addresses) as http:
        for kind, body, param in cases:
            answer = await http.post(URL, content=body, headers={"Content-Type": kind})
            assert answer.status_code == 400, (kind, answer.text)
            assert error_of(answer)["param"] == param, (kind, answer.text)
        nothing = await http.post(URL)
        assert (nothing.status_code, error_of(nothing)["param"]) == (400, "content-type")
    assert engine.streams == 0
    assert list((tmp_path / "spool").iterdir()) == []


async def test_too_large_is_413_and_too_long_400(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, max_upload_bytes=50_000, max_audio_ms=1_000) as addresses:
        assert (await send(addresses, sound.wav(SECOND))).status_code == 200
        large = await send(addresses, bytes(50_001))
        drops = await _chunked(addresses, bytes(60_000))
        long = await send(addresses, sound.wav(bytes(16_000 * 3), sound.fmt(rate_hz=16_000)))
        assert (large.status_code, drops.status_code, long.status_code) == (413, 413, 400)
        assert error_of(large)["code"] == error_of(drops)["code"] == "too_large"
        assert "minutes" in error_of(long)["message"]
        assert error_of(long)["param"] == "file"
        huge = await send(addresses, bytes(3_000_000))
        assert huge.status_code == 413
    assert list((tmp_path / "spool").iterdir()) == []


async def _chunked(addresses: Addresses, data: bytes) -> httpx2.Response:
    """A body of no stated length."""

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield data
        yield b"\r\n--b--\r\n"

    async with client(addresses) as http:
        return await http.post(URL, content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"})


async def test_the_recognizer_is_asked_for_what_the_form_says(tmp_path: Path) -> None:
    engine = Listening(phrases=True, diarization=True, endpointing=True)
    async with running(engine, tmp_path) as addresses:
        await send(addresses, language="english", model="words-en", prompt="Riva, Triton", **{"keywords[]": ["NIM"]})
        await send(addresses, response_format="diarized_json", chunking_strategy="auto", language="de")
        async with client(addresses) as http:
            named = await http.post(
                URL, files={"file": ("a.wav", sound.wav(SECOND))}, headers={"X-Request-Id": "call-7"}
            )
    first, second, third = engine.asked
    assert (first.language, first.model) == ("en-US", "words-en")
    assert [phrase.text for phrase in first.phrases] == ["NIM", "Riva", "Triton"]
    assert not first.partials
    assert second.diarization is not None
    assert (second.language, second.model) == ("de-DE", "words-de")
    assert third.request_id == named.headers["x-request-id"] == "call-7"


async def test_nim_clients_name_a_language_or_a_model_or_neither(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        for fields in ({"language": "en-US"}, {"model": "words-en"}, {"language": "multi", "model": "words-en"}, {}):
            answer = await send(addresses, **fields)
            known = fields.get("language") != "multi"
            assert answer.status_code == (200 if known else 404), (fields, answer.text)
        wrong = await send(addresses, model="tiny")
        assert wrong.status_code == 404
        assert error_of(wrong)["param"] == "model"
        assert "words-en" in error_of(wrong)["message"]


async def test_what_cannot_be_done_is_noted_or_refused(tmp_path: Path) -> None:
    fields = {"include[]": "logprobs", "prompt": "Riva", "temperature": "0.2", "seed": "7"}
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await send(addresses, **fields, model="gpt-4o-transcribe")
        said = " ".join(notes(answer))
        assert answer.status_code == 200
        for word in ("log probabilities", "phrases", "temperature", "'seed'", "'gpt-4o-transcribe'"):
            assert word in said
        diarized = await send(addresses, response_format="diarized_json")
        assert diarized.status_code == 400
        assert error_of(diarized)["code"] == "unsupported"
        assert error_of(diarized)["param"] == "response_format"
    async with running(WordEngine(), tmp_path, on_unsupported="refuse") as addresses:
        for field, value in (("include[]", "logprobs"), ("prompt", "Riva")):
            answer = await send(addresses, **{field: value})
            assert answer.status_code == 400
            assert error_of(answer)["code"] == "unsupported"


async def test_a_recognizer_without_word_times_is_noted_or_refused(tmp_path: Path) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    async with running(Listening(words=False), tmp_path) as addresses:
        assert any("times of words" in note for note in notes(await send(addresses, **fields)))
    async with running(Listening(words=False), tmp_path, on_unsupported="refuse") as addresses:
        assert (await send(addresses, **fields)).status_code == 400


async def test_a_stream_grows_the_text_and_ends_with_all_of_it(tmp_path: Path) -> None:
    engine = Listening()
    async with running(engine, tmp_path) as addresses:
        answer = await send(addresses, stream="true", model="whisper-1")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert engine.asked[0].partials
    assert "'whisper-1'" in notes(answer)[0]
    said = events(answer.text)
    assert {event["type"] for event in said[:-1]} == {"transcript.text.delta"}
    assert len(said) > 4
    text = " ".join(f"w{n}" for n in range(1, 11))
    assert "".join(event["delta"] for event in said[:-1]) == text
    assert said[-1] == {
        "type": "transcript.text.done",
        "text": text,
        "usage": {"type": "duration", "seconds": 2.0},
    }


async def test_a_stream_of_turns(tmp_path: Path) -> None:
    async with running(Listening(diarization=True), tmp_path) as addresses:
        answer = await send(addresses, stream="true", response_format="diarized_json")
    said = events(answer.text)
    kinds = [event["type"].removeprefix("transcript.text.") for event in said]
    assert kinds == ["delta", "segment", "delta", "segment", "done"]
    assert said[0]["segment_id"] == said[1]["id"]
    assert said[1]["speaker"] == "A"


async def test_odd_audio_is_told_at_the_end_of_a_stream(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await send(addresses, sound.wav(SECOND, size=96_000), stream="true")
    assert "truncated" in events(answer.text)[-1]["warnings"][0]


async def test_a_stream_that_fails_is_an_error_before_its_first_word_and_an_event_after(tmp_path: Path) -> None:
    for fault, status in (("refuses", 503), ("unavailable@0", 503)):
        async with running(WordEngine(fault), tmp_path) as addresses:
            for stream in ("true", "false"):
                answer = await send(addresses, sound.wav(b"\0\0"), stream=stream)
                assert answer.status_code == status
                assert int(answer.headers["retry-after"]) >= 1
                assert error_of(answer)["type"] == "server_error"
    async with running(WordEngine("unavailable@1000"), tmp_path) as addresses:
        answer = await send(addresses, stream="true")
        assert answer.status_code == 200
        said = events(answer.text)
        assert said[0]["type"] == "transcript.text.delta"
        assert said[-1]["error"]["code"] == "unavailable"
    async with running(WordEngine("bug@1000"), tmp_path) as addresses:
        said = events((await send(addresses, stream="true")).text)
        assert said[-1]["error"]["code"] == "internal"
        answer = await send(addresses)
        assert answer.status_code == 500
        assert error_of(answer)["code"] == "internal"


async def test_a_client_that_leaves_ends_the_work(tmp_path: Path) -> None:
    engine = WordEngine("hang@1000")
    async with running(engine, tmp_path, max_streams=1) as addresses:
        for fields in ({}, {"stream": "true"}):
            async with client(addresses) as http:
                files = {"file": ("a.wav", sound.wav(SECOND * 2))}
                call = asyncio.create_task(_read_all(http, files, fields))
                await until("the recognizer works", lambda: engine.open_streams == 1)
                full = await send(addresses)
                assert full.status_code == 503
                assert "retry-after" in full.headers
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            await until("the work has ended", lambda: engine.open_streams == 0)
            await until("the upload is gone", lambda: not list((tmp_path / "spool").iterdir()))
        engine.fault = ""
        assert (await send(addresses)).status_code == 200


async def _read_all(http: httpx2.AsyncClient, files: Any, fields: dict[str, str]) -> None:
    async with http.stream("POST", URL, files=files, data=fields) as answer:
        async for _ in answer.aiter_bytes():
            pass


async def test_a_client_that_leaves_in_the_middle_of_its_upload_leaves_nothing(tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses:
        _, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
        head = (
            f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            "Content-Length: 900000\r\n\r\n--b\r\n"
            'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        )
        writer.write(head.encode() + bytes(400_000))
        await writer.drain()
        spool = tmp_path / "spool"
        await until("the upload has begun", lambda: spool.is_dir() and list(spool.iterdir()))
        writer.transport.abort()
        await until("the upload is gone", lambda: not list(spool.iterdir()))
        assert (await send(addresses)).status_code == 200
    assert engine.streams == 1


async def curl(*args: str) -> str:
    command = ("curl", "-sv", "--noproxy", "*", "--max-time", "20", *args)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    out, _ = await process.communicate()
    return out.decode(errors="replace")


async def test_curl_asks_before_it_sends_much(tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(sound.wav(SECOND * 40))
    async with running(WordEngine(), tmp_path, max_upload_bytes=2_000_000) as addresses:
        asked = ["-H", "Expect: 100-continue", "-F", f"file=@{tmp_path / 'long.wav'}", addresses.url + URL]
        said = await curl(*asked, "-F", "response_format=text")
        assert "HTTP/1.1 100 Continue" in said
        assert "HTTP/1.1 200 OK" in said
        assert "w199 w200" in said
        (tmp_path / "long.wav").write_bytes(bytes(4_000_000))
        refused = await curl(*asked)
        assert "HTTP/1.1 413" in refused
        assert "HTTP/1.1 100" not in refused


async def test_translations_are_refused_in_words(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, client(addresses) as http:
        answer = await http.post("/v1/audio/translations", files={"file": ("a.wav", sound.wav(SECOND * 40))})
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "unsupported"
    assert "/v1/audio/transcriptions" in error_of(answer)["message"]


async def test_models_one_by_one(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, client(addresses) as http:
        one = await http.get("/v1/models/words-de")
        assert one.json()["id"] == "words-de"
        assert one.json()["object"] == "model"
        none = await http.get("/v1/models/whisper-9")
        assert none.status_code == 404
        assert "words-en" in error_of(none)["message"]


async def test_what_a_nim_tells_about_itself(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, client(addresses) as http:
        told = (await http.get("/v1/metadata")).json()
        assert [model["shortName"] for model in told["modelInfo"]] == ["words-en", "words-de"]
        assert told["version"] == (await http.get("/v1/version")).json()["release"]
        licence = (await http.get("/v1/license")).json()
        assert "Apache License" in licence["content"]
        assert len(licence["content"]) == licence["size"]
        assert set((await http.get("/v1/manifest")).json()) == {"manifest_file", "repository"}
    async with running(WordEngine("no-model"), tmp_path) as addresses, client(addresses) as http:
        waits = await http.get("/v1/health/ready")
        assert waits.status_code == 503
        assert int(waits.headers["retry-after"]) >= 1


async def test_wrong_paths_and_methods_under_v1_have_openai_s_shape(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, client(addresses) as http:
        lost = await http.get("/v1/audio/speech")
        assert (lost.status_code, error_of(lost)["code"]) == (404, "not_found")
        wrong = await http.get(URL)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert "POST" in error_of(wrong)["message"]
        posted = await http.post("/v1/models")
        assert (posted.status_code, posted.headers["allow"]) == (405, "GET")
        elsewhere = await http.post("/healthz")
        assert elsewhere.status_code == 405
        assert "detail" in elsewhere.json()
