"""Both listeners in one loop, from the first socket to a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio
import structlog

import asr
from asr.build import build_engine
from asr.engine import Engine
from asr.errors import ASRError, Code
from server.build import Conversations, page_folder
from server.certificates import localhost_certificate, server_ssl_context
from server.faces.http import build_http
from server.faces.riva_grpc import RivaFace, add_riva_face
from server.listener import Listener
from server.settings import ServerSettings

log = structlog.get_logger("server")

DRAIN_TIMEOUT_S = 10.0
GRPC_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a gateway listens.

    Attributes:
        host: as bound.
        port: HTTP and WebSocket.
        grpc_port: the Riva face, or None where it is off.
        tls: whether `port` speaks TLS.
        engine: name of the engine behind it.
    """

    host: str
    port: int
    grpc_port: int | None
    tls: bool
    engine: str

    @property
    def url(self) -> str:
        """What to open in a browser."""
        host = "localhost" if self.host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::") else self.host  # noqa: S104
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


async def serve(
    settings: ServerSettings,
    *,
    announce: Callable[[Addresses], None],
    engine: Engine | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then let streams finish, within ten seconds.

    Args:
        settings: where to listen, and behind which engine.
        announce: called once, when both ports are open.
        engine: used instead of the one that the settings name; it is closed at the end.
        stop: set it to end the server from inside the process.

    Raises:
        ASRError: `bad_request`, when a port or certificate cannot be used. Nothing is left open.
    """
    stop = stop if stop is not None else asyncio.Event()
    engine = engine if engine is not None else build_engine(settings)
    conversations = Conversations(settings, engine)
    tls = _tls_context(settings)
    listener = Listener(build_http(engine, version=asr.__version__, page=page_folder()), conversations.door(), tls=tls)
    grpc_server: grpc.aio.Server | None = None
    grpc_face: RivaFace | None = None
    warm_up: asyncio.Task[object] | None = None
    try:
        try:
            port = await listener.start(settings.host, settings.port)
        except OSError as error:
            raise _cannot_listen("PORT", settings.host, settings.port, error) from error
        grpc_port: int | None = None
        if settings.grpc_port is not None:
            grpc_server, grpc_face, grpc_port = await _start_grpc(settings, engine)
        with _Signals(stop):
            announce(Addresses(settings.host, port, grpc_port, tls is not None, engine.name))
            warm_up = asyncio.create_task(engine.ready())
            gc.freeze()
            await stop.wait()
        log.info("draining", timeout_s=DRAIN_TIMEOUT_S)
        listener.stop_accepting()
        if grpc_face is not None:
            grpc_face.drain()
        grpc_stop = asyncio.create_task(grpc_server.stop(DRAIN_TIMEOUT_S)) if grpc_server is not None else None
        await conversations.drain()
        await listener.close(DRAIN_TIMEOUT_S)
        if grpc_stop is not None:
            await grpc_stop
    finally:
        if warm_up is not None:
            warm_up.cancel()
        await listener.close(0)
        if grpc_server is not None:
            await grpc_server.stop(0)
        await engine.aclose()
        gc.unfreeze()
    log.info("stopped")


def _tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    if settings.tls_cert is not None and settings.tls_key is not None:
        return server_ssl_context(settings.tls_cert, settings.tls_key)
    return server_ssl_context(*localhost_certificate(settings.state_dir))


async def _start_grpc(settings: ServerSettings, engine: Engine) -> tuple[grpc.aio.Server, RivaFace, int]:
    server = grpc.aio.server(options=GRPC_OPTIONS)
    face = add_riva_face(server, engine, stereo=settings.stereo)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise _cannot_listen("GRPC_PORT", settings.host, settings.grpc_port or 0, error) from error
    await server.start()
    return server, face, port


def _cannot_listen(key: str, host: str, port: int, error: Exception) -> ASRError:
    if not isinstance(error, OSError):  # gRPC keeps the reason to itself, so the system is asked once more
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
                probe.listen()
        except OSError as reason:
            error = reason
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror) or number == errno.EADDRNOTAVAIL:
        return ASRError(
            Code.BAD_REQUEST,
            f"Cannot listen on {host}: it is not an address of this machine. Correct --host or LISTEN_HOST: "
            "127.0.0.1 is for this machine alone, 0.0.0.0 lets others in.",
            param="LISTEN_HOST",
        )
    why = "this user may not open that port" if number in (errno.EACCES, errno.EPERM) else "the port is in use"
    flag = f"--{key.lower().replace('_', '-')}"
    return ASRError(
        Code.BAD_REQUEST,
        f"Cannot listen on {host}:{port}: {why}. Choose another with {flag} or {key}; 0 takes a free one.",
        param=key,
    )


class _Signals:
    """SIGTERM and SIGINT ask for a clean end; a second one ends the process at once."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ask)

    def _ask(self) -> None:
        self._stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
