"""The transcription REST on a running server: three kinds of bodies, exact answers, and a sentence for each failure."""

from __future__ import annotations

import asyncio
import base64
import re
import resource
import subprocess
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

import speech
from server.serve import Addresses
from word_engine import WordEngine

from .command import Shell, wait_for
from .gateway import running
from .test_bad_input import wav

SECOND = bytes(32_000)
SAID = "w1 w2 w3 w4 w5"


async def call(addresses: Addresses, method: str, path: str, **more: Any) -> requests.Response:
    return await asyncio.to_thread(requests.request, method, addresses.url + path, timeout=20, **more)


async def transcribe(addresses: Addresses, data: bytes, name: str = "a.wav", **fields: str) -> requests.Response:
    return await call(addresses, "POST", "/transcribe", files={"file": (name, data)}, data=fields)


def stored(folder: Path) -> list[Path]:
    return list((folder / "spool").glob("*.upload"))


def notes(answer: requests.Response) -> str:
    return answer.headers.get("riva-gateway-note", "")


async def test_the_answer_is_what_the_documents_show(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await transcribe(addresses, wav(SECOND + SECOND[:6_400]), "clip.wav")
    assert answer.status_code == 200
    body = answer.json()
    said_at = datetime.fromisoformat(body.pop("timestamp"))
    assert said_at.tzinfo is None
    assert said_at.microsecond == 0
    assert body == {
        "text": f"{SAID} w6",
        "segments": [{"start": 0.0, "end": 1.0, "text": SAID}, {"start": 1.0, "end": 1.2, "text": "w6"}],
        "filename": "clip.wav",
    }
    assert "riva-gateway-note" not in answer.headers
    assert not stored(tmp_path)


async def test_form_json_and_body_mean_the_same(tmp_path: Path) -> None:
    data = wav(SECOND)
    async with running(WordEngine(), tmp_path) as addresses:
        form = await transcribe(addresses, data, "a.wav", language="en", words="true")
        fields = {"audio": base64.b64encode(data).decode(), "filename": "a.wav", "language": "en", "words": True}
        as_json = await call(addresses, "POST", "/transcribe", json=fields)
        path = "/transcribe?filename=a.wav&language=en&words=true"
        plain = await call(addresses, "POST", path, data=data, headers={"Content-Type": "audio/wav"})
        named = await call(
            addresses, "POST", "/transcribe?words=1", data=data,
            headers={"Content-Type": "audio/x-wav", "Content-Disposition": 'attachment; filename="a.wav"'},
        )  # fmt: skip
    bodies = [answer.json() for answer in (form, as_json, plain, named)]
    for body in bodies:
        del body["timestamp"]
    assert bodies[0]["segments"][0]["words"][0] == {"word": "w1", "start": 0.0, "end": 0.2}
    assert bodies[1:] == bodies[:1] * 3
    assert not stored(tmp_path)


async def test_the_documented_fields(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        bare = await transcribe(addresses, wav(SECOND), include_timestamps="false")
        family = await transcribe(addresses, wav(SECOND), model="parakeet", language="en")
        named = await transcribe(addresses, wav(SECOND), model="words-de", language="de")
        unknown = await transcribe(addresses, wav(SECOND), model="mine")
        other = await transcribe(addresses, wav(SECOND), language="es")
    assert bare.json()["segments"] == []
    assert bare.json()["text"] == SAID
    assert family.status_code == 200
    assert "'parakeet' is not served here" in notes(family)
    assert named.status_code == 200
    assert not notes(named)
    assert unknown.status_code == 404
    assert "words-en" in unknown.json()["detail"]
    assert other.status_code == 404
    assert "'es'" in other.json()["detail"]


async def test_captions_and_text(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        text = await transcribe(addresses, wav(SECOND), format="text")
        srt = await transcribe(addresses, wav(SECOND), format="srt")
    assert (text.text, text.headers["Content-Type"]) == (f"{SAID}\n", "text/plain; charset=utf-8")
    assert srt.text.startswith("1\n00:00:00,000 --> 00:00:01,000\n")


async def test_what_cannot_be_done_is_said_or_refused(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await transcribe(addresses, wav(SECOND), diarization="true", colour="blue")
    assert answer.status_code == 200
    assert "diarization" in notes(answer)
    assert "'colour'" in notes(answer)
    async with running(WordEngine(), tmp_path, on_unsupported="refuse") as addresses:
        answer = await transcribe(addresses, wav(SECOND), diarization="true")
    assert answer.status_code == 400
    assert "diarization" in answer.json()["detail"]


async def test_health(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await call(addresses, "GET", "/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "healthy",
        "model_loaded": True,
        "model_name": "words-en",
        "engine": "words",
        "active_streams": 0,
        "gpu": None,
        "detail": "",
    }
    async with running(WordEngine("no-model"), tmp_path) as addresses:
        answer = await call(addresses, "GET", "/health")
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["model_loaded"]) == ("unhealthy", False)


async def test_the_root_is_a_page_for_browsers_and_json_for_others(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        for accept in ("*/*", "application/json"):
            body = (await call(addresses, "GET", "/", headers={"Accept": accept})).json()
            assert body["name"] == "riva-gateway"
            assert "POST /transcribe" in body["endpoints"]
        browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        page = await call(addresses, "GET", "/", headers=browser)
        assert page.text.startswith("<!doctype html>")
        assert (await call(addresses, "HEAD", "/", headers=browser)).status_code == 200
        document = (await call(addresses, "GET", "/openapi.json")).json()
    described = {"/transcribe", "/transcribe/async", "/jobs", "/jobs/{job_id}/result", "/health", "/"}
    assert described <= set(document["paths"])
    content = document["paths"]["/transcribe"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/json", "audio/wav"} <= set(content)


Ask = Callable[[Addresses], Awaitable[requests.Response]]


def form(**more: Any) -> Ask:
    return lambda addresses: call(addresses, "POST", "/transcribe", **more)


def upload(data: bytes, name: str = "a.wav") -> Ask:
    return lambda addresses: transcribe(addresses, data, name)


JSON = {"Content-Type": "application/json"}
BAD: list[tuple[str, Ask, int, str]] = [
    ("a picture", upload(b"\x89PNG\r\n\x1a\n" + bytes(5_000)), 400, "a.wav"),
    ("text", upload(b"This is a letter, not a recording. " * 50), 400, "not audio"),
    ("nothing", upload(b""), 400, "empty"),
    ("a header without audio", upload(wav(b"")), 400, "empty"),
    ("half a header", upload(wav(SECOND)[:30]), 400, "header"),
    ("an mp3 that is none", upload(b"ID3\x04" + bytes(4_000), "a.mp3"), 400, "a.mp3"),
    ("no file", form(data={"model": "parakeet"}), 400, "Content-Type: audio/wav"),
    ("another field", form(files={"audio": ("a.wav", SECOND)}), 400, "'file'"),
    ("no body", form(), 400, "empty"),
    ("a flag that is none", form(files={"file": ("a.wav", wav(SECOND))}, data={"words": "maybe"}), 400, "words"),
    ("half a form", form(data=b"--x\r\nContent-Disposition: form-data; name=", headers={
        "Content-Type": "multipart/form-data; boundary=x"}), 400, "form"),
    ("a form without boundary", form(data=b"x", headers={"Content-Type": "multipart/form-data"}), 400, "boundary"),
    ("half a JSON", form(data=b'{"audio": "', headers=JSON), 400, "not JSON"),
    ("no base64", form(json={"audio": "%%%"}), 400, "base64"),
    ("JSON without audio", form(json={"filename": "a.wav"}), 400, '"audio"'),
    ("JSON with a picture", form(json={"audio": base64.b64encode(b"\x89PNG" * 99).decode()}), 400, "not audio"),
    ("a list", form(json=[1]), 400, '"audio"'),
    ("XML", form(data=b"<a/>", headers={"Content-Type": "application/xml"}), 400, "application/xml"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "status", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
async def test_what_is_wrong_is_refused_in_words(ask: Ask, status: int, words: str, tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses:
        answer = await ask(addresses)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail"}
    assert words in answer.json()["detail"], answer.text
    assert str(tmp_path) not in answer.text
    assert ".upload" not in answer.text
    assert engine.streams == 0
    assert not stored(tmp_path)


ODD: list[tuple[str, bytes, float, str]] = [
    ("a truncated wav", wav(SECOND, claims=96_000), 1.0, "truncated"),
    ("a wav of unknown length", wav(SECOND, claims=0xFFFFFFFF), 1.0, ""),
    ("a wav that claims nothing", wav(SECOND, claims=0), 1.0, ""),
    ("a wav that claims too little", wav(SECOND, claims=8_000), 1.0, "header"),
    ("stereo", wav(SECOND * 2, channels=2), 1.0, "mixed down"),
    ("8 kHz", wav(SECOND[:16_000], rate=8_000), 1.0, ""),
    ("44.1 kHz", wav(bytes(88_200), rate=44_100), 1.0, ""),
    ("an odd byte", wav(SECOND + b"\0"), 1.0, "odd"),
]


@pytest.mark.parametrize(("data", "seconds", "note"), [o[1:] for o in ODD], ids=[o[0] for o in ODD])
async def test_what_is_odd_is_heard_whole_and_said(data: bytes, seconds: float, note: str, tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await transcribe(addresses, data)
    assert answer.json()["text"] == SAID, answer.text
    assert answer.json()["segments"][-1]["end"] == pytest.approx(seconds, abs=0.001)
    assert bool(notes(answer)) == bool(note)
    assert note in notes(answer)


async def test_channels_by_wish(tmp_path: Path) -> None:
    data = wav(SECOND * 2, channels=2)
    async with running(WordEngine(), tmp_path) as addresses:
        refused = await transcribe(addresses, data, stereo="refuse")
    assert refused.status_code == 400
    assert "2 channels" in refused.json()["detail"]
    async with running(WordEngine(), tmp_path, stereo="refuse") as addresses:
        assert (await transcribe(addresses, data)).status_code == 400
        assert (await transcribe(addresses, data, stereo="mix")).status_code == 200


async def test_a_failure_of_the_recognizer_is_no_empty_text(tmp_path: Path) -> None:
    for fault, status in (("unavailable@400", 503), ("refuses", 503), ("bug@400", 500), ("no-model", 503)):
        engine = WordEngine(fault)
        async with running(engine, tmp_path) as addresses:
            answer = await transcribe(addresses, wav(SECOND))
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == ["detail"]
        assert engine.open_streams == 0
        assert not stored(tmp_path)
        if fault == "refuses":
            assert answer.headers["Retry-After"] == "2"


async def test_a_client_that_leaves_ends_the_work(tmp_path: Path) -> None:
    engine = WordEngine("hang@400")
    async with running(engine, tmp_path) as addresses:
        data = wav(SECOND)
        head = (
            "POST /transcribe HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: audio/wav\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
        writer.write(head.encode() + data)
        await writer.drain()
        async with asyncio.timeout(10):
            while not engine.open_streams:
                await asyncio.sleep(0.01)
            writer.close()
            while engine.open_streams or stored(tmp_path):
                await asyncio.sleep(0.01)
        del reader


async def test_half_an_upload_leaves_nothing(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        _, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
        writer.write(
            b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nContent-Length: 900000\r\n\r\n"
        )
        writer.write(bytes(600_000))
        await writer.drain()
        async with asyncio.timeout(10):
            while not stored(tmp_path):
                await asyncio.sleep(0.01)
            writer.close()
            while stored(tmp_path):
                await asyncio.sleep(0.01)


async def test_large_uploads(tmp_path: Path) -> None:
    data = wav(bytes(30 * 1024 * 1024))
    async with running(WordEngine(), tmp_path, max_upload_bytes=31 * 1024 * 1024) as addresses:
        answer = await transcribe(addresses, data, include_timestamps="false")
        assert answer.status_code == 200, answer.text
        assert answer.json()["text"].endswith(f"w{len(data) // 6_400}")
        over = await transcribe(addresses, wav(bytes(32 * 1024 * 1024)))
        body = {"audio": base64.b64encode(bytes(32 * 1024 * 1024)).decode()}
        over_json = await call(addresses, "POST", "/transcribe", json=body)
        again = await transcribe(addresses, wav(SECOND))
    for answer in (over, over_json):
        assert answer.status_code == 413, answer.text
        assert list(answer.json()) == ["detail"]
    assert again.status_code == 200
    assert not stored(tmp_path)


async def test_too_long_a_recording_is_told_of_jobs(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, max_audio_ms=900) as addresses:
        answer = await transcribe(addresses, wav(SECOND))
    assert answer.status_code == 400
    assert "/transcribe/async" in answer.json()["detail"]


async def test_a_full_spool_is_507(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, spool_max_bytes=1_048_576) as addresses:
        full = await transcribe(addresses, wav(bytes(1_100_000)))
        fits = await transcribe(addresses, wav(SECOND))
    assert full.status_code == 507
    assert full.headers["Retry-After"] == "30"
    assert "as many uploads as it may" in full.json()["detail"]
    assert fits.status_code == 200
    assert not stored(tmp_path)


def started(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://localhost:\d+", line)
        if found:
            return found.group()
    raise AssertionError("the gateway did not start")


@pytest.mark.slow
def test_a_real_process_with_a_full_disk_and_real_speech(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes writes fail as a full disk does; the process must go on."""
    shell = Shell(tmp_path, {"ASR_ENGINE": "local"})
    with shell.start("serve", "--port", "0", "--grpc-port", "off", "--no-tls") as process:
        url = started(process)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
        clip = speech.clip("greeting")
        full = requests.post(f"{url}/transcribe", files={"file": ("big.wav", wav(bytes(3_000_000)))}, timeout=60)
        assert full.status_code == 507
        assert "disk is full" in full.json()["detail"]
        for name in ("greeting.wav", "greeting.flac", "greeting_44k_stereo.wav", "greeting_float.wav"):
            answer = requests.post(
                f"{url}/transcribe", files={"file": (name, speech.path(name).read_bytes())}, timeout=60
            )
            assert speech.wer(clip.text, answer.json()["text"]) <= clip.max_wer, answer.text
            assert answer.json()["filename"] == name
        assert requests.get(f"{url}/health", timeout=10).json()["engine"] == "local"
        process.terminate()
        assert process.wait(30) == 0
    assert not stored(tmp_path / "state")


async def test_a_name_that_contradicts_itself_is_left_out(tmp_path: Path) -> None:
    headers = {"Content-Type": "audio/wav", "Content-Disposition": "a; filename*=utf-8'x'; filename*1*=q"}
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await call(addresses, "POST", "/transcribe", data=wav(SECOND), headers=headers)
    assert (answer.status_code, answer.json()["filename"], answer.json()["text"]) == (200, "", SAID)


async def test_json_that_comes_slowly_holds_up_nobody(tmp_path: Path) -> None:
    recording = base64.b64encode(wav(SECOND)).decode()
    head = (
        b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 50000\r\n\r\n"
    )
    async with running(WordEngine(), tmp_path) as addresses:
        slow = [await asyncio.open_connection("127.0.0.1", addresses.port) for _ in range(8)]
        for _, writer in slow:
            writer.write(head + b'{"audio": "')
        async with asyncio.timeout(5):
            while (await call(addresses, "GET", "/health")).json()["active_streams"] < len(slow):
                await asyncio.sleep(0.01)
            answer = await call(addresses, "POST", "/transcribe", json={"audio": recording})
        assert answer.json()["text"] == SAID
        for _, writer in slow:
            writer.close()
    assert not stored(tmp_path)


async def test_a_large_recording_in_json_does_not_fill_the_memory(tmp_path: Path) -> None:
    body = b'{"audio": "' + base64.b64encode(wav(bytes(40 << 20))) + b'"}'
    with Shell(tmp_path, {"LOG_LEVEL": "warning"}).start(
        "serve", "--engine", "mock", "--no-tls", "--port", "0", "--grpc-port", "off"
    ) as process:
        url = wait_for(process, r"http://localhost:\d+")[0]
        requests.get(url + "/readyz", timeout=20)
        before = psutil.Process(process.pid).memory_info().rss
        posted = asyncio.create_task(
            asyncio.to_thread(
                requests.post,
                url + "/transcribe",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=60,
            )
        )
        most = 0
        while not posted.done():
            await asyncio.sleep(0.01)
            most = max(most, psutil.Process(process.pid).memory_info().rss)
        assert (await posted).status_code == 200
    assert most - before < 40 << 20
