"""Every door there is has its rule, and whoever stands before any of them is treated alike: made from the routes
themselves, so that a new one cannot be forgotten."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi import FastAPI

from authority import Authority
from keyring import Keyring, bearer
from server.access.grants import Allowance
from server.access.http import routes_of
from server.access.rules import GRPC, HTTP, MOUNTS, SOCKETS
from server.admission import Admission
from server.faces.http import SECURITY_HEADERS
from server.faces.riva_grpc import add_riva_face
from server.listener import Listener
from server.serve import Addresses
from server.websocket import WebSocketDoor
from word_engine import WordEngine

from .gateway import running

PATIENCE_S = 10.0


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> list[tuple[FastAPI, WebSocketDoor]]:
    """The application and the WebSocket door of each gateway that is started."""
    seen: list[tuple[FastAPI, WebSocketDoor]] = []
    made = Listener.__init__

    def init(self: Listener, app: Any, door: WebSocketDoor, **more: Any) -> None:
        seen.append((app, door))
        made(self, app, door, **more)

    monkeypatch.setattr(Listener, "__init__", init)
    return seen


async def test_every_door_has_its_rule(tmp_path: Path, doors: list[tuple[FastAPI, WebSocketDoor]]) -> None:
    async with running(WordEngine(), tmp_path):
        [(app, door)] = doors
        there = {(method, path) for _, path, methods in routes_of(app) for method in methods or ()}
        assert there == set(HTTP)
        assert {path for _, path, methods in routes_of(app) if methods is None} == set(MOUNTS)
        assert set(door.routes) == set(SOCKETS)


class Recorder:
    """In place of a gRPC server: the names of the methods that are registered."""

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        for handler in handlers:
            self.methods |= set(handler._method_handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.methods |= {f"/{service}/{name}" for name in handlers}


def test_every_method_of_grpc_has_its_rule() -> None:
    recorder: Any = Recorder()
    add_riva_face(recorder, WordEngine(), Admission(1, random=lambda: 0.5, clock=lambda: 0.0))
    assert recorder.methods == set(GRPC)


def filled(template: str) -> str:
    return re.sub(r"\{[^}]+\}", "x1", template)


async def ask(addresses: Addresses, method: str, path: str, **more: Any) -> requests.Response:
    return await asyncio.to_thread(requests.request, method, addresses.url + path, timeout=PATIENCE_S, **more)


@pytest.mark.parametrize("auth", ["on", "off"])
async def test_every_answer_has_its_security_headers(auth: str, tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("somebody")
    async with running(WordEngine(), tmp_path / "state", auth=auth, api_keys_file=ring.path) as addresses:
        more = [("GET", "/index.html"), ("GET", "/nowhere"), ("POST", "/"), ("PATCH", "/jobs"), ("OPTIONS", "/ws")]
        asked = [*HTTP, *more]
        for method, template in asked:
            for headers in ({}, bearer(key)):
                answer = await ask(addresses, method, filled(template), headers=headers)
                for name in SECURITY_HEADERS:
                    assert name in answer.headers, (method, template, answer.status_code)
                assert "Cache-Control" in answer.headers
                policy = answer.headers["Content-Security-Policy"]
                script = re.search(r"(?:script-src|default-src)([^;]*)", policy)
                assert script is not None
                assert "unsafe" not in script[1]
                assert "frame-ancestors 'none'" in policy
                assert "Strict-Transport-Security" not in answer.headers  # not over plain HTTP
                assert "server" not in answer.headers


async def endless(addresses: Addresses, path: str, kind: str, key: str) -> tuple[bytes, int]:
    """A body that never ends, as fast as it is taken: the status, and how much of it was taken."""
    reader, writer = await asyncio.open_connection("localhost", addresses.port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n"
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    answer = asyncio.create_task(reader.readline())
    block, sent = b"10000\r\n" + b"[" * 65_536 + b"\r\n", 0
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not answer.done() and not writer.is_closing():
                writer.write(block)
                sent += 65_536
                await asyncio.wait({answer, asyncio.ensure_future(writer.drain())}, return_when=asyncio.FIRST_COMPLETED)
            return await answer, sent
    finally:
        answer.cancel()
        writer.transport.abort()


async def test_no_body_is_read_without_end(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("somebody")
    bounds = {"max_upload_bytes": 200_000, "jobs_max_upload_bytes": 200_000, "sagemaker_max_bytes": 200_000}
    async with running(WordEngine(), tmp_path / "state", auth="on", api_keys_file=ring.path, **bounds) as addresses:
        for method, template in HTTP:
            if method not in ("POST", "PUT"):
                continue
            for kind in ("application/json", "audio/wav", "multipart/form-data; boundary=b"):
                if method == "POST":
                    status, sent = await endless(addresses, filled(template), kind, key)
                    assert status.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), (template, kind, status)
                    assert sent < 20_000_000, (template, kind)
            packed = gzip.compress(b"{}" * 1000)
            headers = {**bearer(key), "Content-Encoding": "gzip", "Content-Type": "application/json"}
            answer = await ask(addresses, method, filled(template), headers=headers, data=packed)
            assert answer.status_code == 415, template
            assert "Content-Encoding" in answer.json()["detail"]


async def test_what_one_caller_made_is_not_there_for_another(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    owner, other = ring.key("owner"), ring.key("other")
    async with running(WordEngine(), tmp_path / "state", auth="on", api_keys_file=ring.path) as addresses:
        answer = await ask(addresses, "POST", "/transcribe/async", headers=bearer(owner), files={"file": wav()})
        job_id = answer.json()["job_id"]
        paths = (await ask(addresses, "GET", "/openapi.json")).json()["paths"]
        paths = {path: item for path, item in paths.items() if "{" in path and "{model}" not in path}
        named = [(method, path) for path, item in paths.items() for method in item]
        assert len(named) >= 4
        for method, path in named:
            [name] = re.findall(r"\{([^}]+)\}", path)
            assert name == "job_id", f"{path}: say here whose these are"
            theirs = await ask(addresses, method.upper(), path.replace("{job_id}", job_id), headers=bearer(other))
            nobodys = path.replace("{job_id}", "0" * len(job_id))
            unknown = await ask(addresses, method.upper(), nobodys, headers=bearer(other))
            assert theirs.status_code == unknown.status_code == 404, (method, path)
            assert theirs.text.replace(job_id, "0" * len(job_id)) == unknown.text
        assert (await ask(addresses, "GET", "/jobs", headers=bearer(other))).json()["jobs"] == []
        found = await ask(addresses, "GET", f"/jobs?before={job_id}", headers=bearer(other))
        assert found.status_code == 404
        for subject, count in (("ann", 0), ("", 1)):
            asked = {"subject": subject, "scopes": ["jobs"]}
            token = (await ask(addresses, "POST", "/v1/tokens", headers=bearer(owner), json=asked)).json()["token"]
            mine = (await ask(addresses, "GET", "/jobs", headers=bearer(token))).json()["jobs"]
            assert len(mine) == count


def wav(seconds: int = 1) -> bytes:
    data = bytes(32_000 * seconds)
    head = b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    head += (1).to_bytes(2, "little") * 2 + (16000).to_bytes(4, "little") + (32000).to_bytes(4, "little")
    head += (2).to_bytes(2, "little") + (16).to_bytes(2, "little") + b"data" + len(data).to_bytes(4, "little")
    return head + data


async def test_browsers_are_told_to_come_by_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "a.crt", tmp_path / "a.key"
    authority = Authority()
    authority.issue("localhost").write(cert, key)
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(authority.pem)
    given: dict[str, object] = {"tls": True, "tls_cert": cert, "tls_key": key, "auth": "off"}
    for host, told in (("0.0.0.0", True), ("127.0.0.1", False)):
        async with running(WordEngine(), tmp_path / "state", host=host, **given) as addresses:
            answer = await ask(addresses, "GET", "/healthz", verify=str(bundle))
            assert ("Strict-Transport-Security" in answer.headers) is told


async def test_jobs_count_for_whoever_sent_them(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("app", allowance=Allowance(audio_minutes_per_day=1))
    settings: dict[str, object] = {"auth": "on", "api_keys_file": ring.path}
    async with running(WordEngine(), tmp_path / "state", **settings) as addresses:
        answer = await ask(addresses, "POST", "/transcribe/async", headers=bearer(key), files={"file": wav(61)})
        job = f"/jobs/{answer.json()['job_id']}/status"
        async with asyncio.timeout(PATIENCE_S):
            while (await ask(addresses, "GET", job, headers=bearer(key))).json()["status"] != "completed":
                await asyncio.sleep(0.05)
            while (answer := await ask(addresses, "POST", "/transcribe", headers=bearer(key))).status_code != 429:
                await asyncio.sleep(0.05)
        assert "used up" in answer.json()["detail"]
