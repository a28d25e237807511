"""Settings → a gateway: the only room that names every face."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

import structlog

import asr
from asr.engine import Engine
from server.conversation import Conversation
from server.drive import DriveLimits, Driver, Tally
from server.faces.end import EndConversation
from server.faces.native import NativeConversation, NativeLimits, NativeSetup
from server.settings import ServerSettings
from server.websocket import Route, WebSocket, WebSocketDoor

log = structlog.get_logger("server.stream")

NATIVE_PATH = "/v1/stream"
END_PATH = "/ws"


class LogObserver:
    """One log line when a conversation begins, one when it ends."""

    def opened(self, face: str, peer: str) -> None:
        """See `server.drive.Observer`."""
        log.info("stream opened", face=face, peer=peer)

    def closed(self, face: str, peer: str, tally: Tally, duration_s: float) -> None:
        """See `server.drive.Observer`."""
        log.info(
            "stream closed",
            face=face,
            peer=peer,
            duration_ms=int(duration_s * 1000),
            audio_ms=tally.audio_ms,
            finals=tally.finals,
            close_code=tally.close_code,
            error=tally.error or None,
        )


class Conversations:
    """Starts a driver for each WebSocket, and knows those that run."""

    def __init__(self, settings: ServerSettings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._observer = LogObserver()
        self._running: set[Driver] = set()
        limits = NativeLimits(
            start_timeout_ms=settings.start_timeout_ms,
            idle_ms=settings.idle_timeout_ms,
            max_session_ms=settings.max_session_ms,
            max_frame_bytes=settings.max_frame_bytes,
            max_ahead_ms=settings.max_ahead_ms,
        )
        self._native = NativeSetup(f"riva-gateway {asr.__version__}", limits, settings.stereo)
        self._drive_limits = DriveLimits(settings.max_ahead_ms, settings.idle_timeout_ms)

    def door(self) -> WebSocketDoor:
        """Every WebSocket path there is."""
        size = self._settings.max_frame_bytes
        routes = {
            NATIVE_PATH: Route(self._serve_native, ("asr.v1",), size),
            END_PATH: Route(self._serve_end, (), size),
        }
        settings = self._settings
        return WebSocketDoor(routes, max_connections=settings.max_connections, idle_ms=settings.idle_timeout_ms)

    async def drain(self) -> None:
        """Bring every conversation to its end."""
        await asyncio.gather(*(driver.drain() for driver in self._running))

    async def _serve_native(self, websocket: WebSocket) -> None:
        await self._drive("native", websocket, NativeConversation(self._native, secrets.token_hex(8)))

    async def _serve_end(self, websocket: WebSocket) -> None:
        settings = self._settings
        core = EndConversation(
            start_timeout_ms=settings.start_timeout_ms, max_session_ms=settings.max_session_ms, unix_time=time.time
        )
        await self._drive("end", websocket, core)

    async def _drive(self, face: str, websocket: WebSocket, core: Conversation) -> None:
        driver = Driver(face, websocket, core, self._engine, limits=self._drive_limits, observer=self._observer)
        self._running.add(driver)
        try:
            await driver.run()
        finally:
            self._running.discard(driver)


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
