"""What a WAV header says the samples are."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from asr.audio.formats import bad_audio, check_header
from asr.audio.samples import SampleFormat
from asr.errors import ASRError, Code

_EXTENSIBLE = 0xFFFE
_PCM_WIDTHS = {1: SampleFormat.U8, 2: SampleFormat.S16, 3: SampleFormat.S24, 4: SampleFormat.S32}
_FLOAT_WIDTHS = {4: SampleFormat.F32, 8: SampleFormat.F64}
_CODEC_NAMES = {
    0x02: "MS ADPCM",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x45: "G.726",
    0x50: "MPEG",
    0x55: "MP3",
    0xFF: "AAC",
    0x161: "Windows Media",
}


@dataclass(frozen=True, slots=True)
class WavFormat:
    """What a `fmt ` chunk says."""

    sample_format: SampleFormat
    rate_hz: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of each channel."""
        return self.sample_format.width_bytes * self.channels

    def __str__(self) -> str:
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        return f"{self.sample_format.value[0]}, {self.rate_hz} Hz, {channels}"


def parse_format(body: bytes) -> WavFormat:
    """Read the body of a `fmt ` chunk.

    Raises:
        ASRError: `bad_audio` where it makes no sense, `unsupported` for a codec that is not PCM or G.711.
    """
    if len(body) < 16:
        raise bad_audio("The WAV header is damaged: its format chunk is too short.")
    tag, channels, rate_hz, _, block, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack_from("<H", body, 24)[0]
    check_header(rate_hz, channels, "WAV")
    # 20 bits lie in three bytes, 24 sometimes in four: the frame size tells, where it is sound.
    width = block // channels if block and block % channels == 0 else (bits + 7) // 8
    found: SampleFormat | None
    match tag:
        case 1:
            found = _PCM_WIDTHS.get(width)
        case 3:
            found = _FLOAT_WIDTHS.get(width)
        case 6:
            found = SampleFormat.ALAW
        case 7:
            found = SampleFormat.MULAW
        case _:
            name = _CODEC_NAMES.get(tag, f"codec 0x{tag:04X}")
            raise ASRError(
                Code.UNSUPPORTED,
                f"The WAV holds {name}. PCM, float, µ-law and A-law are accepted; convert it to 16-bit PCM.",
                param="audio.encoding",
            )
    if found is None:
        raise bad_audio(f"The WAV header is damaged: samples of {bits} bits in {width} bytes do not exist.")
    return WavFormat(found, rate_hz, channels)
