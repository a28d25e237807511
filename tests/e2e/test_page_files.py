"""Audio files on the browser page: dropped, chosen, cancelled, refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from e2e.browser import chromium
from e2e.page import Opened, goodbye, idle, nobody, notice, tone_wav
from e2e.page_server import Talk
from timing import in_time

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """A browser whose microphone plays 30 s of one tone."""
    speech = tone_wav(tmp_path_factory.mktemp("page") / "tone.wav", seconds=30)
    async with chromium(speech=speech) as running:
        yield running


DROP = """([bytes, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
  for (const kind of ["dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""


async def drop(page: Page, name: str, content: bytes) -> None:
    await page.evaluate(DROP, [base64.b64encode(content).decode(), name])


async def test_a_dropped_file_is_sent_faster_than_real_time_with_progress(browser: Browser, tmp_path: Path) -> None:
    half = asyncio.Event()
    ahead: list[int] = []

    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.heard(9_000)
        await asyncio.sleep(0.3)
        ahead.append(talk.heard_bytes // 32)  # all that the page sends without a sign of life
        await talk.ack(processed_ms=10_000)
        await talk.final("first half")
        await half.wait()
        while talk.heard_bytes < 20_000 * 32:
            await talk.heard(min(20_000, talk.heard_bytes // 32 + 1))
            await talk.ack()
        await goodbye(talk, text="second half")

    wav = tone_wav(tmp_path / "talk.wav", seconds=20, rate_hz=16_000)
    opened = Opened(browser, script)
    async with opened as seen:
        page = seen.page
        began = asyncio.get_running_loop().time()
        await drop(page, "talk.wav", wav.read_bytes())
        await expect(page.locator("#finals .words")).to_have_text("first half")
        await expect(page.locator("#job-name")).to_have_text("talk.wav")
        await expect(page.locator("#job-time")).to_have_text("0:10 of 0:20")
        assert await page.locator("#progress").evaluate("(p) => p.value") == 0.5
        await expect(page.locator("#talk")).to_be_disabled()
        half.set()
        await expect(page.locator("#finals .words")).to_have_text(["first half", "second half"])
        await idle(page)
        in_time(asyncio.get_running_loop().time() - began, 15)
        await expect(page.locator("#state")).to_have_text("talk.wav: 20 s transcribed")
        await expect(page.locator("#elapsed")).to_be_hidden()
        assert ahead[0] <= 10_500
        talk = opened.server.talks[0]
        assert talk.start["pace"] == "file"
        assert bytes(talk.audio) == wav.read_bytes()[44:]
        seen.assert_clean()


async def test_a_file_can_be_cancelled(browser: Browser, tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.heard(5_000)
        await talk.final("so far")
        assert await talk.asked() == "cancel"
        await talk.summary()

    wav = tone_wav(tmp_path / "long.wav", seconds=60, rate_hz=8_000)
    opened = Opened(browser, script)
    async with opened as seen:
        page = seen.page
        await page.set_input_files("#file", wav)
        await expect(page.locator("#finals .words")).to_have_text("so far")
        await expect(page.locator("#cancel")).to_be_focused()
        await page.keyboard.press("Enter")
        await idle(page)
        await expect(page.locator("#finals .words")).to_have_text("so far")
        await expect(page.locator(".notice")).to_have_count(0)
        await expect(page.locator("#choose")).to_be_focused()
        await expect(page.locator("#state")).to_have_text("long.wav: cancelled.")
        assert opened.server.talks[0].heard_bytes < 60_000 * 32
        seen.assert_clean()


async def test_a_file_without_speech_is_told(browser: Browser, tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.heard(1_000)
        await goodbye(talk)

    async with Opened(browser, script) as seen:
        page = seen.page
        await page.set_input_files("#file", tone_wav(tmp_path / "hum.wav", seconds=1, rate_hz=16_000))
        await expect(notice(page, "no-speech")).to_contain_text("No speech was recognized in hum.wav.")
        await expect(page.locator("#state")).to_have_text("hum.wav: 1 s heard, no words")
        await expect(page.locator(".notice")).to_have_count(1)
        await idle(page)
        seen.assert_clean()


async def test_files_that_cannot_be_used(browser: Browser) -> None:
    async with Opened(browser, nobody) as seen:
        page = seen.page
        await drop(page, "notes.txt", b"these are words, not sounds")
        await expect(notice(page, "file-undecodable")).to_contain_text("notes.txt")
        await idle(page)
        await drop(page, "nothing.wav", b"")
        await expect(notice(page, "file-empty")).to_contain_text("nothing.wav")
        await expect(notice(page, "file-undecodable")).to_have_count(0)
        await idle(page)
        seen.assert_clean()
