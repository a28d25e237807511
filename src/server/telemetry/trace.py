"""Trace context as W3C's `traceparent` spells it. Pure; randomness is an argument.

https://www.w3.org/TR/trace-context/: version, trace id (16 bytes), span id (8 bytes), flags, in lower-case hex.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_MAX_STATE_CHARS = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a stream stands in a trace.

    Attributes:
        trace_id: 32 hex digits, the same over all services.
        span_id: 16 hex digits: ours.
        parent_id: the caller's span, or "" where the trace begins here.
        sampled: whether its spans are kept.
        state: `tracestate`, passed on unread.
    """

    trace_id: str
    span_id: str
    parent_id: str = ""
    sampled: bool = True
    state: str = ""

    def header(self) -> str:
        """The `traceparent` that whoever is asked next is told."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def with_sampling(self, sampled: bool) -> TraceContext:
        """The same, kept or not."""
        return replace(self, sampled=sampled)


def trace_of(traceparent: str, tracestate: str, token_hex: Callable[[int], str]) -> TraceContext:
    """Ours within the caller's trace; a trace of our own where it told none that can be read.

    Args:
        traceparent: as the caller sent it, or "".
        tracestate: as the caller sent it, or "".
        token_hex: so many random bytes in hex.
    """
    found = _PARENT.fullmatch(traceparent.strip().lower()) if traceparent else None
    if found is None or found[1] == "ff" or not found[2].strip("0") or not found[3].strip("0"):
        return TraceContext(token_hex(16), token_hex(8))
    if found[1] == "00" and found[5]:
        return TraceContext(token_hex(16), token_hex(8))
    state = tracestate.strip()
    if len(state) > _MAX_STATE_CHARS or not state.isprintable():
        state = ""
    return TraceContext(found[2], token_hex(8), found[3], bool(int(found[4], 16) & _SAMPLED), state)
