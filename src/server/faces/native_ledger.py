"""The accounts of a native session: what was received, decoded, processed, covered, and how fast.

One audio clock for the session: decoded audio over all takes, in whole milliseconds, never going back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Any

from asr.engine import BYTES_PER_MS
from asr.events import Final, Gap, State

SAFE_MARGIN_MS = 3_000
"""Of audio that was processed with no utterance open, so much is not called safe yet: its last words may still be on
their way."""
_KEPT = 4096  # entries kept of each kind: bounded, over a minute of 20 ms chunks


class _Channel:
    """What finals and gaps have settled of one channel."""

    def __init__(self) -> None:
        self.covered_ms = 0
        self.is_open = False
        """Whether an utterance is under way."""
        self._gap_ahead: tuple[int, int] | None = None

    def settled(self, end_ms: int) -> None:
        """A final ends here."""
        self.is_open = False
        self.covered_ms = max(self.covered_ms, end_ms)
        if self._gap_ahead is not None and self._gap_ahead[0] <= self.covered_ms:
            self.covered_ms = max(self.covered_ms, self._gap_ahead[1])
            self._gap_ahead = None

    def missed(self, start_ms: int, end_ms: int) -> None:
        """No final will ever cover this. It is settled as well, once all audio before it is."""
        if not self.is_open or start_ms <= self.covered_ms:
            self.covered_ms = max(self.covered_ms, end_ms)
        else:  # behind an utterance whose final is still to come
            self._gap_ahead = (start_ms, end_ms)


class Ledger:
    """Counts bytes in, milliseconds out.

    Attributes:
        received_bytes: what the client sent, as it sent it.
        processed_ms: the engine has consumed the audio up to here.
    """

    def __init__(self, channels: int = 1) -> None:
        """`channels`: how many the decoded audio has, interleaved, each recognized on its own."""
        self._bytes_per_ms = BYTES_PER_MS * channels
        self._channels = [_Channel() for _ in range(channels)]
        self.received_bytes = 0
        self.processed_ms = 0
        self._out_ms = 0
        self._fed_bytes = 0
        self._take_bases = [0]
        self._utterance_bases = [0]
        self._next_utterance = 0
        self._acks: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._safe_bytes = 0
        self._arrivals: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._latencies_ms: deque[int] = deque(maxlen=_KEPT)
        self._speech_ms = 0
        self._utterances = 0
        self._gaps_ms = 0
        self._failovers = 0
        self._resumes = 0

    @property
    def fed_ms(self) -> int:
        """The audio decoded so far."""
        return self._fed_bytes // self._bytes_per_ms

    @property
    def covered_ms(self) -> int:
        """Finals and gaps cover the audio of all channels up to here."""
        return min(channel.covered_ms for channel in self._channels)

    def received(self, n_bytes: int) -> None:
        """The client sent audio."""
        self.received_bytes += n_bytes

    def fed(self, n_bytes: int, now: float) -> None:
        """It was decoded to so many bytes of PCM."""
        self._fed_bytes += n_bytes
        self._arrivals.append((self.fed_ms, now))

    def next_take(self) -> None:
        """Audio from here on belongs to a further take."""
        self._take_bases.append(self._fed_bytes)

    def take_begun(self, take: int) -> None:
        """A take's engine starts: its utterances are numbered on from those before."""
        del self._utterance_bases[take:]
        self._utterance_bases.append(self._next_utterance)

    def base_ms(self, take: int) -> int:
        """Where a take begins on the session's clock."""
        return self._take_bases[take] // self._bytes_per_ms

    def end_ms(self, take: int) -> int:
        """Where a take ends, as far as is known."""
        return self.base_ms(take + 1) if take + 1 < len(self._take_bases) else self.fed_ms

    def base_utterance(self, take: int) -> int:
        """The number of a take's first utterance."""
        return self._utterance_bases[take]

    def processed(self, until_ms: int) -> None:
        """The engine has consumed the audio up to here."""
        self.processed_ms = max(self.processed_ms, min(until_ms, self.fed_ms))

    def all_out(self, until_ms: int) -> None:
        """Every result of the audio up to here is out."""
        self.processed(until_ms)
        self._out_ms = max(self._out_ms, min(until_ms, self.fed_ms))

    def uncovered(self) -> tuple[int, int] | None:
        """The audio that would be lost if nothing more came, from and to, in ms."""
        settled_ms = self._settled_ms
        return (settled_ms, self.fed_ms) if self.fed_ms > settled_ms else None

    @property
    def _settled_ms(self) -> int:
        quiet_ms = self.processed_ms - SAFE_MARGIN_MS
        return min(
            max(channel.covered_ms, self._out_ms, 0 if channel.is_open else quiet_ms) for channel in self._channels
        )

    def guessed(self, channel: int = 0) -> None:
        """A partial came: an utterance is open."""
        self._channel(channel).is_open = True

    def settled(self, take: int, final: Final, now: float) -> None:
        """A final came."""
        end_ms = self.base_ms(take) + final.end_ms
        self._next_utterance = max(self._next_utterance, self.base_utterance(take) + final.utterance + 1)
        self._utterances += 1
        self._speech_ms += final.end_ms - final.start_ms
        self._channel(final.channel).settled(end_ms)
        if len(self._channels) == 1:
            self.processed(end_ms)
        index = bisect_left(self._arrivals, end_ms, key=lambda arrival: arrival[0])
        if index < len(self._arrivals):
            self._latencies_ms.append(int((now - self._arrivals[index][1]) * 1000))
        for _ in range(index if len(self._channels) == 1 else 0):
            self._arrivals.popleft()

    def missed(self, take: int, gap: Gap) -> None:
        """No final will ever cover a piece of audio."""
        base_ms = self.base_ms(take)
        self._gaps_ms += gap.end_ms - gap.start_ms
        self._channel(gap.channel).missed(base_ms + gap.start_ms, base_ms + gap.end_ms)
        if len(self._channels) == 1:
            self.processed(base_ms + gap.end_ms)

    def _channel(self, number: int) -> _Channel:
        # A recognizer may name a channel of its own where there is only one.
        return self._channels[number if number < len(self._channels) else 0]

    def changed(self, state: State) -> None:
        """The recognizer's state changed."""
        self._failovers += state is State.RECOVERED

    def resumed(self) -> int:
        """The client came back. Returns from which byte on it has to send its audio."""
        self._resumes += 1
        return self.received_bytes

    def ack(self) -> dict[str, Any]:
        """The fields of an `ack` message.

        `safe_bytes`: what was received up to an earlier ack and is settled now: covered by finals,
        or processed a while ago with no utterance open.
        """
        self._acks.append((self.fed_ms, self.received_bytes))
        settled_ms = self._settled_ms
        while self._acks and self._acks[0][0] <= settled_ms:
            self._safe_bytes = self._acks.popleft()[1]
        return {
            "type": "ack",
            "received_bytes": self.received_bytes,
            "received_ms": self.fed_ms,
            "processed_ms": self.processed_ms,
            "buffered_ms": max(self.fed_ms - self.processed_ms, 0),
            "safe_bytes": self._safe_bytes,
        }

    def summary(self, discarded_ms: int) -> dict[str, Any]:
        """The fields of the `summary` message."""
        ordered = sorted(self._latencies_ms)
        return {
            "type": "summary",
            "audio_ms": self.fed_ms,
            "speech_ms": self._speech_ms,
            "utterances": self._utterances,
            "gaps_ms": self._gaps_ms,
            "failovers": self._failovers,
            "resumes": self._resumes,
            "discarded_ms": discarded_ms,
            "final_latency_ms": {"p50": _percentile(ordered, 50), "p95": _percentile(ordered, 95)},
        }


def _percentile(ordered: list[int], percent: int) -> int | None:
    """Nearest rank: the smallest value that `percent` of the values do not exceed."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
