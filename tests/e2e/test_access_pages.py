"""What web pages of other sites may do, and by which names a gateway goes, whether or not it asks for credentials."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from websockets.exceptions import InvalidStatus

from asr.errors import ASRError
from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from keyring import Keyring, bearer
from server.access.rules import GRPC, SOCKETS
from server.serve import Addresses
from word_engine import WordEngine

from .command import Shell
from .gateway import running, session

PATIENCE_S = 10.0
PAGE = "https://page.example"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


async def ask(addresses: Addresses, method: str, path: str, **more: Any) -> requests.Response:
    return await asyncio.to_thread(requests.request, method, addresses.url + path, timeout=PATIENCE_S, **more)


async def knock(addresses: Addresses, **headers: str) -> int:
    """The status of a WebSocket handshake with these headers."""
    try:
        async with session(addresses, additional_headers=headers):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def test_an_open_gateway_serves_no_page_of_another_site(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        own = f"http://localhost:{addresses.port}"
        assert await knock(addresses, Origin=own) == 101
        others = (PAGE, "null", "http://localhost", "http://localhost:1", f"http://127.0.0.1:{addresses.port}", "")
        for origin in others:
            assert await knock(addresses, Origin=origin) == 403, origin
        for method, path in (("POST", "/transcribe"), ("POST", "/transcribe/async"), ("DELETE", "/jobs/x")):
            answer = await ask(addresses, method, path, headers={"Origin": PAGE})
            assert answer.status_code == 403
            assert "ALLOWED_ORIGINS" in answer.json()["detail"]
        assert (await ask(addresses, "POST", "/transcribe", headers={"Origin": own})).status_code == 400
        told = await ask(addresses, "GET", "/v1/models", headers={"Origin": PAGE})
        assert not [name for name in told.headers if name.lower().startswith("access-control")]
        assert (await ask(addresses, "OPTIONS", "/transcribe", headers=PREFLIGHT)).status_code == 403


async def test_a_gateway_on_this_machine_goes_by_its_own_names(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses:
        for host in ("localhost", "127.0.0.1", f"localhost:{addresses.port}", "[::1]:80"):
            assert (await ask(addresses, "GET", "/v1/models", headers={"Host": host})).status_code == 200, host
        for host in ("rebound.example", "localhost.rebound.example", "10.0.0.1"):
            for method, path in (("GET", "/v1/models"), ("GET", "/jobs"), ("POST", "/transcribe"), ("GET", "/metrics")):
                answer = await ask(addresses, method, path, headers={"Host": host})
                assert answer.status_code == 403, (host, path)
                assert "Host header" in answer.json()["detail"]
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            shown = {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
            shown |= {"Host": host, "Origin": f"http://{host}"}
            assert (await ask(addresses, "GET", "/v1/stream", headers=shown)).status_code == 403
        assert (await ask(addresses, "GET", "/healthz", headers={"Host": "10.0.0.1"})).status_code == 200
        for host, told in (("10.0.0.1", False), ("localhost", True)):
            ready = await ask(addresses, "GET", "/readyz", headers={"Host": host})
            assert (ready.status_code, "process" in ready.json()) == (200, told)


async def test_names_do_not_matter_where_credentials_are_asked_for(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("somebody")
    async with running(WordEngine(), tmp_path / "state", auth="on", api_keys_file=ring.path) as addresses:
        headers = {**bearer(key), "Host": "gateway.example"}
        assert (await ask(addresses, "GET", "/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("auth", ["on", "off"])
async def test_pages_that_are_allowed(auth: str, tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    key = ring.key("somebody")
    settings: dict[str, object] = {"auth": auth, "api_keys_file": ring.path}
    settings |= {"allowed_origins": f"{PAGE}, https://b.example"}
    async with running(WordEngine(), tmp_path / "state", **settings) as addresses:
        before = await ask(addresses, "OPTIONS", "/transcribe", headers=PREFLIGHT)
        assert before.status_code == 204
        assert before.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Authorization" in before.headers["Access-Control-Allow-Headers"]
        for headers, status in (({}, 401 if auth == "on" else 200), (bearer(key), 200)):
            answer = await ask(addresses, "GET", "/v1/models", headers={"Origin": PAGE, **headers})
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert "Origin" in answer.headers["Vary"]
            assert "Access-Control-Allow-Credentials" not in answer.headers
        for origin in (f"{PAGE}.evil.example", "null", f"{PAGE}:443"):
            answer = await ask(addresses, "GET", "/v1/models", headers={"Origin": origin, **bearer(key)})
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Origin" in answer.headers["Vary"]
        shown = {"Authorization": f"Bearer {key}"}
        assert await knock(addresses, Origin=PAGE, **shown) == 101
        assert await knock(addresses, Origin=f"{PAGE}.evil.example", **shown) == 403


async def test_every_page_where_that_is_said(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, allowed_origins="*") as addresses:
        answer = await ask(addresses, "GET", "/v1/models", headers={"Origin": PAGE})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert await knock(addresses, Origin=PAGE) == 101
        assert await knock(addresses, Origin="null") == 403


async def test_other_doors_without_a_rule_are_shut_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.build.SOCKETS", {path: rule for path, rule in SOCKETS.items() if path != "/ws"})
    config = "/nvidia.riva.asr.RivaSpeechRecognition/GetRivaSpeechRecognitionConfig"
    monkeypatch.setattr("server.serve.GRPC", {name: rule for name, rule in GRPC.items() if name != config})
    async with running(WordEngine(), tmp_path) as addresses:
        with pytest.raises(InvalidStatus) as caught:
            async with session(addresses, "/ws"):
                pass
        assert caught.value.response.status_code == 403
        assert await knock(addresses) == 101
        async with grpc.aio.insecure_channel(f"localhost:{addresses.grpc_port}") as channel:
            stub = asr_grpc.RivaSpeechRecognitionStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest(), timeout=PATIENCE_S)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_compression_is_declined(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path) as addresses, session(addresses, compression="deflate") as client:
        response = client.websocket.response
        assert response is not None
        assert "Sec-WebSocket-Extensions" not in response.headers


async def test_others_come_in_only_where_somebody_said_so(tmp_path: Path) -> None:
    unsaid = {"host": "0.0.0.0"}
    with pytest.raises(ASRError, match="riva-gateway key create"):
        async with running(WordEngine(), tmp_path, **unsaid):
            pass
    ring = Keyring(tmp_path)
    ring.key("somebody")
    async with running(WordEngine(), tmp_path, **unsaid) as addresses:  # the keys lie where they are looked for
        assert (await ask(addresses, "GET", "/v1/models")).status_code == 401
    async with running(WordEngine(), tmp_path, **unsaid, auth="off") as addresses:
        assert (await ask(addresses, "GET", "/v1/models", headers={"Host": "gw.example"})).status_code == 200
        answer = await ask(addresses, "GET", "/admin/rollout")
        assert answer.status_code == 403
        assert "steer" in answer.json()["detail"]
    done = await asyncio.to_thread(
        Shell(tmp_path).run, "serve", "--host", "0.0.0.0", "--port", "0", "--grpc-port", "off"
    )
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    assert "--auth off" in done.stderr.decode()


@pytest.mark.parametrize(("flags", "told"), [(("--auth", "on"), True), (("--auth", "off"), False)])
def test_the_banner_tells_who_may_come_in(flags: tuple[str, str], told: bool, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with shell.start("serve", "--host", "0.0.0.0", "--no-tls", "--port", "0", "--grpc-port", "0", *flags) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
    text = "".join(lines)
    assert ("access: with a key or token" in text) is told
    assert ("credentials travel in the clear on the HTTP and gRPC port" in text) is told
    assert ("it asks nobody who they are" in text) is not told
