"""WebSockets on the HTTP port: the `websockets` library's protocol core on a bare transport.

uvicorn hands a connection over when a client asks for an upgrade; from there on frames go from the
transport's callback straight to the conversation, without a framework, task or future per
message. Compression is declined (it costs 50 KB a stream and helps no audio), input is bounded and read no
faster than it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qs

import structlog
from websockets.exceptions import InvalidState, PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from asr import wire
from asr.errors import ASRError, Code
from server.access.grants import Grant
from server.access.porter import Porter, open_porter
from server.access.rules import SOCKETS, Rule
from server.admission import FULL_RETRY_MS, Admission
from server.principal import principal_of
from server.refusals import REALM, refusal
from server.sockets import Incoming, Oversized, Place, SocketClosed

log = structlog.get_logger("server.websocket")

MAX_PING_INTERVAL_S = 15.0
CLOSE_TIMEOUT_S = 2.0
LINGER_S = 0.5
WRITE_BUFFER_BYTES = 32 * 1024
KERNEL_BUFFER_BYTES = 32 * 1024
"""The kernel takes twice that. Left alone it would take megabytes: far more than a session keeps of what its client
has not read, so that one which loses a client that reads slowly could not be resumed."""
WORDS_SHARE = 10
"""Of the connections, one in so many may be a page that is being refused; further ones get the HTTP status alone."""
INBOX_BYTES = 256 * 1024
INBOX_MESSAGES = 256


def native_refusal(error: ASRError) -> str:
    """The only message of an `asr.v1` connection that is refused."""
    return json.dumps({"type": "error", "seq": 1, **wire.encode_error(error, fatal=True)}, ensure_ascii=False)


def usual_close_code(code: Code) -> int:
    """The WebSocket close code of `server.refusals`."""
    return refusal(code).close_code


def query_of(request: Request) -> dict[str, str]:
    """The fields of the address's query; the last one of a repeated name."""
    return {name: values[-1] for name, values in parse_qs(request.path.partition("?")[2]).items()}


def _unheard(face: str, code: Code) -> None:
    pass


def _nobody(query: Mapping[str, str], principal: str) -> Place | None:
    return None


@dataclass(frozen=True, slots=True)
class Route:
    """What answers at one path.

    Attributes:
        handler: runs a connection from its opening to its close.
        face: which it is, for those who count refusals.
        subprotocols: those it speaks; a client that offers none is served as well.
        max_message_bytes: larger messages are refused with close code 1009.
        exempt: what a client holds instead of a place, when its query and principal say that it returns to one; else
            None.
        refusal_text: a refusal as a message of this dialect, for browsers, which cannot see an HTTP status.
        close_code: the close code after it.
        read_query: the fields of a handshake's query, where they may stand elsewhere than in the address.
    """

    handler: Callable[[WebSocket], Awaitable[None]]
    face: str
    subprotocols: tuple[str, ...] = ()
    max_message_bytes: int = 1024 * 1024
    exempt: Callable[[Mapping[str, str], str], Place | None] = _nobody
    refusal_text: Callable[[ASRError], str] = native_refusal
    close_code: Callable[[Code], int] = usual_close_code
    read_query: Callable[[Request], dict[str, str]] = query_of


class WebSocketDoor:
    """Every WebSocket of the server: its routes, its limit, and who is connected.

    Attributes:
        connections: open connections; what a drain has to wait for.
        refusing: those among them that are only told why they are refused.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        admission: Admission,
        max_connections: int,
        idle_ms: int,
        porter: Porter | None = None,
        rules: Mapping[str, Rule] = SOCKETS,
        on_refused: Callable[[str, Code], None] = _unheard,
    ) -> None:
        """Open the door.

        Args:
            routes: what answers at which path; one that ends in "/" answers without it, and below, as well.
            admission: gives each connection its place, but for those that return to one.
            max_connections: sockets at a time, whatever they are for; more are refused.
            idle_ms: a client silent for so long is let go; it is asked for a sign of life often enough before.
            porter: lets in; by default one that asks nobody for a credential.
            rules: what each of the paths asks for.
            on_refused: told of the face and the reason, whenever somebody is not let in.
        """
        self.on_refused = on_refused
        self.routes = routes
        self.porter = porter if porter is not None else open_porter()
        self._rules = rules
        self.admission = admission
        self.max_connections = max_connections
        self.ping_interval_s = min(MAX_PING_INTERVAL_S, idle_ms / 3000)
        self.connections: set[WebSocket] = set()
        self.refusing: set[WebSocket] = set()
        self.closing = False

    @property
    def has_room_for_words(self) -> bool:
        """Whether a page may still be told why it is refused: who shows no credential must not fill the gateway."""
        is_full = len(self.connections) >= self.max_connections
        return not self.closing and not is_full and len(self.refusing) <= self.max_connections // WORDS_SHARE

    def route(self, path: str) -> Route | None:
        """What answers at `path`."""
        return self.routes.get(self.registered(path))

    def registered(self, path: str) -> str:
        """The path under which what answers at `path` is registered; "" where nothing does."""
        if path in self.routes:
            return path
        while path.strip("/"):
            below = f"{path.rstrip('/')}/"
            if below in self.routes:
                return below
            path = path.rstrip("/").rpartition("/")[0]
        return ""

    def enter(self, request: Request, path: str, address: str) -> Grant:
        """What the sender of a handshake may do at `path`, as it is registered.

        Raises:
            ASRError: see `Porter.enter`.
        """
        fields = list(request.headers.raw_items())
        grant = self.porter.enter(self._rules.get(path), fields, address, path)
        return grant if grant is not None else Grant(principal_of(fields, address))

    def tasks(self) -> list[asyncio.Task[None]]:
        """One task for each open connection; it ends with the connection."""
        return [websocket.task for websocket in self.connections if websocket.task is not None]

    def protocol_factory(self, config: object, server_state: object, app_state: object) -> WebSocket:
        """What uvicorn calls, with its own arguments, for each upgrade."""
        return WebSocket(self)


class WebSocket(asyncio.Protocol):
    """One connection: an asyncio protocol below, a `server.sockets.Socket` above."""

    def __init__(self, door: WebSocketDoor) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(subprotocols=None, extensions=None, max_size=None)
        self._route: Route | None = None
        self._address = self._peer = "unknown"
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._inbox: deque[tuple[float, Incoming]] = deque()
        self._inbox_bytes = 0
        self._reading_paused = False
        self._receiver: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._fragments = bytearray()
        self._text = False
        self._held_close: list[bytes] | None = None
        self._gone = False
        self._closing = False
        self._refused = False
        self._last_heard = self.arrived_at = self._loop.time()
        self.task: asyncio.Task[None] | None = None
        self.place: Place | None = None
        self.principal = ""
        self.grant: Grant | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._cut: asyncio.TimerHandle | None = None
        self.request: Request = cast(Request, None)

    # What the face sees ---------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The client's address and port."""
        return self._peer

    @property
    def close_received(self) -> int | None:
        """See `server.sockets.Socket`."""
        received = self._protocol.close_rcvd
        return int(received.code) if received is not None else None

    @property
    def last_heard(self) -> float:
        """See `server.sockets.Socket`; a client that we do not read is not silent."""
        return self._loop.time() if self._reading_paused else self._last_heard

    @property
    def trace(self) -> tuple[str, str]:
        """See `server.sockets.Socket`."""
        headers = self.request.headers
        found = headers.get_all("traceparent")
        return found[0] if len(found) == 1 else "", ",".join(headers.get_all("tracestate"))

    @property
    def path(self) -> str:
        """The path asked for, without its query."""
        return self.request.path.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query's fields; the last one of a repeated name."""
        return query_of(self.request) if self._route is None else self._route.read_query(self.request)

    async def receive(self) -> Incoming:
        """See `server.sockets.Socket`."""
        while not self._inbox:
            if self._gone:
                return None
            self._receiver = self._loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        self.arrived_at, message = self._inbox.popleft()
        if not isinstance(message, Oversized | None):
            self._inbox_bytes -= len(message)
        if self._reading_paused and self._inbox_bytes < INBOX_BYTES // 2 and len(self._inbox) < INBOX_MESSAGES // 2:
            self._reading_paused = False
            self._transport.resume_reading()
        return message

    async def gone(self) -> None:
        """See `server.sockets.Socket`."""
        await asyncio.shield(self._lost)

    def keep_place(self) -> Place | None:
        """Hand the place over to the caller, whose it is to release from now on."""
        place, self.place = self.place, None
        return place

    def send_now(self, text: str) -> bool:
        """See `server.sockets.Socket`."""
        if self._held_close is not None:
            # The protocol core considers itself closed after an oversized message, but its close frame
            # has not been written yet: the reason may still go first.
            self._transport.write(Frame(Opcode.TEXT, text.encode()).serialize(mask=False))
        else:
            try:
                self._protocol.send_text(text.encode())
            except InvalidState as error:
                raise SocketClosed from error
            self._flush()
        return self._writable is None

    async def writable(self) -> None:
        """See `server.sockets.Socket`."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    async def close(self, code: int, reason: str = "") -> None:
        """See `server.sockets.Socket`: the client has two seconds to answer."""
        self._closing = True
        patience_s = CLOSE_TIMEOUT_S
        if self._held_close is not None:
            # The protocol core reads no more, so the client's answer cannot be seen: give what is still
            # on its way a moment, or a reset would overtake our last words.
            self._transport.write(b"".join(self._held_close))
            self._held_close = None
            patience_s = LINGER_S
        elif self._protocol.state is State.OPEN:
            self._protocol.send_close(code, _short_reason(reason))
            self._flush()
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.shield(self._lost)
        except TimeoutError:
            self._transport.abort()

    def go_away(self, code: int) -> None:
        """End the connection without waiting for anybody: a close frame, where there is still room for one."""
        if self._protocol.state is State.OPEN and self._writable is None:
            self._protocol.send_close(code)
            self._flush()
        self._hang_up()

    def abort(self) -> None:
        """Cut the connection at once."""
        self._transport.abort()

    # What the transport calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over from the HTTP side."""
        self._transport = cast(asyncio.Transport, transport)
        self._address, self._peer = _address_of(transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: the handshake first, then frames."""
        self._last_heard = self._loop.time()
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._handshake(event)
            else:
                self._frame(cast(Frame, event))
        if isinstance(protocol.parser_exc, PayloadTooBig) and self._held_close is None and not self._gone:
            self._hold_close_for(Oversized(self._limit()))
            return
        if self._writable is not None and protocol.state is State.OPEN:
            # A client that does not read and goes on pinging: pongs may be left out (RFC 6455 §5.5.3).
            protocol.data_to_send()
        if protocol.handshake_exc is not None and self.task is None and not self._refused:
            self._refuse_unread()
            return
        self._flush()
        if protocol.state is not State.OPEN and self.task is not None:
            self._end_of_input()
            if protocol.close_rcvd is None and not self._closing:
                self._linger()

    def eof_received(self) -> bool:
        """The client has closed its side."""
        self._protocol.receive_eof()
        self._flush()
        self._end_of_input()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whatever the reason."""
        self._protocol.receive_eof()
        self._end_of_input()
        self.resume_writing()
        for timer in (self._ping, self._cut):
            if timer is not None:
                timer.cancel()
        if not self._lost.done():
            self._lost.set_result(None)

    def pause_writing(self) -> None:
        """The client reads too slowly: `writable` waits from now on."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """There is room again."""
        waiter, self._writable = self._writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # Inside ---------------------------------------------------------------------------------------

    def _limit(self) -> int:
        return self._route.max_message_bytes if self._route is not None else 0

    def _handshake(self, request: Request) -> None:
        self.request = request
        door = self._door
        route = door.route(self.path)
        if route is None:
            paths = ", ".join(sorted(door.routes))
            self._refuse(HTTPStatus.NOT_FOUND, f"There is no WebSocket at this path. There is one at: {paths}.\n")
            return
        try:
            self._check_page()
        except ASRError as error:
            door.on_refused(route.face, error.code)
            self._refuse(HTTPStatus(refusal(error.code).http_status), f"{error.message}\n")
            return
        try:
            self._admit(route)
        except ASRError as error:
            door.on_refused(route.face, error.code)
            log.debug("stream refused", path=self.path, principal=self.principal, code=error.code.value)
            if "Origin" not in request.headers or not door.has_room_for_words:
                row = refusal(error.code)
                self._refuse(HTTPStatus(row.http_status), f"{error.message}\n", error)
                return
            # A browser shows a page neither the status nor the text of a refused handshake.
            route = replace(route, handler=functools.partial(_say_no, route, error))
            door.refusing.add(self)
        self._route = route
        self._protocol.available_subprotocols = [Subprotocol(name) for name in route.subprotocols] or None
        # Both: a whole message, and each fragment of it, is bounded.
        self._protocol.max_size = route.max_message_bytes
        offered = request.headers.get_all("Sec-WebSocket-Protocol")
        response = self._accept(request, offered)
        self._protocol.send_response(response)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._give_place_back()
            door.refusing.discard(self)
            return
        door.connections.add(self)
        self.task = self._loop.create_task(self._run(route), name=f"websocket {self.path}")
        self._ping = self._loop.call_later(door.ping_interval_s, self._send_ping)

    def _admit(self, route: Route) -> None:
        door = self._door
        if door.closing:
            raise door.admission.going_down()
        if len(door.connections) >= door.max_connections:
            raise door.admission.later(
                Code.OVERLOADED,
                f"All {door.max_connections} connections of this gateway are in use. Try again in a moment.",
                FULL_RETRY_MS,
            )
        self.grant = grant = door.enter(self.request, door.registered(self.path), self._address)
        self.principal = grant.principal
        returning = route.exempt(route.read_query(self.request), self.principal)
        self.place = returning if returning is not None else door.porter.admit(door.admission, grant)

    def _check_page(self) -> None:
        """Raises `forbidden` for a page of another site, and for a name that is not ours."""
        headers, porter = self.request.headers, self._door.porter
        hosts, where = headers.get_all("Host"), self._door.registered(self.path)
        porter.check_host(hosts, where, self._address)
        porter.check_origin(headers.get_all("Origin"), hosts, where, self._address)

    def _give_place_back(self) -> None:
        place = self.keep_place()
        if place is not None:
            place.release()

    def _accept(self, request: Request, offered: list[str]) -> Response:
        # A client may offer names we do not speak (tokens among them): serve it without one.
        names = {name.strip() for line in offered for name in line.split(",")}
        spoken = self._protocol.available_subprotocols
        if spoken is not None and not names & set(spoken):
            self._protocol.available_subprotocols = None
        return self._protocol.accept(request)

    def _refuse(self, status: HTTPStatus, text: str, error: ASRError | None = None) -> None:
        self._refused = True
        response = self._protocol.reject(status, text)
        if error is not None and error.retry_after_ms is not None:
            response.headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
        if status is HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = f'Bearer realm="{REALM}"'
        self._protocol.send_response(response)
        self._flush()
        self._hang_up()

    def _refuse_unread(self) -> None:
        """The request is one that the WebSocket library does not read: it gets an answer all the same."""
        self._refused = True
        text = b"This is not a WebSocket handshake that can be read: GET, at most 128 headers, lines under 8 KB.\n"
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        self._transport.write(head.encode() + text)
        self._hang_up()

    async def _run(self, route: Route) -> None:
        try:
            await route.handler(self)
        except Exception:
            log.exception("connection failed", peer=self.peer)
            await self.close(1011, "internal error")
        finally:
            self._give_place_back()
            self._door.connections.discard(self)
            self._door.refusing.discard(self)
            if not self._lost.done():
                self._hang_up()

    def _hang_up(self) -> None:
        """Let what was written out, within a bound: a client that does not read would hold the socket for ever."""
        self._transport.close()
        self._cut = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _linger(self) -> None:
        """The client broke the protocol, and was told so; what it sends now is not understood, its answer neither."""
        if self._cut is None:
            self._cut = self._loop.call_later(LINGER_S, self._hang_up)
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._deliver(bytes(frame.data))
                return
            self._fragments = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT:
            self._fragments += frame.data  # into one piece: many small ones would cost many times their size
            if frame.fin:
                whole = bytes(self._fragments)
                self._fragments = bytearray()
                self._deliver(whole)

    def _deliver(self, data: bytes) -> None:
        if self._closing:
            return
        message: Incoming = data
        if self._text:
            try:
                message = data.decode()
            except UnicodeDecodeError:
                self._protocol.fail(1007, "a text message is not UTF-8")
                return
        self._inbox.append((self._last_heard, message))
        self._inbox_bytes += len(data)
        if not self._reading_paused and (self._inbox_bytes > INBOX_BYTES or len(self._inbox) > INBOX_MESSAGES):
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def _hold_close_for(self, message: Oversized) -> None:
        self._held_close = self._protocol.data_to_send()
        self._inbox.append((self._last_heard, message))
        self._wake()

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _end_of_input(self) -> None:
        self._gone = True
        self._wake()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
        if self._protocol.close_rcvd is not None and self._protocol.close_expected() and self._held_close is None:
            # The handshake is over on both sides: the server closes the connection (RFC 6455 §7.1.1). Not before: what
            # the client still sends would be answered with a reset, which overtakes our last words.
            self._transport.close()

    def _send_ping(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")
            self._flush()
            self._ping = self._loop.call_later(self._door.ping_interval_s, self._send_ping)


def _address_of(transport: asyncio.BaseTransport) -> tuple[str, str]:
    """The client's address, alone and with its port; asked once: a connection that is lost cannot tell it any more."""
    try:
        name = transport.get_extra_info("peername")
    except (OSError, ValueError):
        name = None
    return (str(name[0]), f"{name[0]}:{name[1]}") if isinstance(name, tuple) else ("unknown", "unknown")


async def _say_no(route: Route, error: ASRError, websocket: WebSocket) -> None:
    """The whole of a connection that is refused in words."""
    with contextlib.suppress(SocketClosed):
        websocket.send_now(route.refusal_text(error))
    await websocket.close(route.close_code(error.code), error.code.value)


def _short_reason(reason: str) -> str:
    """A close reason that fits a control frame: at most 123 bytes (RFC 6455 §5.5)."""
    data = reason.encode()
    if len(data) <= 123:
        return reason
    return data[:120].decode(errors="ignore") + "…"
