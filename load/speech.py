"""What a session says: which clips in which order, cut into messages that all sessions share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from load.plan import Arrival

SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Measure:
    """How audio is cut and paused. Milliseconds.

    Attributes:
        chunk_ms: audio per message.
        pause_ms: silence between two clips, at the least: every clip begins with a message of its own.
        tail_ms: silence after the last clip, at the least.
    """

    chunk_ms: int
    pause_ms: int
    tail_ms: int

    def chunks(self, audio_ms: int) -> int:
        """Messages that hold so much audio, the last one filled up with silence."""
        return -(-audio_ms // self.chunk_ms)


def script(number: int, arrival: Arrival, clips: Sequence[tuple[int, int]], measure: Measure) -> tuple[int, ...]:
    """Which clips session `number` says: their places in `clips`, until it has spoken for long enough.

    Args:
        number: of the session; the next one begins with the next clip.
        arrival: how long it speaks.
        clips: length (ms) and sample rate (Hz) of each; a session keeps to the rate that it began with.
        measure: how they are cut and paused.
    """
    first = number % len(clips)
    rate = clips[first][1]
    ring = [place for place in (*range(first, len(clips)), *range(first)) if clips[place][1] == rate]
    said: list[int] = []
    audio_ms = 0
    while not said or audio_ms < arrival.speech_ms:
        place = ring[len(said) % len(ring)]
        pause = measure.chunks(measure.pause_ms) if said else 0
        audio_ms += (pause + max(measure.chunks(clips[place][0]), 1)) * measure.chunk_ms
        said.append(place)
    return tuple(said)


def starts(said: Sequence[int], lengths_ms: Sequence[int], measure: Measure) -> list[tuple[int, int]]:
    """The first message of each clip of a script, and the first one behind it."""
    places = []
    at = 0
    for number, place in enumerate(said):
        at += measure.chunks(measure.pause_ms) if number else 0
        end = at + max(measure.chunks(lengths_ms[place]), 1)
        places.append((at, end))
        at = end
    return places


class Phrasebook:
    """The messages of all clips, made once. `wrap` turns a piece of PCM into a message (gRPC's are protobuf)."""

    def __init__(
        self, clips: Sequence[tuple[int, bytes]], measure: Measure, wrap: Callable[[bytes], bytes] = bytes
    ) -> None:
        """`clips`: sample rate (Hz) and PCM16 of each."""
        self._measure = measure
        self._rates = [rate for rate, _ in clips]
        self._silence = {rate: wrap(bytes(self.chunk_bytes(rate))) for rate in set(self._rates)}
        self._clips = [self._cut(pcm, self.chunk_bytes(rate), wrap) for rate, pcm in clips]

    def chunk_bytes(self, rate_hz: int) -> int:
        """PCM of one message."""
        return rate_hz * self._measure.chunk_ms // 1000 * SAMPLE_BYTES

    def rate(self, said: Sequence[int]) -> int:
        """The sample rate of a script."""
        return self._rates[said[0]]

    def messages(self, said: Sequence[int]) -> tuple[int, Iterator[bytes]]:
        """How many messages a script is, and the messages."""
        silence = self._silence[self.rate(said)]
        pause, tail = self._measure.chunks(self._measure.pause_ms), self._measure.chunks(self._measure.tail_ms)
        count = sum(len(self._clips[place]) for place in said) + pause * (len(said) - 1) + tail
        spoken = chain.from_iterable(
            chain(repeat(silence, pause if number else 0), self._clips[place]) for number, place in enumerate(said)
        )
        return count, chain(spoken, repeat(silence, tail))

    def _cut(self, pcm: bytes, size: int, wrap: Callable[[bytes], bytes]) -> list[bytes]:
        return [wrap(pcm[at : at + size].ljust(size, b"\0")) for at in range(0, max(len(pcm), 1), size)]
