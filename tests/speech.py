"""The speech clips under `tests/fixtures/`, their texts and limits, and how words are compared."""

from __future__ import annotations

import json
import re
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import jiwer

from asr.engine import AudioInput, EndUtterance

FIXTURES = Path(__file__).parent / "fixtures"
_EXPECTED: dict[str, dict[str, float]] = json.loads((FIXTURES / "expected.json").read_text("utf-8"))
CLIPS = tuple(_EXPECTED)
"""Names of the clips that hold speech."""


@dataclass(frozen=True)
class Clip:
    """A spoken clip: 16 kHz mono PCM16, what is said in it, and the word error rate that is still good."""

    name: str
    pcm: bytes
    text: str
    max_wer: float

    @property
    def duration_ms(self) -> int:
        return len(self.pcm) // 32


def path(name: str) -> Path:
    """Where a fixture file lies (`greeting_8k.wav`)."""
    return FIXTURES / name


def pcm(name: str) -> bytes:
    """The samples of a 16 kHz mono PCM16 clip, also of `silence` and `noise`."""
    with wave.open(str(FIXTURES / f"{name}.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return file.readframes(file.getnframes())


def clip(name: str) -> Clip:
    """A clip that holds speech."""
    text = (FIXTURES / f"{name}.txt").read_text("utf-8").strip()
    return Clip(name, pcm(name), text, _EXPECTED[name]["max_wer"])


def silence(ms: int) -> bytes:
    """Digital silence."""
    return bytes(32 * ms)


def normalized(text: str) -> str:
    """Lower case, without punctuation, one blank between words."""
    return " ".join(re.sub(r"[^a-z0-9' ]", " ", text.lower()).split())


def wer(reference: str, hypothesis: str) -> float:
    """Word error rate after normalizing both."""
    return float(jiwer.wer(normalized(reference), normalized(hypothesis)))


async def chunks(audio: bytes, size: int = 3200) -> AsyncIterator[AudioInput]:
    """The audio in pieces of `size` bytes, as fast as they are taken."""
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


async def script(*items: AudioInput | EndUtterance) -> AsyncIterator[AudioInput]:
    """These items, one after another."""
    for item in items:
        yield item
