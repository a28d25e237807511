"""Jobs over HTTP on a running server: the documented answers and codes, owners, pages, keys, and every way out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path
from typing import Any

import requests

from asr.engine import AudioInput
from asr.events import Event
from asr.options import Options
from server.serve import Addresses
from word_engine import WordEngine

from .gateway import running
from .test_bad_input import wav

SECOND = bytes(32_000)
SAID = "w1 w2 w3 w4 w5"


class Gated(WordEngine):
    """Says nothing before the gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.traces: list[str] = []

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self.traces.append(options.traceparent)
        async for event in super().stream(audio, options):
            await self.gate.wait()
            yield event


async def call(addresses: Addresses, method: str, path: str, **more: Any) -> requests.Response:
    return await asyncio.to_thread(requests.request, method, addresses.url + path, timeout=20, **more)


async def hand_in(addresses: Addresses, data: bytes, *, key: str = "", auth: str = "", **fields: str) -> str:
    headers = ({"Idempotency-Key": key} if key else {}) | ({"Authorization": f"Bearer {auth}"} if auth else {})
    files = {"file": ("clip.wav", data)}
    answer = await call(addresses, "POST", "/transcribe/async", files=files, data=fields, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


async def until(addresses: Addresses, job: str, *wanted: str, **more: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            body: dict[str, Any] = (await call(addresses, "GET", f"/jobs/{job}/status", **more)).json()
            if body["status"] in wanted:
                return body
            await asyncio.sleep(0.05)


async def test_a_job_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    engine = Gated()
    async with running(engine, tmp_path) as addresses:
        files = {"file": ("clip.wav", wav(SECOND))}
        answer = await call(addresses, "POST", "/transcribe/async", files=files, data={"labels": '{"customer": "42"}'})
        job = answer.json()["job_id"]
        assert answer.status_code == 200
        assert answer.json() == {
            "job_id": job,
            "status": "pending",
            "message": "Transcription job started for clip.wav",
        }
        body = await until(addresses, job, "processing")
        assert body["result"] is body["error"] is body["completed_at"] is None
        early = await call(addresses, "GET", f"/jobs/{job}/result")
        assert early.status_code == 400
        assert "processing" in early.json()["detail"]
        engine.gate.set()
        body = await until(addresses, job, "completed")
        result = await call(addresses, "GET", f"/jobs/{job}/result")
        captions = await call(addresses, "GET", f"/jobs/{job}/result?format=vtt")
        words = await call(addresses, "GET", f"/jobs/{job}/result?words=true")
        late = await call(addresses, "POST", f"/jobs/{job}/cancel")
    assert body["filename"] == "clip.wav"
    assert (body["progress_percent"], body["audio_seconds"], body["audio_total_seconds"]) == (100, 1.0, 1.0)
    assert body["labels"] == {"customer": "42"}
    assert body["result"] == result.json()
    assert result.json() == {
        "text": SAID,
        "segments": [{"start": 0.0, "end": 1.0, "text": SAID}],
        "filename": "clip.wav",
        "timestamp": body["completed_at"],
    }
    assert captions.text.startswith("WEBVTT")
    assert len(words.json()["segments"][0]["words"]) == 5
    assert late.status_code == 400
    assert "completed already" in late.json()["detail"]


async def test_a_job_that_is_cancelled_stops_at_once(tmp_path: Path) -> None:
    engine = Gated()
    async with running(engine, tmp_path) as addresses:
        job = await hand_in(addresses, wav(SECOND))
        await until(addresses, job, "processing")
        async with asyncio.timeout(10):
            while not engine.open_streams:
                await asyncio.sleep(0.01)
        answer = await call(addresses, "POST", f"/jobs/{job}/cancel")
        assert answer.json() == {"message": f"Job {job} cancelled", "status": "cancelled"}
        async with asyncio.timeout(1):
            while engine.open_streams:
                await asyncio.sleep(0.01)
        result = await call(addresses, "GET", f"/jobs/{job}/result")
        assert (result.status_code, "cancelled" in result.json()["detail"]) == (400, True)
        assert (await call(addresses, "POST", f"/jobs/{job}/cancel")).status_code == 400


async def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        job = await hand_in(addresses, b"This is a letter." * 99)
        body = await until(addresses, job, "failed")
        result = await call(addresses, "GET", f"/jobs/{job}/result")
    assert body["error_code"] == "bad_audio"
    assert "clip.wav" in body["error"]
    assert str(tmp_path) not in body["error"]
    assert ".upload" not in body["error"]
    assert result.status_code == 500
    assert "The job failed" in result.json()["detail"]


async def test_unknown_jobs(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        for method, path in (("GET", "status"), ("GET", "result"), ("POST", "cancel")):
            answer = await call(addresses, method, f"/jobs/550e8400-e29b-41d4-a716-446655440000/{path}")
            assert answer.status_code == 404
            assert "There is no job" in answer.json()["detail"]
        for name in ("nobody", "%00", "x" * 5_000, "%F0%9F%8E%99"):
            assert (await call(addresses, "DELETE", f"/jobs/{name}")).status_code == 404
            assert (await call(addresses, "GET", f"/jobs?before={name}")).status_code == 404
        assert (await call(addresses, "GET", "/jobs")).json() == {"jobs": [], "next": None}


async def test_the_same_key_is_the_same_job(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        first = await hand_in(addresses, wav(SECOND), key="k1")
        assert await hand_in(addresses, wav(SECOND), key="k1") == first
        assert await hand_in(addresses, wav(SECOND), idempotency_key="k1") == first
        assert await hand_in(addresses, wav(SECOND)) != first
        files = {"file": ("clip.wav", wav(SECOND * 2))}
        other = await call(addresses, "POST", "/transcribe/async", files=files, headers={"Idempotency-Key": "k1"})
    assert other.status_code == 400
    assert "Idempotency-Key" in other.json()["detail"]


async def test_the_recognizer_is_told_of_the_trace_in_which_a_job_was_handed_in(tmp_path: Path) -> None:
    engine = Gated()
    engine.gate.set()
    trace, files = "4bf92f3577b34da6a3ce929d0e0e4736", {"file": ("clip.wav", wav(SECOND))}
    async with running(engine, tmp_path) as addresses:
        for caller in (f"00-{trace}-00f067aa0ba902b7-01", "00-nothing-of-the-kind"):
            headers = {"traceparent": caller, "Idempotency-Key": caller}
            answer = await call(addresses, "POST", "/transcribe/async", files=files, headers=headers)
            await until(addresses, answer.json()["job_id"], "completed")
    told = [traceparent.split("-")[1] for traceparent in engine.traces]
    assert told[0] == trace
    assert trace not in told[1:]
    assert len(told) == 2


async def test_a_job_is_seen_by_those_who_show_its_credential(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        mine = await hand_in(addresses, wav(SECOND), auth="mine")
        open_to_all = await hand_in(addresses, wav(SECOND))
        me, other = ({"headers": {"Authorization": f"Bearer {who}"}} for who in ("mine", "other"))
        await until(addresses, mine, "completed", **me)
        for stranger in ({}, other):
            for method, path in (("GET", "/status"), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")):
                answer = await call(addresses, method, f"/jobs/{mine}{path}", **stranger)
                assert answer.status_code == 404, path
        assert (await call(addresses, "GET", f"/jobs/{open_to_all}/status", **other)).status_code == 200

        async def seen(**who: Any) -> list[str]:
            return [job["job_id"] for job in (await call(addresses, "GET", "/jobs", **who)).json()["jobs"]]

        assert (await seen(), await seen(**me), await seen(**other)) == ([open_to_all], [mine], [])


async def test_pages_filters_and_forgetting(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        jobs = [await hand_in(addresses, wav(SECOND)) for _ in range(3)]
        bad = await hand_in(addresses, b"no audio" * 99)
        for job in jobs:
            await until(addresses, job, "completed")
        await until(addresses, bad, "failed")
        page = (await call(addresses, "GET", "/jobs?limit=3")).json()
        rest = (await call(addresses, "GET", f"/jobs?limit=3&before={page['next']}")).json()
        assert [job["job_id"] for job in page["jobs"] + rest["jobs"]] == [bad, *reversed(jobs)]
        assert rest["next"] is None
        assert all(job["result"] is None for job in page["jobs"])
        failed = (await call(addresses, "GET", "/jobs?status=failed")).json()["jobs"]
        assert [job["job_id"] for job in failed] == [bad]
        for query in ("limit=0", "limit=x", "limit=9999", "status=late"):
            answer = await call(addresses, "GET", f"/jobs?{query}")
            assert (answer.status_code, list(answer.json())) == (400, ["detail"]), query
        assert (await call(addresses, "DELETE", f"/jobs/{bad}")).status_code == 204
        assert (await call(addresses, "GET", f"/jobs/{bad}/status")).status_code == 404


async def test_what_is_wrong_with_a_request_is_said_at_once(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, jobs_max_upload_bytes=100_000) as addresses:
        good = {"file": ("clip.wav", wav(SECOND))}
        cases: list[tuple[dict[str, Any], int, str]] = [
            ({"files": good, "data": {"model": "mine"}}, 404, "words-en"),
            ({"files": good, "data": {"language": "es"}}, 404, "'es'"),
            ({"files": good, "data": {"labels": "[]"}}, 400, "labels"),
            ({"files": good, "data": {"webhook_url": "https://example.org"}}, 400, "JOBS_WEBHOOK_SECRET"),
            ({"files": good, "headers": {"Idempotency-Key": "k" * 300}}, 400, "256"),
            ({"files": {"file": ("big.wav", wav(SECOND * 4))}}, 413, "larger"),
            ({"files": {"file": ("none.wav", b"")}}, 400, "empty"),
            ({"data": {"model": "words-en"}}, 400, "Content-Type"),
            ({}, 400, "empty"),
        ]
        for more, status, words in cases:
            answer = await call(addresses, "POST", "/transcribe/async", **more)
            assert answer.status_code == status, answer.text
            assert words in answer.json()["detail"]
        assert (await call(addresses, "GET", "/jobs")).json()["jobs"] == []
    assert not list((tmp_path / "spool").glob("*.upload"))


async def test_a_job_keeps_its_wishes(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        body = {
            "audio": base64.b64encode(wav(SECOND)).decode(),
            "filename": "j.wav",
            "include_timestamps": False,
            "model": "parakeet",
            "labels": {"a": "b"},
        }
        answer = await call(addresses, "POST", "/transcribe/async", json=body)
        assert "'parakeet' is not served here" in answer.headers["riva-gateway-note"]
        done = await until(addresses, answer.json()["job_id"], "completed")
        result = await call(addresses, "GET", f"/jobs/{done['job_id']}/result")
        segments = await call(addresses, "GET", f"/jobs/{done['job_id']}/result?include_timestamps=true")
    assert done["labels"] == {"a": "b"}
    assert done["result"]["segments"] == result.json()["segments"] == []
    assert len(segments.json()["segments"]) == 1
    assert "'parakeet'" in result.headers["riva-gateway-note"]


async def test_a_recognizer_that_is_away_refuses_no_job(tmp_path: Path) -> None:
    async with running(WordEngine("no-model"), tmp_path) as addresses:
        job = await hand_in(addresses, wav(SECOND), model="parakeet")
        assert (await call(addresses, "GET", f"/jobs/{job}/status")).json()["status"] in ("pending", "processing")


async def test_without_jobs_there_are_none(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, jobs=False) as addresses:
        answer = await call(addresses, "POST", "/transcribe/async", files={"file": ("a.wav", wav(SECOND))})
        assert answer.status_code in (404, 405)
        assert (await call(addresses, "GET", "/jobs")).status_code == 404
