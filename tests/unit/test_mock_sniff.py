"""Header sniffing of the stand-in: what Riva takes from a header, and what it refuses."""

from __future__ import annotations

import io
import math
import wave

import av
import numpy as np
import pytest

from asr.mock.sniff import MISMATCH, STEREO, BadAudioError, Encoding, Sniffer


def tone(ms: int, rate_hz: int) -> np.ndarray:
    t = np.arange(rate_hz * ms // 1000) / rate_hz
    return (8000 * np.sin(2 * math.pi * 440 * t)).astype("<i2")


def wav(pcm: bytes, rate_hz: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    return out.getvalue()


def wav_header(tag: int, bits: int, rate_hz: int = 8000) -> bytes:
    form = b"".join(
        n.to_bytes(size, "little")
        for n, size in ((tag, 2), (1, 2), (rate_hz, 4), (rate_hz * bits // 8, 4), (bits // 8, 2), (bits, 2))
    )
    extra = b"LIST\x05\x00\x00\x00hello\x00"
    return b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + form + extra + b"data\xff\xff\xff\xff"


def encode(samples: np.ndarray, rate_hz: int, codec: str, container: str, layout: str = "mono") -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate_hz, layout=layout)
        channels = 2 if layout == "stereo" else 1
        frame = av.AudioFrame.from_ndarray(np.repeat(samples, channels).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = rate_hz
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return out.getvalue()


def read(sniffer: Sniffer, data: bytes, step: int) -> bytes:
    return b"".join(sniffer.feed(data[at : at + step]) for at in range(0, len(data), step)) + sniffer.finish()


@pytest.mark.parametrize("step", [1, 7, 3200, 1 << 20])
@pytest.mark.parametrize("encoding", ["", "pcm"])
def test_wav_header_decides(encoding: Encoding, step: int) -> None:
    pcm = tone(200, 22_050).tobytes()
    sniffer = Sniffer(encoding)
    assert read(sniffer, wav(pcm, 22_050), step) == pcm
    assert sniffer.rate_hz == 22_050


def test_bare_samples_take_the_rate_asked_for_or_16_khz() -> None:
    for asked, rate_hz in ((0, 16_000), (8000, 8000)):
        sniffer = Sniffer("", asked)
        assert read(sniffer, b"\x01\x02" * 100, 33) == b"\x01\x02" * 100
        assert sniffer.rate_hz == rate_hz


def test_short_audio_is_not_lost() -> None:
    assert read(Sniffer("pcm", 16_000), b"\x01\x02" * 4, 3) == b"\x01\x02" * 4


def test_g711() -> None:
    for encoding, codes in (("mulaw", b"\xff\x80\x00"), ("alaw", b"\xd5\xaa\x2a")):
        sniffer = Sniffer(encoding, 8000)  # type: ignore[arg-type]  # the loop's names are encodings
        decoded = np.frombuffer(read(sniffer, codes, 2), "<i2").tolist()
        assert decoded == {"mulaw": [0, 32124, -32124], "alaw": [8, 32256, -32256]}[encoding]


@pytest.mark.parametrize(("tag", "bits"), [(7, 8), (6, 8)])
def test_wav_with_g711_and_a_chunk_before_the_data(tag: int, bits: int) -> None:
    sniffer = Sniffer()
    assert len(read(sniffer, wav_header(tag, bits) + bytes(800), 5)) == 1600
    assert sniffer.rate_hz == 8000


@pytest.mark.parametrize(("codec", "container", "kind"), [("flac", "flac", "flac"), ("libopus", "ogg", "opus")])
def test_flac_and_ogg_are_decoded_at_the_end(codec: str, container: str, kind: Encoding) -> None:
    data = encode(tone(1000, 48_000), 48_000, codec, container)
    for encoding in ("", kind):
        sniffer = Sniffer(encoding)  # type: ignore[arg-type]  # as above
        pcm = np.frombuffer(read(sniffer, data, 1000), "<i2").astype(float)
        assert sniffer.rate_hz == 16_000
        assert abs(len(pcm) - 16_000) < 700
        assert np.sqrt(np.mean(pcm**2)) > 4000


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("flac", wav(bytes(3200))),
        ("mulaw", wav(bytes(3200))),
        ("pcm", encode(tone(100, 16_000), 16_000, "flac", "flac")),
        ("flac", bytes(3200)),
        ("opus", bytes(3200)),
        ("pcm", wav_header(7, 8) + bytes(100)),
    ],
)
def test_an_encoding_that_contradicts_the_header(encoding: Encoding, data: bytes) -> None:
    with pytest.raises(BadAudioError, match=MISMATCH):
        read(Sniffer(encoding, 16_000), data, 500)


@pytest.mark.parametrize(
    "data",
    [
        wav(bytes(6400), channels=2),
        encode(tone(100, 16_000), 16_000, "flac", "flac", "stereo"),
        encode(tone(100, 48_000), 48_000, "libopus", "ogg", "stereo"),
    ],
)
def test_stereo_is_refused(data: bytes) -> None:
    with pytest.raises(BadAudioError, match=STEREO):
        read(Sniffer(), data, 500)


def test_stereo_by_configuration_is_refused() -> None:
    with pytest.raises(BadAudioError, match=STEREO):
        Sniffer("pcm", 16_000, 2)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (wav(bytes(3000), width=3), "unsupported WAV format"),
        (wav_header(3, 32) + bytes(100), "unsupported WAV format"),
        (wav_header(1, 16, 4000) + bytes(100), "unsupported sample rate"),
        (wav(b"")[:30] + bytes(10), "holds no audio"),
        (b"fLaC" + bytes(200), "cannot be decoded"),
    ],
)
def test_what_nobody_can_read(data: bytes, said: str) -> None:
    with pytest.raises(BadAudioError, match=said):
        read(Sniffer(), data, 1000)


def test_a_header_that_never_ends_is_bounded() -> None:
    sniffer = Sniffer()
    junk = b"RIFF\x00\x00\x00\x00WAVE" + b"junk\xff\xff\xff\x7f"
    with pytest.raises(BadAudioError, match="holds no audio"):
        sniffer.feed(junk + bytes(70_000))


def test_compressed_audio_is_bounded() -> None:
    sniffer = Sniffer()
    sniffer.feed(b"fLaC" + bytes(100))
    with pytest.raises(BadAudioError, match="too long"):
        sniffer.feed(bytes(25_000_000))
