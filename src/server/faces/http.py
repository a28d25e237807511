"""The plain HTTP side: the page, health, the models and the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr import wire
from asr.engine import Engine, Readiness
from asr.errors import ASRError
from server.admission import Admission
from server.refusals import refusal

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


GOING_DOWN = "The gateway is going down. Open streams finish; new ones are refused."


def build_http(engine: Engine, admission: Admission, *, version: str, page: Path) -> FastAPI:
    """The HTTP application in front of an engine; `page` is the folder of the browser page."""
    app = FastAPI(title="riva-gateway", version=version, docs_url=None, redoc_url=None)
    app.add_middleware(SecurityHeaders)

    async def readiness() -> Readiness:
        if admission.draining:
            return Readiness(False, GOING_DOWN)
        return await engine.ready()

    @app.exception_handler(ASRError)
    async def refuse(_: Request, error: ASRError) -> JSONResponse:
        row = refusal(error.code)
        body = {"message": error.message, "type": row.openai_type, "param": error.param, "code": error.code.value}
        headers = {} if error.retry_after_ms is None else {"Retry-After": str(-(-error.retry_after_ms // 1000))}
        return JSONResponse({"error": body}, row.http_status, headers)

    @app.get("/healthz", tags=["operation"])
    async def alive() -> dict[str, str]:
        """The process answers. It says nothing of the recognizer."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"])
    async def ready() -> JSONResponse:
        """Whether streams can be served now: 200, or 503 with the reason."""
        state = await readiness()
        body = {
            "ready": state.ready,
            "engine": engine.name,
            "detail": state.detail,
            "version": version,
            "draining": admission.draining,
            "streams": {"in_use": admission.in_use, "limit": admission.max_streams},
        }
        endpoints = getattr(engine, "endpoints", None)
        if callable(endpoints):  # an engine of several recognizers says how each of them does
            body["endpoints"] = endpoints()
        return JSONResponse(body, 200 if state.ready else 503)

    @app.get("/v1/health/live", tags=["NIM"])
    async def nim_live() -> dict[str, str]:
        """As a NIM answers."""
        return {"object": "health.response", "message": "live", "status": "live"}

    @app.get("/v1/health/ready", tags=["NIM"])
    async def nim_ready() -> JSONResponse:
        """As a NIM answers: 200 when ready, else 503."""
        state = await readiness()
        word = "ready" if state.ready else "not ready"
        body = {"object": "health.response", "message": state.detail or word, "status": word}
        return JSONResponse(body, 200 if state.ready else 503)

    @app.get("/v1/models", tags=["models"])
    async def models() -> dict[str, Any]:
        """The models that the engine serves, in OpenAI's list shape with our fields added."""
        rows = [
            {
                "id": model.name,
                "object": "model",
                "created": 0,
                "owned_by": engine.name,
                "languages": list(model.languages),
                "streaming": model.streaming,
                "offline": model.offline,
            }
            for model in await engine.models()
        ]
        return {"object": "list", "data": rows}

    @app.get("/schema/asr.v1.json", tags=["schema"])
    async def schema() -> dict[str, Any]:
        """The JSON Schema of every message of the native protocol."""
        return wire.schema()

    app.mount("/", StaticFiles(directory=page, html=True), name="page")
    return app


class SecurityHeaders:
    """ASGI middleware: the headers that every answer carries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its answer."""

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, send_secured)
