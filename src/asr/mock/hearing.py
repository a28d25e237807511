"""Which scripted words have been heard by now, and whether the utterance is over.

Pure and without audio: time comes in as short spans, each loud or not. In a plan that hears by the clock
every span counts as loud.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from asr.mock.plan import MockPlan
from asr.mock.sections import Utterance

MAX_WORDS = 2_000
"""An utterance that never ends forgets its head beyond this."""

HANGOVER_MS = 200
"""Speech goes on through dips shorter than this (the gap between two spoken words)."""


class Turn(Enum):
    """What a span of time brought, beside words."""

    EAGER = auto()
    """The silence of the first pass has passed."""
    END = auto()
    """The silence that ends the utterance has passed."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A scripted word and when it was said; `source` is its utterance in the plan."""

    text: str
    start_ms: int
    end_ms: int
    source: Utterance


class Hearing:
    """Plays the script of one stream against its audio clock."""

    def __init__(self, plan: MockPlan, silence_ms: float, eager_ms: float) -> None:
        """`silence_ms` ends an utterance, `eager_ms` (0 = off) is its first pass."""
        self._script = plan.utterances
        self._loop = plan.loop
        self._by_clock = plan.hears == "clock"
        self._silence_ms = silence_ms
        self._eager_ms = eager_ms if 0 < eager_ms < silence_ms else 0
        self.heard: list[Heard] = []
        """The words of the utterance that is open; a noise is a word without text."""
        self.said = 0
        """How many words there have been in the whole stream."""
        self._at = 0
        self._word = 0
        self._word_start_ms = 0
        self._word_heard_ms = 0
        self._gap_ms = 0
        self._scripted_quiet_ms = 0
        self._real_quiet_ms = HANGOVER_MS
        self._eager_done = False

    def tick(self, start_ms: int, end_ms: int, loud: bool) -> Turn | None:
        """A span of audio has passed; at most a few tens of milliseconds."""
        span = end_ms - start_ms
        if loud or self._by_clock:
            self._real_quiet_ms = 0
        else:
            self._real_quiet_ms += span
        if self._real_quiet_ms < HANGOVER_MS:
            self._say(start_ms, span)
        return self._turn(end_ms)

    def take(self) -> list[Heard]:
        """The words of the open utterance; it is closed by this, and the script goes on after it."""
        words, self.heard = self.heard, []
        self._eager_done = False
        return words

    def cut(self, now_ms: int) -> list[Heard]:
        """End the utterance here: its words, with the one being said where half of it was heard.

        The script goes on with the next utterance at the next speech.
        """
        utterance = self._now()
        begun = self._word > 0
        if utterance is not None and self._word_heard_ms * 2 >= utterance.word_ms:
            self._append(utterance, now_ms)
            begun = True
        if begun:
            self._next()
        self._word_heard_ms = 0
        self._gap_ms = 0
        return self.take()

    def _say(self, pos_ms: int, span: int) -> None:
        while span > 0:
            if self._gap_ms:
                step = min(span, self._gap_ms)
                self._gap_ms -= step
                self._scripted_quiet_ms += step
            else:
                utterance = self._now()
                if utterance is None:
                    self._scripted_quiet_ms += span
                    return
                if not self._word_heard_ms:
                    self._word_start_ms = pos_ms
                step = min(span, utterance.word_ms - self._word_heard_ms)
                self._word_heard_ms += step
                self._scripted_quiet_ms = 0
                if self._word_heard_ms == utterance.word_ms:
                    self._append(utterance, pos_ms + step)
                    self._word_heard_ms = 0
                    self._word += 1
                    if self._word >= len(utterance.words):
                        self._next()
                        self._gap_ms = utterance.pause_ms
            pos_ms += step
            span -= step

    def _turn(self, now_ms: int) -> Turn | None:
        if self._by_clock:
            quiet = self._scripted_quiet_ms
        else:
            quiet = max(self._scripted_quiet_ms, self._real_quiet_ms)
            if self._real_quiet_ms >= self._silence_ms and not self.heard:
                # A click, too short for a word, is forgotten; so is the rest of a scripted pause.
                self._word_heard_ms = 0
                self._gap_ms = 0
        if not self.heard:
            return None
        if quiet >= self._silence_ms:
            if self._real_quiet_ms >= self._silence_ms:
                self._close_at_pause(now_ms)
            return Turn.END
        if self._eager_ms and quiet >= self._eager_ms and not self._eager_done:
            self._eager_done = True
            return Turn.EAGER
        return None

    def _close_at_pause(self, now_ms: int) -> None:
        # The speaker fell silent within the script: the next speech begins the next utterance.
        self.heard = self.cut(now_ms - self._real_quiet_ms)

    def _append(self, utterance: Utterance, end_ms: int) -> None:
        text = utterance.words[self._word] if utterance.words else ""
        self.heard.append(Heard(text, self._word_start_ms, max(end_ms, self._word_start_ms), utterance))
        del self.heard[:-MAX_WORDS]
        self.said += 1
        self._eager_done = False

    def _now(self) -> Utterance | None:
        return self._script[self._at] if self._at < len(self._script) else None

    def _next(self) -> None:
        self._word = 0
        self._at += 1
        if self._loop and self._at >= len(self._script):
            self._at = 0
