"""MP4 and M4A as a stream: fragmented, as browsers and live encoders write it, or with its index before its sound.

A file whose index (`moov`) comes last cannot be heard before all of it is there; that is said, and a file is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from asr.audio.formats import AudioFormat, Encoding, Stereo, Warn, bad_audio
from asr.audio.mp4_boxes import (
    MAX_PACKETS,
    Place,
    SoundTrack,
    damaged,
    packets_of_fragment,
    packets_of_tables,
    read_moov,
)
from asr.audio.packets import PacketDecoder
from asr.errors import ASRError, Code

MAX_INDEX_BYTES = 4 << 20
"""A `moov` or `moof` box is held whole; 4 MiB index a day of sound."""
MAX_PACKET_BYTES = 1 << 20

_ENDLESS = 1 << 62
_PACKET_SAMPLES = 1024


class Mp4Decoder:
    """An MP4 stream to 16 kHz PCM16. Video and further tracks in it are left aside.

    Attributes:
        duration_ms: the length that the header promises, or None.
    """

    def __init__(self, *, stereo: Stereo, warn: Warn) -> None:
        self.duration_ms: int | None = None
        self._stereo = stereo
        self._warn = warn
        self._buffer = bytearray()
        self._at = 0
        """Where in the stream the buffer begins."""
        self._file_at = 0
        """Where the file in it begins; recordings may follow one another."""
        self._skip = 0
        self._data_left = 0
        """Bytes of the `mdat` box that is being read."""
        self._track: SoundTrack | None = None
        self._packets: PacketDecoder | None = None
        self._places: Iterator[Place] = iter(())
        """Of the packets in the file's own index."""
        self._later: deque[Place] = deque()
        """Of those that fragments announced."""
        self._next: Place | None = None

    @property
    def detected(self) -> AudioFormat | None:
        """What was found, once a packet was decoded: the header's own rate and channels are often wrong."""
        output = self._packets.output if self._packets is not None else None
        return AudioFormat(Encoding.MP4, output.rate_hz, output.channels) if output and output.rate_hz else None

    @property
    def out_channels(self) -> int:
        """See `Stage`."""
        return self._packets.output.out_channels if self._packets is not None else 1

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what they complete."""
        self._buffer += data
        output: list[bytes] = []
        while (piece := self._step()) is not None:
            output.append(piece)
        return b"".join(output)

    def finish(self) -> bytes:
        """The end of the data. Raises `bad_audio` where no sound had begun."""
        if self._packets is None:
            raise bad_audio("The MP4 data ends before any sound. Send the recording from its beginning.")
        if self._next is not None or self._data_left not in (0, _ENDLESS) or self._buffer:
            self._warn("The MP4 data is cut off; what came before was used.")
        return self._packets.finish()

    def _step(self) -> bytes | None:
        """One step on: what it gives, or None when more bytes are needed."""
        if self._skip:
            self._drop(min(self._skip, len(self._buffer)))
            return None if self._skip else b""
        if self._data_left:
            return self._data()
        return self._box()

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._at += count
        self._skip = max(0, self._skip - count)

    def _box(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 8:
            return None
        size, name, head = int.from_bytes(buffer[:4], "big"), bytes(buffer[4:8]), 8
        if size == 1:
            if len(buffer) < 16:
                return None
            size, head = int.from_bytes(buffer[8:16], "big"), 16
        elif size == 0:
            size = _ENDLESS
        if size < head:
            raise damaged()
        if name in (b"moov", b"moof"):
            if size > MAX_INDEX_BYTES:
                raise bad_audio(f"The MP4 data is damaged, or its index is larger than {MAX_INDEX_BYTES >> 20} MiB.")
            if len(buffer) < size:
                return None
            output = self._index(name, bytes(buffer[head:size]))
            self._drop(size)
            return output
        if name == b"ftyp":
            self._file_at = self._at
        if name != b"mdat":
            self._skip = size
            return b""
        if self._track is None:
            raise _late()
        self._drop(head)
        self._data_left = size - head
        return b""

    def _index(self, name: bytes, body: bytes) -> bytes:
        output = b""
        if name == b"moov":
            output = self._packets.finish() if self._packets is not None else b""
            self._begin(read_moov(body))
        elif self._track is not None:
            self._later += packets_of_fragment(body, self._at, self._track)
            if len(self._later) > MAX_PACKETS:
                raise damaged()
            if self._next is None:
                self._advance()
        return output

    def _begin(self, track: SoundTrack) -> None:
        before = self._packets.output if self._packets is not None else None
        self._track = track
        self.duration_ms = track.duration_ms
        self._packets = PacketDecoder(
            track.codec, track.name, stereo=self._stereo, warn=self._warn, extradata=track.extradata, output=before
        )
        self._packets.begin(track.skip, end=track.end, total=track.total)
        self._places = ((self._file_at + at, size) for at, size in packets_of_tables(track.tables))
        self._later.clear()
        self._advance()

    def _advance(self) -> None:
        self._next = next((place for place in self._places if place[1]), None)
        while self._next is None and self._later:
            place = self._later.popleft()
            self._next = place if place[1] else None

    def _data(self) -> bytes | None:
        # Inside `mdat`: on to the next packet, or to the end of the box.
        if self._next is None or self._next[0] >= self._at + self._data_left:
            passed = self._data_left
        elif self._next[0] < self._at:
            raise _late()
        elif self._next[0] > self._at:
            passed = self._next[0] - self._at
        else:
            return self._packet(self._next[1])
        if not self._buffer:
            return None
        passed = min(passed, len(self._buffer))
        self._drop(passed)
        self._data_left -= passed
        return b""

    def _packet(self, size: int) -> bytes | None:
        if size > min(MAX_PACKET_BYTES, self._data_left):
            raise damaged()
        if len(self._buffer) < size:
            return None
        assert self._packets is not None, "there is a track"
        packet = bytes(self._buffer[:size])
        self._drop(size)
        self._data_left -= size
        self._advance()
        return self._packets.decode(packet, _PACKET_SAMPLES)


def _late() -> ASRError:
    return ASRError(
        Code.UNSUPPORTED,
        "The MP4 / M4A has its index after its sound, so it cannot be decoded while it arrives. Send it as a file, or "
        "write it with the index in front (ffmpeg: -movflags faststart) or in fragments.",
        param="audio.encoding",
    )
