"""What audio a caller may send, and how a format is recognized by its first bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final as Const
from typing import Literal, Protocol

from asr.errors import ASRError, Code

OUT_RATE_HZ: Const = 16_000
OUT_BYTES_PER_MS: Const = OUT_RATE_HZ * 2 // 1000
MIN_RATE_HZ: Const = 4_000
MAX_RATE_HZ: Const = 192_000
MAX_CHANNELS: Const = 8
ID3_HEAD_BYTES: Const = 10

Stereo = Literal["mix", "refuse", "split"]
"""What to do with more than one channel: mix them down (with a warning), refuse them, or keep all of them."""

Warn = Callable[[str], None]
"""Takes a sentence about something odd in the audio that did not stop it from being used."""


class Encoding(StrEnum):
    """How audio is encoded. The values are spelled on the wire and never change."""

    PCM_S16LE = "pcm_s16le"
    PCM_F32LE = "pcm_f32le"
    MULAW = "mulaw"
    ALAW = "alaw"
    FLAC = "flac"
    WAV = "wav"
    OGG_OPUS = "ogg_opus"
    WEBM_OPUS = "webm_opus"
    MP3 = "mp3"
    AAC = "aac"
    """AAC in ADTS frames, as radio streams have it."""
    MP4 = "mp4"
    """MP4 or M4A with AAC, Opus, FLAC or ALAC, in fragments or with its index in front."""
    AUTO = "auto"
    """Whatever the first bytes say it is."""

    @property
    def is_raw(self) -> bool:
        """Samples without a header: rate and channels must come from the caller."""
        return self in _RAW


_RAW = {Encoding.PCM_S16LE, Encoding.PCM_F32LE, Encoding.MULAW, Encoding.ALAW}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What the audio is said, or was found, to be.

    Attributes:
        encoding: how it is encoded.
        sample_rate_hz: 4000..192000, or None where the caller did not say. With `auto`, a rate means
            that data without any known header is raw PCM16. Where there is a header, the header decides.
        channels: 1..8, interleaved.
    """

    encoding: Encoding = Encoding.PCM_S16LE
    sample_rate_hz: int | None = OUT_RATE_HZ
    channels: int = 1

    def __post_init__(self) -> None:
        rate = self.sample_rate_hz
        if rate is not None and not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
            raise ASRError(
                Code.BAD_REQUEST,
                f"The sample rate is {rate} Hz; it must be {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz.",
                param="audio.sample_rate_hz",
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ASRError(
                Code.BAD_REQUEST,
                f"The number of channels is {self.channels}; it must be 1 to {MAX_CHANNELS}.",
                param="audio.channels",
            )


class Stage(Protocol):
    """A decoder of one format, fed piece by piece."""

    @property
    def detected(self) -> AudioFormat | None:
        """What the audio is, once that is known."""
        ...

    @property
    def duration_ms(self) -> int | None:
        """How long the header promises it is, where it does."""
        ...

    @property
    def out_channels(self) -> int:
        """How many channels come out; 1 until `detected` is known."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return the 16 kHz PCM16 that they complete."""
        ...

    def finish(self) -> bytes:
        """The audio is complete: return what was held back."""
        ...


def bad_audio(message: str) -> ASRError:
    """The error for audio that is not what it claims to be."""
    return ASRError(Code.BAD_AUDIO, message, param="audio")


def check_header(rate_hz: int, channels: int, what: str) -> None:
    """Refuse a header whose rate or channels cannot be.

    Raises:
        ASRError: `bad_audio`.
    """
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise bad_audio(
            f"The {what} header says {rate_hz} Hz; rates from {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are accepted."
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise bad_audio(f"The {what} header says {channels} channels; 1 to {MAX_CHANNELS} are accepted.")


def seconds(ms: float) -> str:
    """A length for people: `4.2 s`."""
    return f"{ms / 1000:.1f} s"


class Container(StrEnum):
    """What the first bytes say."""

    WAV = "WAV"
    RIFX = "big-endian WAV (RIFX)"
    FLAC = "FLAC"
    OGG = "Ogg"
    WEBM = "WebM"
    MP3 = "MP3"
    MP4 = "MP4 / M4A"
    AIFF = "AIFF"
    AU = "Sun AU"
    AMR = "AMR"
    AVI = "AVI"
    AAC = "AAC"


_MAGIC: Const = (
    (b"RIFF", Container.WAV),
    (b"RF64", Container.WAV),
    (b"BW64", Container.WAV),
    (b"RIFX", Container.RIFX),
    (b"fLaC", Container.FLAC),
    (b"OggS", Container.OGG),
    (b"\x1aE\xdf\xa3", Container.WEBM),
)
_MAGIC_ELSEWHERE: Const = (
    (b"FORM", Container.AIFF),
    (b".snd", Container.AU),
    (b"#!AMR", Container.AMR),
)
_MP4_BOXES: Const = (b"ftyp", b"styp", b"moov", b"moof")

SNIFF_BYTES: Const = 12
"""No format needs more than this to be recognized."""


def could_be_container(head: bytes) -> bool:
    """Whether more bytes are needed before `container_of` can tell of a signature at the very beginning."""
    if head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX"):
        return len(head) < SNIFF_BYTES
    return any(magic.startswith(head) for magic, _ in _MAGIC)


def container_of(head: bytes) -> Container | None:
    """The container whose signature `head` carries, or None. Signatures of four bytes only: no accident."""
    for magic, container in _MAGIC:
        if head.startswith(magic):
            return Container.AVI if head[8:11] == b"AVI" and container is Container.WAV else container
    return Container.MP4 if head[4:8] in _MP4_BOXES else None


def weak_container_of(head: bytes) -> Container | None:
    """As `container_of`, by signatures that some raw samples carry too: for audio of which nothing else is known."""
    for magic, container in _MAGIC_ELSEWHERE:
        if head.startswith(magic):
            return container
    if len(head) < 2 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return Container.AAC
    return Container.MP3 if head[1] & 0xE6 == 0xE2 and head[1] & 0x18 != 0x08 else None


def tag_bytes(head: bytes) -> int | None:
    """How long the ID3v2 tag is that begins here; 0 where there is none, None where more bytes are needed to tell."""
    if not head.startswith(b"ID3"):
        return None if b"ID3".startswith(head) else 0
    if len(head) < ID3_HEAD_BYTES:
        return None
    if head[3] == 0xFF or head[4] == 0xFF or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return ID3_HEAD_BYTES + size + (ID3_HEAD_BYTES if head[5] & 0x10 else 0)
