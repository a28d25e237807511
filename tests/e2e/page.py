"""What the tests of the browser page share: a tone for the microphone, and the page with its scripted server."""

from __future__ import annotations

import array
import math
import wave
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Locator, Page, expect

from e2e.browser import Visit, visit
from e2e.page_server import Script, Talk, page_server

TONE_HZ = 600

CONTRAST = """() => {
  const rgb = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { c: [r, g, b], a };
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [x, y, z] = colour.map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const { c, a } = rgb(getComputedStyle(e).backgroundColor);
      if (a === 1) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const exempt = element.closest("script, noscript, .skip, :disabled");
    if (!node.data.trim() || !element.checkVisibility() || exempt) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color).c), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([node.data.trim(), ratio]);
  }
  return poor;
}"""
"""Texts of the page whose contrast is below 4.5 : 1, with it."""


def tone_wav(path: Path, *, seconds: float, rate_hz: int = 48_000, hz: int = TONE_HZ) -> Path:
    samples = array.array(
        "h", (int(12_000 * math.sin(2 * math.pi * hz * i / rate_hz)) for i in range(int(seconds * rate_hz)))
    )
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        wav.writeframes(samples.tobytes())
    return path


class Opened:
    """The page and its server's side, entered together."""

    def __init__(self, browser: Browser, script: Script, **context: Any) -> None:
        self.browser, self.script, self.context = browser, script, context

    async def __aenter__(self) -> Visit:
        self._server = page_server(self.script)
        self.server = await self._server.__aenter__()
        self._visit = visit(self.browser, self.server.url, **self.context)
        return await self._visit.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        await self._visit.__aexit__(*error)
        await self._server.__aexit__(*error)


async def idle(page: Page) -> None:
    await expect(page.locator("body")).to_have_attribute("data-mode", "idle")


def notice(page: Page, kind: str) -> Locator:
    return page.locator(f".notice[data-kind={kind}]")


async def goodbye(talk: Talk, *, text: str = "", u: int = 1) -> None:
    """Answer the stop: a last final, and the summary."""
    assert await talk.asked() == "stop"
    if text:
        await talk.final(text, u=u, start_ms=5000)
    await talk.summary()


async def nobody(talk: Talk) -> None:
    """The script of a test in which no session may begin."""
    raise AssertionError("no session was to begin")
