"""The engine that is another riva-gateway: streams over `asr.v1`, models and readiness over HTTP.

Audio goes out at the pace at which the far side reads it; two tasks at most per stream (the caller's own
and the sender). Every wait has a bound: connecting, the answer to `start`, the silence of the far side,
and the time without any progress, once the audio has ended and while the far side takes no more of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from asr import wire
from asr.config import GatewayConfig
from asr.engine import BYTES_PER_MS, SAMPLE_RATE_HZ, AudioInput, EndUtterance, Features, Model, Readiness
from asr.engines.gateway_http import (
    address_of,
    connection_error,
    fetch_models,
    fetch_readiness,
    status_error,
    tls_context,
)
from asr.errors import ASRError, Code
from asr.events import Event, Flushed, Progress
from asr.options import Options

log = logging.getLogger("asr.gateway")

CLOSE_TIMEOUT_S = 2.0
MAX_MESSAGE_BYTES = 4 << 20
PING_INTERVAL_S = 15.0

_CLOSE_CODES = {
    1009: Code.TOO_LARGE,
    1011: Code.INTERNAL,
    1013: Code.OVERLOADED,
    4400: Code.BAD_REQUEST,
    4401: Code.UNAUTHORIZED,
    4403: Code.FORBIDDEN,
    4404: Code.NOT_FOUND,
    4408: Code.IDLE_TIMEOUT,
    4409: Code.SUPERSEDED,
    4410: Code.EXPIRED,
    4413: Code.TOO_LARGE,
    4415: Code.BAD_AUDIO,
    4429: Code.RATE_LIMITED,
    4499: Code.SLOW_READER,
    4502: Code.UNAVAILABLE,
    4503: Code.OVERLOADED,
    4504: Code.TIMEOUT,
}


class GatewayEngine:
    """Another riva-gateway, as an engine."""

    name = "gateway"
    features = Features(
        punctuation=True, verbatim=True, profanity_filter=True, diarization=True, phrases=True, endpointing=True
    )
    """What the protocol can ask for; the far gateway warns of what its own recognizer cannot do."""

    def __init__(self, config: GatewayConfig) -> None:
        """Nothing is connected yet.

        Raises:
            ASRError: `bad_request`, for an address or certificate file that cannot be used.
        """
        self._config = config
        self._address = address_of(config.url)
        if config.token and not (self._address.secure or self._address.loopback):
            raise ASRError(
                Code.BAD_REQUEST,
                "The token would travel unencrypted to another machine. Use https://, or leave the token out.",
                param="token",
            )
        self._tls: ssl.SSLContext | None = tls_context(config) if self._address.secure else None
        self._open: set[ClientConnection] = set()
        self._closed = False

    def refusal(self) -> ASRError | None:
        """See `Engine`: the far gateway decides for itself."""
        return None

    async def models(self) -> Sequence[Model]:
        """See `Engine`."""
        return await fetch_models(self._config, self._address, self._tls)

    async def ready(self) -> Readiness:
        """See `Engine`."""
        return await fetch_readiness(self._config, self._address, self._tls)

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """See `Engine`. Partials, times and utterance numbers are the far gateway's own."""
        if self._closed:
            raise ASRError(Code.UNAVAILABLE, "The engine is closed.")
        socket = await self._connect()
        if self._closed:
            await _hang_up(socket)
            raise ASRError(Code.UNAVAILABLE, "The engine is closed.")
        self._open.add(socket)
        try:
            call = _Call(socket, self._config)
            async with contextlib.aclosing(call.run(audio, options)) as events:
                async for event in events:
                    yield event
        finally:
            self._open.discard(socket)
            await _hang_up(socket)

    async def aclose(self) -> None:
        """See `Engine`."""
        self._closed = True
        if self._open:
            await asyncio.gather(*(_hang_up(socket) for socket in self._open), return_exceptions=True)

    async def _connect(self) -> ClientConnection:
        headers = {"Authorization": f"Bearer {self._config.token}"} if self._config.token else {}
        try:
            return await _Connect(
                self._address.stream,
                subprotocols=[wire.PROTOCOL],  # type: ignore[list-item]  # a NewType of str
                additional_headers=headers,
                ssl=self._tls,
                proxy=None if self._address.loopback else True,
                compression=None,
                open_timeout=self._config.connect_timeout_ms / 1000,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                ping_timeout=None,  # an answer may wait behind audio; acks are the sign of life
                max_size=MAX_MESSAGE_BYTES,
            )
        except InvalidStatus as error:
            response = error.response
            raise status_error(response.status_code, response.headers.get("Retry-After")) from error
        except InvalidMessage as error:
            cause = error.__cause__
            raise connection_error(cause if isinstance(cause, OSError) else ConnectionError()) from error
        except (OSError, InvalidHandshake, EOFError) as error:
            raise connection_error(error) from error


class _Connect(connect):
    """Follows no redirects: a gateway sends none, and one could carry the token to another machine."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def _hang_up(socket: ClientConnection) -> None:
    """Close, within a bound: a far side that does not read cannot be told so."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()
    except TimeoutError:
        socket.transport.abort()


class _GoneError(Exception):
    """Our connection is closed; not to be confused with a connection that the caller's audio comes from."""


class _Call:
    """One stream on one connection."""

    def __init__(self, socket: ClientConnection, config: GatewayConfig) -> None:
        self._socket = socket
        self._config = config
        self._max_frame_bytes = 65_536
        self._audio_over = False
        self._sent_bytes = 0
        self._finalizes = 0
        self._sender_failure: BaseException | None = None
        self._sending_since: float | None = None
        self._processed_ms = -1
        self._received_bytes = -1
        self._progressed_at = 0.0

    async def run(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        await self._start(options)
        sender = asyncio.create_task(self._send(audio))
        try:
            while True:
                message = await self._receive(self._config.answer_timeout_ms)
                if message.get("type") == "summary" and self._is_whole(message):
                    return
                event = self._event(message)
                if event is not None:
                    yield event
                self._check_progress(message, event)
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender

    async def _start(self, options: Options) -> None:
        with contextlib.suppress(_GoneError):  # the receiver tells why
            await self._tell(_start_message(options))
        timeout_ms = self._config.connect_timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while (message := await self._next()).get("type") != "ready":
                    if message.get("type") == "error":
                        raise wire.decode_error(message)
                    if message.get("type") == "warning":
                        log.warning("%s", message.get("message"))
        except TimeoutError:
            raise ASRError(Code.TIMEOUT, f"The gateway did not answer `start` within {timeout_ms} ms.") from None
        for text in message.get("warnings") or ():
            log.warning("%s", text)
        limit = (message.get("limits") or {}).get("max_frame_bytes")
        if isinstance(limit, int) and limit > 0:
            self._max_frame_bytes = min(limit, self._max_frame_bytes)

    async def _send(self, audio: AsyncIterable[AudioInput]) -> None:
        try:
            async for item in audio:
                if isinstance(item, EndUtterance):
                    self._finalizes += 1
                    await self._tell({"type": "finalize", "id": f"f{self._finalizes}"})
                    continue
                self._sent_bytes += len(item)
                for at in range(0, len(item), self._max_frame_bytes):
                    await self._put(item[at : at + self._max_frame_bytes])
            self._progressed_at = time.monotonic()
            self._audio_over = True
            await self._tell({"type": "stop"})
        except _GoneError:
            return  # the receiver knows why
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled, but something that the caller's audio waited for.
            self._sender_failure = ASRError(Code.INTERNAL, "The audio was cancelled in mid-stream.")
            await _hang_up(self._socket)
        except Exception as error:  # the caller's audio broke: it is told by the receiver, which this wakes
            self._sender_failure = error
            await _hang_up(self._socket)

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._put(orjson.dumps(message).decode())

    async def _put(self, data: bytes | str) -> None:
        self._sending_since = time.monotonic()
        try:
            await self._socket.send(data)
        except ConnectionClosed as closed:
            raise _GoneError from closed
        finally:
            self._sending_since = None

    async def _receive(self, timeout_ms: int) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await self._next()
        except TimeoutError:
            raise ASRError(Code.TIMEOUT, f"The gateway said nothing for {timeout_ms} ms.") from None

    async def _next(self) -> dict[str, Any]:
        try:
            text = await self._socket.recv()
        except ConnectionClosed as closed:
            if self._sender_failure is not None:
                raise self._sender_failure from None
            raise _closed_early(closed) from closed
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ASRError(Code.INTERNAL, "The gateway sent a message that is not JSON.") from error
        if not isinstance(message, dict):
            raise ASRError(Code.INTERNAL, "The gateway sent a message that is not an object.")
        return message

    def _event(self, message: dict[str, Any]) -> Event | None:
        match message.get("type"):
            case "error":
                error = wire.decode_error(message)
                if message.get("fatal", True) or message.get("ref"):
                    raise error
                log.warning("%s", error.message)
                return None
            case "warning":
                log.warning("%s", message.get("message"))
                return None
            case "finalized":
                return Flushed(_number(message, "audio_ms"))
            case "ack":
                processed_ms = _number(message, "processed_ms")
                if processed_ms <= self._processed_ms:
                    return None
                self._processed_ms = processed_ms
                return Progress(processed_ms)
            case _:
                return wire.decode(message)

    def _is_whole(self, summary: dict[str, Any]) -> bool:
        """Whether the far side heard everything; one that drains or reached a limit ends early, and then closes."""
        return self._audio_over and _number(summary, "audio_ms") >= self._sent_bytes // BYTES_PER_MS

    def _check_progress(self, message: dict[str, Any], event: Event | None) -> None:
        now = time.monotonic()
        timeout_s = self._config.answer_timeout_ms / 1000
        received_bytes = message.get("received_bytes")
        received_more = False
        if isinstance(received_bytes, int) and received_bytes > self._received_bytes:
            self._received_bytes = received_bytes
            received_more = True
        if event is not None or message.get("type") != "ack" or received_more:
            self._progressed_at = now
        elif now - self._progressed_at <= timeout_s:
            return
        elif self._audio_over:
            raise ASRError(
                Code.TIMEOUT,
                f"The gateway made no progress for {self._config.answer_timeout_ms} ms after the audio's end.",
            )
        elif self._sending_since is not None and now - self._sending_since > timeout_s:
            raise ASRError(
                Code.TIMEOUT,
                f"The gateway took no audio and made no progress for {self._config.answer_timeout_ms} ms.",
            )


def _number(message: dict[str, Any], key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int):
        raise ASRError(Code.INTERNAL, f"The gateway sent a {message.get('type')!r} message without a number {key!r}.")
    return value


def _closed_early(closed: ConnectionClosed) -> ASRError:
    number = closed.rcvd.code if closed.rcvd is not None else None
    code = _CLOSE_CODES.get(number, Code.UNAVAILABLE) if number is not None else Code.UNAVAILABLE
    how = f" (close code {number})" if number is not None else ""
    return ASRError(code, f"The gateway closed the connection before the last result{how}. Begin the stream anew.")


def _start_message(options: Options) -> dict[str, Any]:
    message: dict[str, Any] = {
        "type": "start",
        "audio": {"encoding": "pcm_s16le", "sample_rate_hz": SAMPLE_RATE_HZ, "channels": 1},
        "language": options.language,
        "model": options.model,
        "interim": options.partials,
        "words": options.words,
        "punctuate": options.punctuate,
        "verbatim": options.verbatim,
        "profanity_filter": options.profanity_filter,
        "on_unsupported": "fail" if options.fail_on_unsupported else "warn",
        "pace": "file",
    }
    if options.diarization is not None:
        message["diarization"] = {"max_speakers": options.diarization.max_speakers}
    if options.phrases:
        message["phrases"] = [{"text": phrase.text, "boost": phrase.boost} for phrase in options.phrases]
    if options.endpointing is not None:
        message["endpointing"] = {
            "mode": "manual" if options.endpointing.manual else "auto",
            "silence_ms": options.endpointing.silence_ms,
            "eager_ms": options.endpointing.eager_ms,
        }
    if options.upstream_options:
        message["upstream_options"] = dict(options.upstream_options)
    if options.request_id:
        message["metadata"] = {"request_id": options.request_id}
    return message
