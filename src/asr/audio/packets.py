"""Packets of any codec, freed from their container, to 16 kHz PCM16."""

from __future__ import annotations

from typing import Any

import av

from asr.audio.formats import Stereo, Warn
from asr.audio.frames import FrameOutput, Trials


class PacketDecoder:
    """Decodes the packets of one stream in order, and leaves out what its encoder put before and after the sound.

    Attributes:
        output: where the samples go; knows how many channels there are.
    """

    def __init__(
        self,
        codec: str,
        name: str,
        *,
        stereo: Stereo,
        warn: Warn,
        extradata: bytes = b"",
        output: FrameOutput | None = None,
    ) -> None:
        """`codec` is libav's name of the decoder, `name` the one that people know.

        `output`: that of another stream, which this one goes on from.
        """
        self.output = output if output is not None else FrameOutput(stereo=stereo, warn=warn)
        self._name = name
        self._warn = warn
        self._trials = Trials(name)
        self._codec: Any = av.CodecContext.create(codec, "r")
        if extradata:
            self._codec.extradata = extradata
        # Threads would only hold finished frames back.
        self._codec.thread_count = 1
        self._at = 0
        self._skip = 0
        self._end: int | None = None
        self._total = 0
        self._held: list[tuple[Any, int]] = []

    def begin(self, skip: int, *, end: int | None = None, total: int = 0) -> None:
        """The sound begins `skip` samples after the next one and ends at sample `end`, of `total` that there are.

        Where more than `total` come, nothing is left out at the end: the header was wrong.
        """
        self._at, self._skip, self._end, self._total = 0, skip, end, total
        self._held.clear()

    def decode(self, packet: bytes, samples: int) -> bytes:
        """One packet that should hold `samples`; silence takes the place of one that cannot be decoded."""
        try:
            frames = self._codec.decode(av.Packet(packet)) if packet else []
        except (av.FFmpegError, ValueError):
            self._trials.bad()
            self._warn(f"Damaged parts of the {self._name} audio were replaced by silence.")
            return self._silence(samples)
        return self._passed(frames)

    def finish(self) -> bytes:
        """What is held back at the end. Raises `bad_audio` where nothing could be decoded."""
        try:
            rest = self._passed(self._codec.decode(None))
        except (av.FFmpegError, ValueError):
            rest = b""
        self._trials.end()
        rest += self.output.finish()
        return rest

    def _passed(self, frames: list[Any]) -> bytes:
        pieces = []
        for frame in frames:
            self._trials.good()
            pieces.append(self._push(frame))
        return b"".join(pieces)

    def _push(self, frame: Any) -> bytes:
        begin, count = self._at, frame.samples
        self._at += count
        skip = min(max(0, self._skip - begin), count)
        end = self._end
        if end is None or self._at <= end:
            return self.output.push(frame, skip=skip)
        if self._at > self._total:
            held, self._held, self._end = self._held, [], None
            return b"".join(self.output.push(late, skip=at) for late, at in held) + self.output.push(frame, skip=skip)
        here = max(skip, min(count, end - begin))
        self._held.append((frame, here))
        return self.output.push(frame, skip=skip, keep=here) if here > skip else b""

    def _silence(self, samples: int) -> bytes:
        # Before the first frame nobody knows the rate; what is lost there is no more than a beginning in mid-stream.
        self._at += samples
        return self.output.silence(samples)
