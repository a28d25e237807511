"""Decoded libav audio frames, of whatever layout, to 16 kHz PCM16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.audio.formats import Stereo, Warn, bad_audio, check_header
from asr.audio.samples import To16k

MAX_FAILURES = 50
"""When so many pieces have failed and none was decoded, no more is waited for."""


def interleaved(frame: Any) -> NDArray[Any]:
    """The samples of an `av.AudioFrame` as one row, channels interleaved, in the frame's own type."""
    samples: NDArray[Any] = frame.to_ndarray()
    return samples.T.reshape(-1) if frame.format.is_planar else samples.reshape(-1)


def send(samples: NDArray[Any], output: To16k) -> bytes:
    """Send interleaved samples of any type through `output`."""
    match samples.dtype.kind, samples.dtype.itemsize:
        case "i", 2:
            return output.int16(samples)
        case "i", size:
            return output.float32(samples.astype(np.float32) / np.float32(2 ** (8 * size - 1)))
        case "u", _:
            return output.float32((samples.astype(np.float32) - np.float32(128)) / np.float32(128))
        case _:
            return output.float32(samples.astype(np.float32, copy=False))


class Trials:
    """Remembers whether anything could be decoded: silence in place of it all would pass for an empty recording."""

    def __init__(self, name: str) -> None:
        """`name` is that of the codec, for people."""
        self._name = name
        self._failures = 0
        self._good = False

    def good(self) -> None:
        """A piece was decoded."""
        self._good = True

    def bad(self) -> None:
        """A piece could not be decoded. Raises `bad_audio` when none of the first many could."""
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self.end()

    def end(self) -> None:
        """The audio is complete. Raises `bad_audio` when nothing but failures came."""
        if self._failures and not self._good:
            raise bad_audio(f"The {self._name} audio is damaged: none of it could be decoded.")


class FrameOutput:
    """Frames whose rate and channels only they themselves tell for certain, and may change, to 16 kHz PCM16.

    Attributes:
        rate_hz, channels: of the last frame; 0 before the first.
        out_channels: how many channels come out.
    """

    def __init__(self, *, stereo: Stereo, warn: Warn, rate_hz: int = 0, channels: int = 0) -> None:
        """`rate_hz` and `channels` are those of the header, where there is one.

        Raises:
            ASRError: `bad_audio`, where several channels are refused.
        """
        self.rate_hz = rate_hz
        self.channels = channels
        self.out_channels = 1
        self._stereo = stereo
        self._warn = warn
        self._output: To16k | None = None
        if rate_hz:
            self._output = self._open(rate_hz, channels)

    def push(self, frame: Any, *, skip: int = 0, keep: int | None = None) -> bytes:
        """Take a frame, but for its first `skip` samples and those from sample `keep` on.

        Raises:
            ASRError: `bad_audio`, where several channels are refused, or are to be split and change their number.
        """
        rate_hz, channels = frame.sample_rate, frame.layout.nb_channels
        before = b""
        if self._output is None or (rate_hz, channels) != (self.rate_hz, self.channels):
            check_header(rate_hz, channels, "audio")
            if self._stereo == "split" and self.channels not in (0, channels):
                raise bad_audio("The audio changes its number of channels in the middle; they cannot be split.")
            before = self.finish()
            self._output = self._open(rate_hz, channels)
        samples = interleaved(frame)
        if skip or keep is not None:
            samples = samples[skip * channels : None if keep is None else max(skip, keep) * channels]
        return before + send(samples, self._output)

    def silence(self, samples: int) -> bytes:
        """So much silence, at the rate of the last frame or of the header; nothing where neither is known."""
        if self._output is None:
            if not self.rate_hz:
                return b""
            self._output = self._open(self.rate_hz, self.channels)
        return self._output.int16(np.zeros(samples * self.channels, np.int16))

    def finish(self) -> bytes:
        """What the resampler still holds. More frames may follow, of another recording."""
        output, self._output = self._output, None
        return output.finish() if output is not None else b""

    def _open(self, rate_hz: int, channels: int) -> To16k:
        output = To16k(rate_hz, channels, stereo=self._stereo, warn=self._warn)
        self.rate_hz, self.channels, self.out_channels = rate_hz, channels, output.out_channels
        return output
