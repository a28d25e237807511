"""The events of several channels as one ordered timeline: the pure part of `asr.channels`.

Rules, in the order in which they count:

* What one channel says keeps its order. Partials, and whatever else is no final, go out at once, unless a final of
  the same channel waits before them.
* A final waits for every other channel that may still have one that ends earlier: one that has not taken the audio up
  to that final's end, or has an utterance open of which nothing was heard that far. It waits `HOLD_S` at the most.
  Of several that wait, the one that ends first goes first.
* Utterances are numbered over all channels in the order in which their first event goes out. A number stays with
  its utterance from the first partial to the final.
* `Progress` is that of the channel which is furthest behind. `Flushed` comes once, when every channel has answered.
* `Status` tells how the worst of the channels is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from asr.events import Event, Final, Flushed, Gap, Partial, Progress, SpeechEnded, SpeechStarted, State, Status

HOLD_S = 0.3
"""How long a final waits for those of other channels, at the most."""

_SEVERITY = {State.RECOVERED: 0, State.DEGRADED: 1, State.THROTTLED: 2, State.FAILING_OVER: 3}


@dataclass(slots=True)
class _Channel:
    waiting: deque[tuple[Event, float]] = field(default_factory=deque)
    """Events in their order, and when each came; the first is a final, or there is none."""
    numbers: dict[int, int] = field(default_factory=dict)
    """The open utterances: the channel's own number, and that on the timeline."""
    taken_ms: int = 0
    """How much audio its recognizer has taken."""
    heard_ms: int = 0
    """How far what it said reaches."""
    is_open: bool = False
    processed_ms: int = 0
    flushed: deque[int] = field(default_factory=deque)
    state: State = State.RECOVERED
    over: bool = False

    def is_past(self, end_ms: int) -> bool:
        """Whether no final of this channel is to be expected that ends before `end_ms`."""
        if self.over or self.heard_ms >= end_ms:
            return True
        return self.taken_ms >= end_ms and not self.is_open


class Timeline:
    """Takes what the channels say, and gives it in order. The time, in seconds, is an argument."""

    def __init__(self, channels: int) -> None:
        """`channels`: how many there are."""
        self._channels = [_Channel() for _ in range(channels)]
        self._next_number = 0
        self._progress_ms = 0
        self._severity = 0

    def add(self, channel: int, event: Event, now: float) -> None:
        """A channel said something; `due` tells what goes out."""
        one = self._channels[channel]
        one.waiting.append((event, now))
        match event:
            case Partial(end_ms=end_ms):
                one.heard_ms, one.is_open = max(one.heard_ms, end_ms), True
            case Final(end_ms=end_ms):
                one.heard_ms, one.is_open = max(one.heard_ms, end_ms), False
            case Progress(processed_ms):
                one.heard_ms = max(one.heard_ms, processed_ms)
            case Flushed(audio_ms):
                one.heard_ms = max(one.heard_ms, audio_ms)

    def took(self, channel: int, until_ms: int) -> None:
        """A channel's recognizer has taken the audio up to here."""
        self._channels[channel].taken_ms = until_ms

    def ended(self, channel: int) -> None:
        """A channel says nothing more."""
        self._channels[channel].over = True

    def due(self, now: float) -> list[Event]:
        """What goes out now."""
        events: list[Event] = []
        while True:
            for number, one in enumerate(self._channels):
                while one.waiting and not isinstance(one.waiting[0][0], Final):
                    events += self._told(number, one.waiting.popleft()[0])
            finals = [(one.waiting[0][0], number) for number, one in enumerate(self._channels) if one.waiting]
            if not finals:
                break
            number = min((final.end_ms, number) for final, number in finals if isinstance(final, Final))[1]
            if not self._is_free(number, now):
                number = next((other for _, other in finals if self._is_late(other, now)), -1)
                if number < 0:
                    break
            events += self._told(number, self._channels[number].waiting.popleft()[0])
        return events + self._in_common()

    @property
    def wake_at(self) -> float | None:
        """When `due` must be called at the latest, or None."""
        return min((one.waiting[0][1] + HOLD_S for one in self._channels if one.waiting), default=None)

    def _is_late(self, number: int, now: float) -> bool:
        return now >= self._channels[number].waiting[0][1] + HOLD_S

    def _is_free(self, number: int, now: float) -> bool:
        final, _ = self._channels[number].waiting[0]
        assert isinstance(final, Final)
        others = (one for other, one in enumerate(self._channels) if other != number)
        return self._is_late(number, now) or all(one.waiting or one.is_past(final.end_ms) for one in others)

    def _told(self, number: int, event: Event) -> list[Event]:
        one = self._channels[number]
        match event:
            case Partial():
                return [replace(event, channel=number, utterance=self._number(one, event.utterance))]
            case Final():
                utterance = self._number(one, event.utterance)
                # An engine that leaves an utterance without a final does not come back to it.
                one.numbers = {own: given for own, given in one.numbers.items() if own > event.utterance}
                return [replace(event, channel=number, utterance=utterance)]
            case SpeechStarted() | SpeechEnded() | Gap():
                return [replace(event, channel=number)]
            case Progress(processed_ms):
                one.processed_ms = max(one.processed_ms, processed_ms)
            case Flushed(audio_ms):
                one.flushed.append(audio_ms)
                # Every result before it is out, so nothing is open either.
                one.processed_ms, one.is_open = max(one.processed_ms, audio_ms), False
            case Status(state):
                return self._status(one, state, event)
        return self._in_common()

    def _number(self, one: _Channel, own: int) -> int:
        if own not in one.numbers:
            one.numbers[own] = self._next_number
            self._next_number += 1
        return one.numbers[own]

    def _status(self, one: _Channel, state: State, event: Status) -> list[Event]:
        again, one.state = one.state is state, state
        severity = max(_SEVERITY[each.state] for each in self._channels)
        before, self._severity = self._severity, severity
        return [event] if severity != before or (again and _SEVERITY[state] == severity) else []

    def _in_common(self) -> list[Event]:
        """What all channels have come to."""
        events: list[Event] = []
        silent = [one.over and not one.waiting for one in self._channels]
        while any(one.flushed for one in self._channels) and all(
            one.flushed or over for one, over in zip(self._channels, silent, strict=True)
        ):
            events.append(Flushed(max(one.flushed.popleft() for one in self._channels if one.flushed)))
        heard = [one.processed_ms for one, over in zip(self._channels, silent, strict=True) if not over]
        if heard and min(heard) > self._progress_ms:
            self._progress_ms = min(heard)
            events.append(Progress(self._progress_ms))
        return events
