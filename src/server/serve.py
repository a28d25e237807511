"""Both listeners in one loop, from the first socket to a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import structlog

import asr
from asr.engine import Engine
from asr.errors import ASRError, Code
from server.access.build import build_access
from server.access.grpc import GrpcAccess
from server.access.origins import is_loopback
from server.access.porter import Porter
from server.access.rules import GRPC
from server.admission import Admission
from server.build import (
    Conversations,
    build_desk,
    build_porter,
    http_routers,
    page_folder,
    readiness,
    status_sources,
)
from server.calls import Desk
from server.faces import rollout_admin, status_page
from server.faces.http import build_http
from server.faces.riva_grpc import RivaFace, RivaFaceLimits, add_riva_face
from server.jobs.service import Jobs
from server.listener import Listener
from server.nim.beside import NimBeside
from server.nim.build import build_nim
from server.readiness import ReadinessWatch
from server.rollout.build import build_rollout
from server.settings import ServerSettings, parse_aliases
from server.telemetry.build import build_telemetry
from server.telemetry.hub import Telemetry
from server.telemetry.readings import Sources
from server.tls.keeper import Certificates, build_certificates

log = structlog.get_logger("server")

ENGINE_CLOSE_TIMEOUT_S = 10.0
GRPC_LOOK_S = 0.05
GRPC_LAST_WORDS_S = 0.5
"""While draining: how often it is looked whether calls are left, and how long the last answers get to leave."""
GRPC_OPTIONS = [
    ("grpc.so_reuseport", 0),
    # A connection without a word gets no longer than one on the HTTP port.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A dead peer is noticed, and a live one may be quiet.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 300_000),
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
        host = "localhost" if self.host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


async def serve(
    settings: ServerSettings,
    *,
    announce: Callable[[Addresses], None],
    engine: Engine | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then let streams finish, within `DRAIN_TIMEOUT_MS`.

    Args:
        settings: where to listen, and behind which engine.
        announce: called once, when both ports are open.
        engine: used instead of the one that the settings name; it is closed at the end.
        stop: set it to end the server from inside the process.

    Raises:
        ASRError: `bad_request`, when a port, a certificate or `NIM_COMMAND` cannot be used; `unavailable`, when the
            NIM that it started has ended or was not ready in time. Nothing is left open.
    """
    _check_said(settings)
    stop = stop if stop is not None else asyncio.Event()
    rollout = build_rollout(settings, engine)
    engine = rollout.engine
    admission = Admission(
        settings.max_streams,
        random=random.random,
        clock=time.monotonic,
        reserve_percent=settings.fair_share_reserve_percent,
        max_streams_per_key=settings.max_streams_per_key,
        engine_refusal=engine.refusal,
    )
    certificates = build_certificates(settings)
    monitoring = build_telemetry(settings)
    telemetry = monitoring.hub
    _tell_read_only(settings.state_dir)
    rollout.engine.report_to(telemetry.tallies)
    telemetry.tallies.certificate_expiry = certificates.ends
    conversations = Conversations(settings, engine, telemetry)
    access = build_access(settings, more=(conversations.minting,))
    porter = build_porter(settings, access, telemetry.tallies)
    desk = build_desk(settings, engine, admission, porter, telemetry)
    jobs: Jobs | None = None
    if settings.jobs:
        jobs = Jobs(settings, engine, admission, desk.spool, telemetry=telemetry, heard=access.quotas.charge)
    nim = build_nim(settings, engine, stop)
    watch = ReadinessWatch(readiness(desk, nim))
    routers = [
        *http_routers(settings, desk, watch, conversations.minting, access, jobs),
        *monitoring.routers,
        rollout_admin.router(rollout),
        status_page.router(
            status_sources(
                engine, admission, watch, monitoring.status, rollout, jobs.counts if jobs is not None else None
            ),
            page_folder(),
        ),
    ]
    door = conversations.door(admission, porter)
    app = build_http(
        engine,
        admission,
        routers,
        sockets=door.routes,
        porter=porter,
        only_tls=settings.tls_cert is not None and settings.tls and not is_loopback(settings.host),
        version=asr.__version__,
        page=page_folder(),
    )
    listener = Listener(app, door, tls=certificates.https)
    grpc_side: _GrpcSide | None = None
    warm_up: asyncio.Task[object] | None = None
    sources = Sources(
        asr.__version__,
        engine,
        admission,
        sessions_waiting=lambda: conversations.waiting,
        jobs=jobs.counts if jobs is not None else None,
        spool_bytes=lambda: desk.spool.used_bytes,
    )
    try:
        monitoring.start(sources)
        await access.start()
        await rollout.start()
        try:
            port = await listener.start(settings.host, settings.port)
        except OSError as error:
            raise _cannot_listen("PORT", settings.host, settings.port, error) from error
        if settings.grpc_port is not None:
            grpc_side = await _start_grpc(settings, engine, admission, certificates, porter, telemetry)
        grpc_port = None if grpc_side is None else grpc_side.port
        if jobs is not None:
            await jobs.start()
        certificates.start()
        with _Signals(stop):
            announce(Addresses(settings.host, port, grpc_port, settings.tls, engine.name))
            if nim is not None:
                nim.start()
            warm_up = asyncio.create_task(engine.ready())
            gc.freeze()
            await stop.wait()
        if nim is not None:
            nim.leave_at_second_signal()
        await _drain(settings, admission, conversations, desk, listener, grpc_side, jobs)
    finally:
        if warm_up is not None:
            warm_up.cancel()
        await listener.close(0)
        await certificates.aclose()
        await access.aclose()
        await watch.aclose()
        await conversations.aclose()
        if grpc_side is not None:
            await grpc_side.server.stop(0)
        if jobs is not None:
            await jobs.aclose()
        await rollout.aclose()
        if nim is not None:
            await nim.aclose()
        await _close(engine)
        await monitoring.aclose()
        gc.unfreeze()
    log.info("stopped")
    _check_nim(nim)


def _check_said(settings: ServerSettings) -> None:
    """Raises `bad_request` where others could come in unasked, and nobody has said that they may."""
    if settings.auth is not None or settings.auth_is_on or settings.asks_certificates or is_loopback(settings.host):
        return
    text = (
        f"Other machines could reach the gateway on {settings.host}, and there is no key to ask them for. Make one "
        "(riva-gateway key create NAME), or say that everybody may come in (--auth off, AUTH=off)."
    )
    raise ASRError(Code.BAD_REQUEST, text, param="AUTH")


def _check_nim(nim: NimBeside | None) -> None:
    """Raises where the gateway had to end because of the NIM beside it."""
    if nim is not None and nim.failure:
        raise ASRError(Code.BAD_REQUEST if nim.was_never_started else Code.UNAVAILABLE, nim.failure)


def _tell_read_only(state_dir: Path) -> None:
    """Streams need no disk; the rest is missed only when it is wanted, and who has set it up is gone by then."""
    found = state_dir
    while not found.exists() and found != found.parent:
        found = found.parent
    if not os.access(found, os.W_OK | os.X_OK):
        log.warning(
            "STATE_DIR cannot be written; live streams go on",
            state_dir=str(state_dir),
            missing="what would be kept there: uploads, jobs, records, changes of the rollout",
            advice="name a folder or volume that can be written; JOBS=off and RECORDS=off do without",
        )


async def _drain(
    settings: ServerSettings,
    admission: Admission,
    conversations: Conversations,
    desk: Desk,
    listener: Listener,
    grpc_side: _GrpcSide | None,
    jobs: Jobs | None,
) -> None:
    """End in good order: health says so first, then the ports close, then every stream gets its last results."""
    loop = asyncio.get_running_loop()
    log.info(
        "draining",
        streams=admission.in_use,
        admitted=admission.admitted,
        refused=admission.refused.total(),
        delay_ms=settings.drain_delay_ms,
        bound_ms=settings.drain_timeout_ms,
    )
    admission.drain()
    if grpc_side is not None:
        grpc_side.face.close()
    await asyncio.sleep(settings.drain_delay_ms / 1000)
    due = loop.time() + settings.drain_timeout_ms / 1000
    listener.stop_accepting()
    grpc_stop: asyncio.Task[None] | None = None
    if grpc_side is not None:
        grpc_side.face.drain()
        grpc_stop = asyncio.create_task(grpc_side.stop(settings.drain_timeout_ms / 1000))
    handing_back = None if jobs is None else asyncio.create_task(jobs.drain())
    await conversations.drain(settings.drain_timeout_ms)
    # A last second is for those whose recognizer is stuck: they are told what is lost.
    late = due - min(1.0, settings.drain_timeout_ms / 4000)
    last_words = [loop.call_at(late, waiting.give_up) for waiting in (conversations, desk)]
    await listener.close(max(due - loop.time(), 0))
    for word in last_words:
        word.cancel()
    if grpc_stop is not None:
        await grpc_stop
    if handing_back is not None:
        await handing_back


async def _close(engine: Engine) -> None:
    try:
        async with asyncio.timeout(ENGINE_CLOSE_TIMEOUT_S):
            await engine.aclose()
    except TimeoutError:
        log.error("engine did not close", engine=engine.name)


@dataclass(frozen=True, slots=True)
class _GrpcSide:
    server: grpc.aio.Server
    access: GrpcAccess
    face: RivaFace
    port: int

    async def stop(self, grace_s: float) -> None:
        """Let calls end, within the bound. A connection without one keeps nobody waiting, whatever its client does."""
        stopping = asyncio.create_task(self.server.stop(grace_s))
        while self.access.is_serving and not stopping.done():
            await asyncio.wait({stopping}, timeout=GRPC_LOOK_S)
        await self.server.stop(min(grace_s, GRPC_LAST_WORDS_S))
        await stopping


async def _start_grpc(
    settings: ServerSettings,
    engine: Engine,
    admission: Admission,
    certificates: Certificates,
    porter: Porter,
    telemetry: Telemetry,
) -> _GrpcSide:
    # Calls that are refused or only ask for health are calls too.
    most = settings.max_streams + settings.max_connections
    access = GrpcAccess(porter, GRPC, most_calls=most - settings.max_connections // 2)
    # Who connects and says nothing must not take the descriptors that the other port needs.
    options = [*GRPC_OPTIONS, ("grpc.max_allowed_incoming_connections", 2 * most)]
    server = grpc.aio.server(interceptors=[access], options=options, maximum_concurrent_rpcs=most)
    face = add_riva_face(
        server,
        engine,
        admission,
        stereo=settings.stereo,
        aliases=parse_aliases(settings.model_aliases),
        refuse_unsupported=settings.on_unsupported == "refuse",
        limits=RivaFaceLimits(max_audio_ms=settings.max_audio_ms),
        porter=porter,
        telemetry=telemetry,
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    try:
        if settings.grpc_secure:
            port = server.add_secure_port(address, certificates.grpc_credentials())
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _cannot_listen("GRPC_PORT", settings.host, settings.grpc_port or 0, error) from error
    await server.start()
    return _GrpcSide(server, access, face, port)


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
