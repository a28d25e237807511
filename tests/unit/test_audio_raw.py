"""Raw samples: untouched where possible, otherwise mixed and resampled well."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import AudioDecoder, AudioFormat, Encoding
from asr.audio.g711 import alaw_table, mulaw_table
from asr.errors import ASRError, Code
from sound import noise, pcm16, pieces, run, tone


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=2, max_size=64), st.lists(st.integers(0, 64), max_size=5))
def test_pcm16_of_16_khz_passes_bit_for_bit(data: bytes, cuts: list[int]) -> None:
    if data.startswith((b"RIFF", b"RF64", b"BW64", b"RIFX", b"fLaC", b"OggS", b"\x1aE\xdf\xa3")):
        return
    decoder = AudioDecoder(AudioFormat())
    assert run(decoder, pieces(data, cuts)) == data[: len(data) & ~1]
    assert len(decoder.warnings) == len(data) % 2
    assert decoder.received_bytes == len(data)


def test_whole_chunks_are_not_even_copied() -> None:
    decoder = AudioDecoder(AudioFormat())
    decoder.feed(noise(8))
    data = noise(1600)
    assert decoder.feed(data) is data


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_length_after_resampling_is_right_within_a_millisecond(rate: int) -> None:
    decoder = AudioDecoder(AudioFormat(sample_rate_hz=rate))
    data = pcm16(tone(440, 0.7321, rate))
    made = run(decoder, [data[at : at + 1001] for at in range(0, len(data), 1001)])
    assert abs(len(made) / 32 - 732.1) < 1


@pytest.mark.parametrize(("rate", "hz"), [(48_000, 9_000), (48_000, 15_000), (44_100, 12_000), (48_000, 23_000)])
def test_what_16_khz_cannot_hold_vanishes(rate: int, hz: int) -> None:
    data = tone(hz, 1.0, rate, 0.9).astype("<f4").tobytes()
    made = run(AudioDecoder(AudioFormat(Encoding.PCM_F32LE, rate)), [data])
    middle = np.frombuffer(made, "<i2")[2000:-2000]
    # Half a step of 16 bits, which would still be rounded up, lies 95 dB below the tone.
    assert not middle.any()


@pytest.mark.parametrize(("rate", "hz"), [(8_000, 3_500), (44_100, 7_000), (48_000, 1_000), (48_000, 7_000)])
def test_what_it_can_hold_stays_as_it_is(rate: int, hz: int) -> None:
    made = run(AudioDecoder(AudioFormat(sample_rate_hz=rate)), [pcm16(tone(hz, 1.0, rate))])
    middle = np.frombuffer(made, "<i2").astype(float)[2000:-2000] / 32768
    assert np.abs(middle - tone(hz, 1.0)[2000:-2000]).max() < 1e-3


RAW = [Encoding.PCM_S16LE, Encoding.PCM_F32LE, Encoding.MULAW, Encoding.ALAW]


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(RAW),
    st.sampled_from([8_000, 16_000, 44_100]),
    st.integers(1, 3),
    st.lists(st.integers(0, 5000), max_size=8),
    st.integers(1, 999),
)
def test_cuts_never_change_the_output(encoding: Encoding, rate: int, channels: int, cuts: list[int], seed: int) -> None:
    data = np.random.default_rng(seed).bytes(4001)
    whole = AudioDecoder(AudioFormat(encoding, rate, channels))
    cut = AudioDecoder(AudioFormat(encoding, rate, channels))
    assert run(whole, [data]) == run(cut, pieces(data, cuts))
    assert set(whole.warnings) == set(cut.warnings)


def test_stereo_is_mixed_down_with_a_warning_or_refused() -> None:
    left, right = tone(300, 0.2), tone(500, 0.2)
    data = np.stack([left, right], axis=1).astype("<f4").tobytes()
    fmt = AudioFormat(Encoding.PCM_F32LE, 16_000, 2)
    decoder = AudioDecoder(fmt)
    made = np.frombuffer(run(decoder, [data]), "<i2")
    assert np.abs(made - (left + right) * 16384).max() <= 1
    assert decoder.warnings == ["2 channels were mixed down to one."]
    with pytest.raises(ASRError, match="2 channels") as caught:
        AudioDecoder(fmt, stereo="refuse")
    assert caught.value.code is Code.BAD_AUDIO


def test_float_samples_that_are_no_sound_are_tamed() -> None:
    samples = np.array([0.5, np.nan, np.inf, -np.inf, 1e30, -0.25], "<f4")
    decoder = AudioDecoder(AudioFormat(Encoding.PCM_F32LE, 16_000))
    made = np.frombuffer(run(decoder, [samples.tobytes()]), "<i2")
    assert made.tolist() == [16384, 0, 32767, -32768, 32767, -8192]
    assert len(decoder.warnings) == 2


@pytest.mark.parametrize(("name", "table"), [("pcm_mulaw", mulaw_table), ("pcm_alaw", alaw_table)])
def test_telephone_codes_mean_what_the_standard_says(name: str, table: object) -> None:
    assert callable(table)
    codec = av.CodecContext.create(name, "r")
    codec.sample_rate = 8000
    codec.layout = "mono"
    (frame,) = codec.decode(av.Packet(bytes(range(256))))
    assert table().tolist() == frame.to_ndarray()[0].tolist()


def test_an_incomplete_frame_at_the_end_is_dropped_and_told() -> None:
    decoder = AudioDecoder(AudioFormat(Encoding.PCM_S16LE, 16_000, 2))
    assert len(run(decoder, [bytes(7)])) == 2
    assert "3 bytes at the end" in decoder.warnings[-1]
    with pytest.raises(ASRError, match="empty"):
        run(AudioDecoder(AudioFormat()), [b"a"])
