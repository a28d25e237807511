"""The audio of an `input_audio_buffer.append`: base64, read strictly, and decoded, both within bounds."""

from __future__ import annotations

import base64
import binascii

from asr.audio import AudioDecoder
from asr.engine import BYTES_PER_MS
from asr.errors import ASRError, Code

MAX_APPEND_BYTES = 15 * 1024 * 1024
"""Of the base64 of one message: OpenAI's own limit."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Of a whole message."""
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
