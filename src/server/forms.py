"""A form and the files in it, and how multipart becomes one.

Nothing here waits: `FormReader` is fed piece by piece, and what it has to write is written when it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType

from python_multipart.multipart import MultipartParser, parse_options_header

from asr.errors import ASRError, Code
from server.spool import Spool, SpoolFile

MAX_FIELDS = 200
MAX_FIELD_BYTES = 256 * 1024
MAX_FORM_BYTES = 1024 * 1024
"""All fields together that are not files."""
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


def plain_name(name: str) -> str:
    """A client's name for a file, without folders and control characters.

    >>> plain_name("../../etc/a.wav"), plain_name(r"C:\\clips\\b.wav")
    ('a.wav', 'b.wav')
    """
    last = PureWindowsPath(PurePosixPath(name).name).name
    return "".join(char for char in last if char.isprintable())[:MAX_NAME_CHARS]


def too_many_fields() -> ASRError:
    """The refusal of a form with more fields than `MAX_FIELDS`."""
    return ASRError(Code.BAD_REQUEST, f"The form has more than {MAX_FIELDS} fields.", param="body")


def too_large(what: str, max_bytes: int) -> ASRError:
    """The refusal of a `what` that is over a bound."""
    size = f"{max_bytes / (1024 * 1024):.4g} MiB" if max_bytes >= 1024 * 1024 else f"{max_bytes} bytes"
    text = f"The {what} is larger than the {size} that are accepted here. Send it in parts, or as a job."
    return ASRError(Code.TOO_LARGE, text, param=what)


class FormReader:
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
        """The next piece of the body.

        Raises:
            ASRError: `bad_request`, `too_large`.
            FormParserError: it is no multipart.
        """
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
            raise too_many_fields()
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
            raise too_large("file", self._max_bytes)
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
