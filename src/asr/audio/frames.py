"""Decoded libav audio frames, of whatever layout, to 16 kHz mono PCM16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.audio.samples import Mono16k


def interleaved(frame: Any) -> NDArray[Any]:
    """The samples of an `av.AudioFrame` as one row, channels interleaved, in the frame's own type."""
    samples: NDArray[Any] = frame.to_ndarray()
    return samples.T.reshape(-1) if frame.format.is_planar else samples.reshape(-1)


def mono_of(frame: Any, output: Mono16k) -> bytes:
    """Send a frame through `output`."""
    samples = interleaved(frame)
    match samples.dtype.kind, samples.dtype.itemsize:
        case "i", 2:
            return output.int16(samples)
        case "i", size:
            return output.float32(samples.astype(np.float32) / np.float32(2 ** (8 * size - 1)))
        case "u", _:
            return output.float32((samples.astype(np.float32) - np.float32(128)) / np.float32(128))
        case _:
            return output.float32(samples.astype(np.float32, copy=False))
