"""What a client uploads, taken in piece by piece: forms and bodies, with their files in the spool.

Nothing is held in memory but small fields. What is over a bound is refused before more of it is read, and whatever
ends a request early leaves no file behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from asr.errors import ASRError, Code
from server.forms import MAX_FIELDS, MAX_FORM_BYTES, Form, FormReader, Upload, plain_name, too_large, too_many_fields
from server.json_audio import JsonAudio
from server.spool import Spool, SpoolFile

T = TypeVar("T")

SMALL_BODY_TIMEOUT_S = 10.0
OVERHEAD_BYTES = 64 * 1024
"""What a form's own lines may add to the bytes of its file."""
WRITE_BYTES = 256 * 1024
"""So much is gathered before it is written: each write is a hop to a thread."""


def content_type_of(request: Request) -> str:
    """The media type of a request's body, without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request, spool: Spool, *, max_bytes: int) -> Form:
    """Take in a form, multipart or urlencoded.

    Args:
        request: whose body has not been read yet.
        spool: where files go.
        max_bytes: of all files together.

    Raises:
        ASRError: `bad_request` for what is no form or ends too early, `too_large`, `storage_full`.
    """
    kind = content_type_of(request)
    if kind == "application/x-www-form-urlencoded":
        body = b"".join([piece async for piece in _bounded(request, MAX_FORM_BYTES, "form")])
        try:
            values = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError as error:
            raise too_many_fields() from error
        return Form(values)
    boundary = parse_options_header(request.headers.get("content-type", ""))[1].get(b"boundary")
    if kind != "multipart/form-data" or not boundary:
        what = f"The body is {kind or 'of no stated type'}; a form is sent as multipart/form-data with a boundary."
        raise ASRError(Code.BAD_REQUEST, what, param="content-type")
    try:
        reader = FormReader(boundary, spool, max_bytes)
    except FormParserError as error:
        raise ASRError(Code.BAD_REQUEST, f"This is no boundary of a form: {error}.", param="content-type") from error
    most = max_bytes + MAX_FORM_BYTES + OVERHEAD_BYTES
    try:
        async for piece in _bounded(request, most, "file", told_bytes=max_bytes):
            reader.feed(piece)
            if reader.waiting_bytes >= WRITE_BYTES:
                await _off_loop(reader.write)
        await _off_loop(reader.end)
    except BaseException as error:
        await asyncio.shield(_off_loop(reader.discard))
        if isinstance(error, FormParserError):
            raise ASRError(Code.BAD_REQUEST, f"The form is damaged: {error}.", param="body") from error
        raise
    return reader.form


async def read_body(request: Request, spool: Spool, *, max_bytes: int, filename: str = "") -> Upload:
    """Take in a body that is a file itself.

    Raises:
        ASRError: `bad_audio` for an empty one, `too_large`, `storage_full`.
    """
    target = _Target(spool)
    try:
        async for block in _blocks(_bounded(request, max_bytes, "body")):
            await _off_loop(lambda block=block: target.write(block))  # type: ignore[misc]
        if not target.size_bytes:
            raise ASRError(Code.BAD_AUDIO, "The body is empty: not one byte of audio came.", param="body")
        return await _off_loop(lambda: target.upload(plain_name(filename), content_type_of(request)))
    except BaseException:
        await asyncio.shield(_off_loop(target.discard))
        raise


async def read_json(
    request: Request, spool: Spool, *, max_bytes: int, max_body_bytes: int, example: str
) -> tuple[Upload, dict[str, Any]]:
    """Take in a JSON object with a file as base64 in `audio`: the file, and the other members.

    Args:
        request: whose body has not been read yet.
        spool: where the file goes; it has the name of the member `filename`.
        max_bytes: of the file.
        max_body_bytes: of the JSON.
        example: an object that would do, for those who sent another.

    Raises:
        ASRError: `bad_request`, `bad_audio`, `too_large`, `storage_full`.
    """
    target = _Target(spool)
    reader = JsonAudio(example)

    def take(audio: bytes) -> None:
        if target.size_bytes + len(audio) > max_bytes:
            raise too_large("audio", max_bytes)
        target.write(audio)

    def end() -> Upload:
        take(reader.finish())
        name = reader.members.get("filename")
        return target.upload(plain_name(name if isinstance(name, str) else ""), "")

    try:
        async for block in _blocks(_bounded(request, max_body_bytes, "body")):
            await _off_loop(lambda block=block: take(reader.feed(block)))  # type: ignore[misc]
        return await _off_loop(end), reader.members
    except BaseException:
        await asyncio.shield(_off_loop(target.discard))
        raise


async def read_small_json(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """A JSON object that is settings and no recording; an empty one for an empty body.

    Raises:
        ASRError: `bad_request`, `too_large`, `idle_timeout` where it does not come.
    """
    pieces, size = list[bytes](), 0
    try:
        async with asyncio.timeout(SMALL_BODY_TIMEOUT_S):
            async for piece in request.stream():
                size += len(piece)
                if size > max_bytes:
                    raise ASRError(Code.TOO_LARGE, f"The body of this request is {max_bytes // 1024} KiB at most.")
                pieces.append(piece)
    except TimeoutError:
        raise ASRError(Code.IDLE_TIMEOUT, "The body of the request did not come.") from None
    data = b"".join(pieces).strip()
    try:
        body = orjson.loads(data) if data else {}
    except orjson.JSONDecodeError:
        raise ASRError(Code.BAD_REQUEST, "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise ASRError(Code.BAD_REQUEST, "The body must be a JSON object.")
    return body


async def _bounded(
    request: Request, max_bytes: int, what: str, *, told_bytes: int | None = None
) -> AsyncIterator[bytes]:
    """The body's pieces. `told_bytes`: the bound that a client is told, where it is another."""
    refusal = too_large(what, max_bytes if told_bytes is None else told_bytes)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise refusal
    came = 0
    async for piece in request.stream():
        came += len(piece)
        if came > max_bytes:
            raise refusal
        if piece:
            yield piece


async def _blocks(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that are worth a hop to a thread."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        if len(waiting) >= WRITE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _off_loop(act: Callable[[], T]) -> T:
    """Do it on a thread. Who is cancelled meanwhile goes on when the thread is through: nobody else is in the file."""
    doing = asyncio.get_running_loop().run_in_executor(None, act)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait((doing,))
        if not doing.cancelled():
            doing.exception()  # nobody is there to hear it
        raise


class _Target:
    """The file that one body becomes; it is created with its first bytes. Blocking."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._file: SpoolFile | None = None

    @property
    def size_bytes(self) -> int:
        return 0 if self._file is None else self._file.size_bytes

    def write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._spool.create()
        self._file.write(data)

    def upload(self, filename: str, content_type: str) -> Upload:
        """It is complete."""
        assert self._file is not None
        self._file.close()
        return Upload(self._file.path, filename, content_type, self._file.size_bytes, self._spool)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            self._file.discard()
