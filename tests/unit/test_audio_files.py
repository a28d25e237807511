"""Files, pipes and open files: whatever holds sound, in chunks."""

import io
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from asr.audio import open_audio
from asr.errors import ASRError, Code
from sound import encoded, fmt, noise, tone, wav

PCM = noise(16_000)
SAMPLES = np.frombuffer(PCM, "<i2")


class Pipe(io.RawIOBase):
    """A file that cannot be wound back and gives a little at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self._data.read(min(len(buffer), 1500))
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.fixture
def wav_path(tmp_path: Path) -> Path:
    path = tmp_path / "one.wav"
    path.write_bytes(wav(PCM))
    return path


def test_a_wav_file_in_chunks(wav_path: Path) -> None:
    with open_audio(wav_path, chunk_ms=300) as source:
        chunks = list(source)
        assert source.duration_ms == 1000
    assert [len(chunk) for chunk in chunks] == [9600, 9600, 9600, 3200]
    assert b"".join(chunks) == PCM
    assert b"".join(open_audio(str(wav_path))) == PCM


@pytest.mark.parametrize(
    ("codec", "container", "name", "slack_ms"),
    [
        ("flac", "flac", "x.flac", 0),
        ("flac", "ogg", "x.oga", 0),
        ("pcm_s16le", "matroska", "x.mkv", 1),
        ("pcm_s16be", "aiff", "x.aiff", 1),
        ("alac", "ipod", "x.m4a", 1),
        ("aac", "mp4", "x.mp4", 100),
        ("libmp3lame", "mp3", "x.mp3", 100),
        ("adpcm_ima_wav", "wav", "x.wav", 100),
    ],
)
def test_other_kinds(tmp_path: Path, codec: str, container: str, name: str, slack_ms: int) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(SAMPLES, 16_000, codec, container))
    with open_audio(path) as source:
        made = b"".join(source)
        assert source.duration_ms is not None
        assert abs(source.duration_ms - 1000) <= max(slack_ms, 2)
        assert source.warnings == []
    assert abs(len(made) / 32 - 1000) <= slack_ms
    if slack_ms <= 1:
        assert made == PCM


def test_opus_and_stereo_and_48_khz(tmp_path: Path) -> None:
    sound = (tone(500, 1.0, 48_000) * 32767).astype("i2")
    for container in ("ogg", "webm"):
        path = tmp_path / f"x.{container}"
        path.write_bytes(encoded(np.stack([sound, sound], axis=1), 48_000, "libopus", container))
        with open_audio(path) as source:
            made = np.frombuffer(b"".join(source), "<i2")
            assert source.warnings == ["2 channels were mixed down to one."]
        assert abs(len(made) / 16 - 1000) < 1
        with pytest.raises(ASRError, match="2 channels"):
            open_audio(path, stereo="refuse")


@pytest.mark.parametrize(
    ("codec", "container"), [("pcm_s16le", "wav"), ("flac", "flac"), ("pcm_s16le", "matroska"), ("alac", "ipod")]
)
def test_several_channels_are_kept_when_they_are_to_be_split(tmp_path: Path, codec: str, container: str) -> None:
    path = tmp_path / "x"
    both = np.stack([SAMPLES, SAMPLES[::-1]], axis=1)
    path.write_bytes(encoded(np.ascontiguousarray(both), 16_000, codec, container))
    with open_audio(path, stereo="split", chunk_ms=100) as source:
        chunks = list(source)
        assert (source.channels, source.warnings) == (2, [])
        assert source.duration_ms is not None
        assert abs(source.duration_ms - 1000) <= 1
    assert {len(chunk) for chunk in chunks} == {6_400}
    assert b"".join(chunks) == both.tobytes()
    with open_audio(path) as source:
        assert source.channels == 1


def test_a_title_that_is_no_text_hurts_nobody(tmp_path: Path) -> None:
    tag = b"TIT2\0\0\0\x05\0\0\x03\x96\xff\xfe\x81"
    path = tmp_path / "x.mp3"
    path.write_bytes(b"ID3\x03\0\0\0\0\0" + bytes([len(tag)]) + tag + encoded(SAMPLES, 16_000, "libmp3lame", "mp3"))
    with open_audio(path) as source:
        assert abs(sum(len(chunk) for chunk in source) / 32 - 1000) < 100


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_pipes(kind: str) -> None:
    codec = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "ogg": "flac"}[kind]
    data = wav(PCM, size=0xFFFFFFFF) if kind == "wav" else encoded(SAMPLES, 16_000, codec, kind)
    for pipe in (Pipe(data), io.BufferedReader(Pipe(data))):
        made = b"".join(open_audio(pipe))
        assert made == PCM if kind != "mp3" else abs(len(made) / 32 - 1000) < 100


def test_live_audio_from_a_pipe_is_not_held_back() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb", buffering=0) as feeder:
        head = wav(b"", size=0xFFFFFFFF)
        feeder.write(head + PCM[:6400])
        source = iter(open_audio(pipe))
        # The feeder still holds the pipe open: whatever comes, comes without its end.
        assert next(source) + next(source) == PCM[:6400]
        threading.Timer(0, feeder.write, [PCM[6400:9600]]).start()
        assert next(source) == PCM[6400:9600]


def test_an_open_file_is_read_from_where_it_stands_and_left_open() -> None:
    file = io.BytesIO(b"before" + wav(PCM))
    file.seek(6)
    with open_audio(file) as source:
        assert source.duration_ms == 1000
        assert b"".join(source) == PCM
    assert not file.closed
    mp3 = io.BytesIO(b"before" + encoded(SAMPLES, 16_000, "alac", "ipod"))
    mp3.seek(6)
    assert b"".join(open_audio(mp3)) == PCM


def test_the_length_of_a_truncated_file_is_that_of_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(wav(PCM, size=320_000))
    with open_audio(path) as source:
        assert source.duration_ms == 1000
        assert b"".join(source) == PCM
        assert "promises 10.0 s, 1.0 s are here" in source.warnings[0]


def playlist(target: Path) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n".encode()


def test_what_is_no_audio_gets_a_sentence_that_names_it(tmp_path: Path, wav_path: Path) -> None:
    cases = {
        "empty.wav": b"",
        "text.txt": b"Dear reader, this is a letter and no sound at all.\n" * 50,
        "zeros.bin": bytes(5000),
        "header.wav": wav(b""),
        "cut.wav": wav(PCM)[:20],
        "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "list.m3u8": playlist(wav_path),
        "list.ffconcat": f"ffconcat version 1.0\nfile '{wav_path}'\n".encode(),
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ASRError) as caught:
            b"".join(open_audio(path))
        assert caught.value.code is Code.BAD_AUDIO, name
        assert caught.value.message.startswith(f"{name}: "), name
        with pytest.raises(ASRError):
            b"".join(open_audio(Pipe(data)))


def test_a_damaged_file_found_on_the_way_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "two.wav"
    path.write_bytes(wav(noise(100_000)) + wav(PCM, fmt(rate_hz=8000)))
    with open_audio(path) as source, pytest.raises(ASRError, match=r"^two\.wav: .*format"):
        list(source)


def test_what_came_before_the_damage_is_given_out_to_its_last_sample(tmp_path: Path) -> None:
    path = tmp_path / "two.wav"
    path.write_bytes(wav(noise(100_000)) + wav(PCM, fmt(rate_hz=8000)))
    heard: list[bytes] = []
    with open_audio(path, chunk_ms=1000) as source, pytest.raises(ASRError, match="format"):
        heard.extend(source)
    assert b"".join(heard) == noise(100_000)


def test_missing_folders_and_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ASRError, match=r"no file .*none\.wav") as missing:
        open_audio(tmp_path / "none.wav")
    assert missing.value.code is Code.NOT_FOUND
    with pytest.raises(ASRError, match="is a folder") as folder:
        open_audio(tmp_path)
    assert folder.value.code is Code.BAD_REQUEST
    with pytest.raises(ASRError, match="no file"):
        open_audio("http://localhost/x.wav")
    with pytest.raises(ASRError, match="cannot be opened"):
        open_audio("x\0.wav")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "denied")

    # The superuser may read everything, so the refusal itself is played.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ASRError, match="permission denied"):
        open_audio("secret.wav")


def test_a_source_closes_its_file_also_when_it_was_not_read_to_the_end(tmp_path: Path, wav_path: Path) -> None:
    mp3 = tmp_path / "x.mp3"
    mp3.write_bytes(encoded(np.tile(SAMPLES, 10), 16_000, "libmp3lame", "mp3"))
    before = psutil.Process().num_fds()
    for path in (wav_path, mp3):
        open_audio(path).close()
        with open_audio(path) as source:
            next(iter(source))
        source.close()
        assert list(source) == []
    assert psutil.Process().num_fds() == before


class Endless(io.RawIOBase):
    """A WAV of many minutes, made while it is read."""

    def __init__(self, seconds: int) -> None:
        self._parts = self._make(seconds)

    def _make(self, seconds: int) -> Iterator[bytes]:
        yield wav(b"", fmt(rate_hz=48_000, channels=2), size=0xFFFFFFFF)
        second = bytes(48_000 * 4)
        for _ in range(seconds):
            yield second

    def readable(self) -> bool:
        return True

    def read1(self, _: int) -> bytes:
        return next(self._parts, b"")


def test_memory_is_flat_however_long_the_audio() -> None:
    source = iter(open_audio(Endless(20)))  # type: ignore[arg-type]
    next(source)
    tracemalloc.start()
    try:
        length = sum(len(chunk) for chunk in source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert length / 32 == pytest.approx(19_900, abs=1)
    assert peak < 4 << 20
