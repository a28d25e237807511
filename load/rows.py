"""One row per concurrency, made of what a step left behind. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TypeVar

from evaluation.recording import Outcome
from evaluation.results import ErrorCounts
from evaluation.scoring import score
from evaluation.statistics import bootstrap_rate, percentile
from evaluation.summary import Figure
from load.records import SessionRecord, StepRecord
from load.summary import Limit, LoadRow, Sample, Slo, Usage

Number = TypeVar("Number", int, float)

LATE_MS = 20.0
"""A sender whose 99th percentile is later than this measures itself: a fifth of a chunk of 100 ms."""
BUSY = 0.9
"""A worker that uses more of its core than this is about to be late."""


def row_of(step: StepRecord, samples: Sequence[Sample], slo: Slo, *, interrupted: bool = False) -> LoadRow:
    """What a step shows.

    Args:
        step: its records.
        samples: looks at the gateway while it ran, of all sources.
        slo: what it must keep to count.
        interrupted: whether it was broken off.
    """
    records = step.records
    outcomes = Counter(record.outcome for record in records)
    refused = [record for record in records if record.outcome == "refused"]
    admitted = [record for record in records if record.outcome != "refused"]
    done = [record for record in records if record.outcome == "ok"]
    timings = [record.timings for record in admitted]
    wer, cer = _error_rates(admitted)
    first_partial = _told(timing.first_partial_ms for timing in timings)
    first_text = _told(timing.first_text_ms for timing in timings)
    final = list(chain.from_iterable(timing.final_ms for timing in timings))
    word_partial = list(chain.from_iterable(timing.word_partial_ms for timing in timings))
    word_final = list(chain.from_iterable(timing.word_final_ms for timing in timings))
    connect = _told(record.connected_ms for record in records)
    queue = _told(record.queue_ms for record in admitted)
    error_rate = 1 - outcomes["ok"] / len(records) if records else 0.0
    first_partial_p95, final_p95 = _at(first_partial, 0.95), _at(final, 0.95)
    limited = step.late_p99_ms > LATE_MS or step.worker_cpu > BUSY
    missed = tuple(
        _missed(slo, error_rate, first_partial_p95, final_p95, done=outcomes["ok"], heard=bool(first_text or final))
    )
    if not missed and (silent := _silent(done)) > slo.errors:
        missed = (f"{100 * silent:.1f} % of the sessions heard no word (limit {100 * slo.errors:.1f} %)",)
    return LoadRow(
        sessions=step.sessions,
        peak=step.peak,
        offered=len(records),
        done=outcomes["ok"],
        wall_ms=step.wall_ms,
        wer=wer,
        cer=cer,
        connect_p50_ms=_at(connect, 0.5),
        connect_p95_ms=_at(connect, 0.95),
        queue_p50_ms=_at(queue, 0.5),
        queue_p95_ms=_at(queue, 0.95),
        first_text_p50_ms=_at(first_text, 0.5),
        first_text_p99_ms=_at(first_text, 0.99),
        first_partial_p50_ms=_at(first_partial, 0.5),
        first_partial_p95_ms=first_partial_p95,
        first_partial_p99_ms=_at(first_partial, 0.99),
        word_partial_p50_ms=_at(word_partial, 0.5),
        word_partial_p95_ms=_at(word_partial, 0.95),
        word_final_p50_ms=_at(word_final, 0.5),
        word_final_p95_ms=_at(word_final, 0.95),
        final_p50_ms=_at(final, 0.5),
        final_p95_ms=final_p95,
        final_p99_ms=_at(final, 0.99),
        # What was sent into a stream that failed was perhaps never taken.
        throughput=sum(record.audio_ms for record in done) / step.wall_ms if step.wall_ms > 0 else 0.0,
        errors=outcomes["error"],
        refusals=len(refused),
        disconnects=outcomes["disconnected"],
        timeouts=outcomes["timeout"],
        error_rate=error_rate,
        retry_after=_share(refused, lambda record: record.retry_after_ms is not None),
        refusal_p95_ms=_at([record.ended_ms - record.start_ms for record in refused], 0.95),
        late_p99_ms=step.late_p99_ms,
        late_max_ms=step.late_max_ms,
        workers=step.workers,
        worker_cpu=step.worker_cpu,
        generator_limited=limited,
        slo_kept=not missed and not limited and not interrupted,
        missed=missed,
        limit=_limit(outcomes, slo, error_rate, missed=bool(missed), limited=limited),
        usage=usage_of(samples),
        interrupted=interrupted,
    )


def usage_of(samples: Sequence[Sample]) -> tuple[Usage, ...]:
    """Mean share of a core, and the most of everything else, per source."""
    sources = dict.fromkeys(sample.source for sample in samples)
    return tuple(_usage(source, [sample for sample in samples if sample.source == source]) for source in sources)


def failures_of(records: Iterable[SessionRecord]) -> tuple[str, ...]:
    """How sessions failed, in words, the most frequent first: one line per outcome and code."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for record in records:
        if record.outcome != "ok":
            kinds.setdefault((record.outcome, record.code), []).append(record.detail)
    ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return tuple(
        f"{len(details)} × {outcome}{f' ({code})' if code else ''}: {Counter(details).most_common(1)[0][0]}"
        for (outcome, code), details in ordered
    )


def _silent(done: Sequence[SessionRecord]) -> float:
    """The share of those that spoke and ended well, and were answered with nothing: they are in no latency."""
    spoke = [record for record in done if record.reference and not record.cut]
    return sum(not record.hypothesis for record in spoke) / len(spoke) if spoke else 0.0


def _error_rates(records: Sequence[SessionRecord]) -> tuple[Figure, Figure]:
    """WER and CER pooled over sessions, resampled by session. Many sessions say the same, so scores are remembered."""
    known: dict[tuple[str, str], tuple[ErrorCounts, ErrorCounts]] = {}
    words: list[ErrorCounts] = []
    chars: list[ErrorCounts] = []
    texts: list[str] = []
    for record in records:
        # Where a stream broke, the clips sent to their ends may have had no chance to be answered: not its accuracy.
        if record.outcome != "ok" or record.cut or not record.reference:
            continue
        pair = (record.reference, record.hypothesis)
        if pair not in known:
            scored = score(*pair)
            known[pair] = (scored.words, scored.chars)
        words.append(known[pair][0])
        chars.append(known[pair][1])
        texts.append(record.reference)
    return _rate(words, texts), _rate(chars, texts)


def _rate(counts: Sequence[ErrorCounts], texts: Sequence[str]) -> Figure:
    """Sessions that say the same are one observation: their errors are the same."""
    total = sum(counts, ErrorCounts())
    if not total.reference:
        return Figure(None)
    interval = bootstrap_rate([(count.errors, count.reference) for count in counts], blocks=texts)
    return Figure(total.rate, interval, total.reference)


def _missed(
    slo: Slo, error_rate: float, first_partial_ms: float | None, final_ms: float | None, *, done: int, heard: bool
) -> Iterable[str]:
    if not done:
        yield "no session ended well"
    elif not heard:
        yield "no text was heard whose time could be told"
    if error_rate > slo.errors:
        yield f"{100 * error_rate:.1f} % of the sessions failed or were refused (limit {100 * slo.errors:.1f} %)"
    if first_partial_ms is not None and first_partial_ms > slo.first_partial_ms:
        yield f"first partial p95 {first_partial_ms:.0f} ms (limit {slo.first_partial_ms:.0f} ms)"
    if final_ms is not None and final_ms > slo.final_ms:
        yield f"final p95 {final_ms:.0f} ms (limit {slo.final_ms:.0f} ms)"


def _limit(outcomes: Counter[Outcome], slo: Slo, error_rate: float, *, missed: bool, limited: bool) -> Limit:
    if limited:
        return "generator"
    if not missed:
        return "none"
    refused = outcomes["refused"]
    failed = sum(outcomes.values()) - refused - outcomes["ok"]
    if error_rate > slo.errors and (refused or failed):
        return "refusals" if refused > failed else "errors"
    return "slo"


def _usage(source: str, samples: Sequence[Sample]) -> Usage:
    shares = _told(sample.cpu_share for sample in samples)
    return Usage(
        source,
        cpu_share=sum(shares) / len(shares) if shares else None,
        memory_bytes=max(_told(sample.memory_bytes for sample in samples), default=None),
        open_files=max(_told(sample.open_files for sample in samples), default=None),
        threads=max(_told(sample.threads for sample in samples), default=None),
        tasks=max(_told(sample.tasks for sample in samples), default=None),
    )


def _told(values: Iterable[Number | None]) -> list[Number]:
    return [value for value in values if value is not None]


def _at(values: Sequence[float], share: float) -> float | None:
    return percentile(values, share) if values else None


def _share(records: Sequence[SessionRecord], has: Callable[[SessionRecord], bool]) -> float | None:
    return sum(map(has, records)) / len(records) if records else None
