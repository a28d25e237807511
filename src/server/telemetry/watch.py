"""One stream as it happens: what faces and the driver tell of it, and what is worked out from that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from server.telemetry.record import StreamStart

if TYPE_CHECKING:
    from server.telemetry.hub import Sink


class StreamWatch:
    """To be told of a stream, by one task at a time; `close` ends it."""

    def __init__(
        self,
        start: StreamStart,
        sinks: tuple[Sink, ...],
        clock: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self.start = start
        self._sinks = sinks
        self._clock = clock
        self._unix_time = unix_time
