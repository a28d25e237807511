"""The two whole clients of docs/event-schema.md do what the page says, as they are printed there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

import speech
from asr.engine import BYTES_PER_MS
from e2e.browser import chromium, visit
from e2e.gateway import PATIENCE_S, running
from e2e.page import tone_wav
from word_engine import WORD_MS, WordEngine

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "event-schema.md").read_text("utf-8")
ADDRESS = "ws://localhost:8443"


def example(language: str, port: int) -> str:
    """The page's one block of code in that language, pointed at the test's gateway."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    assert code.count(ADDRESS) == 1
    return str(code).replace(ADDRESS, f"ws://localhost:{port}")


@pytest.mark.asyncio
async def test_the_python_client_prints_every_final(tmp_path: Path) -> None:
    engine = WordEngine()
    async with running(engine, tmp_path) as addresses:
        script = tmp_path / "client.py"
        script.write_text(example("python", addresses.port), "utf-8")
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            str(speech.path("greeting.wav")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(client.communicate(), PATIENCE_S)
        finally:
            if client.returncode is None:
                client.kill()
                await client.wait()
    assert (client.returncode, err) == (0, b"")
    clip = speech.clip("greeting")
    assert engine.heard_bytes == clip.pcm
    assert out.decode().split() == [f"w{n}" for n in range(1, len(clip.pcm) // BYTES_PER_MS // WORD_MS + 1)]


@pytest.mark.browser
@pytest.mark.asyncio
async def test_the_browser_client_hears_the_microphone(tmp_path: Path) -> None:
    engine = WordEngine()
    async with (
        running(engine, tmp_path) as addresses,
        chromium(speech=tone_wav(tmp_path / "tone.wav", seconds=20)) as browser,
        visit(browser, addresses.url) as seen,
    ):
        heard: list[str] = []
        seen.page.on("console", lambda said: heard.append(said.text))
        code = example("js", addresses.port).replace("10000);", "1500);")
        await seen.page.evaluate(f"async () => {{ {code}\nsocket.onclose = ({{ code }}) => (document.title = code); }}")
        await expect(seen.page).to_have_title("1000")
        assert any(line.startswith("partial ") for line in heard)
        assert any(line.startswith("final ") for line in heard)
        seen.assert_clean()
