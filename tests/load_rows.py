"""Sessions and rows of a load run, as plain as they come, for tests of what is made of them."""

from __future__ import annotations

from dataclasses import replace

from evaluation.recording import Outcome
from evaluation.results import Timings
from load.records import SessionRecord, StepRecord
from load.rows import row_of
from load.summary import LoadRow, Slo

SLO = Slo()


def session(
    number: int = 0,
    outcome: Outcome = "ok",
    *,
    reference: str = "one two three four",
    hypothesis: str = "one two three four",
    first_ms: float | None = 100.0,
    final_ms: tuple[float, ...] = (400.0,),
    cut: bool = False,
    **more: object,
) -> SessionRecord:
    record = SessionRecord(
        number=number,
        start_ms=0.0,
        connected_ms=2.0,
        queue_ms=3.0,
        ended_ms=10_000.0,
        clips=("a",),
        reference=reference,
        hypothesis=hypothesis,
        audio_ms=10_000,
        outcome=outcome,
        timings=Timings(first_partial_ms=first_ms, first_text_ms=first_ms, final_ms=final_ms),
        cut=cut,
    )
    return replace(record, **more)  # type: ignore[arg-type]


def refused(number: int, retry_after_ms: int | None = 1000) -> SessionRecord:
    return session(
        number,
        "refused",
        hypothesis="",
        first_ms=None,
        final_ms=(),
        audio_ms=0,
        code="overloaded",
        detail="Full.",
        retry_after_ms=retry_after_ms,
        ended_ms=12.0,
    )


def step(*records: SessionRecord, late_ms: float = 1.0, cpu: float = 0.2) -> StepRecord:
    return StepRecord(
        sessions=len(records),
        wall_ms=10_000.0,
        chunk_ms=100,
        records=records,
        peak=len(records),
        workers=1,
        worker_cpu=cpu,
        late_p99_ms=late_ms,
        late_max_ms=late_ms,
    )


def row(*records: SessionRecord, late_ms: float = 1.0, cpu: float = 0.2) -> LoadRow:
    return row_of(step(*records, late_ms=late_ms, cpu=cpu), (), SLO)
