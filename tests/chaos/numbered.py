"""Audio that can be counted: 100 ms frames of PCM16 that carry their own number, and the judge of what became of them.

A frame holds 200 copies of its number, each with its place and a checksum. No byte of it is zero, so silence that
was inserted anywhere (even within a frame) can be told from it and taken out again; and frames are found by their
bytes, so a stream that lost an odd byte is still read. Read as samples they are loud, far above any speech gate.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Literal
from zlib import crc32

import numpy as np

FRAME_MS = 100
FRAME_BYTES = 3_200
BYTES_PER_MS = 32
MAX_NUMBER = 2**28 - 1
FRAMES_PER_CLIENT = 1_000
"""Client n numbers its frames from n thousand on, so that a stream tells whose it is."""

_MAGIC = b"\xa5\x2c\x5a\xd3"
_BLOCK = 16
_BLOCKS = FRAME_BYTES // _BLOCK
_WORD = re.compile(r"[fxp]\d{5,}")

Kind = Literal["intact", "damaged", "torn"]
"""`torn`: a head or a tail of a frame, itself whole; `damaged`: bytes within it are wrong."""
_LETTER = {"intact": "f", "damaged": "x", "torn": "p"}


def _sevens(value: int, count: int) -> bytes:
    # Seven bits to the byte, the eighth set: never zero.
    return bytes(0x80 | (value >> 7 * place) & 0x7F for place in range(count))


def _value(sevens: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(sevens))


def _block(number: int, place: int) -> bytes:
    body = bytes([place + 1]) + _sevens(number, 4)
    return _MAGIC + body + _sevens(crc32(body), 5) + b"\x15\x4d"


# All blocks of a frame at once: what is the same in every frame, and the checksums up to the number.
_TEMPLATE = np.frombuffer(b"".join(_block(0, place) for place in range(_BLOCKS)), np.uint8).reshape(_BLOCKS, _BLOCK)
_BEGUN = [crc32(bytes([place + 1])) for place in range(_BLOCKS)]
_SHIFTS = np.arange(0, 35, 7, dtype=np.uint64)


@lru_cache(maxsize=16_384)
def frame(number: int) -> bytes:
    """The 100 ms frame (3,200 bytes, 16 kHz PCM16) that carries `number`, 0 to 2²⁸-1."""
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"{number} does not fit")
    spelled = _sevens(number, 4)
    blocks = _TEMPLATE.copy()
    blocks[:, 5:9] = np.frombuffer(spelled, np.uint8)
    sums = np.array([crc32(spelled, begun) for begun in _BEGUN], np.uint64)
    blocks[:, 9:14] = (sums[:, None] >> _SHIFTS) & 0x7F | 0x80
    return blocks.tobytes()


def word(number: int, kind: Kind = "intact") -> str:
    """What a recognizer says that has heard the frame: `f00123`; `x…` when it was damaged, `p…` when torn."""
    return f"{_LETTER[kind]}{number:05d}"


@dataclass(frozen=True, slots=True)
class Found:
    """A frame in a stream.

    Attributes:
        number: what it carries.
        start_byte, end_byte: where it lies in the stream as it came, inserted silence included.
        kind: whether it came whole.
    """

    number: int
    start_byte: int
    end_byte: int
    kind: Kind


class FrameFinder:
    """Finds frames in bytes that come in pieces of any size.

    Attributes:
        stray_bytes: bytes that belong to no frame and are not silence.
        received_bytes: all bytes so far.
    """

    def __init__(self) -> None:
        self.stray_bytes = 0
        self.received_bytes = 0
        self._rest = np.empty(0, np.uint8)
        self._places = np.empty(0, np.int64)
        self._number: int | None = None
        self._blocks: list[int] = []
        self._broken = False
        self._start = 0
        self._end = 0

    def feed(self, data: bytes) -> list[Found]:
        """The frames that are complete now."""
        heard = np.frombuffer(data, np.uint8)
        loud = np.flatnonzero(heard)
        self._rest = np.concatenate([self._rest, heard[loud]])
        self._places = np.concatenate([self._places, loud + self.received_bytes])
        self.received_bytes += len(data)
        return self._scan(last=False)

    def finish(self) -> list[Found]:
        """The stream is over: what is left of a frame, too."""
        found = self._scan(last=True)
        self.stray_bytes += len(self._rest)
        self._rest = self._rest[:0]
        self._places = self._places[:0]
        return found + self._flush()

    def _scan(self, *, last: bool) -> list[Found]:
        found: list[Found] = []
        data, at = self._rest.tobytes(), 0
        while len(data) - at >= _BLOCK:
            number, place = _read(data, at)
            if place == 0 and len(data) - at < FRAME_BYTES and not last:
                break
            if place == 0 and data[at : at + FRAME_BYTES] == frame(number):
                found += self._flush()
                found.append(
                    Found(number, self._at(at), self._at(at + FRAME_BYTES - 1) + 1, "intact"),
                )
                at += FRAME_BYTES
            elif place >= 0:
                if number != self._number or place <= self._blocks[-1]:
                    found += self._flush()
                    self._number, self._start = number, self._at(at)
                self._blocks.append(place)
                self._end = self._at(at + _BLOCK - 1) + 1
                at += _BLOCK
                if place == _BLOCKS - 1:
                    found += self._flush()
            else:
                following = data.find(_MAGIC, at + 1)
                skipped = (following if following >= 0 else max(len(data) - len(_MAGIC) + 1, at + 1)) - at
                self._broken = True
                self.stray_bytes += skipped
                at += skipped
        self._rest, self._places = self._rest[at:], self._places[at:]
        return found

    def _flush(self) -> list[Found]:
        number, blocks, broken = self._number, self._blocks, self._broken
        self._number, self._blocks, self._broken = None, [], False
        if number is None:
            return []
        gapless = blocks[-1] - blocks[0] == len(blocks) - 1
        kind: Kind = "damaged" if broken or not gapless else "intact" if len(blocks) == _BLOCKS else "torn"
        return [Found(number, self._start, self._end, kind)]

    def _at(self, index: int) -> int:
        return int(self._places[index])


def _read(data: bytes, at: int) -> tuple[int, int]:
    """Number and place of the block there; place -1 where there is no whole one."""
    block = data[at : at + _BLOCK]
    place = block[4] - 1
    number = _value(block[5:9])
    return (number, place) if 0 <= place < _BLOCKS and block == _block(number, place) else (0, -1)


# --- the judge


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame as the client sent it: its number and where it lies on the client's audio clock."""

    number: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A final or a gap as the client got it; words as (text, start_ms), none for a gap."""

    start_ms: int
    end_ms: int
    text: str = ""
    words: tuple[tuple[str, int], ...] = ()
    gap: bool = False


@dataclass(slots=True)
class Verdict:
    """Integers, all of which should be 0 but `gapped` where gaps are allowed.

    Attributes:
        lost: frames in no final and in no gap.
        gapped: frames in no final that a gap owns up to.
        repeated: words said again.
        reordered: words that stand after a later one.
        alien: words of frames that this client never sent.
        damaged: words of frames that came damaged or torn, without a gap beside them.
        misplaced: words whose time is off by more than the tolerance.
        uncovered_ms: audio of frames in no final's and no gap's interval.
        overlapping_ms: audio in more than one interval.
        unordered: finals that begin before the one before them.
    """

    lost: int = 0
    gapped: int = 0
    repeated: int = 0
    reordered: int = 0
    alien: int = 0
    damaged: int = 0
    misplaced: int = 0
    uncovered_ms: int = 0
    overlapping_ms: int = 0
    unordered: int = 0
    lost_numbers: list[int] = field(default_factory=list)

    @property
    def faultless(self) -> bool:
        """Nothing lost, nothing repeated, everything in its place, gaps aside."""
        wrong_words = self.lost or self.repeated or self.reordered or self.alien or self.damaged or self.misplaced
        return not (wrong_words or self.uncovered_ms or self.overlapping_ms or self.unordered)


def judge(sent: Sequence[Sent], heard: Iterable[Heard], *, tolerance_ms: int = 20) -> Verdict:
    """Compare what was sent with the finals and gaps that came, in the order they came."""
    heard = list(heard)
    gaps = [h for h in heard if h.gap]
    finals = [h for h in heard if not h.gap]
    by_number = {s.number: s for s in sent}
    verdict = Verdict()

    def in_gap(s: Sent) -> bool:
        return any(gap.start_ms < s.end_ms and s.start_ms < gap.end_ms for gap in gaps)

    said: list[int] = []
    for final in finals:
        times = dict(final.words)
        for text in _WORD.findall(final.text):
            number = int(text[1:])
            mine = by_number.get(number)
            if mine is None:
                verdict.alien += 1
            elif text[0] != "f":
                verdict.damaged += not in_gap(mine)
                if text[0] == "x":
                    said.append(number)
            else:
                said.append(number)
                verdict.misplaced += text in times and abs(times[text] - mine.start_ms) > tolerance_ms
    counts = Counter(said)
    verdict.repeated = sum(count - 1 for count in counts.values())
    firsts = list(dict.fromkeys(said))
    verdict.reordered = sum(later < earlier for earlier, later in pairwise(firsts))
    for s in sent:
        if s.number not in counts:
            if in_gap(s):
                verdict.gapped += 1
            else:
                verdict.lost += 1
                verdict.lost_numbers.append(s.number)
    verdict.unordered = sum(b.start_ms < a.start_ms for a, b in pairwise(finals))
    _cover(sent, heard, verdict)
    return verdict


def _cover(sent: Sequence[Sent], heard: Sequence[Heard], verdict: Verdict) -> None:
    ends = [*(h.end_ms for h in heard), *(s.end_ms for s in sent), 0]
    times = np.zeros(max(ends) + 1, np.int32)
    for h in heard:
        times[max(h.start_ms, 0) : max(h.end_ms, 0)] += 1
    audio = np.zeros(len(times), bool)
    for s in sent:
        audio[s.start_ms : s.end_ms] = True
    verdict.uncovered_ms = int(np.count_nonzero(audio & (times == 0)))
    verdict.overlapping_ms = int(np.sum(np.maximum(times - 1, 0)))
