"""What another program prints, as lines of bounded length and number, without the secrets that it was given. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LINE_BYTES = 2_000
LINES_PER_S = 50.0
BURST_LINES = 1_000
HIDDEN = b"[secret]"
CUT = "…"


class Lines:
    """Cuts bytes into lines.

    Args:
        secrets: never shown, wherever they stand.
        max_bytes: of one line; the rest of a longer one is left out.
    """

    def __init__(self, secrets: Sequence[str] = (), *, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._secrets = sorted((secret.encode() for secret in secrets if secret), key=len, reverse=True)
        self._max_bytes = max_bytes
        # A secret that begins within the bound is seen whole before the line is cut.
        self._kept_bytes = max_bytes + max((len(secret) for secret in self._secrets), default=0)
        self._rest = b""
        self._was_cut = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that are whole with `data`; empty ones are left out."""
        *whole, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        found = [self._line(line, cut=self._was_cut and number == 0) for number, line in enumerate(whole)]
        self._was_cut = (self._was_cut and not whole) or len(rest) > self._kept_bytes
        self._rest = rest[: self._kept_bytes]
        return [line for line in found if line]

    def end(self) -> list[str]:
        """What came after the last line end."""
        return self.feed(b"\n")

    def _line(self, line: bytes, *, cut: bool) -> str:
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        is_cut = cut or len(line) > self._max_bytes
        text = line[: self._max_bytes].decode("utf-8", "replace").rstrip()
        return f"{text}{CUT}" if is_cut else text


class Flow:
    """How many lines may pass: so many each second, and some more at once after a quiet time."""

    def __init__(self, per_s: float = LINES_PER_S, burst: int = BURST_LINES) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = float(burst)
        self._at: float | None = None
        self.left_out = 0
        """Lines that did not pass since this was last set to 0."""

    def passes(self, now_s: float) -> bool:
        """Whether a line may pass at `now_s`, in seconds of any steady clock."""
        since_s = 0.0 if self._at is None else max(now_s - self._at, 0.0)
        self._at = now_s
        self._left = min(self._left + since_s * self._per_s, float(self._burst))
        if self._left < 1:
            self.left_out += 1
            return False
        self._left -= 1
        return True
