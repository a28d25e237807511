"""Announced formats, and telling formats by their first bytes."""

import pytest

from asr.audio import AudioDecoder, AudioFormat, Encoding, pcm_ms
from asr.errors import ASRError, Code
from sound import encoded, fmt, noise, run, tone, wav

SNIFF = AudioFormat(Encoding.AUTO, None)


@pytest.mark.parametrize(
    ("rate", "channels", "param"),
    [
        (3999, 1, "audio.sample_rate_hz"),
        (192_001, 1, "audio.sample_rate_hz"),
        (16_000, 0, "audio.channels"),
        (16_000, 9, "audio.channels"),
    ],
)
def test_a_format_is_checked_where_it_is_made(rate: int, channels: int, param: str) -> None:
    with pytest.raises(ASRError) as caught:
        AudioFormat(Encoding.PCM_S16LE, rate, channels)
    assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, param)


def test_what_is_said_by_default_is_what_engines_take() -> None:
    assert AudioFormat() == AudioFormat(Encoding.PCM_S16LE, 16_000, 1)
    assert AudioFormat(Encoding.AUTO, None).sample_rate_hz is None


@pytest.mark.parametrize("encoding", list(Encoding))
def test_empty_audio_is_an_error(encoding: Encoding) -> None:
    decoder = AudioDecoder(AudioFormat(encoding))
    assert decoder.feed(b"") == b""
    for _ in range(2):
        with pytest.raises(ASRError, match="empty") as caught:
            decoder.finish()
        assert caught.value.code is Code.BAD_AUDIO


@pytest.mark.parametrize("parts", [[b"RIFF"], [b"R", b"I"], [b"f"], [b"\x1aE\xdf"]])
def test_the_first_bytes_may_trickle_in_and_end_early(parts: list[bytes]) -> None:
    decoder = AudioDecoder(AudioFormat())
    if parts == [b"RIFF"]:
        with pytest.raises(ASRError, match="cut off"):
            run(decoder, parts)
    elif len(b"".join(parts)) > 1:
        assert run(decoder, parts) == b"".join(parts)[:2]
    else:
        with pytest.raises(ASRError, match="empty"):
            run(decoder, parts)


def test_auto_takes_unknown_bytes_as_pcm_only_where_a_rate_was_given() -> None:
    data = noise(100)
    assert run(AudioDecoder(AudioFormat(Encoding.AUTO, 16_000)), [data]) == data
    with pytest.raises(ASRError, match="not audio") as caught:
        run(AudioDecoder(SNIFF), [data])
    assert caught.value.code is Code.BAD_AUDIO
    with pytest.raises(ASRError, match="not audio"):
        run(AudioDecoder(SNIFF), [b"hi"])


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"#!AMR\n\0\0", "AMR"),
        (b".snd\0\0\0\x18", "AU"),
        (b"FORM\0\0\0\0AIFF", "AIFF"),
        (b"RIFX\0\0\0\0WAVE", "RIFX"),
        (b"RIFF\0\0\0\0AVI ", "AVI"),
    ],
)
def test_known_formats_that_cannot_be_streamed_are_named(head: bytes, name: str) -> None:
    with pytest.raises(ASRError, match=name) as caught:
        run(AudioDecoder(SNIFF), [head, bytes(100)])
    assert caught.value.code is Code.UNSUPPORTED
    assert "Accepted: WAV, FLAC, MP3" in caught.value.message


def test_a_header_that_contradicts_what_was_announced() -> None:
    flac = encoded((tone(300, 0.1) * 9000).astype("i2"), 16_000, "flac", "flac")
    for announced in (Encoding.PCM_S16LE, Encoding.WAV, Encoding.OGG_OPUS, Encoding.WEBM_OPUS):
        with pytest.raises(ASRError, match="is FLAC") as caught:
            AudioDecoder(AudioFormat(announced)).feed(flac)
        assert caught.value.code is Code.BAD_AUDIO
    with pytest.raises(ASRError, match="is not"):
        AudioDecoder(AudioFormat(Encoding.FLAC)).feed(noise(10))


def test_raw_audio_needs_a_rate() -> None:
    for encoding in (Encoding.PCM_S16LE, Encoding.MULAW):
        with pytest.raises(ASRError) as caught:
            run(AudioDecoder(AudioFormat(encoding, None)), [noise(10)])
        assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, "audio.sample_rate_hz")


def test_a_wav_header_in_what_was_announced_as_pcm_decides() -> None:
    data = noise(1000)
    same = AudioDecoder(AudioFormat())
    assert run(same, [wav(data)]) == data
    assert same.warnings == []
    other = AudioDecoder(AudioFormat())
    assert len(run(other, [wav(data, fmt(rate_hz=8000))])) == 4000
    assert other.detected == AudioFormat(Encoding.WAV, 8000, 1)
    assert "8000 Hz" in other.warnings[0]


def test_after_an_error_or_the_end_nothing_more_is_taken() -> None:
    broken = AudioDecoder(SNIFF)
    for _ in range(2):
        with pytest.raises(ASRError, match="not audio"):
            broken.feed(b"nonsense")
    with pytest.raises(ASRError, match="not audio"):
        broken.finish()
    done = AudioDecoder(AudioFormat())
    assert run(done, [b"ab"]) == b"ab"
    assert done.finish() == b""
    with pytest.raises(ASRError, match="after the end"):
        done.feed(b"ab")


def test_bytes_are_counted() -> None:
    decoder = AudioDecoder(AudioFormat(sample_rate_hz=8000))
    run(decoder, [noise(4000), noise(4000)])
    assert (decoder.received_bytes, pcm_ms(decoder.produced_bytes)) == (16_000, 1000)
