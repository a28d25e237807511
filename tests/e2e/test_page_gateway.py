"""The browser page in front of real gateways: scripted and embedded recognizer, TLS, and one that is killed."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

import speech
from e2e.browser import Visit, chromium, visit
from e2e.command import Shell, wait_for
from e2e.gateway import running
from e2e.page_relay import relay

pytestmark = [pytest.mark.browser, pytest.mark.asyncio]


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


PLAN = {
    "hears": "clock",
    "utterances": [{"words": [f"w{4 * n + i}" for i in range(4)], "word_ms": 200, "pause_ms": 600} for n in range(60)],
}
"""Each word once, by the audio clock: what is missing or doubled can be seen."""


@contextmanager
def counting(home: Path, port: int | str = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A gateway process that counts its words, and its port."""
    (home / "plan.json").write_text(json.dumps(PLAN), "utf-8")
    shell = Shell(home, {"ASR_MOCK_PLAN": str(home / "plan.json")})
    with shell.start("serve", "--no-tls", "--port", str(port), "--grpc-port", "off", "--engine", "mock") as process:
        yield process, int(wait_for(process, r"http://localhost:(\d+)")[1])


def assert_counted(words: list[str], *, least: int) -> None:
    assert words == [f"w{n}" for n in range(len(words))]
    assert len(words) >= least


@pytest.mark.parametrize("away_s", [0.0, pytest.param(20.0, marks=pytest.mark.slow)], ids=["cut", "twenty_seconds"])
async def test_a_lost_connection_to_a_real_gateway_costs_no_word(tmp_path: Path, away_s: float) -> None:
    with counting(tmp_path) as (_, port):
        async with (
            relay(port) as network,
            chromium(speech=loud_wav(tmp_path / "loud.wav", seconds=50)) as browser,
            visit(browser, network.url) as seen,
        ):
            page = seen.page
            await page.click("#talk")
            for finals in (1, 3):
                await expect(page.locator("#finals .words")).to_have_count(finals)
                network.down()
                await asyncio.sleep(away_s)
                await network.up()
                await expect(page.locator("#state")).to_have_text("Back: nothing was lost.")
                if away_s:
                    break
            await expect(page.locator("#state")).to_have_text("Listening. Press Stop when you are done.")
            await expect(page.locator("#finals .words").nth(5)).to_be_visible()
            await page.click("#talk")
            await idle(page)
            elapsed = await page.locator("#elapsed").inner_text()
            minutes, seconds = elapsed.split(":")
            assert_counted((await words_on(page)).split(), least=int((int(minutes) * 60 + int(seconds)) / 1.4) * 4 - 4)
            await expect(page.locator(".notice, .gap, .unfinished")).to_have_count(0)
            assert_quiet(seen)


async def test_a_gateway_that_is_killed_while_someone_speaks(tmp_path: Path) -> None:
    async with chromium(speech=loud_wav(tmp_path / "loud.wav", seconds=40)) as browser:
        with counting(tmp_path) as (process, port):
            opened = visit(browser, f"http://localhost:{port}/")
            seen = await opened.__aenter__()
            page = seen.page
            await page.click("#talk")
            await expect(page.locator("#finals .words")).to_have_count(1)
            await expect(page.locator(".partial .words")).to_contain_text("w5")
            process.send_signal(signal.SIGKILL)
            await expect(page.locator("#state")).to_contain_text("Reconnecting… your words are kept")
        try:
            with counting(tmp_path, port):
                await expect(page.locator("#state")).to_have_text("Back: nothing was lost.")
                await expect(page.locator("#finals .words").nth(2)).to_be_visible()
                await page.click("#talk")
                await idle(page)
                lines = [line.split() for line in await page.locator("#finals .words").all_inner_texts()]
                assert lines[0] == ["w0", "w1", "w2", "w3"]
                # The new process counts anew, from where the text of the old one ended.
                assert_counted([word for line in lines[1:] for word in line], least=6)
                starts = await page.locator("#finals .word").evaluate_all(
                    "(words) => words.map((word) => Number(word.dataset.start))"
                )
                assert starts == sorted(set(starts))
                await expect(page.locator(".notice, .gap, .unfinished")).to_have_count(0)
                assert_quiet(seen)
        finally:
            await opened.__aexit__(None, None, None)


async def test_a_gateway_that_is_restarted_for_maintenance(tmp_path: Path) -> None:
    async with chromium(speech=loud_wav(tmp_path / "loud.wav", seconds=40)) as browser:
        with counting(tmp_path) as (process, port):
            opened = visit(browser, f"http://localhost:{port}/")
            seen = await opened.__aenter__()
            page = seen.page
            await page.click("#talk")
            await expect(page.locator(".partial .words")).to_contain_text("w1")
            process.send_signal(signal.SIGTERM)
            await expect(page.locator("#connection")).to_have_text("Reconnecting")
            assert await asyncio.to_thread(process.wait, 20) == 0
        try:
            with counting(tmp_path, port):
                await expect(page.locator("#state")).to_have_text("Back: nothing was lost.")
                await expect(page.locator("#finals .words").nth(2)).to_be_visible()
                await page.click("#talk")
                await idle(page)
                words = (await words_on(page)).split()
                again = words.index("w0", 1)
                assert_counted(words[:again], least=2)
                assert_counted(words[again:], least=6)
                await expect(page.locator(".notice, .gap, .unfinished")).to_have_count(0)
                assert_quiet(seen)
        finally:
            await opened.__aexit__(None, None, None)


def assert_quiet(seen: Visit) -> None:
    """Nothing went wrong in the page; that a connection failed is written to the console by the browser itself."""
    seen.console[:] = [line for line in seen.console if "WebSocket" not in line]
    seen.assert_clean()


@pytest.mark.alone
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
