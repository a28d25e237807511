"""The status page in a real Chromium, before a gateway with two recognizers, one of which dies."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from keyring import Keyring
from server.access.grants import Scope
from server.serve import Addresses

from .browser import chromium, visit
from .gateway import Session, running, session
from .monitors import until
from .page import CONTRAST

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

CHUNK = b"\x00\x20\x00\xe0" * 800
"""100 ms."""
_MS = re.compile(r"^[\d,]+ ms$")
PLAN = load_plan({
    "hears": "clock",
    "silence_ms": 200,
    "utterances": [{"words": "nothing of this is shown", "word_ms": 100, "pause_ms": 300}],
})  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium(device=False) as started:
        yield started


@asynccontextmanager
async def gateway(tmp_path: Path, *servers: MockRivaServer, **more: object) -> AsyncIterator[Addresses]:
    endpoints = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    given = {"riva_endpoints": endpoints, "riva_health_interval_ms": 300, **more}
    async with running(None, tmp_path, **given) as addresses:
        yield addresses


async def speak(client: Session, chunks: int = 30) -> None:
    await client.say('{"type":"start"}')
    for _ in range(chunks):
        await client.say(CHUNK)
        await asyncio.sleep(0.03)


async def status(addresses: Addresses) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", addresses.port)
    writer.write(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    try:
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    assert head.startswith(b"HTTP/1.1 200"), head
    return json.loads(body)


async def words(page: Page, text: str, level: str) -> None:
    await expect(page.locator("#words")).to_have_text(text)
    await expect(page.locator("#state-card")).to_have_attribute("data-level", level)


async def can_be_read(page: Page) -> None:
    """In both schemes, on a wide screen and on a narrow one."""
    for scheme in ("dark", "light"):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        assert await page.evaluate(CONTRAST) == []
        assert await page.evaluate("document.getAnimations().length") == 0
    for width in (360, 1280):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_a_stream_is_seen_and_a_dead_recognizer_too(browser: Browser, tmp_path: Path) -> None:
    async with (
        MockRivaServer(PLAN) as first,
        MockRivaServer(PLAN) as second,
        gateway(tmp_path, first, second, max_streams=4, asr_failover_timeout_ms=500) as addresses,
        visit(browser, f"{addresses.url}/status") as seen,
    ):
        page = seen.page
        await words(page, "Serving", "serving")
        await expect(page.locator("#faces")).to_have_text("Nobody speaks now")
        async with session(addresses) as client:
            await speak(client)
            await expect(page.locator("#in-use")).to_have_text("1")
            await expect(page.locator("#limit")).to_have_text("of 4 in use")
            await expect(page.locator("#faces")).to_have_text("Native1")
            assert await page.locator("#places").evaluate("(e) => e.value / e.max") == 0.25
            partials = page.locator("#latencies tr", has_text="Partials")
            await expect(partials.locator("td").first).to_have_text(_MS)
            await expect(partials).to_contain_text("95 % within 300 ms")
            await can_be_read(page)

            await second.stop()
            await words(page, "Degraded: endpoint 2 is down", "degraded")
            row = page.locator("#endpoints tr").nth(1)
            await expect(row.locator(".tag[data-tone=bad]").first).to_have_text("down")
            await can_be_read(page)
            await first.stop()
            await words(page, "Refusing: the recognizer cannot be reached", "refusing")
            await expect(page.locator("#errors")).to_contain_text("unavailable")
            await can_be_read(page)
        assert "nothing of this" not in await page.content()
        seen.assert_clean()


async def test_it_asks_for_a_key_and_keeps_it_for_this_tab(browser: Browser, tmp_path: Path) -> None:
    keys = Keyring(tmp_path)
    good, other = keys.key("prometheus", [Scope.METRICS]), keys.key("app", [Scope.TRANSCRIBE])
    async with (
        MockRivaServer(PLAN) as server,
        gateway(tmp_path, server, auth="on", api_keys_file=keys.path) as addresses,
        visit(browser, f"{addresses.url}/status") as seen,
    ):
        page = seen.page
        for wrong, told in (("nonsense", "wrong or has expired"), (other, "does not have the scope metrics")):
            await page.fill("#key", wrong)
            await page.click("#key-form button")
            await expect(page.locator("#key-words")).to_contain_text(told)
        await expect(page.locator("#board")).to_be_hidden()
        assert await page.evaluate(CONTRAST) == []
        await page.fill("#key", good)
        await page.click("#key-form button")
        await words(page, "Serving", "serving")
        await expect(page.locator("#key-form")).to_be_hidden()
        await page.reload()
        await words(page, "Serving", "serving")
        assert good not in page.url
        assert good not in await page.content()
        assert await page.evaluate("localStorage.length") == 0
        refused = [text for text in seen.console if "401" in text or "403" in text]
        assert seen.console == refused  # what a browser itself says of a refusal
        assert seen.strangers == []


async def test_a_gateway_that_goes_away_is_said_to_be_away(browser: Browser, tmp_path: Path) -> None:
    async with MockRivaServer(PLAN) as server:
        async with gateway(tmp_path, server) as addresses:
            visiting = visit(browser, f"{addresses.url}/status")
            seen = await visiting.__aenter__()
            await words(seen.page, "Serving", "serving")
        try:
            await expect(seen.page.locator("#words")).to_contain_text("The gateway does not answer for")
            await expect(seen.page.locator("#connection")).to_have_text("No answer")
        finally:
            await visiting.__aexit__(None, None, None)


async def test_without_javascript_it_says_so(browser: Browser, tmp_path: Path) -> None:
    async with (
        MockRivaServer(PLAN) as server,
        gateway(tmp_path, server) as addresses,
        visit(browser, f"{addresses.url}/status", java_script_enabled=False) as seen,
    ):
        await expect(seen.page.locator("noscript p")).to_contain_text("needs JavaScript")


async def test_the_document_tells_of_no_client_and_no_address(tmp_path: Path) -> None:
    async with MockRivaServer(PLAN) as server, gateway(tmp_path, server, max_streams=7) as addresses:
        async with session(addresses) as client:
            await speak(client)
            told = await status(addresses)
            assert told["streams"] == {"in_use": 1, "limit": 7, "by_face": {"native": 1}}
        assert set(told["jobs"]) == {"pending", "processing", "completed", "failed", "cancelled"}
        assert told["rollout"] is None
        assert [set(each) for each in told["endpoints"]] == [{"name", "state", "breaker", "streams", "limit", "detail"}]
        text = json.dumps(told)
        assert "nothing of this" not in text
        assert "127.0.0.1" not in text
        assert str(server.port) not in text

        async def over() -> bool:
            return bool((await status(addresses))["streams"]["in_use"] == 0)

        await until("the stream's end", over)


async def test_a_rollout_is_told_without_who_and_why(tmp_path: Path) -> None:
    async with (
        MockRivaServer(PLAN) as server,
        gateway(tmp_path, server, asr_switch="off") as addresses,
    ):
        told = await status(addresses)
        assert told["state"]["level"] == "off"
        assert told["rollout"]["position"] == "off"
        assert not {"by", "reason"} & set(told["rollout"])
