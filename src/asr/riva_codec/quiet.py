"""Utterances of servers that never say that one is over.

Such a server's partials grow over the whole stream. Where one has not changed for a while it is made a final
(`ResponseReader`); what the server says later still begins with it, and that head is cut off here. Servers also
rewrite what they said, so the head is looked for, not just counted off. `QuietSpan` tells when a while has passed for
a server that says nothing at all while nothing changes.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from asr.events import Word
from asr.options import Options

MAX_ALIGNED = 200
"""Words that are compared one with another to find a rewritten head; in a longer one words are only counted."""
ALIKE = 0.5
"""How alike, in their letters, two texts are that are the same words heard otherwise."""

_WIDE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"
_TOKEN = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]+")
_MARKS = " \t\n.,;:!?…·。、，．！？；："
_EDGES = _MARKS + "\"'()[]«»“”‘’「」¿¡-"


def quiet_after_ms(options: Options, quiet_final_ms: int) -> int:
    """After how much audio without a change an utterance is ended here: never before the server was asked to."""
    endpointing = options.endpointing
    if not quiet_final_ms or (endpointing is not None and endpointing.manual):
        return 0
    return quiet_final_ms + ((endpointing.silence_ms or 0) if endpointing is not None else 0)


class SpokenHead:
    """What the server still says of one channel though it has been made final already."""

    def __init__(self) -> None:
        self._text = ""
        self._tokens: list[str] = []
        self._end_ms = 0

    def __bool__(self) -> bool:
        return bool(self._text)

    def set(self, text: str, end_ms: int) -> None:
        """Everything that the server says now has been made final; its words begin before `end_ms`."""
        self._text = text
        self._tokens = [_bare(match) for match in _TOKEN.finditer(text)]
        self._end_ms = end_ms

    def clear(self) -> None:
        """The server has begun anew by itself."""
        self._text = ""
        self._tokens = []

    def cut(self, text: str, words: tuple[Word, ...]) -> tuple[str, tuple[Word, ...]]:
        """What is new of a text and its words; all of it where it holds nothing of the head."""
        if not self._text:
            return text, words
        if words:
            return self._cut_by_time(text, words)
        if text.startswith(self._text) and not text[len(self._text) : len(self._text) + 1].isalnum():
            return text[len(self._text) :].lstrip(_MARKS), ()
        tokens = list(_TOKEN.finditer(text))
        known = self._known(tokens)
        return (text if known is None else _after(text, tokens, known)), ()

    def _cut_by_time(self, text: str, words: tuple[Word, ...]) -> tuple[str, tuple[Word, ...]]:
        new = tuple(word for word in words if word.start_ms >= self._end_ms)
        if len(new) == len(words):
            return text, words
        tokens = list(_TOKEN.finditer(text))
        if len(tokens) != len(words):
            known = self._known(tokens) if new else len(tokens)
            return _after(text, tokens, len(words) - len(new) if known is None else known), new
        return _after(text, tokens, len(words) - len(new)), new

    def _known(self, tokens: list[re.Match[str]]) -> int | None:
        """How many of the tokens belong to the head; None where it is not there at all."""
        if not tokens:
            return 0
        head, now = self._tokens, [_bare(token) for token in tokens]
        shared = 0
        for before, after in zip(head, now, strict=False):
            if before != after:
                break
            shared += 1
        if shared == len(head):
            return shared
        head, now = head[shared:], now[shared : shared + 2 * len(head)]
        if len(head) > MAX_ALIGNED:
            return shared + min(len(head), len(now))
        blocks = [b for b in SequenceMatcher(None, head, now, autojunk=False).get_matching_blocks() if b.size]
        matched = shared + sum(block.size for block in blocks)
        if matched * 2 >= min(shared + len(head), shared + len(now)) > 0:
            # The rest of the head behind the last words that agree is taken to be as long as it was.
            last = blocks[-1] if blocks else None
            done, at = (last.a + last.size, last.b + last.size) if last else (0, 0)
            return shared + min(at + len(head) - done, len(now))
        if len(now) + 1 >= len(head) and _alike(head, now[: len(head)]):
            return shared + min(len(head), len(now))
        return None


class QuietSpan:
    """Whether nothing has changed for so long, both on the clock on the wall and in audio sent.

    The wall alone would count an idle caller, the audio alone one that sends faster than it was spoken.
    """

    def __init__(self, quiet_ms: int) -> None:
        """`quiet_ms` 0: never."""
        self._quiet_ms = quiet_ms
        self._changes = -1
        self._since_ms = 0
        self._sent_ms = 0

    def passed(self, changes: int, now_ms: int, sent_ms: int) -> bool:
        """`changes` differs from last time's where anything has changed since."""
        if changes != self._changes:
            self._changes, self._since_ms, self._sent_ms = changes, now_ms, sent_ms
            return False
        if not self._quiet_ms:
            return False
        return now_ms - self._since_ms >= self._quiet_ms and sent_ms - self._sent_ms >= self._quiet_ms


def _bare(token: re.Match[str]) -> str:
    return token.group().casefold().strip(_EDGES)


def _alike(head: list[str], now: list[str]) -> bool:
    return SequenceMatcher(None, " ".join(head), " ".join(now), autojunk=False).ratio() >= ALIKE


def _after(text: str, tokens: list[re.Match[str]], known: int) -> str:
    return text[tokens[known].start() :].lstrip(_MARKS) if known < len(tokens) else ""
