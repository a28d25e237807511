"""What the boxes of an MP4 say of its sound: which codec, and where each packet lies (ISO/IEC 14496-12, -14)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asr.audio.formats import bad_audio
from asr.errors import ASRError, Code

MAX_PACKETS = 1 << 16
"""A fragment may not hold more."""
MAX_PADDING_S = 1
"""An edit list that leaves out more than this at the end means something else than the encoder's padding."""

_CODEC_OF_OBJECT = {0x40: "aac", 0x66: "aac", 0x67: "aac", 0x68: "aac", 0x69: "mp3float", 0x6B: "mp3float"}
_PEOPLE = {"aac": "AAC", "mp3float": "MP3", "opus": "Opus", "flac": "FLAC", "alac": "ALAC"}

Place = tuple[int, int]
"""Where a packet lies: from which byte of the file, and how many."""


@dataclass(frozen=True, slots=True)
class SoundTrack:
    """The track to decode.

    Attributes:
        number: its ID.
        codec: libav's name of the decoder; `name` is the one that people know.
        extradata: what that decoder must be told.
        skip, end, total: where the sound begins and ends within `total` samples; end None: where they end.
        duration_ms: of the whole, or None.
        tables: its `stbl` box; empty of packets in a fragmented file.
        packet_bytes: size of a fragment's packets where that does not say.
    """

    number: int
    codec: str
    name: str
    extradata: bytes
    skip: int
    end: int | None
    total: int
    duration_ms: int | None
    tables: bytes
    packet_bytes: int


def boxes(data: bytes, at: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """The boxes in `data` from `at` on: type and body. Raises `bad_audio` where one reaches beyond the end."""
    while at + 8 <= len(data):
        size, head = _number(data, at), 8
        if size == 1 and at + 16 <= len(data):
            size, head = _number(data, at + 8, 8), 16
        elif size == 0:
            size = len(data) - at
        if size < head or at + size > len(data):
            raise damaged()
        yield data[at + 4 : at + 8], data[at + head : at + size]
        at += size


def damaged() -> ASRError:
    """The error for boxes that make no sense."""
    return bad_audio("The MP4 data is damaged: a box in it makes no sense.")


def read_moov(body: bytes) -> SoundTrack:
    """The first sound track of a `moov` box that can be decoded.

    Raises:
        ASRError: `bad_audio` where there is no sound or no sense, `unsupported` for other codecs.
    """
    parts = list(boxes(body))
    others: list[str] = []
    for name, trak in parts:
        if name != b"trak" or _inside(trak, b"mdia", b"hdlr")[8:12] != b"soun":
            continue
        track = _read_trak(trak, parts, others)
        if track is not None:
            return track
    if others:
        raise ASRError(
            Code.UNSUPPORTED,
            f"The MP4 data holds {', '.join(others)}. AAC, Opus, FLAC, ALAC and MP3 can be decoded as a stream.",
            param="audio.encoding",
        )
    raise bad_audio("There is no sound in the MP4 data.")


def _read_trak(trak: bytes, moov: list[tuple[bytes, bytes]], others: list[str]) -> SoundTrack | None:
    tables = _inside(trak, b"mdia", b"minf", b"stbl")
    _, entry = next(boxes(_inside(tables, b"stsd"), 8), (b"", b""))
    found = _codec(_inside(tables, b"stsd")[12:16], entry)
    if isinstance(found, str):
        others.append(found)
        return None
    codec, extradata = found
    number = _number(_inside(trak, b"tkhd"), 20 if _inside(trak, b"tkhd")[:1] == b"\1" else 12)
    scale, duration = _scale_and_duration(_inside(trak, b"mdia", b"mdhd"))
    movie_scale, _ = _scale_and_duration(_first(moov, b"mvhd"))
    extends = [body for name, body in boxes(_first(moov, b"mvex")) if name == b"trex" and _number(body, 4) == number]
    skip, end = _edit(_inside(trak, b"edts", b"elst"), scale, movie_scale, duration)
    if codec == "opus":
        # Its decoder takes the start-up samples off by itself.
        skip, end, duration = 0, end - skip if end is not None else None, duration - skip
    return SoundTrack(
        number,
        codec,
        _PEOPLE[codec],
        extradata,
        skip,
        end,
        duration,
        duration * 1000 // scale if duration > 0 and not extends else None,
        tables,
        _number(extends[0], 16) if extends else 0,
    )


def _codec(kind: bytes, entry: bytes) -> tuple[str, bytes] | str:
    version = _number(entry, 8, 2)
    children = list(boxes(entry, 28 + {1: 16, 2: 36}.get(version, 0))) if kind != b"enca" else []
    match kind:
        case b"mp4a":
            esds = _first(children, b"esds") or _inside(_first(children, b"wave"), b"esds")
            return _elementary(esds)
        case b"Opus":
            return "opus", _opus_head(_first(children, b"dOps"))
        case b"fLaC":
            return "flac", _first(children, b"dfLa")[8:42]
        case b"alac":
            config = _first(children, b"alac")
            return "alac", (len(config) + 8).to_bytes(4, "big") + b"alac" + config
        case b".mp3":
            return "mp3float", b""
        case _:
            return kind.decode("ascii", "replace").strip("\0 ") or "an unknown codec"


def _elementary(esds: bytes) -> tuple[str, bytes] | str:
    # Descriptors: one of the stream, in it one of the decoder, in that the decoder's own setup.
    tag, body = _descriptor(esds, 4)
    if tag != 3 or len(body) < 3:
        raise damaged()
    flags = body[2]
    at = 3 + (2 if flags & 0x80 else 0) + (2 if flags & 0x20 else 0)
    if flags & 0x40:
        at += 1 + _number(body, at, 1)
    tag, decoder = _descriptor(body, at)
    if tag != 4 or not decoder:
        raise damaged()
    codec = _CODEC_OF_OBJECT.get(decoder[0])
    if codec is None:
        return f"codec 0x{decoder[0]:02X}"
    tag, setup = _descriptor(decoder, 13)
    return codec, setup if tag == 5 and codec == "aac" else b""


def _descriptor(data: bytes, at: int) -> tuple[int, bytes]:
    if at >= len(data):
        return 0, b""
    tag, size, at = data[at], 0, at + 1
    for _ in range(4):
        byte = _number(data, at, 1)
        at += 1
        size = size << 7 | byte & 0x7F
        if not byte & 0x80:
            break
    return tag, data[at : at + size]


def _opus_head(dops: bytes) -> bytes:
    # The same fields as in Ogg, the other way round.
    if len(dops) < 11:
        raise damaged()
    numbers = dops[2:4][::-1] + dops[4:8][::-1] + dops[8:10][::-1]
    return b"OpusHead\1" + dops[1:2] + numbers + dops[10:]


def _edit(elst: bytes, scale: int, movie_scale: int, duration: int) -> tuple[int, int | None]:
    wide = elst[:1] == b"\1"
    length, size = (8, 20) if wide else (4, 12)
    for number in range(min(_number(elst, 4) if elst else 0, 8)):
        at = 8 + number * size
        media_time = int.from_bytes(elst[at + length : at + 2 * length], "big", signed=True)
        if media_time < 0:
            continue
        end = media_time + round(_number(elst, at, length) * scale / movie_scale)
        trims = media_time < end < duration <= end + MAX_PADDING_S * scale
        return (media_time if media_time <= MAX_PADDING_S * scale else 0), end if trims else None
    return 0, None


def _scale_and_duration(body: bytes) -> tuple[int, int]:
    wide = body[:1] == b"\1"
    scale, duration = (_number(body, 20), _number(body, 24, 8)) if wide else (_number(body, 12), _number(body, 16))
    if not scale:
        raise damaged()
    return scale, 0 if duration in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF) else duration


def packets_of_tables(tables: bytes) -> Iterator[Place]:
    """Where the packets of a file lie that is not fragmented, in their order."""
    parts = list(boxes(tables))
    sizes, runs = _first(parts, b"stsz"), _first(parts, b"stsc")
    chunks, width = _first(parts, b"stco"), 4
    if not chunks:
        chunks, width = _first(parts, b"co64"), 8
    if not sizes or not chunks:
        return
    same, left = _number(sizes, 4), _number(sizes, 8)
    listed = 12
    run, per_chunk = 0, 0
    for number in range(min(_number(chunks, 4), (len(chunks) - 8) // width)):
        if run < min(_number(runs, 4), (len(runs) - 8) // 12) and _number(runs, 8 + run * 12) == number + 1:
            per_chunk = _number(runs, 12 + run * 12)
            run += 1
        at = _number(chunks, 8 + number * width, width)
        for _ in range(min(per_chunk, left)):
            size = same
            if not same:
                size = _number(sizes, listed)
                listed += 4
            left -= 1
            yield at, size
            at += size


def packets_of_fragment(body: bytes, begin: int, track: SoundTrack) -> list[Place]:
    """Where the packets of `track` lie that a `moof` box at byte `begin` announces.

    Raises:
        ASRError: `bad_audio` where it makes no sense.
    """
    places: list[Place] = []
    after = begin
    for name, traf in boxes(body):
        if name != b"traf":
            continue
        parts = list(boxes(traf))
        tfhd = _first(parts, b"tfhd")
        flags, number, at = _number(tfhd, 1, 3), _number(tfhd, 4), 8
        base = begin if flags & 0x20000 or after == begin else after
        if flags & 0x01:
            base, at = _number(tfhd, at, 8), at + 8
        at += 4 * (flags >> 1 & 1) + 4 * (flags >> 3 & 1)
        size = _number(tfhd, at) if flags & 0x10 else track.packet_bytes
        after = base
        for kind, trun in parts:
            if kind == b"trun":
                run = _run(trun, base, after, size)
                after = run[-1][0] + run[-1][1] if run else after
                places += run if number == track.number else []
                if len(places) > MAX_PACKETS:
                    raise damaged()
    return places


def _run(trun: bytes, base: int, after: int, size: int) -> list[Place]:
    flags, count, at = _number(trun, 1, 3), _number(trun, 4), 8
    place = after
    if flags & 0x01:
        place = base + int.from_bytes(trun[at : at + 4], "big", signed=True)
        at += 4
    at += 4 * (flags >> 2 & 1)
    before = 4 * (flags >> 8 & 1)
    step = before + sum(4 * (flags >> bit & 1) for bit in (9, 10, 11))
    if count > MAX_PACKETS or at + count * step > len(trun):
        raise damaged()
    places: list[Place] = []
    for number in range(count):
        if flags & 0x200:
            size = _number(trun, at + number * step + before)
        places.append((place, size))
        place += size
    return places


def _first(parts: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next((body for kind, body in parts if kind == name), b"")


def _inside(data: bytes, *path: bytes) -> bytes:
    for name in path:
        data = _first(list(boxes(data)), name)
    return data


def _number(data: bytes, at: int, size: int = 4) -> int:
    if at + size > len(data):
        raise damaged()
    return int.from_bytes(data[at : at + size], "big")
