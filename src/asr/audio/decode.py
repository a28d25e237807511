"""The one door for audio that arrives piece by piece: `AudioDecoder`."""

from __future__ import annotations

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
    foreign_container,
)
from asr.audio.ogg import OggDecoder
from asr.audio.samples import RAW_FORMATS, RawDecoder, refuse_stereo
from asr.audio.wav import WavDecoder
from asr.audio.webm import WebmDecoder
from asr.errors import ASRError, Code

ACCEPTED = "WAV, FLAC, Ogg (Opus or FLAC), WebM (Opus), or raw PCM with its sample rate"
"""What can be decoded as a stream, for people."""

_EXPECTED = {
    Encoding.WAV: Container.WAV,
    Encoding.FLAC: Container.FLAC,
    Encoding.OGG_OPUS: Container.OGG,
    Encoding.WEBM_OPUS: Container.WEBM,
}


class AudioDecoder:
    """Audio of any accepted format, cut anywhere, to 16 kHz mono PCM16 little-endian.

    16 kHz mono PCM16 comes out bit for bit, without being held back (but for half a sample). After an
    error every further call raises it again.

    Attributes:
        warnings: sentences about what was odd and did not stop the audio from being used, each said once.
        received_bytes: bytes fed so far.
        produced_bytes: bytes of PCM returned so far.
    """

    def __init__(self, fmt: AudioFormat, *, stereo: Stereo = "mix") -> None:
        """Prepare for audio of the format `fmt`.

        `AudioFormat(Encoding.AUTO, None)` leaves everything to the header, as Riva's clients do.

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
        self._head = b""
        self._stage: Stage | None = None
        self._broken: ASRError | None = None
        self._finished = False

    @property
    def detected(self) -> AudioFormat | None:
        """What the audio turned out to be: encoding, its own rate and channels; None until that is known."""
        return self._stage.detected if self._stage is not None else None

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
        pcm = b""
        if self._stage is None:
            self._stage = self._choose(self._head)
            pcm = self._stage.feed(self._head)
            self._head = b""
        pcm += self._stage.finish()
        if not self.produced_bytes and not pcm:
            raise bad_audio("The audio is empty: it holds no sound.")
        return pcm

    def _open(self, data: bytes) -> bytes:
        # Look at the first bytes; leaves `_stage` None while they do not tell yet.
        head = self._head + data
        weak = self._fmt.encoding is Encoding.AUTO and self._fmt.sample_rate_hz is None and len(head) < 8
        if not head or weak or could_be_container(head):
            self._head = head
            return b""
        self._head = b""
        self._stage = self._choose(head)
        return head

    def _choose(self, head: bytes) -> Stage:
        fmt = self._fmt
        found = container_of(head)
        if fmt.encoding in _EXPECTED and found is not _EXPECTED[fmt.encoding]:
            name = found or (foreign_container(head) if not fmt.encoding.is_raw else None)
            what = f"is {name.value}" if name else "is not"
            raise bad_audio(
                f"The audio was announced as {fmt.encoding.value} and {what}. "
                "Announce what it is, or auto to have it found out."
            )
        match found:
            case Container.WAV:
                announced = fmt if fmt.encoding.is_raw else None
                return WavDecoder(stereo=self._stereo, warn=self._warn, announced=announced)
            case Container.FLAC if not fmt.encoding.is_raw:
                return FlacDecoder(stereo=self._stereo, warn=self._warn)
            case Container.OGG if not fmt.encoding.is_raw:
                return OggDecoder(stereo=self._stereo, warn=self._warn)
            case Container.WEBM if not fmt.encoding.is_raw:
                return WebmDecoder(stereo=self._stereo, warn=self._warn)
            case Container.FLAC | Container.OGG | Container.WEBM if fmt.encoding is Encoding.PCM_S16LE:
                raise bad_audio(
                    f"The audio was announced as raw PCM and is {found.value}. "
                    "Announce what it is, or auto to have it found out."
                )
            case Container.RIFX | Container.AVI if not fmt.encoding.is_raw:
                raise _unsupported(found)
            case _:
                return self._raw(head)

    def _raw(self, head: bytes) -> Stage:
        fmt = self._fmt
        if fmt.sample_rate_hz is None:
            if fmt.encoding.is_raw:
                raise ASRError(
                    Code.BAD_REQUEST,
                    f"The audio is {fmt.encoding.value} without a header: its sample rate must be given.",
                    param="audio.sample_rate_hz",
                )
            foreign = foreign_container(head)
            if foreign is not None:
                raise _unsupported(foreign)
            raise bad_audio(f"This is not audio of a kind that is known here. Accepted: {ACCEPTED}.")
        encoding = Encoding.PCM_S16LE if fmt.encoding is Encoding.AUTO else fmt.encoding
        return RawDecoder(
            RAW_FORMATS[encoding],
            AudioFormat(encoding, fmt.sample_rate_hz, fmt.channels),
            stereo=self._stereo,
            warn=self._warn,
        )

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
