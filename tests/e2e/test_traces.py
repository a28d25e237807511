"""A stream's trace from the client's header to the recognizer's metadata, its log lines and its span."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

import asr
import speech
from asr.channels import ChannelsEngine
from asr.config import GatewayConfig, RivaConfig, SilenceGateConfig
from asr.engine import Engine
from asr.engines.gateway import GatewayEngine
from asr.engines.riva import RivaEngine
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from asr.options import Options
from asr.resilience.resilient import ResilientEngine
from asr.silence_gate import SilenceGate
from e2e.command import Shell, wait_for
from e2e.gateway import running, session
from e2e.test_grpc_complete import Able
from otlp_receiver import Collector, attributes, collecting
from server.serve import Addresses
from timing import in_time
from word_engine import WordEngine

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = f"00-{TRACE}-{SPAN}-01"
PLAN = {"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]}
CLOSE_S = 3.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.telemetry.span_sender.SEND_EVERY_MS", 50)


async def talk(addresses: Addresses, traceparent: str = "", ms: int = 2_700) -> list[dict[str, Any]]:
    """One native stream; all that was answered."""
    headers = {"traceparent": traceparent} if traceparent else {}
    told = []
    async with session(addresses, additional_headers=headers) as client:
        await client.say('{"type":"start"}')
        for _ in range(0, ms, 100):
            await client.say(b"\x00\x20" * 1600)
        await client.say('{"type":"stop"}')
        while (text := await client.answer()).startswith("{"):
            told.append(json.loads(text))
    return told


@asynccontextmanager
async def traced(engine: Engine, tmp_path: Path, **more: object) -> AsyncIterator[tuple[Addresses, Collector]]:
    async with (
        collecting() as collector,
        running(engine, tmp_path, otel_exporter_otlp_endpoint=collector.url, **more) as addresses,
    ):
        yield addresses, collector


async def test_the_clients_trace_goes_on_to_the_recognizer_the_log_and_the_span(tmp_path: Path) -> None:
    async with MockRivaServer(load_plan(PLAN)) as riva:
        engine = RivaEngine(RivaConfig(endpoint=f"localhost:{riva.port}"))
        with structlog.testing.capture_logs() as log:
            secret = "team=speech,authorization=Bearer%20collector"
            async with traced(engine, tmp_path, otel_exporter_otlp_headers=secret) as (addresses, collector):
                await talk(addresses, CALLER)
                (span,) = await collector.has(1)
        (call,) = [call for call in riva.calls if call.method == "StreamingRecognize"]
        others = [call for call in riva.calls if call.method != "StreamingRecognize"]
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == SPAN
    assert dict(call.metadata)["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert others
    assert not any(call.delivered("traceparent") for call in others)
    lines = [line for line in log if line["event"] in ("stream opened", "stream closed")]
    assert [line["trace_id"] for line in lines] == [TRACE, TRACE]
    told = attributes(span)
    assert told["riva_gateway.stream_id"] == lines[0]["stream_id"]
    assert told["riva_gateway.outcome"] == "ok"
    assert told["riva_gateway.audio_ms"] == 2_700
    assert "error.type" not in told
    assert (span.name, span.kind, span.status.code) == ("stream native", 2, 0)
    assert 0 < span.start_time_unix_nano < span.end_time_unix_nano
    assert collector.paths == ["/v1/traces"]
    assert collector.headers[0]["team"] == "speech"
    assert collector.headers[0]["authorization"] == "Bearer collector"
    assert collector.resources[0]["service.name"] == "riva-gateway"
    assert collector.resources[0]["service.version"] == asr.__version__
    assert b"one two three" not in collector.raw


async def test_what_happened_is_marked_in_the_span(tmp_path: Path) -> None:
    async with traced(WordEngine(), tmp_path) as (addresses, collector):
        async with session(addresses) as client:
            await client.say('{"type":"start"}')
            for _ in range(25):
                await client.say(b"\x00\x20" * 1600)
                await asyncio.sleep(0.02)
            await client.say('{"type":"stop"}')
            while (await client.answer()).startswith("{"):
                pass
        (span,) = await collector.has(1)
    names = [event.name for event in span.events]
    assert names[0] == "first_partial"
    assert "final" in names
    assert span.parent_span_id == b""
    times = [event.time_unix_nano for event in span.events]
    assert times == sorted(times)
    assert span.start_time_unix_nano <= times[0]
    assert times[-1] <= span.end_time_unix_nano
    assert "riva_gateway.latency_ms" in attributes(span.events[0])


async def test_a_stream_that_the_recognizer_failed_is_an_error(tmp_path: Path) -> None:
    async with traced(WordEngine("unavailable@400"), tmp_path) as (addresses, collector):
        await talk(addresses)
        (span,) = await collector.has(1)
    assert span.status.code == 2
    assert attributes(span)["error.type"] == "unavailable"


async def test_the_callers_decision_wins_and_else_the_share(tmp_path: Path) -> None:
    async with traced(WordEngine(), tmp_path, otel_traces_sampler_arg=0.0) as (addresses, collector):
        await talk(addresses)
        await talk(addresses, CALLER[:-2] + "00")
        await talk(addresses, CALLER)
        (span,) = await collector.has(1)
    assert span.trace_id.hex() == TRACE
    assert len(collector.spans) == 1


async def test_a_collector_that_is_gone_disturbs_no_stream_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.telemetry.span_sender.CLOSE_TIMEOUT_S", 0.5)
    with structlog.testing.capture_logs() as log:
        url = "http://127.0.0.1:1"
        async with running(WordEngine(), tmp_path, otel_exporter_otlp_endpoint=url) as addresses:
            for _ in range(3):
                told = await talk(addresses)
                assert told[-1]["type"] == "summary"
                await asyncio.sleep(0.1)
            begun = time.monotonic()
        in_time(time.monotonic() - begun, 0.5 + 1.0)
    told_of = [line for line in log if "traces" in line["event"]]
    assert len(told_of) == 1
    assert "streams go on" in told_of[0]["event"]


async def test_a_process_with_a_silent_collector_ends_in_time(tmp_path: Path) -> None:
    async with collecting(silent=True) as collector:
        shell = Shell(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "LOG_FORMAT": "json"})
        arguments = ("serve", "--engine", "mock", "--no-tls", "--port", "0", "--grpc-port", "off")

        def serve() -> tuple[float, int | None, str]:
            with shell.start(*arguments) as process:
                port = int(wait_for(process, r"http://localhost:(\d+)")[1])
                addresses = Addresses("127.0.0.1", port, None, False, "mock")
                for _ in range(2):
                    assert asyncio.run(talk(addresses))[-1]["type"] == "summary"
                begun = time.monotonic()
                process.terminate()
                _, errors = process.communicate(timeout=30)
                return time.monotonic() - begun, process.returncode, errors

        took_s, status, errors = await asyncio.to_thread(serve)
    assert status == 0
    in_time(took_s, CLOSE_S + 1.5)
    assert "Traceback" not in errors
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert [event for event in events if "traces" in event] == ["traces cannot be sent; streams go on"]


LOADED = """
import asyncio, sys
from asr.engines.mock import MockEngine
from asr.mock.plan import DEFAULT_PLAN
from asr.settings import load_settings
from server.serve import serve
from server.settings import ServerSettings

async def main():
    given = {"port": 0, "grpc_port": 0, "tls": False, "jobs": False, "state_dir": sys.argv[1]}
    settings = load_settings(ServerSettings, given, env={}, env_file=None)
    stop = asyncio.Event()
    await serve(settings, announce=lambda _: stop.set(), engine=MockEngine(DEFAULT_PLAN), stop=stop)

asyncio.run(main())
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""


def test_without_an_endpoint_opentelemetry_is_not_even_loaded(tmp_path: Path) -> None:
    # Its API is, by the web framework: some constants.
    command = [sys.executable, "-c", LOADED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


async def test_the_recognizer_is_told_by_the_library_through_every_wrapper() -> None:
    audio = b"\x00\x20" * 43_200
    async with MockRivaServer(load_plan(PLAN)) as riva:
        config = RivaConfig(endpoint=f"localhost:{riva.port}", metadata=(("traceparent", "theirs"),))
        gated = SilenceGate(ResilientEngine([RivaEngine(config)]), SilenceGateConfig(), make_voice=Loud)
        for engine in (RivaEngine(config), ChannelsEngine(gated)):
            channels = 1 if isinstance(engine, RivaEngine) else 2
            async with asyncio.timeout(15):
                async for _ in engine.stream(
                    speech.chunks(audio * channels), Options(traceparent=CALLER, channels=channels)
                ):
                    pass
            await engine.aclose()
        calls = [call for call in riva.calls if call.method == "StreamingRecognize"]
    assert [call.delivered("traceparent") for call in calls] == [1, 1, 1]
    assert all(("traceparent", CALLER) in call.metadata for call in calls)


async def test_a_stream_that_goes_on_elsewhere_stays_in_its_trace() -> None:
    broken = load_plan(PLAN | {"faults": [{"kind": "unavailable", "at_ms": 800}]})
    async with MockRivaServer(broken) as first, MockRivaServer(load_plan(PLAN)) as second:
        engines = [RivaEngine(RivaConfig(endpoint=f"localhost:{riva.port}")) for riva in (first, second)]
        engine = ResilientEngine(engines)
        async with asyncio.timeout(15):
            async for _ in engine.stream(speech.chunks(b"\x00\x20" * 43_200), Options(traceparent=CALLER)):
                pass
        await engine.aclose()
        calls = [call for call in (*first.calls, *second.calls) if call.method == "StreamingRecognize"]
    assert len(calls) >= 2
    assert all(("traceparent", CALLER) in call.metadata for call in calls)


async def test_a_gateway_tells_a_further_gateway(tmp_path: Path) -> None:
    further = Able()
    async with running(further, tmp_path / "far") as far:
        near = GatewayEngine(GatewayConfig(url=far.url))
        async with traced(near, tmp_path / "near") as (addresses, collector):
            await talk(addresses, CALLER)
            (span,) = await collector.has(1)
    assert further.asked[-1].traceparent == f"00-{TRACE}-{span.span_id.hex()}-01"


class Loud:
    """Hears speech all the time."""

    def __call__(self, pcm: bytes) -> float:
        return 1.0

    def reset(self) -> None:
        pass
