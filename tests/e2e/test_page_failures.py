"""What the browser page says when something goes wrong, and what it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from e2e.browser import chromium, visit
from e2e.page import Opened, goodbye, idle, nobody, notice, tone_wav
from e2e.page_server import Talk, page_server

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """A browser whose microphone plays 30 s of one tone."""
    speech = tone_wav(tmp_path_factory.mktemp("page") / "tone.wav", seconds=30)
    async with chromium(speech=speech) as running:
        yield running


async def test_a_server_lost_while_speaking_leaves_the_text_and_offers_to_go_on(browser: Browser) -> None:
    calls: list[Talk] = []

    async def script(talk: Talk) -> None:
        calls.append(talk)
        await talk.ready()
        await talk.heard(200)
        if len(calls) == 1:
            await talk.final("this was said")
            await talk.partial("this was not con", u=1)
            await talk.heard(600)
            talk.connection.transport.abort()
        else:
            await talk.final("and on we go")
            await goodbye(talk)

    async with Opened(browser, script) as seen:
        page = seen.page
        await page.click("#talk")
        await expect(notice(page, "lost")).to_contain_text("connection to the server was lost")
        assert await notice(page, "lost").get_attribute("role") == "alert"
        await idle(page)
        await expect(page.locator("#connection")).to_have_text("Disconnected")
        await expect(page.locator("#state")).to_have_text("Disconnected. Press Start to try again.")
        await expect(page.locator("#finals .words")).to_have_text(["this was said", "this was not con (not confirmed)"])
        await page.get_by_role("button", name="Start again").click()
        await expect(page.locator(".notice")).to_have_count(0)
        await expect(page.locator("#finals .words")).to_have_text(
            ["this was said", "this was not con (not confirmed)", "and on we go"]
        )
        await page.click("#talk")
        await idle(page)
        seen.assert_clean()


async def test_the_servers_own_error_is_shown_with_what_to_do(browser: Browser) -> None:
    talks: list[Talk] = []

    async def script(talk: Talk) -> None:
        talks.append(talk)
        if len(talks) == 2:
            await talk.ready()
            await talk.final("up again")
            await goodbye(talk)
            return
        await talk.say(
            "error", code="bad_request", message="A small mistake.", fatal=False, retryable=False, action="none"
        )
        await talk.say(
            "error",
            code="unavailable",
            message="All recognizers are down. Try again shortly.",
            fatal=True,
            action="wait",
            retry_after_ms=4000,
        )
        await talk.connection.close(4502, "unavailable")

    async with Opened(browser, script) as seen:
        page = seen.page
        await page.click("#talk")
        await expect(page.locator(".notice[data-tone=problem] .notice-words")).to_have_text(
            "The server ended the sessionAll recognizers are down. Try again in 4 s."
        )
        await expect(page.locator(".notice[data-tone=warning]")).to_contain_text("A small mistake.")
        await idle(page)
        await expect(page.locator("#connection")).to_have_text("Stopped")
        await expect(page.locator("#connection")).to_have_attribute("data-state", "idle")
        await page.get_by_role("button", name="Dismiss: The server ended the session").click()
        await expect(page.locator(".notice[data-tone=problem]")).to_have_count(0)
        await expect(page.locator("#connection")).to_have_text("Stopped")
        await page.click("#talk")
        await expect(page.locator("#connection")).to_have_text("Live")
        await page.click("#talk")
        await idle(page)
        await expect(page.locator("#connection")).to_have_text("Ready")
        seen.assert_clean()


async def test_a_session_that_the_server_ends_by_itself_says_so(browser: Browser) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.heard(100)
        await talk.final("the end")
        await talk.summary()
        await talk.connection.close(1001)

    async with Opened(browser, script) as seen:
        await seen.page.click("#talk")
        await expect(notice(seen.page, "ended")).to_be_visible()
        await idle(seen.page)
        await expect(seen.page.locator("#finals .words")).to_have_text("the end")
        seen.assert_clean()


async def test_a_server_that_goes_down_gets_no_more_audio_and_is_told_once_and_calmly(browser: Browser) -> None:
    late: list[int] = []

    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.heard(300)
        await talk.say("status", state="draining")
        await expect(notice(seen.page, "draining")).to_be_visible()
        before = talk.heard_bytes
        await asyncio.sleep(0.5)  # time in which a live microphone would have sent five chunks
        late.append(talk.heard_bytes - before)
        await talk.final("the end")
        await talk.summary()
        await talk.connection.close(1001)

    async with Opened(browser, script) as seen:
        page = seen.page
        await page.click("#talk")
        await idle(page)
        await expect(page.locator("#finals .words")).to_have_text("the end")
        await expect(page.locator(".notice")).to_have_count(1)
        await expect(notice(page, "draining")).to_contain_text("The server is going down; your words are kept")
        assert await notice(page, "draining").get_attribute("role") == "status"
        await expect(page.locator("#connection")).to_have_text("Offline")
        await expect(page.locator("#state")).to_have_text("The server went down. Press Start in a moment.")
        assert late == [0]
        seen.assert_clean()


async def test_a_recording_without_speech_is_told(browser: Browser) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.heard(100)
        await goodbye(talk)

    async with Opened(browser, script) as seen:
        await seen.page.click("#talk")
        await expect(seen.page.locator("#elapsed")).to_have_text("0:01")
        await seen.page.click("#talk")
        await expect(notice(seen.page, "no-speech")).to_contain_text("No speech was recognized in the recording.")
        await expect(seen.page.locator("#state")).to_have_text("Stopped. Press Start to go on.")
        seen.assert_clean()


async def test_a_server_that_falls_silent_is_noticed(browser: Browser) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.final("then nothing")
        await talk.connection.wait_closed()

    async with Opened(browser, script) as seen:
        page = seen.page
        await page.clock.install()
        await page.click("#talk")
        await expect(page.locator("#finals .words")).to_have_text("then nothing")
        await page.clock.fast_forward(19_000)
        await expect(page.locator("body")).to_have_attribute("data-mode", "live")
        await page.clock.fast_forward(2_000)
        await expect(notice(page, "silent")).to_contain_text("It said nothing for 20 seconds")
        await idle(page)
        seen.assert_clean()


async def test_a_stop_that_is_never_answered_ends_after_ten_seconds(browser: Browser) -> None:
    stopped = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.ready()
        await talk.final("nearly all")
        assert await talk.asked() == "stop"
        stopped.set()
        await talk.connection.wait_closed()

    async with Opened(browser, script) as seen:
        page = seen.page
        await page.clock.install()
        await page.click("#talk")
        await expect(page.locator("#finals .words")).to_have_text("nearly all")
        await page.click("#talk")
        await asyncio.wait_for(stopped.wait(), 20)
        await expect(page.locator("body")).to_have_attribute("data-mode", "finishing")
        await page.clock.fast_forward(10_500)
        await expect(notice(page, "unflushed")).to_contain_text("The last words may be missing")
        await idle(page)
        await expect(page.locator("#finals .words")).to_have_text("nearly all")
        seen.assert_clean()


async def test_a_server_that_is_gone_when_start_is_pressed(browser: Browser) -> None:
    async with page_server(nobody) as server:
        opened = visit(browser, server.url)
        seen = await opened.__aenter__()
        await expect(seen.page.locator("#connection")).to_have_text("Ready")
    try:
        await seen.page.click("#talk")
        await expect(notice(seen.page, "unreachable")).to_contain_text(f"Nothing answers at {seen.host}")
        await idle(seen.page)
    finally:
        await opened.__aexit__(None, None, None)


async def test_a_refused_microphone() -> None:
    async with chromium(consent=False) as browser, Opened(browser, nobody) as seen:
        await seen.page.click("#talk")
        await expect(notice(seen.page, "microphone-refused")).to_contain_text("Allow it in the address bar")
        await expect(seen.page.locator("#state")).to_have_text("The microphone is off. Press Start to try again.")
        await idle(seen.page)
        await expect(seen.page.locator("#talk")).to_have_text("Start")
        seen.assert_clean()


async def test_no_microphone_and_an_insecure_address() -> None:
    flags = ["--host-resolver-rules=MAP gateway.test 127.0.0.1"]
    async with chromium(device=False, flags=flags) as browser:
        async with Opened(browser, nobody) as seen:
            await seen.page.click("#talk")
            await expect(notice(seen.page, "microphone-missing")).to_contain_text("No microphone found")
            await idle(seen.page)
            seen.assert_clean()
        async with page_server(nobody) as server:
            address = server.url.replace("localhost", "gateway.test")
            async with visit(browser, address) as seen:
                await expect(notice(seen.page, "insecure")).to_contain_text(
                    "only on https:// addresses and on localhost"
                )
                await seen.page.click("#talk")
                await expect(notice(seen.page, "insecure")).to_have_count(1)
                await idle(seen.page)
                seen.assert_clean()


async def test_a_browser_that_is_too_old(browser: Browser) -> None:
    async with page_server(nobody) as server, visit(browser, server.url) as seen:
        await seen.context.add_init_script("delete window.AudioWorkletNode")
        await seen.page.reload()
        await expect(notice(seen.page, "unsupported")).to_contain_text("too old for live speech")
        await seen.page.click("#talk")
        await idle(seen.page)
        seen.assert_clean()
