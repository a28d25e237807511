"""µ-law and A-law telephone samples (ITU-T G.711) as tables of 16-bit values."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray


def _mulaw(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84) << (code >> 4 & 0x07)
    return 0x84 - magnitude if code & 0x80 else magnitude - 0x84


def _alaw(code: int) -> int:
    code ^= 0x55
    segment = code >> 4 & 0x07
    magnitude = ((code & 0x0F) << 4) + 8
    if segment:
        magnitude = magnitude + 0x100 << segment - 1
    return magnitude if code & 0x80 else -magnitude


@cache
def mulaw_table() -> NDArray[np.int16]:
    """The value of each of the 256 µ-law codes, full scale 32124."""
    return np.array([_mulaw(code) for code in range(256)], dtype=np.int16)


@cache
def alaw_table() -> NDArray[np.int16]:
    """The value of each of the 256 A-law codes, full scale 32256."""
    return np.array([_alaw(code) for code in range(256)], dtype=np.int16)
