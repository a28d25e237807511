"""A stand-in for the gateway that says to the page exactly what a test wants it to.

It serves `static/` under the strict content security policy and plays a scripted conversation at `/v1/stream`;
for what a healthy gateway would not do on demand: errors, silence, a vanishing connection.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

STATIC = Path(__file__).parents[2] / "static"
POLICY = "default-src 'self'; connect-src 'self'; worker-src 'self'; object-src 'none'; base-uri 'none'"


class Talk:
    """One conversation, from the server's side."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.seq = 0
        self.heard_bytes = 0
        self.first: dict[str, Any] = {}
        self.start: dict[str, Any] = {}
        self.acked_seq = 0
        self.controls: asyncio.Queue[str] = asyncio.Queue()
        self.audio = bytearray()
        self.progress = asyncio.Event()

    async def say(self, kind: str, **fields: Any) -> None:
        self.seq += 1
        await self.connection.send(json.dumps({"type": kind, "seq": self.seq, **fields}))

    async def ready(self, **fields: Any) -> None:
        limits = {"max_frame_bytes": 65536, "idle_ms": 30000}
        said = {"session_id": "s1", "server": "scripted 1", "model": "scripted-en", "language": "en-US", "warnings": []}
        await self.say("ready", limits=limits, **{**said, **fields})

    async def partial(self, text: str, *, u: int = 0, revision: int = 1, end_ms: int = 300, stable: int = 0) -> None:
        await self.say(
            "partial",
            utterance_id=f"u{u}",
            revision=revision,
            channel=0,
            start_ms=100,
            end_ms=end_ms,
            text=text,
            stable_chars=stable,
        )

    async def final(self, text: str, *, u: int = 0, start_ms: int = 100, word_ms: int = 400, **fields: Any) -> None:
        words = [
            {
                "w": w,
                "start_ms": start_ms + i * word_ms,
                "end_ms": start_ms + i * word_ms + word_ms - 50,
                "confidence": 0.9,
                "speaker": None,
                "language": None,
            }
            for i, w in enumerate(text.split())
        ]
        said = {"reason": "endpoint", "language": "en-US", "confidence": 0.9, "words": words, **fields}
        end_ms = start_ms + len(words) * word_ms
        await self.say(
            "final", utterance_id=f"u{u}", revision=9, channel=0, start_ms=start_ms, end_ms=end_ms, text=text, **said
        )

    async def ack(self, processed_ms: int | None = None) -> None:
        ms = self.heard_bytes // 32
        processed = ms if processed_ms is None else processed_ms
        await self.say(
            "ack", received_bytes=self.heard_bytes, received_ms=ms, processed_ms=processed, buffered_ms=ms - processed
        )

    async def summary(self) -> None:
        await self.say("summary", audio_ms=self.heard_bytes // 32, utterances=1)

    async def heard(self, ms: int) -> None:
        """Wait until this much audio has come."""
        while self.heard_bytes < ms * 32:
            self.progress.clear()
            await asyncio.wait_for(self.progress.wait(), 20)

    async def asked(self) -> str:
        """The next control message's type."""
        return await asyncio.wait_for(self.controls.get(), 20)

    async def listen(self) -> None:
        try:
            async for message in self.connection:
                if isinstance(message, bytes):
                    self.heard_bytes += len(message)
                    self.audio += message
                else:
                    content = json.loads(message)
                    self.first = self.first or content
                    if content["type"] == "start":
                        self.start = content
                    if content["type"] == "ack":
                        self.acked_seq = content["seq"]
                    else:
                        self.controls.put_nowait(content["type"])
                self.progress.set()
        except ConnectionClosed:
            pass


Script = Callable[[Talk], Awaitable[None]]


class PageServer:
    """Where the page is, and the conversations held so far."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.talks: list[Talk] = []
        self.failures: list[BaseException] = []
        self.url = ""

    async def talk(self, connection: ServerConnection) -> None:
        talk = Talk(connection)
        self.talks.append(talk)
        listening = asyncio.create_task(talk.listen())
        try:
            assert await talk.asked() in ("start", "resume")
            await self.script(talk)
        except (AssertionError, TimeoutError) as error:
            self.failures.append(error)
            raise
        finally:
            await connection.close()
            await listening

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/v1/stream":
            return None
        if path == "/readyz":
            body = b'{"ready": true, "engine": "scripted", "detail": "", "version": "1"}'
            return _response(HTTPStatus.OK, "application/json", body)
        file = STATIC / (path.lstrip("/") or "index.html")
        if not file.is_file():
            return _response(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        return _response(HTTPStatus.OK, mimetypes.guess_type(file.name)[0] or "text/plain", file.read_bytes())


@asynccontextmanager
async def page_server(script: Script) -> AsyncIterator[PageServer]:
    """Serve the page on a port that the system picks, until the block ends."""
    server = PageServer(script)
    async with serve(
        server.talk,
        "127.0.0.1",
        0,
        process_request=server.answer,
        subprotocols=["asr.v1"],  # type: ignore[list-item]
        close_timeout=2,
        max_size=2**22,
    ) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        server.url = f"http://localhost:{port}/"
        yield server
    assert server.failures == []


def _response(status: HTTPStatus, kind: str, body: bytes) -> Response:
    headers = Headers()
    headers["Content-Type"] = kind
    headers["Content-Length"] = str(len(body))
    headers["Content-Security-Policy"] = POLICY
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)
