"""The browser page fits wide and small screens, and can be read in light and dark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from e2e.browser import chromium
from e2e.page import CONTRAST, Opened, nobody, notice, tone_wav
from e2e.page_server import Talk

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """A browser whose microphone plays 30 s of one tone."""
    speech = tone_wav(tmp_path_factory.mktemp("page") / "tone.wav", seconds=30)
    async with chromium(speech=speech) as running:
        yield running


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        ({"viewport": {"width": 1280, "height": 800}}, True),
        ({"viewport": {"width": 360, "height": 740}}, False),
        ({"viewport": {"width": 1280, "height": 800}, "has_touch": True, "is_mobile": True}, False),
    ],
    ids=["wide", "narrow", "touch"],
)
async def test_dropping_a_file_is_offered_where_it_can_be_done(
    browser: Browser, options: dict[str, Any], offered: bool
) -> None:
    async with Opened(browser, nobody, **options) as seen:
        await expect(seen.page.locator("#empty")).to_be_visible()
        assert await seen.page.locator(".droppable").is_visible() == offered


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 740)])
async def test_it_fits_and_can_be_read(browser: Browser, scheme: Any, width: int, height: int) -> None:
    async def script(talk: Talk) -> None:
        await talk.ready(warnings=["The recognizer gives no punctuation."])
        await talk.final("a line with the longest of words: Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen")
        await talk.partial("and one that is not over", u=1, stable=7)
        await talk.asked()
        await talk.connection.close(1011)

    options: dict[str, Any] = {
        "viewport": {"width": width, "height": height},
        "color_scheme": scheme,
        "reduced_motion": "reduce",
    }
    async with Opened(browser, script, **options) as seen:
        page = seen.page
        assert await page.evaluate(CONTRAST) == []
        await page.click("#talk")
        await expect(page.locator(".partial")).to_be_visible()
        assert await page.evaluate(CONTRAST) == []
        assert await page.evaluate("document.getAnimations().length") == 0
        await page.click("#times")
        await page.click("#talk")
        await expect(notice(page, "lost")).to_be_visible()
        await page.locator(".word").last.focus()
        assert await page.evaluate(CONTRAST) == []
        page_wide = await page.evaluate("document.documentElement.scrollWidth")
        assert page_wide <= width
        assert await page.locator("#page").evaluate("(e) => e.scrollWidth <= e.clientWidth")
        for name in ("#talk", "#choose", "#page", "#clear", "[data-download=json]"):
            box = await page.locator(name).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        seen.assert_clean()
