"""Audio on its way from the messages of the Riva face to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from asr.audio import AudioDecoder
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance
from asr.errors import ASRError, Code
from server.telemetry.takes import TakeWatch

SLICE_BYTES = 64 * 1024
"""A whole recording is decoded in slices of this size, with the loop free in between."""
MAX_WAITING = 16
"""Requests for the end of an utterance that are kept while nothing tells yet how many channels there are."""


@dataclass(slots=True)
class Ended:
    """How the audio of a stream ended, where the client did not end it."""

    failure: ASRError | None = None
    drained: bool = False


def rest_of(decoder: AudioDecoder, ended: Ended) -> bytes:
    """The last of the audio; what is wrong with its end is kept in `ended`."""
    try:
        return decoder.finish()
    except ASRError as error:
        # Audio that was cut short by us may well be incomplete.
        if ended.failure is None and not ended.drained:
            ended.failure = error
        return b""


async def counted(source: AsyncGenerator[AudioInput], decoder: AudioDecoder) -> tuple[AsyncGenerator[AudioInput], int]:
    """The audio, from its first, and how many channels it has; its header or the configuration tells."""
    waiting: list[AudioInput] = []
    async for item in source:
        if len(waiting) < MAX_WAITING or not isinstance(item, EndUtterance):
            waiting.append(item)
        if not isinstance(item, EndUtterance):
            break
    return _after(waiting, source), decoder.out_channels


async def _after(waiting: list[AudioInput], source: AsyncGenerator[AudioInput]) -> AsyncGenerator[AudioInput]:
    for item in waiting:
        yield item
    waiting.clear()
    async for item in source:
        yield item


async def decoded(recording: bytes, decoder: AudioDecoder, max_ms: int, take: TakeWatch) -> AsyncGenerator[AudioInput]:
    """A whole recording, decoded slice by slice; `take` is told of its audio.

    Raises:
        ASRError: `bad_audio` for what cannot be decoded, `bad_request` for more than `max_ms` of sound.
    """
    for start in range(0, len(recording), SLICE_BYTES):
        pcm = decoder.feed(recording[start : start + SLICE_BYTES])
        if decoder.produced_bytes > max_ms * BYTES_PER_MS * decoder.out_channels:
            raise ASRError(
                Code.BAD_REQUEST,
                f"The recording is longer than {max_ms / 60_000:g} min, the most that Recognize takes. "
                "Use StreamingRecognize, or send it in parts.",
                param="audio",
            )
        if pcm:
            take.fed(len(pcm), channels=decoder.out_channels)
            take.taken()
            yield pcm
        await asyncio.sleep(0)
    pcm = decoder.finish()
    if pcm:
        take.fed(len(pcm), channels=decoder.out_channels)
        take.taken()
        yield pcm
