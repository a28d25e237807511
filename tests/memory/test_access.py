"""Access while it runs: a JWKS is fetched and rotates, files are followed, the day's minutes outlive a restart."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from asr.errors import ASRError, Code
from asr.loading import SettingsError
from asr.settings import load_settings
from server.access import build
from server.access.build import Access, build_access
from server.access.grants import ALL_SCOPES, Allowance, Grant, Scope
from server.access.jwks import KeysFromUrl
from server.access.jwt_keys import MAX_BYTES
from server.access.key_file import make_key
from server.access.keys import changing, load_keys
from server.certificates import make_certificate
from server.settings import ServerSettings
from timing import in_time
from tokens import AUDIENCE, ISSUER, jwk, jwks, public_pem, rsa_key, token

PATIENCE_S = 10.0


def settings(tmp_path: Path, **more: object) -> ServerSettings:
    return load_settings(ServerSettings, {"state_dir": tmp_path, **more}, env={}, env_file=None)


def a_key(path: Path, **more: Any) -> str:
    key, record = make_key("app", token_hex=secrets.token_hex, now=datetime.now(UTC), **more)
    with changing(path) as records:
        records[record.id] = record
    return key


def enter(access: Access, credential: str) -> Grant:
    return access.gate.enter([("authorization", f"Bearer {credential}")], "127.0.0.1", Scope.TRANSCRIBE)


def code_of(access: Access, credential: str) -> Code | None:
    try:
        enter(access, credential)
    except ASRError as error:
        return error.code
    return None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


class Publisher:
    """An issuer's web server: it answers with whatever it is given, byte for byte."""

    def __init__(self) -> None:
        self.body = b""
        self.head = "HTTP/1.1 200 OK"
        self.asked = 0
        self.is_stuck = False
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.is_stuck:
                await reader.read()
            writer.write(f"{self.head}\r\nContent-Length: {len(self.body)}\r\n\r\n".encode() + self.body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def publishing(*keys: dict[str, Any], tls: ssl.SSLContext | None = None) -> AsyncIterator[Publisher]:
    publisher = Publisher()
    publisher.body = jwks(*keys)
    server = await asyncio.start_server(publisher.answer, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    publisher.url = f"http{'s' if tls else ''}://127.0.0.1:{port}/jwks.json"
    try:
        yield publisher
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def fetching(url: str, ca_cert: Path | None = None, *, at_once_s: float = 0.05) -> AsyncIterator[KeysFromUrl]:
    keys = KeysFromUrl(url, ca_cert, refresh_s=60.0, at_once_s=at_once_s)
    task = asyncio.create_task(keys.run())
    try:
        await keys.first()
        yield keys
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def kids(keys: KeysFromUrl) -> set[str]:
    return set() if keys.keys is None else {key.kid for key in keys.keys.keys}


async def test_an_unknown_kid_brings_the_new_keys_and_old_ones_hold_while_they_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeysFromUrl, "__init__", partialmethod(KeysFromUrl.__init__, at_once_s=0.05))
    now = time.time()
    old, new = token(kid="old", exp=now + 600, iat=now), token(rsa_key(1), kid="new", exp=now + 600, iat=now)
    async with publishing(jwk(rsa_key(), "old")) as publisher:
        access = build_access(
            settings(tmp_path, jwt_keys=publisher.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE, auth="on")
        )
        assert code_of(access, old) is Code.UNAVAILABLE
        await access.start()
        try:
            assert enter(access, old).principal.startswith("key jwt ")
            publisher.body = jwks(jwk(rsa_key(), "old"), jwk(rsa_key(1), "new"))
            assert code_of(access, new) is Code.UNAUTHORIZED
            await until(lambda: code_of(access, new) is None)
            assert code_of(access, old) is None
            publisher.body = jwks(jwk(rsa_key(1), "new"))
            code_of(access, token(kid="unknown", exp=now + 600, iat=now))
            await until(lambda: code_of(access, old) is Code.UNAUTHORIZED)
            assert code_of(access, new) is None
        finally:
            await access.aclose()


async def test_whoever_asks_with_unknown_kids_the_issuer_is_asked_rarely() -> None:
    async with publishing(jwk(rsa_key())) as publisher:
        began = time.monotonic()
        async with fetching(publisher.url, at_once_s=0.2) as keys:
            for _ in range(50):
                keys.want()
                await asyncio.sleep(0.01)
            assert 2 <= publisher.asked <= (time.monotonic() - began) / 0.2 + 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("HTTP/1.1 500 Internal Server Error", jwks(jwk(rsa_key(1), "evil"))),
        ("HTTP/1.1 404 Not Found", b""),
        ("HTTP/1.1 302 Found\r\nLocation: /elsewhere", jwks(jwk(rsa_key(1), "evil"))),
        ("HTTP/1.1 200 OK", b"<html>"),
        ("HTTP/1.1 200 OK", jwks()),
        ("HTTP/1.1 200 OK", jwks(jwk(rsa_key(1), "evil")) + b" " * MAX_BYTES),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip", b"\x1f\x8b\x08"),
        ("HTTP/0.9 nonsense", b""),
    ],
)
async def test_an_answer_that_is_no_good_leaves_the_keys_as_they_are(head: str, body: bytes) -> None:
    async with publishing(jwk(rsa_key())) as publisher, fetching(publisher.url) as keys:
        assert kids(keys) == {"one"}
        with capture_logs() as lines:
            publisher.head, publisher.body = head, body
            keys.want()
            asked = publisher.asked
            await until(lambda: publisher.asked >= asked + 3)
        assert kids(keys) == {"one"}
        assert [line["log_level"] for line in lines] == ["warning"]
        publisher.head, publisher.body = "HTTP/1.1 200 OK", jwks(jwk(rsa_key(1), "two"))
        await until(lambda: kids(keys) == {"two"})


async def test_a_publisher_that_never_answers_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.access.jwks.FETCH_TIMEOUT_S", 1.0)
    monkeypatch.setattr("server.access.jwks.START_TIMEOUT_S", 0.05)
    async with publishing(jwk(rsa_key())) as publisher:
        publisher.is_stuck = True
        began = time.monotonic()
        async with fetching(publisher.url) as keys:
            in_time(time.monotonic() - began, 1.0)
            assert keys.keys is None
            publisher.is_stuck = False
            await until(lambda: kids(keys) == {"one"})


async def test_a_publisher_that_is_gone_leaves_the_keys() -> None:
    async with AsyncExitStack() as stack:
        async with publishing(jwk(rsa_key())) as publisher:
            keys = await stack.enter_async_context(fetching(publisher.url))
        with capture_logs() as lines:
            keys.want()
            await until(lambda: bool(lines))
        assert lines[0]["why"] == "ConnectError"
        assert kids(keys) == {"one"}


async def test_https_is_verified(tmp_path: Path) -> None:
    cert, key = make_certificate(now=datetime.now(UTC))
    (tmp_path / "cert.pem").write_bytes(cert)
    (tmp_path / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with publishing(jwk(rsa_key()), tls=context) as publisher:
        async with fetching(publisher.url) as keys:
            assert keys.keys is None
        async with fetching(publisher.url, tmp_path / "cert.pem") as keys:
            assert kids(keys) == {"one"}


async def test_keys_are_followed_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "REFRESH_S", 0.02)
    pem = tmp_path / "issuer.pem"
    pem.write_bytes(public_pem(rsa_key()))
    given = settings(tmp_path, jwt_keys=str(pem), jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    access = build_access(given)
    await access.start()
    try:
        now = time.time()
        old, new = token(exp=now + 600, iat=now), token(rsa_key(1), exp=now + 600, iat=now)
        assert (code_of(access, old), code_of(access, new)) == (None, Code.UNAUTHORIZED)
        pem.write_bytes(public_pem(rsa_key(1)))
        await until(lambda: code_of(access, new) is None)
        assert code_of(access, old) is Code.UNAUTHORIZED
        pem.write_bytes(b"broken")
        key = a_key(given.keys_file, scopes=ALL_SCOPES)
        await until(lambda: code_of(access, key) is None)
        assert code_of(access, new) is None
        grant = enter(access, key)
        minted = enter(access, access.tokens.mint(grant).token)
        given.keys_file.unlink()
        await until(lambda: access.gate.refusal(minted) is not None)
    finally:
        await access.aclose()


async def test_what_was_used_is_written_at_the_end(tmp_path: Path) -> None:
    given = settings(tmp_path, port=8443)
    key = a_key(given.keys_file, allowance=Allowance(audio_minutes_per_day=2))
    first = build_access(given)
    await first.start()
    assert first.quotas.spend(enter(first, key), 119_000) is None
    await first.aclose()
    (record,) = load_keys(given.keys_file).values()
    assert record.last_used is not None
    kept = tmp_path / "quota-8443.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    second = build_access(given)
    await second.start()
    assert second.quotas.spend(enter(second, key), 1_001) is not None
    await second.aclose()
    kept.write_bytes(b"\xff broken")
    third = build_access(given)
    with capture_logs() as lines:
        await third.start()
    assert [line["log_level"] for line in lines] == ["warning"]
    assert third.quotas.spend(enter(third, key), 1_000) is None
    await third.aclose()


async def test_nothing_runs_on_after_the_end(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with publishing(jwk(rsa_key())) as publisher:
        access = build_access(
            settings(tmp_path, jwt_keys=publisher.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE, auth="on")
        )
        await access.start()
        assert asyncio.all_tasks() - before
        await access.aclose()
        await access.aclose()
    await until(lambda: asyncio.all_tasks() <= before)


def test_a_gate_that_is_open_writes_nothing(tmp_path: Path) -> None:
    given = settings(tmp_path / "state")
    assert not given.auth_is_on
    access = build_access(given)
    assert access.gate.is_open
    assert not (tmp_path / "state").exists()
    assert access.tokens.verify(access.tokens.mint(Grant("address ::1")).token)


@pytest.mark.parametrize(
    ("more", "has_keys", "is_on"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"auth": "off"}, True, False),
        ({"auth": "on"}, False, True),
        ({"token_secret": "s" * 32}, False, True),
        ({"auth": "off", "token_secret": "s" * 32}, False, False),
    ],
)
def test_when_credentials_are_asked_for(tmp_path: Path, more: dict[str, object], has_keys: bool, is_on: bool) -> None:
    given = settings(tmp_path, **more)
    if has_keys:
        a_key(given.keys_file)
    assert given.auth_is_on == is_on
    assert build_access(given).gate.is_open != is_on


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    given = settings(tmp_path, auth="on")
    made = build_access(given).tokens.mint(Grant("key app")).token
    assert enter(build_access(given), made)
    kept = tmp_path / "token-secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.write_text("n" * 40 + "\n" + kept.read_text())  # a new one in front: the old one is still taken
    assert enter(build_access(given), made)
    kept.write_text("short")
    with pytest.raises(SettingsError, match="32 characters"):
        build_access(given)


@pytest.mark.parametrize("name", ["keys.json", "issuer.pem"])
def test_a_file_that_cannot_be_used_stops_the_start_and_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"?")
    jwt = {"jwt_keys": str(tmp_path / "issuer.pem"), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    with pytest.raises(SettingsError, match=name):
        build_access(settings(tmp_path, **(jwt if name == "issuer.pem" else {})))
