"""The measure itself must be right: frames are found wherever they lie, and the judge counts."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from chaos.numbered import FRAME_BYTES, Found, FrameFinder, Heard, Sent, Verdict, _block, frame, judge, word


def find(data: bytes, cuts: list[int] | None = None) -> tuple[list[Found], FrameFinder]:
    finder = FrameFinder()
    found: list[Found] = []
    edges = [0, *sorted(cuts or []), len(data)]
    for a, b in pairwise(edges):
        found += finder.feed(data[a:b])
    return found + finder.finish(), finder


def test_a_frame_is_loud_and_has_no_silence_in_it() -> None:
    for number in (0, 127, 128, 99_999, 2**28 - 1):
        data = frame(number)
        assert data == b"".join(_block(number, place) for place in range(200))
        assert len(data) == FRAME_BYTES
        assert b"\0" not in data
        samples = np.frombuffer(data, "<i2").astype(float) / 32768
        swing = samples - samples.mean()
        assert 20 * np.log10(np.sqrt(np.mean(swing**2))) > -15
    assert (word(123), word(7, "damaged")) == ("f00123", "x00007")
    with pytest.raises(ValueError, match="does not fit"):
        frame(2**28)


def test_frames_are_found_in_any_pieces() -> None:
    data = b"".join(frame(n) for n in range(20))
    generator = random.Random(1)
    for _ in range(20):
        found, finder = find(data, generator.sample(range(len(data)), 50))
        assert [(f.number, f.start_byte, f.kind) for f in found] == [(n, n * FRAME_BYTES, "intact") for n in range(20)]
        assert finder.stray_bytes == 0


def test_odd_offsets_and_silence_anywhere() -> None:
    found, finder = find(b"\x11\x22\x33" + frame(5) + b"\x44" + frame(6))
    assert [(f.number, f.start_byte) for f in found] == [(5, 3), (6, 4 + FRAME_BYTES)]
    assert finder.stray_bytes == 4
    silence = bytes(1_000)
    found, finder = find(silence + frame(5)[:1001] + silence + frame(5)[1001:] + silence + frame(6))
    assert [(f.number, f.kind) for f in found] == [(5, "intact"), (6, "intact")]
    assert (found[0].start_byte, found[0].end_byte) == (1_000, 2_000 + FRAME_BYTES)
    assert finder.stray_bytes == 0


@pytest.mark.parametrize("at", [0, 3, 16, 700, 1600, 3199])
@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_wrong_byte_is_noticed(at: int, value: int) -> None:
    bad = bytearray(frame(9))
    bad[at] = value
    found, _ = find(frame(8) + bytes(bad) + frame(10))
    kinds = {f.number: f.kind for f in found}
    assert (kinds[8], kinds[10]) == ("intact", "intact")
    assert kinds[9] != "intact"


def test_torn_frames_are_no_whole_ones() -> None:
    found, _ = find(frame(1)[1600:] + frame(2) + frame(3)[:320])
    assert [(f.number, f.kind) for f in found] == [(1, "torn"), (2, "intact"), (3, "torn")]


def sent(count: int) -> list[Sent]:
    return [Sent(n, n * 100, n * 100 + 100) for n in range(count)]


def final(*numbers: int, shift_ms: int = 0) -> Heard:
    words = tuple((word(n), n * 100 + shift_ms) for n in numbers)
    return Heard(min(numbers) * 100, max(numbers) * 100 + 100, " ".join(w for w, _ in words), words)


def test_the_judge_is_content_with_a_whole_transcript() -> None:
    assert judge(sent(6), [final(0, 1, 2), final(3, 4, 5)]) == Verdict()
    assert judge(sent(6), [final(0, 1, 2), final(3, 4, 5)]).faultless


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ([final(0, 1, 2)], Verdict(lost=3, uncovered_ms=300, lost_numbers=[3, 4, 5])),
        ([final(0, 1, 2), Heard(300, 600, gap=True)], Verdict(gapped=3)),
        ([final(0, 1, 2), final(2, 3, 4, 5)], Verdict(repeated=1, overlapping_ms=100)),
        ([final(0, 2, 1), final(3, 4, 5)], Verdict(reordered=1)),
        ([final(3, 4, 5), final(0, 1, 2)], Verdict(reordered=1, unordered=1)),
        ([final(0, 1, 2, 3, 4, 5, shift_ms=30)], Verdict(misplaced=6)),
        ([final(0, 1, 2, 3, 4, 5), Heard(600, 700, "f00099")], Verdict(alien=1)),
        ([final(0, 1, 2, 3, 4), Heard(500, 600, "x00005")], Verdict(damaged=1)),
    ],
)
def test_the_judge_counts(heard: list[Heard], expected: Verdict) -> None:
    verdict = judge(sent(6), heard)
    assert verdict == expected
    assert verdict.faultless == (expected == Verdict(gapped=expected.gapped))
