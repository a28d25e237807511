"""What a client uploads, taken in piece by piece: forms and bodies, with their files in the spool.

Nothing is held in memory but small fields. What is over a bound is refused before more of it is read, and whatever
ends a request early leaves no file behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from asr.errors import ASRError, Code
from server.json_audio import JsonAudio
from server.spool import Spool, SpoolFile

T = TypeVar("T")

MAX_FIELDS = 200
MAX_FIELD_BYTES = 256 * 1024
MAX_FORM_BYTES = 1024 * 1024
"""All fields together that are not files."""
OVERHEAD_BYTES = 64 * 1024
"""What a form's own lines may add to the bytes of its file."""
WRITE_BYTES = 256 * 1024
"""So much is gathered before it is written: each write is a hop to a thread."""
MAX_NAME_CHARS = 255


@dataclass(slots=True)
class Upload:
    """A file that came in, in the spool.

    Attributes:
        path: where it lies.
        filename: as the client named it, without folders; "" where it did not.
        content_type: as the client said, in lower case, without parameters; "" where it did not.
        size_bytes: how long it is.
    """

    path: Path
    filename: str
    content_type: str
    size_bytes: int
    _spool: Spool | None = None

    def keep(self) -> Upload:
        """Leave the file where it is: it belongs to the caller from now on."""
        self._spool = None
        return self

    async def close(self) -> None:
        """Delete it; twice does no harm."""
        spool, self._spool = self._spool, None
        if spool is not None:
            await asyncio.to_thread(spool.remove, self.path)

    async def __aenter__(self) -> Upload:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.close())


@dataclass(slots=True)
class Form:
    """The fields of a form, and its files. An asynchronous context manager that deletes the files."""

    values: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[str, Upload]] = field(default_factory=list)

    def field(self, name: str, default: str = "") -> str:
        """The last value of a field, without blanks and line ends around it."""
        return next((value.strip() for key, value in reversed(self.values) if key == name), default)

    def fields(self, *names: str) -> list[str]:
        """Every value of the fields of these names, in order."""
        return [value.strip() for key, value in self.values if key in names]

    def file(self, name: str = "file") -> Upload:
        """The file of this name.

        Raises:
            ASRError: `bad_request` where there is none, or it is empty.
        """
        found = next((upload for key, upload in self.files if key == name), None)
        if sum(key == name for key, _ in self.files) > 1:
            text = f"The form has several files {name!r}. Send one recording with each request."
            raise ASRError(Code.BAD_REQUEST, text, param=name)
        if found is None:
            there = ", ".join(sorted({key for key, _ in self.files})) or "none"
            what = f"The form has no file {name!r} (files: {there}). Send the audio as multipart field {name!r}."
            raise ASRError(Code.BAD_REQUEST, what, param=name)
        if not found.size_bytes:
            raise ASRError(Code.BAD_AUDIO, "The file is empty: not one byte came.", param=name)
        return found

    async def close(self) -> None:
        """Delete the files."""
        for _, upload in self.files:
            await upload.close()

    async def __aenter__(self) -> Form:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.close())


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
            raise _too_many_fields() from error
        return Form(values)
    boundary = parse_options_header(request.headers.get("content-type", ""))[1].get(b"boundary")
    if kind != "multipart/form-data" or not boundary:
        what = f"The body is {kind or 'of no stated type'}; a form is sent as multipart/form-data with a boundary."
        raise ASRError(Code.BAD_REQUEST, what, param="content-type")
    try:
        reader = _FormReader(boundary, spool, max_bytes)
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
            raise _too_large("audio", max_bytes)
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


def plain_name(name: str) -> str:
    """A client's name for a file, without folders and control characters.

    >>> plain_name("../../etc/a.wav"), plain_name(r"C:\\clips\\b.wav")
    ('a.wav', 'b.wav')
    """
    last = PureWindowsPath(PurePosixPath(name).name).name
    return "".join(char for char in last if char.isprintable())[:MAX_NAME_CHARS]


async def _bounded(
    request: Request, max_bytes: int, what: str, *, told_bytes: int | None = None
) -> AsyncIterator[bytes]:
    """The body's pieces. `told_bytes`: the bound that a client is told, where it is another."""
    too_large = _too_large(what, max_bytes if told_bytes is None else told_bytes)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise too_large
    came = 0
    async for piece in request.stream():
        came += len(piece)
        if came > max_bytes:
            raise too_large
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


def _too_many_fields() -> ASRError:
    return ASRError(Code.BAD_REQUEST, f"The form has more than {MAX_FIELDS} fields.", param="body")


def _too_large(what: str, max_bytes: int) -> ASRError:
    size = f"{max_bytes / (1024 * 1024):.4g} MiB" if max_bytes >= 1024 * 1024 else f"{max_bytes} bytes"
    text = f"The {what} is larger than the {size} that are accepted here. Send it in parts, or as a job."
    return ASRError(Code.TOO_LARGE, text, param=what)


class _FormReader:
    """Callbacks of the multipart parser. It writes nothing itself: `write` does, off the loop."""

    def __init__(self, boundary: bytes, spool: Spool, max_bytes: int) -> None:
        self.form = Form()
        self.waiting_bytes = 0
        self._spool = spool
        self._max_bytes = max_bytes
        self._file_bytes = 0
        self._field_bytes = 0
        self._name = ""
        self._headers: dict[bytes, bytes] = {}
        self._header = b""
        self._value = b""
        self._text: bytearray | None = None
        self._part: tuple[str, str, str] | None = None  # field, file name and type of the file that is read
        self._waiting: list[Callable[[], None]] = []
        self._open: SpoolFile | None = None
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header,
                "on_header_value": self._on_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, piece: bytes) -> None:
        self._parser.write(piece)

    def write(self) -> None:
        """Carry out what waits. Blocking."""
        waiting, self._waiting, self.waiting_bytes = self._waiting, [], 0
        for act in waiting:
            act()

    def end(self) -> None:
        """The body is over. Blocking."""
        self.write()
        self._parser.finalize()
        if not self._ended:
            text = "The form ends in the middle: its closing boundary is missing. Send all of it."
            raise ASRError(Code.BAD_REQUEST, text, param="body")

    def discard(self) -> None:
        """Leave nothing behind. Blocking."""
        if self._open is not None:
            self._open.discard()
        for _, upload in self.form.files:
            self._spool.remove(upload.path)

    def _begin(self) -> None:
        self._headers, self._header, self._value = {}, b"", b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise ASRError(Code.BAD_REQUEST, "A part of the form has no name.", param="body")
        name = options[b"name"].decode("utf-8", "replace")
        if len(self.form.values) + len(self.form.files) >= MAX_FIELDS:
            raise _too_many_fields()
        filename = options.get(b"filename")
        if filename is None:
            self._name, self._text = name, bytearray()
            return
        kind = self._headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        self._part = (name, plain_name(filename.decode("utf-8", "replace")), kind)
        self._waiting.append(self._create)

    def _data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._text is not None:
            self._field_bytes += len(piece)
            if len(self._text) + len(piece) > MAX_FIELD_BYTES or self._field_bytes > MAX_FORM_BYTES:
                text = f"The field {self._name!r} is too long. Audio is sent as a file, with a filename."
                raise ASRError(Code.TOO_LARGE, text, param=self._name)
            self._text += piece
            return
        self._file_bytes += len(piece)
        if self._file_bytes > self._max_bytes:
            raise _too_large("file", self._max_bytes)
        self.waiting_bytes += len(piece)
        self._waiting.append(lambda: self._append(piece))

    def _end_part(self) -> None:
        if self._text is not None:
            self.form.values.append((self._name, self._text.decode("utf-8", "replace")))
            self._text = None
        elif self._part is not None:
            part, self._part = self._part, None
            self._waiting.append(lambda: self._finish(*part))

    def _end(self) -> None:
        self._ended = True

    def _create(self) -> None:
        self._open = self._spool.create()

    def _append(self, piece: bytes) -> None:
        assert self._open is not None
        self._open.write(piece)

    def _finish(self, name: str, filename: str, kind: str) -> None:
        file = self._open
        assert file is not None
        file.close()
        self._open = None
        self.form.files.append((name, Upload(file.path, filename, kind, file.size_bytes, self._spool)))
