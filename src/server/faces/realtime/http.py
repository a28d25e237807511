"""Making realtime sessions beforehand, and the health of the realtime API, as a NIM and OpenAI spell it.

`POST /v1/realtime/transcription_sessions` serves clients of a NIM and of OpenAI's beta: the answer has the fields of a
NIM's session, those that were asked for in them, and a secret. `POST /v1/realtime/client_secrets` is OpenAI's of today.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from asr.engine import Readiness
from asr.errors import ASRError, Code
from server.access.grants import Grant
from server.access.http import grant_of
from server.api_docs import answer, errors, json_body
from server.calls import note_headers
from server.faces.realtime.dialect import Dialect
from server.faces.realtime.minting import Minting
from server.faces.realtime.nim_session import OBJECT, merged, new_session, read_session
from server.faces.realtime.openai_session import OpenAISession, updated
from server.faces.realtime.reading import check_depth
from server.refusals import REALM, refusal
from server.uploads import read_small_json

Json = dict[str, Any]

MAX_BODY_BYTES = 256 * 1024
RETRY_S = 5

_NIM_SECTIONS = (
    "input_audio_params",
    "recognition_config",
    "speaker_diarization",
    "word_boosting",
    "endpointing_config",
)
"""What shows that a session is meant for a NIM, and for nothing else."""

_SESSION: Json = {"type": "object", "additionalProperties": True}
_SETTINGS: Json = {**_SESSION, "description": "Fields of the session, as an update spells them; none: the defaults."}
_SECRET: Json = {
    "type": "object",
    "properties": {
        "session": {
            "type": ["object", "null"],
            "description": "Of type `transcription`, as `session.update` spells it.",
        },
        "expires_after": {
            "type": ["object", "null"],
            "properties": {"seconds": {"type": ["integer", "null"], "minimum": 1}},
        },
    },
}
_HEALTH: Json = {"type": "object", "properties": {"status": {"type": "string"}}}


def router(minting: Minting, ready: Callable[[], Awaitable[Readiness]]) -> APIRouter:
    """The routes.

    Args:
        minting: where the secrets are kept.
        ready: whether streams can be served now.
    """
    routes = APIRouter()

    @routes.post(
        "/v1/realtime/transcription_sessions",
        tags=["realtime"],
        summary="Make a session (NIM, OpenAI beta)",
        responses={200: answer("The session, with its secret.", _SESSION), **errors(400, 401, 408, 413, 429, 500)},
        openapi_extra=json_body(_SETTINGS, {}, required=False),
    )
    async def transcription_sessions(request: Request) -> JSONResponse:
        """A session of a NIM or of OpenAI's beta; `client_secret.value` is what the connection may offer."""
        return await _answered(request, minting, _flat_session)

    @routes.post(
        "/v1/realtime/client_secrets",
        tags=["realtime"],
        summary="Make a client secret (OpenAI)",
        responses={200: answer("The secret, and its session.", _SESSION), **errors(400, 401, 408, 413, 429, 500)},
        openapi_extra=json_body(_SECRET, {"session": {"type": "transcription"}}, required=False),
    )
    async def client_secrets(request: Request) -> JSONResponse:
        """A session of OpenAI's realtime API of today; `value` works as a Bearer key until `expires_at`."""
        return await _answered(request, minting, _nested_session)

    @routes.get(
        "/v1/realtime/health",
        tags=["NIM"],
        summary="Is the realtime API ready?",
        responses={503: answer("Not ready.", _HEALTH, {"status": "unhealthy"})},
    )
    async def health() -> JSONResponse:
        """As a NIM answers: 200 when connections are served, else 503."""
        state = await ready()
        if state.ready:
            return JSONResponse({"status": "healthy"})
        body = {"status": "unhealthy", "detail": state.detail}
        return JSONResponse(body, 503, {"Retry-After": str(RETRY_S)})

    return routes


async def _answered(
    request: Request, minting: Minting, make: Callable[[Minting, Json, Grant | None], tuple[Json, Sequence[str]]]
) -> JSONResponse:
    try:
        minting.check_key(request.headers)
        minter = grant_of(request.scope.get("state"))
        body, notes = make(minting, await _body_of(request), minter)
    except ASRError as error:
        return _refusal(error)
    response = JSONResponse(body, headers={"Cache-Control": "no-store"})
    for name, note in note_headers(notes):
        response.headers.append(name, note)
    return response


def _flat_session(minting: Minting, wanted: Json, minter: Grant | None) -> tuple[Json, Sequence[str]]:
    """A NIM's session, one of OpenAI's beta, or both: most fields of the two have the same names."""
    wanted = {name: value for name, value in wanted.items() if name not in ("id", "object", "client_secret")}
    session = new_session(minting.new_id("sess"))
    dialects = {Dialect.NIM, Dialect.OPENAI_BETA}
    notes: Sequence[str] = ()
    try:
        told = merged(session, wanted)
        notes = read_session(told).warnings
    except ASRError:
        if any(name in wanted for name in _NIM_SECTIONS):
            raise
        dialects.remove(Dialect.NIM)
        told = {**session, **wanted}
    try:
        beta, warnings = updated(OpenAISession(), wanted, flat=True)
        beta.options()
        notes = notes if Dialect.NIM in dialects else warnings
    except ASRError:
        dialects.remove(Dialect.OPENAI_BETA)
        if not dialects:
            raise
    minted = minting.mint(wanted, frozenset(dialects), minter=minter)
    secret = {"value": minted.value, "expires_at": minted.expires_at}
    return {**told, "client_secret": secret}, notes


def _nested_session(minting: Minting, wanted: Json, minter: Grant | None) -> tuple[Json, Sequence[str]]:
    asked = {} if wanted.get("session") is None else wanted["session"]
    session, notes = updated(OpenAISession(), asked, flat=False)
    session.options()
    only = frozenset({Dialect.OPENAI})
    minted = minting.mint(asked, only, prefix="ek_", ttl_s=_lifetime_s(wanted), minter=minter)
    told = session.to_json(minting.new_id("sess"), flat=False)
    told = {"object": OBJECT, **told, "expires_at": minted.expires_at}
    return {"value": minted.value, "expires_at": minted.expires_at, "session": told}, notes


def _lifetime_s(wanted: Json) -> int | None:
    after = wanted.get("expires_after")
    seconds = after.get("seconds") if isinstance(after, dict) else None
    if after is not None and not isinstance(after, dict):
        raise ASRError(Code.BAD_REQUEST, "expires_after must be an object.", param="expires_after")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1):
        text = "expires_after.seconds must be a whole number of seconds, 1 or more."
        raise ASRError(Code.BAD_REQUEST, text, param="expires_after.seconds")
    return seconds


async def _body_of(request: Request) -> Json:
    """The JSON object of a request's body; none for an empty one.

    Raises:
        ASRError: `bad_request`, `too_large`, `idle_timeout` where it does not come.
    """
    body = await read_small_json(request, max_bytes=MAX_BODY_BYTES)
    check_depth(body)
    return body


def _refusal(error: ASRError) -> JSONResponse:
    """Clients of a NIM read `detail`, those of OpenAI `error`."""
    row = refusal(error.code)
    headers = {}
    if error.code is Code.UNAUTHORIZED:
        headers["WWW-Authenticate"] = f'Bearer realm="{REALM}"'
    if error.retry_after_ms is not None:
        headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
    told = {"message": error.message, "type": row.openai_type, "param": error.param, "code": error.code.value}
    return JSONResponse({"detail": error.message, "error": told}, row.http_status, headers)
