"""Requests of the transcription REST as they come: a form, a JSON object with base64, or the recording itself. And its
errors, which are `{"detail": …}`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from email.message import Message
from typing import Any

import orjson
import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from asr.errors import ASRError, Code, quoted
from server.calls import note_headers
from server.faces.rest_form import read_json_fields
from server.refusals import refusal
from server.spool import Spool
from server.uploads import Upload, content_type_of, read_body, read_form, read_json_body, store

log = structlog.get_logger("server.rest")

MAX_JSON_BYTES = 96 * 1024 * 1024
"""A recording in JSON is held in memory, four bytes for three."""
MAX_DECODING = 2
"""Requests in JSON that are in memory at a time."""
_FORM = "multipart/form-data"
_BODIES = frozenset({"application/octet-stream", "application/ogg", ""})

Fields = list[tuple[str, str]]


class Intake:
    """Takes requests in: the recording into the spool, and the fields beside it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._decoding = asyncio.Semaphore(MAX_DECODING)

    @asynccontextmanager
    async def taken(self, request: Request, *, max_bytes: int) -> AsyncGenerator[tuple[Upload, Fields]]:
        """The recording and the fields, those of the query first. The recording is deleted at the end, unless kept.

        Raises:
            ASRError: `bad_request`, `bad_audio`, `too_large`, `storage_full`.
        """
        query = list(request.query_params.multi_items())
        kind = content_type_of(request)
        if kind == _FORM:
            async with await read_form(request, self._spool, max_bytes=max_bytes) as form:
                yield form.file("file"), [*query, *form.values]
        elif kind == "application/json":
            upload, fields = await self._from_json(request, max_bytes)
            async with upload:
                yield upload, [*query, *fields]
        elif kind.startswith(("audio/", "video/")) or kind in _BODIES:
            name = request.query_params.get("filename", "") or _filename(request)
            async with await read_body(request, self._spool, max_bytes=max_bytes, filename=name) as upload:
                yield upload, query
        else:
            text = (
                f"The body is {quoted(kind)}. Send multipart/form-data with the recording as field 'file', JSON with "
                "base64 in 'audio', or the recording itself with its own type (curl: -H 'Content-Type: audio/wav')."
            )
            raise ASRError(Code.BAD_REQUEST, text, param="content-type")

    async def _from_json(self, request: Request, max_bytes: int) -> tuple[Upload, Fields]:
        async with self._decoding:
            body = await read_json_body(request, max_bytes=min(MAX_JSON_BYTES, max_bytes * 4 // 3 + 65_536))
            data, fields = await asyncio.to_thread(read_json, body)
            del body
            if len(data) > max_bytes:
                raise ASRError(Code.TOO_LARGE, f"The recording is larger than {max_bytes} bytes.", param="audio")
            return await store(data, self._spool, filename=dict(fields).get("filename", "")), fields


def read_json(body: bytes) -> tuple[bytes, Fields]:
    """The recording in a JSON object, and its other fields.

    Raises:
        ASRError: `bad_request`, or `bad_audio` where `audio` is empty or not base64.
    """
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ASRError(Code.BAD_REQUEST, f"The body is not JSON: {error.msg}.", param="body") from error
    audio = content.get("audio") if isinstance(content, dict) else None
    if not isinstance(audio, str):
        text = 'The JSON needs the recording as base64 in "audio": {"audio": "UklGR…", "filename": "a.wav"}.'
        raise ASRError(Code.BAD_REQUEST, text, param="audio")
    if audio.startswith("data:"):
        audio = audio.partition(",")[2]
    try:
        data = base64.b64decode("".join(audio.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ASRError(Code.BAD_AUDIO, f'"audio" is not base64: {error}.', param="audio") from error
    if not data:
        raise ASRError(Code.BAD_AUDIO, 'There is no recording: "audio" is empty.', param="audio")
    return data, read_json_fields(content)


def _filename(request: Request) -> str:
    header = Message()
    header["content-disposition"] = request.headers.get("content-disposition", "")
    return str(header.get_filename(""))


class DetailRoute(APIRoute):
    """Failures as `{"detail": "…"}`, with the status of their code."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The handler, with its failures turned into answers."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except ASRError as error:
                return refused(error)
            except RequestValidationError as error:
                wrong = error.errors()[0]
                name = str(wrong["loc"][-1])
                return refused(ASRError(Code.BAD_REQUEST, f"{name}: {wrong['msg']}.", param=name))
            except ClientDisconnect:
                return refused(ASRError(Code.IDLE_TIMEOUT, "The request was not sent to its end."))
            except Exception:
                log.exception("request failed", path=request.url.path)
                text = "The gateway failed while handling this request. It has been logged."
                return refused(ASRError(Code.INTERNAL, text))

        return answer


def refused(error: ASRError, status: int | None = None) -> JSONResponse:
    """The answer for a failure; `status` where it is not that of its code."""
    headers = {} if error.retry_after_ms is None else {"Retry-After": str(-(-error.retry_after_ms // 1000))}
    return JSONResponse({"detail": error.message}, status or refusal(error.code).http_status, headers)


def with_notes(answer: Response, notes: Iterable[str]) -> Response:
    """The answer, with a header for each note."""
    for name, value in note_headers(notes):
        answer.headers.append(name, value)
    return answer
