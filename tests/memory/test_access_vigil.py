"""Who is in, and may stay: looked at by one timer, and counted once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from asr.errors import ASRError, Code
from server.access.gate import Gate
from server.access.grants import Grant
from server.access.origins import OriginPolicy
from server.access.porter import Porter
from server.access.vigil import Vigil


class Revocable:
    """A verifier whose grants hold until their serial is in the list."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def verify(self, credential: str) -> Grant | None:
        return None

    def still_good(self, grant: Grant) -> bool:
        return grant.serial not in self.revoked


class Meter:
    """A quota of 1,000 ms, for everybody together."""

    def __init__(self) -> None:
        self.spent_ms = 0.0

    def start(self, grant: Grant) -> ASRError | None:
        return None

    def spend(self, grant: Grant, audio_ms: float) -> ASRError | None:
        self.spent_ms += audio_ms
        return ASRError(Code.RATE_LIMITED, "used up") if self.spent_ms >= 1_000 else None


class Stream:
    def __init__(self, grant: Grant | None, *, breaks: bool = False) -> None:
        self.grant = grant
        self.audio_ms = 0.0
        self.told: list[Code] = []
        self.warned: list[int] = []
        self._breaks = breaks

    def expiring(self, left_ms: int) -> None:
        self.warned.append(left_ms)

    def cut_short(self, error: ASRError) -> None:
        self.told.append(error.code)
        if self._breaks:
            raise RuntimeError("a defect")


class Hall:
    """A vigil with what it asks."""

    def __init__(self) -> None:
        self.now, self.keys, self.meter = 100.0, Revocable(), Meter()
        gate = Gate([self.keys], is_open=False, unix_time=lambda: self.now)
        self.vigil = Vigil(Porter(gate, OriginPolicy(frozenset(), is_tls=True), usage=self.meter))

    def enter(self, *streams: Stream) -> Sequence[Stream]:
        for stream in streams:
            self.vigil.begin(stream)
        return streams

    def leave(self, *streams: Stream) -> None:
        for stream in streams:
            self.vigil.end(stream)


async def test_what_has_expired_or_was_revoked_is_told_once() -> None:
    hall = Hall()
    soon, never, taken = Grant("key a", expires_at=101.0), Grant("key b"), Grant("key c", serial="k")
    streams = hall.enter(Stream(soon, breaks=True), Stream(never), Stream(taken), Stream(None))
    hall.vigil.look()
    assert [stream.told for stream in streams] == [[], [], [], []]
    hall.now = 101.0
    hall.keys.revoked = {"k"}
    for _ in range(3):
        hall.vigil.look()
    assert [stream.told for stream in streams] == [[Code.UNAUTHORIZED], [], [Code.UNAUTHORIZED], []]
    streams[0].grant = None  # its client is away
    hall.vigil.look()
    streams[0].grant = Grant("key a", expires_at=105.0)  # and is back with another credential
    hall.vigil.look()
    assert len(streams[0].told) == 1
    hall.now = 105.0
    hall.vigil.look()
    assert len(streams[0].told) == 2
    hall.leave(*streams)
    assert len(hall.vigil) == 0


async def test_what_expires_soon_is_told_once_for_each_credential() -> None:
    hall = Hall()
    [one, never] = hall.enter(Stream(Grant("key a", expires_at=140.0)), Stream(Grant("key b")))
    for hall.now in (109.0, 110.0, 111.0):
        hall.vigil.look()
    assert (one.warned, never.warned) == ([30_000], [])
    one.grant = Grant("key a", expires_at=131.0)
    hall.vigil.look()
    assert (one.warned, one.told) == ([30_000, 20_000], [])
    hall.leave(one, never)


async def test_audio_is_counted_once_and_to_the_end() -> None:
    hall = Hall()
    [one, two] = hall.enter(Stream(Grant("key a")), Stream(Grant("key b")))
    one.audio_ms, two.audio_ms = 300.0, 100.0
    hall.vigil.look()
    hall.vigil.look()
    assert hall.meter.spent_ms == 400
    one.grant = None  # without a client at its end: it counts for who was there
    one.audio_ms = 500.0
    hall.leave(one)
    assert hall.meter.spent_ms == 600
    two.audio_ms = 500.0
    hall.vigil.look()
    assert two.told == [Code.RATE_LIMITED]
    hall.leave(two)
    assert hall.meter.spent_ms == 1_000


async def test_the_timer_runs_while_somebody_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.access.vigil.INTERVAL_S", 0.01)
    hall = Hall()
    [stream] = hall.enter(Stream(Grant("key a", expires_at=50.0)))
    async with asyncio.timeout(5):
        while not stream.told:
            await asyncio.sleep(0.005)
    hall.leave(stream)
    hall.leave(stream)
    assert hall.vigil._timer is None
