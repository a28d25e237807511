"""The document of a load run: one row per concurrency, what the gateway's gauges said meanwhile, and what follows.

Schema `riva-gateway.load/1`. Everything here is data; `load.rows` makes rows of records, `load.knee` the recommendation
and `load.leaks` the verdicts. Rates are fractions (0.12 is 12 %), times milliseconds unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

from asr.errors import ASRError, Code
from evaluation.documents import check_schema, rounded
from evaluation.statistics import Interval
from evaluation.summary import Figure

SCHEMA = "riva-gateway.load/1"

Json = dict[str, Any]
T = TypeVar("T")

Gauge = Literal["memory_bytes", "open_files", "threads", "tasks"]
"""What can leak."""
Limit = Literal["none", "slo", "refusals", "errors", "generator"]
"""Why a row does not count: too slow, refused, failed, or not sent in time. `none` when it does."""


@dataclass(frozen=True, slots=True)
class Slo:
    """What a row must keep to count.

    Attributes:
        first_partial_ms: limit of the 95th percentile of the first partial.
        final_ms: limit of the 95th percentile of the final after the end of speech.
        errors: limit of the share of sessions that failed or were refused.
    """

    first_partial_ms: float = 300.0
    final_ms: float = 800.0
    errors: float = 0.005


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process.

    Attributes:
        at_ms: since the run began.
        source: who was looked at: `gateway` (by `/readyz`), or `pid 1234`.
        sessions: the step that ran then (0: none, before the first, between two or after the last).
        cpu_share: of one core since the look before (1.0 is one core, 1.5 one and a half); None at the first look.
        memory_bytes: resident memory.
        open_files, threads, tasks: how many; None where it cannot be told (tasks: only by `/readyz`).
        streams: admitted streams, by `/readyz`.
    """

    at_ms: float
    source: str
    sessions: int
    cpu_share: float | None = None
    memory_bytes: int | None = None
    open_files: int | None = None
    threads: int | None = None
    tasks: int | None = None
    streams: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process used during one step.

    Attributes:
        source: as of `Sample`.
        cpu_share: mean, of one core; None where it was not told.
        memory_bytes, open_files, threads, tasks: the most that was seen.
    """

    source: str
    cpu_share: float | None = None
    memory_bytes: int | None = None
    open_files: int | None = None
    threads: int | None = None
    tasks: int | None = None


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One concurrency.

    Attributes:
        sessions: how many were meant to speak at a time.
        peak: the most that did.
        offered: sessions that came, in all (churn and soak bring more than `sessions`).
        done: those that ended well.
        wall_ms: how long the step took.
        wer, cer: pooled over the clips that were sent to their ends.
        connect_*, queue_*: see `SessionRecord`.
        first_text_*: see `evaluation.results.Timings`, as are the next four.
        first_partial_*, word_partial_*, word_final_*, final_*
        throughput: seconds of audio of the sessions that ended well, per second of the step (× real time).
        errors: streams that ended with an error after they were admitted.
        refusals: streams that were told no before any audio was taken.
        disconnects: connections that broke without a word.
        timeouts: streams that got no answer in time.
        error_rate: share of the offered sessions that did not end well, refused ones included.
        retry_after: share of the refusals that said when to come again.
        refusal_p95_ms: how long it took to be refused.
        late_p99_ms, late_max_ms: how late this tool sent its chunks.
        workers, worker_cpu: processes that sent, and the busiest one's share of a core.
        generator_limited: the tool itself was too slow, and the row says nothing about the gateway.
        slo_kept: whether the row keeps the SLO (a row of a limited generator never does).
        missed: what was missed, for people, or empty.
        limit: what it was missed by, in one word.
        usage: of the processes that were looked at.
        interrupted: the step was broken off: `offered` and all that follows from it are of the sessions that were over
            by then, and the row does not count.
    """

    sessions: int
    peak: int
    offered: int
    done: int
    wall_ms: float
    wer: Figure
    cer: Figure
    connect_p50_ms: float | None
    connect_p95_ms: float | None
    queue_p50_ms: float | None
    queue_p95_ms: float | None
    first_text_p50_ms: float | None
    first_text_p99_ms: float | None
    first_partial_p50_ms: float | None
    first_partial_p95_ms: float | None
    first_partial_p99_ms: float | None
    word_partial_p50_ms: float | None
    word_partial_p95_ms: float | None
    word_final_p50_ms: float | None
    word_final_p95_ms: float | None
    final_p50_ms: float | None
    final_p95_ms: float | None
    final_p99_ms: float | None
    throughput: float
    errors: int
    refusals: int
    disconnects: int
    timeouts: int
    error_rate: float
    retry_after: float | None
    refusal_p95_ms: float | None
    late_p99_ms: float
    late_max_ms: float
    workers: int
    worker_cpu: float
    generator_limited: bool
    slo_kept: bool
    missed: tuple[str, ...] = ()
    limit: Limit = "none"
    usage: tuple[Usage, ...] = ()
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How many sessions to give to what was measured.

    Attributes:
        sessions: recommended at a time per gateway, the margin taken off; None where no row kept the SLO.
        per_endpoint: the same per recognizer behind it (Riva), where their number is known.
        endpoints: how many recognizers the gateway named; None where it names none.
        kept: the largest concurrency measured that keeps the SLO.
        missed: the smallest above it that does not; None where none was measured.
        knee: concurrency at which throughput or latency leaves the straight line; None where it does not.
        margin: share taken off `kept`.
        limit: of the first row that was not kept; `none` when all were.
        sentence: all of it, for people.
    """

    sessions: int | None
    per_endpoint: int | None
    endpoints: int | None
    kept: int | None
    missed: int | None
    knee: int | None
    margin: float
    limit: Limit
    sentence: str


@dataclass(frozen=True, slots=True)
class LeakVerdict:
    """What one gauge did while the load stayed the same.

    Attributes:
        source, gauge: of whom, which.
        verdict: `grows`; `stays`: did not come back to its level after the load; `flat`; or `unknown` where there were
            too few looks.
        per_minute: the slope, in the gauge's unit (bytes, files, threads, tasks).
        interval: its 95 % confidence interval.
        start, end: the level before the load and after it; None where it was not seen.
        sentence: for people.

    `grows` and `stays` are leaks.
    """

    source: str
    gauge: Gauge
    verdict: Literal["grows", "stays", "flat", "unknown"]
    per_minute: float | None
    interval: Interval | None
    start: float | None
    end: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class SweepInfo:
    """What was measured, how, when and on what.

    Attributes:
        target: who was asked (`wss://localhost:8443`).
        wire: `websocket` or `grpc`.
        engine: as the gateway names its recognizer; "" where it was not told.
        mode: steady, ramp, spike, soak or churn.
        set_name, clips: what was said.
        chunk_ms: audio per message.
        duration_ms: how long each session speaks.
        normalizer: rules that both texts went through.
        started_at: ISO 8601, UTC.
        machine: of this tool.
        version: of riva-gateway.
        complete: False when it was interrupted.
    """

    target: str
    wire: str
    engine: str
    mode: str
    set_name: str
    clips: int
    chunk_ms: int
    duration_ms: int
    normalizer: str
    started_at: str
    machine: str
    version: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Sweep:
    """The whole document.

    Attributes:
        rows: in the order they were measured.
        failures: one line per kind of failure that occurred, with its count, most frequent first.
        notes: what a reader should know, for people.
    """

    info: SweepInfo
    slo: Slo
    rows: tuple[LoadRow, ...]
    recommendation: Recommendation
    samples: tuple[Sample, ...] = ()
    leaks: tuple[LeakVerdict, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """The document; floats are rounded to four digits after the point."""
        document: Json = rounded({"schema": SCHEMA, **asdict(self)}, 4)
        return document

    @classmethod
    def from_json(cls, document: Any) -> Sweep:
        """Read it back. Keys that are not known are left alone, so that a later version may say more.

        Raises:
            ASRError: `bad_request`, when it is no such document.
        """
        check_schema(document, SCHEMA, "load")
        try:
            return cls(
                _read(SweepInfo, document["info"]),
                _read(Slo, document["slo"]),
                tuple(_row(row) for row in document["rows"]),
                _read(Recommendation, document["recommendation"]),
                tuple(_read(Sample, sample) for sample in document["samples"]),
                tuple(_leak(leak) for leak in document["leaks"]),
                tuple(document["failures"]),
                tuple(document["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ASRError(Code.BAD_REQUEST, f"The result of `riva-gateway load` is damaged: {error!r}.") from None


def _row(document: Json) -> LoadRow:
    made = {
        "wer": _figure(document["wer"]),
        "cer": _figure(document["cer"]),
        "missed": tuple(document["missed"]),
        "usage": tuple(_read(Usage, usage) for usage in document["usage"]),
    }
    return _read(LoadRow, {**document, **made})


def _figure(document: Json) -> Figure:
    return _read(Figure, {**document, "interval": _interval(document["interval"])})


def _leak(document: Json) -> LeakVerdict:
    return _read(LeakVerdict, {**document, "interval": _interval(document["interval"])})


def _interval(document: Json | None) -> Interval | None:
    return None if document is None else _read(Interval, document)


def _read(kind: type[T], document: Mapping[str, Any]) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    made: T = kind(**{key: value for key, value in document.items() if key in known})
    return made
