"""HTTP and WebSocket on one port: uvicorn's HTTP protocol, our WebSockets, our signals.

uvicorn's own server is not used: it closes every WebSocket at once on SIGTERM and waits for ever for a
request that never comes. What is used is its protocol class for HTTP/1.1 and its configuration.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import sys
from typing import Any, cast

import structlog
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.refusals import GOING_AWAY
from server.websocket import WebSocketDoor

if sys.platform == "linux":
    import fcntl
    import termios

log = structlog.get_logger("server.listener")

BACKLOG = 4096
REQUEST_TIMEOUT_S = 10.0
"""A connection must have sent a whole request head in this time, and then make progress with its body."""
BODY_TIMEOUT_S = 60.0
"""A body may take so long as a whole, and a second more for each `BODY_BYTES_PER_S` of it that have come."""
BODY_BYTES_PER_S = 8 * 1024
HEAD_BYTES = 64 * 1024
"""A request head may be so long, and what came with its first bytes."""
LINGER_S = 5.0
"""Who was answered before its body had come may send so much longer: who is cut off at once may miss the answer."""
WRITE_TIMEOUT_S = 30.0
"""A client must have taken a part of its answer in this time."""
LOOKS = 3
"""How often in that time the unsent part is looked at."""
TLS_HANDSHAKE_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 30
CUT_TIMEOUT_S = 2.0


class PatientHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds on how long a request may take to arrive, and its answer to leave."""

    _request_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _body_due = 0.0
    _body_bytes = 0
    _answered_at: float | None = None
    _unsent = 0
    _still = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: it has ten seconds for its request."""
        super().connection_made(transport)
        self._wait_for_client()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S / LOOKS, self._look_at_writing)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or blank lines before one: no connection is without a timer between requests."""
        goes_on = self._in_head
        super().data_received(data)
        if goes_on and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The head of the request is too long.")
                return
        idle = not self._answering()
        timed = self._request_timer is not None or self.timeout_keep_alive_task is not None
        if idle and not timed and self.transport.get_protocol() is self:
            self._wait_for_client()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._wait_for_client()

    def on_headers_complete(self) -> None:
        """The head is whole; a body may follow."""
        super().on_headers_complete()
        self._in_head = False
        self._body_bytes = 0
        self._answered_at = None
        self._body_due = self.loop.time() + BODY_TIMEOUT_S
        self._wait_for_client()

    def on_body(self, body: bytes) -> None:
        """Progress: the clock starts anew, but not for a body that comes in drops."""
        super().on_body(body)
        self._body_bytes += len(body)
        now = self.loop.time()
        if self._answered_at is None and not self._answering():
            self._answered_at = now
        if self._answered_at is not None and now > self._answered_at + LINGER_S:
            self.transport.abort()
        elif now > self._body_due + self._body_bytes / BODY_BYTES_PER_S:
            self._give_up()
        else:
            self._wait_for_client()

    def on_message_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()
        self._stop_waiting()

    def handle_websocket_upgrade(self) -> None:
        """The connection becomes a WebSocket, which has timers of its own."""
        self._stop_waiting()
        if self._answering():
            self.send_400_response("Ask for the WebSocket when the answer to the request before it has come.")
            return
        self._stop_looking()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_waiting()
        self._stop_looking()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn leaves it None until the first request
        return cycle is not None and not cycle.response_complete

    def _wait_for_client(self) -> None:
        self._stop_waiting()
        self._request_timer = self.loop.call_later(REQUEST_TIMEOUT_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _give_up(self) -> None:
        self._request_timer = None
        if self.flow.read_paused:  # it is we who do not read: the application is behind
            self._wait_for_client()
        else:
            self.transport.abort()

    def _look_at_writing(self) -> None:
        # While a client takes nothing of what waits for it, exactly the same number of bytes waits.
        unsent = self.transport.get_write_buffer_size() + _in_kernel(self.transport)
        self._still = self._still + 1 if unsent and unsent == self._unsent else 0
        self._unsent = unsent
        if self._still >= LOOKS:
            self.transport.abort()
        else:
            self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S / LOOKS, self._look_at_writing)

    def _stop_looking(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _in_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the kernel has of us and the client has not: where many fit, ours move only now and then."""
    if sys.platform != "linux":
        return 0
    number = transport.get_extra_info("socket").fileno()
    waiting = fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)) if number >= 0 else bytes(4)
    return int.from_bytes(waiting, sys.byteorder)


class Listener:
    """The open port. `start`, then `close`."""

    def __init__(self, app: Any, door: WebSocketDoor, *, tls: ssl.SSLContext | None) -> None:
        self._config = Config(
            app,
            http=cast(Any, PatientHttp),
            ws=cast(Any, door.protocol_factory),
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            # Anybody can write X-Forwarded-For, and a proxy that only passes bytes on does not replace it.
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            ws_per_message_deflate=False,
        )
        self._state = ServerState()
        self._door = door
        self._tls = tls
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen. Returns the port (the one given, or the one the system chose for 0).

        Raises:
            OSError: the address is taken or not ours.
        """
        self._config.load()
        self._state.default_headers = self._config.encoded_headers
        factory = functools.partial(
            PatientHttp, config=self._config, server_state=self._state, app_state=dict[str, Any]()
        )
        self._server = await asyncio.get_running_loop().create_server(
            factory,
            host,
            port,
            ssl=self._tls,
            backlog=BACKLOG,
            family=socket.AF_UNSPEC,
            ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if self._tls else None,
        )
        return int(self._server.sockets[0].getsockname()[1])

    def stop_accepting(self) -> None:
        """Take no more connections; those open go on."""
        self._door.closing = True
        if self._server is not None:
            self._server.close()

    async def close(self, timeout_s: float) -> None:
        """Let requests in flight end, within the bound, then end what is left."""
        self.stop_accepting()
        for connection in list(self._state.connections):
            connection.shutdown()
        busy = [*self._state.tasks, *self._door.tasks()]
        if busy:
            await asyncio.wait(busy, timeout=timeout_s)
        left = list(self._door.connections)
        for websocket in left:
            websocket.go_away(GOING_AWAY)
        for connection in list(self._state.connections):
            connection.transport.abort()
        if left:
            log.warning("connections cut at shutdown", count=len(left))
            await asyncio.wait(self._door.tasks(), timeout=CUT_TIMEOUT_S)
        for websocket in list(self._door.connections):
            websocket.abort()
