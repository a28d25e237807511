"""Settings → a gateway: the only room that names every face."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog
from fastapi import APIRouter
from websockets.http11 import Request

import asr
from asr.engine import Engine, Model, Readiness
from asr.errors import Action, ASRError, Code
from asr.nim_http import NimHttp
from server import realtime_mount
from server.access.build import Access
from server.access.origins import OriginPolicy, is_loopback, parse_origins
from server.access.porter import Porter
from server.access.rules import SOCKETS
from server.access.vigil import Vigil
from server.admission import Admission
from server.calls import CallLimits, Desk
from server.conversation import Conversation
from server.drive import DriveLimits, Driver
from server.faces import end, job_rest, openai_http, sagemaker, sagemaker_stream, tokens, transcription_rest
from server.faces.http import GOING_DOWN
from server.faces.job_rest import JobDesk
from server.faces.native import NativeConversation
from server.faces.native_setup import NativeLimits, NativeSetup
from server.faces.realtime import http as realtime_http
from server.faces.realtime.minting import Minting
from server.faces.sagemaker import SageMakerLimits
from server.faces.sagemaker_pcm import PlainConversation
from server.faces.sagemaker_stream import Target
from server.faces.status_page import StatusSources
from server.line import Line
from server.models import House, resolve_model
from server.nim.beside import NimBeside
from server.outbox import KeptMemory, Outbox
from server.readiness import ReadinessWatch
from server.realtime_mount import RealtimeMount
from server.rollout.control import Control
from server.rollout.state import Position
from server.sagemaker_mount import KeepPlace, SageMakerMount, Served
from server.sessions import Sessions
from server.settings import ServerSettings, parse_aliases
from server.sockets import Socket
from server.spool import Spool
from server.telemetry.hub import Telemetry
from server.telemetry.status import StatusSink
from server.telemetry.tallies import Tallies
from server.telemetry.watch import StreamWatch
from server.websocket import Route, WebSocket, WebSocketDoor

log = structlog.get_logger("server.stream")

NATIVE_PATH = "/v1/stream"
END_PATH = "/ws"
MODELS_TIMEOUT_S = 2.0
STREAM_GRACE_MS = 10_000
"""How long a two-way stream of SageMaker that has reached its limit may take for its last results."""
MIN_DETACHED = 8
"""Sessions that one caller may have without a connection, however few streams there may be."""


class Conversations:
    """Starts a driver for each WebSocket, and knows those that run."""

    def __init__(self, settings: ServerSettings, engine: Engine, telemetry: Telemetry) -> None:
        self._settings = settings
        self._engine = engine
        self._telemetry = telemetry
        self._kept = KeptMemory()
        self._running: set[Driver] = set()
        limits = NativeLimits(
            start_timeout_ms=settings.start_timeout_ms,
            idle_ms=settings.idle_timeout_ms,
            max_session_ms=settings.max_session_ms,
            max_frame_bytes=settings.max_frame_bytes,
            max_ahead_ms=settings.max_ahead_ms,
            resume_window_ms=settings.resume_window_ms,
        )
        self._drive_limits = DriveLimits(settings.max_ahead_ms, settings.idle_timeout_ms)
        self._house = House(parse_aliases(settings.model_aliases), settings.on_unsupported == "refuse")
        self._admission: Admission | None = None
        self._vigil: Vigil | None = None
        self._sessions = Sessions(
            NativeSetup(f"riva-gateway {asr.__version__}", limits, settings.stereo),
            self._open_native,
            new_id=lambda: secrets.token_hex(8),
            new_token=lambda: secrets.token_urlsafe(16),
            open_line=self._open_line,
            max_detached=max(MIN_DETACHED, settings.max_streams // 10),
            crowded=self._is_crowded,
        )
        self._realtime = RealtimeMount(settings, engine, self._converse, on_refused=self._telemetry.refused)
        self._mount = SageMakerMount(
            Served(self._mounted_native, self._mounted_realtime, self._mounted_plain),
            start_timeout_ms=settings.start_timeout_ms,
        )

    def door(self, admission: Admission, porter: Porter) -> WebSocketDoor:
        """Every WebSocket path there is; `admission` gives connections their places, and `porter` lets them in."""
        self._admission = admission
        self._vigil = Vigil(porter)
        if not porter.gate.is_open:
            self.minting.trust_gate()
        size = self._settings.max_frame_bytes
        routes = {
            NATIVE_PATH: Route(self._serve_native, "native", ("asr.v1",), size, self._sessions.exempt),
            END_PATH: Route(
                self._serve_end, "end", max_message_bytes=size, refusal_text=end.refusal_text, close_code=end.close_code
            ),
            realtime_mount.PATH: self._realtime.route,
            f"{sagemaker_stream.PATH}/": Route(
                self._serve_mounted,
                "sagemaker",
                max_message_bytes=max(size, self._realtime.route.max_message_bytes),
                exempt=self._sessions.exempt,
                refusal_text=sagemaker_stream.error_text,
                read_query=_query_of_mount,
            ),
        }
        settings = self._settings
        return WebSocketDoor(
            routes,
            admission=admission,
            max_connections=settings.max_connections,
            idle_ms=settings.idle_timeout_ms,
            porter=porter,
            rules=SOCKETS,
            on_refused=self._telemetry.refused,
        )

    @property
    def minting(self) -> Minting:
        """Where realtime sessions are made beforehand."""
        return self._realtime.minting

    @property
    def waiting(self) -> int:
        """Sessions that wait for their client."""
        return self._sessions.waiting

    def _is_crowded(self) -> bool:
        admission = self._admission
        return admission is not None and admission.in_use * 10 >= admission.max_streams * 9

    async def drain(self, deadline_ms: int) -> None:
        """Ask every conversation to come to its end within `deadline_ms`; their connections end when they have."""
        self._mount.drain()
        self._sessions.drain(deadline_ms)
        for driver in list(self._running):
            driver.drain(deadline_ms)

    def give_up(self) -> None:
        """The time for that is nearly over: tell those who still wait what is lost."""
        self._sessions.give_up()
        for driver in list(self._running):
            driver.give_up()

    async def aclose(self) -> None:
        """End what is left: sessions without a connection."""
        await self._sessions.aclose()

    async def _serve_native(self, websocket: WebSocket) -> None:
        hinted = "session" in websocket.query
        await self._sessions.serve(websocket, hinted=hinted, keep_place=websocket.keep_place)

    def _open_line(self, core: NativeConversation) -> Line:
        outbox = Outbox(numbered=True, memory=self._kept)
        line = Line(core, outbox=outbox)
        line.over.add_done_callback(lambda _: outbox.release())
        return line

    def _open_native(
        self, session_id: str, core: NativeConversation, line: Line, socket: Socket, opened_at: float
    ) -> Driver:
        watch = self._watch("native", socket, session_id)
        return self._driver(line, core, watch, opened_at, is_audio=True)

    async def _serve_end(self, websocket: WebSocket) -> None:
        settings = self._settings
        core = end.EndConversation(
            start_timeout_ms=settings.start_timeout_ms, max_session_ms=settings.max_session_ms, unix_time=time.time
        )
        await self._converse("end", websocket, core, is_audio=True)

    # SageMaker's mount of the same dialects ----------------------------------------------------------

    async def _serve_mounted(self, websocket: WebSocket) -> None:
        await self._mount.serve(websocket, _target(websocket.request), websocket.keep_place)

    async def _mounted_native(self, socket: Socket, target: Target, keep_place: KeepPlace) -> None:
        limit_ms = self._settings.sagemaker_max_session_ms
        text = f"A connection over SageMaker lasts {limit_ms / 60_000:g} minutes at most. Connect again and resume."
        error = ASRError(Code.UNAVAILABLE, text, action=Action.RESUME)
        parting = asyncio.get_running_loop().call_later(
            limit_ms / 1000, self._sessions.part, socket, error, STREAM_GRACE_MS
        )
        try:
            await self._sessions.serve(socket, hinted="session" in target.query, keep_place=keep_place)
        finally:
            parting.cancel()

    async def _mounted_realtime(self, socket: Socket, target: Target, keep_place: KeepPlace) -> None:
        # Of the client's own headers SageMaker passes none on: only the query tells the dialects apart.
        limit_ms = self._settings.sagemaker_max_session_ms
        await self._realtime.serve(socket, (), target.query, max_session_ms=limit_ms)

    async def _mounted_plain(self, socket: Socket, target: Target, keep_place: KeepPlace) -> None:
        settings = self._settings
        models: Sequence[Model] = ()
        with suppress(ASRError, TimeoutError):  # who cannot tell now is asked again when the stream begins
            async with asyncio.timeout(MODELS_TIMEOUT_S):
                models = await self._engine.models()
        aliases = parse_aliases(settings.model_aliases)
        core = PlainConversation(
            target.queries,
            start_timeout_ms=settings.start_timeout_ms,
            max_session_ms=settings.sagemaker_max_session_ms,
            resolve=lambda asked: resolve_model(asked, models, aliases),
            refuse_unsupported=settings.on_unsupported == "refuse",
            stereo="refuse" if settings.stereo == "refuse" else "mix",
        )
        await self._converse("sagemaker", socket, core, is_audio=True)

    async def _converse(self, face: str, websocket: Socket, core: Conversation, *, is_audio: bool = False) -> None:
        """A conversation that ends with its connection."""
        line = Line(None)
        line.attach(websocket)
        driver = self._driver(line, core, self._watch(face, websocket), is_audio=is_audio)
        self._running.add(driver)
        attending = asyncio.create_task(driver.attend(websocket))
        try:
            await driver.run()
        finally:
            self._running.discard(driver)
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)
            await line.aclose()

    def _watch(self, face: str, socket: Socket, session_id: str = "") -> StreamWatch:
        traceparent, tracestate = socket.trace
        return self._telemetry.open(
            face,
            kind="live",
            peer=socket.peer,
            principal=socket.principal,
            traceparent=traceparent,
            tracestate=tracestate,
            session_id=session_id,
        )

    def _driver(
        self,
        line: Line,
        core: Conversation,
        watch: StreamWatch,
        opened_at: float | None = None,
        *,
        is_audio: bool = False,
    ) -> Driver:
        return Driver(
            line,
            core,
            self._engine,
            limits=self._drive_limits,
            watch=watch,
            opened_at=opened_at,
            house=self._house,
            is_audio=is_audio,
            vigil=self._vigil,
        )


def _target(request: Request) -> Target:
    return sagemaker_stream.read_target(request.path, lambda name: request.headers.get(name, ""))


def _query_of_mount(request: Request) -> dict[str, str]:
    """For the door, which lets in who names a session to return to: only the native dialect has those."""
    target = _target(request)
    return target.query if sagemaker_stream.by_target(target) is sagemaker_stream.Dialect.NATIVE else {}


def build_porter(settings: ServerSettings, access: Access, tallies: Tallies) -> Porter:
    """Who stands at every door.

    A gateway that asks for no credential and listens on this machine alone answers to its own names only: else any
    web page could reach it under a name of its own.
    """
    is_local = is_loopback(settings.host)
    origins = OriginPolicy(
        parse_origins(settings.allowed_origins),
        is_tls=settings.tls,
        own_hosts=[settings.host] if access.gate.is_open and is_local else (),
    )
    tallies.quota_refused = access.quotas.refused
    return Porter(access.gate, origins, usage=access.quotas, is_local=is_local, refused=tallies.access_refused)


def build_desk(
    settings: ServerSettings, engine: Engine, admission: Admission, porter: Porter, telemetry: Telemetry
) -> Desk:
    """Where the call-shaped faces have their recordings recognized."""
    return Desk(
        engine,
        admission,
        Spool(settings.spool_folder, settings.spool_max_bytes),
        limits=CallLimits(settings.max_upload_bytes, settings.max_audio_ms),
        aliases=parse_aliases(settings.model_aliases),
        refuse_unsupported=settings.on_unsupported == "refuse",
        stereo=settings.stereo,
        porter=porter,
        telemetry=telemetry,
    )


def http_routers(
    settings: ServerSettings,
    desk: Desk,
    watch: ReadinessWatch,
    minting: Minting,
    access: Access,
    jobs: JobDesk | None = None,
) -> list[APIRouter]:
    """The HTTP side of every face that has one; without `jobs` there are none."""
    rest = [
        tokens.router(access.tokens, desk.porter),
        transcription_rest.router(desk, watch=watch, now=_utc_now, version=asr.__version__, has_jobs=jobs is not None),
    ]
    if jobs is not None:
        rest.append(job_rest.router(desk, jobs, max_upload_bytes=settings.jobs_max_upload_bytes))
    return [
        openai_http.router(desk),
        realtime_http.router(minting, readiness(desk)),
        *rest,
        sagemaker_router(settings, desk, watch),
    ]


def readiness(desk: Desk, nim: NimBeside | None = None) -> Callable[[], Awaitable[Readiness]]:
    """Asks whether the gateway can serve; the NIM beside it knows more of itself than the engine does."""
    can_serve = desk.engine.ready if nim is None else nim.ready

    async def ready() -> Readiness:
        return Readiness(False, GOING_DOWN) if desk.draining else await can_serve()

    return ready


def _utc_now() -> datetime:
    return datetime.now(UTC)


def sagemaker_router(settings: ServerSettings, desk: Desk, watch: ReadinessWatch) -> APIRouter:
    """The SageMaker calls, with the HTTP API of a NIM where one is named."""
    return sagemaker.router(
        desk,
        nim=NimHttp(settings.nim_host, settings.nim_http_port) if settings.nim_host else None,
        watch=watch,
        limits=SageMakerLimits(settings.sagemaker_max_bytes, settings.sagemaker_timeout_ms),
    )


def status_sources(
    engine: Engine,
    admission: Admission,
    watch: ReadinessWatch,
    sink: StatusSink,
    rollout: Control,
    jobs: Callable[[], Awaitable[Mapping[str, int]]] | None,
) -> StatusSources:
    """Whom the status page asks."""
    return StatusSources(
        engine,
        admission,
        watch,
        sink,
        clock=time.monotonic,
        unix_time=time.time,
        started_at=time.monotonic(),
        version=asr.__version__,
        jobs=jobs,
        rollout=lambda: _position(rollout),
    )


def _position(rollout: Control) -> dict[str, str | int] | None:
    """What the status page tells of a rollout; nothing where there is none. Who changed it, and why, is for admins."""
    engine = rollout.engine
    wanted, comparison = engine.wanted, engine.comparison
    if not (engine.has_former or engine.has_canary) and wanted.position is Position.ON:
        return None
    return {
        "position": wanted.position.value,
        "canary_percent": wanted.canary_percent,
        "words": rollout.in_words(),
        "changed_at": wanted.changed_at,
        "canary": comparison.verdict().words if comparison is not None else "",
        "aborts": engine.tallies.canary_aborts,
    }


def page_folder() -> Path:
    """The browser page: inside the installed package, or beside `src/` in a checkout.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "static", here.parents[1] / "static"):
        if (folder / "index.html").is_file():
            return folder
    raise FileNotFoundError("The browser page (static/index.html) is missing from this installation. Install it again.")
