"""Every metric moves when it should, tells what it says, and has no more series than it may."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from asr.engine import Engine
from asr.errors import Code
from asr.events import Final, Partial
from server.admission import Admission
from server.telemetry.hub import Telemetry
from server.telemetry.metrics import FACES, LATENCY_BOUNDS_S, LIVE_FACES, PREFIX, Metrics
from server.telemetry.readings import SELDOM_S, Readings, Sources
from server.telemetry.record import SERVERS_FAULT, Outcome
from word_engine import WordEngine

ROOT = Path(__file__).parents[2]


class Upstream(WordEngine):
    """An engine that tells of its endpoints and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []
        self.count: dict[str, int] = {}

    def endpoints(self) -> list[dict[str, Any]]:
        return self.told

    def counts(self) -> dict[str, int]:
        return self.count


def endpoint(name: str, **about: Any) -> dict[str, Any]:
    return {"name": name, "state": "up", "breaker": "closed", "streams": 0, "limit": None} | about


class Gateway:
    """Metrics with all that they are made of."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.now = 100.0
        self.hub = Telemetry([self.metrics], clock=lambda: self.now)
        self.readings = Readings(self.metrics, self.hub)
        self.engine = Upstream()
        self.jobs = {"pending": 0}
        self.asked = 0
        self.waiting = 0

    def sources(self) -> Sources:
        admission = Admission(7, random=random.random, clock=lambda: self.now)
        engine: Engine = self.engine
        return Sources("1.2.3", engine, admission, lambda: self.waiting, self._jobs, lambda: 4_096)

    async def _jobs(self) -> dict[str, int]:
        self.asked += 1
        return self.jobs

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(PREFIX + name, labels)

    def stream(self, face: str = "native", kind: Any = "live", late_s: float = 0.3, finals: int = 1) -> None:
        watch = self.hub.open(face, kind=kind, peer="192.0.2.1")
        take = watch.take()
        for _ in range(finals):
            take.fed(32_000, self.now)
            take.taken()
            self.now += late_s
            end_ms = watch.grown.audio_ms
            for event in (Partial(0, 1, "one", 0, end_ms), Final(0, 2, "one two", 0, end_ms)):
                told = take.heard(event)
                if told is not None:
                    watch.sent(told)
        watch.close()


@pytest.fixture
async def gateway() -> Any:
    made = Gateway()
    made.readings.start(made.sources())
    yield made
    await made.readings.aclose()


async def test_a_stream_moves_what_it_should(gateway: Gateway):
    gateway.stream()
    assert gateway.value("streams_admitted_total", face="native") == 1
    assert gateway.value("streams_closed_total", face="native", outcome="ok") == 1
    assert gateway.value("audio_seconds_total", face="native") == 1.0
    assert gateway.value("partials_total", face="native") == 1
    assert gateway.value("finals_total", face="native") == 1
    assert gateway.value("words_total", face="native") == 2
    for name in ("first_partial_latency", "partial_latency", "final_latency"):
        assert gateway.value(f"{name}_seconds_sum", face="native") == pytest.approx(0.3), name
        assert gateway.value(f"{name}_seconds_count", face="native") == 1, name
    assert gateway.value("queue_wait_seconds_count", face="native") == 1
    parts = [gateway.value("final_latency_part_seconds_sum", part=part) for part in ("ingress", "queue", "upstream")]
    assert parts == pytest.approx([0, 0, 0.3])


async def test_streams_that_are_open_count_already(gateway: Gateway):
    watch = gateway.hub.open("end", kind="live", peer="p")
    take = watch.take()
    take.fed(64_000)
    take.heard(Partial(0, 1, "one", 0, 500))
    for _ in range(2):
        await gateway.readings.refresh()
        assert gateway.value("streams_active", face="end") == 1
        assert gateway.value("audio_seconds_total", face="end") == 2.0
        assert gateway.value("partials_total", face="end") == 1
    take.fed(32_000)
    watch.close()
    await gateway.readings.refresh()
    assert gateway.value("streams_active", face="end") == 0
    assert gateway.value("audio_seconds_total", face="end") == 3.0
    assert not gateway.metrics._told, "nothing is kept of a stream that is over"


async def test_how_streams_end(gateway: Gateway):
    for code, complete in (("", True), ("", False), ("bad_audio", True), ("internal", True), ("/no/such\ncode", True)):
        gateway.hub.open("rest", kind="recording", peer="p").close(code, complete=complete)
    ends = [gateway.value("streams_closed_total", face="rest", outcome=outcome.value) for outcome in Outcome]
    assert ends == [1, 1, 2, 1]
    errors = [
        gateway.value("stream_errors_total", face="rest", code=code) for code in ("bad_audio", "internal", "other")
    ]
    assert errors == [1, 1, 1]


async def test_recordings_have_a_speed_and_no_latency(gateway: Gateway):
    gateway.stream("openai", "recording", late_s=0.1)
    assert gateway.value("recording_rtfx_sum", face="openai") == pytest.approx(10)
    assert gateway.value("final_latency_seconds_count", face="openai") is None


async def test_refusals_and_returns(gateway: Gateway):
    gateway.hub.refused("riva_grpc", Code.OVERLOADED)
    assert gateway.value("streams_refused_total", face="riva_grpc", code="overloaded") == 1
    gateway.hub.open("native", kind="live", peer="p").resumed("q", 2)
    assert gateway.value("session_resumes_total") == 1


async def test_upstream(gateway: Gateway):
    engine = gateway.engine
    engine.told = [
        endpoint("1", streams=3, limit=10, attempts=5, errors={"unavailable": 2}),
        endpoint("2", state="down", breaker="open"),
        endpoint("canary-1", breaker="half_open"),
    ]
    engine.count = {
        "failovers": 1,
        "retries": 2,
        "rotations": 3,
        "replayed_ms": 4_500,
        "gaps_ms": 250,
        "given_up": 6,
    }
    for _ in range(2):
        await gateway.readings.refresh()
    assert [gateway.value("upstream_up", endpoint=name) for name in ("1", "2", "canary-1")] == [1, 0, 1]
    assert [gateway.value("upstream_breaker_open", endpoint=name) for name in ("1", "2", "canary-1")] == [0, 1, 0.5]
    assert [gateway.value("upstream_streams_limit", endpoint=name) for name in ("1", "2")] == [10, float("inf")]
    assert gateway.value("upstream_streams", endpoint="1") == 3
    assert gateway.value("upstream_attempts_total", endpoint="1") == 5
    assert gateway.value("upstream_errors_total", endpoint="1", code="unavailable") == 2
    names = ("failovers", "retries", "rotations", "replayed_seconds", "gaps_seconds", "given_up")
    assert [gateway.value(f"upstream_{name}_total") for name in names] == [1, 2, 3, 4.5, 0.25, 6]
    # The canary is gone with what it had counted, and endpoint 1 is another that begins at 0.
    engine.told, engine.count = [endpoint("1", attempts=2)], {"failovers": 0, "retries": 1}
    await gateway.readings.refresh()
    assert gateway.value("upstream_attempts_total", endpoint="1") == 5
    assert [gateway.value(f"upstream_{name}_total") for name in ("failovers", "retries")] == [1, 2]
    engine.told, engine.count = [endpoint("1", attempts=3)], {"failovers": 0, "retries": 3}
    await gateway.readings.refresh()
    assert gateway.value("upstream_attempts_total", endpoint="1") == 6
    assert [gateway.value(f"upstream_{name}_total") for name in ("failovers", "retries")] == [1, 4]
    assert gateway.value("upstream_up", endpoint="canary-1") is None


async def test_what_other_rooms_count(gateway: Gateway):
    tallies = gateway.hub.tallies
    tallies.access_refused["expired"] = 2
    tallies.quota_refused["starts"] = 3
    tallies.certificate_expiry["listener"] = 1.7e9
    tallies.rollout_position = "former"
    tallies.canary_percent, tallies.canary_aborts = 5, 1
    tallies.canary_streams["canary", "ok"] = 4
    tallies.records_dropped, tallies.log_lines_suppressed, tallies.spans_dropped = 5, 6, 7
    gateway.waiting = 8
    await gateway.readings.refresh()
    assert gateway.value("access_refused_total", reason="expired") == 2
    assert gateway.value("quota_refused_total", quota="starts") == 3
    assert gateway.value("certificate_expiry_timestamp_seconds", use="listener") == 1.7e9
    assert [gateway.value("rollout_position", position=name) for name in ("on", "off", "former")] == [0, 0, 1]
    assert (gateway.value("canary_percent"), gateway.value("canary_aborts_total")) == (5, 1)
    assert gateway.value("canary_streams_total", arm="canary", outcome="ok") == 4
    assert gateway.value("records_dropped_total") == 5
    assert gateway.value("log_lines_suppressed_total") == 6
    assert gateway.value("spans_dropped_total") == 7
    assert gateway.value("sessions_waiting") == 8
    assert gateway.value("streams_limit") == 7
    assert gateway.value("spool_bytes") == 4_096
    assert (gateway.value("tasks") or 0) >= 1
    assert gateway.value("info", version="1.2.3", engine=gateway.engine.name) == 1


async def test_a_scrape_costs_the_database_nothing_most_of_the_time(gateway: Gateway):
    gateway.jobs = {"pending": 3, "failed": 1}
    for _ in range(50):
        await gateway.readings.refresh()
    assert gateway.asked == 1
    assert [gateway.value("jobs", state=state) for state in ("pending", "failed")] == [3, 1]
    gateway.readings._seldom_at -= SELDOM_S
    await gateway.readings.refresh()
    assert gateway.asked == 2


async def test_what_clients_send_makes_no_series(gateway: Gateway):
    def lines() -> int:
        return len(generate_latest(gateway.metrics.registry).splitlines())

    for face in FACES:
        gateway.stream(face, "live" if face in LIVE_FACES else "recording")
        gateway.hub.open(face, kind="live", peer="p").close("internal")
        gateway.hub.open(face, kind="live", peer="p").close("never heard of")
    await gateway.readings.refresh()
    before = lines()
    for number in range(10_000):
        watch = gateway.hub.open(
            FACES[number % len(FACES)],
            kind="live",
            peer=f"192.0.2.{number}:{number}",
            principal=f"key {number}",
            session_id=f"s{number}",
            traceparent=f"00-{number + 1:032x}-{number + 1:016x}-01",
        )
        watch.agreed(f"model-{number}", f"l{number}")
        watch.close(f"code {number}" if number % 2 else "internal")
    await gateway.readings.refresh()
    assert lines() == before


def test_objectives_are_bounds_of_buckets_exactly():
    metrics = Metrics()
    assert 0.3 in LATENCY_BOUNDS_S
    assert 0.8 in LATENCY_BOUNDS_S
    metrics.partial_latency.labels("native").observe(0.3)
    metrics.final_latency.labels("native").observe(0.8)
    text = generate_latest(metrics.registry).decode()
    assert f'{PREFIX}partial_latency_seconds_bucket{{face="native",le="0.3"}} 1.0' in text
    assert f'{PREFIX}partial_latency_seconds_bucket{{face="native",le="0.2"}} 0.0' in text
    assert f'{PREFIX}final_latency_seconds_bucket{{face="native",le="0.8"}} 1.0' in text
    assert f'{PREFIX}final_latency_seconds_bucket{{face="native",le="0.5"}} 0.0' in text


def test_failures_are_there_as_zero_before_the_first():
    metrics = Metrics()
    for face in FACES:
        for outcome in Outcome:
            labels = {"face": face, "outcome": outcome.value}
            assert metrics.registry.get_sample_value(f"{PREFIX}streams_closed_total", labels) == 0
    for code in SERVERS_FAULT:
        labels = {"face": "native", "code": code.value}
        assert metrics.registry.get_sample_value(f"{PREFIX}streams_refused_total", labels) == 0


def test_the_document_names_every_metric_and_no_other():
    text = (ROOT / "docs" / "metrics.md").read_text()
    named = set(re.findall(rf"^\| `{PREFIX}(\w+)(?:\{{[^`]*\}})?` \|", text, re.MULTILINE))
    families = {family.name.removeprefix(PREFIX): family for family in Metrics().registry.collect()}
    existing = {f"{name}_total" if family.type == "counter" else name for name, family in families.items()}
    assert named == existing


def test_the_document_names_every_label():
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(rf"^\| `{PREFIX}(\w+?)(?:_total)?(?:\{{([^`]*)\}})?` \|", text, re.MULTILINE)
    metrics = Metrics()
    labels = {
        one._name.removeprefix(PREFIX): ",".join(one._labelnames)
        for one in vars(metrics).values()
        if hasattr(one, "_labelnames")
    }
    assert dict(rows) == labels


async def test_a_crowd_that_asks_at_once_shares_a_look_and_nobody_reads_what_is_older_than_the_question() -> None:
    gateway = Gateway()
    gateway.readings.start(gateway.sources())
    looks = 0

    def counted() -> list[dict[str, Any]]:
        nonlocal looks
        looks += 1
        return []

    gateway.engine.endpoints = counted  # type: ignore[method-assign]
    pages = await asyncio.gather(*(gateway.readings.page("") for _ in range(20)))
    assert looks == 2
    assert len(set(pages)) <= 2
    gateway.hub.open("native", kind="live", peer="p").close()
    page, _ = await gateway.readings.page("")
    assert b'riva_gateway_streams_admitted_total{face="native"} 1.0' in page
    await gateway.readings.aclose()
