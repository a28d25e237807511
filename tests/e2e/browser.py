"""A real Chromium with a fake microphone, and a page opened in it whose every misstep is noted."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
]
TIMEOUT_MS = 20_000


def chromium_path() -> str | None:
    """The Chromium to drive: `CHROMIUM`, else the system's, else (None) Playwright's own."""
    named = os.environ.get("CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser")


@asynccontextmanager
async def chromium(
    *, speech: Path | None = None, device: bool = True, consent: bool = True, flags: Sequence[str] = ()
) -> AsyncIterator[Browser]:
    """A running Chromium.

    Args:
        speech: a WAV file that the fake microphone plays once, from the moment it is opened; silence follows.
            Without it the fake microphone beeps.
        device: whether there is a (fake) microphone.
        consent: whether the person allows it; without, headless Chromium refuses.
        flags: further ones.
    """
    args = [*FLAGS, *flags]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        args.append("--no-sandbox")
    if device:
        args.append("--use-fake-device-for-media-stream")
    if consent:
        args.append("--use-fake-ui-for-media-stream")
    if speech is not None:
        args.append(f"--use-file-for-fake-audio-capture={speech.resolve()}%noloop")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=args, timeout=60_000)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Visit:
    """A page, and what went wrong in it or left its host."""

    page: Page
    context: BrowserContext
    host: str
    console: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def assert_clean(self) -> None:
        """No error on the console, no exception, no request to another host."""
        assert self.console == []
        assert self.strangers == []


@asynccontextmanager
async def visit(browser: Browser, url: str, **context_options: Any) -> AsyncIterator[Visit]:
    """Open `url` in a fresh context. Certificates are not checked: the server makes its own."""
    expect.set_options(timeout=TIMEOUT_MS)
    context = await browser.new_context(ignore_https_errors=True, **context_options)
    context.set_default_timeout(TIMEOUT_MS)
    try:
        page = await context.new_page()
        seen = Visit(page, context, urlsplit(url).netloc)

        def on_request(address: str) -> None:
            parts = urlsplit(address)
            if parts.scheme not in ("blob", "data") and parts.netloc != seen.host:
                seen.strangers.append(address)

        page.on("console", lambda m: seen.console.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        page.on("request", lambda request: on_request(request.url))
        page.on("websocket", lambda socket: on_request(socket.url))
        await page.goto(url)
        yield seen
    finally:
        await context.close()
