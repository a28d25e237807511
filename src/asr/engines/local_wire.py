"""The language between the gateway and its recognizer processes: length-prefixed frames over two pipes.

A frame is one byte of kind, four bytes of stream number, four bytes of payload length (big-endian), then the
payload. Pure: both ends use it, and neither trusts the other with more than `MAX_PAYLOAD_BYTES`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from asr.config import LocalConfig
from asr.options import Options

_HEADER = struct.Struct(">BII")
HEADER_BYTES = _HEADER.size
MAX_PAYLOAD_BYTES = 1 << 20


class Kind(IntEnum):
    """What a frame says. The first five go to the worker, the others come from it."""

    OPEN = 1
    AUDIO = 2
    CUT = 3
    FINISH = 4
    DROP = 5
    READY = 16
    EVENTS = 17
    ENDED = 18
    FAILED = 19


@dataclass(frozen=True, slots=True)
class Frame:
    """One message about one stream (`READY` is about the process and carries stream 0)."""

    kind: Kind
    stream: int
    payload: bytes = b""


def pack(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return _HEADER.pack(kind, stream, len(payload)) + payload


def unpack_header(header: bytes) -> tuple[Kind, int, int]:
    """Kind, stream and payload length of a frame's first `HEADER_BYTES`.

    Raises:
        ValueError: the bytes are not a header, or it announces too large a payload.
    """
    kind, stream, size = _HEADER.unpack(header)
    if size > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a frame of {size} bytes is over the limit of {MAX_PAYLOAD_BYTES}")
    return Kind(kind), stream, size


class Unpacker:
    """Cuts a byte stream into frames, however the pipe has torn it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
            ValueError: what came is not a frame.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            kind, stream, size = unpack_header(bytes(buffer[start : start + HEADER_BYTES]))
            end = start + HEADER_BYTES + size
            if len(buffer) < end:
                break
            frames.append(Frame(kind, stream, bytes(buffer[start + HEADER_BYTES : end])))
            start = end
        del buffer[:start]
        return frames


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a worker needs to know about one stream.

    Attributes:
        silence_ms: the pause that ends an utterance.
        manual: no pause ends one.
        max_utterance_ms: an utterance that grows longer is cut.
        partial_interval_ms: at most one partial in this much audio.
        partials: partials are wanted.
        words: finals carry words.
        language: what finals are labelled with.
    """

    silence_ms: int = 500
    manual: bool = False
    max_utterance_ms: int = 30_000
    partial_interval_ms: int = 200
    partials: bool = True
    words: bool = True
    language: str = "en-US"

    @classmethod
    def of(cls, config: LocalConfig, options: Options) -> Tuning:
        """The engine's configuration with a caller's wishes laid over it."""
        endpointing = options.endpointing
        silence_ms = endpointing.silence_ms if endpointing is not None else None
        return cls(
            silence_ms=config.silence_ms if silence_ms is None else silence_ms,
            manual=endpointing is not None and endpointing.manual,
            max_utterance_ms=config.max_utterance_ms,
            partial_interval_ms=config.partial_interval_ms,
            partials=options.partials,
            words=options.words,
            language=options.language or cls().language,
        )

    def encode(self) -> bytes:
        """As the payload of `OPEN`."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Tuning:
        """From the payload of `OPEN`."""
        fields: dict[str, Any] = json.loads(payload)
        return cls(**fields)
