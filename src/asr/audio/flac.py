"""FLAC as a stream: metadata and frames are cut apart here, libavcodec decodes each frame.

libav's own parser wants ten frames before it gives the first, seconds of delay in a live stream.
A frame ends where the next one's header is: a sync code whose checksum is right and whose
number is the next one (or little later), which no accident in the audio can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import av

from asr.audio.formats import AudioFormat, Encoding, Stereo, Warn, bad_audio, check_header, seconds
from asr.audio.frames import FrameOutput, Trials

MAX_METADATA_BYTES = 32 << 20
"""Cover art and seek tables may fill this much; they are skipped, never held."""

MAX_FRAME_BYTES = 1 << 20
"""A frame larger than this is taken for damage."""

_MIN_BOUND_BYTES = 64 << 10
_STREAMINFO_BYTES = 34
_MIN_FRAME_BYTES = 9
_MAX_FRAME_HEADER_BYTES = 16
_MAX_LOST_FRAMES = 64


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the STREAMINFO block says. `total_samples` and `max_frame_bytes` 0: not known."""

    rate_hz: int
    channels: int
    total_samples: int
    max_frame_bytes: int


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The head of a frame: its place (frame number, or first sample where sizes vary) and length in samples."""

    number: int
    samples: int
    variable: bool
    kind: int
    """The bits that say rate and sample size; alike in all frames of a stream."""

    def missing_after(self, before: FrameHeader) -> int | None:
        """Samples lost between `before` and this frame (0 where it is the next), or None: it cannot follow."""
        if (self.variable, self.kind) != (before.variable, before.kind):
            return None
        if self.variable:
            missing = self.number - before.number - before.samples
        else:
            missing = (self.number - before.number - 1) * before.samples
        return missing if 0 <= missing <= _MAX_LOST_FRAMES * before.samples else None


def parse_stream_info(body: bytes) -> StreamInfo:
    """Read a STREAMINFO block (34 bytes). Raises `bad_audio` where it makes no sense."""
    packed = int.from_bytes(body[10:18], "big")
    info = StreamInfo(packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1, int.from_bytes(body[7:10], "big"))
    check_header(info.rate_hz, info.channels, "FLAC")
    return info


def parse_frame_header(data: bytes | bytearray, at: int) -> FrameHeader | None:
    """The frame header at `at`, or None where there is none (or it is cut off)."""
    head = bytes(data[at : at + _MAX_FRAME_HEADER_BYTES])
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1 or head[3] >> 4 > 10:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    coded = _coded_number(head, 4)
    if coded is None or not size_code or rate_code == 15:
        return None
    number, end = coded
    match size_code:
        case 1:
            samples = 192
        case 6:
            samples = int.from_bytes(head[end : end + 1], "big") + 1
            end += 1
        case 7:
            samples = int.from_bytes(head[end : end + 2], "big") + 1
            end += 2
        case _ if size_code < 6:
            samples = 144 << size_code
        case _:
            samples = 1 << size_code
    end += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if end >= len(head) or _crc8(head[:end]) != head[end]:
        return None
    return FrameHeader(number, samples, bool(head[1] & 1), rate_code << 4 | head[3] & 15)


class FlacDecoder:
    """A FLAC stream to 16 kHz PCM16.

    Attributes:
        detected: rate and channels, once known.
        duration_ms: the length that the header promises, or None.
    """

    def __init__(self, *, stereo: Stereo, warn: Warn) -> None:
        self.detected: AudioFormat | None = None
        self.duration_ms: int | None = None
        self._stereo = stereo
        self._warn = warn
        self._buffer = bytearray()
        self._magic_seen = False
        self._skip = 0
        self._metadata_bytes = 0
        self._last_block = False
        self._info: StreamInfo | None = None
        self._frames: FlacFrames | None = None
        self._head: FrameHeader | None = None
        self._searched = 0
        self._fed = 0
        self._again = 0
        self._max_frame_bytes = MAX_FRAME_BYTES

    @property
    def out_channels(self) -> int:
        """See `Stage`."""
        return self._frames.out_channels if self._frames is not None else 1

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what they complete."""
        self._buffer += data
        self._fed += len(data)
        if not self._last_block or self._skip:
            while self._metadata():
                pass
            if not self._last_block or self._skip:
                return b""
        output = []
        while (piece := self._frame()) is not None:
            output.append(piece)
        return b"".join(output)

    def finish(self) -> bytes:
        """The end of the data. Raises `bad_audio` where the header is not complete."""
        if self._frames is None or self._info is None or not self._last_block or self._skip:
            raise bad_audio("The FLAC header is cut off: the data ends before any sound. Send the whole file.")
        rest = b""
        if self._head is not None and len(self._buffer) >= _MIN_FRAME_BYTES:
            rest = self._frames.decode(bytes(self._buffer), self._head.samples)
        self._buffer.clear()
        rest += self._frames.finish()
        total, have = self._info.total_samples, self._frames.samples
        if have < total:
            promised, here = (n * 1000 / self._info.rate_hz for n in (total, have))
            self._warn(f"The FLAC is truncated: the header promises {seconds(promised)}, {seconds(here)} are here.")
        return rest

    def _metadata(self) -> bool:
        # One step through the blocks before the frames; False when more bytes are needed or all are read.
        if self._skip:
            taken = min(self._skip, len(self._buffer))
            del self._buffer[:taken]
            self._skip -= taken
            return not self._skip
        if self._last_block or len(self._buffer) < 4:
            return False
        if not self._magic_seen:
            if self._buffer[:4] != b"fLaC":
                raise bad_audio("The audio was announced as FLAC and is not FLAC.")
            del self._buffer[:4]
            self._magic_seen = True
            return True
        kind, size = self._buffer[0] & 0x7F, int.from_bytes(self._buffer[1:4], "big")
        if (kind == 0) != (self._info is None) or (kind == 0 and size != _STREAMINFO_BYTES):
            raise bad_audio("The FLAC header is damaged: it does not begin with the stream's properties.")
        self._metadata_bytes += 4 + size
        if self._metadata_bytes > MAX_METADATA_BYTES:
            raise bad_audio(f"No sound in the first {MAX_METADATA_BYTES} bytes of the FLAC: its header is damaged.")
        if kind == 0:
            if len(self._buffer) < 4 + size:
                self._metadata_bytes -= 4 + size
                return False
            self._begin(bytes(self._buffer[4 : 4 + size]))
        self._last_block = bool(self._buffer[0] & 0x80)
        del self._buffer[:4]
        self._skip = size
        return True

    def _begin(self, body: bytes) -> None:
        info = parse_stream_info(body)
        self._info = info
        if info.max_frame_bytes:
            self._max_frame_bytes = min(MAX_FRAME_BYTES, max(_MIN_BOUND_BYTES, 4 * info.max_frame_bytes))
        self._frames = FlacFrames(body, info, stereo=self._stereo, warn=self._warn)
        self.detected = AudioFormat(Encoding.FLAC, info.rate_hz, info.channels)
        if info.total_samples:
            self.duration_ms = info.total_samples * 1000 // info.rate_hz

    def _frame(self) -> bytes | None:
        # The audio of the next whole frame, or None when more bytes are needed.
        assert self._frames is not None, "the first block made it"
        while True:
            at = self._buffer.find(b"\xff", self._searched)
            seen = at if at >= 0 else len(self._buffer)
            if seen > self._max_frame_bytes:
                self._lose(seen)
                continue
            if at < 0 or at + _MAX_FRAME_HEADER_BYTES > len(self._buffer):
                self._searched = len(self._buffer) if at < 0 else at
                return None
            head = parse_frame_header(self._buffer, at) if self._buffer[at + 1] & 0xFE == 0xF8 else None
            self._searched = at + 1
            if head is None:
                continue
            before = self._head
            missing = head.missing_after(before) if before is not None else 0
            if missing is None:
                continue
            data = bytes(self._buffer[:at])
            del self._buffer[:at]
            self._head = head
            self._searched = _MIN_FRAME_BYTES
            if before is None:
                return b""
            pcm = self._frames.decode(data, before.samples)
            return pcm + self._frames.silence(missing) if missing else pcm

    def _lose(self, seen: int) -> None:
        # No frame is so long: begin anew with whatever frame comes next, without a place in time. What was seen holds
        # none, unless its first header was wrong; to look through it once more has a bound, or damage would cost hours.
        self._warn("Damaged parts of the FLAC were skipped.")
        once_more = self._head is not None and self._again <= self._fed
        self._again += seen if once_more else 0
        self._head = None
        del self._buffer[: _MAX_FRAME_HEADER_BYTES if once_more else seen]
        self._searched = 0


class FlacFrames:
    """Decodes whole FLAC frames, one at a time, to 16 kHz PCM16."""

    def __init__(self, stream_info: bytes, info: StreamInfo, *, stereo: Stereo, warn: Warn) -> None:
        self.samples = 0
        self._warn = warn
        self._trials = Trials("FLAC")
        self._output = FrameOutput(stereo=stereo, warn=warn, rate_hz=info.rate_hz, channels=info.channels)
        self.out_channels = self._output.out_channels
        self._codec: Any = av.CodecContext.create("flac", "r")
        self._codec.extradata = stream_info
        # Frames are independent; threads would only hold finished ones back.
        self._codec.thread_count = 1

    def decode(self, data: bytes, samples: int) -> bytes:
        """One frame that should hold `samples`; silence takes the place of one that cannot be decoded."""
        try:
            frames = self._codec.decode(av.Packet(data))
        except av.FFmpegError:
            self._trials.bad()
            return self.silence(samples)
        self._trials.good()
        self.samples += sum(frame.samples for frame in frames)
        return b"".join(self._output.push(frame) for frame in frames)

    def silence(self, samples: int) -> bytes:
        """In place of sound that was lost, so that what follows keeps its time."""
        self._warn("Damaged parts of the FLAC were replaced by silence.")
        self.samples += samples
        return self._output.silence(samples)

    def finish(self) -> bytes:
        """What is held back at the end. Raises `bad_audio` where nothing could be decoded."""
        self._trials.end()
        return self._output.finish()


def _coded_number(head: bytes, at: int) -> tuple[int, int] | None:
    # Numbers are written like UTF-8, up to 36 bits.
    first = head[at]
    if first < 0x80:
        return first, at + 1
    length = 8 - (first ^ 0xFF).bit_length()
    if not 2 <= length <= 7 or at + length > len(head):
        return None
    number = first & (0x7F >> length)
    for byte in head[at + 1 : at + length]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    return number, at + length


@cache
def _crc8_table() -> bytes:
    table = bytearray()
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
        table.append(crc)
    return bytes(table)


def _crc8(data: bytes) -> int:
    table = _crc8_table()
    crc = 0
    for byte in data:
        crc = table[crc ^ byte]
    return crc
