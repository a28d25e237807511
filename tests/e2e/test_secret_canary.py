"""No secret leaves the gateway: not one of its own, nor one that a client shows it, by no door and in no spelling.

Each secret is a canary. The gateway is used as well as it can be used, and as badly: with good credentials and wrong
ones, at every face, with a recognizer that goes away and one that breaks, until it is stopped. Then everything that
came out of it is searched: answers, pages, output, files, traces, and what the system shows of its processes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc.aio
import httpx2
import psutil
import pytest
from typer.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

import sound
from asr.config import RivaConfig
from asr.engines.riva import RivaEngine
from asr.errors import ASRError
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from asr.options import Options
from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from canaries import Canaries
from server.commands.app import app
from server.settings import ServerSettings

from .command import COMMAND, FIXTURES, Shell
from .jobs_driver import Receiver, receiver

CLIP = FIXTURES / "greeting.wav"
DRIVER = Path(__file__).resolve().parents[1] / "canary_gateway.py"
PAGES = (
    "/readyz",
    "/healthz",
    "/metrics",
    "/status",
    "/status.json",
    "/openapi.json",
    "/jobs",
    "/v1/models",
    "/nowhere",
)


@contextmanager
def started(shell: Shell, env: dict[str, str], *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway whose output goes to files in the shell's home, beside its state."""
    with (shell.home / "stdout").open("wb") as out, (shell.home / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=shell.home,
            env=shell.env | env | {"PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=err,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def ports_of(shell: Shell, process: subprocess.Popen[bytes], pattern: str) -> tuple[int, int]:
    async with asyncio.timeout(30):
        while not (found := re.search(pattern, (shell.home / "stdout").read_text(), re.S)):
            assert process.poll() is None, (shell.home / "stderr").read_text()
            await asyncio.sleep(0.05)
    return int(found[1]), int(found[2])


class Clients:
    """All that clients do, and all that they are told."""

    def __init__(self, http: int, grpc_port: int, canaries: Canaries, key: str, *hooks: str) -> None:
        self.told: list[str] = []
        self.clip = CLIP.read_bytes()
        self._http, self._grpc, self._canaries, self._key, self._hooks = http, grpc_port, canaries, key, hooks

    def bad(self, name: str) -> str:
        return self._canaries.secret(f"a client's {name}")

    def _credentials(self) -> list[dict[str, str]]:
        return [
            {"Authorization": f"Bearer {self._key}"},
            {"x-api-key": self._key},
            {},
            {"Authorization": f"Bearer {self.bad('bearer')}"},
            {"Authorization": f"Basic {self.bad('basic')}"},
            {"x-api-key": self.bad("key"), "Cookie": f"session={self.bad('cookie')}"},
            {"Authorization": f"Bearer eyJhbGciOiJIUzI1NiJ9.{self.bad('claims')}.{self.bad('mac')}"},
            {"Authorization": f"Bearer rgt_{self.bad('token')}.{self.bad('mac')}"},
            {"Authorization": f"Bearer rgw_0123456789ab_{self.bad('own key')}"},
        ]

    async def everything(self) -> None:
        base = f"http://127.0.0.1:{self._http}"
        async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=6) as http:  # no database: some wait
            query = {"token": self.bad("query"), "api_key": self.bad("query")}
            await asyncio.gather(
                *(self._calls(http, headers) for headers in self._credentials()),
                *(self._keep(http.get(page, headers={"x-api-key": self._key})) for page in PAGES),
                *(self._keep(http.get(page, params=query)) for page in PAGES),
                self._minting(http),
            )
        paths = ("/v1/stream", "/v1/realtime", "/v1/realtime?intent=transcription", "/invocations-bidirectional-stream")
        offers = [
            (path, {}, [name, prefix + credential])
            for path, name in (("/v1/stream", "asr.v1"), ("/v1/realtime", "realtime"))
            for prefix in ("token.", "realtime-token.", "openai-insecure-api-key.")
            for credential in (self._key, self.bad("subprotocol"))
        ]
        await asyncio.gather(
            *(self.call_riva(headers) for headers in self._credentials()),
            *(self._socket(path, headers, []) for path in paths for headers in self._credentials()),
            *(self._socket(*offer) for offer in offers),
        )

    async def _calls(self, http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
        for path in ("/v1/audio/transcriptions", "/transcribe"):
            await self._keep(http.post(path, headers=headers, files={"file": self.clip}, data={"model": ""}))
        for hook in self._hooks:
            fields = {"webhook_url": hook}
            await self._keep(http.post("/transcribe/async", headers=headers, files={"file": b"no sound"}, data=fields))
        await self._keep(http.post("/transcribe", headers=headers, files={"file": b"no sound"}))
        await self._keep(http.post("/invocations", headers=headers, content=b"{" * 50))
        await self._keep(http.post("/v1/audio/transcriptions", headers=headers, content=b"no form"))

    async def _minting(self, http: httpx2.AsyncClient) -> None:
        for key in (self._canaries.secret("REALTIME_AUTH_MINT_API_KEY"), self.bad("mint"), self._key):
            for path in ("/v1/realtime/transcription_sessions", "/v1/tokens"):
                for body in (b"{}", b"[", b'{"scopes": 7}'):
                    await self._keep(http.post(path, headers={"Authorization": f"Bearer {key}"}, content=body))

    async def _keep(self, call: object) -> None:
        try:
            answer: httpx2.Response = await call  # type: ignore[misc]
            self.told.append(f"{answer.status_code} {answer.headers!r} {answer.text}")
        except httpx2.HTTPError as error:
            self.told.append(repr(error))

    async def _socket(self, path: str, headers: dict[str, str], subprotocols: list[str]) -> None:
        url = f"ws://127.0.0.1:{self._http}{path}"
        offered: dict[str, object] = {"subprotocols": subprotocols} if subprotocols else {}
        try:
            async with (
                asyncio.timeout(10),
                connect(
                    url,
                    additional_headers=headers,
                    close_timeout=1,
                    proxy=None,
                    **offered,  # type: ignore[arg-type]
                ) as socket,
            ):
                await socket.send('{"type": "start"}')
                await socket.send(bytes(6400))
                await socket.send('{"type": "no such"}')
                await socket.send("{")
                while True:
                    self.told.append(str(await asyncio.wait_for(socket.recv(), 0.3)))
        except (TimeoutError, OSError, WebSocketException) as error:
            response = getattr(error, "response", None)
            self.told.append(f"{error} {response.body if response is not None else ''}")

    async def call_riva(self, headers: dict[str, str]) -> None:
        config = pb.RecognitionConfig(encoding=1, sample_rate_hertz=16_000, language_code="en-US")
        request = pb.RecognizeRequest(config=config, audio=self.clip[44:])
        metadata = [(name.lower(), value) for name, value in headers.items()]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._grpc}") as channel:
            try:
                answer = await asr_grpc.RivaSpeechRecognitionStub(channel).Recognize(
                    request, metadata=metadata, timeout=20
                )
                self.told.append(str(answer))
            except grpc.aio.AioRpcError as error:
                self.told.append(f"{error.code()} {error.details()} {error.trailing_metadata()}")


def processes_of(process: subprocess.Popen[bytes]) -> list[tuple[str, bytes]]:
    """What the system tells of a process and its children: command lines, and environments of the children."""
    told: list[tuple[str, bytes]] = []
    gateway = psutil.Process(process.pid)
    for each in (gateway, *gateway.children(recursive=True)):
        told.append((f"the command line of {each.name()}", Path(f"/proc/{each.pid}/cmdline").read_bytes()))
        if each.pid != process.pid:
            told.append((f"the environment of {each.name()}", Path(f"/proc/{each.pid}/environ").read_bytes()))
    return told


def sent(there: Receiver) -> Iterator[tuple[str, bytes]]:
    """What webhooks and a collector of traces were sent; the collector's headers are there to hold a secret."""
    for headers, body in there.requests:
        yield "a payload", gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        if "riva-gateway-signature" in headers:
            yield "the headers of a webhook", str(headers).encode()


def make_key(shell: Shell, canaries: Canaries) -> str:
    scopes = [word for scope in ("transcribe", "jobs", "mint", "metrics") for word in ("--scope", scope)]
    made = CliRunner().invoke(app, ["key", "create", "tester", *scopes], env=shell.env)
    assert made.exit_code == 0, made.stderr
    key = made.stdout.strip()
    canaries.made["an API key"] = key.rpartition("_")[2]
    return key


@asynccontextmanager
async def riva_that_asks(canaries: Canaries) -> AsyncIterator[MockRivaServer]:
    wanted = {
        "authorization": f"Bearer {canaries.secret('RIVA_API_KEY')}",
        "x-canary": canaries.secret("RIVA_METADATA"),
    }
    plan = {"hears": "clock", "utterances": ["one two three"], "server": {"required_metadata": wanted}}
    async with MockRivaServer(load_plan(plan)) as riva:
        yield riva


async def _a_gateway_is_used(tmp_path: Path, *words: str, style: str = "console") -> tuple[Canaries, list[str]]:
    """Secrets in the environment, lines for people; a Riva that goes away, no database, a recognizer that breaks."""
    canaries = Canaries()
    shell = Shell(tmp_path)
    key = make_key(shell, canaries)
    found: list[str] = []
    async with receiver() as collector, riva_that_asks(canaries) as riva:
        env = canaries.settings() | {
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": style,
            "RIVA_ENDPOINTS": f"127.0.0.1:{riva.port}",
            "ASR_FAILOVER_TIMEOUT_MS": "100",
            "DRAIN_TIMEOUT_MS": "1000",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url.removesuffix("/hook"),
            "AUTH": "on",
            "PORT": "0",
            "GRPC_PORT": "0",
            "TLS": "off",
        }
        with started(shell, env, sys.executable, DRIVER, *words) as process:
            http, grpc_port = await ports_of(shell, process, r"listening on (\d+) and (\d+)")
            clients = Clients(
                http, grpc_port, canaries, key, f"https://user:{canaries.secret('an address')}@127.0.0.1/"
            )
            if not words:
                await clients.everything()
            await clients.call_riva({"x-api-key": key})
            assert "one two three" in clients.told[-1], "the credential and the key of Riva are good"
            (tmp_path / "state" / "break").touch()
            await clients.call_riva({"x-api-key": key})
            (tmp_path / "state" / "break").unlink()
            for place, data in processes_of(process):
                found += canaries.found_in(place, data)
            await riva.stop()
            await clients.call_riva({"x-api-key": key})
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
        assert "a defect that knows" in (tmp_path / "stderr").read_text(), "the recognizer broke"
        assert words or collector.requests, "traces came"
        found += [hit for place, data in sent(collector) for hit in canaries.found_in(place, data)]
    found += [hit for text in clients.told for hit in canaries.found_in("an answer", text)]
    return canaries, found + canaries.found_under(tmp_path)


async def test_no_secret_of_the_environment_leaves_a_gateway(tmp_path: Path) -> None:
    canaries, found = await _a_gateway_is_used(tmp_path)
    assert set(canaries.settings()) == set(ServerSettings.secret_keys())
    assert found == []


async def test_a_defect_is_told_without_the_values_of_variables(tmp_path: Path) -> None:
    _, found = await _a_gateway_is_used(tmp_path, "break", style="json")
    assert found == []


async def test_a_leak_is_found_where_there_is_one_and_only_in_the_log(tmp_path: Path) -> None:
    canaries, found = await _a_gateway_is_used(tmp_path, "leak")
    for key in canaries.settings():
        assert f"stderr: {key} (as it is)" in found
    # Even then it is told to the operator alone: what is unexpected goes into the log, and nowhere else.
    assert {hit.partition(":")[0] for hit in found} == {"stderr"}


async def test_no_secret_from_files_leaves_a_gateway_with_children(tmp_path: Path) -> None:
    """Most secrets in files, lines as JSON, and recognizer processes of its own."""
    canaries = Canaries()
    shell = Shell(tmp_path / "home")
    shell.home.mkdir()
    key = make_key(shell, canaries)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, value in canaries.settings().items():
        if name != "JOBS_DATABASE_URL":  # the file in the state directory is searched instead
            (secrets / name).write_text(f"{value}\n")
            (secrets / name).chmod(0o600)
    env = {"ASR_SECRETS_DIR": str(secrets), "LOG_LEVEL": "debug", "LOG_FORMAT": "json", "AUTH": "on"}
    env |= {"JOBS_WEBHOOK_PRIVATE": "on", "AWS_SECRET_ACCESS_KEY": canaries.secret("AWS_SECRET_ACCESS_KEY")}
    env["RIVA_API_KEY"] = (secrets / "RIVA_API_KEY").read_text().strip()
    serve = ("serve", "--engine", "local", "--no-tls", "--port", "0", "--grpc-port", "0")
    async with receiver() as hook:
        with started(shell, env, COMMAND, *serve) as process:
            http, grpc_port = await ports_of(shell, process, r"http://localhost:(\d+).*gRPC: localhost:(\d+)")
            clients = Clients(http, grpc_port, canaries, key, hook.url, "http://127.0.0.1:1/")
            clients.clip = sound.wav(clients.clip[44:32_044])
            await clients.everything()
            told = processes_of(process)
            assert len(told) > 2, "there are children"
            async with asyncio.timeout(20):
                while not hook.requests:
                    await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0
        told += sent(hook)
    found = [hit for place, data in told for hit in canaries.found_in(place, data)]
    found += [hit for text in clients.told for hit in canaries.found_in("an answer", text)]
    assert found + canaries.found_under(shell.home) == []
    for line in (shell.home / "stderr").read_text().splitlines():
        assert isinstance(json.loads(line), dict), line


async def test_what_wire_libraries_raise_holds_no_header() -> None:
    canaries = Canaries()
    secret = canaries.secret("a header")
    texts: list[str] = []
    engine = RivaEngine(RivaConfig(endpoint="127.0.0.1:1", metadata=(("authorization", f"Bearer {secret}"),)))
    with contextlib.suppress(ASRError):
        await engine.models()
    try:
        async for _ in engine.stream(_silence(), Options()):
            pass
    except ASRError as error:
        texts += traceback.format_exception(error)
    finally:
        await engine.aclose()
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as http:
        try:
            await http.post("http://127.0.0.1:1/hook", headers={"Authorization": f"Bearer {secret}"})
        except httpx2.HTTPError as error:
            texts += [*traceback.format_exception(error), repr(error), repr(error.request.headers)]
    assert len(texts) > 4
    assert canaries.found_in("an exception", "\n".join(texts)) == []


async def _silence() -> AsyncIterator[bytes]:
    yield bytes(3200)


@pytest.mark.parametrize("spelling", ["as it is", "hex", "base64, shifted by 1", "backwards"])
def test_a_secret_is_recognized_in_disguise(spelling: str) -> None:
    canaries = Canaries()
    value = canaries.secret("one")
    told = {
        "as it is": value,
        "hex": value.encode().hex().upper(),
        "base64, shifted by 1": base64.b64encode(b"x" + value.encode() + b"yz").decode(),
        "backwards": value[::-1],
    }[spelling]
    assert f"here: one ({spelling})" in canaries.found_in("here", f"…{told}…")
    assert canaries.found_in("here", "nothing of the kind") == []
