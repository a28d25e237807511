"""A session of asr.v1 over WebSocket, on picows: sends ready-made messages, writes down what comes.

Only what a session has to act on is read: `ready`, `error`, `summary`. Acknowledgements of audio are dropped. Like any
client that might resume, it acknowledges messages now and then, so that the gateway need not keep them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
from picows import WSCloseCode, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from load.plan import Door
from load.session import CONNECT_S, FAREWELL_S, READY_S, House, Order, Phase, Session, clock

PATH = "/v1/stream"
PARTIAL = b'{"type":"partial"'
BUSY_CLOSE = {1013: "overloaded", 4429: "rate_limited", 4503: "overloaded"}
"""Close codes that are a refusal where nothing was said before them."""
RESUME_MS = 1_000
"""How long the gateway shall wait for one of these when it breaks off. They never come back; a gateway that waited for
a minute, as it does for others, would look as if it leaked them."""
FINAL = b'{"type":"final"'
ACK = b'{"type":"ack"'
ACK_EVERY = 64
"""Messages between two acknowledgements."""
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
TEXT, BINARY, CLOSE, CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CLOSE, WSMsgType.CONTINUATION

_HTTP_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    429: "rate_limited",
    502: "unavailable",
    503: "overloaded",
    504: "timeout",
}


def url_of(door: Door) -> str:
    """The address of the stream: that of the door, with asr.v1's path where it names none."""
    address = door.address if "://" in door.address else f"{'wss' if door.tls else 'ws'}://{door.address}"
    for web, socket in (("https://", "wss://"), ("http://", "ws://")):
        if address.startswith(web):
            address = socket + address.removeprefix(web)
    return address.rstrip("/") + PATH if urlsplit(address).path in ("", "/") else address


def tls_of(door: Door) -> ssl.SSLContext | None:
    """How the door is trusted; None for one without TLS."""
    if not url_of(door).startswith("wss://"):
        return None
    context = ssl.create_default_context()
    if door.ca_cert is not None:
        context.load_verify_locations(door.ca_cert)
    if door.insecure:
        context.check_hostname = False
        # rule(unverified-tls): whoever drives the load asked for it, in so many words
        context.verify_mode = ssl.CERT_NONE
    return context


class WebSocketSession(WSListener, Session):
    """One session, a listener of picows."""

    def __init__(self, order: Order, house: House) -> None:
        """Nothing happens before `open`."""
        self._begin(order, house)
        self._transport: WSTransport | None = None
        self._messages = 0
        self._pieces: list[bytes] = []
        self._said: tuple[str, str, int | None] | None = None
        self._summed_up = False

    async def open(self, url: str, context: ssl.SSLContext | None, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Connect, within `CONNECT_S`. What comes of it is told by the session's end."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await ws_connect(
                    lambda: self,
                    url,
                    ssl_context=context,
                    websocket_handshake_timeout=CONNECT_S,
                    max_frame_size=MAX_MESSAGE_BYTES,
                    max_redirects=0,
                    extra_headers=headers,
                )
        except WSHandshakeError as error:
            self._not_let_in(error)
        except ssl.SSLError as error:
            self._end("error", "tls", f"The encrypted connection did not come about: {error}.")
        except TimeoutError:
            self._end("timeout", "timeout", f"No connection came about in {CONNECT_S:g} s.")
        except OSError as error:
            self._end("disconnected", "connect", f"The gateway cannot be reached: {error}.")

    def _not_let_in(self, error: WSHandshakeError) -> None:
        if error.response is None:
            self._end("disconnected", "connect", f"The connection broke while it was opened: {error}.")
            return
        status = int(error.response.status)
        after = str(error.response.headers.get("Retry-After", ""))
        text = (error.raw_body or b"").decode("utf-8", "replace").strip()[:500]
        self.refuse_or_fail(
            _HTTP_CODES.get(status, "internal" if status >= 500 else "protocol"),
            text or f"The gateway answered with HTTP status {status}.",
            int(after) * 1000 if after.isascii() and after.isdigit() else None,
        )

    # What picows calls ----------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Ask for the stream."""
        if self.phase is Phase.OVER:
            transport.disconnect(False)
            return
        self._transport = transport
        self._connected_s = clock()
        self._deadline_s = self._connected_s + READY_S
        audio = {"encoding": "pcm_s16le", "sample_rate_hz": self.order.rate_hz}
        transport.send(TEXT, orjson.dumps({"type": "start", "audio": audio, "resume_window_ms": RESUME_MS}))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """The other side said something."""
        kind = frame.msg_type
        if kind is not TEXT or not frame.fin:
            self._rarely(transport, frame)
            return
        self._message(transport, frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The connection is gone."""
        self._transport = None
        self._settle()
        self._end("disconnected", "disconnected", "The connection broke off without a word.")

    def check(self, now_s: float) -> None:
        """As of every session; what was said holds without the close that should follow it, too."""
        if now_s >= self._deadline_s:
            self._settle()
        super().check(now_s)

    # Inside ---------------------------------------------------------------------------------------

    def _message(self, transport: WSTransport, text: bytes) -> None:
        self._messages += 1
        if not self._messages % ACK_EVERY:
            transport.send(TEXT, b'{"type":"ack","seq":%d}' % self._messages)
        if text.startswith(PARTIAL):
            self.partials += 1
            self._keep(text)
        elif text.startswith(FINAL):
            self.finals += 1
            self._keep(text)
        elif not text.startswith(ACK):
            self._act(transport, text)

    def _act(self, transport: WSTransport, text: bytes) -> None:
        try:
            message = orjson.loads(text)
            kind = message["type"]
        except (ValueError, TypeError, KeyError):
            self._end("error", "protocol", f"The gateway sent what is no message of asr.v1: {text[:80]!r}.")
            return
        match kind:
            case "ready":
                self._ready(message)
            case "error" if message.get("fatal"):
                # The close follows.
                self._said = (str(message["code"]), str(message["message"]), message.get("retry_after_ms"))
                self._deadline_s = clock() + FAREWELL_S
            case "summary":
                self._keep(text)
                self._summed_up = self.phase is Phase.ENDING
                if not self._summed_up:
                    self._said = ("unavailable", "The gateway ended the session before all was said.", None)
                self._deadline_s = clock() + FAREWELL_S
            case "partial" | "final":  # spelled with blanks, by somebody else than our gateway
                self.partials += kind == "partial"
                self.finals += kind == "final"
                self._keep(text)
            case "gap":
                self._keep(text)
            case _:
                pass

    def _ready(self, message: dict[str, Any]) -> None:
        if self.phase is not Phase.OPENING:
            return
        self._ready_s = clock()
        bound = message.get("limits", {}).get("max_frame_bytes")
        if isinstance(bound, int) and bound < self.order.chunk_bytes:
            self._end(
                "error",
                "too_large",
                f"A message of {self.order.chunk_bytes} bytes is over the {bound} that the gateway takes. "
                "Choose a smaller chunk.",
            )
            return
        self._speak()

    def _rarely(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind in (TEXT, CONTINUATION):
            self._pieces.append(frame.get_payload_as_bytes())
            if sum(map(len, self._pieces)) > MAX_MESSAGE_BYTES:
                self._end("error", "protocol", "The gateway sent a message of over 4 MiB.")
            elif frame.fin:
                whole, self._pieces = b"".join(self._pieces), []
                self._message(transport, whole)
        elif kind is CLOSE:
            said = frame.get_payload_as_bytes()
            code, reason = int.from_bytes(said[:2], "big") or 1005, said[2:].decode("utf-8", "replace")
            self._settle()
            detail = f"The gateway closed the connection with code {code} {reason}".rstrip()
            self.refuse_or_fail(BUSY_CLOSE.get(code, "closed"), detail, None)

    def _settle(self) -> None:
        """End as the other side has said, if it has said how."""
        if self._summed_up:
            self._end("ok")
        elif self._said is not None:
            self.refuse_or_fail(*self._said)

    def _send(self, message: bytes) -> None:
        assert self._transport is not None
        self._transport.send(BINARY, message)

    def _stop(self) -> None:
        assert self._transport is not None
        self._transport.send(TEXT, b'{"type":"stop"}')

    def _hang_up(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self.order.cut or self.outcome == "timeout":
            transport.underlying_transport.abort()
        else:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def _frames(self, heard: list[bytes]) -> list[object]:
        return [orjson.Fragment(text) for text in heard]


class WebSocketWay:
    """How sessions of this wire come about."""

    wrap = staticmethod(bytes)

    def __init__(self, door: Door) -> None:
        """Nothing is connected yet; a certificate that cannot be read raises OSError."""
        self._url, self._context = url_of(door), tls_of(door)
        self._headers = list(door.metadata)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def session(self, order: Order, house: House) -> tuple[Session, Coroutine[Any, Any, None]]:
        """A session, and what opens it."""
        session = WebSocketSession(order, house)
        return session, session.open(self._url, self._context, self._headers)
