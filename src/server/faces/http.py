"""The plain HTTP side: the page, health, documents, and what errors look like; other faces bring their routers."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr import wire
from asr.engine import Engine, Readiness, endpoints_of
from asr.errors import ASRError, Code
from server.access.http import HttpAccess, grant_of
from server.access.porter import Porter
from server.admission import Admission
from server.api_docs import TAGS, answer, completed
from server.faces import nim_info
from server.faces.api_pages import add_pages
from server.process import ProcessGauges
from server.refusals import openai_error, refusal
from server.telemetry import log_schema

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HSTS = {"Strict-Transport-Security": "max-age=31536000"}

GOING_DOWN = "The gateway is going down. Open streams finish; new ones are refused."
RETRY_S = 5
"""When to come again where an error does not say."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_COME_BACK = (429, 503, 507)
_ABOUT = """\
A gateway in front of a speech recognizer. The same recordings can be sent in several dialects; words, times and errors
mean the same in each. Live audio goes over WebSockets, which this document cannot describe: `/v1/stream` (native),
`/v1/realtime` (NIM and OpenAI), `/ws` (raw audio and `END`).
"""


def build_http(
    engine: Engine,
    admission: Admission,
    routers: Sequence[APIRouter] = (),
    *,
    sockets: Container[str] = (),
    porter: Porter,
    only_tls: bool = False,
    version: str,
    page: Path,
) -> FastAPI:
    """The HTTP application in front of an engine.

    Args:
        engine: who recognizes.
        admission: knows how many streams there are.
        routers: those of the other faces.
        sockets: paths that are WebSockets.
        porter: lets requests in.
        only_tls: browsers are told to come by TLS alone for the year to come.
        version: of the gateway.
        page: the folder of the browser page.
    """
    app = FastAPI(title="riva-gateway", version=version, docs_url=None, redoc_url=None)
    app.add_middleware(HttpAccess, api=app, porter=porter)
    app.add_middleware(SecurityHeaders, more=HSTS if only_tls else {})
    _add_errors(app, sockets)
    gauges = ProcessGauges()

    async def readiness() -> Readiness:
        if admission.draining:
            return Readiness(False, GOING_DOWN)
        return await engine.ready()

    @app.get("/healthz", tags=["operation"], summary="Is it alive?")
    async def alive() -> dict[str, str]:
        """The process answers. It says nothing of the recognizer."""
        return {"status": "ok"}

    @app.get(
        "/readyz",
        tags=["operation"],
        summary="Is it ready?",
        responses={503: answer("Not now; `detail` says why.", {"type": "object"})},
    )
    async def ready(request: Request) -> JSONResponse:
        """Whether streams can be served now: 200, or 503. Why not, and the state of the process and of the
        recognizer's endpoints, are for credentials with the scope `metrics`, where credentials are asked for.
        """
        state = await readiness()
        body = {
            "ready": state.ready,
            "engine": engine.name,
            "version": version,
            "draining": admission.draining,
            "streams": {"in_use": admission.in_use, "limit": admission.max_streams},
        }
        if grant_of(request.scope.get("state")) is not None:
            body |= {"detail": state.detail, "process": gauges.look()}
            endpoints = endpoints_of(engine)
            if endpoints:
                body["endpoints"] = endpoints
        return JSONResponse(body, 200) if state.ready else JSONResponse(body, 503, {"Retry-After": str(RETRY_S)})

    @app.get("/schema/asr.v1.json", tags=["schema"], summary="The messages of WS /v1/stream")
    async def schema() -> dict[str, Any]:
        """The JSON Schema of every message of the native protocol."""
        return wire.schema()

    @app.get("/schema/log.v1.json", tags=["schema"], summary="The lines of the log")
    async def schema_of_log() -> dict[str, Any]:
        """The JSON Schema of a line of the gateway's log with `LOG_FORMAT=json`."""
        return log_schema.schema()

    for router in (*routers, nim_info.router(engine, readiness, version=version)):
        app.include_router(router)
    add_pages(app)
    app.mount("/", StaticFiles(directory=page, html=True), name="page")
    app.openapi = _Document(app)  # type: ignore[method-assign]
    return app


class _Document:
    """The OpenAPI document, made when it is first asked for."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def __call__(self) -> dict[str, Any]:
        app = self._app
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=_ABOUT, tags=list(TAGS), routes=app.routes
            )
            app.openapi_schema = completed(document)
        return app.openapi_schema


def _add_errors(app: FastAPI, sockets: Container[str]) -> None:
    """What goes wrong, in the shape that the path's clients read: OpenAI's under `/v1`, else one sentence."""

    @app.exception_handler(ASRError)
    async def refuse(_: Request, error: ASRError) -> JSONResponse:
        status = refusal(error.code).http_status
        headers = {}
        if error.retry_after_ms is not None:
            headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
        elif status in _COME_BACK:
            headers["Retry-After"] = str(RETRY_S)
        return JSONResponse(openai_error(error), status, headers)

    @app.exception_handler(HTTPException)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        status, detail, headers = error.status_code, str(error.detail), dict(error.headers or {})
        # The page takes every path that no route wants with this method; only it would say 404 or 405 to those.
        methods = _methods(app, request.scope) if status in (404, 405) else []
        if methods and request.method not in methods:
            status, headers["Allow"] = 405, ", ".join(methods)
            detail = f"This path does not take {request.method}. It takes {headers['Allow']}."
        elif status == 404 and request.url.path in sockets:
            status, headers["Upgrade"] = 426, "websocket"
            detail = "This path is a WebSocket: open it with a WebSocket client, as ws:// or wss://."
        text = "There is no such path. GET /docs lists those there are." if status == 404 else detail
        if not request.url.path.startswith("/v1/"):
            return JSONResponse({"detail": text}, status, headers)
        code = Code.NOT_FOUND if status == 404 else Code.BAD_REQUEST
        return JSONResponse(openai_error(ASRError(code, text)), status, headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_value(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:])
        text = f"{param or 'The request'}: {first['msg']}."
        if not request.url.path.startswith("/v1/"):
            return JSONResponse({"detail": text}, 400)
        return JSONResponse(openai_error(ASRError(Code.BAD_REQUEST, text, param=param or None)), 400)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    async def defect(request: Request, _: Exception) -> JSONResponse:
        text = "The gateway failed in a way that it should not; its log says how."
        if not request.url.path.startswith("/v1/"):
            return JSONResponse({"detail": text}, 500)
        return JSONResponse(openai_error(ASRError(Code.INTERNAL, text)), 500)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """What a path takes, beside the page."""

    def takes(method: str) -> bool:
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in app.routes if not isinstance(route, Mount))

    return [method for method in _METHODS if takes(method)]


class SecurityHeaders:
    """ASGI middleware: the headers that every answer carries; a route may have a content policy of its own."""

    def __init__(self, app: ASGIApp, *, more: Mapping[str, str]) -> None:
        self._app = app
        self._headers = {**SECURITY_HEADERS, **more}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its answer."""

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, send_secured)
