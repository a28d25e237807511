"""Access over HTTP: an ASGI middleware, so that nothing of a request is read before it may come in.

It finds the routes that could answer, with the application's own patterns, and asks for what the strictest of them
wants: whichever is taken in the end, no less was asked for. What no route but the page would take is the page's to
refuse (404, 405). It also answers other sites' pages what they may do (CORS), before any credential is looked at:
browsers send none with that question.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

from fastapi import FastAPI, routing
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.errors import ASRError, Code
from server.access.grants import Grant
from server.access.origins import ANY
from server.access.porter import Porter
from server.access.rules import HTTP, MOUNTS, OPEN, Rule
from server.refusals import REALM, openai_error, refusal

GRANT = "grant"
"""Where a request's grant is, in its state."""
PACKED = ASRError(Code.UNSUPPORTED, "A body in a Content-Encoding is not read here: send it as it is.")
"""A few packed bytes may stand for gigabytes, and audio hardly gets smaller."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, X-API-Key, Content-Type, Content-Disposition, Idempotency-Key, traceparent, tracestate"
    ),
    "Access-Control-Max-Age": "600",
}
_EXPOSED = "Retry-After, riva-gateway-note"

Table = list[tuple[BaseRoute, str, frozenset[str] | None]]


class HttpAccess:
    """The middleware.

    Args:
        app: what is behind it.
        api: the application whose routes it is about.
        porter: lets in.
    """

    def __init__(self, app: ASGIApp, api: FastAPI, porter: Porter) -> None:
        self._app = app
        self._api = api
        self._porter = porter
        self._table: Table | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        origin = [value for name, value in headers if name == "origin"]
        hosts = [value for name, value in headers if name == "host"]
        if self._porter.origins.allowed:
            send = _with_cors(send, self._cors(origin))
        try:
            answer = self._enter(scope, headers, origin, hosts)
        except ASRError as error:
            answer = refused(error)
        await (self._app if answer is None else answer)(scope, receive, send)

    def _enter(
        self, scope: Scope, headers: list[tuple[str, str]], origin: list[str], hosts: list[str]
    ) -> Response | None:
        porter, method = self._porter, scope["method"]
        client = scope.get("client")
        address = str(client[0]) if client else ""
        if method == "OPTIONS" and origin and any(name == "access-control-request-method" for name, _ in headers):
            porter.check_origin(origin, hosts, "http", address)
            return Response(status_code=204, headers=_PREFLIGHT)
        if method not in _SAFE:
            porter.check_origin(origin, hosts, "http", address)
        door, rule = self._rule(scope)
        if rule is None or not (rule.scope is None or rule.is_optional):
            porter.check_host(hosts, door, address)
        elif rule.is_optional and not porter.origins.knows(hosts):
            rule = OPEN  # probes name a host as they please, and are told as much as everybody
        grant = porter.enter(rule, headers, address, door)
        if grant is not None:
            scope.setdefault("state", {})[GRANT] = grant
        packed = any(name == "content-encoding" and value.strip().lower() != "identity" for name, value in headers)
        return _told(415, PACKED, {"Accept-Encoding": "identity"}) if packed else None

    def _rule(self, scope: Scope) -> tuple[str, Rule | None]:
        """The door that a request is at, and what it asks for; the page's where no other route takes it."""
        if self._table is None:
            self._table = list(routes_of(self._api))
        path, method = scope["path"], scope["method"]
        found: tuple[str, Rule | None] = ("", MOUNTS.get(""))
        for route, template, methods in self._table:
            if (methods is not None and method not in methods) or not _fits(route, path):
                continue
            door = template if methods is None else f"{method} {template}"
            rule = MOUNTS.get(template) if methods is None else HTTP.get((method, template))
            if rule is None or rule.scope is not None:
                return door, rule
            found = door, rule
        return found

    def _cors(self, origin: list[str]) -> Mapping[str, str]:
        """What a page may read of the answer. No cookie is ever looked at, so none is allowed."""
        if len(origin) != 1 or not self._porter.origins.is_listed(origin[0]):
            return {"Vary": "Origin"}
        everybody = ANY in self._porter.origins.allowed
        return {
            "Access-Control-Allow-Origin": ANY if everybody else origin[0],
            "Access-Control-Expose-Headers": _EXPOSED,
            "Vary": "Origin",
        }


def routes_of(api: FastAPI) -> Iterator[tuple[BaseRoute, str, frozenset[str] | None]]:
    """Every route with its path template and its methods; a folder of files has none."""
    # Newer FastAPI keeps the routers that were included as one route each.
    flattened: Callable[[Any], Iterator[Any]] = getattr(routing, "iter_route_contexts", iter)
    for route in flattened(api.routes):
        methods = getattr(route, "methods", None)
        is_folder = isinstance(getattr(route, "original_route", route), Mount)
        template = str(route.path if is_folder else getattr(route, "path_format", None) or route.path)
        yield route, template, None if is_folder else frozenset(methods or ())


def grant_of(state: MutableMapping[str, Any] | None) -> Grant | None:
    """The grant of a request, from the `state` of its scope."""
    found = (state or {}).get(GRANT)
    return found if isinstance(found, Grant) else None


def refused(error: ASRError) -> JSONResponse:
    """A refusal for whoever reads it: `error` is OpenAI's, `detail` a NIM's and the transcription REST's."""
    headers = {"Cache-Control": "no-store"}
    if error.code is Code.UNAUTHORIZED:
        headers["WWW-Authenticate"] = f'Bearer realm="{REALM}"'
    if error.retry_after_ms is not None:
        headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
    return _told(refusal(error.code).http_status, error, headers)


def _told(status: int, error: ASRError, headers: Mapping[str, str]) -> JSONResponse:
    return JSONResponse({"detail": error.message, **openai_error(error)}, status, dict(headers))


def _fits(route: Any, path: str) -> bool:
    return route.path_regex.match(path) is not None


def _with_cors(send: Send, headers: Mapping[str, str]) -> Callable[[Message], Awaitable[None]]:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            told = MutableHeaders(scope=message)
            for name, value in headers.items():
                if name == "Vary":
                    told.add_vary_header(value)
                else:
                    told[name] = value
        await send(message)

    return send_more
