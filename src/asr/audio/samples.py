"""Raw interleaved samples of every width to 16 kHz PCM16: mixing or splitting, resampling, rounding.

The arithmetic is float32 without dither, so that the same audio always gives the same bytes,
however it was cut into pieces.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from asr.audio.formats import OUT_RATE_HZ, AudioFormat, Encoding, Stereo, Warn, bad_audio
from asr.audio.g711 import alaw_table, mulaw_table

QUALITY = "HQ"
"""soxr's recipe: aliases more than 100 dB down, 40 ms of look-ahead at 48 kHz (VHQ: 80 ms)."""

_LOUD = 2.0


class SampleFormat(Enum):
    """How one sample lies in memory. The value is (name, bytes); all are little-endian."""

    U8 = ("u8", 1)
    S16 = ("s16", 2)
    S24 = ("s24", 3)
    S32 = ("s32", 4)
    F32 = ("f32", 4)
    F64 = ("f64", 8)
    MULAW = ("mulaw", 1)
    ALAW = ("alaw", 1)

    @property
    def width_bytes(self) -> int:
        """Bytes per sample."""
        return self.value[1]


RAW_FORMATS = {
    Encoding.PCM_S16LE: SampleFormat.S16,
    Encoding.PCM_F32LE: SampleFormat.F32,
    Encoding.MULAW: SampleFormat.MULAW,
    Encoding.ALAW: SampleFormat.ALAW,
}


def to_float(data: bytes, sample_format: SampleFormat) -> NDArray[np.float32]:
    """Samples as float32, full scale ±1. `data` holds whole samples."""
    match sample_format:
        case SampleFormat.S16:
            return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
        case SampleFormat.F32:
            return np.frombuffer(data, "<f4").astype(np.float32)
        case SampleFormat.F64:
            with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite, and clipped later
                return np.frombuffer(data, "<f8").astype(np.float32)
        case SampleFormat.MULAW:
            return mulaw_table()[np.frombuffer(data, np.uint8)].astype(np.float32) / np.float32(32768)
        case SampleFormat.ALAW:
            return alaw_table()[np.frombuffer(data, np.uint8)].astype(np.float32) / np.float32(32768)
        case SampleFormat.U8:
            return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
        case SampleFormat.S24:
            triples = np.frombuffer(data, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(triples), 4), np.uint8)
            wide[:, 1:] = triples
            return wide.view("<i4").reshape(-1).astype(np.float32) / np.float32(2**31)
        case SampleFormat.S32:
            return np.frombuffer(data, "<i4").astype(np.float32) / np.float32(2**31)


class To16k:
    """Mixes (or keeps apart), resamples and rounds. Raises `bad_audio` for several channels where they are refused.

    Attributes:
        out_channels: how many channels come out, interleaved: one, or with "split" as many as go in.
    """

    def __init__(self, rate_hz: int, channels: int, *, stereo: Stereo, warn: Warn) -> None:
        refuse_stereo(channels, stereo)
        if channels > 1 and stereo == "mix":
            warn(f"{channels} channels were mixed down to one.")
        self.out_channels = channels if stereo == "split" else 1
        self._channels = channels
        self._warn = warn
        self._resampler: Any = None
        if rate_hz != OUT_RATE_HZ:
            self._resampler = soxr.ResampleStream(
                rate_hz, OUT_RATE_HZ, self.out_channels, dtype="float32", quality=QUALITY
            )

    def int16(self, samples: NDArray[np.int16]) -> bytes:
        """Interleaved samples in, PCM16 out; untouched where nothing is to be done."""
        if self._channels == self.out_channels and self._resampler is None:
            return samples.astype("<i2", copy=False).tobytes()
        return self.float32(samples.astype(np.float32) / np.float32(32768))

    def float32(self, samples: NDArray[np.float32]) -> bytes:
        """Interleaved samples of full scale ±1 in, PCM16 out."""
        if not len(samples):
            return b""
        samples = self._sane(samples)
        if self.out_channels == 1:
            samples = self._mix(samples)
        return _round(samples if self._resampler is None else self._resampled(samples))

    def finish(self) -> bytes:
        """What the resampler still holds."""
        if self._resampler is None:
            return b""
        return _round(self._resampled(np.zeros(0, np.float32), last=True))

    def _resampled(self, samples: NDArray[np.float32], *, last: bool = False) -> NDArray[np.float32]:
        # soxr treats each channel as if it were alone.
        if self.out_channels > 1:
            samples = samples.reshape(-1, self.out_channels)
        made: NDArray[np.float32] = self._resampler.resample_chunk(samples, last=last)
        return made.reshape(-1)

    def _sane(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        # One NaN would silence the resampler for good.
        peak = float(np.max(np.abs(samples)))
        if peak <= _LOUD:
            return samples
        if not np.isfinite(peak):
            self._warn("Some samples are not finite numbers; they were replaced.")
            samples = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
        if float(np.max(np.abs(samples))) > _LOUD:
            self._warn("Some float samples are far beyond full scale (-1 to 1); they were clipped.")
            samples = np.clip(samples, -_LOUD, _LOUD)
        return samples

    def _mix(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._channels == 1:
            return samples
        frames = samples.reshape(-1, self._channels)
        # Channel by channel: the order of additions must not hang on how many frames there are.
        total = frames[:, 0].copy()
        for channel in range(1, self._channels):
            total += frames[:, channel]
        return total / np.float32(self._channels)


class RawDecoder:
    """Raw interleaved samples, cut anywhere, to 16 kHz PCM16.

    16 kHz mono PCM16 passes through untouched, as the very object that came in where it can; so do several channels
    that stay apart.
    """

    duration_ms: int | None = None

    def __init__(
        self,
        sample_format: SampleFormat,
        detected: AudioFormat,
        *,
        stereo: Stereo,
        warn: Warn,
    ) -> None:
        assert detected.sample_rate_hz is not None, "the caller has found the rate"
        self.detected: AudioFormat | None = detected
        self.frame_bytes = sample_format.width_bytes * detected.channels
        self.rate_hz = detected.sample_rate_hz
        self.sample_format = sample_format
        self._warn = warn
        self._rest = b""
        self._output = To16k(self.rate_hz, detected.channels, stereo=stereo, warn=warn)
        self.out_channels = self._output.out_channels
        self._untouched = (
            sample_format is SampleFormat.S16
            and detected.channels == self.out_channels
            and detected.sample_rate_hz == OUT_RATE_HZ
        )

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what they complete."""
        if self._untouched and not self._rest and not len(data) % self.frame_bytes:
            return data
        if self._rest:
            data = self._rest + data
            self._rest = b""
        surplus = len(data) % self.frame_bytes
        if surplus:
            self._rest = data[-surplus:]
            data = data[:-surplus]
        if self._untouched:
            return data
        return self._output.float32(to_float(data, self.sample_format)) if data else b""

    def finish(self) -> bytes:
        """The end: drops an incomplete frame, with a warning."""
        if self._rest:
            what = "An odd byte" if len(self._rest) == 1 else f"{len(self._rest)} bytes"
            self._warn(f"{what} at the end, less than one sample of each channel, was dropped.")
            self._rest = b""
        return self._output.finish()


def refuse_stereo(channels: int, stereo: Stereo) -> None:
    """Raise `bad_audio` for several channels where they are refused."""
    if channels > 1 and stereo == "refuse":
        raise bad_audio(f"The audio has {channels} channels and only mono is accepted here. Send one channel.")


def _round(samples: NDArray[np.float32]) -> bytes:
    rounded: NDArray[np.int16] = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype("<i2")
    return rounded.tobytes()
