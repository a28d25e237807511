"""Revisable guesses as text that only ever grows, for protocols whose clients join what they are sent.

Pure, and below the faces. Of a partial only the head on which successive partials agree is let out; the final adds
the rest. Where a final contradicts what is out already, that stays out, and the protocol's last word (the whole
text) is right: only words that the final adds behind it follow.
"""

from __future__ import annotations

from asr.transcript import seam


class Deltas:
    """The growing text of one stream; `sent` is all of it so far. Each channel speaks for itself.

    Args:
        language: BCP-47; it decides what stands between two utterances.
    """

    def __init__(self, language: str = "") -> None:
        self.sent = ""
        self._language = language
        self._out: dict[int, str] = {}

    def partial(self, text: str, stable_chars: int, channel: int = 0) -> str:
        """What a partial adds, or "". While one channel speaks, the partials of others wait for their final."""
        if any(out for other, out in self._out.items() if other != channel):
            return ""
        agreed = text[:stable_chars].rstrip()
        out = self._out.get(channel, "")
        return self._grow(channel, agreed) if len(agreed) > len(out) and agreed.startswith(out) else ""

    def final(self, text: str, channel: int = 0) -> str:
        """What a final adds, or ""; the channel's next text begins a new utterance."""
        out = self._out.get(channel, "")
        whole = text if text.startswith(out) else out + _behind(out, text)
        delta = self._grow(channel, whole) if len(whole) > len(out) else ""
        self._out.pop(channel, None)
        return delta

    def _grow(self, channel: int, text: str) -> str:
        out = self._out.get(channel, "")
        gap = "" if out else seam(self.sent, text, self._language)
        self._out[channel] = text
        delta = gap + text[len(out) :]
        self.sent += delta
        return delta


def _behind(out: str, text: str) -> str:
    """What the final has behind as many words as are out."""
    words = text.split()[len(out.split()) :]
    return " " + " ".join(words) if words else ""
