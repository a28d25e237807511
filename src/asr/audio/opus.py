"""Opus packets, freed from their container, to 16 kHz PCM16."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from asr.audio.formats import MAX_CHANNELS, Stereo, Warn, bad_audio
from asr.audio.frames import Trials, interleaved
from asr.audio.samples import To16k

OPUS_RATE_HZ = 48_000
"""Opus always decodes at this rate; the rate in its header is only a memory of the input's."""

_HEAD_BYTES = 19


class OpusPackets:
    """Decodes the packets of one Opus stream in order; the start-up samples are taken off by the codec.

    Attributes:
        channels: of the stream, before mixing.
        out_channels: of what comes out.
        pre_skip: start-up samples at 48 kHz that the codec takes off.
    """

    def __init__(self, head: bytes, *, stereo: Stereo, warn: Warn) -> None:
        """`head` is the OpusHead packet. Raises `bad_audio` where it makes no sense."""
        if len(head) < _HEAD_BYTES or not head.startswith(b"OpusHead") or not 1 <= head[9] <= MAX_CHANNELS:
            raise bad_audio("The Opus header is damaged.")
        self.channels = head[9]
        self.pre_skip = int.from_bytes(head[10:12], "little")
        self._warn = warn
        self._trials = Trials("Opus")
        self._output = To16k(OPUS_RATE_HZ, self.channels, stereo=stereo, warn=warn)
        self.out_channels = self._output.out_channels
        self._codec: Any = av.CodecContext.create("opus", "r")
        self._codec.extradata = head
        self._codec.thread_count = 1

    def decode(self, packet: bytes) -> NDArray[np.float32]:
        """The samples of one packet, channels interleaved; silence for one that cannot be decoded."""
        if not packet:
            return np.zeros(0, np.float32)
        try:
            frames = [interleaved(frame) for frame in self._codec.decode(av.Packet(packet))]
        except (av.FFmpegError, ValueError):
            self._trials.bad()
            self._warn("Damaged parts of the Opus audio were replaced by silence.")
            return np.zeros(packet_samples(packet) * self.channels, np.float32)
        if not frames:
            return np.zeros(0, np.float32)
        self._trials.good()
        samples: NDArray[np.float32] = np.concatenate(frames)
        return samples

    def pcm(self, samples: NDArray[np.float32]) -> bytes:
        """Interleaved 48 kHz samples as 16 kHz PCM16."""
        return self._output.float32(samples)

    def finish(self) -> bytes:
        """What the resampler still holds. Raises `bad_audio` where nothing could be decoded."""
        self._trials.end()
        return self._output.finish()


def packet_samples(packet: bytes) -> int:
    """How many samples at 48 kHz the first byte of a packet promises (RFC 6716, section 3.1)."""
    config = packet[0] >> 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame = (480, 960)[config & 1]
    else:
        frame = (120, 240, 480, 960)[config & 3]
    match packet[0] & 3:
        case 0:
            count = 1
        case 1 | 2:
            count = 2
        case _:
            count = packet[1] & 0x3F if len(packet) > 1 else 0
    return min(count * frame, 5760)
