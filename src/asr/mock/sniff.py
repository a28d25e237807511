"""What the bytes of an upload or a stream are, by their header, and their PCM16 mono.

Riva trusts the header of a file over an encoding that was left unset. WAV and bare samples are read as they
come; FLAC and Ogg are gathered (within a bound) and decoded at the end of the audio.
"""

from __future__ import annotations

import io
from typing import Literal

import av
import numpy as np

Encoding = Literal["", "pcm", "flac", "mulaw", "alaw", "opus"]

MISMATCH = "Error: config format doesn't match with header format"
TOO_LONG = "Error: audio too long"
STEREO = "Error: Only mono audio supported"
DEFAULT_RATE_HZ = 16_000
MAX_HEADER_BYTES = 64 * 1024
MAX_GATHERED_BYTES = 25_000_000
MAX_DECODED_BYTES = 120_000_000
"""Of the PCM of a compressed file: about an hour; silence compresses to almost nothing."""

_WAV_FORMATS: dict[tuple[int, int], Encoding] = {(1, 16): "pcm", (6, 8): "alaw", (7, 8): "mulaw"}
_DECODED_RATE_HZ = 16_000


class BadAudioError(Exception):
    """The audio contradicts the request, or is not of a kind that Riva takes."""


class Sniffer:
    """Turns a stream of bytes into PCM16 mono.

    Attributes:
        rate_hz: of the PCM; 0 until the header, where there is one, has been read.
    """

    def __init__(self, encoding: Encoding = "", rate_hz: int = 0, channels: int = 0) -> None:
        """What the request says; "" and 0 leave it to the header.

        Raises:
            BadAudioError: more than one channel.
        """
        if channels > 1:
            raise BadAudioError(STEREO)
        self.rate_hz = 0
        self._encoding: Encoding = encoding
        self._asked_rate_hz = rate_hz
        self._head = bytearray()
        self._gathered: bytearray | None = None
        self._known = False

    @property
    def gathers(self) -> bool:
        """Whether the audio is compressed and will be decoded at its end."""
        return self._gathered is not None

    def feed(self, data: bytes) -> bytes:
        """The PCM of the next bytes; may be empty while the header is incomplete.

        Raises:
            BadAudioError: as the class says; its text is Riva's.
        """
        if self._gathered is not None:
            if len(self._gathered) + len(data) > MAX_GATHERED_BYTES:
                raise BadAudioError(TOO_LONG)
            self._gathered += data
            return b""
        if self._known:
            return self._decode(data)
        self._head += data
        return self._read_head(complete=False)

    def finish(self) -> bytes:
        """The PCM that is left when the audio ends."""
        if self._gathered is not None:
            return _decode_file(bytes(self._gathered))
        return b"" if self._known else self._read_head(complete=True)

    def _read_head(self, *, complete: bool) -> bytes:
        head = bytes(self._head)
        if len(head) < 64 and not complete:
            return b""
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return self._read_wav(head, complete)
        if head[:4] in (b"fLaC", b"OggS"):
            return self._gather(head)
        if self._encoding in ("flac", "opus"):
            raise BadAudioError(MISMATCH)
        return self._begin(self._encoding or "pcm", self._asked_rate_hz or DEFAULT_RATE_HZ, head)

    def _gather(self, head: bytes) -> bytes:
        kind = "flac" if head[:4] == b"fLaC" else "opus"
        if self._encoding not in ("", kind):
            raise BadAudioError(MISMATCH)
        if _compressed_channels(head) > 1:
            raise BadAudioError(STEREO)
        self.rate_hz = _DECODED_RATE_HZ
        self._head.clear()
        self._gathered = bytearray(head)
        return b""

    def _read_wav(self, head: bytes, complete: bool) -> bytes:
        at = 12
        form: tuple[int, int, int, int] | None = None
        while at + 8 <= len(head):
            name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
            if name == b"data" and form is not None:
                return self._begin_wav(form, head[at + 8 :])
            if name == b"fmt " and at + 24 <= len(head):
                tag, channels = (int.from_bytes(head[at + i : at + i + 2], "little") for i in (8, 10))
                rate = int.from_bytes(head[at + 12 : at + 16], "little")
                form = (tag, channels, rate, int.from_bytes(head[at + 22 : at + 24], "little"))
            at += 8 + size + size % 2
        if complete or len(head) > MAX_HEADER_BYTES:
            raise BadAudioError("Error: the WAV header holds no audio")
        return b""

    def _begin_wav(self, form: tuple[int, int, int, int], data: bytes) -> bytes:
        tag, channels, rate_hz, bits = form
        encoding = _WAV_FORMATS.get((tag, bits))
        if encoding is None:
            raise BadAudioError(f"Error: unsupported WAV format {tag} with {bits} bits")
        if self._encoding not in ("", encoding):
            raise BadAudioError(MISMATCH)
        if channels != 1:
            raise BadAudioError(STEREO)
        return self._begin(encoding, rate_hz, data)

    def _begin(self, encoding: Encoding, rate_hz: int, data: bytes) -> bytes:
        if not 8000 <= rate_hz <= 192_000:
            raise BadAudioError(f"Error: unsupported sample rate {rate_hz}")
        self._encoding, self.rate_hz, self._known = encoding, rate_hz, True
        self._head.clear()
        return self._decode(data)

    def _decode(self, data: bytes) -> bytes:
        if self._encoding == "mulaw":
            return _MULAW[np.frombuffer(data, np.uint8)].tobytes()
        if self._encoding == "alaw":
            return _ALAW[np.frombuffer(data, np.uint8)].tobytes()
        return data


def _compressed_channels(head: bytes) -> int:
    if head[:4] == b"fLaC" and len(head) >= 21:
        # STREAMINFO: 20 bits of rate, then 3 bits of channels less one.
        return ((head[20] >> 1) & 7) + 1
    at = head.find(b"OpusHead")
    return head[at + 9] if 0 <= at < len(head) - 9 else 1


def _decode_file(data: bytes) -> bytes:
    pcm = bytearray()
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=_DECODED_RATE_HZ)
            for frame in container.decode(audio=0):
                for out in resampler.resample(frame):
                    pcm += out.to_ndarray().tobytes()
                if len(pcm) > MAX_DECODED_BYTES:
                    raise BadAudioError(TOO_LONG)
            for out in resampler.resample(None):
                pcm += out.to_ndarray().tobytes()
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise BadAudioError("Error: the audio cannot be decoded") from error
    return bytes(pcm)


def _mulaw_table() -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    # ITU-T G.711: sign, three bits of segment, four of mantissa, all inverted.
    code = ~np.arange(256, dtype=np.uint8)
    segment = (code >> 4) & 7
    size = (((code & 15).astype(np.int32) << 3) + 0x84 << segment) - 0x84
    return np.where(code & 0x80, -size, size).astype("<i2")


def _alaw_table() -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment = (code >> 4) & 7
    mantissa = ((code & 15).astype(np.int32) << 4) + 8
    size = np.where(segment == 0, mantissa, (mantissa + 0x100) << np.maximum(segment, 1) - 1)
    return np.where(code & 0x80, size, -size).astype("<i2")


_MULAW = _mulaw_table()
_ALAW = _alaw_table()
