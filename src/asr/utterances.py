"""Number utterances and revisions, and find the head on which partials agree.

Riva gives no utterance id and rewrites its partials at will; this small counter is what every engine
uses, so that `utterance`, `revision` and `stable_chars` mean the same everywhere.
"""

from __future__ import annotations

from asr.events import Alternative, Final, FinalReason, Partial, Word


def agreed_chars(before: str, now: str) -> int:
    """Length of the head of `now` that both texts share, cut back to a whole word.

    Two successive hypotheses that agree on a word are unlikely to lose it again (local agreement,
    Liu et al. 2020, "Low-Latency Sequence-to-Sequence Speech Recognition").
    """
    limit = min(len(before), len(now))
    shared = 0
    while shared < limit and before[shared] == now[shared]:
        shared += 1
    at_word_end = (shared == len(before) or before[shared] == " ") and (shared == len(now) or now[shared] == " ")
    if at_word_end:
        return shared
    return now.rfind(" ", 0, shared) if " " in now[:shared] else 0


class UtteranceCounter:
    """Makes the `Partial` and `Final` events of one channel of one stream, in order."""

    def __init__(self, channel: int = 0) -> None:
        self.channel = channel
        self.utterance = 0
        self._revision = 0
        self._last: tuple[str, bool] | None = None
        self._floor_ms = 0

    @property
    def is_open(self) -> bool:
        """Whether a partial of the current utterance has been seen."""
        return self._revision > 0

    @property
    def last_text(self) -> str:
        """The last partial's text, or ""."""
        return self._last[0] if self._last is not None else ""

    def partial(
        self,
        text: str,
        start_ms: int,
        end_ms: int,
        *,
        stability: float | None = None,
        words: tuple[Word, ...] = (),
        eager_eou: bool = False,
    ) -> Partial | None:
        """The next partial, or None where it would say what the last one said."""
        if self._last == (text, eager_eou):
            return None
        stable = agreed_chars(self._last[0], text) if self._last is not None else 0
        self._revision += 1
        self._last = (text, eager_eou)
        start = max(start_ms, self._floor_ms)
        return Partial(
            utterance=self.utterance,
            revision=self._revision,
            text=text,
            start_ms=start,
            end_ms=max(end_ms, start),
            stable_chars=stable,
            stability=stability,
            words=words,
            eager_eou=eager_eou,
            channel=self.channel,
        )

    def final(
        self,
        text: str,
        start_ms: int,
        end_ms: int,
        *,
        reason: FinalReason,
        words: tuple[Word, ...] = (),
        alternatives: tuple[Alternative, ...] = (),
        confidence: float | None = None,
        confidence_raw: float | None = None,
        language: str | None = None,
    ) -> Final:
        """The final of the current utterance; the next event belongs to the next utterance."""
        start = max(start_ms, self._floor_ms)
        end = max(end_ms, start)
        event = Final(
            utterance=self.utterance,
            revision=self._revision + 1,
            text=text.strip(),
            start_ms=start,
            end_ms=end,
            words=words,
            alternatives=alternatives,
            confidence=confidence,
            confidence_raw=confidence_raw,
            language=language,
            reason=reason,
            channel=self.channel,
        )
        self.utterance += 1
        self._revision = 0
        self._last = None
        self._floor_ms = end
        return event
