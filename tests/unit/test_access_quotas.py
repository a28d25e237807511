"""Quotas: starts in a minute, audio in a day, in bounded memory, from which nobody gains by being forgotten."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import Code
from server.access.grants import Allowance, Grant
from server.access.quotas import AUDIO_MINUTES, STARTS, Ledger, Quotas

MIDNIGHT = 1_800_057_600.0
MINUTE_MS = 60_000


class Clocked:
    """Quotas on clocks that are set by hand."""

    def __init__(self, default: Allowance | None = None, *, max_callers: int = 100, unix: float = MIDNIGHT) -> None:
        self.now, self.unix = 0.0, unix
        self.quotas = Quotas(
            default or Allowance(),
            clock=lambda: self.now,
            unix_time=lambda: self.unix,
            max_callers=max_callers,
        )


def caller(name: str = "app", **bounds: int) -> Grant:
    return Grant(f"key {name}", allowance=Allowance(**bounds))


def test_starts_are_bounded_in_a_minute_and_come_back_one_by_one() -> None:
    clocked = Clocked()
    app = caller(starts_per_minute=6)
    assert [clocked.quotas.start(app) for _ in range(6)] == [None] * 6
    error = clocked.quotas.start(app)
    assert error is not None
    assert (error.code, error.retry_after_ms) == (Code.RATE_LIMITED, 10_000)
    clocked.now += 10
    assert clocked.quotas.start(app) is None
    assert clocked.quotas.start(app) is not None
    clocked.now += 600
    assert [clocked.quotas.start(app) for _ in range(7)].count(None) == 6
    assert clocked.quotas.refused == {STARTS: 3}


def test_audio_is_bounded_in_a_day() -> None:
    clocked = Clocked()
    app = caller(audio_minutes_per_day=2)
    assert clocked.quotas.spend(app, MINUTE_MS) is None
    assert clocked.quotas.spend(app, MINUTE_MS - 1) is None
    clocked.unix += 3_600
    error = clocked.quotas.spend(app, 1)
    assert error is not None
    assert (error.code, error.retry_after_ms) == (Code.RATE_LIMITED, 23 * 3_600_000)
    assert clocked.quotas.start(app) is not None
    assert clocked.quotas.refused == {AUDIO_MINUTES: 2}
    clocked.unix = MIDNIGHT + 86_400
    assert clocked.quotas.start(app) is None
    assert clocked.quotas.spent_ms("key app") == 0


def test_a_clock_that_is_set_back_gives_no_second_day() -> None:
    clocked = Clocked()
    app = caller(audio_minutes_per_day=1)
    clocked.quotas.spend(app, MINUTE_MS)
    clocked.unix -= 100_000
    assert clocked.quotas.start(app) is not None


def test_a_credential_without_bounds_has_those_of_the_settings() -> None:
    clocked = Clocked(Allowance(0, 1, 1))
    generous = caller("generous", starts_per_minute=10, audio_minutes_per_day=10)
    for grant, starts, minutes in ((caller(), 1, 1), (generous, 10, 10)):
        assert [clocked.quotas.start(grant) for _ in range(12)].count(None) == starts
        assert [clocked.quotas.spend(grant, MINUTE_MS) for _ in range(12)].count(None) == minutes - 1


def test_without_any_bound_nothing_is_kept() -> None:
    clocked = Clocked()
    for _ in range(1_000):
        assert clocked.quotas.start(caller()) is None
        assert clocked.quotas.spend(caller(), MINUTE_MS) is None
    assert clocked.quotas.snapshot()["spent_ms"] == {}


def test_those_for_whom_somebody_pays_share_what_there_is() -> None:
    clocked = Clocked()
    subjects = [Grant(f"key app for {number}", allowance=Allowance(0, 3, 1)) for number in range(9)]
    assert [clocked.quotas.start(subject) for subject in subjects].count(None) == 3
    for subject in subjects:
        clocked.quotas.spend(subject, MINUTE_MS / 9)
    assert clocked.quotas.spend(caller(audio_minutes_per_day=1), 1) is not None


def test_a_restart_goes_on_with_the_day() -> None:
    before = Clocked()
    before.quotas.spend(caller(audio_minutes_per_day=2), 1.5 * MINUTE_MS)
    snapshot = json.loads(json.dumps(before.quotas.snapshot()))
    after = Clocked()
    after.quotas.restore(snapshot)
    assert after.quotas.spent_ms("key app") == 1.5 * MINUTE_MS
    tomorrow = Clocked(unix=MIDNIGHT + 86_400)
    tomorrow.quotas.restore(snapshot)
    assert tomorrow.quotas.spent_ms("key app") == 0


@pytest.mark.parametrize(
    "snapshot",
    [
        None,
        [],
        {},
        {"version": 2, "day": 1, "forgotten_ms": 0, "spent_ms": {}},
        {"version": 1, "day": 1, "forgotten_ms": 0, "spent_ms": []},
        {"version": 1, "day": 1, "forgotten_ms": -1, "spent_ms": {}},
        {"version": 1, "day": 1, "forgotten_ms": 0, "spent_ms": {"key app": "much"}},
        {"version": 1, "day": 1, "forgotten_ms": 0, "spent_ms": {"key app": float("nan")}},
        {"version": 1, "day": 1, "forgotten_ms": 0, "spent_ms": {"key app": -5}},
        {"version": 1, "day": float("inf"), "forgotten_ms": 0, "spent_ms": {}},
    ],
)
def test_what_is_no_snapshot_is_refused(snapshot: object) -> None:
    with pytest.raises(ValueError, match="it is"):
        Clocked().quotas.restore(snapshot)


def test_memory_is_bounded_and_nobody_gains_by_being_forgotten() -> None:
    clocked = Clocked(max_callers=20)
    app = caller(audio_minutes_per_day=5)
    clocked.quotas.spend(app, 5 * MINUTE_MS)
    for number in range(1_000):
        clocked.quotas.spend(caller(str(number), audio_minutes_per_day=5), 10)
    assert len(clocked.quotas.snapshot()["spent_ms"]) == 20
    assert clocked.quotas.start(app) is not None
    newcomer = caller("newcomer", audio_minutes_per_day=5)
    assert clocked.quotas.start(newcomer) is None  # those who were forgotten had used next to nothing


@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0, 100)), max_size=200),
    st.integers(1, 5),
)
def test_a_ledger_never_counts_too_little(spent: list[tuple[int, float]], most: int) -> None:
    ledger, truth = Ledger(most), dict[str, float]()
    for number, amount in spent:
        name = str(number)
        truth[name] = truth.get(name, 0.0) + amount
        ledger.put(name, ledger.get(name) + amount)
        assert len(ledger) <= most
        assert all(ledger.get(known) >= real - 1e-6 for known, real in truth.items())


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 100))
def test_no_minute_has_more_than_twice_its_starts(pauses: list[float], per_minute: int) -> None:
    """A full allowance at once, and what comes back within the minute."""
    clocked = Clocked()
    app = caller(starts_per_minute=per_minute)
    began = list[float]()
    for pause in pauses:
        clocked.now += pause
        if clocked.quotas.start(app) is None:
            began.append(clocked.now)
    for at in began:
        assert sum(at <= other < at + 60 for other in began) <= 2 * per_minute
