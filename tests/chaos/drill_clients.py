"""Clients of every face who keep books: whether they were let in, how it ended, how long a refusal took.

What they write down comes from what they see alone: a handshake, a status, a close, words.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import httpx2
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import sound
from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from chaos.clients import Record, Script, native, now
from chaos.drill_books import Books
from chaos.numbered import FRAME_BYTES, frame
from chaos.other_clients import end_dialect, riva_grpc
from chaos.proxy import Proxy
from chaos.resume_rows import resuming

PATIENCE_S = 30.0
BY_SERVER = frozenset({"unavailable", "internal", "timeout", "overloaded", "storage_full", "UNAVAILABLE", "INTERNAL"})
"""What a client is told when it is not to blame; it need not know the gateway's own list."""
WORD = re.compile(r"\bf\d{5,}")
WHOLE_FRAME = {"min_chunk": FRAME_BYTES, "max_chunk": FRAME_BYTES}


@dataclass(slots=True)
class Ledger:
    """What clients lived through.

    Attributes:
        books: to be compared.
        refusal_ms: how long each refusal took.
        wrong: what should not have happened to anybody, in words.
    """

    books: Books = field(default_factory=Books)
    refusal_ms: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def over(self, face: str, outcome: str, words: int = 0) -> None:
        """A stream was let in, and is over."""
        self.books.admitted[face] += 1
        self.books.closed[face, outcome] += 1
        if outcome == "ok":
            self.books.words[face] += words

    def refused(self, door: str, status: int, took_s: float, retry: object) -> None:
        """Somebody was not let in."""
        self.books.refused[door, status] += 1
        self.refusal_ms.append(took_s * 1000)
        if status in (429, 503, 507) and not retry:
            self.wrong.append(f"{door}: {status} without a time to come again")

    def recorded(self, face: str, record: Record) -> None:
        """One client's record."""
        if record.hung:
            self.wrong.append(f"{face}: client {record.script.client} hangs")
        elif record.http_status:
            self.refused(face, record.http_status, record.ended_at - record.begun_at, record.retry_after)
        elif record.whole:
            finals = (heard.text for heard in record.heard())
            self.over(face, "ok", sum(len(text.split()) for text in finals))
        elif record.errors:
            self.over(face, "server_error" if record.errors[-1]["code"] in BY_SERVER else "client_error")
        else:
            self.wrong.append(f"{face}: ended with {record.close_code} and no word: {record.messages[-1:]}")


@dataclass(slots=True)
class House:
    """A gateway, as its clients know it."""

    port: int
    grpc_port: int
    ledger: Ledger = field(default_factory=Ledger)

    # --- who stays to the end

    async def native(self, script: Script, **start: Any) -> Record:
        """A session of asr.v1."""
        record = await native(self.port, script, patience_s=PATIENCE_S, start=start)
        self.ledger.recorded("native", record)
        return record

    async def resumed(self, script: Script, cuts: int) -> None:
        """A session of `asr.connect` whose connection is reset so many times."""
        async with Proxy(self.port) as proxy:
            talking = asyncio.create_task(resuming(proxy.port, script, patience_s=PATIENCE_S))
            for _ in range(cuts):
                await asyncio.sleep(0.9)
                proxy.reset()
            record = await talking
        self.ledger.recorded("native", record)
        self.ledger.books.resumes += int(record.status or 0)
        if int(record.status or 0) != cuts or not record.verdict().faultless:
            self.ledger.wrong.append(f"resumed {record.status} times for {cuts} cuts: {record.verdict()}")

    async def end(self, script: Script) -> None:
        """The plain dialect."""
        self.ledger.recorded("end", await end_dialect(self.port, script, patience_s=PATIENCE_S))

    async def riva(self, script: Script) -> None:
        """A `StreamingRecognize` call that is let in."""
        self.ledger.recorded("riva_grpc", await riva_grpc(self.grpc_port, script, patience_s=PATIENCE_S))

    async def nim(self, script: Script) -> None:
        """A NIM's realtime."""
        words = 0
        async with self._socket("/v1/realtime?dialect=nim") as socket:
            await socket.recv()
            update = {"input_audio_format": "pcm16", "recognition_config": {}}
            await socket.send(orjson.dumps({"type": "transcription_session.update", "session": update}).decode())
            async for chunk in script.chunks():
                await socket.send(_append(chunk))
            await socket.send('{"type":"input_audio_buffer.done"}')
            last = False
            while not last:
                message = orjson.loads(await socket.recv())
                if message["type"].endswith("transcription.completed"):
                    words += len(message["transcript"].split())
                    last = message["is_last_result"]
        self.ledger.over("realtime nim", "ok", words)

    async def openai_realtime(self, script: Script, dialect: str) -> None:
        """OpenAI's realtime: one item, then it hangs up."""
        words = 0
        async with self._socket(f"/v1/realtime?dialect={dialect}") as socket:
            await socket.recv()
            if dialect == "openai":
                audio = {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": None, "transcription": {}}
                session = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio}}}
                await socket.send(orjson.dumps(session).decode())
            async for chunk in script.chunks():
                await socket.send(_append(chunk))
            await socket.send('{"type":"input_audio_buffer.commit"}')
            while True:
                message = orjson.loads(await socket.recv())
                if message["type"].endswith("transcription.completed"):
                    words = len(message["transcript"].split())
                    break
        self.ledger.over(f"realtime {dialect}", "ok", words)

    async def sagemaker_socket(self, script: Script) -> None:
        """SageMaker's bidirectional stream, in Deepgram's words."""
        words = 0
        async with self._socket("/invocations-bidirectional-stream/v1/listen?encoding=linear16&sample_rate=16000") as w:
            async for chunk in script.chunks():
                await w.send(chunk)
            await w.send('{"type":"CloseStream"}')
            with contextlib.suppress(ConnectionClosed):
                while True:
                    message = orjson.loads(await w.recv())
                    if message.get("is_final"):
                        words += len(message["channel"]["alternatives"][0]["transcript"].split())
        self.ledger.over("sagemaker", "ok", words)

    async def recognize(self, client: int) -> None:
        """A recording over gRPC."""
        config = pb.RecognitionConfig(encoding=1, sample_rate_hertz=16_000, language_code="en-US")
        async with self._channel() as stub:
            request = pb.RecognizeRequest(config=config, audio=recorded(client))
            answer = await stub.Recognize(request, timeout=PATIENCE_S)
        self.ledger.over("riva_grpc", "ok", sum(len(r.alternatives[0].transcript.split()) for r in answer.results))

    async def post(self, face: str, path: str, client: int, *, audio: bytes | None = None, **fields: str) -> None:
        """A recording over HTTP: one that is none where `audio` says so."""
        form = {"file": ("a.wav", sound.wav(recorded(client)) if audio is None else audio, "audio/wav")}
        async with self._http() as http:
            begun = now()
            answer = await http.post(path, files=form, data=fields)
        if answer.status_code == 200:
            # Each answer has the words in several shapes; a number is said once.
            self.ledger.over(face, "ok", len(set(WORD.findall(answer.text))))
        elif answer.status_code in (429, 503):
            self.ledger.refused(face, answer.status_code, now() - begun, answer.headers.get("Retry-After"))
        else:
            self.ledger.over(face, "client_error" if answer.status_code < 500 else "server_error")

    async def job(self, client: int) -> None:
        """A recording as a job."""
        async with self._http() as http:
            async with asyncio.timeout(PATIENCE_S):
                form = {"file": ("a.wav", sound.wav(recorded(client)))}
                while (made := await http.post("/transcribe/async", files=form)).status_code == 503:
                    await asyncio.sleep(0.5)  # its database is being opened
                number = made.json()["job_id"]
                while (await http.get(f"/jobs/{number}/status")).json()["status"] != "completed":
                    await asyncio.sleep(0.2)
        self.ledger.over("job", "ok", FRAMES)

    # --- who goes away, or sends what cannot be meant

    async def tears_off(self, face: str, path: str, client: int) -> None:
        """A live stream whose client is gone after its first words: no close, a reset."""
        async with self._socket(path) as socket:
            is_realtime = "realtime" in path
            if is_realtime:
                await socket.recv()
            if face == "native":
                await socket.send('{"type":"start","resume_window_ms":0}')
            for n in range(4):
                audio = frame(client * 1_000 + n)
                await socket.send(_append(audio) if is_realtime else audio)
            async with asyncio.timeout(PATIENCE_S):
                while b"f" + str(client).encode() not in await socket.recv(decode=False):
                    pass
            socket.transport.abort()
        self.ledger.over(face, "gone")

    async def cancels(self, client: int) -> None:
        """A gRPC call that its client gives up after its first words."""
        async with self._channel() as stub:
            call = stub.StreamingRecognize(timeout=PATIENCE_S)
            config = pb.StreamingRecognitionConfig(interim_results=True)
            config.config.encoding, config.config.sample_rate_hertz = 1, 16_000
            await call.write(pb.StreamingRecognizeRequest(streaming_config=config))
            for n in range(4):
                await call.write(pb.StreamingRecognizeRequest(audio_content=frame(client * 1_000 + n)))
            await call.read()
            call.cancel()
        self.ledger.over("riva_grpc", "gone")

    async def stops_sending(self, face: str, path: str) -> None:
        """An upload that its client gives up in the middle."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Length: 900000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        )
        writer.write(head.encode() + bytes(200_000))
        await writer.drain()
        await asyncio.sleep(0.5)  # it has been let in by then, and waits for the rest
        writer.transport.abort()
        self.ledger.over(face, "gone")

    async def says_nonsense(self) -> None:
        """A session of asr.v1 that begins with what nobody understands."""
        async with self._socket("/v1/stream") as socket:
            await socket.send('{"type":"start","language":7}')
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await socket.recv()
        self.ledger.over("native", "client_error")

    async def begins_wrongly(self) -> None:
        """A gRPC call whose first message is sound."""
        async with self._channel() as stub:
            call = stub.StreamingRecognize(timeout=PATIENCE_S)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.write(pb.StreamingRecognizeRequest(audio_content=frame(1)))
                await call.read()
        self.ledger.over("riva_grpc", "client_error")

    # --- who comes when there is no place

    async def knocks_everywhere(self, page_code: int) -> None:
        """One caller at each door, when all are to be refused; a page with that close code."""
        sockets = {
            "native": "/v1/stream", "end": "/ws", "realtime": "/v1/realtime?dialect=nim",
            "sagemaker": "/invocations-bidirectional-stream",
        }  # fmt: skip
        posts = {"openai": "/v1/audio/transcriptions", "rest": "/transcribe", "sagemaker": "/invocations"}
        await asyncio.gather(
            *(self._knock(door, path) for door, path in sockets.items()),
            self._knock_as_page(page_code),
            self._knock_by_grpc(),
            *(self.post(door, path, 1) for door, path in posts.items()),
        )

    async def _knock(self, door: str, path: str) -> None:
        begun = now()
        try:
            async with self._socket(path):
                self.ledger.wrong.append(f"{door}: let in")
        except InvalidStatus as refused:
            response = refused.response
            self.ledger.refused(door, response.status_code, now() - begun, response.headers.get("Retry-After"))

    async def _knock_as_page(self, code: int) -> None:
        begun = now()
        async with self._socket("/v1/stream", Origin=f"http://127.0.0.1:{self.port}") as socket:
            told = orjson.loads(await socket.recv())
            self.ledger.refused("native", 503, now() - begun, told.get("retry_after_ms"))
            with contextlib.suppress(ConnectionClosed):
                await socket.recv()
            if socket.close_code != code:
                self.ledger.wrong.append(f"a page: {socket.close_code} {told}")

    async def _knock_by_grpc(self) -> None:
        config = pb.StreamingRecognizeRequest(streaming_config=pb.StreamingRecognitionConfig())

        def call() -> tuple[grpc.RpcError | None, float]:  # in a thread: grpc.aio would put its own status there
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options) as channel:
                grpc.channel_ready_future(channel).result(timeout=10)
                begun = time.monotonic()
                try:
                    next(asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(iter([config]), timeout=10))
                except grpc.RpcError as error:
                    return error, time.monotonic() - begun
            return None, 0.0

        error: Any
        error, took_s = await asyncio.to_thread(call)
        if error is None or error.code() is not grpc.StatusCode.UNAVAILABLE:
            self.ledger.wrong.append(f"gRPC: {error!r}")
            return
        self.ledger.refused("riva_grpc", 503, took_s, dict(error.trailing_metadata()).get("retry-after"))

    # --- how they connect

    def _socket(self, path: str, **headers: str) -> connect:
        return connect(
            f"ws://127.0.0.1:{self.port}{path}", proxy=None, compression=None, close_timeout=5, open_timeout=20,
            additional_headers=headers,
        )  # fmt: skip

    def _http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=PATIENCE_S, verify=False
        )

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[Any]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}", options) as channel:
            yield asr_grpc.RivaSpeechRecognitionStub(channel)


FRAMES = 10
"""Of a recording: each is a word."""


def recorded(client: int, frames: int = FRAMES) -> bytes:
    """Numbered frames, one after the other."""
    return b"".join(frame(client * 1_000 + n) for n in range(frames))


def _append(audio: bytes) -> str:
    return orjson.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}).decode()
