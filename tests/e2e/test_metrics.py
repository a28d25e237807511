"""`/metrics` of running gateways: every way in is counted, Prometheus' checker finds nothing, several tell as one."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import subprocess
import time
import wave
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asr.errors import ASRError, Code
from asr.riva_proto import asr as pb
from playbook import Player, all_playbooks, play
from server.serve import Addresses
from word_engine import WordEngine

from .command import Shell, wait_for
from .gateway import connecting, running, session
from .test_grpc_face import audio, config, stub

LIMIT_S = 20.0
PREFIX = "riva_gateway_"
BOOKS = {
    "native": "good_path",
    "end": "end_dialect",
    "realtime nim": "nim_live",
    "realtime openai": "openai_commit",
    "realtime openai-beta": "openai_beta",
}
LIVE = (*BOOKS, "sagemaker", "riva_grpc")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def recording(seconds: float = 2.0) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(int(32_000 * seconds)))
    return out.getvalue()


def read(text: str) -> Samples:
    return {
        (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), -1)


async def scraped(at: Addresses | str) -> str:
    url = at if isinstance(at, str) else f"http://127.0.0.1:{at.port}"
    async with httpx2.AsyncClient(trust_env=False, timeout=LIMIT_S) as client:
        answer = await client.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return answer.text


async def use_every_way_in(at: Addresses) -> None:
    books = {book.name: book for book in all_playbooks()}
    async with connecting(at) as connect:
        for name in BOOKS.values():
            await play(books[name], Player(connect))
    async with session(at, "/invocations-bidirectional-stream/v1/listen?encoding=linear16&sample_rate=16000") as talk:
        await talk.say(bytes(64_000))
        await talk.say('{"type":"CloseStream"}')
        while not (await talk.hear()).startswith("close"):
            pass
    async with stub(f"127.0.0.1:{at.grpc_port}") as riva:
        call = riva.StreamingRecognize(timeout=LIMIT_S)
        for message in (config(), *audio(bytes(64_000))):
            await call.write(message)
        await call.done_writing()
        assert [response async for response in call]
        request = pb.RecognizeRequest(config=config().streaming_config.config, audio=bytes(64_000))
        assert (await riva.Recognize(request, timeout=LIMIT_S)).results
    form = {"file": ("a.wav", recording(), "audio/wav")}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{at.port}", trust_env=False, timeout=LIMIT_S) as client:
        for path in ("/v1/audio/transcriptions", "/transcribe", "/invocations"):
            answer = await client.post(path, files=form, data={"model": "words-en"} if "v1" in path else {})
            assert answer.status_code == 200, answer.text
        stream = await client.post("/v1/audio/transcriptions", files=form, data={"model": "words-en", "stream": "true"})
        assert "transcript.text.done" in stream.text
        job = (await client.post("/transcribe/async", files=form)).json()
        async with asyncio.timeout(LIMIT_S):
            while (await client.get(f"/jobs/{job['job_id']}/status")).json()["status"] != "completed":
                await asyncio.sleep(0.1)


async def test_every_way_in_is_counted_and_the_checker_finds_nothing(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as at:
        await use_every_way_in(at)
        text = await scraped(at)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    samples = read(text)
    faces = (*LIVE, "openai", "rest", "job")
    closed = {
        face: sum(value(samples, "streams_closed_total", face=face, outcome=outcome) for outcome in ("ok", "gone"))
        for face in faces
    }
    assert closed == dict.fromkeys(LIVE, 1) | {"sagemaker": 2, "riva_grpc": 2, "openai": 2, "rest": 1, "job": 1}
    bad = [value(samples, "streams_closed_total", face=face, outcome="server_error") for face in faces]
    assert not any(bad)
    for face in LIVE:
        assert value(samples, "streams_active", face=face) == 0, face
        assert value(samples, "audio_seconds_total", face=face) > 0, face
        assert value(samples, "finals_total", face=face) > 0, face
        assert value(samples, "words_total", face=face) > 0, face
        assert value(samples, "final_latency_seconds_count", face=face) > 0, face
        assert value(samples, "first_partial_latency_seconds_count", face=face) == 1, face
    for face in ("openai", "rest", "job", "sagemaker"):
        assert value(samples, "recording_rtfx_count", face=face) > 0, face
        assert value(samples, "queue_wait_seconds_count", face=face) > 0, face
    parts = [
        value(samples, "final_latency_part_seconds_sum", part=p) for p in ("ingress", "queue", "upstream", "egress")
    ]
    whole = sum(value(samples, "final_latency_seconds_sum", face=face) for face in LIVE)
    assert sum(parts) == pytest.approx(whole)
    assert value(samples, "jobs", state="completed") == 1
    assert value(samples, "process_cpu_seconds_total") > 0


async def test_those_who_are_not_let_in_are_counted(tmp_path: Path) -> None:
    class Full(WordEngine):
        def refusal(self) -> ASRError | None:
            return ASRError(Code.OVERLOADED, "The recognizer is full.", retry_after_ms=1)

    async with running(Full(), tmp_path) as at:
        for path in ("/v1/stream", "/ws", "/v1/realtime?intent=transcription", "/invocations-bidirectional-stream"):
            with pytest.raises(Exception, match=r"503|429"):
                async with session(at, path):
                    pass
        async with stub(f"127.0.0.1:{at.grpc_port}") as riva:
            with pytest.raises(Exception, match=r"RESOURCE_EXHAUSTED|full"):
                await riva.Recognize(pb.RecognizeRequest(), timeout=LIMIT_S)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{at.port}", trust_env=False) as client:
            for path in ("/v1/audio/transcriptions", "/transcribe", "/invocations"):
                assert (await client.post(path)).status_code in (429, 503)
        samples = read(await scraped(at))
    faces = ("native", "end", "realtime", "riva_grpc", "openai", "rest")
    assert [value(samples, "streams_refused_total", face=face, code="overloaded") for face in faces] == [1] * 6
    assert value(samples, "streams_refused_total", face="sagemaker", code="overloaded") == 2


async def test_metrics_can_be_off(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, metrics=False) as at, session(at) as talk:
        await talk.say('{"type":"start"}')
        assert (await talk.message())["type"] == "ready"
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{at.port}", trust_env=False) as client:
            assert (await client.get("/metrics")).status_code == 404


async def test_openmetrics_for_those_who_ask_for_it(tmp_path: Path) -> None:
    wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with running(WordEngine(), tmp_path) as at, httpx2.AsyncClient(trust_env=False, headers=wanted) as client:
        answer = await client.get(f"http://127.0.0.1:{at.port}/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


async def speak_to(port: int) -> None:
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None) as websocket:
        await websocket.send('{"type":"start"}')
        await websocket.send(bytes(64_000))
        await websocket.send('{"type":"stop"}')
        async for message in websocket:
            kind = json.loads(message)["type"]
    assert kind == "summary"


def test_two_gateways_of_one_machine_tell_as_one(tmp_path: Path) -> None:
    shared = {"METRICS_DIR": str(tmp_path / "shared"), "ASR_ENGINE": "mock", "TLS": "off", "GRPC_PORT": "off"}
    shells = [Shell(tmp_path / name, shared) for name in ("a", "b")]
    for shell in shells:
        shell.home.mkdir()

    def told(port: int, name: str, **labels: str) -> float:
        return value(read(asyncio.run(scraped(f"http://127.0.0.1:{port}"))), name, **labels)

    def ready(process: subprocess.Popen[str]) -> int:
        return int(wait_for(process, r"http://localhost:(\d+)")[1])

    with shells[0].start("serve", "--port", "0") as first, shells[1].start("serve", "--port", "0") as second:
        ports = [ready(first), ready(second)]
        for port in (*ports, ports[1]):
            asyncio.run(speak_to(port))
        for port in ports:
            assert told(port, "streams_closed_total", face="native", outcome="ok") >= 1
        due = time.monotonic() + 2.5  # as old as figures may be
        for port in ports:
            while told(port, "streams_closed_total", face="native", outcome="ok") < 3 and time.monotonic() < due:
                time.sleep(0.1)
            text = asyncio.run(scraped(f"http://127.0.0.1:{port}"))
            samples = read(text)
            assert value(samples, "streams_closed_total", face="native", outcome="ok") == 3
            assert value(samples, "audio_seconds_total", face="native") == 6
            assert value(samples, "streams_limit") == 2_000
            assert value(samples, "process_resident_memory_bytes") > 0
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, b"")
        second.send_signal(signal.SIGKILL)
        second.wait(10)
        assert told(ports[0], "streams_closed_total", face="native", outcome="ok") == 3, "a counter never goes back"
        assert told(ports[0], "streams_limit") == 1_000, "who is dead has no places"
        with shells[1].start("serve", "--port", "0") as third:
            port = ready(third)
            asyncio.run(speak_to(port))
            assert told(port, "streams_closed_total", face="native", outcome="ok") == 4
            third.send_signal(signal.SIGTERM)
            assert third.wait(20) == 0
        assert told(ports[0], "streams_closed_total", face="native", outcome="ok") == 4
        names = {re.sub(r"\d+-\w+", "ID", file.name) for file in (tmp_path / "shared").glob("*.db")}
        assert {"counter_ID.db", "counter_departed.db", "histogram_departed.db"} <= names
        assert len(list((tmp_path / "shared").iterdir())) < 12, "what the dead leave is folded together"


def test_a_folder_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shell = Shell(tmp_path, {"METRICS_DIR": str(tmp_path / "file" / "below"), "ASR_ENGINE": "mock", "TLS": "off"})
    done = shell.run("serve", "--port", "0")
    assert done.returncode != 0
    assert b"METRICS_DIR" in done.stderr
    assert b"Traceback" not in done.stderr
