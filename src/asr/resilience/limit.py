"""How many streams one endpoint carries, found out from how far its results lag behind the audio.

A speech server that has too many streams refuses none: it gets slower for all of them. So the limit goes by the
lag, window by window, as congestion control does: a lag that is too long takes a tenth off the streams in use,
a short one under a limit that is used up adds a twentieth and one. In between, and while the lag moves in the
right direction anyway, it stays: a backlog takes its time to drain.

Streams that run are never cut off; a limit below their number only keeps further ones out.

No clock in here: `now` is a monotonic time in seconds.
"""

from __future__ import annotations

WINDOW_S = 1.0
"""Lags are judged together for so long."""
MIN_SAMPLES = 5
"""A window with fewer says nothing."""
FORGET_S = 300.0
"""A limit that was not even half used for so long is forgotten: it was found in another time."""


class _Window:
    """What is kept of a second's samples: a few counts, however many there were."""

    __slots__ = ("began", "count", "lagging", "peak", "slow", "streams", "total_ms")

    def __init__(self, began: float) -> None:
        self.began = began
        self.count = 0
        self.lagging = 0
        """Samples over the longest lag."""
        self.slow = 0
        """Samples over half of it."""
        self.total_ms = 0
        self.streams = 0
        self.peak = 0

    def add(self, lag_ms: int, streams: int, max_lag_ms: int) -> None:
        self.count += 1
        self.lagging += lag_ms > max_lag_ms
        self.slow += 2 * lag_ms > max_lag_ms
        self.total_ms += lag_ms
        self.streams = streams
        self.peak = max(self.peak, streams)


class AdaptiveLimit:
    """The number of streams up to which one endpoint is given another.

    Args:
        max_streams: the limit that is never exceeded; 0 for none.
        max_lag_ms: the lag that nine in ten samples should stay under.
        adaptive: whether the lag counts; if not, `max_streams` is all there is.
    """

    def __init__(self, max_streams: int, max_lag_ms: int, adaptive: bool) -> None:
        self._fixed = max_streams or None
        self._max_lag_ms = max_lag_ms
        self._adaptive = adaptive
        self._found: int | None = None
        """The limit that the lag has shown, never over the fixed one; None while it has shown none."""
        self._used_at = 0.0
        """When the found limit was last lowered, or used by more than half."""
        self._mean_ms: float | None = None
        """The mean lag of the window before."""
        self._window: _Window | None = None

    def sample(self, lag_ms: int, streams: int, now: float) -> None:
        """One stream's results lag so far behind its audio; to be told many times a second, over all streams.

        Args:
            lag_ms: from the end of what the results cover to the end of what has been sent, for audio that comes at
                the pace of speech. A file that is pushed in as fast as it goes lags by its own fault.
            streams: how many streams the endpoint has now.
            now: the time.
        """
        if not self._adaptive:
            return
        self._turn(now)
        if self._window is None:
            self._window = _Window(now)
        self._window.add(lag_ms, streams, self._max_lag_ms)

    def limit(self, now: float) -> int | None:
        """How many streams the endpoint should have at most; None if no limit is known."""
        self._turn(now)
        if self._found is not None and now - self._used_at > FORGET_S:
            self._found = None
        return self._fixed if self._found is None else self._found

    def _turn(self, now: float) -> None:
        """Judges the window if it is over."""
        window = self._window
        if window is None or now < window.began + WINDOW_S:
            return
        self._window = None
        if window.count < MIN_SAMPLES:
            return
        mean_ms, before_ms = window.total_ms / window.count, self._mean_ms
        self._mean_ms = mean_ms
        if self._found is not None and 2 * window.peak >= self._found:
            self._used_at = window.began
        # Nine in ten under a bound is the same as at most one in ten over it, and a count is all that takes.
        if 10 * window.lagging > window.count:
            if before_ms is None or mean_ms >= before_ms:
                self._lower(window)
        elif 10 * window.slow <= window.count and (before_ms is None or mean_ms <= before_ms + self._max_lag_ms / 50):
            self._raise(window)

    def _lower(self, window: _Window) -> None:
        if self._found is not None and window.streams > self._found:
            return  # the last step down has not taken effect yet
        lower = max(1, window.streams * 9 // 10)
        self._found = lower if self._fixed is None else min(lower, self._fixed)
        self._used_at = window.began

    def _raise(self, window: _Window) -> None:
        if self._found is None or 10 * window.peak < 9 * self._found:
            return
        self._found += 1 + self._found // 20
        if self._fixed is not None and self._found >= self._fixed:
            self._found = None
