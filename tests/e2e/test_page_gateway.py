"""The browser page in front of real gateways: scripted and embedded recognizer, TLS, and one that is killed."""

from __future__ import annotations

import re
import signal
import wave
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

import speech
from e2e.browser import chromium, visit
from e2e.command import Shell, wait_for
from e2e.gateway import running

pytestmark = [pytest.mark.browser, pytest.mark.asyncio]


SERVE = ("serve", "--no-tls", "--port", "0", "--grpc-port", "off", "--engine", "mock")

BROWSER_ALLOWANCE = 0.1
"""Added to a clip's own limit on the word error rate: Chromium converts the fake microphone's sound twice (16 to
48 kHz, then ours back to 16), and a loaded machine may drop some of it. Measured on an idle one: no difference."""


async def words_on(page: Page) -> str:
    return " ".join(await page.locator("#finals .words").all_inner_texts())


async def idle(page: Page) -> None:
    await expect(page.locator("body")).to_have_attribute("data-mode", "idle", timeout=30_000)


async def test_microphone_to_the_scripted_recognizer_over_tls(tmp_path: Path) -> None:
    async with (
        running(None, tmp_path, asr_engine="mock", tls=True) as addresses,
        chromium(speech=loud_wav(tmp_path / "loud.wav", seconds=10)) as browser,
        visit(browser, addresses.url) as seen,
    ):
        page = seen.page
        assert page.url.startswith("https://")
        await page.click("#talk")
        await expect(page.locator(".partial")).to_contain_text("Good")
        await expect(page.locator("#finals .words").first).to_have_text(
            "Good morning, you are listening to a scripted recognizer.", timeout=20_000
        )
        await expect(page.locator(".partial")).to_contain_text("It says")
        await page.click("#talk")
        await idle(page)
        # The stop made a final of what was under way.
        await expect(page.locator("#finals .words")).to_have_count(2)
        await expect(page.locator("#fact-model")).to_have_text("mock-en-US-asr-streaming, mock engine")
        await expect(page.locator(".notice")).to_have_count(0)
        seen.assert_clean()


async def test_a_gateway_that_is_killed_while_someone_speaks(tmp_path: Path) -> None:
    with Shell(tmp_path).start(*SERVE) as process:
        url = wait_for(process, r"http://localhost:\d+")[0]
        async with (
            chromium(speech=loud_wav(tmp_path / "loud.wav", seconds=20)) as browser,
            visit(browser, url) as seen,
        ):
            page = seen.page
            await page.click("#talk")
            await expect(page.locator("#finals .words")).to_have_count(1)
            await expect(page.locator(".partial")).to_be_visible(timeout=10_000)
            process.send_signal(signal.SIGKILL)
            await expect(page.locator(".notice[data-kind=lost]")).to_be_visible()
            await expect(page.locator("#finals .words").first).to_have_text(re.compile("^Good morning"))
            await expect(page.get_by_role("button", name="Start again")).to_be_enabled()
            await idle(page)
            seen.assert_clean()


async def test_a_gateway_that_goes_down_for_maintenance(tmp_path: Path) -> None:
    with Shell(tmp_path).start(*SERVE) as process:
        url = wait_for(process, r"http://localhost:\d+")[0]
        async with (
            chromium(speech=loud_wav(tmp_path / "loud.wav", seconds=20)) as browser,
            visit(browser, url) as seen,
        ):
            page = seen.page
            await page.click("#talk")
            await expect(page.locator(".partial")).to_contain_text("Good morning, you")
            process.send_signal(signal.SIGTERM)
            await expect(page.locator(".notice[data-kind=draining]")).to_be_visible()
            await idle(page)
            await expect(page.locator(".notice")).to_have_count(1)
            await expect(page.locator("#finals .words")).to_have_text(re.compile("^Good morning, you"))
            await expect(page.locator(".unfinished")).to_have_count(0)
            seen.assert_clean()


async def test_real_speech_through_the_microphone(tmp_path: Path) -> None:
    clip = speech.clip("two_sentences")
    # People press Start before they speak; the fake microphone plays from the moment it is opened.
    spoken = wav_file(tmp_path / "spoken.wav", speech.silence(1000) + clip.pcm)
    async with (
        running(None, tmp_path, asr_engine="local") as addresses,
        chromium(speech=spoken) as browser,
        visit(browser, addresses.url) as seen,
    ):
        page = seen.page
        await page.click("#talk")
        await expect(page.locator(".partial .words")).to_have_text(re.compile("the shop"))
        assert await page.locator("#finals .words").count() == 0, "words were to come before the sentence ended"
        # The pause ends the first sentence while the microphone is still open.
        await expect(page.locator("#finals .words")).to_have_count(1)
        await expect(page.locator(".partial .words")).to_have_text(re.compile("we"))
        await expect(page.locator("#finals .words")).to_have_count(2)
        await page.click("#talk")
        await idle(page)
        assert speech.wer(clip.text, await words_on(page)) <= clip.max_wer + BROWSER_ALLOWANCE
        assert await page.locator("#finals .word").count() >= 12
        await expect(page.locator("#fact-partial")).to_have_text(re.compile(r"^\d+ ms$"))
        await expect(page.locator("#fact-model")).to_contain_text("local engine")
        seen.assert_clean()


async def test_a_stereo_file_of_real_speech(tmp_path: Path) -> None:
    clip = speech.clip("greeting")
    async with (
        running(None, tmp_path, asr_engine="local") as addresses,
        chromium() as browser,
        visit(browser, addresses.url) as seen,
    ):
        page = seen.page
        for name in ("greeting_44k_stereo.wav", "greeting.flac"):
            await page.set_input_files("#file", speech.path(name))
            await expect(page.locator("#job-name")).to_have_text(name)
            await idle(page)
            assert speech.wer(clip.text, await words_on(page)) <= clip.max_wer
            await page.click("#clear")
        seen.assert_clean()


def wav_file(path: Path, pcm: bytes) -> Path:
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        wav.writeframes(pcm)
    return path


def loud_wav(path: Path, *, seconds: float) -> Path:
    """Something that the scripted recognizer takes for speech."""
    return wav_file(path, (b"\x00\x20" * 40 + b"\x00\xe0" * 40) * int(seconds * 200))
