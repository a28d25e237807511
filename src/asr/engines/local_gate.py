"""When somebody speaks: voice activity decides where utterances begin and end.

The gate hears the stream in frames of 30 ms. Pocketsphinx's endpointer says when speech shows; the gate adds what
it lacks: a pause of any wanted length, and a beginning that depends on the sound alone. An utterance starts at a
fixed lead before the first loud sample, and a new endpointer is made after each utterance, so that neither what
was said before nor how frames happened to fall changes what the recognizer is given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pocketsphinx import Endpointer, Vad

from asr.engine import SAMPLE_RATE_HZ

FRAME_MS = 30
FRAME_BYTES = SAMPLE_RATE_HZ * 2 * FRAME_MS // 1000
LEAD_MS = 200
"""How much is kept before the first loud sample: soft consonants live there."""

_WINDOW_MS = 300
_RATIO = 0.5
_LOOK_BACK_FRAMES = 20
_SHORT_WORD_FRAMES = 5
_LEAD_BYTES = SAMPLE_RATE_HZ * 2 * LEAD_MS // 1000
_LOUD = 16
_MODE = Vad.MEDIUM_LOOSE


class Gate:
    """Follows one stream's speech. Positions are bytes of the stream.

    Attributes:
        speaking: an utterance is open.
        speech_start_ms: where the open utterance's speech was first noticed.
    """

    def __init__(self, silence_ms: int, manual: bool) -> None:
        self._silence_ms = silence_ms
        self._manual = manual
        self._window_ms = max(3 * FRAME_MS, min(_WINDOW_MS, silence_ms))
        self._position = 0
        self.speaking = False
        self.speech_start_ms = 0
        self._rest()

    def frame(self, frame: bytes) -> bytes | None:
        """Hear one whole frame. Returns what the recognizer should hear of it, or None while nobody speaks.

        The first return of an utterance holds its beginning too; `lead_ms` says where that lies.
        """
        self._position += len(frame)
        was_in_speech = self._endpointer.in_speech
        self._endpointer.process(frame)
        if self._endpointer.in_speech:
            self._pause_ms = 0
        elif was_in_speech:
            self._last_speech_ms = self._epoch_ms + round(self._endpointer.speech_end * 1000)
            self._pause_ms = self._now_ms - self._last_speech_ms
        elif self.speaking:
            self._pause_ms += FRAME_MS
        if self.speaking:
            return frame
        self._recent.append(frame)
        del self._recent[:-_LOOK_BACK_FRAMES]
        if not self._endpointer.in_speech or not any(quiet_tail(part) < len(part) for part in self._recent):
            # The hum before a first word can pass for speech; the utterance begins with something audible.
            return None
        return self._begin(self._epoch_ms + round(self._endpointer.speech_start * 1000))

    @property
    def paused(self) -> bool:
        """Whether the pause that ends the open utterance has passed."""
        return self.speaking and not self._manual and self._pause_ms >= self._silence_ms

    def late_word(self, tail: bytes) -> bytes | None:
        """At a cut: an utterance too short to have opened the gate yet, with `tail` as its end, or None."""
        recent = self._recent[-(self._window_ms // FRAME_MS) :]
        vad = Vad(_MODE)
        if sum(bool(vad.is_speech(frame)) for frame in recent) < _SHORT_WORD_FRAMES:
            return None
        return self._begin(self._now_ms - FRAME_MS * len(recent)) + tail

    def end(self, extra_bytes: int = 0) -> int:
        """Close the utterance and forget it. Returns where its speech ended, in ms.

        `extra_bytes` of a torn frame were taken by a cut: the frames count on behind them.
        """
        self._position += extra_bytes
        ended_ms = self._last_speech_ms if self._pause_ms else self._now_ms
        self.speaking = False
        self._rest()
        return max(ended_ms, self.speech_start_ms)

    @property
    def lead_ms(self) -> int:
        """Where on the audio clock the open utterance's first sample lies; negative before the stream's first."""
        return self._begin_byte * 1000 // (2 * SAMPLE_RATE_HZ)

    @property
    def _now_ms(self) -> int:
        return self._position * 1000 // (2 * SAMPLE_RATE_HZ)

    def _rest(self) -> None:
        self._endpointer = Endpointer(
            window=self._window_ms / 1000, ratio=_RATIO, vad_mode=_MODE, frame_length=FRAME_MS / 1000
        )
        self._epoch_ms = self._now_ms
        self._recent: list[bytes] = []
        self._pause_ms = 0
        self._last_speech_ms = self._now_ms
        self._begin_byte = self._position

    def _begin(self, start_ms: int) -> bytes:
        heard = b"".join(self._recent)
        self._recent.clear()
        first = 2 * onset(np.frombuffer(heard, dtype="<i2"))
        self._begin_byte = self._position - len(heard) + first - _LEAD_BYTES
        self.speaking = True
        self.speech_start_ms = max(0, start_ms)
        silence = b"\0" * max(0, _LEAD_BYTES - first)
        return silence + heard[max(0, first - _LEAD_BYTES) :]


def onset(samples: NDArray[np.int16]) -> int:
    """Index of the first sample that is louder than a quiet line (-66 dB of full scale); 0 where none is.

    The threshold is fixed: one that followed the loudest sample would move with the place where the frames fall.
    """
    return int(np.argmax(np.abs(samples.astype(np.int32)) >= _LOUD)) if len(samples) else 0


def quiet_tail(pcm: bytes) -> int:
    """How many bytes at the end of some PCM16 are as quiet as that."""
    loud = np.flatnonzero(np.abs(np.frombuffer(pcm, dtype="<i2").astype(np.int32)) >= _LOUD)
    return len(pcm) - 2 * (int(loud[-1]) + 1) if len(loud) else len(pcm)
