"""FLAC streams: the same samples as libav finds in the whole file, however it is cut."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import AudioDecoder, AudioFormat, Encoding
from asr.audio.flac import parse_frame_header
from asr.errors import ASRError, Code
from sound import decoded, encoded, noise, pieces, run, tone
from timing import in_time

FLAC = AudioFormat(Encoding.FLAC, None)
SAMPLES = np.concatenate([np.frombuffer(noise(9000), "<i2"), np.zeros(7000, "i2"), (tone(400, 1) * 9000).astype("i2")])
FILE = encoded(SAMPLES, 16_000, "flac", "flac")


def flac_run(data: bytes, cuts: list[int] | None = None) -> tuple[bytes, list[str]]:
    decoder = AudioDecoder(FLAC)
    return run(decoder, pieces(data, cuts or [])), decoder.warnings


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, len(FILE)), max_size=10))
def test_16_khz_mono_comes_out_bit_for_bit_however_it_is_cut(cuts: list[int]) -> None:
    assert flac_run(FILE, cuts) == (SAMPLES.tobytes(), [])


def test_tiny_pieces_give_sound_without_waiting_for_many_frames() -> None:
    decoder = AudioDecoder(AudioFormat(Encoding.AUTO, None))
    first = next(at for at in range(0, len(FILE), 50) if decoder.feed(FILE[at : at + 50]))
    assert first < len(FILE) // 2
    assert decoder.detected == AudioFormat(Encoding.FLAC, 16_000, 1)
    assert decoder.duration_ms == 2000


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bits", [16, 24])
def test_other_rates_depths_and_stereo_equal_the_whole_file_as_float(rate: int, channels: int, bits: int) -> None:
    rng = np.random.default_rng(7)
    samples = rng.integers(-(2**21), 2**21, (rate // 2, channels), dtype=np.int32)
    data = encoded(samples << 8 if bits == 24 else (samples >> 8).astype(np.int16), rate, "flac", "flac")
    float_pcm = decoded(data).astype("<f4").tobytes()
    reference = run(AudioDecoder(AudioFormat(Encoding.PCM_F32LE, rate, channels)), [float_pcm])
    made, warnings = flac_run(data, list(range(0, len(data), 997)))
    assert made == reference
    assert len(warnings) == channels - 1


def test_stereo_can_be_refused() -> None:
    data = encoded(np.zeros((1000, 2), np.int16), 16_000, "flac", "flac")
    with pytest.raises(ASRError, match="2 channels"):
        run(AudioDecoder(FLAC, stereo="refuse"), [data])


def test_cover_art_and_comments_are_skipped() -> None:
    picture = bytes([6]) + (300_000).to_bytes(3, "big") + b"\xff\xf8" * 150_000
    data = FILE[:42] + picture + FILE[42:]
    assert flac_run(data, list(range(0, len(data), 10_001)))[0] == SAMPLES.tobytes()


def test_a_truncated_file_is_used_and_told() -> None:
    made, warnings = flac_run(FILE[: len(FILE) * 2 // 3])
    have = len(made) // 2
    assert 8000 < have < len(SAMPLES)
    assert any("truncated: the header promises 2.0 s" in warning for warning in warnings)


def test_damage_in_the_middle_becomes_silence_and_the_clock_goes_on() -> None:
    starts = [at for at in range(42, len(FILE)) if parse_frame_header(FILE, at) is not None]
    assert len(starts) > 4
    broken = bytearray(FILE)
    broken[starts[1]] ^= 0xFF
    made, warnings = flac_run(bytes(broken), [1000, 2000])
    samples = np.frombuffer(made, "<i2")
    assert len(samples) == len(SAMPLES)
    frame = parse_frame_header(FILE, starts[0])
    assert frame is not None
    assert (samples[2 * frame.samples :] == SAMPLES[2 * frame.samples :]).all()
    assert warnings == ["Damaged parts of the FLAC were replaced by silence."]


def test_damage_of_any_length_is_passed_over_quickly() -> None:
    head = FILE[: len(FILE) // 3]
    for rubbish in (noise(300_000), b"\xff\xf8" * 150_000, FILE[42:500] * 600):
        begun = time.process_time()
        made, warnings = flac_run(head + rubbish)
        in_time(time.process_time() - begun, 2.0)
        assert made
        assert "Damaged parts of the FLAC were skipped." in warnings


def test_a_long_hole_is_told_and_what_follows_is_heard() -> None:
    quiet, loud = np.zeros(400_000, "i2"), np.frombuffer(noise(60_000), "<i2")
    data = encoded(np.concatenate([quiet, loud]), 16_000, "flac", "flac")
    starts = [at for at in range(42, 42 + 12_000) if parse_frame_header(data, at) is not None]
    made, warnings = flac_run(data[: starts[2]] + data[starts[80] :], list(range(0, len(data), 5000)))
    assert made.endswith(loud[-8000:].tobytes())
    assert "Damaged parts of the FLAC were skipped." in warnings


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (FILE[:4], "cut off"),
        (FILE[:40], "cut off"),
        (FILE[:50], "cut off"),
        (FILE[:4] + b"\x84\0\0\0" + FILE[8:], "does not begin"),
        (FILE[:4] + FILE[4:18] + bytes(8) + FILE[26:], "0 Hz"),
    ],
)
def test_broken_headers_get_a_clear_answer(data: bytes, words: str) -> None:
    with pytest.raises(ASRError, match=words) as caught:
        flac_run(data)
    assert caught.value.code is Code.BAD_AUDIO


def test_a_header_without_sound_is_empty() -> None:
    end = next(at for at in range(42, len(FILE)) if parse_frame_header(FILE, at) is not None)
    with pytest.raises(ASRError, match="empty"):
        flac_run(FILE[:end])
