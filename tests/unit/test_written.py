"""What is written down of streams: nothing runs before the gateway starts, and nothing after it has ended."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from asr.settings import load_settings
from server.settings import ServerSettings
from server.telemetry.stream_log import LogSink
from server.telemetry.tallies import Tallies
from server.telemetry.written import build_written


async def test_a_gateway_that_does_not_come_to_its_start_leaves_no_thread(tmp_path: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "STATE_DIR": str(tmp_path)}
    settings = load_settings(ServerSettings, env=env, env_file=None)
    before = set(threading.enumerate())
    built = build_written(settings, Tallies)
    assert set(threading.enumerate()) == before
    for start in built.starters:
        start()
    assert {thread.name for thread in set(threading.enumerate()) - before} >= {"records"}
    assert len(set(threading.enumerate()) - before) == 2
    for close in built.closers:
        await close()
    left = [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("asyncio")]
    assert left == []


@pytest.mark.parametrize(("level", "wanted"), [("debug", True), ("info", True), ("warning", False), ("error", False)])
def test_lines_that_the_log_would_drop_are_not_put_together(tmp_path: Path, level: str, wanted: bool) -> None:
    env = {"LOG_LEVEL": level, "STATE_DIR": str(tmp_path)}
    built = build_written(load_settings(ServerSettings, env=env, env_file=None), Tallies)
    assert any(isinstance(sink, LogSink) for sink in built.sinks) is wanted
