"""WAV streams: every sample format, headers cut anywhere, lengths that lie."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import AudioDecoder, AudioFormat, Encoding
from asr.audio.g711 import mulaw_table
from asr.errors import ASRError, Code
from sound import chunk, fmt, noise, pieces, run, tone, wav

SNIFF = AudioFormat(Encoding.AUTO, None)
PCM = noise(800)
LIST = chunk(b"LIST", b"INFOISFT\x05\0\0\0abcd\0\0")


def wav_run(data: bytes, cuts: list[int] | None = None) -> tuple[bytes, list[str]]:
    decoder = AudioDecoder(SNIFF)
    return run(decoder, pieces(data, cuts or [])), decoder.warnings


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 2000), max_size=8))
def test_the_header_may_be_cut_anywhere(cuts: list[int]) -> None:
    data = wav(PCM, before=LIST + chunk(b"bext", bytes(333)) + chunk(b"fact", bytes(4)), after=LIST)
    assert wav_run(data, cuts) == (PCM, [])


def test_one_byte_at_a_time() -> None:
    data = wav(PCM, fmt(extensible=True), after=LIST)
    decoder = AudioDecoder(AudioFormat(Encoding.WAV))
    assert run(decoder, [data[at : at + 1] for at in range(len(data))]) == PCM
    assert decoder.detected == AudioFormat(Encoding.WAV, 16_000, 1)
    assert decoder.duration_ms == 50


SOUND = tone(440, 0.05)


@pytest.mark.parametrize(
    ("head", "data", "tolerance"),
    [
        (fmt(bits=8), (SOUND * 128 + 128).astype("u1").tobytes(), 256),
        (fmt(bits=16), (SOUND * 32768).astype("<i2").tobytes(), 1),
        (fmt(bits=24), b"".join(struct.pack("<i", int(x * 2**31))[1:] for x in SOUND), 1),
        (fmt(bits=24, extensible=True), b"".join(struct.pack("<i", int(x * 2**31))[1:] for x in SOUND), 1),
        (fmt(bits=32), (SOUND * 2**31).astype("<i4").tobytes(), 1),
        (fmt(3, bits=32), SOUND.astype("<f4").tobytes(), 1),
        (fmt(3, bits=64), SOUND.astype("<f8").tobytes(), 1),
        (fmt(3, bits=32, extensible=True), SOUND.astype("<f4").tobytes(), 1),
    ],
)
def test_sample_formats(head: bytes, data: bytes, tolerance: int) -> None:
    made, warnings = wav_run(wav(data, head), [50, 77, 901])
    assert np.abs(np.frombuffer(made, "<i2") - SOUND * 32768).max() <= tolerance
    assert warnings == []


@pytest.mark.parametrize(("tag", "sample"), [(7, int(mulaw_table()[0x2A])), (6, -40)])
def test_telephone_wav(tag: int, sample: int) -> None:
    code = 0x2A if tag == 7 else 0x57
    made, _ = wav_run(wav(bytes([code]) * 160, fmt(tag, bits=8, rate_hz=16_000)))
    assert set(np.frombuffer(made, "<i2").tolist()) == {sample}


def test_stereo_is_mixed_or_refused() -> None:
    data = wav(PCM, fmt(channels=2))
    made, warnings = wav_run(data)
    assert (len(made), warnings) == (len(PCM) // 2, ["2 channels were mixed down to one."])
    with pytest.raises(ASRError, match="2 channels"):
        run(AudioDecoder(SNIFF, stereo="refuse"), [data])


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_an_unknown_length_means_all_that_comes(size: int) -> None:
    decoder = AudioDecoder(SNIFF)
    assert run(decoder, [wav(PCM, size=size)]) == PCM
    assert (decoder.warnings, decoder.duration_ms) == ([], None)


def test_a_length_beyond_the_data_is_told() -> None:
    made, warnings = wav_run(wav(PCM, size=320_000))
    assert made == PCM
    assert warnings == ["The WAV is truncated: the header promises 10.0 s, 0.1 s are here."]


@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF, 1 << 31])
@pytest.mark.parametrize("extensible", [False, True])
def test_the_length_of_the_whole_file_is_not_believed(riff: int, *, extensible: bool) -> None:
    data = bytearray(wav(PCM, fmt(extensible=extensible), size=0xFFFFFFFF))
    data[4:8] = struct.pack("<I", riff)
    assert wav_run(bytes(data), [3, 9, 21, 45, 46]) == (PCM, [])


def test_several_channels_are_split() -> None:
    decoder = AudioDecoder(SNIFF, stereo="split")
    data = wav(PCM, fmt(channels=4, extensible=True), size=0)
    assert run(decoder, pieces(data, [10, 71, 73, 500])) == PCM
    assert (decoder.out_channels, decoder.warnings) == (4, [])


@pytest.mark.parametrize("cuts", [[], [44, 50, 60], list(range(0, 1700, 7))])
def test_sound_beyond_the_length_is_not_lost(cuts: list[int]) -> None:
    made, warnings = wav_run(wav(PCM, size=640), cuts)
    assert made == PCM
    assert len(warnings) == 1
    assert "goes on after it" in warnings[0]


@pytest.mark.parametrize("extra", range(1, 13))
def test_a_short_tail_beyond_the_length_is_not_lost_either(extra: int) -> None:
    made, _ = wav_run(wav(PCM, size=len(PCM) - extra))
    assert made == PCM


def test_metadata_after_the_sound_is_no_sound() -> None:
    for after in (LIST, chunk(b"fact", bytes(4)), chunk(b"abcd", bytes(77)) + LIST, chunk(b"id3 ", bytes(99))):
        assert wav_run(wav(PCM, after=after)) == (PCM, [])
    odd = PCM[:801]
    made, warnings = wav_run(wav(odd, after=b"\0" + LIST))
    assert made == odd[:800]
    assert len(warnings) == 1
    made, warnings = wav_run(wav(PCM, after=LIST + bytes(40)))
    assert made == PCM
    assert "ignored" in warnings[0]


def test_an_odd_byte_at_the_end_is_dropped_and_told() -> None:
    made, warnings = wav_run(wav(PCM + b"x"))
    assert made == PCM
    assert warnings == ["An odd byte at the end, less than one sample of each channel, was dropped."]


def test_a_header_before_each_chunk_of_a_stream() -> None:
    made, warnings = wav_run(wav(PCM) + wav(PCM, before=LIST) + wav(PCM), [100, 1644, 1650])
    assert made == PCM * 3
    assert warnings == ["Several WAV files follow one another; they were joined."]
    with pytest.raises(ASRError, match="changes its format"):
        wav_run(wav(PCM) + wav(PCM, fmt(rate_hz=8000)))


def test_lengths_over_four_gigabytes_stand_in_their_own_chunk() -> None:
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(PCM), 0, 0))
    data = b"RF64\xff\xff\xff\xffWAVE" + ds64 + fmt() + b"data\xff\xff\xff\xff" + PCM + LIST
    assert wav_run(data) == (PCM, [])


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (wav(b""), Code.BAD_AUDIO, "empty"),
        (wav(b"", after=LIST), Code.BAD_AUDIO, "empty"),
        (wav(PCM)[:30], Code.BAD_AUDIO, "cut off"),
        (wav(PCM)[:43], Code.BAD_AUDIO, "cut off"),
        (wav(PCM, b""), Code.BAD_AUDIO, "does not say"),
        (wav(PCM, chunk(b"fmt ", bytes(4))), Code.BAD_AUDIO, "too short"),
        (wav(PCM, fmt(rate_hz=0)), Code.BAD_AUDIO, "0 Hz"),
        (wav(PCM, fmt(channels=0)), Code.BAD_AUDIO, "0 channels"),
        (wav(PCM, fmt(bits=40)), Code.BAD_AUDIO, "40 bits"),
        (wav(PCM, fmt(3, bits=16)), Code.BAD_AUDIO, "16 bits"),
        (wav(PCM, fmt(2)), Code.UNSUPPORTED, "MS ADPCM"),
        (wav(PCM, fmt(0x1234)), Code.UNSUPPORTED, "0x1234"),
        (wav(PCM, b"junk\xff\xff\xff\x7f"), Code.BAD_AUDIO, "No sound in the first"),
        (wav(PCM, b"fmt \xff\xff\0\0"), Code.BAD_AUDIO, "holds 65535 bytes"),
        (b"RIFF\0\0\0\0WAVX" + PCM, Code.BAD_AUDIO, "is none"),
    ],
)
def test_broken_headers_get_a_clear_answer(data: bytes, code: Code, words: str) -> None:
    with pytest.raises(ASRError, match=words) as caught:
        wav_run(data)
    assert caught.value.code is code


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=200), st.lists(st.integers(0, 250), max_size=4))
def test_any_rubbish_after_the_signature_ends_in_an_answer(rubbish: bytes, cuts: list[int]) -> None:
    data = b"RIFF\0\0\0\0WAVE" + rubbish
    assert outcome(data, []) == outcome(data, cuts)


def outcome(data: bytes, cuts: list[int]) -> object:
    try:
        return wav_run(data, cuts)
    except ASRError as error:
        return error.message
