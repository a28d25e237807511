"""Where recordings are cut: in pauses, whatever the noise, and the same however the audio arrives."""

from __future__ import annotations

import random

import numpy as np
import pytest

import counting
import speech
from asr.pauses import FRAME_MS, CutFinder, CutRules, loudness, pauses

SHORT = CutRules(min_ms=3_000, target_ms=6_000, max_ms=12_000)
LOUD, SOFT = 9_000, 120


def noise(ms: int, level: float, seed: int = 7) -> bytes:
    return np.random.default_rng(seed).normal(0, level, 16 * ms).astype("<i2").tobytes()


def talk(ms: int, level: float = LOUD, seed: int = 3) -> bytes:
    """Noise in syllables of 150 ms, loud and less loud, with dips between them."""
    dice = np.random.default_rng(seed)
    samples = dice.normal(0, level, 16 * ms)
    envelope = 0.3 + np.abs(np.sin(np.arange(16 * ms) * np.pi / 2_400))
    return np.clip(samples * envelope, -32768, 32767).astype("<i2").tobytes()


def mixed(*layers: bytes) -> bytes:
    total = sum(np.frombuffer(layer, "<i2").astype(np.int32) for layer in layers)
    return np.clip(total, -32768, 32767).astype("<i2").tobytes()


def cuts(pcm: bytes, rules: CutRules = SHORT, *, size: int = 32_000, channels: int = 1) -> list[int]:
    finder = CutFinder(rules, channels)
    found = [cut for at in range(0, len(pcm), size) for cut in finder.feed(pcm[at : at + size])]
    return found + finder.finish()


def test_it_cuts_in_the_middle_of_pauses() -> None:
    pcm = b"".join(talk(5_000, seed=n) + speech.silence(1_000) for n in range(10))
    found = cuts(pcm)
    assert len(found) >= 5
    assert all(abs((cut % 6_000) - 5_500) <= FRAME_MS for cut in found)
    assert found == sorted(set(found))


def test_the_pieces_do_not_matter() -> None:
    dice = random.Random(5)
    pcm = b"".join(
        talk(dice.randrange(800, 9_000), seed=n) + noise(dice.randrange(200, 2_500), SOFT) for n in range(15)
    )
    finder = CutFinder(SHORT)
    found = [cut for piece in counting.cut_anywhere(pcm, dice) for cut in finder.feed(piece)] + finder.finish()
    assert found == cuts(pcm) == cuts(pcm, size=len(pcm))
    assert found


@pytest.mark.parametrize("level", [0, 3, 40, 300], ids=["digital silence", "-80 dB", "-58 dB", "-41 dB"])
def test_the_noise_floor_does_not_matter(level: int) -> None:
    pcm = b"".join(talk(5_000, seed=n) + speech.silence(1_000) for n in range(6))
    if level:
        pcm = mixed(pcm, noise(36_000, level))
    assert [cut // 6_000 for cut in cuts(pcm)] == [0, 1, 2, 3, 4]


def test_the_longer_pause_wins_near_the_target() -> None:
    pcm = talk(5_300) + speech.silence(700) + talk(2_000) + speech.silence(2_000) + talk(9_000)
    assert cuts(pcm)[0] == pytest.approx(9_000, abs=FRAME_MS)


def test_of_equal_pauses_the_one_near_the_target_wins() -> None:
    one = talk(2_000) + speech.silence(1_000)
    assert cuts(one * 6)[0] == pytest.approx(5_500, abs=FRAME_MS)


def test_a_short_pause_is_none() -> None:
    assert cuts((talk(3_000) + speech.silence(600)) * 12) == []


def test_without_a_pause_nothing_is_cut_until_there_is_one() -> None:
    head = talk(47_000)
    found = cuts(head + speech.silence(1_200) + talk(20_000))
    assert found == [pytest.approx(47_600, abs=FRAME_MS)]
    assert cuts(noise(60_000, 500)) == []


def test_a_soft_voice_beside_a_loud_one_is_no_pause() -> None:
    pcm = (talk(3_000, LOUD) + talk(3_000, LOUD / 30)) * 8
    assert cuts(mixed(pcm, noise(48_000, 10))) == []


def test_long_silence_is_cut_too() -> None:
    found = cuts(talk(5_000) + speech.silence(60_000))
    assert found
    assert all(cut > 5_000 for cut in found)


def test_a_pause_of_one_channel_alone_is_none() -> None:
    left = talk(5_000) + speech.silence(2_000) + talk(5_000) + speech.silence(2_000) + talk(6_000)
    right = talk(5_000) + speech.silence(2_000) + talk(13_000)
    pair = np.stack([np.frombuffer(left, "<i2"), np.frombuffer(right, "<i2")], axis=1).tobytes()
    assert cuts(pair, channels=2) == [pytest.approx(6_000, abs=FRAME_MS)]


def test_a_last_part_that_is_long_is_halved_and_a_short_one_is_not() -> None:
    assert cuts(talk(5_000) + speech.silence(1_000) + talk(4_000)) == [pytest.approx(5_500, abs=FRAME_MS)]
    assert cuts(talk(5_000) + speech.silence(1_000) + talk(2_000)) == []


def test_memory_is_flat() -> None:
    finder = CutFinder(SHORT)
    piece = noise(30_000, 500)
    for _ in range(10):
        finder.feed(piece)
    held = finder._levels.nbytes + len(finder._rest)
    assert held <= 4 * (SHORT.max_ms + 20_000) // FRAME_MS


@pytest.mark.parametrize("name", speech.CLIPS)
def test_no_pause_is_found_inside_spoken_sentences_but_where_one_was_put(name: str) -> None:
    found = [(a * FRAME_MS, b * FRAME_MS) for a, b in pauses(loudness(whole(speech.pcm(name))), 700)]
    if name == "two_sentences":
        ((start_ms, end_ms),) = found
        assert end_ms - start_ms >= 1_300
    assert len(found) <= (1 if name in ("two_sentences", "story") else 0), found


def test_joined_clips_are_cut_between_them() -> None:
    names = [name for name in speech.CLIPS if name not in ("two_sentences", "story")]
    pcm, gaps = b"", []
    for name in names * 2:
        pcm += speech.pcm(name)
        gaps.append((len(pcm) // 32, len(pcm) // 32 + 900))
        pcm += speech.silence(900)
    found = cuts(pcm)
    assert len(found) >= 6
    assert all(any(start <= cut <= end for start, end in gaps) for cut in found)


def whole(pcm: bytes) -> bytes:
    return pcm[: len(pcm) // 960 * 960]
