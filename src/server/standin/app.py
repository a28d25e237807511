"""The stand-in NIM's HTTP API and realtime WebSocket as an ASGI application."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
import uuid
from collections import deque
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.mock.messages import pick_model
from asr.mock.plan import MockPlan
from asr.mock.recognition import Refusal, hear_all
from asr.mock.responses import Request as ScriptRequest
from asr.mock.sniff import Sniffer
from server.standin.multipart import read_form
from server.standin.realtime import RealtimeSession, new_session

SECRET_LIFE_S = 60
_MAX_SECRETS = 1_000
_TOKEN_PREFIX = "realtime-token."  # noqa: S105 - a protocol's word, no secret
_FORM_SLACK_BYTES = 64 * 1024
_BODY_S = 60.0
_READY = {
    "object": {"object": "health.response", "message": "ready", "status": "ready"},
    "status": {"status": "ready"},
    "ready": {"ready": True},
}


class StandinApp:
    """The state that the routes share; `asgi` is the application.

    Attributes:
        plan: may be exchanged at any time; it holds for the requests and sockets that begin after.
        sockets: how many realtime sockets have been opened.
    """

    def __init__(self, plan: MockPlan) -> None:
        """Serve `plan`."""
        self.plan = plan
        self.sockets = 0
        self._ready_asked = 0
        self._secrets: deque[str] = deque(maxlen=_MAX_SECRETS)
        self.asgi = Starlette(
            routes=[
                Route("/v1/health/ready", self.ready),
                Route("/v1/health/live", self.live),
                Route("/v1/realtime/health", self.live),
                Route("/v1/metadata", self.metadata),
                Route("/v1/version", self.version),
                Route("/v1/models", self.models),
                Route("/v1/metrics", self.metrics),
                Route("/v1/audio/transcriptions", self.transcriptions, methods=["POST"]),
                Route("/v1/realtime/transcription_sessions", self.mint, methods=["POST"]),
                WebSocketRoute("/v1/realtime", self.realtime),
            ]
        )

    async def ready(self, _request: Request) -> Response:
        """Readiness: 503 as often as the plan says, then 200 in the shape it says."""
        self._ready_asked += 1
        if self._ready_asked <= self.plan.http.not_ready_answers:
            return JSONResponse({"object": "health.response", "message": "not ready", "status": "not_ready"}, 503)
        return JSONResponse(_READY[self.plan.http.ready_body])

    async def live(self, _request: Request) -> Response:
        """Liveness."""
        return JSONResponse({"object": "health.response", "message": "live", "status": "live"})

    async def metadata(self, _request: Request) -> Response:
        """What this is."""
        return JSONResponse({"assetInfo": [], "version": "0.0.0-standin", "modelInfo": self._model_rows()})

    async def version(self, _request: Request) -> Response:
        """Which release this is."""
        return JSONResponse({"release": "0.0.0-standin", "api": "1.0.0"})

    async def models(self, _request: Request) -> Response:
        """The models in OpenAI's list shape, where the plan has the route."""
        if not self.plan.http.models_route:
            return JSONResponse({"detail": "Not Found"}, 404)
        return JSONResponse({"object": "list", "data": self._model_rows()})

    async def metrics(self, _request: Request) -> Response:
        """A few of a NIM's metric names, with made-up figures."""
        return PlainTextResponse(
            "# TYPE gpu_utilization gauge\ngpu_utilization 0\n"
            "# TYPE gpu_memory_total_bytes gauge\ngpu_memory_total_bytes 0\n"
        )

    async def transcriptions(self, request: Request) -> Response:
        """A file in, its text out; only with an offline model, as a NIM."""
        plan = self.plan
        if self._ready_asked < plan.http.not_ready_answers:
            return self._refuse("The model is still loading", 503)
        try:
            async with asyncio.timeout(_BODY_S):
                body = await _read_body(request, plan.http.max_file_bytes + _FORM_SLACK_BYTES)
        except (ClientDisconnect, TimeoutError):
            return self._refuse("the request was not sent to its end", 408)
        if body is None:
            return self._refuse("audio too long")
        form = read_form(request.headers.get("content-type", ""), body)
        audio = form.get("file")
        if audio is None:
            return JSONResponse(
                {"error": {"message": "file: Field required", "type": "BadRequestError", "code": 400}}, 400
            )
        if len(audio) > plan.http.max_file_bytes:
            return self._refuse("audio too long")
        model, language = (form.get(key, b"").decode("utf-8", "replace").strip() for key in ("model", "language"))
        if not model and not language:
            return self._refuse("Bad Request, need model or language")
        if (model and plan.http.bad_model) or not pick_model(
            plan.server.models, name=model, language="" if model else language, kind="offline"
        ):
            return self._refuse("bad model")
        try:
            results = await asyncio.to_thread(hear_all, plan, Sniffer(), audio, ScriptRequest())
        except Refusal as refusal:
            return self._refuse(refusal.message, 400 if refusal.status == "INVALID_ARGUMENT" else 503)
        text = "".join(r.alternatives[0].transcript for r in results if r.alternatives).strip()
        if form.get("response_format", b"json").strip() == b"text":
            return PlainTextResponse(text)
        answer: dict[str, Any] = {"text": text}
        if plan.http.usage:
            answer["usage"] = {
                "type": "duration",
                "seconds": max((r.audio_processed_ms for r in results), default=0) / 1000,
            }
        return JSONResponse(answer)

    async def mint(self, request: Request) -> Response:
        """A realtime session object, with a secret where the plan asks for a key."""
        key = self.plan.realtime.mint_api_key
        if not key:
            return JSONResponse(new_session(_new_id("sess")))
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode(), key.encode()):
            realm = {"WWW-Authenticate": 'Bearer realm="riva-standin"'}
            return JSONResponse({"detail": "Invalid or missing API key"}, 401, headers=realm)
        secret = secrets.token_urlsafe(24)
        self._secrets.append(secret)
        return JSONResponse(
            new_session(_new_id("sess"), {"value": secret, "expires_at": int(time.time()) + SECRET_LIFE_S})
        )

    async def realtime(self, socket: WebSocket) -> None:
        """The realtime socket: NIM's transcription dialect."""
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(subprotocol="realtime" if "realtime" in offered else None)
        if socket.query_params.get("intent") != "transcription":
            await socket.close(1008, "intent=transcription is required")
            return
        token = next((p.removeprefix(_TOKEN_PREFIX) for p in offered if p.startswith(_TOKEN_PREFIX)), "")
        if self.plan.realtime.mint_api_key and token not in self._secrets:
            await socket.close(1008, "a realtime-token subprotocol is required")
            return
        self.sockets += 1
        try:
            await _converse(socket, self.plan, RealtimeSession(self.plan, self.sockets, _new_id))
        except WebSocketDisconnect:
            return

    def _model_rows(self) -> list[dict[str, Any]]:
        return [{"id": m.name, "object": "model", "owned_by": "standin"} for m in self.plan.server.models]

    def _refuse(self, message: str, status: int = 400) -> Response:
        if self.plan.http.error_shape == "openai":
            return JSONResponse({"error": {"message": message, "type": "BadRequestError", "code": status}}, status)
        return JSONResponse({"detail": message}, status)


async def _converse(socket: WebSocket, plan: MockPlan, session: RealtimeSession) -> None:
    answered = False
    events = session.opened()
    while True:
        for event in events:
            if event["type"].startswith("conversation.item."):
                wait_ms = plan.delay.response_ms + (0 if answered else plan.delay.first_response_ms)
                answered = True
                if wait_ms:
                    await asyncio.sleep(wait_ms / 1000)
            await socket.send_text(json.dumps(event))
        if session.close is not None:
            await socket.close(session.close)
            return
        if session.hung is not None:
            await _hang(socket, plan.delay.hang_ms / 1000, reads=session.hung != "stop_reading")
            return
        try:
            async with asyncio.timeout(plan.realtime.idle_close_ms / 1000):
                message = await socket.receive()
        except TimeoutError:
            await socket.close(1000, "idle")
            return
        if message["type"] == "websocket.disconnect":
            return
        events = session.received(message.get("text") or message.get("bytes") or "")


async def _hang(socket: WebSocket, limit_s: float, *, reads: bool) -> None:
    try:
        async with asyncio.timeout(limit_s):
            while reads:
                if (await socket.receive())["type"] == "websocket.disconnect":
                    return
            await asyncio.Event().wait()
    except TimeoutError:
        await socket.close(1011, "hung as the plan says")


async def _read_body(request: Request, limit_bytes: int) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            return None
    return bytes(body)


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4()}"
