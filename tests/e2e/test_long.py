"""A ten-minute recording: every sentence of it, in flat memory."""

from __future__ import annotations

import asyncio
import sys
import wave
from pathlib import Path

import psutil
import pytest

import speech

MINUTES = 10
PATIENCE_S = 400.0
GROWTH_MIB = 25.0


def recording(path: Path) -> int:
    """A minute of story and silence, ten times; returns how often a marked sentence is said."""
    story, minute = speech.clip("story"), 60_000 * 32
    one = story.pcm + speech.silence(60_000 - story.duration_ms)
    assert len(one) == minute
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        for _ in range(MINUTES):
            file.writeframes(one)
    return MINUTES


def memory_mib(process: psutil.Process) -> float:
    """Of the command and the recognizer processes it started."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_ten_minutes_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    said = recording(path)
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("riva-gateway"), "transcribe", str(path), "--engine", "local",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    watched = psutil.Process(process.pid)
    samples: list[float] = []
    reading = asyncio.ensure_future(process.communicate())
    async with asyncio.timeout(PATIENCE_S):
        while not reading.done():
            await asyncio.wait([reading], timeout=0.5)
            if process.returncode is None and not reading.done():
                samples.append(memory_mib(watched))
    out, err = reading.result()
    assert process.returncode == 0, err.decode()
    text = out.decode()
    assert text.count("read the newspaper") == said
    assert text.count("until midnight") == said
    # The first fifth loads models; after it nothing may grow with the recording (19 MB of PCM).
    steady = samples[len(samples) // 5 :]
    assert len(steady) > 10
    assert max(steady) - min(steady[: len(steady) // 4]) < GROWTH_MIB, [round(s) for s in samples]
