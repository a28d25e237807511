"""`/v1/realtime`: which dialect a client speaks, whether it may come in, and the conversation that is held with it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from asr.engine import Engine, Model
from asr.errors import ASRError, Code
from server.conversation import Conversation
from server.faces.realtime import nim_events
from server.faces.realtime.audio import MAX_MESSAGE_BYTES
from server.faces.realtime.dialect import POLICY_VIOLATION, SUBPROTOCOL, Dialect, Handshake, read_handshake
from server.faces.realtime.minting import Minting
from server.faces.realtime.nim import NimConversation
from server.faces.realtime.openai import OpenAIRealtime
from server.faces.realtime.setup import RealtimeSetup
from server.realtime_socket import PiecewiseSocket
from server.settings import ServerSettings, parse_aliases
from server.sockets import Socket, SocketClosed
from server.websocket import Route, WebSocket

PATH = "/v1/realtime"
FACE = "realtime"
MODELS_TIMEOUT_S = 2.0
"""How long a client waits, at its opening, for the names of the models; without them its model is checked later."""

Json = dict[str, Any]


class RealtimeMount:
    """The realtime dialects of a server.

    Attributes:
        minting: where sessions are made beforehand.
        route: what answers at `PATH`.

    Args:
        settings: of the server.
        engine: who recognizes.
        converse: holds a conversation until its end: the face's name, the connection and the core.
        on_refused: told of the face and the reason, when somebody is not let in.
    """

    def __init__(
        self,
        settings: ServerSettings,
        engine: Engine,
        converse: Callable[[str, Socket, Conversation], Awaitable[None]],
        *,
        on_refused: Callable[[str, Code], None],
    ) -> None:
        self._on_refused = on_refused
        self._engine = engine
        self._converse = converse
        self._setup = RealtimeSetup(
            start_timeout_ms=settings.start_timeout_ms,
            max_session_ms=settings.max_session_ms,
            # Results name no channel there: what would be split is mixed, and that is told.
            stereo="refuse" if settings.stereo == "refuse" else "mix",
            refuse_unsupported=settings.on_unsupported == "refuse",
            aliases=parse_aliases(settings.model_aliases),
        )
        key = settings.realtime_auth_mint_api_key
        self.minting = Minting(
            key=key.get_secret_value() if key is not None else "",
            ttl_ms=settings.realtime_token_ttl_ms,
            unix_time=time.time,
            new_secret=lambda: secrets.token_urlsafe(24),
            new_id=new_id,
        )
        self.route = Route(
            self._serve,
            FACE,
            (SUBPROTOCOL,),
            MAX_MESSAGE_BYTES,
            refusal_text=nim_events.refusal_text,
            close_code=nim_events.close_code,
        )

    async def _serve(self, websocket: WebSocket) -> None:
        await self.serve(websocket, websocket.request.headers.raw_items(), websocket.query)

    async def serve(
        self,
        websocket: Socket,
        headers: Iterable[tuple[str, str]],
        query: Mapping[str, str],
        *,
        max_session_ms: int | None = None,
    ) -> None:
        """Run a connection to its end.

        Args:
            websocket: the connection.
            headers: those of its handshake.
            query: the fields of its query.
            max_session_ms: how long it may last, where that is less than elsewhere.
        """
        shown = read_handshake(headers, query)
        try:
            if shown.refusal is not None:
                raise shown.refusal
            given = self.minting.admit(shown)
        except ASRError as error:
            self._on_refused(FACE, error.code)
            with suppress(SocketClosed):
                websocket.send_now(nim_events.refusal_text(error))
            await websocket.close(POLICY_VIOLATION, error.code.value)
            return
        setup = replace(self._setup, models=await self._models(), features=self._engine.features)
        if max_session_ms is not None:
            setup = replace(setup, max_session_ms=min(setup.max_session_ms, max_session_ms))
        socket = PiecewiseSocket(websocket)
        await self._converse(f"{FACE} {shown.dialect}", socket, core_for(shown, setup, given))

    async def _models(self) -> tuple[Model, ...]:
        with suppress(ASRError, TimeoutError):
            async with asyncio.timeout(MODELS_TIMEOUT_S):
                return tuple(await self._engine.models())
        return ()


def core_for(shown: Handshake, setup: RealtimeSetup, given: Json | None) -> Conversation:
    """The conversation for a client that came in.

    Args:
        shown: its handshake; the model in it counts where its session names none.
        setup: what every conversation of a server has in common.
        given: the settings that its session was made with, or None.
    """
    config = dict(given or {})
    if shown.model:
        nested = shown.dialect is Dialect.OPENAI
        path = ("audio", "input", "transcription") if nested else ("input_audio_transcription",)
        _name_model(config, path, shown.model)
    if shown.dialect is Dialect.NIM:
        return NimConversation(setup, config, new_id)
    return OpenAIRealtime(shown.dialect, setup, config, new_id)


def new_id(prefix: str) -> str:
    """A name that nobody guesses: `item_…`."""
    return f"{prefix}_{secrets.token_hex(10)}"


def _name_model(config: Json, path: tuple[str, ...], model: str) -> None:
    for name in path:
        inner = config.get(name)
        config[name] = dict(inner) if isinstance(inner, dict) else {}
        config = config[name]
    config.setdefault("model", model)
