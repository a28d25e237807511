"""A stream's watch: what it makes of what it is told, that it closes once, and that no sink disturbs it."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from typing import Any

import pytest
from structlog.testing import capture_logs

from asr.errors import ASRError, Code
from asr.events import Final, Partial
from memory_gateway import Watch
from server.telemetry.hub import Telemetry
from server.telemetry.record import Outcome, StreamRecord
from server.telemetry.takes import TakeWatch, Told
from server.telemetry.watch import MAX_PENDING, TOLD_TOGETHER, ClientGone, StreamWatch


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Broken:
    """A sink that raises whatever it is told."""

    def __getattr__(self, name: str) -> Any:
        def fail(*args: object, **about: object) -> None:
            raise RuntimeError(name)

        return fail


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sink() -> Watch:
    return Watch()


@pytest.fixture
def hub(clock: Clock, sink: Watch) -> Telemetry:
    return Telemetry([sink], clock=clock, unix_time=lambda: 1_700_000_000.0)


def opened(hub: Telemetry, kind: Any = "live") -> StreamWatch:
    return hub.open("native", kind=kind, peer="192.0.2.1:5")


def heard(watch: StreamWatch, take: TakeWatch, clock: Clock, late_s: float = 0.2, *, is_final: bool = True) -> Told:
    """100 ms of audio, and `late_s` after them the words in them."""
    take.fed(3_200, clock.now)
    take.taken()
    clock.now += late_s
    end_ms = watch.grown.audio_ms
    told = take.heard(Final(0, 1, "yes no", 0, end_ms) if is_final else Partial(0, 1, "yes", 0, end_ms))
    assert told is not None
    return told


def record_of(sink: Watch) -> StreamRecord:
    assert sink.record is not None
    return sink.record


def test_a_result_that_waits_is_measured_when_its_message_is_sent(hub: Telemetry, sink: Watch, clock: Clock):
    watch = opened(hub)
    told = heard(watch, watch.take(), clock)
    watch.waits(told, 7)
    watch.flushed(6)
    assert "final" not in sink.latencies
    clock.now += 1.0
    watch.flushed(7)
    assert sink.latencies["final"] == pytest.approx([1.2])
    assert sink.latencies["egress"] == pytest.approx([1.0])
    watch.flushed(8)
    assert len(sink.latencies["final"]) == 1


def test_a_partial_that_became_needless_is_not_measured(hub: Telemetry, sink: Watch, clock: Clock):
    watch = opened(hub)
    take = watch.take()
    for number in (1, 2, 3):
        watch.waits(heard(watch, take, clock, is_final=False), number)
    watch.flushed(3)
    watch.settle()
    assert sink.latencies["partial"] == pytest.approx([0.2])


def test_a_final_whose_message_was_followed_by_one_that_became_needless_is_measured(
    hub: Telemetry, sink: Watch, clock: Clock
):
    watch = opened(hub)
    watch.waits(heard(watch, watch.take(), clock), 4)
    watch.flushed(6)
    assert sink.latencies["final"] == pytest.approx([0.2])


def test_what_waited_for_a_client_that_went_has_no_latency(hub: Telemetry, sink: Watch, clock: Clock):
    watch = opened(hub)
    watch.waits(heard(watch, watch.take(), clock), 1)
    watch.lost(60_000)
    clock.now += 30
    watch.resumed("192.0.2.1:6", 1)
    watch.flushed(1)
    assert "final" not in sink.latencies


def test_what_waits_for_a_client_for_ever_is_bounded(hub: Telemetry, sink: Watch, clock: Clock):
    watch = opened(hub)
    take = watch.take()
    for number in range(MAX_PENDING + 500):
        watch.waits(heard(watch, take, clock), number)
    for number in range(MAX_PENDING + 500):
        watch.flushed(number)
    assert len(sink.latencies["final"]) == MAX_PENDING


def test_results_without_words_and_recordings_have_no_latency(hub: Telemetry, sink: Watch, clock: Clock):
    take = opened(hub).take()
    take.fed(3_200)
    take.taken()
    assert take.heard(Final(0, 1, "", 0, 100)) is None
    recording = opened(hub, "recording")
    take = recording.take()
    clock.now += 0.5
    take.fed(3_200)
    take.taken()
    assert take.heard(Final(0, 1, "yes", 0, 100)) is None
    recording.close()
    assert sink.latencies == {"queue_wait": [0.0, 0.5]}
    assert (record_of(sink).finals, record_of(sink).words, record_of(sink).audio_ms) == (1, 1, 100)


def test_audio_whose_header_tells_its_channels_late(hub: Telemetry, sink: Watch, clock: Clock):
    watch = opened(hub)
    take = watch.take()
    take.fed(6_400, clock.now, channels=2)
    take.taken()
    clock.now += 0.1
    told = take.heard(Final(0, 1, "yes", 0, 100))
    assert told is not None
    watch.sent(told)
    assert sink.latencies["final"] == pytest.approx([0.1])
    assert watch.grown.audio_ms == 100


def test_it_is_closed_once(hub: Telemetry, sink: Watch):
    watch = opened(hub)
    watch.close()
    first = sink.record
    watch.close(Code.INTERNAL.value)
    assert sink.record is first
    assert record_of(sink).outcome is Outcome.OK


def test_a_watch_that_nobody_holds_any_more_closes_itself_as_failed(hub: Telemetry, sink: Watch):
    watch = opened(hub)
    take = watch.take()
    del watch, take
    gc.collect()
    assert (record_of(sink).outcome, record_of(sink).code) == (Outcome.SERVER, "internal")
    assert not list(hub.watches)


ENDINGS: list[tuple[BaseException | None, Outcome, str]] = [
    (None, Outcome.OK, ""),
    (ClientGone(), Outcome.GONE, ""),
    (KeyboardInterrupt(), Outcome.GONE, ""),
    (ASRError(Code.BAD_AUDIO, "no"), Outcome.CLIENT, "bad_audio"),
    (ASRError(Code.OVERLOADED, "no"), Outcome.SERVER, "overloaded"),
    (ValueError("defect"), Outcome.SERVER, "internal"),
]


@pytest.mark.parametrize(("raised", "outcome", "code"), ENDINGS, ids=repr)
def test_the_end_of_what_is_done_for_a_stream_closes_it(
    hub: Telemetry, sink: Watch, raised: BaseException | None, outcome: Outcome, code: str
):
    watch = opened(hub)
    expected = pytest.raises(type(raised)) if raised is not None else nullcontext()
    with expected, watch.until_over():
        if raised is not None:
            raise raised
    assert (record_of(sink).outcome, record_of(sink).code) == (outcome, code)


def test_a_sink_that_raises_disturbs_neither_the_stream_nor_the_others(sink: Watch, clock: Clock):
    hub = Telemetry([Broken(), sink], clock=clock)
    with capture_logs() as logs:
        watch = opened(hub)
        watch.sent(heard(watch, watch.take(), clock))
        watch.lost(1_000)
        watch.resumed("192.0.2.2:6", 3)
        watch.close()
        hub.refused("native", Code.OVERLOADED)
    assert sink.record is not None
    assert sink.latencies["final"]
    assert sink.refusals == [("native", "overloaded")]
    assert {line["sink"] for line in logs} == {"Broken"}


def test_who_may_know_what_is_said_is_told(clock: Clock):
    said: list[str] = []
    hub = Telemetry(clock=clock, on_final=lambda start, final: said.append(final.text))
    watch = opened(hub)
    heard(watch, watch.take(), clock)
    assert said == ["yes no"]


def test_partials_are_told_of_together_and_none_is_forgotten(hub: Telemetry, sink: Watch, clock: Clock):
    watch = opened(hub)
    take = watch.take()

    def partials(count: int) -> int:
        for _ in range(count):
            watch.sent(heard(watch, take, clock, is_final=False))
        return len(sink.latencies.get("partial", []))

    assert partials(TOLD_TOGETHER - 1) == 0
    assert partials(1) == TOLD_TOGETHER
    assert partials(2) == TOLD_TOGETHER
    watch.sent(heard(watch, take, clock))
    assert partials(0) == TOLD_TOGETHER + 2, "a final is not told before the partials that led to it"
    assert partials(3) == TOLD_TOGETHER + 2
    watch.close()
    assert partials(0) == TOLD_TOGETHER + 5
    assert sink.latencies["partial"] == pytest.approx([0.2] * (TOLD_TOGETHER + 5))
    assert record_of(sink).partial_latency_ms == pytest.approx(200, abs=5)
