"""A raw HTTP/2 server whose every frame is its own decision: what a gRPC library would never let a server do.

It answers the question for models properly, so that a gateway believes in it, unless the fault is in the
connection itself; what it does to a stream of audio is its `mode`.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, get_args

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from asr.riva_proto import asr as pb

Mode = Literal[
    "accept_silent",
    "http1",
    "garbage",
    "http502",
    "goaway_unprocessed",
    "goaway_mid",
    "too_many_pings",
    "refused_stream",
    "rst_start",
    "rst_mid",
    "midfin",
    "no_trailers",
    "window_zero",
    "frame_4gib",
    "bad_proto",
    "freeze",
    "only_pings",
]
MODES: tuple[Mode, ...] = get_args(Mode)

_DUMB: dict[str, bytes] = {
    "http1": b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    "garbage": bytes(range(1, 256)) * 8,
}
_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
_OK = [("grpc-status", "0")]
_HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
_MIDDLE: frozenset[Mode] = frozenset({"goaway_mid", "rst_mid", "midfin", "no_trailers", "freeze", "only_pings"})
"""These begin when `after_bytes` of audio have come."""


@dataclass(eq=False)
class _Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    h2: H2Connection
    paths: dict[int, str] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    struck: set[int] = field(default_factory=set)
    frozen: bool = False


class H2Peer:
    """Listens on a free port.

    Attributes:
        mode: the misbehaviour; may be exchanged at any time.
        after_bytes: how much audio a stream brings before the faults in mid-stream begin.
        port: where it listens.
        streams: streams of audio that were opened here.
        pings: pings received.
        struck: streams that met the fault.
    """

    def __init__(self, mode: Mode, *, after_bytes: int = 16_000) -> None:
        self.mode: Mode = mode
        self.after_bytes = after_bytes
        self.port = 0
        self.streams = 0
        self.connections = 0
        self.pings = 0
        self.struck = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=2)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._tasks.add(me)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, ProtocolError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()
            self._tasks.discard(me)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "accept_silent":
            while await reader.read(65_536):
                pass
            return
        if self.mode in _DUMB:
            await reader.read(65_536)
            writer.write(_DUMB[self.mode])
            await writer.drain()
            return
        peer = _Peer(reader, writer, H2Connection(H2Configuration(client_side=False, header_encoding="utf-8")))
        if self.mode == "window_zero":
            peer.h2.local_settings = Settings(client=False, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: 0})
        peer.h2.initiate_connection()
        await self._flush(peer)
        while data := await reader.read(65_536):
            if peer.frozen:
                continue
            for event in peer.h2.receive_data(data):
                if not self._on(peer, event):
                    await self._flush(peer)
                    return
            await self._flush(peer)

    async def _flush(self, peer: _Peer) -> None:
        out = peer.h2.data_to_send()
        if out and not peer.frozen:
            peer.writer.write(out)
            await peer.writer.drain()

    def _on(self, peer: _Peer, event: Event) -> bool:
        """React; False ends the connection."""
        h2 = peer.h2
        match event:
            case RequestReceived():
                return self._request(peer, event)
            case PingReceived():
                self.pings += 1
            case StreamReset() | ConnectionTerminated():
                return not isinstance(event, ConnectionTerminated)
            case StreamEnded() if event.stream_id is not None:
                if peer.paths.get(event.stream_id, "").endswith("GetRivaSpeechRecognitionConfig"):
                    self._list_models(peer, event.stream_id)
            case DataReceived() if event.stream_id is not None:
                if self.mode != "window_zero":
                    size = event.flow_controlled_length or 0
                    with contextlib.suppress(ProtocolError):
                        h2.acknowledge_received_data(size, event.stream_id)
                stream = event.stream_id
                peer.received[stream] = peer.received.get(stream, 0) + len(event.data or b"")
                due = peer.received[stream] >= self.after_bytes
                if self.mode in _MIDDLE and due and stream not in peer.struck and self._is_audio(peer, stream):
                    peer.struck.add(stream)
                    self.struck += 1
                    return self._strike(peer, stream)
        return True

    def _request(self, peer: _Peer, event: RequestReceived) -> bool:
        stream, h2 = event.stream_id, peer.h2
        assert stream is not None
        path = {str(name): str(value) for name, value in event.headers or ()}.get(":path", "")
        peer.paths[stream] = path
        if self.mode == "http502":
            h2.send_headers(stream, [(":status", "502"), ("content-type", "text/html")])
            h2.send_data(stream, _HTML, end_stream=True)
            return True
        if not self._is_audio(peer, stream):
            return True
        self.streams += 1
        match self.mode:
            case "goaway_unprocessed":
                h2.close_connection(ErrorCodes.NO_ERROR, last_stream_id=max(stream - 2, 0))
            case "too_many_pings":
                h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings", last_stream_id=stream)
            case "refused_stream":
                h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            case "rst_start":
                h2.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
            case "frame_4gib":
                h2.send_headers(stream, _HEADERS)
                h2.send_data(stream, b"\x00\xff\xff\xff\xff" + bytes(64))
            case "bad_proto":
                h2.send_headers(stream, _HEADERS)
                bad = b"\x0a\xff\xff\xff\xff\x0f"
                h2.send_data(stream, b"\x00" + struct.pack(">I", len(bad)) + bad)
            case "only_pings" | "freeze":
                return True
            case _:
                h2.send_headers(stream, _HEADERS)
                return True
        self.struck += 1
        return self.mode not in ("goaway_unprocessed", "too_many_pings")

    def _strike(self, peer: _Peer, stream: int) -> bool:
        h2 = peer.h2
        match self.mode:
            case "goaway_mid":
                h2.close_connection(ErrorCodes.NO_ERROR, last_stream_id=stream)
                return False
            case "rst_mid":
                h2.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
            case "midfin":
                return False
            case "no_trailers":
                h2.end_stream(stream)
            case "freeze":
                peer.frozen = True
        return True

    def _list_models(self, peer: _Peer, stream: int) -> None:
        response = pb.RivaSpeechRecognitionConfigResponse()
        row = response.model_config.add(model_name="numbered-asr")
        for key, value in {"type": "online", "language_code": "en-US", "sample_rate": "16000"}.items():
            row.parameters[key] = value
        body = response.SerializeToString()
        peer.h2.send_headers(stream, _HEADERS)
        if self.mode == "window_zero":
            return
        peer.h2.send_data(stream, b"\x00" + struct.pack(">I", len(body)) + body)
        peer.h2.send_headers(stream, _OK, end_stream=True)

    def _is_audio(self, peer: _Peer, stream: int) -> bool:
        return peer.paths.get(stream, "").endswith("StreamingRecognize")
