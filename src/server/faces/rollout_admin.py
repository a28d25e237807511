"""`/admin/rollout`: what an operator sees of the rollout, and changes of it, while the gateway runs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from asr.errors import ASRError, Code
from server.access.http import grant_of
from server.api_docs import Json, answer, errors, json_body
from server.rollout.control import Control
from server.rollout.show import shown
from server.rollout.state import MAX_REASON_CHARS, Position, percent_of, position_of

MAX_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0

_POSITION: Json = {
    "type": "string",
    "enum": [position.value for position in Position],
    "description": "`on`: new streams go to the usual recognizer. `off`: they are refused. `former`: they go to the "
    "recognizer of before. Streams under way are left alone.",
}
_PERCENT: Json = {
    "type": "integer",
    "minimum": 0,
    "maximum": 100,
    "description": "So many of a hundred new streams try the canary.",
}
_NUMBER: Json = {"type": ["number", "null"]}
_ARM: Json = {
    "type": "object",
    "properties": {
        "streams": {"type": "integer", "description": "That are over, in this step."},
        "errors": {"type": "integer", "description": "Of them, those whose recognizer failed."},
        "errors_before_words": {"type": "integer", "description": "Of these, those that had not said a word."},
        "without_words": {"type": "integer"},
        "final_latency_s": _NUMBER,
        "words_per_minute": _NUMBER,
        "confidence": _NUMBER,
    },
}
_FIGURE: Json = {
    "type": "object",
    "properties": {
        "figure": {"type": "string", "enum": ["errors", "final_latency", "words_per_minute", "without_words"]},
        "base": _NUMBER,
        "canary": _NUMBER,
        "difference": {
            **_NUMBER,
            "description": "Of `errors` and `without_words` in shares of streams; else in proportion to the base.",
        },
        "low": {**_NUMBER, "description": "With `high`, the interval of the difference: 95 %, at every look."},
        "high": _NUMBER,
        "evidence": {"type": "number", "description": "Against the canary; at 80 it is aborted."},
    },
}
_ROLLOUT: Json = {
    "type": "object",
    "required": ["position", "canary_percent", "changed_at", "by", "reason"],
    "properties": {
        "position": _POSITION,
        "canary_percent": _PERCENT,
        "changed_at": {"type": "string", "description": "ISO 8601, UTC; empty for what the settings say."},
        "by": {"type": "string"},
        "reason": {"type": "string"},
        "in_words": {"type": "string"},
        "note": {"type": "string", "description": "After a change: what to know of it, or empty."},
        "has_former": {"type": "boolean", "description": "Whether RIVA_FORMER_ENDPOINTS is set."},
        "has_canary": {"type": "boolean", "description": "Whether RIVA_CANARY_ENDPOINTS is set."},
        "aborts": {"type": "integer", "description": "Canaries that were aborted by themselves, since the start."},
        "endpoints": {"type": "array", "items": {"type": "object"}},
        "canary": {
            "type": ["object", "null"],
            "description": "The canary that runs, or ran last.",
            "properties": {
                "verdict": {"type": "string", "enum": ["going", "worse", "good"]},
                "in_words": {"type": "string"},
                "step": {"type": "integer", "description": "Each change of the percentage begins a new one."},
                "not_compared": {"type": "integer", "description": "Streams that only the base could serve."},
                "models": {"type": "array", "items": {"type": "string"}},
                "arms": {"type": "object", "properties": {"base": _ARM, "canary": _ARM}},
                "figures": {"type": "array", "items": _FIGURE},
            },
        },
    },
}
_CHANGE: Json = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "position": _POSITION,
        "canary_percent": _PERCENT,
        "reason": {"type": "string", "maxLength": MAX_REASON_CHARS, "description": "For the log, and for callers."},
    },
}


def router(control: Control) -> APIRouter:
    """The routes. Who may use them is settled before (`server.access.rules`)."""
    routes = APIRouter()

    @routes.get(
        "/admin/rollout",
        tags=["operation"],
        summary="Where streams go",
        responses={200: answer("The position, and how the canary does.", _ROLLOUT), **errors(401, 403)},
    )
    async def show() -> JSONResponse:
        """The position of the switch, the canary's percentage, both arms and the verdict."""
        return _answer(shown(control.engine))

    @routes.put(
        "/admin/rollout",
        tags=["operation"],
        summary="Send streams elsewhere",
        responses={200: answer("It holds from now on.", _ROLLOUT), **errors(400, 401, 403, 408, 413)},
        openapi_extra=json_body(_CHANGE, {"position": "on", "reason": "as it was"}),
    )
    async def change(request: Request) -> JSONResponse:
        """What is left out stays as it is. New streams obey at once; streams under way are left alone."""
        wanted = _read(await _body_of(request))
        grant = grant_of(request.scope.get("state"))
        host = request.client.host if request.client else "unknown"
        note = await control.change(**wanted, by=grant.principal if grant is not None else f"address {host}")
        return _answer({**shown(control.engine), "note": note})

    return routes


def _answer(body: Json) -> JSONResponse:
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


def _read(body: bytes) -> dict[str, Any]:
    """The arguments of `Control.change` that a request asks for."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad("The body is not JSON. Send an object with position, canary_percent or both.") from None
    if not isinstance(found, dict) or not found.keys() & {"position", "canary_percent"}:
        raise _bad("Nothing is to be changed. Send an object with position, canary_percent or both.")
    for name in found:
        if name not in _CHANGE["properties"]:
            raise _bad("There is no such field. Those there are: position, canary_percent, reason.", name[:100])
    reason = found.get("reason", "")
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARS:
        raise _bad(f"reason is not a text of at most {MAX_REASON_CHARS} characters.", "reason")
    wanted: dict[str, Any] = {"reason": reason}
    for name, read in (("position", position_of), ("canary_percent", percent_of)):
        if name in found:
            try:
                wanted[name] = read(found[name])
            except ValueError as error:
                raise _bad(f"{error}.", name) from None
    return wanted


async def _body_of(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise ASRError(Code.TOO_LARGE, f"The body is larger than the {MAX_BODY_BYTES} bytes taken here.")
    except TimeoutError:
        raise ASRError(
            Code.IDLE_TIMEOUT, f"The body did not come within {BODY_TIMEOUT_S:g} s. Send it again."
        ) from None
    return bytes(body)


def _bad(text: str, param: str = "") -> ASRError:
    return ASRError(Code.BAD_REQUEST, text, param=param or None)
