"""The browser page in a real Chromium, in front of a server that says exactly what each test wants."""

from __future__ import annotations

import array
import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from asr import transcript
from e2e.browser import chromium
from e2e.page import TONE_HZ, Opened, goodbye, idle, notice, tone_wav
from e2e.page_server import Talk

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """A browser whose microphone plays 30 s of one tone."""
    speech = tone_wav(tmp_path_factory.mktemp("page") / "tone.wav", seconds=30)
    async with chromium(speech=speech) as running:
        yield running


async def test_words_appear_while_speaking_and_the_stop_brings_the_last_of_them(browser: Browser) -> None:
    said = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.ready(warnings=["Punctuation is not available."])
        await talk.heard(300)
        await talk.partial("good", end_ms=200)
        await talk.partial("good morning to", revision=2, end_ms=300, stable=4)
        await said.wait()
        await talk.final("good morning to you")
        await talk.partial("and", u=1)
        await goodbye(talk, text="and good night")

    opened = Opened(browser, script)
    async with opened as seen:
        page = seen.page
        await expect(page.locator("#empty")).to_be_visible()
        await expect(page.locator("#connection")).to_have_text("Ready")
        await page.get_by_role("button", name="Start").click()
        await expect(page.locator(".partial .stable")).to_have_text("good")
        await expect(page.locator(".partial .rest")).to_have_text(" morning to", use_inner_text=False)
        await expect(page.locator("#connection")).to_have_text("Live")
        await expect(page.locator("#fact-model")).to_have_text("scripted-en, scripted engine")
        await expect(page.locator("#fact-language")).to_have_text("en-US")
        await expect(notice(page, "warning")).to_contain_text("Punctuation is not available.")
        # Partials are not read out; finals are.
        await expect(page.locator("#finals[aria-live=polite]")).to_be_empty()
        assert await page.locator("[aria-live=polite] .partial").count() == 0
        said.set()
        await expect(page.locator("#finals .words")).to_have_text(["good morning to you"])
        await expect(page.locator(".partial")).to_have_text("and")
        await expect(page.locator("#elapsed")).not_to_have_text("0:00")
        await expect(page.locator("#fact-partial")).to_contain_text("ms")
        assert int(await page.locator("#meter").get_attribute("aria-valuenow") or 0) > 50
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator("#finals .words")).to_have_text(["good morning to you", "and good night"])
        await idle(page)
        await expect(page.locator(".partial")).to_have_count(0)
        assert opened.server.talks[0].start == {
            "type": "start",
            "audio": {"encoding": "pcm_s16le", "sample_rate_hz": 16_000, "channels": 1},
            "interim": True,
            "words": True,
            "pace": "live",
        }
        seen.assert_clean()


async def test_the_microphone_arrives_as_16_khz_without_a_gap(browser: Browser) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.heard(2000)
        await talk.final("enough")
        await goodbye(talk)

    opened = Opened(browser, script)
    async with opened as seen:
        await seen.page.click("#talk")
        await expect(seen.page.locator("#finals .words")).to_have_text("enough")
        await seen.page.click("#talk")
        await idle(seen.page)
        pcm = array.array("h", bytes(opened.server.talks[0].audio))
        assert len(pcm) >= 32_000
        middle = pcm[8_000:24_000]
        crossings = sum(1 for a, b in itertools.pairwise(middle) if a < 0 <= b)
        assert abs(crossings - TONE_HZ) <= TONE_HZ / 100, "one second of a tone at another pitch: the rate is wrong"
        # A tone obeys x[n+1] = 2 cos(w) x[n] - x[n-1]; a lost or doubled sample breaks it. Chromium's own fake
        # device may stumble on a busy machine; a fault of ours would show at each of some hundred blocks.
        turn = 2 * math.cos(2 * math.pi * TONE_HZ / 16_000)
        triples = zip(middle, middle[1:], middle[2:], strict=False)
        seams = sum(1 for a, b, c in triples if abs(c - turn * b + a) > 300)
        assert seams <= 12, f"the sound has {seams} broken samples in a second"
        seen.assert_clean()


async def test_what_is_said_before_the_server_is_ready_and_right_before_the_stop_counts(browser: Browser) -> None:
    stop_pressed = asyncio.Event()

    async def script(talk: Talk) -> None:
        await stop_pressed.wait()
        await talk.ready()
        assert await talk.asked() == "stop"
        await talk.final("all of it")
        await talk.summary()

    opened = Opened(browser, script)
    async with opened as seen:
        page = seen.page
        for n in (1, 2):
            stop_pressed.clear()
            await page.click("#talk")
            await expect(page.locator("#elapsed")).to_have_text("0:01")
            await page.click("#talk")
            await expect(page.locator("body")).to_have_attribute("data-mode", "finishing")
            stop_pressed.set()
            await expect(page.locator("#finals .words")).to_have_count(n)
            await idle(page)
        lengths = [len(talk.audio) for talk in opened.server.talks]
        assert min(lengths) >= 1_000 * 32
        # The last chunk is shorter than 100 ms, unless the stop met its end to the sample both times.
        assert any(length % 3200 for length in lengths)
        seen.assert_clean()


async def test_a_stop_before_the_server_is_ready_waits_for_it(browser: Browser) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.heard(100)
        await goodbye(talk, text="short")

    async with Opened(browser, script) as seen:
        outcome = await seen.page.evaluate(
            """async () => {
              const { Session } = await import("/session.js");
              const texts = [];
              const problem = await new Promise((resolve) => {
                const message = ({ text }) => text && texts.push(text);
                const session = new Session({ message, end: resolve });
                session.open();
                session.send(new ArrayBuffer(3200));
                session.stop();
              });
              return [problem, texts];
            }"""
        )
        assert outcome == [None, ["short"]]
        seen.assert_clean()


async def test_keyboard_alone(browser: Browser) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.final("one two three")
        await goodbye(talk)

    async with Opened(browser, script) as seen:
        page = seen.page
        await expect(page.locator("#connection")).to_have_text("Ready")
        await page.keyboard.press("Space")
        await expect(page.locator("#finals .words")).to_have_text("one two three")
        await page.keyboard.press("Enter")
        await idle(page)
        assert await page.locator(".word[tabindex]").count() == 0
        await page.locator("#times").focus()
        await page.keyboard.press("Space")
        await expect(page.locator("#times")).to_have_attribute("aria-pressed", "true")
        for _ in range(12):  # tools, the transcript, then the first word
            await page.keyboard.press("Tab")
            if await page.locator(".word:focus").count():
                break
        await expect(page.locator("#tip")).to_have_text("0.10 – 0.45 s, 90 % sure")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator(".word:focus")).to_have_text("two")
        await expect(page.locator("#tip")).to_have_text("0.50 – 0.85 s, 90 % sure")
        assert await page.locator(".word[tabindex='0']").count() == 1
        await page.locator(".word", has_text="three").hover()
        await expect(page.locator("#tip")).to_have_text("0.90 – 1.25 s, 90 % sure")
        await page.locator("#times").click()
        await expect(page.locator("#tip")).to_be_hidden()
        unnamed = await page.evaluate(
            "[...document.querySelectorAll('button, input, a, progress, [role=meter], [role=region]')]"
            ".filter((e) => !(e.ariaLabel || e.getAttribute('aria-labelledby') || e.textContent.trim()))"
            ".map((e) => e.outerHTML)"
        )
        assert unnamed == []
        seen.assert_clean()


async def test_copy_download_and_clear(browser: Browser) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.final("hello there")
        await talk.final("general <remarks>", u=1, start_ms=4000)
        await goodbye(talk)

    async with Opened(browser, script, permissions=["clipboard-read", "clipboard-write", "microphone"]) as seen:
        page = seen.page
        await expect(page.locator("[data-download=txt]")).to_be_disabled()
        for n in (1, 2):  # the second session goes on where the first ended
            await page.click("#talk")
            await expect(page.locator("#finals .words")).to_have_count(2 * n)
            await expect(page.locator("#clear")).to_be_disabled()
            await page.click("#talk")
            await idle(page)
        files = {}
        for kind in ("txt", "srt", "vtt", "json"):
            async with page.expect_download() as info:
                await page.click(f"[data-download={kind}]")
            download = await info.value
            assert download.suggested_filename == f"transcript.{kind}"
            files[kind] = Path(await download.path()).read_text("utf-8")
        assert files["txt"] == "hello there\ngeneral <remarks>\n" * 2
        assert files["srt"].startswith(
            "1\n00:00:00,100 --> 00:00:00,850\nhello there\n\n2\n00:00:04,000 --> 00:00:04,750\n"
        )
        assert files["vtt"].startswith("WEBVTT\n\n00:00:00.100 --> 00:00:00.850\nhello there\n\n")
        assert "general &lt;remarks&gt;" in files["vtt"]
        document = json.loads(files["json"])
        jsonschema.validate(document, transcript.schema())
        assert document["text"] == "hello there general <remarks> hello there general <remarks>"
        assert document["model"] == "scripted-en"
        first, last, again, _ = document["finals"]
        assert [word["start_ms"] for word in first["words"]] == [100, 500]
        assert again["start_ms"] >= last["end_ms"] + 100
        await page.click("#copy")
        await expect(page.locator("#copy")).to_have_text("Copied")
        assert await page.evaluate("navigator.clipboard.readText()") == files["txt"]
        await page.click("#clear")
        await expect(page.locator("#finals")).to_be_empty()
        await expect(page.locator("#empty")).to_be_visible()
        await expect(page.locator("#copy")).to_be_disabled()
        seen.assert_clean()
