"""The report of a comparison: is B worse, by how much, how sure is that, and which words differ."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.charts import Axis, Row, Tone, bars, figure
from evaluation.compare import Comparison, Difference, Disagreement
from evaluation.figures import NOTHING, RATES, milliseconds, named, percent, plain, written
from evaluation.markup import Column, Html, badge, facts, fold, html, notice, section, table, tag
from evaluation.page import page
from evaluation.report_parts import footer, key_figures, moment, run_facts
from evaluation.results import GoldenRun
from evaluation.statistics import Interval
from evaluation.terms import terms
from evaluation.wording import LONG, SIGNS, compared

OPENED = 8
MOST = 400
"""Disagreements that are written out; the JSON of both runs has the rest."""
EACH_SIDE = ("A", "B")


def comparison_page(
    a: GoldenRun, b: GoldenRun, comparison: Comparison, differences_in_words: Sequence[Disagreement]
) -> str:
    """The report of a comparison of two runs, shadowed or one after the other.

    Args:
        a: what was good enough.
        b: what may be worse.
        comparison: of both.
        differences_in_words: the clips in which they heard different words.
    """
    deciding = [d for d in comparison.differences if d.condition == "all"]
    reading = [d for d in comparison.differences if d.condition != "all"]
    sections = [_headline(a, b, comparison, deciding, differences_in_words), _deciding(comparison, deciding)]
    sections += [_forest(deciding)]
    if reading:
        sections.append(_by_condition(reading))
    sections.append(_words(differences_in_words))
    sides = [(f"Run {name}", run_facts(run.info)) for name, run in zip(EACH_SIDE, (a, b), strict=True)]
    told = [html(tag("h3", title), facts(pairs)) for title, pairs in sides]
    sections += [section("How both were measured", *told), terms("comparison")]
    verdict = badge("B is worse", "bad") if comparison.worse else badge("B is not worse", "good")
    info = b.info
    subtitle = html("A: ", _who(a), tag("br"), "B: ", _who(b), tag("br"), "Set: ", info.set_name)
    end = footer(info.version, info.started_at, info.machine)
    return page("Comparison of two runs", subtitle, sections, verdict=verdict, footer=end)


def _who(run: GoldenRun) -> str:
    model = f" {run.info.model}" if run.info.model else ""
    return f"{run.info.target}{model} ({moment(run.info.started_at)})"


def _headline(
    a: GoldenRun, b: GoldenRun, comparison: Comparison, deciding: Sequence[Difference], words: Sequence[Disagreement]
) -> Html:
    worse = [d for d in deciding if d.worse]
    better = [d for d in deciding if d.better]
    if worse:
        lead = f"B is worse than A: {_list(worse)}."
    elif deciding:
        lead = "B is not worse than A in any figure that decides."
    else:
        lead = "Both runs have nothing in common that could be compared."
    if better:
        lead += f" It is better in {_list(better)}."
    power = [f"{_change(d, d.detectable)} in {named(d.metric)}" for d in deciding if d.detectable is not None][:3]
    sure = f"The probability of calling B worse although it is not is at most {percent(comparison.alpha, 0)}."
    if power:
        sure += (
            f" A true loss of {'; '.join(power)} would be found four times out of five, a smaller one may go unseen."
        )
    blind = [d for d in deciding if d.metric == "wer" and d.detectable is None]
    if blind:
        sure += " How large a change of the word error rate would be found cannot be told from these clips."
    shown = [
        (named(d.metric).capitalize(), written(d.metric, d.b), f"A: {written(d.metric, d.a)}")
        for d in deciding
        if d.metric in ("wer", "first_partial_p95_ms", "final_p95_ms", "failed")
    ]
    shared = len({c.id for c in a.clips} & {c.id for c in b.clips})
    shown.append(("Clips with other words", f"{len(words):,}", f"of {shared:,} in both"))
    notes = [notice(note, "warn") for note in comparison.notes]
    return section(
        "In short", tag("p", lead, class_="lead"), key_figures(shown), tag("p", sure, class_="about"), *notes
    )


def _list(differences: Sequence[Difference]) -> str:
    said = [f"{named(d.metric)} ({_change(d, d.difference, signed=True)})" for d in differences]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _change(difference: Difference, value: float | None, *, signed: bool = False) -> str:
    """A difference in words: rates in percentage points."""
    if value is None:
        return NOTHING
    if difference.metric.endswith("_ms"):
        value = round(value)  # what is written as 0 has no sign
    sign = ("+" if value > 0 else "-" if value < 0 else "±").replace("-", "−") if signed else ("−" if value < 0 else "")
    size = abs(value)
    if difference.metric in RATES:
        return f"{sign}{size * 100:.2f} points"
    return f"{sign}{milliseconds(size) if difference.metric.endswith('_ms') else plain(round(size, 1))}"


def _between(difference: Difference) -> Html | None:
    interval = difference.interval
    if interval is None:
        return None
    low, high = (_change(difference, end, signed=True) for end in (interval.low, interval.high))
    number, _, unit = low.partition(" ")
    told = f"{number} to {high}" if unit == high.partition(" ")[2] else f"{low} to {high}"
    return tag("span", told, class_="range")


def _verdict(difference: Difference) -> Html:
    if difference.worse:
        return badge("worse", "bad")
    return badge("better", "good") if difference.better else badge("not worse", "plain")


COLUMNS = (
    Column("Figure", False), Column("A"), Column("B"), Column("Difference", about="B less A, with its 95 % interval"),
    Column("p", about="how often chance alone would do as much, adjusted for the number of figures"),
    Column("Margin", about="a smaller difference is not called worse"),
    Column("Detectable", about="the smallest true difference found four times out of five"), Column("Clips"),
)  # fmt: skip


def _cells(d: Difference) -> tuple[object, ...]:
    return (
        written(d.metric, d.a),
        written(d.metric, d.b),
        html(_change(d, d.difference, signed=True), _between(d)),
        "< 0.001" if d.p_value < 0.001 else f"{d.p_value:.3f}",
        _change(d, d.margin),
        _change(d, d.detectable),
        d.clips,
    )


def _deciding(comparison: Comparison, deciding: Sequence[Difference]) -> Html:
    rows = [(named(d.metric), *_cells(d), _verdict(d)) for d in deciding]
    about = (
        f"B is called worse where p is at most {comparison.alpha:g} and the difference is above the margin. "
        "Every clip is held against itself, sentence by sentence."
    )
    return section(
        "What decides",
        table((*COLUMNS, Column("Verdict", False)), rows, caption="Figures that decide") if rows
        else tag("p", "Nothing could be compared.", class_="about"),
        about=about,
    )  # fmt: skip


def _forest(differences: Sequence[Difference]) -> Html:
    """Points with intervals around zero: rates and times on an axis of their own each."""
    title = "Differences that decide"
    charts = []
    for unit, chosen in (
        ("percentage points", [d for d in differences if d.metric in RATES]),
        ("milliseconds", [d for d in differences if d.metric.endswith("_ms")]),
    ):
        if not chosen:
            continue
        factor = 100.0 if unit == "percentage points" else 1.0
        rows = []
        for d in chosen:
            interval = Interval(d.interval.low * factor, d.interval.high * factor) if d.interval else None
            told = _change(d, d.difference, signed=True)
            rows.append(Row(named(d.metric), d.difference * factor, interval, None, _tone(d), told, d.margin * factor))
        axis = Axis(f"difference, {unit} (to the right: B is worse)", _signed)
        about = f"{title}: " + "; ".join(f"{row.name} {row.text}" for row in rows)
        charts.append(figure("Errors" if factor > 1 else "Times", bars(rows, axis, about=about, points=True)))
    how = (
        "Points are the differences, whiskers their 95 % intervals; the grey band is the margin, within which nothing "
        "is called worse."
    )
    return (
        section(title, *charts, about=how)
        if charts
        else section(title, tag("p", "There is nothing to draw.", class_="about"))
    )


def _tone(d: Difference) -> Tone:
    return "bad" if d.worse else "good" if d.better else "plain"


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{'+' if value > 0 else '−'}{abs(value):g}"


def _by_condition(reading: Sequence[Difference]) -> Html:
    wer = [d for d in reading if d.metric == "wer"]
    chart = None
    if wer:
        rows = [
            Row(d.condition, d.difference * 100,
                Interval(d.interval.low * 100, d.interval.high * 100) if d.interval else None,
                text=_change(d, d.difference, signed=True), margin=d.margin * 100)
            for d in wer
        ]  # fmt: skip
        about = "Difference in word error rate: " + "; ".join(f"{row.name} {row.text}" for row in rows)
        axis = Axis("difference in word error rate, percentage points (to the right: B is worse)", _signed)
        chart = figure("Word error rate by condition", bars(rows, axis, about=about, points=True))
    folds = []
    for condition in dict.fromkeys(d.condition for d in reading):
        body = [(named(d.metric), *_cells(d)) for d in reading if d.condition == condition]
        folds.append(fold(condition, table(COLUMNS, body, caption=f"Figures of {condition}")))
    about = "For reading: a single condition decides nothing, and its p is not adjusted."
    return section("By condition", chart, fold("Every figure of every condition", tag("div", *folds)), about=about)


def _words(words: Sequence[Disagreement]) -> Html:
    if not words:
        return section("Other words", tag("p", "Both heard the same words in every clip.", class_="about"))
    first = [_disagreement(d, opened=len(d.reference.split()) <= LONG) for d in words[:OPENED]]
    rest = [_disagreement(d, opened=False) for d in words[OPENED:MOST]]
    if len(words) > MOST:
        rest.append(tag("p", f"{len(words) - MOST} more are in the documents of both runs.", class_="about"))
    more = fold(f"{len(words) - OPENED} more clips", tag("div", *rest)) if rest else None
    return section("Other words", SIGNS, tag("div", *first, more))


def _disagreement(d: Disagreement, *, opened: bool) -> Html:
    change = d.b_errors - d.a_errors
    said = (
        f"B has {abs(change)} more wrong"
        if change > 0
        else f"B has {abs(change)} fewer wrong"
        if change < 0
        else "as many wrong"
    )
    told = f"{d.condition} · A {d.a_errors}, B {d.b_errors} words wrong: {said}"
    head = html(tag("span", d.id, class_="clip-name"), " ", tag("span", told, class_="clip-facts"))
    return fold(head, compared(d.reference, [("A heard", d.a), ("B heard", d.b)]), opened=opened)
