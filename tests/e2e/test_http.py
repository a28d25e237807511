"""The plain HTTP side of the running server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import requests

from asr import wire
from word_engine import WordEngine

from .gateway import running


async def get(url: str, path: str, accept: str = "*/*") -> requests.Response:
    return await asyncio.to_thread(requests.get, url + path, timeout=10, headers={"Accept": accept})


async def test_the_page_comes_with_strict_headers(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        page = await get(addresses.url, "/", accept="text/html")
        script = await get(addresses.url, "/app.js")
    assert page.status_code == 200
    assert "text/html" in page.headers["Content-Type"]
    assert "javascript" in script.headers["Content-Type"]
    for answer in (page, script):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "microphone=(self)" in answer.headers["Permissions-Policy"]
        assert "server" not in answer.headers


async def test_alive_is_not_ready(tmp_path: Path) -> None:
    async with running(WordEngine("no-model"), tmp_path) as addresses:
        assert (await get(addresses.url, "/healthz")).json() == {"status": "ok"}
        assert (await get(addresses.url, "/v1/health/live")).status_code == 200
        ready = await get(addresses.url, "/readyz")
        assert ready.status_code == 503
        assert ready.json()["ready"] is False
        assert (await get(addresses.url, "/v1/health/ready")).status_code == 503
    async with running(WordEngine(), tmp_path) as addresses:
        assert (await get(addresses.url, "/readyz")).json()["engine"] == "words"
        assert (await get(addresses.url, "/v1/health/ready")).json()["status"] == "ready"


class Pooled(WordEngine):
    def endpoints(self) -> list[dict[str, Any]]:
        return [{"name": "1", "state": "down", "breaker": "open", "streams": 0, "limit": None, "detail": "refused"}]


async def test_ready_says_how_full_it_is_and_how_each_recognizer_does(tmp_path: Path) -> None:
    async with running(Pooled("no-model"), tmp_path, max_streams=7) as addresses:
        answer = await get(addresses.url, "/readyz")
        assert answer.status_code == 503
        assert answer.json()["streams"] == {"in_use": 0, "limit": 7}
        assert answer.json()["draining"] is False
        assert answer.json()["endpoints"] == Pooled().endpoints()
    async with running(WordEngine(), tmp_path) as addresses:
        assert "endpoints" not in (await get(addresses.url, "/readyz")).json()


async def test_models_in_openai_s_list_shape(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        body = (await get(addresses.url, "/v1/models")).json()
    assert body["object"] == "list"
    assert [row["id"] for row in body["data"]] == ["words-en", "words-de"]
    assert body["data"][0]["languages"] == ["en-US", "en-GB"]


async def test_the_schema_is_published(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        assert (await get(addresses.url, "/schema/asr.v1.json")).json() == wire.schema()


async def test_what_is_not_there_is_a_404(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        assert (await get(addresses.url, "/nothing")).status_code == 404
        assert (await get(addresses.url, "/../pyproject.toml")).status_code == 404
        assert (await get(addresses.url, "/%2e%2e/pyproject.toml")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/realtime", "/ws"])
async def test_a_plain_request_to_a_websocket_is_told_so(tmp_path: Path, path: str) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await asyncio.to_thread(requests.get, addresses.url + path, timeout=10)
    assert answer.status_code == 426
    assert answer.headers["Upgrade"] == "websocket"
    assert "This path is a WebSocket" in answer.text


async def test_an_unknown_path_says_where_the_list_is(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await asyncio.to_thread(requests.get, addresses.url + "/nowhere", timeout=10)
    assert (answer.status_code, answer.json()) == (
        404,
        {"detail": "There is no such path. GET /docs lists those there are."},
    )
