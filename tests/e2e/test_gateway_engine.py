"""The engine that is another gateway: against a scripted server for what may go wrong, then against a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as socket_module
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.http11 import Request, Response

import speech
from asr import wire
from asr.client import RivaASRClient
from asr.config import GatewayConfig
from asr.engine import AudioInput, EndUtterance, Features
from asr.engines.gateway import GatewayEngine
from asr.errors import ASRError, Code
from asr.events import Event, Final, Flushed, Partial, Progress
from asr.options import Diarization, Endpointing, Options, Phrase
from asr.session.address import connection_error
from server.certificates import local_certificate
from word_engine import WordEngine

from .gateway import running

PATIENCE_S = 10.0
CLIENT = Draft202012Validator({**wire.schema(), "anyOf": [{"$ref": "#/$defs/client_message"}]})
READY = {"type": "ready", "seq": 1, "session_id": "s", "limits": {"max_frame_bytes": 1000}, "warnings": ["left out"]}

Handler = Callable[[ServerConnection], Awaitable[None]]
Answer = Callable[[ServerConnection, Request], Response | None]


class Script:
    """The far side: says JSON, notes what it hears."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []
        self.frames: list[bytes] = []

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def until(self, kind: str) -> dict[str, Any]:
        """Listen until a message of this type comes."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self.socket.recv()
                if isinstance(message, bytes):
                    self.frames.append(message)
                    continue
                self.heard.append(json.loads(message))
                CLIENT.validate(self.heard[-1])
                if self.heard[-1]["type"] == kind:
                    return self.heard[-1]

    async def begin(self) -> None:
        await self.until("start")
        await self.socket.send(json.dumps(READY))

    async def end(self) -> None:
        audio_ms = sum(len(frame) for frame in self.frames) // 32
        await self.say(type="summary", audio_ms=audio_ms)
        await self.socket.close()


@asynccontextmanager
async def far(
    handler: Handler | None = None, answer: Answer | None = None, **more: Any
) -> AsyncIterator[GatewayEngine]:
    """An engine that speaks to a scripted gateway; every time limit is short."""

    async def no_stream(socket: ServerConnection) -> None:
        await socket.close()

    async with serve(handler or no_stream, "127.0.0.1", 0, process_request=answer, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        limits = {"connect_timeout_ms": 2000, "answer_timeout_ms": 2000, "http_timeout_ms": 2000, **more}
        engine = GatewayEngine(GatewayConfig(f"http://127.0.0.1:{port}", **limits))
        yield engine
        await engine.aclose()


async def collect(
    engine: GatewayEngine, audio: AsyncIterator[AudioInput], options: Options | None = None
) -> list[Event]:
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in engine.stream(audio, options or Options())]


async def cancelled(first: bytes) -> AsyncIterator[AudioInput]:
    """Audio that waits for a task which somebody cancels."""
    task = asyncio.create_task(asyncio.Event().wait())
    yield first
    task.cancel()
    await task


async def failure(engine: GatewayEngine, audio: AsyncIterator[AudioInput] | None = None) -> ASRError:
    with pytest.raises(ASRError) as caught:
        await collect(engine, audio or speech.chunks(bytes(3200)))
    return caught.value


def certificate_fault(words: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(words)
    error.verify_code, error.verify_message = 62, words
    return error


def stays(events: list[Any]) -> Handler:
    """A far side that says these messages, and then nothing more."""

    async def handler(socket: ServerConnection) -> None:
        script = Script(socket)
        await script.begin()
        for event in events:
            await script.say(**event)
        await socket.wait_closed()

    return handler


# --- what is said


async def test_a_stream_speaks_the_protocol() -> None:
    scripts: list[Script] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.subprotocol is None
        script = Script(socket)
        scripts.append(script)
        await script.begin()
        finalize = await script.until("finalize")
        await script.say(type="partial", utterance_id="u0", revision=1, text="one", start_ms=0, end_ms=50)
        await script.say(type="ack", received_bytes=1, received_ms=1, processed_ms=90, buffered_ms=0, safe_bytes=0)
        await script.say(type="ack", received_bytes=1, received_ms=1, processed_ms=90, buffered_ms=0, safe_bytes=0)
        await script.say(type="finalized", id=finalize["id"], audio_ms=100)
        await script.until("stop")
        await script.say(type="of_a_later_version", x=1)
        await script.say(
            type="final", utterance_id="u0", revision=2, text="one", start_ms=0, end_ms=50, reason="stop", later=1
        )
        await script.end()

    options = Options(
        language="en-US",
        model="m",
        partials=False,
        words=False,
        punctuate=True,
        verbatim=False,
        profanity_filter=True,
        diarization=Diarization(2),
        phrases=(Phrase("riva", 0.75),),
        endpointing=Endpointing(manual=True, silence_ms=300),
        upstream_options={"a": "b"},
        request_id="r-1",
        fail_on_unsupported=True,
    )
    async with far(handler) as engine:
        events = await collect(engine, speech.script(bytes(3200), EndUtterance(), bytes(3201)), options)
    assert [type(event) for event in events] == [Partial, Progress, Flushed, Final]
    (script,) = scripts
    assert script.heard == [
        {
            "type": "start",
            "audio": {"encoding": "pcm_s16le", "sample_rate_hz": 16000, "channels": 1},
            "language": "en-US",
            "model": "m",
            "interim": False,
            "words": False,
            "punctuate": True,
            "verbatim": False,
            "profanity_filter": True,
            "on_unsupported": "fail",
            "pace": "file",
            "diarization": {"max_speakers": 2},
            "phrases": [{"text": "riva", "boost": 0.75}],
            "endpointing": {"mode": "manual", "silence_ms": 300, "eager_ms": None},
            "upstream_options": {"a": "b"},
            "metadata": {"request_id": "r-1"},
        },
        {"type": "finalize", "id": "f1"},
        {"type": "stop"},
    ]
    assert b"".join(script.frames) == bytes(6401)
    assert max(len(frame) for frame in script.frames) == 1000, "the limit that `ready` named"


async def test_the_token_travels_in_a_header() -> None:
    seen: list[str | None] = []

    def answer(socket: ServerConnection, request: Request) -> Response | None:
        seen.append(request.headers.get("Authorization"))
        return socket.respond(HTTPStatus.OK, "{}") if request.path != "/v1/stream" else None

    async with far(stays([]), answer, token="secret", answer_timeout_ms=200) as engine:
        await engine.ready()
        await failure(engine)
        assert "secret" not in repr(engine._config)
    assert seen == ["Bearer secret"] * 2


# --- what goes wrong in a stream


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "not_found", "message": "No such model.", "fatal": True, "param": "model"}, Code.NOT_FOUND),
        (
            {"code": "overloaded", "message": "Full.", "retryable": True, "retry_after_ms": 5},
            Code.OVERLOADED,
        ),
        ({"code": "of_a_later_version", "message": "?", "fatal": True}, Code.INTERNAL),
    ],
)
@pytest.mark.parametrize("when", ["at the start", "later"])
async def test_errors_of_the_far_side_are_ours(error: dict[str, Any], code: Code, when: str) -> None:
    async def handler(socket: ServerConnection) -> None:
        script = Script(socket)
        await (script.until("start") if when == "at the start" else script.begin())
        await script.say(type="error", **error)
        await socket.close(4400)

    async with far(handler) as engine:
        got = await failure(engine)
    assert (got.code, got.message, got.param) == (code, error["message"], error.get("param"))
    assert (got.retryable, got.retry_after_ms) == (error.get("retryable", False), error.get("retry_after_ms"))


async def test_an_error_that_is_not_fatal_does_not_end_the_stream() -> None:
    async def handler(socket: ServerConnection) -> None:
        script = Script(socket)
        await script.begin()
        await script.say(type="error", code="bad_request", message="Odd.", fatal=False)
        await script.say(type="warning", code="audio", message="Odd too.", param=None)
        await script.until("stop")
        await script.end()

    async with far(handler) as engine:
        assert await collect(engine, speech.chunks(bytes(3200))) == []


@pytest.mark.parametrize(
    ("close", "code"),
    [
        (1000, Code.UNAVAILABLE),
        (1001, Code.UNAVAILABLE),
        (1011, Code.INTERNAL),
        (1013, Code.OVERLOADED),
        (4401, Code.UNAUTHORIZED),
        (4415, Code.BAD_AUDIO),
        (4503, Code.OVERLOADED),
        (4999, Code.UNAVAILABLE),
    ],
)
async def test_a_close_without_a_summary_is_a_failure(close: int, code: Code) -> None:
    async def handler(socket: ServerConnection) -> None:
        await Script(socket).begin()
        await socket.close(close)

    async with far(handler) as engine:
        got = await failure(engine)
    assert got.code is code
    assert str(close) in got.message


async def test_a_connection_that_breaks_is_a_failure() -> None:
    async def handler(socket: ServerConnection) -> None:
        await Script(socket).begin()
        socket.transport.abort()

    async with far(handler) as engine:
        assert (await failure(engine)).code is Code.UNAVAILABLE


async def test_a_summary_before_the_audio_was_heard_is_a_failure() -> None:
    async def handler(socket: ServerConnection) -> None:
        script = Script(socket)
        await script.begin()
        await script.until("stop")
        await script.say(type="summary", audio_ms=50)
        await script.say(type="error", code="too_large", message="The session is over.", fatal=True)
        await socket.close(4413)

    async with far(handler) as engine:
        assert (await failure(engine)).code is Code.TOO_LARGE


@pytest.mark.parametrize("text", ["not json", "[1]", '{"type": "final"}', '{"type": "ack"}'])
async def test_a_broken_message_is_a_failure(text: str) -> None:
    async def handler(socket: ServerConnection) -> None:
        await Script(socket).begin()
        await socket.send(text)
        await socket.wait_closed()

    async with far(handler) as engine:
        assert (await failure(engine)).code is Code.INTERNAL


async def test_what_comes_before_ready_is_skipped() -> None:
    async def handler(socket: ServerConnection) -> None:
        script = Script(socket)
        await script.until("start")
        await script.say(type="status", state="draining", seq=1)
        await script.say(type="warning", code="audio", message="Odd.", param=None)
        await script.say(type="ready", seq=2, session_id="s", limits=None, warnings=None)
        await script.until("stop")
        await script.end()

    async with far(handler) as engine:
        assert await collect(engine, speech.chunks(bytes(3200))) == []


async def test_ready_is_not_awaited_longer_because_something_else_comes() -> None:
    async def handler(socket: ServerConnection) -> None:
        script = Script(socket)
        try:
            while True:
                await script.say(type="status", state="loading")
                await asyncio.sleep(0.02)
        except ConnectionClosed:
            return

    async with far(handler, connect_timeout_ms=150) as engine:
        got = await failure(engine)
    assert got.code is Code.TIMEOUT
    assert "`start`" in got.message


async def test_every_silence_has_an_end() -> None:
    async def mute(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async def only_acks(socket: ServerConnection) -> None:
        script = Script(socket)
        await script.begin()
        ack = {"received_bytes": 1, "received_ms": 1, "processed_ms": 5, "buffered_ms": 0, "safe_bytes": 0}
        try:
            while True:
                await script.say(type="ack", **ack)
                await asyncio.sleep(0.02)
        except ConnectionClosed:
            return

    async with far(mute, connect_timeout_ms=150) as engine:
        assert (await failure(engine)).code is Code.TIMEOUT
    async with far(stays([]), answer_timeout_ms=150) as engine:
        assert (await failure(engine)).code is Code.TIMEOUT
    async with far(only_acks, answer_timeout_ms=150) as engine:
        assert "no progress" in (await failure(engine)).message


async def test_what_the_audio_raises_comes_through_and_the_far_side_is_let_go() -> None:
    gone = asyncio.Event()

    async def handler(socket: ServerConnection) -> None:
        await Script(socket).begin()
        await socket.wait_closed()
        gone.set()

    async def broken() -> AsyncIterator[AudioInput]:
        yield bytes(320)
        raise LookupError("the microphone is gone")

    async with far(handler) as engine:
        with pytest.raises(LookupError, match="microphone"):
            await collect(engine, broken())
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()


async def test_audio_that_is_cancelled_from_inside_is_a_failure() -> None:
    async with far(stays([]), answer_timeout_ms=9000) as engine:
        got = await failure(engine, cancelled(bytes(320)))
    assert (got.code, got.message) == (Code.INTERNAL, "The audio was cancelled in mid-stream.")


async def test_audio_from_a_connection_that_closes_is_not_taken_for_ours() -> None:
    async def broken() -> AsyncIterator[AudioInput]:
        yield bytes(320)
        raise ConnectionClosedError(None, None)

    async with far(stays([]), answer_timeout_ms=9000) as engine:
        with pytest.raises(ConnectionClosedError):
            await collect(engine, broken())


async def hold(script: Script, seconds: float, received_bytes_each: int) -> None:
    """Say acks but read nothing."""
    script.socket.transport.pause_reading()
    for number in range(int(seconds / 0.02)):
        received_bytes = number * received_bytes_each
        ack = {"received_ms": 0, "processed_ms": 0, "buffered_ms": 0, "safe_bytes": 0}
        await script.say(type="ack", received_bytes=received_bytes, **ack)
        await asyncio.sleep(0.02)


async def loud() -> AsyncIterator[AudioInput]:
    for _ in range(250):
        yield bytes(65_536)


async def test_a_far_side_that_works_but_reads_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.session.dial.PING_INTERVAL_S", 0.05)

    async def handler(socket: ServerConnection) -> None:
        script = Script(socket)
        await script.until("start")
        await script.say(**{**READY, "limits": {"max_frame_bytes": 65_536}})
        await hold(script, 1, 1)  # all that time a frame waits to be sent
        socket.transport.resume_reading()
        for number in range(100, 200):  # now some go out, but a ping arrives seconds late
            await socket.recv()
            script.frames.append(bytes(65_536))
            await script.say(type="ack", received_bytes=number, processed_ms=0)
            await asyncio.sleep(0.02)
        await script.until("stop")
        await script.end()

    async with far(handler, answer_timeout_ms=600) as engine:
        assert await collect(engine, loud()) == [Progress(0)]


async def test_a_far_side_that_only_says_acks_and_takes_no_audio_is_given_up() -> None:
    async def handler(socket: ServerConnection) -> None:
        script = Script(socket)
        await script.until("start")
        await script.say(**{**READY, "limits": {"max_frame_bytes": 65_536}})
        with contextlib.suppress(ConnectionClosed):
            await hold(script, 6, 0)
        socket.transport.abort()

    async with far(handler, answer_timeout_ms=300) as engine:
        got = await failure(engine, loud())
    assert got.code is Code.TIMEOUT
    assert "took no audio" in got.message


async def test_leaving_early_lets_the_far_side_go() -> None:
    gone = asyncio.Event()
    partial = {"type": "partial", "utterance_id": "u0", "revision": 1, "text": "a", "start_ms": 0, "end_ms": 5}

    async def handler(socket: ServerConnection) -> None:
        await stays([partial])(socket)
        gone.set()

    async def endless() -> AsyncIterator[AudioInput]:
        while True:
            yield bytes(320)
            await asyncio.sleep(0.01)

    tasks = asyncio.all_tasks()
    async with far(handler) as engine:
        events = engine.stream(endless(), Options())
        assert isinstance(await anext(events), Partial)
        await events.aclose()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()
    assert asyncio.all_tasks() == tasks


async def test_leaving_does_not_wait_for_audio_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.engines.gateway.LET_GO_S", 0.1)
    partial = {"type": "partial", "utterance_id": "u0", "revision": 1, "text": "a", "start_ms": 0, "end_ms": 5}
    released = asyncio.Event()

    async def stubborn() -> AsyncIterator[AudioInput]:
        yield bytes(320)
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    tasks = asyncio.all_tasks()
    async with far(stays([partial])) as engine:
        events = engine.stream(stubborn(), Options())
        assert isinstance(await anext(events), Partial)
        async with asyncio.timeout(PATIENCE_S):
            await events.aclose()
        released.set()
    async with asyncio.timeout(PATIENCE_S):
        while asyncio.all_tasks() - tasks:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "error",
    [
        OSError(113, "Connect call failed ('10.0.0.5', 8443)"),
        OSError("Multiple exceptions: [Errno 111] Connect call failed ('10.0.0.5', 8443)"),
        socket_module.gaierror(-2, "gw.internal: Name or service not known"),
        certificate_fault("Hostname mismatch, certificate is not valid for 'gw.internal'."),
    ],
)
def test_no_failure_to_connect_tells_an_address(error: OSError) -> None:
    message = connection_error(error).message
    assert not any(secret in message for secret in ("10.0.0.5", "8443", "gw.internal"))
    assert message.endswith(".")


async def test_closing_the_engine_ends_its_streams() -> None:
    async with far(stays([]), answer_timeout_ms=9000) as engine:
        task = asyncio.create_task(failure(engine))
        async with asyncio.timeout(PATIENCE_S):
            while not engine._open:
                await asyncio.sleep(0.01)
        await engine.aclose()
        assert (await task).code is Code.UNAVAILABLE
        assert (await failure(engine)).code is Code.UNAVAILABLE


async def test_an_engine_that_is_closed_while_it_connects_begins_no_stream() -> None:
    closing: list[asyncio.Task[None]] = []

    def answer(socket: ServerConnection, request: Request) -> None:
        closing.append(asyncio.create_task(engine.aclose()))

    async with far(stays([]), answer) as engine:
        got = await failure(engine)
    assert (got.code, got.message) == (Code.UNAVAILABLE, "The engine is closed.")
    assert closing[0].done()


async def test_audio_is_pulled_only_as_fast_as_the_far_side_reads() -> None:
    async def handler(socket: ServerConnection) -> None:
        await Script(socket).begin()
        await socket.wait_closed()  # without reading

    pulled = 0

    async def plenty() -> AsyncIterator[AudioInput]:
        nonlocal pulled
        for _ in range(2000):
            pulled += 65_536
            yield bytes(65_536)

    async with far(handler, answer_timeout_ms=9000) as engine:
        task = asyncio.create_task(failure(engine, plenty()))
        before = -1
        async with asyncio.timeout(PATIENCE_S):
            while before != pulled or not pulled:
                before = pulled
                await asyncio.sleep(0.25)
        assert pulled < 32 << 20, "of 125 MiB; what is pulled lies in the sockets' buffers"
        await engine.aclose()
        await task


# --- before a stream


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, Code.UNAUTHORIZED),
        (403, Code.FORBIDDEN),
        (404, Code.NOT_FOUND),
        (429, Code.RATE_LIMITED),
        (503, Code.OVERLOADED),
        (500, Code.UNAVAILABLE),
        (301, Code.BAD_REQUEST),
    ],
)
async def test_refusals_before_the_upgrade(status: int, code: Code) -> None:
    def answer(socket: ServerConnection, request: Request) -> Response:
        response = socket.respond(HTTPStatus(status), "no")
        response.headers["Retry-After"] = "7"
        if status == 301:
            response.headers["Location"] = "/elsewhere"
        return response

    async with far(answer=answer) as engine:
        got = await failure(engine)
        assert (got.code, got.retry_after_ms) == (code, 7000)
        with pytest.raises(ASRError) as caught:
            await engine.models()
        assert caught.value.code is code
        assert (await engine.ready()).ready is False


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('{"object":"list","data":[{"id":"m","languages":["en-US"],"streaming":false},{"id":7},3]}', ["m"]),
        ('{"data":[]}', []),
        ("[]", None),
        ("not json", None),
    ],
)
async def test_models(body: str, names: list[str] | None) -> None:
    async with far(answer=lambda socket, request: socket.respond(HTTPStatus.OK, body)) as engine:
        if names is None:
            with pytest.raises(ASRError, match="riva-gateway"):
                await engine.models()
        else:
            models = await engine.models()
            assert [model.name for model in models] == names
            assert all(not model.streaming and model.languages == ("en-US",) for model in models)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error":{"message":"It is\\ndown."}}', "The gateway refuses the request: It is down."),
        ('{"error":{"message":7}}', "The gateway is full or not ready."),
        ('{"error":"down"}', "The gateway is full or not ready."),
        ("[]", "The gateway is full or not ready."),
        ("<h1>503</h1>", "The gateway is full or not ready."),
    ],
)
async def test_why_there_are_no_models_is_passed_on(body: str, message: str) -> None:
    def answer(socket: ServerConnection, request: Request) -> Response:
        response = socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, body)
        response.headers["Retry-After"] = "3"
        return response

    async with far(answer=answer) as engine:
        with pytest.raises(ASRError) as caught:
            await engine.models()
    assert (caught.value.message, caught.value.retry_after_ms) == (message, 3000)


async def test_readiness_is_passed_on() -> None:
    def answer(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, '{"ready":false,"engine":"riva","detail":"Loading."}')

    async with far(answer=answer) as engine:
        readiness = await engine.ready()
    assert (readiness.ready, readiness.detail) == (False, "Loading.")


async def test_an_answer_without_end_is_not_read() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()
        except OSError:
            writer.close()

    async with await asyncio.start_server(flood, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        engine = GatewayEngine(GatewayConfig(f"http://127.0.0.1:{port}", http_timeout_ms=5000))
        with pytest.raises(ASRError, match="4 MiB"):
            await engine.models()


async def test_nobody_there_and_somebody_who_says_nothing() -> None:
    held: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        engine = GatewayEngine(GatewayConfig(url, connect_timeout_ms=200, http_timeout_ms=200))
        assert (await failure(engine)).code is Code.TIMEOUT
        assert "in time" in (await engine.ready()).detail
        for writer in held:
            writer.close()
    engine = GatewayEngine(GatewayConfig(url))
    assert (await failure(engine)).message.startswith("No gateway listens there")
    assert (await engine.ready()).detail.startswith("No gateway listens there")


@pytest.mark.parametrize("url", ["riva:50051", "ftp://h", "https://", "https://u:p@h", "https://h:x", "https://h?a=b"])
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(ASRError, match="https://host:8443"):
        GatewayEngine(GatewayConfig(url))


def test_a_token_is_never_sent_in_the_clear_and_a_certificate_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ASRError, match="unencrypted"):
        GatewayEngine(GatewayConfig("http://gateway.example", token="secret"))
    (tmp_path / "cert.pem").write_text("no certificate")
    for name in ("cert.pem", "none.pem"):
        with pytest.raises(ASRError, match="not a readable PEM"):
            GatewayEngine(GatewayConfig("https://gateway.example", ca_cert=tmp_path / name))


# --- a real gateway


@pytest.mark.parametrize("tls", [True, False])
async def test_a_real_gateway_says_what_its_engine_says(tls: bool, tmp_path: Path) -> None:
    far_engine = WordEngine()
    audio = [bytes(32 * 700), EndUtterance(), bytes(32 * 1301)]
    direct = [event async for event in WordEngine().stream(speech.script(*audio), Options())]
    async with running(far_engine, tmp_path, tls=tls) as addresses:
        config = GatewayConfig(addresses.url, ca_cert=local_certificate(tmp_path).cert if tls else None)
        engine = GatewayEngine(config)
        assert (await engine.ready()).ready
        assert [model.name for model in await engine.models()] == ["words-en", "words-de"]
        events = await collect(engine, speech.script(*audio))
        await engine.aclose()

    def told(all_events: list[Event]) -> list[Event]:
        return [event for event in all_events if not isinstance(event, Progress)]

    assert told(events) == told(direct)
    assert (far_engine.heard_bytes, far_engine.open_streams) == (b"".join(a for a in audio if isinstance(a, bytes)), 0)


@pytest.mark.parametrize(("fault", "code"), [("refuses", Code.OVERLOADED), ("unavailable@300", Code.UNAVAILABLE)])
async def test_failures_behind_a_real_gateway(fault: str, code: Code, tmp_path: Path) -> None:
    async with running(WordEngine(fault), tmp_path) as addresses, RivaASRClient(addresses.url) as client:
        with pytest.raises(ASRError) as caught:
            async for _ in client.stream_transcribe(speech.chunks(bytes(32 * 1000))):
                pass
        assert caught.value.code is code
        with pytest.raises(ASRError, match="en-US"):
            await client.transcribe_file(speech.path("greeting.wav"), language="fr")


async def test_a_gateway_that_goes_down_in_mid_stream_and_stays_away_is_a_failure(tmp_path: Path) -> None:
    heard = asyncio.Event()
    going = asyncio.Event()

    async def live() -> AsyncIterator[bytes]:
        while True:
            yield bytes(3200)
            await asyncio.sleep(0.01)
            if heard.is_set() and not going.is_set():
                going.set()

    async def listen(url: str) -> ASRError:
        try:
            async for _ in RivaASRClient(GatewayConfig(url, resume_window_ms=500)).stream_transcribe(live()):
                heard.set()
        except ASRError as error:
            return error
        raise AssertionError("the stream ended as if all had been heard")

    async with running(WordEngine(), tmp_path) as addresses:
        task = asyncio.create_task(listen(addresses.url))
        async with asyncio.timeout(PATIENCE_S):
            await going.wait()
    assert (await task).code is Code.UNAVAILABLE


async def test_an_untrusted_certificate_is_explained(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, tls=True) as addresses:
        async with RivaASRClient(addresses.url) as client:
            for _ in range(2):
                with pytest.raises(ASRError, match=r"not trusted.*ca_cert=.*insecure=True") as caught:
                    await client.models()
                assert caught.value.retryable is False
            assert "not trusted" in (await client.health()).detail
        async with RivaASRClient(addresses.url, insecure=True) as client:
            assert (await client.transcribe_file(speech.path("greeting.wav"))).text
        async with RivaASRClient(f"http://localhost:{addresses.port}") as client:
            assert "https://" in (await client.health()).detail
    async with running(WordEngine(), tmp_path) as addresses:
        engine = GatewayEngine(GatewayConfig(f"https://localhost:{addresses.port}"))
        assert "http://" in (await failure(engine)).message


def test_features_are_what_the_protocol_can_ask_for() -> None:
    features = GatewayEngine(GatewayConfig("https://h")).features
    assert features == Features(
        punctuation=True,
        verbatim=True,
        profanity_filter=True,
        diarization=True,
        phrases=True,
        endpointing=True,
        eager_end=True,
        upstream_options=True,
    )
