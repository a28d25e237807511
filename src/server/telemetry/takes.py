"""One take of a watched stream: its audio on its way to the recognizer, and what comes back. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asr.engine import BYTES_PER_MS
from asr.events import Event, Final, Gap, Partial, State, Status
from server.telemetry.latency import AudioClock, Way

if TYPE_CHECKING:
    from server.telemetry.watch import StreamWatch


@dataclass(slots=True)
class Told:
    """A result that was heard and is not sent yet.

    Attributes:
        received: when the audio in which it ends was received.
        way: of a final: that of the same audio; of a partial None.
        heard: of a final: when it came from the recognizer.
    """

    received: float
    way: Way | None = None
    heard: float = 0.0


class TakeWatch:
    """One take of a watched stream."""

    __slots__ = ("_bytes_per_ms", "_clock", "_now", "_since", "_started", "_watch")

    def __init__(self, watch: StreamWatch, channels: int, now: Callable[[], float]) -> None:
        self._watch = watch
        self._now = now
        self._bytes_per_ms = BYTES_PER_MS * channels
        self._clock = AudioClock(self._bytes_per_ms) if watch.start.kind == "live" else None
        self._since = now() if self._clock is None else None  # when its first audio was there
        self._started = False

    def came(self, n_bytes: int) -> float:
        """So many bytes of a message came now; for `fed`, which tells when."""
        self._watch.received_bytes += n_bytes
        return self._now()

    def fed(self, n_bytes: int, received: float | None = None, *, channels: int = 0) -> None:
        """Audio is put to where the recognizer reads.

        Args:
            n_bytes: of PCM16 at 16 kHz, over all of its channels.
            received: when it came from the client; None: now.
            channels: of the audio, for those who learn it only from its header.
        """
        if channels and channels * BYTES_PER_MS != self._bytes_per_ms:
            self._bytes_per_ms = BYTES_PER_MS * channels
            if self._clock is not None:
                self._clock = AudioClock(self._bytes_per_ms)
        self._watch.audio_ms += n_bytes / self._bytes_per_ms
        clock = self._clock
        if clock is not None:
            now = self._now()
            if received is None:
                received = now
            clock.put(n_bytes, received, now)
            if self._since is None:
                self._since = received

    def taken(self) -> None:
        """The recognizer takes the next audio that was `fed`: as much as was fed at once."""
        clock = self._clock
        if clock is None and self._started:
            return
        now = self._now()
        if not self._started:
            self._started = True
            self._watch.waited(max(now - self._since, 0.0) if self._since is not None else 0.0)
        if clock is not None:
            clock.take(now)

    def heard(self, event: Event) -> Told | None:
        """The recognizer said something. What comes back is to be told as `sent`, where it is sent at all."""
        watch = self._watch
        match event:
            case Partial():
                watch.partials += 1
                received = self._received(event)
                return Told(received) if received is not None else None
            case Final():
                watch.said(event)
                received = self._received(event)
                if received is None or self._clock is None:
                    return None
                return Told(received, self._clock.way(_end_ms(event)), self._now())
            case Gap():
                watch.gaps_ms += event.end_ms - event.start_ms
                watch.happened("gap", start_ms=event.start_ms, end_ms=event.end_ms, cause=event.cause.value)
            case Status(State.FAILING_OVER | State.THROTTLED as state):
                watch.happened("failover", audio_ms=event.audio_ms, state=state.value)
            case Status(State.RECOVERED):
                watch.failovers += 1
                watch.replayed_ms += event.replayed_ms
                watch.happened("recovered", audio_ms=event.audio_ms, replayed_ms=event.replayed_ms)
        return None

    def _received(self, event: Partial | Final) -> float | None:
        """When the audio in which a result ends was received; None for one that has no latency."""
        clock = self._clock
        if clock is None or not event.text:
            return None
        received = clock.received(_end_ms(event))
        if received is not None and self._watch.first_word_at is None:
            first = clock.received(event.words[0].end_ms) if event.words else None
            self._watch.first_word_at = received if first is None else first
        return received


def _end_ms(event: Partial | Final) -> int:
    return event.words[-1].end_ms if event.words else event.end_ms
