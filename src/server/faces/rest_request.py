"""Requests of the transcription REST as they come: a form, a JSON object with base64, or the recording itself. And its
errors, which are `{"detail": …}`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from email.message import Message

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from asr.errors import ASRError, Code, quoted
from server.calls import note_headers
from server.faces.rest_form import read_json_fields
from server.forms import Upload
from server.refusals import refusal
from server.spool import Spool
from server.uploads import content_type_of, read_body, read_form, read_json

log = structlog.get_logger("server.rest")

MAX_JSON_BYTES = 96 * 1024 * 1024
_EXAMPLE = '{"audio": "UklGR…", "filename": "a.wav"}'
_FORM = "multipart/form-data"
_BODIES = frozenset({"application/octet-stream", "application/ogg", ""})

Fields = list[tuple[str, str]]


class Intake:
    """Takes requests in: the recording into the spool, and the fields beside it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

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
            # Base64 is four bytes for three, and may come in lines.
            most = min(MAX_JSON_BYTES, max_bytes * 3 // 2 + 65_536)
            upload, members = await read_json(
                request, self._spool, max_bytes=max_bytes, max_body_bytes=most, example=_EXAMPLE
            )
            async with upload:
                yield upload, [*query, *read_json_fields(members)]
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


def _filename(request: Request) -> str:
    header = Message()
    header["content-disposition"] = request.headers.get("content-disposition", "")
    try:
        return str(header.get_filename(""))
    except (TypeError, ValueError):  # its parts contradict each other
        return ""


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
