"""The interactive documents in a real browser: from this host alone, without inline scripts, and usable."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.async_api import Page

import speech
from asr.engines.mock import MockEngine
from server.serve import Addresses

from .browser import chromium, visit
from .gateway import running

CLIP = speech.path("two_sentences.wav")


async def get(addresses: Addresses, path: str) -> requests.Response:
    return await asyncio.to_thread(requests.get, addresses.url + path, timeout=10)


async def test_the_document_describes_every_call_with_its_body_and_its_errors(tmp_path: Path) -> None:
    async with running(MockEngine(), tmp_path) as addresses:
        document: dict[str, Any] = (await get(addresses, "/openapi.json")).json()
    call = document["paths"]["/v1/audio/transcriptions"]["post"]
    fields = call["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert fields["file"]["format"] == "binary"
    assert "verbose_json" in fields["response_format"]["enum"]
    assert {"400", "413", "429", "503", "507"} <= set(call["responses"])
    told = {tag["name"] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation.get("summary"), where
            assert operation.get("description"), where
            assert set(operation["tags"]) <= told, where
            assert "422" not in operation["responses"], where
            assert method in ("get", "delete") or "requestBody" in operation or path.endswith("/cancel"), where
    assert "HTTPValidationError" not in json.dumps(document)


async def test_the_pages_allow_no_inline_script(tmp_path: Path) -> None:
    async with running(MockEngine(), tmp_path) as addresses:
        for path in ("/docs", "/redoc"):
            page = await get(addresses, path)
            policy = page.headers["Content-Security-Policy"]
            assert "script-src 'self';" in policy
            assert "default-src 'none'" in policy
            assert "<script>" not in page.text
            assert "://" not in page.text
        for path in ("/docs.js", "/redoc.js", "/api-assets/swagger-ui.css", "/api-assets/redoc.standalone.js"):
            assert (await get(addresses, path)).status_code == 200, path
        elsewhere = await get(addresses, "/")
        assert "unsafe" not in elsewhere.headers["Content-Security-Policy"]


@pytest.mark.browser
async def test_a_person_tries_a_recording_out(tmp_path: Path) -> None:
    async with running(MockEngine(), tmp_path) as addresses, chromium() as browser:
        async with visit(browser, f"{addresses.url}/docs", viewport={"width": 1200, "height": 1400}) as seen:
            for path in ("/v1/audio/transcriptions", "/transcribe", "/invocations"):
                await _try_out(seen.page, path)
            seen.assert_clean()
        async with visit(browser, f"{addresses.url}/redoc") as seen:
            await seen.page.get_by_role("heading", name="Transcribe a recording").first.wait_for()
            await seen.page.locator('input[type="text"]').fill("translate")
            await seen.page.locator('[data-role="search:results"]').get_by_text("Translate").first.wait_for()
            seen.assert_clean()


async def _try_out(page: Page, path: str) -> None:
    """Choose a file, touch nothing else, execute, and read the answer."""
    block = page.locator(".opblock", has=page.get_by_text(path, exact=True))
    await block.locator(".opblock-summary").click()
    await block.locator("input[type=file]").set_input_files(CLIP)
    await block.locator("button.execute").click()
    answer = block.locator(".live-responses-table")
    await answer.wait_for()
    assert (await answer.locator("tbody td.response-col_status").first.inner_text()).startswith("200"), path
    assert (
        "Good morning, you are listening"
        in await answer.locator("tbody td.response-col_description").first.inner_text()
    ), path
    await block.locator(".opblock-summary").click()
