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
        span_id: 16 hex digits: ours, or the caller's where no spans are made here.
        parent_id: the caller's span, or "" where the trace begins here, and where no spans are made.
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


def trace_of(
    traceparent: str, tracestate: str, token_hex: Callable[[int], str], *, share: float | None = None
) -> TraceContext:
    """Ours within the caller's trace; a trace of our own where it told none that can be read.

    Args:
        traceparent: as the caller sent it, or "".
        tracestate: as the caller sent it, or "".
        token_hex: so many random bytes in hex.
        share: of the traces that begin here, those that are kept, 0 to 1; in others the caller has decided. None:
            no spans are made here. Whoever is asked next is told of the caller's span then.
    """
    found = _read(traceparent)
    if found is None:
        trace_id = token_hex(16)
        return TraceContext(trace_id, token_hex(8), sampled=share is not None and in_share(trace_id, share))
    state = tracestate.strip()
    if len(state) > _MAX_STATE_CHARS or not state.isprintable():
        state = ""
    sampled = _is_sampled(found)
    if share is None:
        return TraceContext(found[2], found[3], sampled=sampled, state=state)
    return TraceContext(found[2], token_hex(8), found[3], sampled, state)


def caller_of(traceparent: str) -> str:
    """The caller's own place, for work that is done later; "" where it told none that can be read.

    >>> caller_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-03"), caller_of("00-1-2-3")
    ('00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', '')
    """
    found = _read(traceparent)
    return "" if found is None else TraceContext(found[2], found[3], sampled=_is_sampled(found)).header()


def _read(traceparent: str) -> re.Match[str] | None:
    found = _PARENT.fullmatch(traceparent.strip().lower()) if traceparent else None
    if found is None or found[1] == "ff" or not found[2].strip("0") or not found[3].strip("0"):
        return None
    return None if found[1] == "00" and found[5] else found


def _is_sampled(found: re.Match[str]) -> bool:
    return bool(int(found[4], 16) & _SAMPLED)


def in_share(trace_id: str, share: float) -> bool:
    """Whether that trace is among the `share` that is kept; the same at every service that uses OpenTelemetry's rule.

    >>> in_share("f" * 32, 1.0), in_share("0" * 31 + "1", 0.0), in_share("0" * 16 + "7" + "f" * 15, 0.5)
    (True, False, True)
    """
    return int(trace_id[16:], 16) < round(share * 2**64)
