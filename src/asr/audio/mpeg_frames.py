"""What the headers of MP3 and ADTS (AAC) frames say; and the Xing header, which tells where the sound of an MP3 begins.

These frames carry no checksum to speak of, and a sync word of 11 or 12 bits that sound holds as well: one header
alone proves nothing. Two that agree, the second where the first says that it must be, do (see `mpeg`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HEAD_BYTES = 7
"""No header needs more than this."""

_MP3_KBPS = {
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_HZ = (44_100, 48_000, 32_000)
_AAC_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)


@dataclass(frozen=True, slots=True)
class MpegHeader:
    """A frame's header.

    Attributes:
        size_bytes: of the whole frame.
        samples: of each channel.
        rate_hz, channels: as the header says; AAC may decode to more of both.
        codec: libav's name of the decoder.
        kind: what all frames of a stream have in common.
    """

    size_bytes: int
    samples: int
    rate_hz: int
    channels: int
    codec: str
    kind: tuple[int, ...]


ParseHeader = Callable[[bytes | bytearray, int], MpegHeader | None]
"""Reads the header at a place of which `HEAD_BYTES` are there; None where there is none."""


def parse_mp3_header(data: bytes | bytearray, at: int) -> MpegHeader | None:
    """The header of an MPEG audio frame of layer III or II."""
    if data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    rate_code, kbps_code = data[at + 2] >> 2 & 3, data[at + 2] >> 4
    if version == 1 or layer not in (2, 3) or rate_code == 3 or not 1 <= kbps_code <= 14:
        return None
    rate_hz = _MP3_HZ[rate_code] >> {3: 0, 2: 1, 0: 2}[version]
    kbps = _MP3_KBPS[(1 if version == 3 else 2, layer)][kbps_code - 1]
    samples = 576 if layer == 3 and version != 3 else 1152
    size = samples // 8 * kbps * 1000 // rate_hz + (data[at + 2] >> 1 & 1)
    channels = 1 if data[at + 3] >> 6 == 3 else 2
    return MpegHeader(size, samples, rate_hz, channels, f"mp{layer}float", (version, layer, rate_code, channels))


def parse_adts_header(data: bytes | bytearray, at: int) -> MpegHeader | None:
    """The header of an ADTS frame."""
    if data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0:
        return None
    profile, rate_code = data[at + 2] >> 6, data[at + 2] >> 2 & 15
    channel_code = (data[at + 2] & 1) << 2 | data[at + 3] >> 6
    size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    if rate_code >= len(_AAC_HZ) or size <= HEAD_BYTES + 2 * (1 - (data[at + 1] & 1)):
        return None
    samples = 1024 * ((data[at + 6] & 3) + 1)
    channels = 8 if channel_code == 7 else max(1, channel_code)
    return MpegHeader(size, samples, _AAC_HZ[rate_code], channels, "aac", (profile, rate_code, channel_code))


@dataclass(frozen=True, slots=True)
class Xing:
    """What the first frame of most MP3 files says of the others: no sound, but its limits, in samples.

    Attributes:
        frames: how many frames of sound follow; 0 where it does not say.
        delay: samples that the encoder put before the sound.
        padding: samples that it put after it.
    """

    frames: int
    delay: int
    padding: int


MP3_DECODER_DELAY = 529
"""Samples by which any MP3 decoder is late; encoders do not count them in their own delay."""


def parse_xing(frame: bytes, header: MpegHeader) -> Xing | None:
    """The Xing header (also spelled Info) in a frame, or None where it holds sound."""
    if header.codec != "mp3float":
        return None
    version = header.kind[0]
    at = 4 + (17 if header.channels == 1 else 32) if version == 3 else 4 + (9 if header.channels == 1 else 17)
    if frame[at : at + 4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    place = at + 8
    frames = int.from_bytes(frame[place : place + 4], "big") if flags & 1 else 0
    place += 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    packed = int.from_bytes(frame[place + 21 : place + 24], "big")
    if not frame[place : place + 1].strip(b"\0") or not packed:
        return Xing(frames, 0, 0)
    return Xing(frames, packed >> 12, packed & 0xFFF)
