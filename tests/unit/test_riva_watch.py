"""When a server's silence is a stall, when it is worth telling, and when the caller's own is to be filled."""

from __future__ import annotations

import random

import pytest

from asr.config import RivaConfig
from asr.engines.riva_watch import CLOSE_LOOK_S, OWES_S, WINDOW_MS, Unheard, Watch

MS = 32
LOUD = random.Random(1).randbytes(100 * MS)
QUIET = bytes(100 * MS)
HISS = bytes([20, 0, 236, 255]) * (25 * MS)
"""About -64 dB of full scale."""


class Call:
    """A call whose audio flows at the pace of speech, looked at as `RivaCall` does."""

    def __init__(self, **config: int) -> None:
        self.watch = Watch(RivaConfig(**config))
        self.now = 100.0
        self.sent = 0
        self.told: list[tuple[float, str]] = []
        self.failed: tuple[float, str] | None = None
        self._begun = self.now
        self._next_look = self.now

    @property
    def elapsed(self) -> float:
        return round(self.now - self._begun, 3)

    def send(self, sound: bytes, ms: int) -> None:
        for _ in range(0, ms, 100):
            if self.watch.first_audio_at is None:
                self.watch.begun(self.now)
            self.watch.wrote_at = self.now
            self.watch.unheard.chunks.append(sound)
            self.sent += len(sound)
            self.wait(100)

    def wait(self, ms: int) -> None:
        for _ in range(0, ms, 50):
            self.now += 0.05
            if self.now >= self._next_look and self.failed is None:
                failure = self.watch.look(self.now, self.sent)
                if failure is not None:
                    self.failed = (self.elapsed, failure)
                    return
                detail = self.watch.degraded(self.now, self.sent)
                if detail:
                    self.told.append((self.elapsed, detail))
                self._next_look = self.now + self.watch.next_look_s(self.now)

    def answer(self) -> None:
        self.watch.answered(self.now)


def test_speech_that_is_not_answered_is_told_and_then_a_stall() -> None:
    call = Call()
    call.answer()
    call.send(LOUD, 12_000)
    assert call.failed is not None
    at_s, message = call.failed
    assert 8.0 <= at_s <= 9.0
    assert "8 s of speech" in message
    ((told_s, detail),) = call.told
    assert 2.0 <= told_s <= 3.0
    assert "slow" in detail


@pytest.mark.parametrize("sound", [QUIET, HISS])
def test_silence_need_not_be_answered(sound: bytes) -> None:
    call = Call()
    call.answer()
    call.send(sound, 60_000)
    assert (call.failed, call.told) == (None, [])


def test_a_cough_in_the_silence_need_not_be_answered() -> None:
    call = Call()
    call.answer()
    for _ in range(5):
        call.send(LOUD, 200)
        call.send(QUIET, 8000)
    assert (call.failed, call.told) == (None, [])


def test_the_time_counts_from_where_speech_began() -> None:
    call = Call()
    call.answer()
    call.send(QUIET, 20_000)
    call.send(LOUD, 7500)
    assert call.failed is None
    call.send(LOUD, 1500)
    assert call.failed is not None
    assert 28.0 <= call.failed[0] <= 29.0


def test_a_pause_of_the_caller_is_no_silence_of_the_server() -> None:
    call = Call()
    call.answer()
    call.send(LOUD, 1500)
    call.wait(30_000)
    call.send(LOUD, 1000)
    assert call.failed is None


def test_answers_keep_all_quiet() -> None:
    call = Call()
    for _ in range(60):
        call.send(LOUD, 1000)
        call.answer()
    assert (call.failed, call.told) == (None, [])
    assert not call.watch.unheard
    assert call.watch.next_look_s(call.now) == 1.0


def test_each_silence_is_told_once() -> None:
    call = Call(stall_timeout_ms=0)
    call.answer()
    for _ in range(3):
        call.send(LOUD, 6000)
        call.answer()
    assert len(call.told) == 3
    assert call.failed is None


def test_a_first_answer_that_does_not_come() -> None:
    call = Call()
    call.send(LOUD, 12_000)
    ((told_s, detail),) = call.told
    assert 2.0 <= told_s <= 3.0
    assert "not answered yet" in detail
    assert call.failed is not None
    assert 10.0 <= call.failed[0] <= 11.0


def test_a_write_that_is_stuck() -> None:
    call = Call()
    call.answer()
    call.watch.wrote_at, call.watch.writing = call.now, True
    call.wait(12_000)
    assert "takes no audio" in call.told[0][1]
    assert call.failed is not None
    assert "taken no audio for 8 s" in call.failed[1]


def test_after_the_audio_only_the_drain_counts() -> None:
    call = Call()
    call.answer()
    call.send(LOUD, 1000)
    call.watch.half_closed_at = call.now
    call.wait(11_000)
    assert call.failed is None
    assert len(call.told) == 1, "that it is slow"
    call.wait(2500)
    assert call.failed is not None
    assert "after the end of the audio" in call.failed[1]


def test_who_is_idle() -> None:
    watch = Watch(RivaConfig(idle_silence_ms=15_000))
    assert not watch.idle(50.0), "nothing was opened yet"
    watch.wrote_at = 10.0
    assert not watch.idle(24.9)
    assert watch.idle(25.0)
    watch.writing = True
    assert not watch.idle(25.0)
    watch.writing = False
    watch.half_closed_at = 20.0
    assert not watch.idle(25.0)
    off = Watch(RivaConfig(idle_silence_ms=0))
    off.wrote_at = 10.0
    assert not off.idle(1e6)


def test_looks_are_close_only_where_an_answer_is_due() -> None:
    watch = Watch(RivaConfig())
    watch.begun(10.0)
    watch.unheard.chunks.append(LOUD)
    assert watch.next_look_s(10.0 + OWES_S - 0.1) == 1.0
    assert watch.next_look_s(10.0 + OWES_S) == CLOSE_LOOK_S


def test_what_was_sent_fast_is_dated_by_the_clock() -> None:
    unheard = Unheard()
    unheard.clear(50.0)
    unheard.chunks.append(LOUD * 100)
    unheard.judge(50.2, len(LOUD) * 100)
    # Ten seconds of audio in a fifth of a second.
    assert not unheard.spoken(2000, 50.2, len(LOUD) * 100)
    assert unheard.spoken(2000, 52.0, len(LOUD) * 100)


def test_speech_is_dated_where_it_began() -> None:
    unheard = Unheard()
    unheard.clear(50.0)
    unheard.chunks.extend([QUIET] * 8 + [LOUD] * 12)
    unheard.judge(52.0, 2000 * MS)
    assert unheard.spoken(1200, 52.0, 2000 * MS)
    assert not unheard.spoken(1250, 52.0, 2000 * MS)


def test_memory_is_bounded() -> None:
    unheard = Unheard()
    unheard.clear(0.0)
    sent, most = 0, 0
    for number in range(5000):
        unheard.chunks.append(LOUD)
        sent += len(LOUD)
        most = max(most, len(unheard.chunks))
        if sent >= unheard.full_at:
            unheard.full(number / 10, sent)
    assert most * 100 <= WINDOW_MS
    assert len(unheard._stretches) <= 2
    assert unheard.spoken(8000, 500.0, sent)


def test_what_was_answered_is_not_looked_at() -> None:
    unheard = Unheard()
    unheard.chunks.append(LOUD)
    unheard.full(1.0, unheard.full_at)
    assert list(unheard.chunks) == [LOUD]
    assert unheard.full_at == 15_000 * MS


def test_a_torn_end_is_no_matter() -> None:
    unheard = Unheard()
    for size in (2, 638, 642, 10_000):
        unheard.chunks.append((LOUD * 4)[:size])
    unheard.judge(1.0, 11_282)
    assert unheard.is_loud(500)
    unheard.judge(2.0, 11_282)
    assert unheard


def test_a_server_that_has_never_answered_is_given_time_in_silence_and_not_in_speech() -> None:
    quiet = Call()
    quiet.send(QUIET, 40_000)
    assert quiet.failed is None
    spoken = Call()
    spoken.send(LOUD, 12_000)
    assert spoken.failed is not None
    assert "did not answer" in spoken.failed[1]
