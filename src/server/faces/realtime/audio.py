"""The audio of an `input_audio_buffer.append`: base64, read strictly, and decoded, both within bounds."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

import orjson

from asr.audio import AudioDecoder
from asr.engine import BYTES_PER_MS
from asr.errors import ASRError, Code

APPEND = "input_audio_buffer.append"
MAX_APPEND_BYTES = 15 * 1024 * 1024
"""Of the base64 of one message: OpenAI's own limit."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Of a whole message."""
PIECE_CHARS = 16 * 1024
"""Of the base64 of a piece of a large append: the most compressed sound in it is decoded in milliseconds."""
CHECKED_CHARS = 1024 * 1024
NO_BASE64 = "%"
SLICE_BYTES = 64 * 1024
MAX_PCM_BYTES = 32 * 1024 * 1024
"""Of the PCM of one message."""


def read_audio(value: object) -> bytes:
    """The bytes that the field `audio` of an append spells; none for an empty text.

    Raises:
        ASRError: `bad_request` where it is missing or not base64, `too_large` over the bound.
    """
    if not isinstance(value, str):
        raise _bad("The append has no audio: give it as base64 text.")
    if len(value) > MAX_APPEND_BYTES:
        limit = MAX_APPEND_BYTES // (1024 * 1024)
        raise ASRError(Code.TOO_LARGE, f"An append holds {limit} MiB of base64 at most. Send smaller chunks.")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("audio is not base64.") from None


def large_append(message: str | bytes) -> LargeAppend | None:
    """The append that a large message is; None where it is something else, or larger than an append may be."""
    if len(message) <= 2 * PIECE_CHARS:
        return None
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(event, dict) or event.get("type") != APPEND:
        return None
    audio = event.get("audio")
    if not isinstance(audio, str) or not PIECE_CHARS < len(audio) <= MAX_APPEND_BYTES:
        return None
    return LargeAppend(event, audio, isinstance(message, bytes))


class LargeAppend:
    """An append that is read step by step: what takes long can be left to others in between.

    Args:
        event: the client's.
        audio: the base64 in it.
        as_bytes: whether it came as a binary message; its pieces are, too.
    """

    def __init__(self, event: dict[str, object], audio: str, as_bytes: bool) -> None:
        self._event = event
        self._audio = audio
        self._as_bytes = as_bytes

    def flaws(self) -> Iterator[str | bytes | None]:
        """Look for what is not base64: None after each step, or a smaller event that is refused for the same flaw."""
        for start in range(0, len(self._audio), CHECKED_CHARS):
            part = self._audio[start : start + CHECKED_CHARS]
            ends_early = part.endswith("=") and start + CHECKED_CHARS < len(self._audio)
            try:
                base64.b64decode(part, validate=True)
            except ValueError:
                ends_early = True
            yield self._piece(self._event, NO_BASE64) if ends_early else None

    def pieces(self) -> Iterator[str | bytes]:
        """Events that come to the same. What is asked for besides comes with the last."""
        last = (len(self._audio) - 1) // PIECE_CHARS * PIECE_CHARS
        for start in range(0, last + 1, PIECE_CHARS):
            head: dict[str, object] = {"type": APPEND} if start < last else self._event
            yield self._piece(head, self._audio[start : start + PIECE_CHARS])

    def _piece(self, head: dict[str, object], audio: str) -> str | bytes:
        piece = orjson.dumps({**head, "audio": audio})
        return piece if self._as_bytes else piece.decode()


def decoded(decoder: AudioDecoder, audio: bytes) -> bytes:
    """The PCM that one message completes; in slices, because a compressed one may hold a thousand times its size.

    Raises:
        ASRError: as `AudioDecoder.feed`, and `too_large`.
    """
    pieces, size = list[bytes](), 0
    for start in range(0, len(audio), SLICE_BYTES):
        pieces.append(decoder.feed(audio[start : start + SLICE_BYTES]))
        size += len(pieces[-1])
        if size > MAX_PCM_BYTES:
            minutes = MAX_PCM_BYTES / BYTES_PER_MS / 60_000
            text = f"An append holds {minutes:.0f} minutes of sound at most. Send smaller chunks."
            raise ASRError(Code.TOO_LARGE, text)
    return b"".join(pieces)


def _bad(text: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, text, param="audio")
