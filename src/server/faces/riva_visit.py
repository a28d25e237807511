"""A streaming call over gRPC whose caller may have to leave before it is done: see `server.access.vigil`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from asr.errors import ASRError
from server.access.grants import Grant
from server.access.vigil import GRACE_S
from server.telemetry.watch import StreamWatch


class Visit:
    """One call, in the task that serves it.

    Attributes:
        grant: what the caller may do.
        error: why it may stay no longer, once that is so.
        bound: of the read that waits for the caller, if one does.
    """

    def __init__(self, grant: Grant, watch: StreamWatch) -> None:
        self.grant = grant
        self.error: ASRError | None = None
        self.bound: asyncio.Timeout | None = None
        self._watch = watch
        self._task = asyncio.current_task()
        self._late: asyncio.TimerHandle | None = None
        self._was_cut = False

    @property
    def audio_ms(self) -> float:
        """Audio so far."""
        return self._watch.audio_ms

    def expiring(self, left_ms: int) -> None:
        """Riva's messages have no words for it."""

    def cut_short(self, error: ASRError) -> None:
        """The reader ends the audio with this error, so that the last results come before it; or the call is cut."""
        self.error = error
        loop = asyncio.get_running_loop()
        if self._late is None:
            self._late = loop.call_later(GRACE_S, self._cut)
        if self.bound is not None and not self.bound.expired():
            self.bound.reschedule(loop.time())

    @contextmanager
    def within(self) -> Iterator[None]:
        """Around the work of the call.

        Raises:
            ASRError: why it was cut.
        """
        try:
            yield
        except asyncio.CancelledError:
            if not self._was_cut or self.error is None:
                raise
            if self._task is not None:
                self._task.uncancel()
            raise self.error from None
        finally:
            if self._late is not None:
                self._late.cancel()

    def _cut(self) -> None:
        self._was_cut = True
        if self._task is not None:
            self._task.cancel()
