"""MP3 and ADTS (AAC) as streams: frames are cut apart here, libavcodec decodes each.

The first frame, and the first after damage, counts when another that agrees with it follows where it must. What lies
between frames, such as tags, is skipped.
"""

from __future__ import annotations

import re

from asr.audio.formats import AudioFormat, Encoding, Stereo, Warn, bad_audio
from asr.audio.mpeg_frames import (
    HEAD_BYTES,
    MP3_DECODER_DELAY,
    MpegHeader,
    ParseHeader,
    Xing,
    parse_adts_header,
    parse_mp3_header,
    parse_xing,
)
from asr.audio.packets import PacketDecoder
from asr.errors import ASRError

MAX_SEARCH_BYTES = 256 << 10
"""Where so much comes before the first frame, it is not what it is said to be."""

_NAMES = {Encoding.MP3: "MP3", Encoding.AAC: "AAC"}
_PARSERS: dict[Encoding, ParseHeader] = {Encoding.MP3: parse_mp3_header, Encoding.AAC: parse_adts_header}
_SYNC = re.compile(rb"\xff[\xe2-\xe5\xf0-\xfd]")
_TAGS = (b"TAG", b"APETAGE", b"LYRICSB", b"ID3", b"3DI", bytes(4))
"""How that begins which may stand after the last frame, or between two files that were joined; zeros are padding."""


class MpegDecoder:
    """An MP3 or ADTS stream to 16 kHz PCM16, also one that begins or is damaged in the middle of a frame.

    Attributes:
        duration_ms: the length that a Xing header promises, or None.
    """

    def __init__(self, encoding: Encoding, *, stereo: Stereo, warn: Warn) -> None:
        """`encoding`: MP3 or AAC."""
        self.duration_ms: int | None = None
        self._encoding = encoding
        self._name = _NAMES[encoding]
        self._parse = _PARSERS[encoding]
        self._stereo = stereo
        self._warn = warn
        self._buffer = bytearray()
        self._searched = 0
        """Bytes since the last frame that held none."""
        self._last: MpegHeader | None = None
        self._kind: tuple[int, ...] = ()
        self._packets: PacketDecoder | None = None

    @property
    def detected(self) -> AudioFormat | None:
        """What was found, once a frame was decoded: AAC may hold more than its header says."""
        output = self._packets.output if self._packets is not None else None
        return AudioFormat(self._encoding, output.rate_hz, output.channels) if output and output.rate_hz else None

    @property
    def out_channels(self) -> int:
        """See `Stage`."""
        return self._packets.output.out_channels if self._packets is not None else 1

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what they complete."""
        self._buffer += data
        return self._cut(last=False)

    def finish(self) -> bytes:
        """The end of the data. Raises `bad_audio` where no frame was found, or none could be decoded."""
        rest = self._cut(last=True)
        if self._packets is None:
            raise self._nothing()
        return rest + self._packets.finish()

    def _cut(self, *, last: bool) -> bytes:
        output: list[bytes] = []
        buffer, at = self._buffer, 0
        while at + HEAD_BYTES <= len(buffer):
            header = self._parse(buffer, at)
            end = at if header is None else at + header.size_bytes
            # Right after a frame of its kind, a header is believed as it is; elsewhere the next one must agree.
            sure = (
                self._last is not None and not self._searched and header is not None and header.kind == self._last.kind
            )
            missing = end - len(buffer) if sure else end + HEAD_BYTES - len(buffer)
            if header is None:
                at = self._seek(at)
            elif missing <= 0 and (sure or self._is_followed(header, end)):
                output.append(self._frame(bytes(buffer[at:end]), header))
                at = end
            elif missing > 0 and not last:
                break
            elif missing > 0 and end == len(buffer):
                output.append(self._frame(bytes(buffer[at:end]), header))
                at = end
            elif missing > 0 and sure:
                self._warn(f"The {self._name} data is cut off in the middle of a frame.")
                at = len(buffer)
            else:
                at = self._seek(at)
        del buffer[:at]
        return b"".join(output)

    def _is_followed(self, header: MpegHeader, end: int) -> bool:
        after = self._parse(self._buffer, end)
        return after is not None and after.kind == header.kind

    def _seek(self, at: int) -> int:
        """Where the next sync word may be."""
        match = _SYNC.search(self._buffer, at + 1)
        found = match.start() if match is not None else max(at + 1, len(self._buffer) - 1)
        if self._last is not None and not self._searched and not self._buffer.startswith(_TAGS, at):
            self._warn(f"Damaged parts of the {self._name} were skipped.")
        self._searched += found - at
        if self._last is None and self._searched > MAX_SEARCH_BYTES:
            raise self._nothing()
        return found

    def _frame(self, data: bytes, header: MpegHeader) -> bytes:
        self._searched = 0
        last, self._last, self._kind = self._last, header, header.kind
        packets = self._packets
        finished = b""
        if packets is None or last is None or last.codec != header.codec:
            finished = packets.finish() if packets is not None else b""
            before = packets.output if packets is not None else None
            packets = self._packets = PacketDecoder(
                header.codec, self._name, stereo=self._stereo, warn=self._warn, output=before
            )
        xing = parse_xing(data, header)
        if last is None and xing is not None and xing.frames:
            self.duration_ms = _sound(xing, header) * 1000 // header.rate_hz
        if xing is None:
            return finished + packets.decode(data, header.samples)
        if xing.delay or xing.padding:
            total = xing.frames * header.samples
            end = total - max(0, xing.padding - MP3_DECODER_DELAY) if total else None
            packets.begin(xing.delay + MP3_DECODER_DELAY, end=end, total=total)
        return finished

    def _nothing(self) -> ASRError:
        return bad_audio(f"There is no {self._name} in the data that could be decoded. Announce what it is.")


def _sound(xing: Xing, header: MpegHeader) -> int:
    return max(0, xing.frames * header.samples - xing.delay - xing.padding)
