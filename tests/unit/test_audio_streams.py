"""MP3, AAC and MP4 as streams: the same sound as libav finds in the whole file, however they are cut."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from asr.audio import AudioDecoder, AudioFormat, Encoding
from asr.audio.frames import MAX_FAILURES
from asr.audio.opus import OpusPackets
from asr.errors import ASRError, Code
from sound import decoded, encoded, noise, pcm16, pieces, run, tone

SNIFF = AudioFormat(Encoding.AUTO, None)
MONO = (tone(440, 0.4, 48_000) * 32767).astype("i2")
STEREO = np.stack([MONO, MONO // 2], axis=1)
LIVE = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "100000"}
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mp3": ("libmp3lame", "mp3", {}),
    "aac": ("aac", "adts", {}),
    "mp4 aac live": ("aac", "mp4", LIVE),
    "mp4 aac edited": ("aac", "mp4", {"movflags": "frag_keyframe+delay_moov", "frag_duration": "100000"}),
    "mp4 opus live": ("libopus", "mp4", LIVE),
    "mp4 aac": ("aac", "mp4", {"movflags": "faststart"}),
    "mp4 opus": ("libopus", "mp4", {"movflags": "faststart"}),
    "mp4 flac": ("flac", "mp4", {"movflags": "faststart"}),
    "mp4 mp3": ("libmp3lame", "mp4", {"movflags": "faststart"}),
    "m4a alac": ("alac", "ipod", {"movflags": "faststart"}),
}
ENCODINGS = {"mp3": Encoding.MP3, "aac": Encoding.AAC}


@cache
def made(kind: str, *, stereo: bool = False) -> bytes:
    codec, container, options = KINDS[kind]
    return encoded(STEREO if stereo else MONO, 48_000, codec, container, options=options)


def reference(data: bytes) -> bytes:
    sound = decoded(data).astype("<f4")
    return run(AudioDecoder(AudioFormat(Encoding.PCM_F32LE, 48_000, sound.shape[1])), [sound.tobytes()])


def outcome(data: bytes, fmt: AudioFormat = SNIFF) -> tuple[Any, Any]:
    decoder = AudioDecoder(fmt)
    try:
        return run(decoder, [data]), decoder.warnings
    except ASRError as error:
        return error.code, error.message


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_is_that_of_the_whole_file_however_it_is_cut(kind: str) -> None:
    data = made(kind)
    encoding = ENCODINGS.get(kind, Encoding.MP4)
    for step in (1, 333, len(data)):
        decoder = AudioDecoder(SNIFF)
        assert run(decoder, pieces(data, range(0, len(data), step))) == reference(data)
        assert decoder.warnings == []
        assert decoder.detected == AudioFormat(encoding, 48_000, 1)
    assert outcome(data, AudioFormat(encoding, None)) == (reference(data), [])


@pytest.mark.parametrize("kind", KINDS)
def test_stereo_is_mixed_or_refused_or_split(kind: str) -> None:
    data = made(kind, stereo=True)
    assert outcome(data) == (reference(data), ["2 channels were mixed down to one."])
    with pytest.raises(ASRError, match="2 channels"):
        run(AudioDecoder(SNIFF, stereo="refuse"), [data])
    decoder = AudioDecoder(SNIFF, stereo="split")
    both = np.frombuffer(run(decoder, [data]), "<i2").reshape(-1, 2)
    assert (decoder.out_channels, decoder.warnings) == (2, [])
    assert abs(len(both) - len(reference(data)) / 2) <= 1
    left, right = (np.abs(both[:, channel].astype(float)).mean() for channel in (0, 1))
    assert 1.7 < left / right < 2.3


@pytest.mark.parametrize("kind", ["mp3", "aac", "mp4 aac live", "mp4 opus live"])
def test_sound_comes_out_while_it_goes_in(kind: str) -> None:
    data = made(kind)
    decoder = AudioDecoder(SNIFF)
    early = b"".join(decoder.feed(data[at : at + 100]) for at in range(0, len(data) * 2 // 3, 100))
    assert len(early) > 32 * 100


def test_the_length_of_an_mp3_is_that_of_its_sound() -> None:
    decoder = AudioDecoder(SNIFF)
    assert abs(len(run(decoder, [made("mp3")])) / 32 - 400) < 1
    assert decoder.duration_ms == 400


def tag(size: int, version: int = 4, flags: int = 0) -> bytes:
    coded = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, flags]) + coded + b"\xff\xfb" * (size // 2) + b"x" * (size % 2)


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("kind", ["mp3", "aac"])
def test_a_tag_of_any_size_is_passed_over(kind: str, step: int) -> None:
    data = made(kind)
    for head in (tag(0), tag(3_001), tag(11) + tag(22), tag(40) + bytes(700)):
        whole = head + data + b"TAG" + bytes(125)
        for fmt in (SNIFF, AudioFormat(Encoding.AUTO, 16_000), AudioFormat(ENCODINGS[kind], None)):
            if kind == "aac" and fmt.encoding is Encoding.AUTO and head.endswith(bytes(700)):
                continue
            decoder = AudioDecoder(fmt)
            assert run(decoder, pieces(whole, range(0, len(whole), step))) == reference(data)
            assert decoder.warnings == []


def test_a_large_tag_is_never_held() -> None:
    decoder = AudioDecoder(SNIFF)
    decoder.feed(tag(20_000_000)[:1_000])
    for _ in range(19):
        decoder.feed(bytes(1_000_000))
    assert len(decoder._head) == 0
    decoder.feed(bytes(20_000_010 - 1_000 - 19_000_000))
    assert len(decoder.feed(made("mp3"))) > 10_000
    with pytest.raises(ASRError, match="ends within its ID3 tag"):
        run(AudioDecoder(SNIFF), [tag(5_000)[:700]])


def test_a_stream_may_begin_in_the_middle_and_lose_some() -> None:
    for kind in ("mp3", "aac"):
        data = made(kind)
        late, _ = outcome(data[len(data) // 3 + 7 :], AudioFormat(ENCODINGS[kind], None))
        assert len(late) > len(reference(data)) // 2
        torn, warnings = outcome(data[: len(data) // 2] + bytes(5) + data[len(data) // 2 + 90 :])
        assert len(torn) > len(reference(data)) * 3 // 4
        assert warnings[0].startswith("Damaged parts of the ")


def test_recordings_one_after_another_are_joined() -> None:
    for kind in ("mp3", "mp4 aac live", "mp4 aac"):
        data = made(kind)
        assert abs(len(outcome(data + data)[0]) - 2 * len(reference(data))) <= 4


def test_nothing_that_is_better_known_is_taken_for_mp3() -> None:
    samples = b"\xff\xfb\x90\x64" + noise(500)
    assert outcome(samples, AudioFormat(Encoding.AUTO, 16_000)) == (samples, [])
    assert outcome(samples, AudioFormat()) == (samples, [])
    code, message = outcome(samples)
    assert (code, "no MP3" in message) == (Code.BAD_AUDIO, True)


@pytest.mark.parametrize("encoding", [Encoding.MP3, Encoding.AAC])
def test_what_holds_no_frame_is_an_error_and_not_waited_for(encoding: Encoding) -> None:
    decoder = AudioDecoder(AudioFormat(encoding, None))
    with pytest.raises(ASRError, match="There is no"):
        decoder.feed(b"\xff\xfb\xff\xf1text" * 40_000)


def test_sound_of_which_nothing_can_be_decoded_is_an_error_and_no_silence() -> None:
    head = b"OpusHead\x01\x01" + bytes(9)
    few = OpusPackets(head, stereo="mix", warn=lambda _: None)
    few.decode(b"\xff\xff\xff")
    with pytest.raises(ASRError, match="none of it could be decoded"):
        few.finish()
    many = OpusPackets(head, stereo="mix", warn=lambda _: None)
    for _ in range(MAX_FAILURES - 1):
        many.decode(b"\xff\xff\xff")
    with pytest.raises(ASRError, match="none of it could be decoded"):
        many.decode(b"\xff\xff\xff")
    data = bytearray(made("mp4 flac"))
    at = data.index(b"mdat") + 4
    data[at:-16] = b"\x55" * (len(data) - at - 16)
    with pytest.raises(ASRError, match="FLAC audio is damaged: none of it"):
        run(AudioDecoder(SNIFF), [bytes(data)])


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (encoded(MONO, 48_000, "aac", "mp4"), Code.UNSUPPORTED, "Send it as a file"),
        (made("mp4 aac")[:40], Code.BAD_AUDIO, "before any sound"),
        (made("mp4 aac").replace(b"mp4a", b"ac-3"), Code.UNSUPPORTED, "holds ac-3"),
        (made("mp4 aac").replace(b"mp4a", b"enca"), Code.UNSUPPORTED, "holds enca"),
        (made("mp4 aac").replace(b"soun", b"vide"), Code.BAD_AUDIO, "no sound"),
        (b"\0\0\0\x08ftyp" + b"\x7f\0\0\0moov", Code.BAD_AUDIO, "larger than"),
        (b"\0\0\0\x08ftyp" + b"\0\0\0\x04moov", Code.BAD_AUDIO, "makes no sense"),
    ],
)
def test_an_mp4_that_cannot_be_streamed_gets_a_clear_answer(data: bytes, code: Code, words: str) -> None:
    found, message = outcome(data)
    assert found is code
    assert words in message


def test_an_mp4_that_is_cut_off_is_told_and_used() -> None:
    data = made("mp4 aac live")
    cut, warnings = outcome(data[: len(data) * 3 // 4])
    assert reference(data).startswith(cut[:6_000])
    assert warnings == ["The MP4 data is cut off; what came before was used."]


def test_fragments_whose_sound_never_comes_are_no_endless_index() -> None:
    # Held as iterators within iterators they ended the process, not the stream.
    data = made("mp4 aac live")
    decoder = AudioDecoder(SNIFF)
    decoder.feed(data[: data.index(b"moof") - 4])
    head = _box(b"tfhd", bytes([0, 2, 0, 0x10]) + _u32(1) + _u32(10))
    promise = _box(b"moof", _box(b"traf", head + _box(b"trun", bytes([0, 0, 0, 1]) + _u32(1) + _u32(1 << 30))))
    with pytest.raises(ASRError, match="makes no sense"):
        run(decoder, [promise * 1_000] * 100)


def _box(name: bytes, body: bytes) -> bytes:
    return _u32(8 + len(body)) + name + body


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


# Several channels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [2, 5])
def test_each_channel_comes_out_as_if_it_were_alone(rate: int, channels: int) -> None:
    alone = [pcm16(tone(300 + 50 * n, 0.3, rate)) for n in range(channels)]
    data = np.stack([np.frombuffer(pcm, "<i2") for pcm in alone], axis=1).tobytes()
    decoder = AudioDecoder(AudioFormat(sample_rate_hz=rate, channels=channels), stereo="split")
    both = np.frombuffer(run(decoder, pieces(data, range(0, len(data), 777))), "<i2").reshape(-1, channels)
    assert (decoder.out_channels, decoder.warnings) == (channels, [])
    for channel, pcm in enumerate(alone):
        assert both[:, channel].tobytes() == run(AudioDecoder(AudioFormat(sample_rate_hz=rate)), [pcm])


def test_split_pcm_of_16_khz_passes_bit_for_bit() -> None:
    data = noise(3 * 1_000)
    decoder = AudioDecoder(AudioFormat(channels=3), stereo="split")
    assert run(decoder, pieces(data, [1, 7, 100, 4_001])) == data


def test_a_number_of_channels_that_was_not_announced_is_an_error() -> None:
    for kind in ("mp3", "mp4 aac", "mp4 opus live"):
        decoder = AudioDecoder(SNIFF, stereo="split", exactly=1)
        with pytest.raises(ASRError, match="has 2 channels"):
            run(decoder, pieces(made(kind, stereo=True), range(0, 90_000, 500)))
        assert run(AudioDecoder(SNIFF, stereo="split", exactly=2), [made(kind, stereo=True)])


# Transparency -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_16_bit_value_passes_whatever_the_cuts(seed: int) -> None:
    data = np.arange(-32768, 32768).astype("<i2").tobytes()
    cuts = np.random.default_rng(seed).integers(0, len(data), 300).tolist()
    assert run(AudioDecoder(AudioFormat()), pieces(data, cuts)) == data


@pytest.mark.parametrize(
    ("rate", "hz"),
    [
        (22_050, 9_500),
        (24_000, 9_000),
        (24_000, 11_500),
        (32_000, 12_000),
        (44_100, 8_900),
        (44_100, 20_000),
        (48_000, 8_900),
        (48_000, 16_000),
        (96_000, 30_000),
    ],
)
def test_aliases_lie_90_db_down(rate: int, hz: int) -> None:
    loud = tone(hz, 1.0, rate, 0.9).astype("<f4").tobytes()
    made_of_it = run(AudioDecoder(AudioFormat(Encoding.PCM_F32LE, rate)), [loud])
    rest = np.frombuffer(made_of_it, "<i2").astype(float)[3_000:-3_000] / 32768
    assert np.sqrt(np.mean(rest**2)) <= 0.9 / np.sqrt(2) * 10 ** (-90 / 20)


def test_upsampling_makes_no_images() -> None:
    made_of_it = run(
        AudioDecoder(AudioFormat(Encoding.PCM_F32LE, 8_000)), [tone(3_000, 1.0, 8_000).astype("<f4").tobytes()]
    )
    spectrum = np.abs(np.fft.rfft(np.frombuffer(made_of_it, "<i2")[2_000:-2_000][:12_000] * np.hanning(12_000)))
    image = spectrum[int(4_200 * 12_000 / 16_000) :].max()
    assert 20 * np.log10(image / spectrum.max()) < -90
