"""A JSON object with a recording as base64 in its member `audio`, read piece by piece. Pure.

The base64 is decoded as it passes, so that a recording of any size takes no memory and no piece takes long; what is
left of the object is small and is read like any other JSON.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from asr.errors import ASRError, Code

MAX_MEMBERS = 200
MAX_REST_BYTES = 1024 * 1024
"""All of the object but the recording."""

_MARK = re.compile(rb'["{}\[\]]')
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_ESCAPES = re.compile(rb"(?:[^\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+", re.DOTALL)
_AUDIO_KEY = re.compile(rb'"audio"\s*:\s*\Z')
_KEY_BYTES = 64
"""How far back the key may begin."""
_BLANKS = b" \t\r\n\f\v"
_PREFIX_BYTES = 1_000
_BOM = b"\xef\xbb\xbf"


class JsonAudio:
    """Reads one object. `feed` its bytes, then `finish`; what both give is the recording.

    Args:
        example: an object that would do, for those who sent another.
    """

    def __init__(self, example: str) -> None:
        self._example = example
        self._rest = bytearray()
        self._depth = 0
        self._in_string = False
        self._in_audio = False
        self._escaped = False
        self._audio: _Base64 | None = None
        self.members: dict[str, Any] = {}
        """All members but `audio`, once it is finished."""

    def feed(self, piece: bytes) -> bytes:
        """The recording's bytes that became known.

        Raises:
            ASRError: `bad_request`, `bad_audio`, `too_large` for much beside the recording.
        """
        return b"".join(self._read(piece))

    def finish(self) -> bytes:
        """The body is over: the last bytes of the recording.

        Raises:
            ASRError: `bad_request`, or `bad_audio` where `audio` is not base64.
        """
        try:
            content: Any = orjson.loads(self._rest.removeprefix(_BOM))
        except orjson.JSONDecodeError as error:
            raise ASRError(Code.BAD_REQUEST, f"The body is not JSON: {error.msg}.", param="body") from error
        audio = content.pop("audio", None) if isinstance(content, dict) else None
        if not isinstance(audio, str):
            raise self._none()
        if len(content) > MAX_MEMBERS:
            raise ASRError(Code.BAD_REQUEST, f"The JSON has more than {MAX_MEMBERS} members.", param="body")
        self.members = content
        if self._audio is not None:
            return b""
        late = _Base64()  # its key was written in another way, and so it was not found on the way
        return late.feed(orjson.dumps(audio)[1:-1]) + late.end()

    def _read(self, piece: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(piece):
            if not self._in_string:
                mark = _MARK.search(piece, at)
                end = len(piece) if mark is None else mark.end()
                self._keep(piece[at:end])
                at = end
                if mark is not None:
                    self._see(mark[0])
                continue
            end = self._string_end(piece, at)
            if self._in_audio and self._audio is not None:
                yield self._audio.feed(piece[at:end])
            else:
                self._keep(piece[at:end])
            at = end
            if end < len(piece):  # a quotation mark
                self._in_string = False
                if self._in_audio and self._audio is not None:
                    self._in_audio = False
                    yield self._audio.end()
                self._keep(b'"')
                at += 1

    def _see(self, mark: bytes) -> None:
        if mark == b'"':
            self._in_string = True
            if self._depth == 1 and _AUDIO_KEY.search(self._rest[-_KEY_BYTES:-1]):
                if self._audio is not None:
                    raise ASRError(Code.BAD_REQUEST, 'The JSON has "audio" twice.', param="audio")
                self._in_audio, self._audio = True, _Base64()
        else:
            self._depth += 1 if mark in b"{[" else -1

    def _string_end(self, piece: bytes, at: int) -> int:
        """Where the string ends that `piece[at]` belongs to, or the piece."""
        if self._escaped:
            self._escaped = False
            at += 1
        found = _IN_STRING.match(piece, at)
        end = at if found is None else found.end()
        if end < len(piece) and piece[end] != ord('"'):  # a backslash, and nothing more
            self._escaped = True
            end += 1
        return end

    def _keep(self, piece: bytes) -> None:
        self._rest += piece
        if len(self._rest) > MAX_REST_BYTES:
            if self._audio is None:
                raise self._none()
            raise ASRError(Code.TOO_LARGE, "What stands beside the recording is longer than 1 MiB.", param="fields")

    def _none(self) -> ASRError:
        return ASRError(
            Code.BAD_REQUEST, f'The JSON needs the recording as base64 in "audio": {self._example}.', param="audio"
        )


class _Base64:
    """What stands between the quotation marks, decoded; a `data:` URL is fine, and so are blanks."""

    def __init__(self) -> None:
        self._raw = b""
        self._prefix: bytes | None = b""  # None: it is known what is in front
        self._quads = b""
        self._padded = False
        self._came = False

    def feed(self, raw: bytes) -> bytes:
        raw = self._raw + raw
        whole = _ESCAPES.match(raw) if b"\\" in raw else None
        cut = len(raw) if whole is None else whole.end()
        self._raw = raw[cut:]
        return self._decode(_unescaped(raw[:cut]) if whole is not None else raw)

    def end(self) -> bytes:
        if self._raw:
            raise _no_base64("an escape is broken")
        begun, self._prefix = self._prefix, None
        audio = self._decode(begun or b"")
        if self._quads:
            raise _no_base64("Incorrect padding")
        if not self._came:
            raise ASRError(Code.BAD_AUDIO, 'There is no recording: "audio" is empty.', param="audio")
        return audio

    def _decode(self, text: bytes) -> bytes:
        if self._prefix is not None:
            self._prefix += text
            if self._prefix.startswith(b"data:") or len(self._prefix) < len(b"data:"):
                begin = self._prefix.find(b",") + 1
                if not begin and len(self._prefix) <= _PREFIX_BYTES:
                    return b""
                self._prefix = self._prefix[begin:]
            text, self._prefix = self._prefix, None
        quads = self._quads + text.translate(None, _BLANKS)
        whole = len(quads) // 4 * 4
        self._quads = quads[whole:]
        if quads and self._padded:
            raise _no_base64("Excess data after padding")
        try:
            audio = binascii.a2b_base64(quads[:whole], strict_mode=True) if whole else b""
        except binascii.Error as error:
            raise _no_base64(str(error)) from error
        self._padded = self._padded or len(audio) < whole // 4 * 3
        self._came = self._came or bool(audio)
        return audio


def _unescaped(raw: bytes) -> bytes:
    try:
        # rule(unguarded-json): one text in quotes, which cannot be nested
        text: str = json.loads(b'"' + raw + b'"', strict=False)
    except ValueError as error:
        raise _no_base64("an escape is broken") from error
    return text.encode("ascii", "replace")


def _no_base64(why: str) -> ASRError:
    return ASRError(Code.BAD_AUDIO, f'"audio" is not base64: {why}.', param="audio")
