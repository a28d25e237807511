"""The limit that the lag shows, by windows and against a simulated server."""

from __future__ import annotations

import sys

from asr.resilience.limit import AdaptiveLimit

MAX_LAG_MS = 1_500


def feed(limit: AdaptiveLimit, begin: float, lags_ms: list[int], streams: int) -> float:
    """One window of these lags; the time after it."""
    for i, lag_ms in enumerate(lags_ms):
        limit.sample(lag_ms, streams, begin + 0.99 * i / len(lags_ms))
    return begin + 1.0


def lowered(limit: AdaptiveLimit, now: float, streams: int) -> float:
    now = feed(limit, now, [100] * 20, streams)
    now = feed(limit, now, [4_000] * 20, streams)
    assert limit.limit(now) == max(1, streams * 9 // 10)
    return now


def test_no_limit_is_known_at_first() -> None:
    assert AdaptiveLimit(0, MAX_LAG_MS, True).limit(0.0) is None
    assert AdaptiveLimit(80, MAX_LAG_MS, True).limit(0.0) == 80


def test_without_adaptation_lag_changes_nothing() -> None:
    for fixed, expected in ((0, None), (80, 80)):
        limit = AdaptiveLimit(fixed, MAX_LAG_MS, False)
        assert limit.limit(feed(limit, 0.0, [9_000] * 50, 60)) == expected


def test_lag_takes_a_tenth_off_the_streams_in_use() -> None:
    limit = AdaptiveLimit(80, MAX_LAG_MS, True)
    lowered(limit, 0.0, 40)


def test_one_stream_is_always_allowed() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    now = lowered(limit, 0.0, 1)
    for _ in range(5):
        now = feed(limit, now, [9_000] * 20, 1)
    assert limit.limit(now) == 1


def test_nothing_is_judged_before_the_window_is_over() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    feed(limit, 10.0, [4_000] * 20, 40)
    assert limit.limit(10.99) is None
    assert limit.limit(11.0) == 36


def test_a_tenth_of_the_samples_may_lag() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    now = feed(limit, 0.0, [100] * 18 + [9_000] * 2, 40)
    assert limit.limit(now) is None
    now = feed(limit, now, [100] * 17 + [9_000] * 3, 40)
    assert limit.limit(now) == 36


def test_a_few_samples_are_no_evidence() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    assert limit.limit(feed(limit, 0.0, [9_000] * 4, 40)) is None


def test_no_further_step_down_before_the_last_one_took_effect() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    now = lowered(limit, 0.0, 50)
    for streams in (50, 49, 46):
        now = feed(limit, now, [5_000] * 20, streams)
        assert limit.limit(now) == 45
    assert limit.limit(feed(limit, now, [5_000] * 20, 45)) == 40


def test_a_backlog_that_drains_is_waited_for() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    now = lowered(limit, 0.0, 50)
    for lag_ms in (3_900, 3_500, 2_500, 1_600):
        now = feed(limit, now, [lag_ms] * 20, 45)
        assert limit.limit(now) == 45


def test_it_grows_when_it_is_used_up_and_the_lag_is_short() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    now = lowered(limit, 0.0, 50)
    now = feed(limit, now, [200] * 20, 45)
    assert limit.limit(now) == 48
    now = feed(limit, now, [200] * 20, 40)
    assert limit.limit(now) == 48, "40 of 48 is room enough"
    for _ in range(3):
        now = feed(limit, now, [800] * 20, 48)
        assert limit.limit(now) == 48, "over half of the longest lag"
    now = feed(limit, now, [300] * 20, 48)
    now = feed(limit, now, [700] * 20, 51)
    assert limit.limit(now) == 51, "still short, and on its way up"


def test_growth_ends_at_the_fixed_limit() -> None:
    limit = AdaptiveLimit(50, MAX_LAG_MS, True)
    now = lowered(limit, 0.0, 50)
    for _ in range(10):
        now = feed(limit, now, [200] * 20, 50)
    assert limit.limit(now) == 50


def test_streams_over_the_fixed_limit_do_not_raise_it() -> None:
    limit = AdaptiveLimit(10, MAX_LAG_MS, True)
    assert limit.limit(feed(limit, 0.0, [9_000] * 20, 40)) == 10


def test_an_unused_limit_is_forgotten() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    now = lowered(limit, 0.0, 50)
    for _ in range(200):
        now = feed(limit, now, [200] * 6, 20)
    assert limit.limit(now) == 45
    for _ in range(110):
        now = feed(limit, now, [200] * 6, 20)
    assert limit.limit(now) is None

    quiet = AdaptiveLimit(80, MAX_LAG_MS, True)
    now = lowered(quiet, 0.0, 50)
    assert quiet.limit(now + 290) == 45
    assert quiet.limit(now + 310) == 80, "nor does it take any stream to forget"


def test_a_half_used_limit_is_remembered() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)
    now = lowered(limit, 0.0, 50)
    for _ in range(400):
        now = feed(limit, now, [200] * 6, 30)
    assert limit.limit(now) == 45


def test_memory_does_not_grow_with_samples() -> None:
    limit = AdaptiveLimit(0, MAX_LAG_MS, True)

    def held() -> int:
        window = limit._window
        assert window is not None
        return sum(sys.getsizeof(getattr(window, name)) for name in window.__slots__)

    limit.sample(100, 5, 0.0)
    before = held()
    for _ in range(5_000):
        limit.sample(100, 5, 0.5)
    assert held() <= before + 16


class Server:
    """Keeps up with `capacity` streams; the audio of more piles up, and every stream waits for all of it.

    Clients want 90 streams all the time; a twentieth of those that run end every second.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.streams = 0
        self.backlog_s = 0.0
        self.limit = AdaptiveLimit(0, MAX_LAG_MS, True)
        self.now = 0.0
        self.ended = 0.0

    def run(self, seconds: int) -> list[int]:
        """The number of streams at the end of each second."""
        seen: list[int] = []
        for _ in range(seconds):
            for _ in range(10):
                self.now += 0.1
                self.ended += self.streams * 0.005
                self.streams -= int(self.ended)
                self.ended %= 1
                most = self.limit.limit(self.now)
                room = (90 if most is None else min(90, most)) - self.streams
                self.streams += max(0, min(room, 3))
                self.backlog_s = max(0.0, self.backlog_s + 0.1 * (self.streams - self.capacity) / self.capacity)
                for i in range(6):
                    self.limit.sample(int(200 + 1_000 * self.backlog_s * (0.9 + i / 25)), self.streams, self.now)
            seen.append(self.streams)
        return seen


def test_it_settles_near_what_the_server_can_do_and_follows_it() -> None:
    server = Server(50)
    server.run(120)
    settled = server.run(240)
    mean = sum(settled) / len(settled)
    assert 43 <= mean <= 53
    assert min(settled) >= 35
    assert max(settled) <= 60
    assert server.backlog_s < 4

    server.capacity = 75
    server.run(60)
    faster = server.run(120)
    assert 64 <= sum(faster) / len(faster) <= 80

    server.capacity = 30
    server.run(120)
    slower = server.run(240)
    assert 24 <= sum(slower) / len(slower) <= 34
