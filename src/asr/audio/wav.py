"""WAV as a stream: headers cut anywhere, unknown chunks, and lengths that lie.

Rules for the length that the `data` chunk promises: 0 and values near 2³¹ and 2³² mean "unknown"
(the writer could not go back), so all that comes is audio. Less than promised is used, with a
warning. More than promised is metadata where it reads as a chunk, and audio otherwise: nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from asr.audio.formats import AudioFormat, Encoding, Stereo, Warn, bad_audio, seconds
from asr.audio.samples import RAW_FORMATS, RawDecoder
from asr.audio.wav_format import WavFormat, parse_format
from asr.errors import ASRError

MAX_HEADER_BYTES = 1 << 20
"""Chunks before the audio may fill this much, and no more."""

_MAX_FORMAT_BYTES = 4096
_UNKNOWN_FROM = 0x7FFF_0000
"""Writers to a pipe leave 0x7FFFF000 (sox), 0x7FFFFFFF or 0xFFFFFFFF (FFmpeg) as the length."""

_ENDLESS = 1 << 62
_LONGEST_METADATA_BYTES = 1 << 24
_TRAILERS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"fact", b"cue ", b"smpl", b"inst", b"JUNK", b"PAD ", b"_PMX", b"iXML")


class WavDecoder:
    """A WAV stream to 16 kHz PCM16.

    Attributes:
        detected: what the header says, once it is read.
        duration_ms: the length that the header promises, or None where it promises none.
        data_offset: bytes before the first sample, once known.
    """

    def __init__(self, *, stereo: Stereo, warn: Warn, announced: AudioFormat | None = None) -> None:
        """`announced` is what the caller had said the samples were; the header wins, with a warning."""
        self._stereo = stereo
        self._announced = announced
        self._warn = warn
        self._step: Callable[[], bytes | None] = self._riff
        self._buffer = bytearray()
        self._skip = 0
        self._held: ASRError | None = None
        self._left = 0
        """Bytes that still go straight to the samples; above 0 in the data chunk only."""
        self._format: WavFormat | None = None
        self._raw: RawDecoder | None = None
        self._long_data_bytes: int | None = None
        self._promised_bytes: int | None = None
        self._header_bytes = 0
        self._ignored_bytes = 0
        self._at = 0
        self.data_offset: int | None = None
        self.duration_ms: int | None = None
        self.detected: AudioFormat | None = None

    @property
    def out_channels(self) -> int:
        """See `Stage`."""
        return self._raw.out_channels if self._raw is not None else 1

    def duration_within(self, total_bytes: int) -> int | None:
        """The length of a file of `total_bytes`, whatever its header promises; None before the header is read."""
        if self.data_offset is None or self._format is None:
            return None
        data_bytes = max(0, total_bytes - self.data_offset)
        if self._promised_bytes is not None:
            data_bytes = min(data_bytes, self._promised_bytes)
        return data_bytes // self._format.frame_bytes * 1000 // self._format.rate_hz

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what they complete.

        Raises:
            ASRError: `bad_audio`; where the same bytes also held sound, with the next call, after the sound.
        """
        if self._held is not None:
            raise self._held
        if self._left >= len(data) and self._raw is not None:
            self._left -= len(data)
            return self._raw.feed(data)
        self._buffer += data
        output = []
        try:
            while (piece := self._step()) is not None:
                if piece:
                    output.append(piece)
        except ASRError as error:
            if not output:
                raise
            self._held = error
        return b"".join(output)

    def finish(self) -> bytes:
        """The end of the data.

        Raises:
            ASRError: `bad_audio` where the header is not complete.
        """
        if self._held is not None:
            raise self._held
        raw = self._raw
        if raw is None:
            raise bad_audio("The WAV header is cut off: the file ends before any sound. Send the whole file.")
        rest = b""
        if self._step in (self._after, self._after_nothing) and not self._ignored_bytes:
            self._take(self._pad())
            if len(self._buffer) < 8 or not _is_name(bytes(self._buffer[:4])):
                rest = raw.feed(self._take(len(self._buffer)))
        elif self._step == self._data and self._promised_bytes is not None and self._left:
            have = (self._promised_bytes - self._left) // raw.frame_bytes * 1000 / raw.rate_hz
            self._warn(
                f"The WAV is truncated: the header promises {seconds(self.duration_ms or 0)}, {seconds(have)} are here."
            )
        return rest + raw.finish()

    # Each step is a state: it returns output, or None when it needs more bytes.

    def _riff(self) -> bytes | None:
        if len(self._buffer) < 12:
            return None
        head = self._take(12)
        if head[8:] != b"WAVE":
            raise bad_audio("The audio begins like a WAV file and is none.")
        self._header_bytes += 12
        self._step = self._chunk
        return b""

    def _chunk(self) -> bytes | None:
        if len(self._buffer) < 8:
            return None
        name, size = bytes(self._buffer[:4]), int.from_bytes(self._buffer[4:8], "little")
        if name == b"data":
            self._take(8)
            return self._begin(size)
        if self._header_bytes + 8 + size > MAX_HEADER_BYTES:
            raise bad_audio(
                f"No sound in the first {MAX_HEADER_BYTES} bytes of the WAV: its header is damaged or holds pictures."
            )
        if name in (b"fmt ", b"ds64"):
            if size > _MAX_FORMAT_BYTES:
                raise bad_audio(f"The WAV header is damaged: its {name.decode().strip()} chunk holds {size} bytes.")
            if len(self._buffer) < 8 + size:
                return None
            body = self._take(8 + size)[8:]
            if name == b"fmt ":
                self._found(parse_format(body))
            elif size >= 16:
                self._long_data_bytes = int.from_bytes(body[8:16], "little")
            self._skip = size & 1
        else:
            self._take(8)
            self._skip = size + (size & 1)
        self._header_bytes += 8 + size
        self._step = self._skipping
        return b""

    def _skipping(self) -> bytes | None:
        self._skip -= len(self._take(min(self._skip, len(self._buffer))))
        if self._skip:
            return None
        self._step = self._after if self._ignored_bytes else self._chunk
        return b""

    def _found(self, wav_format: WavFormat) -> None:
        if self._format is not None and wav_format != self._format:
            raise bad_audio("The WAV changes its format in the middle. Send each format as a stream of its own.")
        self._format = wav_format

    def _begin(self, size: int) -> bytes:
        wav_format = self._format
        if wav_format is None:
            raise bad_audio("The WAV header is damaged: it does not say what the samples are.")
        if self._raw is None:
            self.detected = AudioFormat(Encoding.WAV, wav_format.rate_hz, wav_format.channels)
            self._raw = RawDecoder(wav_format.sample_format, self.detected, stereo=self._stereo, warn=self._warn)
            self.data_offset = self._at
            self._compare(wav_format)
        if size >= _UNKNOWN_FROM and self._long_data_bytes is not None:
            size = self._long_data_bytes
            known = 0 < size < _ENDLESS
        else:
            known = 0 < size < _UNKNOWN_FROM
        self._promised_bytes = size if known else None
        if known:
            self.duration_ms = size // wav_format.frame_bytes * 1000 // wav_format.rate_hz
        if known or size:
            self._straight(size if known else _ENDLESS)
        else:
            self._step = self._after_nothing
        return b""

    def _compare(self, wav_format: WavFormat) -> None:
        announced = self._announced
        if announced is None or announced.sample_rate_hz is None:
            return
        said = WavFormat(RAW_FORMATS[announced.encoding], announced.sample_rate_hz, announced.channels)
        if said != wav_format:
            self._warn(
                f"The audio was announced as {said} and has a WAV header: {wav_format}. The header was believed."
            )

    def _straight(self, count: int) -> None:
        self._left = count
        self._step = self._data

    def _data(self) -> bytes | None:
        if not self._buffer:
            return None
        assert self._raw is not None, "the data chunk made it"
        piece = self._take(min(self._left, len(self._buffer)))
        self._left -= len(piece)
        if not self._left:
            self._step = self._after
        return self._raw.feed(piece)

    def _after_nothing(self) -> bytes | None:
        # A length of 0: an empty recording with a trailer, or a writer that could not go back.
        if len(self._buffer) < 8:
            return None
        if bytes(self._buffer[:4]) in _TRAILERS:
            self._step = self._after
        else:
            self._straight(_ENDLESS)
        return b""

    def _after(self) -> bytes | None:
        if len(self._buffer) < 13:
            return None
        pad = self._pad()
        head = bytes(self._buffer[pad : pad + 12])
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            # Some clients put a header before each chunk.
            self._take(pad)
            self._header_bytes = self._ignored_bytes = 0
            self._step = self._riff
            self._warn("Several WAV files follow one another; they were joined.")
            return b""
        size = int.from_bytes(head[4:8], "little")
        if _is_name(head[:4]) and size <= _LONGEST_METADATA_BYTES:
            self._ignored_bytes += 8 + size
            self._take(pad + 8)
            self._skip = size + (size & 1)
            self._step = self._skipping
            return b""
        if self._ignored_bytes:
            self._warn("Bytes after the metadata at the end of the WAV were ignored.")
            self._skip = _ENDLESS
            self._step = self._skipping
            return b""
        self._warn(
            f"The WAV header promises {seconds(self.duration_ms or 0)} and the sound goes on after it; all was used."
        )
        self._promised_bytes = None
        self._straight(_ENDLESS)
        return b""

    def _pad(self) -> int:
        # A chunk of odd length is followed by a zero byte that it does not count.
        odd = bool((self._promised_bytes or 0) & 1) and not self._ignored_bytes
        return int(odd and self._buffer[:1] == b"\0")

    def _take(self, count: int) -> bytes:
        piece = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._at += count
        return piece


def _is_name(name: bytes) -> bool:
    return name in _TRAILERS or (name.isascii() and name[:1].isalpha() and name.replace(b" ", b"").isalnum())
