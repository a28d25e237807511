"""Where every stream is told of, once; what becomes of that is the sinks' business.

A sink must be quick and must not wait. One that fails is told about in the log and disturbs no stream.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable
from weakref import WeakSet

from asr.errors import Code
from asr.events import Final
from server.telemetry.record import Kind, StreamRecord, StreamStart
from server.telemetry.tallies import Tallies
from server.telemetry.trace import trace_of
from server.telemetry.watch import StreamWatch, failed


class Sink(Protocol):
    """Somebody who wants to know."""

    def opened(self, start: StreamStart) -> None:
        """A stream began."""
        ...

    def happened(self, start: StreamStart, what: str, at_s: float, **about: str | int | float) -> None:
        """Something worth telling happened in a stream, `at_s` Unix seconds.

        `first_partial` (latency_ms), `final` (latency_ms), `failover` (audio_ms, state), `recovered` (audio_ms,
        replayed_ms), `gap` (start_ms, end_ms, cause), `lost` (window_ms), `resumed` (peer, missed), `error` (code; what
        was recognized at that time failed, the stream may go on).
        """
        ...

    def closed(self, record: StreamRecord) -> None:
        """A stream is over."""
        ...

    def refused(self, face: str, code: Code) -> None:
        """Somebody was not let in."""
        ...


@runtime_checkable
class MeasuringSink(Sink, Protocol):
    """Somebody who also wants to know each latency, as it is measured. Others find a stream's own in its record."""

    def measured(self, start: StreamStart, what: str, seconds: float) -> None:
        """A latency: `first_partial`, `partial`, `final`, a part of `final` (`ingress`, `queue`, `upstream`, `egress`),
        or `queue_wait`: from when the stream's first audio was there until the recognizer takes it.
        """
        ...


class Telemetry:
    """The hub. One for each gateway; without sinks it costs next to nothing.

    Attributes:
        tallies: what other rooms count.
        watches: of the streams that are open; those who tell what only grows read it there.
    """

    def __init__(
        self,
        sinks: Sequence[Sink] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
        token_hex: Callable[[int], str] = secrets.token_hex,
        traced_share: float | None = None,
        on_final: Callable[[StreamStart, Final], None] | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            sinks: who is told.
            clock: steady seconds.
            unix_time: Unix seconds.
            token_hex: so many random bytes in hex.
            traced_share: of the streams, those whose span is kept; None where there are no spans.
            on_final: told of each final with what was said, for a log that is asked for transcripts. Sinks never are.
        """
        self._traced_share = traced_share
        self._on_final = on_final
        self._sinks = tuple(sinks)
        self._measuring = tuple(sink for sink in sinks if isinstance(sink, MeasuringSink))
        self._clock = clock
        self._unix_time = unix_time
        self._token_hex = token_hex
        self.tallies = Tallies()
        self.watches: WeakSet[StreamWatch] = WeakSet()

    def open(
        self,
        face: str,
        *,
        kind: Kind,
        peer: str,
        principal: str = "",
        traceparent: str = "",
        tracestate: str = "",
        session_id: str = "",
    ) -> StreamWatch:
        """A stream was admitted; the caller tells the watch what happens, and closes it."""
        trace = trace_of(traceparent, tracestate, self._token_hex, share=self._traced_share)
        start = StreamStart(self._token_hex(8), face, kind, peer, principal, trace, self._unix_time(), session_id)
        watch = StreamWatch(start, self._sinks, self._measuring, self._clock, self._unix_time, self._on_final)
        self.watches.add(watch)
        for sink in self._sinks:
            try:
                sink.opened(start)
            except Exception:
                failed(sink)
        return watch

    def refused(self, face: str, code: Code) -> None:
        """Somebody was not let in."""
        for sink in self._sinks:
            try:
                sink.refused(face, code)
            except Exception:
                failed(sink)
