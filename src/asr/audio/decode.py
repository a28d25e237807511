"""The one door for audio that arrives piece by piece: `AudioDecoder`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from asr.audio.flac import FlacDecoder
from asr.audio.formats import (
    OUT_BYTES_PER_MS,
    AudioFormat,
    Container,
    Encoding,
    Stage,
    Stereo,
    bad_audio,
    container_of,
    could_be_container,
    tag_bytes,
    weak_container_of,
)
from asr.audio.mp4 import Mp4Decoder
from asr.audio.mpeg import MpegDecoder
from asr.audio.ogg import OggDecoder
from asr.audio.samples import RAW_FORMATS, RawDecoder, refuse_stereo
from asr.audio.wav import WavDecoder
from asr.audio.webm import WebmDecoder
from asr.errors import ASRError, Code

ACCEPTED = "WAV, FLAC, MP3, AAC (ADTS), Ogg (Opus or FLAC), WebM (Opus), MP4 / M4A, or raw PCM with its sample rate"
"""What can be decoded as a stream, for people."""

_EXPECTED = {
    Encoding.WAV: Container.WAV,
    Encoding.FLAC: Container.FLAC,
    Encoding.OGG_OPUS: Container.OGG,
    Encoding.WEBM_OPUS: Container.WEBM,
    Encoding.MP3: Container.MP3,
    Encoding.AAC: Container.AAC,
    Encoding.MP4: Container.MP4,
}
_STAGES: dict[Container, Callable[..., Stage]] = {
    Container.WAV: WavDecoder,
    Container.FLAC: FlacDecoder,
    Container.OGG: OggDecoder,
    Container.WEBM: WebmDecoder,
    Container.MP4: Mp4Decoder,
    Container.MP3: partial(MpegDecoder, Encoding.MP3),
    Container.AAC: partial(MpegDecoder, Encoding.AAC),
}
_UNSURE_BYTES = 8
"""So much is waited for where nothing but the first bytes tells what the audio is."""


class AudioDecoder:
    """Audio of any accepted format, cut anywhere, to 16 kHz PCM16 little-endian: mono, or as many channels as it has.

    16 kHz mono PCM16 comes out bit for bit, without being held back (but for half a sample). After an
    error every further call raises it again.

    Attributes:
        warnings: sentences about what was odd and did not stop the audio from being used, each said once.
        received_bytes: bytes fed so far.
        produced_bytes: bytes of PCM returned so far.
    """

    def __init__(self, fmt: AudioFormat, *, stereo: Stereo = "mix", exactly: int | None = None) -> None:
        """Prepare for audio of the format `fmt`.

        `AudioFormat(Encoding.AUTO, None)` leaves everything to the header, as Riva's clients do.

        Args:
            fmt: what the audio is said to be.
            stereo: what to do with several channels; with "split" all of them come out, interleaved.
            exactly: how many channels must come out: a header that says otherwise is `bad_audio`.

        Raises:
            ASRError: `bad_audio` where several channels are announced and `stereo` is "refuse".
        """
        if fmt.encoding.is_raw:
            refuse_stereo(fmt.channels, stereo)
        self.warnings: list[str] = []
        self.received_bytes = 0
        self.produced_bytes = 0
        self._fmt = fmt
        self._stereo = stereo
        self._exactly = exactly
        self._head = b""
        self._tag_left = 0
        self._tagged = False
        self._stage: Stage | None = None
        self._broken: ASRError | None = None
        self._finished = False

    @property
    def detected(self) -> AudioFormat | None:
        """What the audio turned out to be: encoding, its own rate and channels; None until that is known."""
        return self._stage.detected if self._stage is not None else None

    @property
    def splits(self) -> bool:
        """Whether several channels are kept apart."""
        return self._stereo == "split"

    @property
    def out_channels(self) -> int:
        """How many channels come out, interleaved: 1 but for "split"; final once `detected` is known."""
        return self._stage.out_channels if self._stage is not None else 1

    @property
    def duration_ms(self) -> int | None:
        """The length that a header promises, or None."""
        return self._stage.duration_ms if self._stage is not None else None

    def duration_within(self, total_bytes: int) -> int | None:
        """As `duration_ms`, checked against the size of the whole file."""
        if isinstance(self._stage, WavDecoder):
            return self._stage.duration_within(total_bytes)
        return self.duration_ms

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return the PCM that they complete.

        Raises:
            ASRError: `bad_audio` or `unsupported`, once that is certain.
        """
        if self._broken is not None or self._finished:
            raise self._broken or ASRError(Code.BAD_REQUEST, "Audio came after the end of the audio.", param="audio")
        self.received_bytes += len(data)
        try:
            if self._stage is None:
                data = self._open(data)
                if self._stage is None:
                    return b""
            pcm = self._stage.feed(data)
            if self._exactly is not None and self._stage.detected is not None:
                self._check_channels(self._stage, self._exactly)
        except ASRError as error:
            self._broken = error
            raise
        self.produced_bytes += len(pcm)
        return pcm

    def finish(self) -> bytes:
        """The audio is complete: return the rest. A second call returns nothing.

        Raises:
            ASRError: `bad_audio` where nothing, or only a header or a part of one, had come.
        """
        if self._broken is not None:
            raise self._broken
        if self._finished:
            return b""
        try:
            pcm = self._rest()
        except ASRError as error:
            self._broken = error
            raise
        self._finished = True
        self.produced_bytes += len(pcm)
        return pcm

    def _rest(self) -> bytes:
        if not self.received_bytes:
            raise bad_audio("The audio is empty: not one byte came.")
        if self._tag_left:
            raise bad_audio("The data ends within its ID3 tag, before any sound. Send the whole file.")
        pcm = b""
        if self._stage is None:
            self._stage = self._choose(self._head)
            pcm = self._stage.feed(self._head)
            self._head = b""
        pcm += self._stage.finish()
        if not self.produced_bytes and not pcm:
            raise bad_audio("The audio is empty: it holds no sound.")
        if self._exactly is not None:
            self._check_channels(self._stage, self._exactly)
        return pcm

    def _check_channels(self, stage: Stage, exactly: int) -> None:
        if stage.out_channels != exactly:
            raise bad_audio(
                f"The audio has {stage.out_channels} channels that are to be recognized one by one, and was announced "
                f"with {exactly}. Announce how many there are."
            )
        self._exactly = None

    def _open(self, data: bytes) -> bytes:
        # Look at the first bytes; leaves `_stage` None while they do not tell yet.
        if self._tag_left:
            passed = min(self._tag_left, len(data))
            self._tag_left -= passed
            data = data[passed:]
            if not data:
                return b""
        head = self._head + data
        is_raw = self._fmt.encoding.is_raw
        tag = 0 if is_raw else tag_bytes(head)
        if tag:
            self._tag_left, self._head, self._tagged = tag, b"", True
            return self._open(head)
        if not head or tag is None or could_be_container(head) or (not is_raw and len(head) < _UNSURE_BYTES):
            self._head = head
            return b""
        self._head = b""
        self._stage = self._choose(head)
        return head

    def _choose(self, head: bytes) -> Stage:
        fmt = self._fmt
        found = container_of(head)
        if fmt.encoding in (Encoding.MP3, Encoding.AAC) and found is None:
            # Such a stream may begin anywhere; the decoder finds the first frame.
            found = _EXPECTED[fmt.encoding]
        if fmt.encoding in _EXPECTED and found is not _EXPECTED[fmt.encoding]:
            name = found or weak_container_of(head)
            what = f"is {name.value}" if name else "is not"
            raise bad_audio(
                f"The audio was announced as {fmt.encoding.value} and {what}. "
                "Announce what it is, or auto to have it found out."
            )
        if fmt.encoding.is_raw:
            return self._announced_raw(head, found)
        if found is None and self._tagged:
            found = weak_container_of(head) or Container.MP3
        elif found is None and fmt.sample_rate_hz is None:
            found = weak_container_of(head)
        make = _STAGES.get(found) if found is not None else None
        if make is not None:
            return make(stereo=self._stereo, warn=self._warn)
        if found is not None:
            raise _unsupported(found)
        if fmt.sample_rate_hz is None:
            raise bad_audio(f"This is not audio of a kind that is known here. Accepted: {ACCEPTED}.")
        return self._raw(AudioFormat(Encoding.PCM_S16LE, fmt.sample_rate_hz, fmt.channels))

    def _announced_raw(self, head: bytes, found: Container | None) -> Stage:
        fmt = self._fmt
        if found is Container.WAV:
            return WavDecoder(stereo=self._stereo, warn=self._warn, announced=fmt)
        if found not in (None, Container.RIFX, Container.AVI) and fmt.encoding is Encoding.PCM_S16LE:
            raise bad_audio(
                f"The audio was announced as raw PCM and is {found.value}. "
                "Announce what it is, or auto to have it found out."
            )
        if fmt.sample_rate_hz is None:
            raise ASRError(
                Code.BAD_REQUEST,
                f"The audio is {fmt.encoding.value} without a header: its sample rate must be given.",
                param="audio.sample_rate_hz",
            )
        return self._raw(fmt)

    def _raw(self, fmt: AudioFormat) -> Stage:
        return RawDecoder(RAW_FORMATS[fmt.encoding], fmt, stereo=self._stereo, warn=self._warn)

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def pcm_ms(n_bytes: int) -> int:
    """Whole milliseconds that this many bytes of 16 kHz mono PCM16 last."""
    return n_bytes // OUT_BYTES_PER_MS


def _unsupported(container: Container) -> ASRError:
    return ASRError(
        Code.UNSUPPORTED,
        f"{container.value} cannot be decoded as a stream. Accepted: {ACCEPTED}.",
        param="audio.encoding",
    )
