"""The reports in a real browser: no error under their own policy, nothing too wide, readable in light and dark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from e2e.browser import chromium
from e2e.page import CONTRAST
from evaluation.compare import Comparison, compare, disagreements
from evaluation.profiles import judge, load_profile
from evaluation.report import comparison_page, golden_page
from evaluation.summary import summarize
from load.report import load_page
from sample_runs import golden_run, hostile_run, sweep

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

CHART_TEXT = """() => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [x, y, z] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const poor = [];
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  for (const svg of document.querySelectorAll("svg.drawn")) {
    const ground = light(getComputedStyle(svg.closest("section")).backgroundColor);
    for (const text of svg.querySelectorAll("text")) {
      const seen = ratio(light(getComputedStyle(text).fill), ground);
      if (seen < 4.5) poor.push([text.textContent, seen]);
    }
    for (const line of svg.querySelectorAll("path.line.reactive, .limit, .whisker")) {
      const seen = ratio(light(getComputedStyle(line).stroke), ground);
      if (seen < 3) poor.push([line.getAttribute("class"), seen]);
    }
  }
  return poor;
}"""
"""Texts of charts below 4.5 : 1 and lines below 3 : 1 against their card."""

OUTSIDE = """() => [...document.querySelectorAll("svg.drawn")].flatMap((svg) => {
  const whole = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1 ||
      box.bottom > whole.bottom + 1;
  }).map((text) => text.textContent);
})"""
"""Texts of charts that leave their chart."""


CLIPPED = """() => [...document.querySelectorAll(".scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.getAttribute("aria-label"))"""
"""Tables and charts of which a part is to be scrolled to."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    run, other = golden_run(each=4), golden_run(each=4, seed=9, harm=1.8)
    hostile = hostile_run()
    limited = sweep(limited=True)
    long = dict.fromkeys(("first_text_p50_ms", "first_text_p99_ms", "final_p50_ms", "final_p99_ms"), 12_345.0)
    rows = [replace(row, **long, errors=1234, refusals=1234, disconnects=123, timeouts=123) for row in limited.rows]
    made = {
        "golden": golden_page(run, summarize(run), judge(run, load_profile("riva"))),
        "comparison": comparison_page(run, other, compare(run, other, samples=50), disagreements(run, other)),
        "load": load_page(limited),
        "overwhelmed": load_page(replace(limited, rows=tuple(rows))),
        "soak": load_page(sweep(mode="soak", leaking=True)),
        "hostile": golden_page(hostile, summarize(hostile), judge(hostile, load_profile("riva"))),
        "nothing": comparison_page(hostile, hostile, Comparison(hostile.info, hostile.info, 0.05, ()), ()),
    }
    folder = tmp_path_factory.mktemp("reports")
    for name, page in made.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium(device=False) as running:
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_reports_fit_and_can_be_read(browser: Browser, pages: dict[str, Path], scheme: Any, width: int) -> None:
    context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    troubles: list[str] = []
    page = await context.new_page()
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url) if not request.is_navigation_request() else None)
    try:
        for name, path in pages.items():
            await page.goto(path.as_uri())
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, name
            assert await page.evaluate(CHART_TEXT) == [], name
            assert await page.evaluate(OUTSIDE) == [], name
            await page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert await page.evaluate(CONTRAST) == [], name
            assert await page.evaluate("document.querySelectorAll('script').length") == 0, name
        assert troubles == []
    finally:
        await context.close()


async def test_tables_have_room_on_a_wide_screen(browser: Browser, pages: dict[str, Path]) -> None:
    context = await browser.new_context(viewport={"width": 1200, "height": 900})
    try:
        page = await context.new_page()
        for name in ("golden", "comparison", "load", "overwhelmed", "soak"):
            await page.goto(pages[name].as_uri())
            assert await page.evaluate(CLIPPED) == [], name
    finally:
        await context.close()


async def test_a_report_prints_without_cutting_its_tables(browser: Browser, pages: dict[str, Path]) -> None:
    context = await browser.new_context(viewport={"width": 718, "height": 1000})
    try:
        page = await context.new_page()
        await page.goto(pages["load"].as_uri())
        await page.emulate_media(media="print")
        assert await page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
        assert await page.evaluate(
            "[...document.querySelectorAll('svg.drawn')].every((chart) => chart.getBoundingClientRect().right <= 718)"
        )
        assert len(await page.pdf(format="A4", landscape=True)) > 20_000
    finally:
        await context.close()
