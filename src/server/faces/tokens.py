"""`POST /v1/tokens`: a short-lived credential for somebody else, most often a browser, which must not hold a key."""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from asr.errors import ASRError, Code, quoted
from server.access.grants import Grant, Scope
from server.access.http import grant_of
from server.access.own_tokens import Minted
from server.access.porter import Porter
from server.api_docs import answer, errors, json_body
from server.uploads import read_small_json

Json = dict[str, Any]

MAX_BODY_BYTES = 16 * 1024
_FIELDS = ("scopes", "ttl_ms", "single_use", "subject")
_ASKED: Json = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "scopes": {
            "type": ["array", "null"],
            "items": {"type": "string", "enum": [scope.value for scope in Scope]},
            "description": "None: those of `transcribe` and `jobs` that are yours. Never more than yours.",
        },
        "ttl_ms": {"type": ["integer", "null"], "minimum": 1000, "description": "None: TOKEN_TTL_MS, the longest."},
        "single_use": {"type": ["boolean", "null"], "description": "Good for one connection or request only."},
        "subject": {
            "type": ["string", "null"],
            "maxLength": 256,
            "description": "For whom it is. One subject's jobs and sessions are hidden from another's.",
        },
    },
}
_TOKEN: Json = {
    "type": "object",
    "required": ["token", "expires_at", "scopes", "single_use"],
    "properties": {
        "token": {"type": "string"},
        "expires_at": {"type": "integer", "description": "In Unix seconds."},
        "scopes": {"type": "array", "items": {"type": "string"}},
        "single_use": {"type": "boolean"},
    },
}
_OPEN = "This gateway asks nobody for a credential (AUTH is off), so there is nothing to make a token of."


class Mint(Protocol):
    """See `server.access.own_tokens.OwnTokens`."""

    def mint(
        self, minter: Grant, *, scopes: list[Scope] | None, ttl_ms: int | None, subject: str, single_use: bool
    ) -> Minted:
        """Make one."""
        ...


def router(mint: Mint, porter: Porter) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post(
        "/v1/tokens",
        tags=["tokens"],
        summary="Make a short-lived token",
        responses={200: answer("The token.", _TOKEN), **errors(400, 401, 403, 408, 413, 429, 500)},
        openapi_extra=json_body(_ASKED, {"scopes": ["transcribe"], "ttl_ms": 60_000}, required=False),
    )
    async def tokens(request: Request) -> JSONResponse:
        """For a browser or whoever must not hold your key: it allows no more than you may, lasts no longer than your
        own credential, and ends with it. Needs the scope `mint`. Send it as you would send a key: as a Bearer
        credential, as the WebSocket subprotocol `token.<token>`, or in gRPC metadata.
        """
        grant = grant_of(request.scope.get("state"))
        if grant is None or porter.is_anonymous(grant):
            raise ASRError(Code.BAD_REQUEST, _OPEN)
        asked = await read_small_json(request, max_bytes=MAX_BODY_BYTES)
        minted = mint.mint(grant, **_read(asked))
        body = {
            "token": minted.token,
            "expires_at": minted.expires_at,
            "scopes": sorted(minted.scopes),
            "single_use": minted.single_use,
        }
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    return routes


def _read(asked: Json) -> Json:
    """The arguments of `Mint.mint`.

    Raises:
        ASRError: `bad_request`.
    """
    unknown = next((name for name in asked if name not in _FIELDS), None)
    if unknown is not None:
        # A misspelt bound would be none.
        raise ASRError(Code.BAD_REQUEST, f"There is no field {quoted(unknown)}. Fields: {', '.join(_FIELDS)}.")
    scopes, ttl_ms = asked.get("scopes"), asked.get("ttl_ms")
    single_use, subject = asked.get("single_use") or False, asked.get("subject") or ""
    if ttl_ms is not None and (isinstance(ttl_ms, bool) or not isinstance(ttl_ms, int)):
        raise ASRError(Code.BAD_REQUEST, "ttl_ms must be a whole number of milliseconds.", param="ttl_ms")
    if not isinstance(single_use, bool):
        raise ASRError(Code.BAD_REQUEST, "single_use must be true or false.", param="single_use")
    if not isinstance(subject, str):
        raise ASRError(Code.BAD_REQUEST, "subject must be a text.", param="subject")
    return {"scopes": _scopes(scopes), "ttl_ms": ttl_ms, "single_use": single_use, "subject": subject}


def _scopes(given: object) -> list[Scope] | None:
    if given is None:
        return None
    known = {scope.value for scope in Scope}
    if not isinstance(given, list) or not all(isinstance(name, str) and name in known for name in given):
        text = f"scopes must be a list of these: {', '.join(sorted(known))}."
        raise ASRError(Code.BAD_REQUEST, text, param="scopes")
    return [Scope(name) for name in given]
