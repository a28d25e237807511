"""Containers that are cut off anywhere or damaged: sound or an `ASRError`, in bounded memory, and nothing else."""

from __future__ import annotations

import io
import random
import time
import tracemalloc
from functools import cache

import av
import numpy as np
import pytest

from asr.audio import AudioDecoder, AudioFormat, Encoding, open_audio
from asr.errors import ASRError
from sound import encoded, tone, wav
from timing import in_time

SNIFF = AudioFormat(Encoding.AUTO, None)
SOUND = (tone(440, 0.12, 48_000) * 32767).astype("i2")
STEREO = np.stack([SOUND, SOUND // 2], axis=1)
LIVE = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "50000"}
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "wav": ("pcm_s16le", "wav", {}),
    "float wav": ("pcm_f32le", "wav", {}),
    "flac": ("flac", "flac", {}),
    "ogg flac": ("flac", "ogg", {}),
    "ogg": ("libopus", "ogg", {}),
    "webm": ("libopus", "webm", {}),
    "live webm": ("libopus", "webm", {"live": "1"}),
    "mp3": ("libmp3lame", "mp3", {}),
    "aac": ("aac", "adts", {}),
    "live mp4": ("aac", "mp4", LIVE),
    "mp4": ("aac", "mp4", {"movflags": "faststart"}),
    "late mp4": ("aac", "mp4", {}),
    "opus mp4": ("libopus", "mp4", LIVE),
    "m4a": ("alac", "ipod", {"movflags": "faststart"}),
}
CUTS = 120
"""A header is cut at each of its first bytes; what follows, at so many places."""
DAMAGES = 40
MAX_PCM = 32 * 2 * 1_000
"""No damage makes 120 ms in two channels into more than a second."""
MAX_MEMORY_BYTES = 24 << 20
MAX_S = 2.0


@cache
def made(kind: str) -> bytes:
    codec, container, options = KINDS[kind]
    return encoded(STEREO, 48_000, codec, container, options=options)


def streamed(data: bytes, rng: random.Random) -> bytes | ASRError:
    decoder = AudioDecoder(SNIFF, stereo=rng.choice(["mix", "split"]))
    step = rng.choice([1_000, 4_001, 100_000])
    try:
        pcm = b"".join(decoder.feed(data[at : at + step]) for at in range(0, len(data), step))
        return pcm + decoder.finish()
    except ASRError as error:
        return error


def from_file(data: bytes, rng: random.Random) -> bytes | ASRError:
    try:
        with open_audio(io.BytesIO(data), stereo=rng.choice(["mix", "split"])) as source:
            return b"".join(source)
    except ASRError as error:
        return error


def check(data: bytes, rng: random.Random, *, file: bool) -> None:
    began = time.process_time()  # of ours: others run meanwhile
    for found in (streamed(data, rng), *([from_file(data, rng)] if file else [])):
        if isinstance(found, bytes):
            assert 0 < len(found) <= MAX_PCM
        else:
            assert found.message
            assert found.message[-1] == "."
    in_time(time.process_time() - began, MAX_S)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    av.logging.set_level(None)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_at_every_byte(kind: str) -> None:
    data, rng = made(kind), random.Random(7)
    ends = sorted({*range(CUTS), *(len(data) * n // CUTS for n in range(CUTS))})
    for number, end in enumerate(ends):
        check(data[:end], rng, file=number % 6 == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes(kind: str) -> None:
    data, rng = made(kind), random.Random(sum(kind.encode()))
    tracemalloc.start()
    try:
        for number in range(DAMAGES):
            broken = bytearray(data)
            for _ in range(rng.choice([1, 3, 20])):
                # Headers are where damage does most.
                at = rng.randrange(min(len(data), 900) if rng.random() < 0.6 else len(data))
                broken[at] = rng.choice([0, 255, rng.randrange(256), broken[at] ^ 1 << rng.randrange(8)])
            check(bytes(broken), rng, file=number % 4 == 0)
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_that_are_lost_or_repeated(kind: str) -> None:
    data, rng = made(kind), random.Random(3)
    for _ in range(15):
        at, length = rng.randrange(len(data)), rng.randrange(1, 300)
        lost, twice = data[:at] + data[at + length :], data[: at + length] + data[at:]
        check(lost, rng, file=False)
        check(twice, rng, file=False)


@pytest.mark.parametrize(
    "head",
    [
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        b"\xff\xfb\x90\x64",
        b"\0\0\0\x18ftypM4A \0\0\0\0M4A isom",
        b"\0\0\0\x08ftyp\0\0\0\x01mdat\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"OggS",
        b"fLaC\0\0\0\x22",
        wav(b"", size=0)[:-8] + b"junk\xff\xff\xff\x7f",
        b"\x1aE\xdf\xa3\x80\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff",
    ],
)
@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\xff\xfb\x90\x64", b"OggS", b"\xf8"])
def test_endless_rubbish_after_a_good_beginning_fills_no_memory(head: bytes, filler: bytes) -> None:
    decoder = AudioDecoder(SNIFF)
    block = (filler * 65_536)[:65_536]
    tracemalloc.start()
    try:
        decoder.feed(head)
        for _ in range(20):
            decoder.feed(block)
    except ASRError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20
