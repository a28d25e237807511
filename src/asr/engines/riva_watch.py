"""When the silence of a server means something: the moments of one call, judged by the clock.

Riva need not say anything while nobody speaks, so silence alone proves nothing. `Unheard` keeps the audio that was
sent since the server last said anything, just long enough to see whether there was speech in it. No I/O and no
clock of its own: times are seconds of the loop's clock and come as arguments.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from asr.config import RivaConfig
from asr.engine import BYTES_PER_MS

LOUD_DBFS = -50.0
"""20 ms of audio that are louder on average (RMS) may be speech."""
LOUD_MS = 1_000
"""So much of it must be loud before an answer is missed."""
WINDOW_MS = 10_000
"""How far back loud audio counts."""
OWES_S = 1.0
"""The pause between two answers that is a server's own pace: the chunks that servers work in are about as long."""
CLOSE_LOOK_S = 0.25
"""Between two looks at a server that owes an answer; else a second."""

_FRAME_BYTES = 20 * BYTES_PER_MS
_LOUD_SQUARE = (32768.0 * 10 ** (LOUD_DBFS / 20)) ** 2


class _Stretch(NamedTuple):
    end_bytes: int
    loud_ms: int
    onset_bytes: int
    onset_at: float


class Unheard:
    """How much speech the server has been sent since it last said anything.

    Attributes:
        chunks: audio that was sent and not looked at yet: whole samples. To be appended to; `full_at` bounds it.
        full_at: the number of bytes sent at which `full` should be called.
    """

    def __init__(self, window_ms: int = WINDOW_MS) -> None:
        """Loud audio counts that is no older than `window_ms` of audio."""
        self._window_bytes = window_ms * BYTES_PER_MS
        self._stretches: deque[_Stretch] = deque()
        self._since = 0.0
        self.chunks: deque[bytes] = deque()
        self.full_at = WINDOW_MS * BYTES_PER_MS

    def __bool__(self) -> bool:
        """Whether there is any that may matter."""
        return bool(self.chunks or self._stretches)

    def clear(self, now: float) -> None:
        """The server has answered, or nothing was sent before."""
        self.chunks.clear()
        self._stretches.clear()
        self._since = now

    def full(self, now: float, sent_bytes: int) -> None:
        """So much has been sent that the chunks may be too many; a server that answers has seen to that."""
        half_bytes = WINDOW_MS * BYTES_PER_MS // 2
        if sum(map(len, self.chunks)) < half_bytes:
            self.full_at = sent_bytes + half_bytes
        else:
            self.judge(now, sent_bytes)

    def judge(self, now: float, sent_bytes: int) -> None:
        """Look at the chunks, and let go of them. `sent_bytes` is what was sent of the audio, with the last chunk."""
        pcm = b"".join(self.chunks)
        self.chunks.clear()
        self.full_at = sent_bytes + WINDOW_MS * BYTES_PER_MS
        loud = _loud_frames(pcm)
        if loud:
            onset_bytes = sent_bytes - len(pcm) + loud[0] * _FRAME_BYTES
            spoken_s = (sent_bytes - onset_bytes) / (BYTES_PER_MS * 1000)
            onset_at = max(now - spoken_s, self._since)
            self._stretches.append(_Stretch(sent_bytes, len(loud) * 20, onset_bytes, onset_at))
        self._since = now
        while self._stretches and self._stretches[0].end_bytes <= sent_bytes - self._window_bytes:
            self._stretches.popleft()

    def spoken(self, for_ms: int, now: float, sent_bytes: int) -> bool:
        """Whether speech began so long ago, by the clock and in audio, and enough has followed. After `judge`."""
        if not self._stretches:
            return False
        first = self._stretches[0]
        sent_ms = (sent_bytes - first.onset_bytes) // BYTES_PER_MS
        # Audio comes in chunks and a little late, hence the quarter.
        return (now - first.onset_at) * 1000 >= for_ms and sent_ms >= for_ms * 3 // 4 and self.is_loud(for_ms)

    def is_loud(self, in_ms: int) -> bool:
        """Whether enough of the audio for speech `in_ms` long was loud. After `judge`."""
        return sum(stretch.loud_ms for stretch in self._stretches) >= min(LOUD_MS, in_ms // 2)


class Watch:
    """The moments of one call. None where something has not happened.

    Attributes:
        first_audio_at: the first audio of the caller's was written.
        writing: a write is under way.
        wrote_at: when the last write began.
        half_closed_at: the audio ended.
        answered_at: the server last said anything.
        unheard: the audio sent since then.
    """

    def __init__(self, config: RivaConfig) -> None:
        """`config`: the endpoint's timeouts."""
        self._first_s = config.first_response_timeout_ms / 1000
        self._stall_ms = config.stall_timeout_ms
        self._degraded_ms = config.degraded_after_ms
        self._idle_s = config.idle_silence_ms / 1000
        self._drain_s = config.drain_timeout_ms / 1000
        waits = [config.first_response_timeout_ms, config.drain_timeout_ms, config.idle_silence_ms]
        waits += [self._stall_ms, 2 * self._degraded_ms, config.quiet_final_ms]
        self._look_s = min([1.0, *(wait / 4000 for wait in waits if wait)])
        owing = (self._stall_ms, 2 * self._degraded_ms, config.first_response_timeout_ms)
        self._owes_s = min([OWES_S, *(wait / 4000 for wait in owing if wait)])
        self._close_look_s = min(self._look_s, CLOSE_LOOK_S, self._owes_s)
        self._told = False
        self.first_audio_at: float | None = None
        self.writing = False
        self.wrote_at = 0.0
        self.half_closed_at: float | None = None
        self.answered_at: float | None = None
        self.unheard = Unheard(max(WINDOW_MS, 2 * self._stall_ms, 2 * config.first_response_timeout_ms))

    def begun(self, now: float) -> None:
        """The first audio is about to be written."""
        self.first_audio_at = now
        self.unheard.clear(now)

    def answered(self, now: float) -> None:
        """The server has said something."""
        self.answered_at = now
        self._told = False
        self.unheard.clear(now)

    def look(self, now: float, sent_bytes: int) -> str | None:
        """Why the call has failed, in a sentence, or None."""
        answered_at = self.answered_at
        first_s, stall_s = self._first_s, (self._stall_ms or self._first_s * 1000) / 1000
        late = f"The recognizer accepted the stream and did not answer within {first_s:g} s. Try again."
        if answered_at is None:
            begun_at = self.first_audio_at or self.wrote_at
            if self.writing and now - begun_at > first_s:
                return late
        elif self.writing and now - max(self.wrote_at, answered_at) > min(first_s, stall_s):
            return f"The recognizer has taken no audio for {min(first_s, stall_s):g} s. Try again."
        if self.half_closed_at is not None:
            if now - max(self.half_closed_at, answered_at or 0.0) > self._drain_s:
                return f"The recognizer has been silent for {self._drain_s:g} s after the end of the audio. Try again."
            return None
        if self._owes(now):
            self.unheard.judge(now, sent_bytes)
            if answered_at is None and self.unheard.spoken(int(first_s * 1000), now, sent_bytes):
                return late
            if answered_at is not None and self._stall_ms and self.unheard.spoken(self._stall_ms, now, sent_bytes):
                return f"The recognizer has said nothing for {stall_s:g} s of speech. Try again."
        return None

    def degraded(self, now: float, sent_bytes: int) -> str:
        """What the caller should know of a slow server, in a sentence: once for each silence, else "". After `look`."""
        if self._told or not self._degraded_ms:
            return ""
        after_s = self._degraded_ms / 1000
        if self.half_closed_at is not None:
            if now - max(self.half_closed_at, self.answered_at or 0.0) < after_s:
                return ""
            self._told = True
            return "The recognizer is slow with its last results."
        if self.writing and now - max(self.wrote_at, self.answered_at or 0.0) >= after_s:
            self._told = True
            return "The recognizer takes no audio at the moment; it is kept until it does."
        if self.unheard.spoken(self._degraded_ms, now, sent_bytes):
            self._told = True
            if self.answered_at is None:
                return "The recognizer has not answered yet; it may be busy or starting."
            return "The recognizer is slow to answer."
        return ""

    def idle(self, now: float) -> bool:
        """Whether the server should be sent silence, since the caller says nothing."""
        if not self._idle_s or self.writing or self.half_closed_at is not None:
            return False
        return self.wrote_at > 0 and now - self.wrote_at >= self._idle_s

    def next_look_s(self, now: float) -> float:
        """When to look again."""
        return self._close_look_s if self._owes(now) else self._look_s

    def _owes(self, now: float) -> bool:
        # A closer look is worth its while; a healthy server hardly gets here.
        since = self.answered_at or self.first_audio_at
        return since is not None and now - since >= self._owes_s and bool(self.unheard)


def _loud_frames(pcm: bytes) -> list[int]:
    if len(pcm) < 2:
        return []
    import numpy as np  # only where an answer is late

    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
    whole = len(samples) * 2 // _FRAME_BYTES
    frames = samples[: whole * (_FRAME_BYTES // 2)].reshape(whole, _FRAME_BYTES // 2)
    squares = np.einsum("ij,ij->i", frames, frames)
    loud: list[int] = np.flatnonzero(squares >= _LOUD_SQUARE * (_FRAME_BYTES // 2)).tolist()
    return loud
