"""The browser page in front of a gateway that asks for keys, and pages of other sites, in a real Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from e2e.browser import chromium, visit
from e2e.gateway import running
from keyring import Keyring
from server.access.grants import Scope
from word_engine import WordEngine

pytestmark = [pytest.mark.browser, pytest.mark.asyncio]

TRY = """async (port) => {
  const told = {};
  told.socket = await new Promise((done) => {
    const socket = new WebSocket(`ws://localhost:${port}/v1/stream`, ["asr.v1"]);
    socket.onopen = () => done("open");
    socket.onclose = ({ code }) => done(code);
  });
  for (const [name, options] of [["read", {}], ["post", { method: "POST", body: "x" }],
      ["keyed", { headers: { Authorization: "Bearer x" } }]]) {
    const path = name === "post" ? "/transcribe" : "/v1/models";
    const answer = fetch(`http://localhost:${port}${path}`, options);
    told[name] = await answer.then(({ status }) => status, () => "blocked");
  }
  return told;
}"""


@asynccontextmanager
async def elsewhere() -> AsyncIterator[str]:
    """A site that is not the gateway's: its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}"


async def test_a_page_of_another_site(tmp_path: Path) -> None:
    async with elsewhere() as site, chromium() as browser:
        page = await browser.new_page()
        await page.goto(site)
        async with running(WordEngine(), tmp_path) as addresses:
            told = await page.evaluate(TRY, addresses.port)
            assert told == {"socket": 1006, "read": "blocked", "post": "blocked", "keyed": "blocked"}
        async with running(WordEngine(), tmp_path, allowed_origins=site) as addresses:
            told = await page.evaluate(TRY, addresses.port)
            assert told == {"socket": "open", "read": 200, "post": 400, "keyed": 200}


async def test_the_page_asks_for_a_key(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("person", [Scope.TRANSCRIBE])
    settings = {"auth": "on", "api_keys_file": ring.path, "asr_engine": "mock"}
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(running(None, tmp_path / "state", **settings))
        browser = await stack.enter_async_context(chromium())
        seen = await stack.enter_async_context(visit(browser, addresses.url))
        page = seen.page
        await expect(page.locator("#access")).to_have_count(0)
        await page.click("#talk")
        await expect(page.locator("#access strong")).to_have_text("This gateway asks for a key")
        await expect(page.locator("#access-key")).to_be_focused()
        await show(page, "not a key")
        await expect(page.locator("#access strong")).to_have_text("This is not a key")
        await show(page, "rgk_wrong")
        await expect(page.locator("#access strong")).to_have_text("The key was not accepted")
        await show(page, key)
        await expect(page.locator("#access")).to_have_count(0)
        await expect(page.locator("body")).to_have_attribute("data-mode", "live")
        await expect(page.locator("#connection-text")).to_have_text("Live")
        await page.click("#talk")
        await expect(page.locator("body")).to_have_attribute("data-mode", "idle")
        await page.reload()
        await page.click("#talk")
        await expect(page.locator("#connection-text")).to_have_text("Live")
        await expect(page.locator("#access")).to_have_count(0)
        assert key not in page.url
        assert await page.evaluate("localStorage.length") == 0
        seen.assert_clean()


async def show(page: Page, key: str) -> None:
    await page.fill("#access-key", key)
    await page.press("#access-key", "Enter")
