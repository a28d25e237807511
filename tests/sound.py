"""Sounds for tests: tones, WAV files with any header, and files of other kinds made with libav."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from asr.audio import AudioDecoder


def tone(hz: float, seconds: float, rate_hz: int = 16_000, level: float = 0.5) -> NDArray[np.float64]:
    """A sine, full scale ±1."""
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def pcm16(samples: NDArray[np.float64]) -> bytes:
    """Full scale ±1 to PCM16."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def noise(count: int, seed: int = 1) -> bytes:
    """`count` samples of PCM16 noise, always the same."""
    return np.random.default_rng(seed).integers(-9000, 9000, count, dtype=np.int16).tobytes()


def chunk(name: bytes, body: bytes) -> bytes:
    """A RIFF chunk, padded."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def fmt(tag: int = 1, channels: int = 1, rate_hz: int = 16_000, bits: int = 16, *, extensible: bool = False) -> bytes:
    """A `fmt ` chunk."""
    width = (bits + 7) // 8
    body = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * channels * width, channels * width, bits)
    if extensible:
        body = struct.pack("<H", 0xFFFE) + body[2:] + struct.pack("<HHIH", 22, bits, 0, tag)
        body += bytes.fromhex("000000001000800000aa00389b71")
    return chunk(b"fmt ", body)


def wav(
    data: bytes, head: bytes | None = None, *, size: int | None = None, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A WAV file; `size` is what its header says of the data."""
    head = fmt() if head is None else head
    body = head + before + b"data" + struct.pack("<I", len(data) if size is None else size) + data + after
    return b"RIFF" + struct.pack("<I", min(4 + len(body), 0xFFFFFFFF)) + b"WAVE" + body


def encoded(
    samples: NDArray[np.int16] | NDArray[np.int32],
    rate_hz: int,
    codec: str,
    container: str,
    *,
    options: dict[str, str] | None = None,
) -> bytes:
    """Samples of shape (frames,) or (frames, 2) in another format; int32 holds 24 bits at its top."""
    frames = samples.reshape(len(samples), -1)
    sample_format = "s32" if samples.dtype == np.int32 else "s16"
    # What moves an index to the front opens the file a second time, by its name.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        _encode(path, frames, rate_hz, codec, container, options or {}, sample_format)
        return path.read_bytes()


def _encode(
    path: Path,
    frames: NDArray[Any],
    rate_hz: int,
    codec: str,
    container: str,
    options: dict[str, str],
    sample_format: str,
) -> None:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[frames.shape[1]]
    with av.open(str(path), "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate_hz)
        stream.layout = layout
        stream.format = sample_format if codec in ("flac", "libopus") else stream.codec_context.codec.audio_formats[0]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(frames).reshape(1, -1), sample_format, layout)
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(stream.format.name, layout, rate_hz)
        packets = [packet for ready in resampler.resample(frame) for packet in stream.encode(ready)]
        packets += stream.encode(None)
        # FLAC ends with an empty packet that bears the final header; libav's other containers cannot take it.
        output.mux([packet for packet in packets if packet.size or container == "flac"])


def decoded(data: bytes, name: str = "x") -> NDArray[np.float64]:
    """What libav makes of a whole file, shape (frames, channels), full scale ±1."""
    with av.open(io.BytesIO(data)) as container:
        pieces = []
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray()
            planar = samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T
            scale = {"i": 2.0 ** (8 * samples.dtype.itemsize - 1)}.get(samples.dtype.kind, 1.0)
            pieces.append(planar.T.astype(np.float64) / scale)
    return np.concatenate(pieces)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


def run(decoder: AudioDecoder, parts: Sequence[bytes]) -> bytes:
    """All that a decoder makes of these pieces."""
    return b"".join([*(decoder.feed(part) for part in parts), decoder.finish()])
