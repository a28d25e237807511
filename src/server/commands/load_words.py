"""`load` in words: lengths of time, the columns of a row, the verdict. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from load.leaks import leaking
from load.summary import LoadRow, Slo, Sweep, Usage
from server.commands.exits import Exit, Stop

NOTHING = "-"
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")

_COLUMNS = (
    # first line, second line, width
    ("", "sessions", 8),
    ("", "peak", 5),
    ("", "WER", 6),
    ("", "CER", 6),
    ("first text", "p50/p99 ms", 11),
    ("first partial", "p50/p95 ms", 13),
    ("final", "p50/p95/p99 ms", 15),
    ("queue", "p95 ms", 6),
    ("", "x real", 7),
    ("", "errors", 6),
    ("", "refused", 7),
    ("", "lost", 5),
    ("late", "p99 ms", 6),
    ("", "CPU", 5),
    ("", "MB", 5),
    ("", "SLO", 4),
)


def length_ms(text: str, flag: str) -> int:
    """`30`, `30s`, `500ms`, `5m`, `1.5h` in milliseconds; a bare number is seconds.

    Raises:
        Stop: it is none of these, or no time at all.
    """
    match = _LENGTH.fullmatch(text.strip().lower())
    found = round(float(match[1]) * _UNITS_MS[match[2] or "s"]) if match else -1
    if not 0 <= found <= 7 * 24 * 3_600_000:
        raise Stop(
            f"{flag} {text!r} is no length of time. Write 30s, 5m or 1h, a week at the most.", Exit.CONFIGURATION
        )
    return found


def numbers(text: str) -> tuple[int, ...]:
    """`1,10,50` as numbers, each once.

    Raises:
        Stop: one is not a whole number from 1 to 100 000.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(re.fullmatch(r"[0-9]{1,6}", part) and 1 <= int(part) <= 100_000 for part in parts):
        raise Stop(
            f"--sessions {text!r}: write numbers from 1 to 100000 with commas between, as 1,10,50.", Exit.CONFIGURATION
        )
    return tuple(dict.fromkeys(map(int, parts)))


def heading() -> tuple[str, str]:
    """The two lines above the rows."""
    return _joined([top for top, _, _ in _COLUMNS]), _joined([name for _, name, _ in _COLUMNS])


def line_of(row: LoadRow) -> str:
    """A row, in columns without blanks inside."""
    cpu, memory = _used(row.usage)
    return _joined(
        [
            str(row.sessions),
            str(row.peak),
            _share(row.wer.value),
            _share(row.cer.value),
            _slashed(row.first_text_p50_ms, row.first_text_p99_ms),
            _slashed(row.first_partial_p50_ms, row.first_partial_p95_ms),
            _slashed(row.final_p50_ms, row.final_p95_ms, row.final_p99_ms),
            _slashed(row.queue_p95_ms),
            NOTHING if row.interrupted else f"{row.throughput:.1f}",
            str(row.errors),
            str(row.refusals),
            str(row.disconnects + row.timeouts),
            f"{row.late_p99_ms:.0f}" if row.late_p99_ms >= 9.5 else f"{row.late_p99_ms:.1f}",
            _share(cpu, digits=0),
            NOTHING if memory is None else f"{memory / 2**20:.0f}",
            "kept" if row.slo_kept else "n/a" if row.generator_limited or row.interrupted else "MISS",
        ]
    )


def remarks(row: LoadRow) -> list[str]:
    """What a reader of the row should know, one line each."""
    told = []
    if row.interrupted:
        told.append(
            f"not counted: interrupted when {row.offered} session{' was' if row.offered == 1 else 's were'} over"
        )
    if row.generator_limited:
        told.append(
            f"not counted: this machine was the limit (chunks late by {row.late_p99_ms:.0f} ms at p99, busiest process "
            f"that sends at {100 * row.worker_cpu:.0f} % of a core)"
        )
    if row.missed:
        told.append("missed: " + "; ".join(row.missed))
    if row.refusals:
        after = "" if row.retry_after is None else f", {100 * row.retry_after:.0f} % of them told when to come again"
        quick = "" if row.refusal_p95_ms is None else f" within {row.refusal_p95_ms:.0f} ms (p95)"
        told.append(f"refused: {row.refusals} of {row.offered}{quick}{after}")
    return told


def slo_line(slo: Slo) -> str:
    """What a row must keep."""
    return (
        f"SLO: first partial p95 up to {slo.first_partial_ms:g} ms, final p95 up to {slo.final_ms:g} ms, "
        f"failed or refused sessions up to {100 * slo.errors:g} %"
    )


def conclusion(sweep: Sweep) -> list[str]:
    """What follows, below the rows."""
    told = [f"failed: {failure}" for failure in sweep.failures]
    told += [f"note: {note}" for note in sweep.notes]
    told += [f"{'LEAK' if one.verdict in ('grows', 'stays') else 'gauge'}: {one.sentence}" for one in sweep.leaks]
    return [*told, sweep.recommendation.sentence]


def verdict(sweep: Sweep) -> tuple[Exit, str]:
    """The exit status, and why where it is not 0."""
    lost = sum(row.errors + row.disconnects + row.timeouts for row in sweep.rows)
    reasons = []
    if sweep.rows and not any(row.slo_kept for row in sweep.rows):
        reasons.append("the SLO was kept at no concurrency")
    if leaking(sweep.leaks):
        reasons.append("a leak was found")
    if lost:
        reasons.append(f"{lost} stream{'' if lost == 1 else 's'} failed without a clear refusal")
    if not sweep.info.complete:
        return Exit.INTERRUPTED, ""
    return (Exit.FAILED, "; ".join(reasons)) if reasons else (Exit.OK, "")


def _joined(cells: Sequence[str]) -> str:
    return " ".join(cell.rjust(width) for cell, (_, _, width) in zip(cells, _COLUMNS, strict=True)).rstrip()


def _used(usage: Sequence[Usage]) -> tuple[float | None, int | None]:
    """Share of a core and memory: of the processes named, with their children, else of the gateway as it tells."""
    named = [one for one in usage if one.source.startswith("pid ")] or usage
    cpu = [one.cpu_share for one in named if one.cpu_share is not None]
    memory = [one.memory_bytes for one in named if one.memory_bytes is not None]
    return (sum(cpu) if cpu else None), (sum(memory) if memory else None)


def _share(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{value:.{digits}%}"


def _slashed(*values: float | None) -> str:
    if all(value is None for value in values):
        return NOTHING
    return "/".join(NOTHING if value is None else f"{value:.0f}" for value in values)
