"""A session of Riva's `StreamingRecognize` over grpc.aio, with messages that are serialized once, for all sessions.

What comes is kept as bytes; the conductor reads it. Riva tells neither when a stream is accepted nor that it is full
other than by a status, so there is no time in a queue, and a status that comes before any result is a refusal where it
says busy.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Any, Self, cast

import grpc
import grpc.aio

from asr.options import Options
from asr.riva_codec import streaming_config
from asr.riva_proto import asr as pb
from load.plan import Door
from load.session import BUSY, CONNECT_S, House, Order, Phase, Session, clock

METHOD = "/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize"
CALLS_PER_CHANNEL = 50
"""Many servers carry about 100 calls on one connection."""
MAX_CHANNELS = 64
REFUSAL_S = 5.0
"""A refusal comes within this; a stream that is broken off later had been accepted."""

_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: "bad_request",
    grpc.StatusCode.UNAUTHENTICATED: "unauthorized",
    grpc.StatusCode.PERMISSION_DENIED: "forbidden",
    grpc.StatusCode.NOT_FOUND: "not_found",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
}


def wrap(pcm: bytes) -> bytes:
    """A piece of PCM as a serialized request."""
    message: bytes = pb.StreamingRecognizeRequest(audio_content=pcm).SerializeToString()
    return message


def opening(rate_hz: int) -> bytes:
    """The first request of a stream, serialized."""
    config = streaming_config(Options(), sample_rate_hz=rate_hz)
    message: bytes = pb.StreamingRecognizeRequest(streaming_config=config).SerializeToString()
    return message


class GrpcSession(Session):
    """One session: one call, a task that writes and one that reads."""

    def __init__(
        self, order: Order, house: House, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Nothing happens before `open`."""
        self._begin(order, house)
        self._metadata = metadata
        self._channel = channel
        self._call: grpc.aio.StreamStreamCall[bytes, bytes] | None = None
        self._due: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def open(self) -> None:
        """Connect, within `CONNECT_S`, and hold the session to its end."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._channel.channel_ready()
        except TimeoutError:
            self._end("disconnected", "connect", f"The server cannot be reached in {CONNECT_S:g} s.")
            return
        if self.phase is Phase.OVER:
            return
        self._connected_s = clock()
        self._call = self._channel.stream_stream(METHOD, None, None)(None, metadata=self._metadata)
        self._speak()
        writing = asyncio.create_task(self._write(self._call))
        try:
            await self._read(self._call)
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    async def _write(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        try:
            await call.wait_for_connection()
            # `write` puts an error of its own in the place of the server's status when the server ends the call during
            # it, as one that refuses does. One floor down it does not.
            put = cast(Any, call)._cython_call.send_serialized_message
            await put(opening(self.order.rate_hz))
            while (message := await self._due.get()) is not None:
                # gRPC takes a message when the one before it has left.
                await put(message)
                if self._blocked and self._due.empty():
                    self.resume_writing()
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the reader is told why

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        try:
            read = cast(Any, call.read)
            while (message := await read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs forgot it
                results = pb.StreamingRecognizeResponse.FromString(message).results
                if results:
                    finals = sum(result.is_final for result in results)
                    self.finals += finals
                    self.partials += len(results) > finals
                    self._keep(message)
        except grpc.aio.AioRpcError as error:
            self._failed(error)
        except asyncio.CancelledError:
            if self.phase is not Phase.OVER:
                raise
        else:
            if self.phase is Phase.ENDING:
                self._end("ok")
            else:
                self._end("error", "unavailable", "The server ended the stream before all was said.")

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        trailers: dict[str, Any] = dict(cast(Any, error.trailing_metadata()) or ())
        after = trailers.get("riva-gateway-retry-after-ms") or trailers.get("grpc-retry-pushback-ms")
        retry_after_ms = int(after) if isinstance(after, str) and after.isdigit() else None
        told = trailers.get("riva-gateway-code")
        status = error.code()
        code = told if isinstance(told, str) else _CODES.get(status, "internal")
        detail = f"{status.name}: {error.details() or 'without a word'}"
        busy = told in BUSY or retry_after_ms is not None or status is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Nothing says when a stream is accepted: what breaks later was served, if only with silence.
        early = self._connected_s is not None and clock() - self._connected_s < REFUSAL_S
        if busy and early and not self.partials + self.finals:
            self._end("refused", code, detail, retry_after_ms)
        elif told is None and status is grpc.StatusCode.UNAVAILABLE:
            self._end("disconnected", "disconnected", detail)
        else:
            self._end("error", code, detail, retry_after_ms)

    def _send(self, message: bytes) -> None:
        self._due.put_nowait(message)
        if self._due.qsize() > 1:
            self.pause_writing()

    def _stop(self) -> None:
        self._due.put_nowait(None)

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _frames(self, heard: list[bytes]) -> list[object]:
        return [base64.b64encode(message).decode("ascii") for message in heard]


class GrpcWay:
    """How sessions of this wire come about: over a few connections, in turn."""

    wrap = staticmethod(wrap)

    def __init__(self, door: Door, sessions: int) -> None:
        """A certificate that cannot be read raises OSError."""
        self._target = door.address.rpartition("://")[2]
        self._credentials: grpc.ChannelCredentials | None = None
        if door.tls or door.address.startswith(("grpcs://", "https://")):
            roots, certificate, key = (
                path.read_bytes() if path is not None else None
                for path in (door.ca_cert, door.client_cert, door.client_key)
            )
            self._credentials = grpc.ssl_channel_credentials(roots, key, certificate)
        self._metadata = tuple((key.lower(), value) for key, value in door.metadata)
        self._count = min(max(-(-sessions // CALLS_PER_CHANNEL), 1), MAX_CHANNELS)
        self._channels: list[grpc.aio.Channel] = []
        self._given = 0

    async def __aenter__(self) -> Self:
        # Without this, channels to one address would share one connection.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 1_000)]
        for _ in range(self._count):
            if self._credentials is not None:
                self._channels.append(grpc.aio.secure_channel(self._target, self._credentials, options))
            else:
                self._channels.append(grpc.aio.insecure_channel(self._target, options))
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close(None)

    def session(self, order: Order, house: House) -> tuple[Session, Coroutine[Any, Any, None]]:
        """A session, and what opens it."""
        channel = self._channels[self._given % len(self._channels)]
        self._given += 1
        session = GrpcSession(order, house, channel, self._metadata)
        return session, session.open()
