"""The report of a load run as one self-contained HTML page: how many sessions, and what happens beyond."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.figures import NOTHING, cell, duration, milliseconds, percent
from evaluation.markup import Column, Html, badge, facts, html, notice, section, table, tag
from evaluation.page import page
from evaluation.report_parts import footer, key_figures, moment
from evaluation.terms import terms
from load.leaks import leaking
from load.report_charts import capacity, latency
from load.report_gauges import gauges, leaks, usage
from load.summary import LoadRow, Sweep


def load_page(sweep: Sweep) -> str:
    """The report of a sweep."""
    sections = [_headline(sweep), _rows(sweep)]
    drawn = sorted(sweep.rows, key=lambda row: row.sessions)
    if len({row.sessions for row in drawn}) > 1:
        sections += [latency(sweep, drawn), capacity(sweep, drawn)]
    elif any(row.usage for row in drawn):
        used = [(row.sessions, use) for row in drawn for use in row.usage]
        sections.append(section("What the processes used", usage(used)))
    if sweep.leaks:
        sections.append(leaks(sweep.leaks))
    if sweep.samples:
        sections.append(gauges(sweep.samples))
    sections += [_tool(drawn), section("How it was measured", facts(_facts(sweep))), terms("load")]
    info = sweep.info
    most = max((row.sessions for row in sweep.rows), default=0)
    title = f"Load: {info.mode}, up to {most:,} sessions" if most else f"Load: {info.mode}"
    engine = f" ({info.engine})" if info.engine else ""
    return page(
        title,
        f"{info.target}{engine}, {info.wire} · {moment(info.started_at)}",
        sections,
        verdict=_verdict(sweep),
        footer=footer(info.version, info.started_at, info.machine),
    )


def _verdict(sweep: Sweep) -> Html:
    if leaking(sweep.leaks):
        return badge("Leaks", "bad")
    if sweep.recommendation.sessions is None:
        return badge("SLO not kept", "bad") if sweep.rows else badge("Nothing measured", "plain")
    return badge(f"{sweep.recommendation.sessions:,} sessions", "good")


def _headline(sweep: Sweep) -> Html:
    advice = sweep.recommendation
    notices = []
    if not sweep.info.complete:
        notices.append(notice("The run was interrupted: what follows is what was measured until then.", "warn"))
    limited = [row for row in sweep.rows if row.generator_limited]
    if limited:
        words = (
            f"With {_several([row.sessions for row in limited])} sessions this tool itself was too slow "
            f"(its audio left up to {milliseconds(max(row.late_max_ms for row in limited))} late): what was measured "
            "there says nothing about the gateway. Run the tool on a machine of its own, or with more cores."
        )
        notices.append(notice(words, "bad"))
    notices += [notice(leak.sentence, "bad") for leak in sweep.leaks if leaking([leak])]
    notices += [notice(note, "plain") for note in sweep.notes]
    shown = [
        (
            "Recommended per gateway",
            _count(advice.sessions),
            f"{percent(advice.margin, 0)} held back" if advice.sessions else "none kept the SLO",
        )
    ]
    if advice.per_endpoint is not None and advice.endpoints != 1:
        shown.append(("Per recognizer", _count(advice.per_endpoint), f"{_count(advice.endpoints)} of them"))
    shown.append(
        ("Most that kept the SLO", _count(advice.kept), f"{_count(advice.missed)} did not" if advice.missed else "")
    )
    shown.append(("Knee", _count(advice.knee), "sessions" if advice.knee else "none was seen"))
    kept = next((row for row in sweep.rows if row.sessions == advice.kept), None)
    if kept is not None:
        limit = milliseconds(sweep.slo.first_partial_ms)
        shown.append((f"First partial p95 at {kept.sessions:,}", _time(kept.first_partial_p95_ms), f"limit {limit}"))
        limit = milliseconds(sweep.slo.final_ms)
        shown.append((f"Final p95 at {kept.sessions:,}", _time(kept.final_p95_ms), f"limit {limit}"))
    return section("In short", tag("p", advice.sentence, class_="lead"), *notices, key_figures(shown))


def _several(numbers: Sequence[int]) -> str:
    said = [f"{number:,}" for number in numbers]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"


def _time(value: float | None) -> str:
    return NOTHING if value is None else milliseconds(value)


def _times(*values: float | None) -> Html:
    """Several percentiles of one figure in one cell, the unit said once."""
    if all(value is None for value in values):
        return tag("span", NOTHING, class_="none")
    return html(" / ".join(NOTHING if value is None else f"{value:,.0f}" for value in values))


def _rows(sweep: Sweep) -> Html:
    columns = [
        Column("Sessions"), Column("WER"), Column("CER"), Column("First text (ms) p50 / p99"),
        Column("Final (ms) p50 / p99"), Column("Throughput × real time"), Column("Errors"), Column("Refused"),
        Column("Disconnects"), Column("Timeouts"), Column("SLO", False),
    ]  # fmt: skip
    body = []
    for row in sweep.rows:
        words = [cell("wer", row.wer.value, row.wer.interval), cell("cer", row.cer.value, row.cer.interval)]
        times = [_times(row.first_text_p50_ms, row.first_text_p99_ms), _times(row.final_p50_ms, row.final_p99_ms)]
        counts = [f"{count:,}" for count in (row.errors, row.refusals, row.disconnects, row.timeouts)]
        body.append((f"{row.sessions:,}", *words, *times, f"{row.throughput:,.1f}", *counts, _kept(row)))
    more = [
        Column("Sessions"), Column("Spoke at a time"), Column("Came"), Column("Ended well"),
        Column("Connect (ms) p50 / p95"), Column("Queue (ms) p50 / p95"), Column("First partial (ms) p50 / p95 / p99"),
        Column("Word in a partial (ms) p50 / p95"), Column("Word in a final (ms) p50 / p95"),
        Column("Final (ms) p50 / p95 / p99"),
    ]  # fmt: skip
    times_of = [
        (
            f"{row.sessions:,}", f"{row.peak:,}", f"{row.offered:,}", f"{row.done:,}",
            _times(row.connect_p50_ms, row.connect_p95_ms), _times(row.queue_p50_ms, row.queue_p95_ms),
            _times(row.first_partial_p50_ms, row.first_partial_p95_ms, row.first_partial_p99_ms),
            _times(row.word_partial_p50_ms, row.word_partial_p95_ms),
            _times(row.word_final_p50_ms, row.word_final_p95_ms),
            _times(row.final_p50_ms, row.final_p95_ms, row.final_p99_ms),
        )
        for row in sweep.rows
    ]  # fmt: skip
    why = [(row, reason) for row in sweep.rows for reason in row.missed]
    slo = sweep.slo
    limits = (
        f"The SLO: first partial p95 within {milliseconds(slo.first_partial_ms)}, final p95 within "
        f"{milliseconds(slo.final_ms)}, at most {percent(slo.errors)} of the sessions refused or failed."
    )
    return section(
        "Every concurrency",
        table(columns, body, caption="One row per concurrency") if body
        else tag("p", "No row was measured.", class_="about"),
        tag("ul", *(tag("li", f"{row.sessions:,} sessions: {reason}") for row, reason in why), class_="plain-list")
        if why else None,
        html(tag("h3", "Times in full"), table(more, times_of, caption="Times in full")) if body else None,
        html(tag("h3", "What failed"), tag("ul", *(tag("li", line) for line in sweep.failures), class_="plain-list"))
        if sweep.failures else None,
        about=limits,
    )  # fmt: skip


def _kept(row: LoadRow) -> Html:
    if row.interrupted:
        return badge("interrupted", "warn")
    if row.generator_limited:
        return badge("tool late", "warn")
    return badge("kept", "good") if row.slo_kept else badge("missed", "bad")


def _tool(rows: Sequence[LoadRow]) -> Html:
    if not rows:
        return section("The tool itself", tag("p", "Nothing was sent.", class_="about"))
    columns = [
        Column("Sessions"), Column("Late p99"), Column("Late at worst"), Column("Processes"), Column("Busiest process"),
        Column("Verdict", False),
    ]  # fmt: skip
    body = [
        (
            f"{row.sessions:,}", f"{row.late_p99_ms:,.1f} ms", f"{row.late_max_ms:,.1f} ms", row.workers,
            f"{percent(row.worker_cpu, 0)} of a core",
            badge("too slow", "bad") if row.generator_limited else badge("fast enough", "good"),
        )
        for row in rows
    ]  # fmt: skip
    about = "How late this tool sent its own audio. Where it was too slow, the row says nothing about the gateway."
    return section("The tool itself", table(columns, body, caption="Lateness of the load tool"), about=about)


def _facts(sweep: Sweep) -> list[tuple[str, object]]:
    info = sweep.info
    return [
        ("Asked", info.target),
        ("Protocol", info.wire),
        ("Recognizer", info.engine),
        ("Mode", info.mode),
        ("Each session speaks for", duration(info.duration_ms)),
        ("Set", f"{info.set_name}, {info.clips} clips"),
        ("Chunks", f"{info.chunk_ms} ms of audio"),
        ("Normalizer", info.normalizer),
        ("Begun", moment(info.started_at)),
        ("Machine of the tool", info.machine),
        ("riva-gateway", info.version),
        ("Complete", "yes" if info.complete else "no, interrupted"),
    ]
