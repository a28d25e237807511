"""WebM (Matroska) as a stream: the blocks of its first Opus track.

Browsers record WebM with clusters of unknown size, so the tree is read flat: containers are entered,
everything else that is not of interest is skipped by its length.
"""

from __future__ import annotations

from asr.audio.formats import AudioFormat, Encoding, Stereo, Warn, bad_audio
from asr.audio.opus import OPUS_RATE_HZ, OpusPackets
from asr.errors import ASRError, Code

_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _GROUP = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xA0
_ENTERED = {_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _GROUP}
_NUMBER, _CODEC, _PRIVATE = 0xD7, 0x86, 0x63A2
_SIMPLE_BLOCK, _BLOCK, _DISCARD = 0xA3, 0xA1, 0x75A2
_READ = {_NUMBER, _CODEC, _PRIVATE, _SIMPLE_BLOCK, _BLOCK, _DISCARD}

MAX_ELEMENT_BYTES = 1 << 20
"""No element that is read may be larger; an Opus packet has 60 KiB at the most."""

_LACING = 0x06
_MAX_NAMED, _MAX_NAME_CHARS = 4, 32
"""Of tracks that are no Opus, for the error."""


class WebmDecoder:
    """A WebM stream to 16 kHz PCM16. Video and further tracks in it are left aside.

    Attributes:
        detected: what was found, once known.
    """

    duration_ms: int | None = None

    def __init__(self, *, stereo: Stereo, warn: Warn) -> None:
        self.detected: AudioFormat | None = None
        self._stereo = stereo
        self._warn = warn
        self._buffer = bytearray()
        self._skip = 0
        self._number = 0
        self._codec = ""
        self._private = b""
        self._codecs: list[str] = []
        self._track: int | None = None
        self._opus: OpusPackets | None = None
        self._held = b""
        self._discard_ns = 0

    @property
    def out_channels(self) -> int:
        """See `Stage`."""
        return self._opus.out_channels if self._opus is not None else 1

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what they complete."""
        self._buffer += data
        output: list[bytes] = []
        while True:
            if self._skip:
                taken = min(self._skip, len(self._buffer))
                del self._buffer[:taken]
                self._skip -= taken
            element = self._next() if not self._skip else None
            if element is None:
                return b"".join(output)
            output.append(self._element(*element))

    def finish(self) -> bytes:
        """The end of the data. Raises `bad_audio` where no track had begun."""
        if self._opus is None:
            raise bad_audio("The WebM data ends before any sound. Send the recording from its beginning.")
        return self._release() + self._opus.finish()

    def _next(self) -> tuple[int, bytes] | None:
        name = _vint(self._buffer, 0, keep_marker=True)
        size = _vint(self._buffer, name[1]) if name is not None else None
        if name is None or size is None:
            return None
        length, body = size
        if name[0] not in _READ:
            del self._buffer[:body]
            if name[0] not in _ENTERED:
                if length is None:
                    raise bad_audio("The WebM data is damaged: an element has no length.")
                self._skip = length
            return name[0] or 0, b""
        if length is None or length > MAX_ELEMENT_BYTES:
            raise bad_audio("The WebM data is damaged: an element is far too long.")
        if len(self._buffer) < body + length:
            return None
        content = bytes(self._buffer[body : body + length])
        del self._buffer[: body + length]
        return name[0] or 0, content

    def _element(self, name: int, content: bytes) -> bytes:
        match name:
            case 0xAE:
                self._end_track()
            case 0x1F43B675:
                self._end_track()
                if self._opus is None:
                    held = ", ".join(self._codecs) or "no track"
                    raise ASRError(
                        Code.UNSUPPORTED,
                        f"The WebM data holds {held}. Only Opus can be decoded as a stream.",
                        param="audio.encoding",
                    )
            case 0xD7:
                self._number = int.from_bytes(content, "big")
            case 0x86:
                self._codec = content.rstrip(b"\0").decode("ascii", "replace")
            case 0x63A2:
                self._private = content
            case 0xA3:
                return self._release() + self._decode(self._packet(content))
            case 0xA1:
                output = self._release()
                self._held = self._packet(content)
                return output
            case 0x75A2:
                self._discard_ns = int.from_bytes(content, "big", signed=True)
        return b""

    def _end_track(self) -> None:
        if self._codec and len(self._codecs) < _MAX_NAMED:
            self._codecs.append(self._codec[:_MAX_NAME_CHARS])
        if self._codec == "A_OPUS" and self._opus is None:
            self._opus = OpusPackets(self._private, stereo=self._stereo, warn=self._warn)
            self._track = self._number
            self.detected = AudioFormat(Encoding.WEBM_OPUS, OPUS_RATE_HZ, self._opus.channels)
        self._codec = ""
        self._private = b""

    def _packet(self, block: bytes) -> bytes:
        track = _vint(block, 0)
        if track is None or track[0] != self._track or len(block) < track[1] + 3:
            return b""
        if block[track[1] + 2] & _LACING:
            raise ASRError(
                Code.UNSUPPORTED,
                "The WebM data packs several packets into a block, which cannot be decoded as a stream.",
                param="audio.encoding",
            )
        return block[track[1] + 3 :]

    def _release(self) -> bytes:
        # A block in a group is held until it is known how much of its end is to be cut.
        held, self._held = self._held, b""
        discard, self._discard_ns = self._discard_ns, 0
        return self._decode(held, discard)

    def _decode(self, packet: bytes, discard_ns: int = 0) -> bytes:
        if self._opus is None or not packet:
            return b""
        samples = self._opus.decode(packet)
        if discard_ns > 0:
            surplus = round(discard_ns * OPUS_RATE_HZ / 1e9) * self._opus.channels
            samples = samples[: max(0, len(samples) - surplus)]
        return self._opus.pcm(samples)


def _vint(data: bytes | bytearray, at: int, *, keep_marker: bool = False) -> tuple[int | None, int] | None:
    """A variable-length number at `at` (None where it says "unknown"), and where it ends; None: cut off."""
    if at >= len(data):
        return None
    length = 9 - data[at].bit_length()
    if length > 8:
        raise bad_audio("The WebM data is damaged.")
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], "big")
    if keep_marker:
        return value, at + length
    ones = (1 << 7 * length) - 1
    value &= ones
    return (None if value == ones else value), at + length
