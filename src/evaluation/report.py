"""The reports of a run and of a comparison of two: one self-contained HTML page each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.charts import Axis, Limit, Row, Series, bars, distributions, figure, keys, lines
from evaluation.clip_report import all_clips, worst
from evaluation.comparison_report import comparison_page
from evaluation.figures import (
    axis_percent,
    between,
    cell,
    counted,
    duration,
    milliseconds,
    named,
    percent,
    revised,
    written,
)
from evaluation.golden import late_clips
from evaluation.markup import Column, Html, badge, facts, fold, html, notice, section, table, tag
from evaluation.page import page
from evaluation.profiles import Judgement
from evaluation.report_parts import footer, kept, key_figures, rule_of, rule_of_all, run_facts, subtitle
from evaluation.results import GoldenRun
from evaluation.summary import Row as Pooled
from evaluation.summary import Summary, first_partial
from evaluation.terms import terms

__all__ = ["comparison_page", "golden_page"]

WORDS = (("wer", "WER"), ("cer", "CER"), ("revised", "Revised"))
TIMES = (
    ("first_partial_p50_ms", "First partial p50"),
    ("first_partial_p95_ms", "First partial p95"),
    ("final_p50_ms", "Final p50"),
    ("final_p95_ms", "Final p95"),
    ("partial_gap_p50_ms", "Cadence p50"),
    ("speed", "Speed"),
)
MORE = (
    ("first_text_p50_ms", "First text p50"),
    ("first_text_p95_ms", "First text p95"),
    ("word_partial_p50_ms", "Word in a partial p50"),
    ("word_partial_p95_ms", "Word in a partial p95"),
)


def golden_page(run: GoldenRun, summary: Summary, judgement: Judgement | None) -> str:
    """The report of one run.

    Args:
        run: what was measured, clip by clip.
        summary: its figures.
        judgement: the run held against a profile, or None.
    """
    sections = [_headline(run, summary, judgement)]
    if judgement is not None:
        sections.append(_rules(judgement))
    sections += [_accuracy(summary, judgement), _latency(run, judgement), _conditions(summary)]
    if run.clips:
        sections += [worst(run.clips), all_clips(run.clips)]
    sections += [section("How it was measured", facts(run_facts(run.info))), terms("golden")]
    verdict = None
    if judgement is not None:
        looked_at = any(result.measured for result in judgement.results)
        verdict = badge("Kept", "good") if looked_at else badge("Not measured", "warn")
        if not judgement.kept:
            verdict = badge("Missed", "bad")
    return page(
        f"Golden run: {run.info.set_name}",
        subtitle(run.info),
        sections,
        verdict=verdict,
        footer=footer(run.info.version, run.info.started_at, run.info.machine),
    )


def _headline(run: GoldenRun, summary: Summary, judgement: Judgement | None) -> Html:
    total = summary.all
    said: list[object] = []
    if total.wer.value is not None:
        interval = between("wer", total.wer.interval)
        said.append(
            f"{percent(total.wer.value)} of {total.wer.count:,} words were wrong{interval and f' ({interval})'}. "
        )
    if total.final_p50_ms.value is not None and total.final_p95_ms.value is not None:
        said.append(
            f"Half of the finals came within {milliseconds(total.final_p50_ms.value)} of the end of speech, "
            f"95 % within {milliseconds(total.final_p95_ms.value)}. "
        )
    if judgement is not None:
        said.append(kept(judgement))
    notices = []
    if total.failed:
        words = f"{total.failed:,} of {counted(total.clips, 'clip')} failed; none of their words count as heard."
        notices.append(notice(words, "bad"))
    if total.false_finals:
        notices.append(notice(f"{counted(total.false_finals, 'final')} with text came where nobody speaks.", "warn"))
    late = late_clips(run)
    if late:
        worst = milliseconds(max(clip.late_ms for clip in late))
        words = (
            f"This machine sent {counted(len(late), 'clip')} late, by up to {worst}: their latencies hold its own "
            "delay. Measure again with fewer clips at a time, or on a machine with less to do."
        )
        notices.append(notice(words, "warn"))
    if run.info.busy and run.info.load_average is not None:
        words = (
            f"This machine had too much to do (load average up to {run.info.load_average:.1f} on {run.info.cores} "
            "cores): latencies are partly its own."
        )
        notices.append(notice(words, "warn"))
    shown = [
        ("Word error rate", "wer"),
        ("First partial, p95", "first_partial_p95_ms"),
        ("Final, p95", "final_p95_ms"),
        ("Words revised", "revised"),
    ]
    figures = [(name, written(metric, value), between(metric, interval)) for name, metric in shown
               for value, interval in [(getattr(total, metric).value, getattr(total, metric).interval)]]  # fmt: skip
    figures.append(("Clips", f"{total.clips:,}", f"{duration(total.audio_ms)} of audio"))
    lead = tag("p", *said, class_="lead") if said else tag("p", "No word was measured.", class_="lead")
    return section("In short", lead, *notices, key_figures(figures))


def _rules(judgement: Judgement) -> Html:
    rows = []
    for result in sorted(judgement.results, key=lambda result: result.kept):  # the missed ones first
        rule = result.rule
        verdict = badge("kept", "good") if result.kept else badge("missed", "bad")
        if result.value is None:
            verdict = badge("nothing to measure", "plain")
        measured = cell(rule.metric, result.value, result.interval)
        where = "all" if rule.conditions == ("*",) else ", ".join(rule.conditions)
        rows.append((named(rule.metric), where, written(rule.metric, rule.limit), measured, result.clips, verdict))
    columns = [Column("Figure", False), Column("Conditions", False), Column("At most"), Column("Measured"),
               Column("Clips"), Column("Verdict", False)]  # fmt: skip
    return section(
        f"Limits of the profile “{judgement.profile.name}”",
        table(columns, rows, caption="Limits, and how the run did by each"),
        about=judgement.profile.about,
    )


def _accuracy(summary: Summary, judgement: Judgement | None) -> Html:
    rows, shared = [], False
    for pooled in (*summary.conditions, summary.all):
        if pooled.wer.value is None:
            continue
        whole = pooled is summary.all
        rule = rule_of_all(judgement, "wer") if whole else rule_of(judgement, "wer", pooled.condition)
        limit = rule.rule.limit if rule else None
        # A rule that was kept by its conditions together was not missed by one of them.
        missed = rule is not None and not rule.kept and pooled.wer.value > rule.rule.limit
        shared = shared or (rule is not None and not whole and rule.rule.conditions != (pooled.condition,))
        text = f"{percent(pooled.wer.value)}{' (above its limit)' if missed else ''}"
        rows.append(
            Row(pooled.condition, pooled.wer.value, pooled.wer.interval, limit, "bad" if missed else "plain", text)
        )
    drawn = bars(rows, Axis("word error rate", axis_percent), about=_told("Word error rate", rows))
    legend = keys((), limit="limit") if any(row.limit is not None for row in rows) else None
    charts = [figure("Word error rate by condition", drawn, legend=legend)]
    noisy = sorted(
        (snr, row)
        for row in summary.conditions
        if (snr := _snr(row.condition)) is not None and row.wer.value is not None
    )
    if len(noisy) > 1:
        series = [
            Series("WER", [(snr, row.wer.value) for snr, row in noisy], [row.wer.interval for _, row in noisy]),
            Series("CER", [(snr, row.cer.value) for snr, row in noisy], [row.cer.interval for _, row in noisy]),
        ]
        x = Axis("signal-to-noise ratio (dB)", low=noisy[0][0], high=noisy[-1][0], ticks=[snr for snr, _ in noisy])
        about = "Errors against the signal-to-noise ratio: " + _told(
            "WER", [Row(f"{s:g} dB", r.wer.value) for s, r in noisy]
        )
        curve = lines(series, x, Axis("error rate", axis_percent, low=0), about=about, height=320)
        charts.append(figure("Errors as the noise rises", curve, legend=keys(["words (WER)", "characters (CER)"])))
    about = "Whiskers are 95 % confidence intervals; fewer words make them wider."
    if shared:
        about += " A limit holds for the conditions of its rule together: one of them alone may be above it."
    return section("Accuracy", *charts, about=about)


def _snr(condition: str) -> float | None:
    found = re.fullmatch(r"noise_(m(?:inus)?_?|-)?(\d+)_?db", condition, re.IGNORECASE)
    return (-1 if found[1] else 1) * float(found[2]) if found else None


def _told(what: str, rows: Sequence[Row]) -> str:
    return f"{what}: " + "; ".join(f"{row.name} {percent(row.value)}" for row in rows if row.value is not None)


def _latency(run: GoldenRun, judgement: Judgement | None) -> Html:
    good = [clip for clip in run.clips if clip.outcome == "ok"]
    first = [value for clip in good for value in first_partial(clip.timings)]
    finals = [value for clip in good for value in clip.timings.final_ms]
    if not first and not finals:
        return section(
            "Latency", tag("p", "No clip was streamed in real time, so no latency can be told.", class_="about")
        )
    charts = []
    for title, metric, values in (
        ("First partial, from the end of the first word", "first_partial_p95_ms", first),
        ("Final, from the end of speech", "final_p95_ms", finals),
    ):
        if not values:
            continue
        rule = rule_of_all(judgement, metric)
        limit = rule.rule.limit if rule else None
        limits = [] if limit is None else [Limit(limit, f"95 % by {milliseconds(limit)}")]
        kept = (
            ""
            if limit is None
            else f" {percent(sum(v <= limit for v in values) / len(values))} within {milliseconds(limit)}."
        )
        about = f"{counted(len(values), 'value')}, the slowest {milliseconds(max(values))}.{kept}"
        drawn = distributions(
            [(title, values)], Axis("milliseconds"), about=f"{title}: {about}", limits=limits, height=290
        )
        charts.append(figure(title, drawn, about=about))
    how = (
        "The curve is the share that had come by then: the further left, the faster. Where it crosses 95 % is the p95."
    )
    return section("Latency", *charts, about=how)


def _conditions(summary: Summary) -> Html:
    rows = [*summary.conditions, summary.all]
    columns = [Column("Condition", False), Column("Clips"), Column("Audio"), Column("Words said")]
    columns += [Column(title, about=named(metric)) for metric, title in WORDS]
    columns += [Column("Failed"), Column("False finals", about="finals with text where nobody speaks")]
    body = [
        (
            row.condition,
            row.clips,
            duration(row.audio_ms),
            f"{row.wer.count:,}",
            *_cells(row, WORDS),
            row.failed,
            row.false_finals,
        )
        for row in rows
    ]
    more = fold("First text, and each word in a partial", _times(rows, MORE, "First text, and each word in a partial"))
    return section(
        "Every condition",
        tag("h3", "Words"),
        table(columns, body, caption="Errors of every condition", strong_last=True),
        tag("h3", "Times"),
        _times(rows, TIMES, "Latencies of every condition"),
        more,
        about="Below each figure is its 95 % confidence interval, where the sample allows one.",
    )


def _times(rows: Sequence[Pooled], figures: Sequence[tuple[str, str]], caption: str) -> Html:
    columns = [Column("Condition", False), *(Column(title, about=named(metric)) for metric, title in figures)]
    return table(columns, [(row.condition, *_cells(row, figures)) for row in rows], caption=caption, strong_last=True)


def _cells(row: Pooled, figures: Sequence[tuple[str, str]]) -> list[Html]:
    cells = []
    for metric, _ in figures:
        figure = getattr(row, metric)
        if metric == "revised" and not row.wer.count:
            cells.append(html(revised(figure.value, figure.count, said=0)))
        else:
            cells.append(cell(metric, figure.value, figure.interval))
    return cells
