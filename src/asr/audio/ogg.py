"""Ogg as a stream: pages cut into packets of Opus or FLAC (RFC 3533, RFC 7845, the FLAC mapping)."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from asr.audio.flac import FlacFrames, parse_frame_header, parse_stream_info
from asr.audio.formats import AudioFormat, Encoding, Stereo, Warn, bad_audio
from asr.audio.opus import OPUS_RATE_HZ, OpusPackets
from asr.errors import ASRError, Code

_PAGE_HEAD_BYTES = 27
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_FLAC_HEAD_BYTES = 51
MAX_PACKET_BYTES = 1 << 20
"""Only cover art in a comment grows this large; a comment beyond it is skipped, never held."""

MAX_BAD_PAGES = 200
"""So many in a row are no damage any more; each costs a checksum of up to 64 KiB."""

MAX_HOLE_SAMPLES = 60 * OPUS_RATE_HZ

_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def page_checksum(page: bytes) -> bytes:
    """What bytes 22 to 25 of a page must be: zlib's polynomial, with the bits the other way round."""
    reversed_page = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    return (zlib.crc32(reversed_page, 0xFFFFFFFF) ^ 0xFFFFFFFF).to_bytes(4, "little").translate(_REVERSED)[::-1]


class OggDecoder:
    """An Ogg stream of Opus or FLAC to 16 kHz PCM16. Other tracks in it are left aside.

    Attributes:
        detected: what was found, once known.
    """

    duration_ms: int | None = None

    def __init__(self, *, stereo: Stereo, warn: Warn) -> None:
        self.detected: AudioFormat | None = None
        self._stereo = stereo
        self._warn = warn
        self._buffer = bytearray()
        self._serial: bytes | None = None
        self._packet = bytearray()
        self._skipping = False
        self._opus: OpusPackets | None = None
        self._flac: FlacFrames | None = None
        self._started = False
        self._decoded = 0
        self._offset: int | None = None
        self._hole = False
        self._bad_pages = 0

    @property
    def out_channels(self) -> int:
        """See `Stage`."""
        decoder = self._opus or self._flac
        return decoder.out_channels if decoder is not None else 1

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what they complete."""
        self._buffer += data
        output = []
        while (page := self._next_page()) is not None:
            output.append(self._page(page))
        return b"".join(output)

    def finish(self) -> bytes:
        """The end of the data. Raises `bad_audio` where no stream had begun."""
        if self._opus is None and self._flac is None:
            raise bad_audio("The Ogg data ends before any sound. Send the whole file.")
        if self._buffer or self._packet:
            self._warn("The Ogg data is cut off in the middle of a page.")
        return self._end_stream()

    def _next_page(self) -> bytes | None:
        buffer = self._buffer
        if not buffer.startswith(b"OggS") and len(buffer) >= 4:
            at = buffer.find(b"OggS")
            self._lose(at if at >= 0 else len(buffer) - 3)
            if at < 0:
                return None
        if len(buffer) < _PAGE_HEAD_BYTES or len(buffer) < _PAGE_HEAD_BYTES + buffer[26]:
            return None
        size = _PAGE_HEAD_BYTES + buffer[26] + sum(buffer[_PAGE_HEAD_BYTES : _PAGE_HEAD_BYTES + buffer[26]])
        if len(buffer) < size:
            return None
        page = bytes(buffer[:size])
        if page[4] or page_checksum(page) != page[22:26]:
            # Its length may be what is wrong, so the search goes on within it.
            self._bad_pages += 1
            if self._bad_pages > MAX_BAD_PAGES:
                raise bad_audio("The Ogg data is damaged: many pages in a row make no sense.")
            self._lose(4)
            return b""
        self._bad_pages = 0
        del buffer[:size]
        return page

    def _lose(self, count: int) -> None:
        self._warn("Damaged parts of the Ogg data were replaced by silence.")
        self._hole = True
        self._packet.clear()
        del self._buffer[:count]

    def _page(self, page: bytes) -> bytes:
        if not page:
            return b""
        flags, serial = page[5], page[14:18]
        output = b""
        if flags & _FIRST:
            output = self._first_page(page, serial)
        if serial != self._serial or (self._opus is None and self._flac is None):
            if not flags & _FIRST and self._opus is None and self._flac is None:
                raise ASRError(
                    Code.UNSUPPORTED,
                    "The Ogg data holds neither Opus nor FLAC. Only these two can be decoded as a stream.",
                    param="audio.encoding",
                )
            return output
        packets = self._packets(page, continued=bool(flags & _CONTINUED))
        output += self._decode(packets, int.from_bytes(page[6:14], "little", signed=True), last=bool(flags & _LAST))
        return output

    def _first_page(self, page: bytes, serial: bytes) -> bytes:
        body = page[_PAGE_HEAD_BYTES + page[26] :]
        is_opus = body.startswith(b"OpusHead")
        if not is_opus and not (body.startswith(b"\x7fFLAC") and len(body) >= _FLAC_HEAD_BYTES):
            return b""
        if self._serial is not None and self._started is False:
            return b""
        # A second stream after the first (a chain) goes on where that ended.
        output = self._end_stream() if self._started else b""
        before = self.out_channels if self._started else 0
        self._serial = serial
        self._packet.clear()
        self._decoded = 0
        self._offset = None
        self._opus = self._flac = None
        if is_opus:
            self._opus = OpusPackets(body, stereo=self._stereo, warn=self._warn)
            self.detected = AudioFormat(Encoding.OGG_OPUS, OPUS_RATE_HZ, self._opus.channels)
        else:
            block = body[17:_FLAC_HEAD_BYTES]
            info = parse_stream_info(block)
            self._flac = FlacFrames(block, info, stereo=self._stereo, warn=self._warn)
            self.detected = AudioFormat(Encoding.FLAC, info.rate_hz, info.channels)
        if before not in (0, self.out_channels):
            raise bad_audio("The audio changes its number of channels in the middle; they cannot be split.")
        return output

    def _end_stream(self) -> bytes:
        decoder = self._opus or self._flac
        return decoder.finish() if decoder is not None else b""

    def _packets(self, page: bytes, *, continued: bool) -> list[bytes]:
        # Segments of 255 bytes go on; a shorter one ends a packet.
        packets = []
        at = _PAGE_HEAD_BYTES + page[26]
        orphan = continued and not self._packet and not self._skipping
        if not continued:
            self._packet.clear()
            self._skipping = False
        for lace in page[_PAGE_HEAD_BYTES:at]:
            if not orphan and not self._skipping:
                self._packet += page[at : at + lace]
                if len(self._packet) > MAX_PACKET_BYTES:
                    self._skipping = True
                    self._packet.clear()
            at += lace
            if lace < 255:
                if not orphan and not self._skipping:
                    packets.append(bytes(self._packet))
                self._packet.clear()
                orphan = self._skipping = False
        return packets

    def _decode(self, packets: list[bytes], granule: int, *, last: bool) -> bytes:
        if self._flac is not None:
            return b"".join(self._flac_packet(packet) for packet in packets)
        opus = self._opus
        assert opus is not None, "the caller has looked"
        pieces = [opus.decode(packet) for packet in packets if not packet.startswith((b"OpusHead", b"OpusTags"))]
        self._started = self._started or bool(pieces)
        before = self._decoded
        self._decoded += sum(len(piece) for piece in pieces) // opus.channels
        if not pieces or granule < 0:
            return b"".join(opus.pcm(piece) for piece in pieces)
        # Not every writer counts the start-up samples alike: what holds is the step from page to page.
        offset = opus.pre_skip if self._offset is None else self._offset
        missing = granule - offset - self._decoded
        if self._hole and self._offset is not None and 0 < missing <= MAX_HOLE_SAMPLES:
            # What was lost keeps its time.
            pieces.insert(0, np.zeros(missing * opus.channels, np.float32))
            self._decoded += missing
        elif last and 0 < -missing <= self._decoded - before:
            # The last page's position says where the sound ends within its last packet.
            pieces = _without_tail(pieces, -missing * opus.channels)
        self._offset = granule - self._decoded
        self._hole = False
        return b"".join(opus.pcm(piece) for piece in pieces)

    def _flac_packet(self, packet: bytes) -> bytes:
        if self._flac is None or not packet.startswith(b"\xff"):
            return b""
        head = parse_frame_header(packet, 0)
        self._started = True
        return self._flac.decode(packet, head.samples if head is not None else 0)


def _without_tail(pieces: list[NDArray[np.float32]], count: int) -> list[NDArray[np.float32]]:
    whole = np.concatenate(pieces)
    return [whole[: len(whole) - count]]
