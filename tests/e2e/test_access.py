"""One place grants access, on every face: a gateway with keys, asked by those who have one and those who do not."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import requests
from websockets.exceptions import InvalidStatus

from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc, health, health_grpc
from keyring import Keyring, bearer
from server.access.grants import ALL_SCOPES, CLIENT_SCOPES, Allowance, Scope
from server.access.rules import GRPC, HTTP
from server.serve import Addresses
from timing import in_time
from word_engine import WordEngine

from .gateway import Session, running, session

PATIENCE_S = 10.0
SECOND = bytes(32_000)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PAGE = {"Origin": "https://page.example"}
WRONG = "The credential is missing, wrong or expired."
TRICKS = [
    ("GET", "/jobs"),
    ("HEAD", "/jobs"),
    ("get", "/jobs"),
    ("GET", "/jobs?x=/healthz"),
    ("GET", "/%6a%6f%62%73"),
    ("GET", "/jobs%2F"),
    ("GET", "//jobs"),
    ("GET", "/./jobs"),
    ("GET", "/docs/../jobs"),
    ("GET", "/docs/%2e%2e/jobs"),
    ("GET", "/api-assets/../jobs"),
    ("GET", "/api-assets/%2e%2e/jobs"),
    ("GET", "/api-assets/..%2f..%2fjobs"),
    ("GET", "/jobs/"),
    ("GET", "/jobs;/healthz"),
    ("GET", "/jobs#/healthz"),
    ("GET", "/JOBS"),
    ("GET", "/jobs%00"),
    ("GET", "/jobs%0a"),
    ("GET", "/jobs/x/status"),
    ("GET", "/jobs/..%2fhealthz/status"),
    ("GET", "http://localhost/jobs"),
    ("GET", "http://elsewhere.example/healthz/../jobs"),
    ("OPTIONS", "/jobs"),
    ("PROPFIND", "/jobs"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/%2e%2e/models"),
    ("GET", "/v1//models"),
    ("DELETE", "/jobs/x"),
]


@asynccontextmanager
async def guarded(ring: Keyring, engine: WordEngine | None = None, **more: object) -> AsyncIterator[Addresses]:
    """A gateway that asks for keys of this ring."""
    settings: dict[str, object] = {"auth": "on", "api_keys_file": ring.path, **more}
    async with running(engine or WordEngine(), ring.path.parent / "state", **settings) as addresses:
        yield addresses


async def ask(addresses: Addresses, method: str, path: str, **more: Any) -> requests.Response:
    return await asyncio.to_thread(requests.request, method, addresses.url + path, timeout=PATIENCE_S, **more)


async def raw(addresses: Addresses, method: str, target: str, *headers: str) -> tuple[int, bytes]:
    """An answer to a request that is sent exactly so."""
    reader, writer = await asyncio.open_connection("localhost", addresses.port)
    try:
        lines = [f"{method} {target} HTTP/1.1", f"Host: localhost:{addresses.port}", "Connection: close", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        return int(answer.split(b" ", 2)[1]), answer
    finally:
        writer.close()


async def refused(addresses: Addresses, path: str, **more: Any) -> tuple[int, str, Any]:
    with pytest.raises(InvalidStatus) as caught:
        async with session(addresses, path, **more):
            pass
    response = caught.value.response
    return response.status_code, (response.body or b"").decode(), response.headers


@asynccontextmanager
async def riva(addresses: Addresses) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"localhost:{addresses.grpc_port}") as channel:
        yield channel


def filled(template: str) -> str:
    return re.sub(r"\{[^}]+\}", "x1", template)


ASKING = sorted(key for key, rule in HTTP.items() if rule.scope is not None and not rule.is_optional)


async def test_every_http_route_that_asks_for_a_scope(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    lacking = {scope: ring.key(f"no-{scope}", ALL_SCOPES - {scope}) for scope in Scope}
    async with guarded(ring) as addresses:
        for method, template in ASKING:
            missing = await ask(addresses, method, filled(template), data=b"x" * 100)
            assert missing.status_code == 401, template
            assert missing.headers["WWW-Authenticate"] == 'Bearer realm="riva-gateway"'
            assert missing.headers["Cache-Control"] == "no-store"
            assert missing.json()["detail"].startswith(WRONG)
            assert missing.json()["error"]["code"] == "unauthorized"
            scope = HTTP[method, template].scope
            assert scope is not None
            forbidden = await ask(addresses, method, filled(template), headers=bearer(lacking[scope]))
            assert forbidden.status_code == 403, template
            assert f"scope {scope.value}" in forbidden.json()["detail"]
        wrong = await ask(addresses, "GET", "/jobs", headers=bearer("rgk_wrong"))
        assert (wrong.status_code, wrong.json()) == (401, missing.json())


async def test_what_is_open(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    few, watcher = ring.key("few", CLIENT_SCOPES), ring.key("watcher", [Scope.METRICS])
    async with guarded(ring) as addresses:
        for path in ("/", "/app.js", "/healthz", "/readyz", "/ping", "/v1/health/live", "/v1/health/ready", "/docs"):
            assert (await ask(addresses, "GET", path, headers=bearer("wrong"))).status_code == 200, path
        for path in ("/openapi.json", "/schema/asr.v1.json", "/v1/realtime/health", "/api-assets/swagger-ui.css"):
            assert (await ask(addresses, "GET", path)).status_code == 200, path
        assert (await ask(addresses, "GET", "/nowhere")).status_code == 404
        assert (await ask(addresses, "POST", "/nowhere")).status_code in (404, 405)
        assert (await ask(addresses, "GET", "/v1/stream")).status_code == 426
        hidden = {"process", "detail"}
        assert not hidden & (await ask(addresses, "GET", "/readyz")).json().keys()
        assert not hidden & (await ask(addresses, "GET", "/readyz", headers=bearer(few))).json().keys()
        assert hidden <= (await ask(addresses, "GET", "/readyz", headers=bearer(watcher))).json().keys()
        assert (await ask(addresses, "GET", "/v1/models", headers={"X-API-Key": few})).status_code == 200


async def test_spellings_that_lead_nowhere(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("somebody")
    async with guarded(ring) as addresses:
        assert (await raw(addresses, "GET", "/jobs", f"Authorization: Bearer {key}"))[0] == 200
        for method, target in TRICKS:
            status, answer = await raw(addresses, method, target)
            assert 400 <= status < 500, (method, target)
            assert b'"jobs"' not in answer, (method, target)
            assert b"words-en" not in answer, (method, target)


async def test_nothing_of_a_refused_body_is_read(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    async with guarded(ring) as addresses:
        reader, writer = await asyncio.open_connection("localhost", addresses.port)
        writer.write(b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\nabc")
        async with asyncio.timeout(2):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()


@pytest.mark.parametrize(
    "path", ["/v1/stream", "/ws", "/v1/realtime?intent=transcription", "/invocations-bidirectional-stream"]
)
async def test_every_websocket(path: str, tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    good, useless = ring.key("good", [Scope.TRANSCRIBE]), ring.key("useless", [Scope.METRICS])
    async with guarded(ring, allowed_origins=PAGE["Origin"]) as addresses:
        status, text, headers = await refused(addresses, path)
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="riva-gateway"')
        assert text.startswith(WRONG)
        assert (await refused(addresses, path, additional_headers=bearer(useless)))[0] == 403
        for shown in ({"additional_headers": bearer(good)}, {"subprotocols": ["asr.v1", f"token.{good}"]}):
            async with session(addresses, path, **shown):
                pass
        for credential, code in (("", 4401), (useless, 4403)):
            shown = [f"token.{credential}"] if credential else []
            async with session(addresses, path, subprotocols=shown, additional_headers=PAGE) as page:
                assert "credential" in (await page.hear()).lower()
                assert await page.hear() in (f"close {code}", "close 1008")


async def test_every_method_of_grpc(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    good, useless = ring.key("good", [Scope.TRANSCRIBE]), ring.key("useless", [Scope.METRICS])
    async with guarded(ring) as addresses, riva(addresses) as channel:
        for name, rule in GRPC.items():
            call = channel.stream_stream(name, lambda data: data, lambda data: data)
            for credential, code in (
                (None, "UNAUTHENTICATED"),
                ("wrong", "UNAUTHENTICATED"),
                (useless, "PERMISSION_DENIED"),
            ):
                metadata = [] if credential is None else [("authorization", f"Bearer {credential}")]
                # A watched state is told until the client goes.
                error = await ended(call(timeout=0.3 if rule.scope is None else PATIENCE_S, metadata=metadata))
                if rule.scope is None:
                    assert error.code().name not in ("UNAUTHENTICATED", "PERMISSION_DENIED"), name
                else:
                    assert error.code().name == code, name
                    assert "credential" in (error.details() or "")
        state = await health_grpc.HealthStub(channel).Check(health.HealthCheckRequest(), timeout=PATIENCE_S)
        assert state.status == health.HealthCheckResponse.SERVING
        stub = asr_grpc.RivaSpeechRecognitionStub(channel)
        for metadata in ([("authorization", f"Bearer {good}")], [("x-api-key", good)]):
            config = pb.RivaSpeechRecognitionConfigRequest()
            assert (
                await stub.GetRivaSpeechRecognitionConfig(config, timeout=PATIENCE_S, metadata=metadata)
            ).model_config
        missing = channel.unary_unary(
            "/nvidia.riva.asr.RivaSpeechRecognition/Nothing", lambda data: data, lambda data: data
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await missing(b"", timeout=PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_nobody_keeps_others_out_of_grpc(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    greedy, good = bearer(ring.key("greedy")), bearer(ring.key("good"))
    config = "/nvidia.riva.asr.RivaSpeechRecognition/GetRivaSpeechRecognitionConfig"
    async with (
        guarded(ring, max_streams=4, max_connections=8) as addresses,
        riva(addresses) as channel,
        riva(addresses) as other,
    ):
        stub = asr_grpc.RivaSpeechRecognitionStub(other)

        async def good_is_served() -> None:
            metadata = [("authorization", good["Authorization"])]
            request = pb.RivaSpeechRecognitionConfigRequest()
            await stub.GetRivaSpeechRecognitionConfig(request, timeout=PATIENCE_S, metadata=metadata)

        watches = [health_grpc.HealthStub(channel).Watch(health.HealthCheckRequest()) for _ in range(30)]
        answers = await asyncio.gather(*(watch.read() for watch in watches), return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert len(refusals) == 28
        assert {error.code() for error in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        await good_is_served()
        for watch in watches:
            watch.cancel()
        metadata = [("authorization", greedy["Authorization"])]
        silent = [channel.stream_unary(config, bytes, bytes)(metadata=metadata) for _ in range(30)]
        codes = asyncio.as_completed([call.code() for call in silent], timeout=PATIENCE_S)
        # At most eight stay, whichever they are: places of the watches may come free between them.
        assert {await next(codes) for _ in range(22)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        await good_is_served()
        for call in silent:
            call.cancel()


async def test_connections_without_a_call_are_few_and_keep_no_gateway_from_its_end(tmp_path: Path) -> None:
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # and never a word again

    async def connected(addresses: Addresses) -> tuple[bool, asyncio.StreamWriter]:
        assert addresses.grpc_port is not None
        reader, writer = await asyncio.open_connection("localhost", addresses.grpc_port)
        writer.write(hello)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return bool(await reader.read(1)), writer
        except ConnectionError:
            return False, writer

    async with guarded(Keyring(tmp_path), max_streams=4, max_connections=8) as addresses:
        there = await asyncio.gather(*(connected(addresses) for _ in range(40)))
        assert sum(stays for stays, _ in there) == 24
        began = time.monotonic()
    in_time(time.monotonic() - began, 5)
    for _, writer in there:
        writer.close()


async def test_a_call_without_its_message_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.access.grpc.OPEN_MESSAGE_S", 0.2)
    async with guarded(Keyring(tmp_path)) as addresses, riva(addresses) as channel:
        check = channel.stream_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        assert await check(timeout=PATIENCE_S).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        call = check(timeout=PATIENCE_S)
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "before its message" in (await call.details() or "")


async def test_guessing_is_slowed_whatever_address_a_client_says_is_its_own(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    good = bearer(ring.key("somebody"))
    async with guarded(ring) as addresses, riva(addresses) as channel:
        statuses = list[int]()
        for number in range(22):
            headers = {**bearer("rgw_wrong"), "X-Forwarded-For": f"192.0.2.{number}"}
            statuses.append((await ask(addresses, "GET", "/v1/models", headers=headers)).status_code)
        assert statuses[:20] == [401] * 20
        assert statuses[-1] == 429
        call = channel.stream_stream("/nvidia.riva.asr.RivaSpeechRecognition/Recognize", bytes, bytes)
        error = await ended(call(metadata=[("authorization", "Bearer rgw_wrong")], timeout=PATIENCE_S))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await ask(addresses, "GET", "/v1/models", headers=good)).status_code == 200


async def test_a_message_that_cannot_be_read_is_the_clients_mistake(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    metadata = [("authorization", f"Bearer {ring.key('somebody')}")]
    async with guarded(ring) as addresses, riva(addresses) as channel:
        for name in GRPC:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(name, bytes, bytes)(b"\xff\xff", timeout=PATIENCE_S, metadata=metadata)
            assert (caught.value.code(), "proto files" in (caught.value.details() or "")) == (INVALID, True), name


async def test_what_is_packed_is_bounded_once_it_is_unpacked(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    metadata = [("authorization", f"Bearer {ring.key('somebody')}")]
    recognize = "/nvidia.riva.asr.RivaSpeechRecognition/Recognize"
    options = [("grpc.max_send_message_length", -1)]
    async with guarded(ring) as addresses:
        address = f"localhost:{addresses.grpc_port}"
        async with grpc.aio.insecure_channel(address, options, compression=grpc.Compression.Gzip) as channel:
            call = channel.unary_unary(recognize, bytes, bytes)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(bytes(65 * 1024 * 1024), timeout=PATIENCE_S, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_pages_that_are_refused_in_words_leave_room_for_others(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("somebody")
    async with (
        guarded(ring, allowed_origins=PAGE["Origin"], max_connections=10) as addresses,
        AsyncExitStack() as stack,
    ):
        upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        lines = [
            "GET /v1/stream HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            *upgrade,
            f"Origin: {PAGE['Origin']}",
        ]
        statuses = []
        for _ in range(20):
            reader, writer = await asyncio.open_connection("localhost", addresses.port)
            stack.callback(writer.close)
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            statuses.append((await reader.readline())[9:12])
        assert statuses == [b"101"] * 2 + [b"401"] * 18
        async with session(addresses, additional_headers=bearer(key)):
            pass


async def riva_call(channel: Any, token: str) -> Any:
    """A stream that has been given half a second of sound."""
    stub = asr_grpc.RivaSpeechRecognitionStub(channel)
    call = stub.StreamingRecognize(timeout=PATIENCE_S, metadata=[("authorization", f"Bearer {token}")])
    chosen = pb.RecognitionConfig(encoding=1, sample_rate_hertz=16_000)
    await call.write(pb.StreamingRecognizeRequest(streaming_config=pb.StreamingRecognitionConfig(config=chosen)))
    await call.write(pb.StreamingRecognizeRequest(audio_content=SECOND[: len(SECOND) // 2]))
    return call


async def riva_end(call: Any) -> tuple[list[str], grpc.aio.AioRpcError]:
    """The finals until an error, and that."""
    finals: list[str] = []
    try:
        async for response in call:
            finals += [result.alternatives[0].transcript for result in response.results if result.is_final]
    except grpc.aio.AioRpcError as error:
        return finals, error
    raise AssertionError(finals)


async def ended(call: Any) -> grpc.aio.AioRpcError:
    """How a call ended that was sent nothing but its end."""
    try:
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            pass
    except grpc.aio.AioRpcError:
        pass
    return grpc.aio.AioRpcError(await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details())


async def test_a_door_without_a_rule_is_shut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rules in ("server.access.http.HTTP", "server.access.rules.HTTP"):
        monkeypatch.setattr(rules, {key: rule for key, rule in HTTP.items() if key[1] != "/v1/models"})
    ring = Keyring(tmp_path)
    key = ring.key("everything")
    for settings in ({}, {"auth": "off"}):
        async with guarded(ring, **settings) as addresses:
            answer = await ask(addresses, "GET", "/v1/models", headers=bearer(key))
            assert answer.status_code == 403
            assert "no rule" in answer.json()["detail"]
            assert (await ask(addresses, "GET", "/v1/version", headers=bearer(key))).status_code == 200


# What runs ---------------------------------------------------------------------------------------


async def speaking(client: Session, seconds: float = 0.5) -> None:
    """A session that has been given sound of no whole utterance."""
    await client.say('{"type":"start"}')
    ready = await client.message()
    assert ready["type"] == "ready", ready
    await client.say(SECOND[: int(len(SECOND) * seconds)])
    while (await client.message())["type"] != "partial":
        pass


async def rest(client: Session) -> list[dict[str, Any]]:
    """Everything until the close, which is the last of it."""
    heard: list[dict[str, Any]] = []
    while (text := await client.answer()).startswith("{"):
        heard.append(json.loads(text))
    return [*heard, {"type": text}]


async def test_a_token_that_expires_ends_what_it_began(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("app")
    async with guarded(ring) as addresses:
        token = await minted(addresses, key, ttl_ms=1_000, scopes=["transcribe"])
        start = '{"type":"start","resume_window_ms":0}'
        async with session(addresses, subprotocols=["asr.v1", f"token.{token}"]) as client, riva(addresses) as channel:
            await client.say(start)
            assert (await client.message())["type"] == "ready"
            await client.say(SECOND[: len(SECOND) // 2])
            call = await riva_call(channel, token)
            began = time.monotonic()
            heard = await rest(client)
            in_time(time.monotonic() - began, 5)
            kinds = [message["type"] for message in heard if message["type"] not in ("partial", "warning")]
            assert kinds == ["final", "summary", "error", "close 4401"]
            told = heard[-2]
            assert (told["code"], told["action"], told["fatal"]) == ("unauthorized", "reauthenticate", True)
            assert "expired" in told["message"]
            finals, error = await riva_end(call)
            assert [text.strip() for text in finals] == ["w1 w2"]
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        status, text, _ = await refused(addresses, "/v1/stream", subprotocols=[f"token.{token}"])
        assert (status, text[:40]) == (401, WRONG[:40])


DIALECTS = {
    "/ws": ["close 4401"],
    "/v1/realtime?dialect=nim": ["close 1008", "close 4401"],
    "/v1/realtime?dialect=openai": ["close 1008", "close 4401", "close 3000"],
    "/invocations-bidirectional-stream?dialect=plain": ["close 4401"],
}


async def test_every_dialect_brings_home_what_was_said(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("app")
    half = SECOND[: len(SECOND) // 2]
    append = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(half).decode()})
    async with guarded(ring) as addresses, AsyncExitStack() as stack:
        clients = list[Session]()
        for path in DIALECTS:
            client = await stack.enter_async_context(session(addresses, path, additional_headers=bearer(key)))
            if "realtime" in path:
                await client.message()
            await client.say(append if "realtime" in path else half)
            await client.hear()
            clients.append(client)
        ring.take_back("app")
        for messages, (path, end) in zip(await asyncio.gather(*map(rest, clients)), DIALECTS.items(), strict=True):
            heard = [json.dumps(message) for message in messages]
            assert any("w1" in text for text in heard), path
            assert any("revoked" in text for text in heard), path
            assert json.loads(heard[-1])["type"] in end, path


async def test_a_session_goes_on_with_another_token_of_the_same_caller(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key, other = ring.key("app"), ring.key("other")
    async with guarded(ring) as addresses, AsyncExitStack() as stack:
        first = await minted(addresses, key, ttl_ms=1_500)
        client = await stack.enter_async_context(session(addresses, subprotocols=["asr.v1", f"token.{first}"]))
        await client.say('{"type":"start"}')
        ready = await client.message()
        await client.say(SECOND[: len(SECOND) // 2])
        heard = await rest(client)
        assert [message["type"] for message in heard[-2:]] == ["error", "close 4401"]
        assert heard[-2]["action"] == "reauthenticate"
        assert "final" in [message["type"] for message in heard]
        assert "finalized" not in [message["type"] for message in heard]
        resume = {
            "type": "resume", "session_id": ready["session_id"], "resume_token": ready["resume_token"],
            "last_seq": max(message.get("seq", 0) for message in heard[:-2]),
        }  # fmt: skip
        path = f"/v1/stream?session={ready['session_id']}"
        stranger = await stack.enter_async_context(session(addresses, path, additional_headers=bearer(other)))
        await stranger.say(json.dumps(resume))
        assert (await stranger.message())["code"] == "not_found"
        second = await minted(addresses, key, ttl_ms=20_000)
        again = await stack.enter_async_context(session(addresses, path, subprotocols=["asr.v1", f"token.{second}"]))
        await again.say(json.dumps(resume))
        assert (await again.message())["type"] == "resumed"
        while (warning := await again.message())["type"] != "warning":
            pass
        assert warning["code"] == "token_expiring"
        await again.say(SECOND)
        await again.say('{"type":"stop"}')
        heard = await rest(again)
        assert " ".join(m["text"] for m in heard if m["type"] == "final") == "w3 w4 w5 w6 w7"
        assert heard[-1]["type"] == "close 1000"


async def test_the_minutes_of_a_day(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("app", allowance=Allowance(audio_minutes_per_day=1))
    async with guarded(ring, max_ahead_ms=600_000) as addresses:
        async with session(addresses, additional_headers=bearer(key)) as client:
            await client.say('{"type":"start","interim":false}')
            for _ in range(61):
                await client.say(SECOND)
            heard = await rest(client)
            assert [message["type"] for message in heard[-3:]] == ["summary", "error", "close 4429"]
            assert (heard[-2]["code"], heard[-2]["action"]) == ("rate_limited", "wait")
            assert heard[-3]["audio_ms"] == 61_000
        status, text, headers = await refused(addresses, "/v1/stream", additional_headers=bearer(key))
        assert status == 429
        assert "used up" in text
        assert int(headers["Retry-After"]) > 0
        answer = await ask(addresses, "POST", "/transcribe", headers=bearer(key), data=b"x")
        assert answer.status_code == 429
        answer = await ask(addresses, "POST", "/transcribe/async", headers=bearer(key), data=b"x")
        assert answer.status_code == 429


# Tokens ------------------------------------------------------------------------------------------


async def minted(addresses: Addresses, key: str, **asked: object) -> str:
    answer = await ask(addresses, "POST", "/v1/tokens", headers=bearer(key), json=asked)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


async def test_tokens_are_made_of_keys(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key, poor = ring.key("app", [Scope.TRANSCRIBE, Scope.MINT]), ring.key("poor", [Scope.TRANSCRIBE])
    async with guarded(ring) as addresses:
        answer = await ask(addresses, "POST", "/v1/tokens", headers=bearer(key))
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json()["scopes"] == ["transcribe"]
        assert 0 < answer.json()["expires_at"] - time.time() <= 300
        assert (await ask(addresses, "POST", "/v1/tokens", headers=bearer(poor))).status_code == 403
        for wrong in (
            {"scopes": ["jobs"]},
            {"scopes": ["all"]},
            {"scopes": "jobs"},
            {"ttl_ms": 1e9},
            {"ttl": 5},
            {"ttl_ms": True},
        ):
            answer = await ask(addresses, "POST", "/v1/tokens", headers=bearer(key), json=wrong)
            assert answer.status_code in (400, 403), wrong
        once = await minted(addresses, key, single_use=True)
        assert (await ask(addresses, "GET", "/v1/models", headers=bearer(once))).status_code == 200
        assert (await ask(addresses, "GET", "/v1/models", headers=bearer(once))).status_code == 401
        assert (await ask(addresses, "GET", "/jobs", headers=bearer(await minted(addresses, key)))).status_code == 403


async def test_an_open_gateway_makes_none(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        answer = await ask(addresses, "POST", "/v1/tokens")
        assert answer.status_code == 400
        assert "AUTH" in answer.json()["error"]["message"]


async def test_realtime_secrets_act_for_who_made_them(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key, minter = ring.key("app", [Scope.TRANSCRIBE, Scope.MINT]), ring.key("only-mint", [Scope.MINT])
    async with guarded(ring, realtime_token_ttl_ms=1_000, realtime_auth_mint_api_key="mint-key") as addresses:
        for path in ("/v1/realtime/transcription_sessions", "/v1/realtime/client_secrets"):
            assert (await ask(addresses, "POST", path)).status_code == 401
            assert (await ask(addresses, "POST", path, headers=bearer(minter))).status_code == 403
            assert (await ask(addresses, "POST", path, headers=bearer("mint-key"))).status_code == 200
        nim = await ask(addresses, "POST", "/v1/realtime/transcription_sessions", headers=bearer(key))
        secret = nim.json()["client_secret"]["value"]
        openai = (await ask(addresses, "POST", "/v1/realtime/client_secrets", headers=bearer(key))).json()["value"]
        offers = [[f"realtime-token.{secret}"], [f"openai-insecure-api-key.{openai}", "realtime"]]
        async with AsyncExitStack() as stack:
            for offer in offers:
                client = await stack.enter_async_context(session(addresses, "/v1/realtime", subprotocols=offer))
                assert "created" in (await client.message())["type"]
            await asyncio.sleep(1.2)  # the secret is over; what it opened is not
            for offer in offers:
                assert (await refused(addresses, "/v1/realtime", subprotocols=offer))[0] == 401
            await client.say('{"type":"input_audio_buffer.append","audio":""}')
            assert (await ask(addresses, "GET", "/readyz")).json()["streams"]["in_use"] == 2
            ring.take_back("app")
            assert "revoked" in json.dumps(await rest(client))


async def test_a_recognizer_that_hangs_keeps_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("server.drive", "server.faces.riva_visit"):
        monkeypatch.setattr(f"{room}.GRACE_S", 0.2)
    ring = Keyring(tmp_path)
    key = ring.key("app")
    async with guarded(ring, WordEngine("hang@200")) as addresses, riva(addresses) as channel:
        async with session(addresses, "/ws", additional_headers=bearer(key)) as client:
            await client.say(SECOND)
            call = await riva_call(channel, key)
            await client.hear()
            ring.take_back("app")
            heard = await rest(client)
            assert "revoked" in json.dumps(heard)
            assert heard[-1]["type"] == "close 4401"
        _, error = await riva_end(call)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "revoked" in (error.details() or "")
