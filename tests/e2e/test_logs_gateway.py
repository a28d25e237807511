"""The log and the records of a real gateway, over its faces: what is in every line, and what is in none."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
from websockets.exceptions import InvalidStatus

import sound
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from e2e.command import COMMAND, Shell, wait_for
from e2e.gateway import Session, session
from e2e.test_grpc_face import audio, config, talk
from server.serve import Addresses
from server.telemetry.log_schema import schema
from server.telemetry.repeats import MOST

CANARY = ("zanzibarquince", "oxbowmarzipan")
UTTERANCES = [f"my pin is {CANARY[0]}", f"and {CANARY[1]} too"]
PLAN: dict[str, Any] = {"hears": "clock", "loop": False, "utterances": UTTERANCES}
EVIL = "x\n2026-11-21T00:00:00Z [info] stream closed\x1b[2J\u202e"
PCM = b"\x00\x20" * 72_000
WAV = sound.wav(PCM)
PATIENCE_S = 30.0


@dataclass
class Gateway:
    """A gateway as a process of its own, its log in a file."""

    addresses: Addresses
    log_file: Path
    state: Path

    @property
    def log(self) -> list[str]:
        # Not splitlines: it would also split where only some readers see an end of a line.
        return self.log_file.read_bytes().decode().rstrip("\n").split("\n")

    def rows(self, *events: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in self.log]
        return [row for row in rows if row["event"] in events] if events else rows

    def records(self) -> str:
        return "".join(path.read_text() for path in (self.state / "records").glob("*.jsonl"))


@asynccontextmanager
async def gateway(tmp_path: Path, plan: dict[str, Any], **env: str) -> AsyncIterator[Gateway]:
    """Serve that plan; at the end the process has ended by itself."""
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps(plan))
    more = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug", "PYTHONUNBUFFERED": "1", "DRAIN_TIMEOUT_MS": "3000"} | env
    engine = [] if "RIVA_ENDPOINTS" in env else ["--mock-plan", str(plan_file)]
    shell = Shell(tmp_path, more)
    log_file = tmp_path / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [COMMAND, "serve", *engine, "--no-tls", "--port", "0", "--grpc-port", "0"],
            cwd=tmp_path,
            env=shell.env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        http = await asyncio.to_thread(wait_for, process, r"http://localhost:(\d+)")
        grpc = await asyncio.to_thread(wait_for, process, r"localhost:(\d+)")
        addresses = Addresses("127.0.0.1", int(http[1]), int(grpc[1]), False, "mock")
        yield Gateway(addresses, log_file, tmp_path / "state")
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()


async def to_the_end(client: Session) -> list[str]:
    told = []
    while not (text := await client.answer()).startswith("close"):
        told.append(text)
    return told


async def native(at: Addresses) -> None:
    async with session(at, subprotocols=["asr.v1"]) as client:
        await client.say(json.dumps({"type": "start", "metadata": {"name": EVIL}, "phrases": [{"text": CANARY[0]}]}))
        await client.say(PCM)
        await client.say('{"type":"stop"}')
        assert CANARY[0] in "".join(await to_the_end(client))


async def comes_back(at: Addresses) -> None:
    async with session(at) as client:
        await client.say('{"type":"start"}')
        ready = await client.message()
        await client.say(PCM[:32_000])
        await client.cut()
    known = {"session_id": ready["session_id"], "resume_token": ready["resume_token"], "last_seq": 0}
    async with session(at, f"/v1/stream?session={ready['session_id']}") as client:
        await client.say(json.dumps({"type": "resume", **known}))
        await client.say('{"type":"stop"}')
        await to_the_end(client)


async def end(at: Addresses) -> None:
    async with session(at, "/ws") as client:
        await client.say(PCM)
        await client.say("END")
        assert CANARY[0] in "".join(await to_the_end(client))


async def realtime(at: Addresses) -> None:
    async with session(at, "/v1/realtime?intent=transcription") as client:
        fields = {"input_audio_transcription": {"language": "en-US", "model": "", "prompt": CANARY[0]}}
        await client.say(json.dumps({"type": "transcription_session.update", "session": fields}))
        encoded = base64.b64encode(PCM).decode()
        await client.say(json.dumps({"type": "input_audio_buffer.append", "audio": encoded}))
        for kind in ("input_audio_buffer.commit", "input_audio_buffer.done"):
            await client.say(json.dumps({"type": kind}))
        async with asyncio.timeout(PATIENCE_S):
            while CANARY[1] not in (text := await client.answer()):
                assert not text.startswith("close"), text


async def over_http(at: Addresses) -> None:
    async with httpx2.AsyncClient(base_url=at.url, timeout=PATIENCE_S, trust_env=False) as http:
        for path in ("/v1/audio/transcriptions", "/transcribe"):
            answer = await http.post(path, files={"file": (EVIL, WAV)}, data={"prompt": CANARY[1]})
            assert CANARY[0] in answer.text
        answer = await http.post("/invocations", content=WAV, headers={"content-type": "audio/wav"})
        assert CANARY[0] in answer.text
        wrong = await http.post("/v1/audio/transcriptions", files={"file": (EVIL, WAV)}, data={"model": EVIL})
        assert wrong.status_code in (200, 404)
        assert (await http.post("/transcribe", files={"file": (EVIL, b"no sound")})).status_code >= 400
        job = (await http.post("/transcribe/async", files={"file": (EVIL, WAV)})).json()
        async with asyncio.timeout(PATIENCE_S):
            while CANARY[0] not in (await http.get(f"/jobs/{job['job_id']}/result")).text:
                await asyncio.sleep(0.1)


async def over_grpc(at: Addresses) -> None:
    target = f"127.0.0.1:{at.grpc_port}"
    told = await talk(target, [config(), *audio(PCM)])
    assert CANARY[0] in str(told)


FACES = (native, comes_back, end, realtime, over_http, over_grpc)


async def test_every_line_fits_the_schema_and_none_has_what_was_said(tmp_path: Path) -> None:
    # The recognizer of the first client and of a later one is lost while they speak.
    plan = load_plan(PLAN | {"faults": [{"kind": "unavailable", "at_ms": 2_500, "streams": [1, 5]}]})
    async with (
        MockRivaServer(plan) as riva,
        gateway(tmp_path, PLAN, RIVA_ENDPOINTS=f"localhost:{riva.port}") as running,
    ):
        for speak in FACES:
            await speak(running.addresses)
        async with httpx2.AsyncClient(trust_env=False) as http:
            published = (await http.get(f"{running.addresses.url}/schema/log.v1.json")).json()
    assert published == schema()
    fits = jsonschema.Draft202012Validator(published)
    for line in running.log:
        fits.validate(json.loads(line))
        assert line.isprintable(), line
        for word in CANARY:
            assert word not in line
    for word in CANARY:
        assert word not in running.records()
    opened, closed = running.rows("stream opened"), running.rows("stream closed")
    assert len(opened) >= 8
    assert sorted(row["stream_id"] for row in opened) == sorted(row["stream_id"] for row in closed)
    assert len({row["stream_id"] for row in opened}) == len(opened)
    begun = {row["stream_id"]: row for row in opened}
    assert all(row["trace_id"] == begun[row["stream_id"]]["trace_id"] for row in closed)
    faces = Counter(row["face"] for row in opened)
    assert {"native", "end", "riva_grpc", "sagemaker"} <= set(faces)
    (away,), (back,) = running.rows("stream waits for its client"), running.rows("stream resumed")
    assert away["stream_id"] == back["stream_id"]
    assert sorted(row["resumes"] for row in closed if row["face"] == "native") == [0, 1]
    assert sum(row["failovers"] for row in closed) > 0
    over = next(row for row in closed if row["face"] == "native")
    assert (over["outcome"], over["audio_ms"], over["close_code"]) == ("ok", 4_500, 1000)
    assert over["received_bytes"] >= len(PCM)
    assert over["sent_bytes"] > 0
    assert over["words"] > 0
    assert "session_id" in over
    records = [json.loads(line) for line in running.records().splitlines()]
    assert {row["stream_id"] for row in records if row["status"] != "refused"} == set(begun)


async def test_who_asks_for_transcripts_gets_a_line_for_each_final(tmp_path: Path) -> None:
    async with gateway(tmp_path, PLAN, LOG_TRANSCRIPTS="on", LOG_LEVEL="info") as running:
        await native(running.addresses)
        await over_grpc(running.addresses)
    fits = jsonschema.Draft202012Validator(schema())
    said = running.rows("final")
    for row in said:
        fits.validate(row)
    assert Counter(row["text"] for row in said) == dict.fromkeys(UTTERANCES, 2)
    assert {row["stream_id"] for row in said} == {row["stream_id"] for row in running.rows("stream opened")}
    assert not any(word in line for line in running.log if '"event": "final"' not in line for word in CANARY)


async def test_what_clients_write_is_harmless_on_a_console_too(tmp_path: Path) -> None:
    async with gateway(tmp_path, PLAN, LOG_FORMAT="console") as running:
        await native(running.addresses)
        async with httpx2.AsyncClient(base_url=running.addresses.url, trust_env=False) as http:
            await http.post("/transcribe", files={"file": (EVIL, b"no sound")})
            await http.post("/v1/audio/transcriptions", files={"file": (EVIL, WAV)}, data={"model": EVIL})
    for line in running.log:
        assert line.isprintable(), line
        assert line.startswith(("    ", "20")), line
    assert not any(line.startswith("2026-11-21T00:00:00Z [info] stream closed") for line in running.log)


async def test_an_outage_leaves_a_bounded_log(tmp_path: Path) -> None:
    streams = 120
    broken = PLAN | {"faults": [{"kind": "internal", "message": EVIL}]}
    async with gateway(tmp_path, broken, LOG_LEVEL="info") as running:

        async def fails() -> None:
            with suppress(InvalidStatus):
                async with session(running.addresses) as client:
                    await client.say('{"type":"start"}')
                    await client.say(PCM[:32_000])
                    await client.say('{"type":"stop"}')
                    await to_the_end(client)

        for _ in range(streams // 20):
            await asyncio.gather(*(fails() for _ in range(20)))
    events = Counter(row["event"] for row in running.rows())
    assert events["stream opened"] == events["stream closed"] <= streams
    assert events["lines left out"] >= 1
    assert events["take failed"] == MOST
    others = events.total() - events["stream opened"] - events["stream closed"]
    assert others < 10 * MOST
    assert sum(row["count"] for row in running.rows("lines left out") if "take failed" in row["like"]) > 0
