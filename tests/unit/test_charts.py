"""Charts: what is drawn where, that hostile names stay text, and that nothing but shapes comes out."""

from __future__ import annotations

import re

import pygal
import pytest

from evaluation.charts import Axis, Limit, Row, Series, bars, distributions, figure, grouped, keys, lines, page, stacked
from evaluation.drawing import CONFIG, SHAPES, cut, draw, frame, place, scale
from evaluation.markup import Column, Html, badge, html, section, table, tag
from evaluation.statistics import Interval
from html_reading import Read, assert_self_contained, read
from sample_runs import HOSTILE

SESSIONS = [Series("p50", [(1, 60.0), (10, 70.0), (100, 400.0)]), Series("p95", [(1, 90.0), (10, None), (100, 4000.0)])]
X, Y = Axis("sessions", log=True), Axis("latency (ms)", log=True)


def dots(svg: str) -> list[tuple[float, float]]:
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


def marks(svg: str, kind: str) -> list[tuple[float, float]]:
    """x and width of the rectangles of a class."""
    found = re.findall(rf'<rect x="([\d.]+)"[^>]* width="([\d.]+)"[^>]* class="{kind}"', svg)
    return [(float(x), float(width)) for x, width in found]


def checked(svg: str) -> Read:
    seen = read(svg)
    assert_self_contained(seen)
    assert set(seen.tags) <= SHAPES | {"svg"}
    assert seen.values("svg", "role") == ["img"]
    assert all(seen.values("svg", "aria-label"))
    return seen


def test_lines_are_drawn_with_limit_knee_titles_and_values_to_point_at() -> None:
    svg = lines(SESSIONS, X, Y, about="told", limits=[Limit(300, "SLO 300 ms")], knee=Limit(50, "knee at 50"))
    seen = checked(svg)
    assert seen.values("svg", "aria-label") == ["told"]
    for words in ("sessions", "latency (ms)", "SLO 300 ms", "knee at 50", "p95, 100: 4,000", "p50, 10: 70"):
        assert words in seen.text
    assert len(dots(svg)) == 5
    assert len(marks(svg, "beyond")) == 1
    assert svg.count('class="limit"') == 2


def test_a_logarithmic_axis_puts_equal_ratios_at_equal_distances() -> None:
    (a, _), (b, _), (c, _) = dots(lines([Series("s", [(1, 1.0), (10, 1.0), (100, 1.0)])], X, Axis("y"), about="."))
    assert b - a == pytest.approx(c - b)


def test_greater_values_are_higher_up() -> None:
    (_, low), (_, high) = dots(lines([Series("s", [(0, 1.0), (1, 5.0)])], Axis("x"), Axis("y"), about="."))
    assert high < low


def test_a_gap_interrupts_a_line() -> None:
    points: list[tuple[float, float | None]] = [(0, 1.0), (1, 2.0), (2, None), (3, 1.0), (4, 2.0)]
    svg = lines([Series("s", points)], Axis("x"), Axis("y"), about=".")
    assert svg.count('class="line reactive nofill"') == 2


def test_intervals_of_lines_are_whiskers() -> None:
    series = Series("s", [(0, 0.1), (1, 0.2)], [Interval(0.05, 0.2), None])
    assert lines([series], Axis("x"), Axis("y"), about=".").count("whisker") == 1


def test_bars_have_lengths_in_proportion_intervals_limits_and_names() -> None:
    rows = [
        Row("clean", 0.1, Interval(0.08, 0.13), 0.12),
        Row("noise", 0.2, None, 0.18, "bad", "20 % (above)"),
        Row("silence", None),
    ]
    svg = bars(rows, Axis("word error rate"), about=".")
    seen = checked(svg)
    ((_, clean),) = marks(svg, "plain-mark")
    ((_, noise),) = marks(svg, "bad-mark")
    assert noise == pytest.approx(2 * clean, rel=0.01)
    assert svg.count('class="whisker"') == 1
    assert svg.count('class="tick"') == 2
    for words in ("clean", "noise", "silence", "word error rate", "20 % (above)"):
        assert words in seen.text
    assert seen.text.index("20 % (above)") < len(seen.text)


def test_long_texts_beside_bars_have_room() -> None:
    words = "35.2 % (far above what was agreed)"
    svg = bars([Row("a", 1.0, Interval(0.9, 1.0), text=words), Row("b", 0.2)], Axis("x"), about=".")
    found = re.search(r'<text x="([\d.]+)"[^>]*class="value">35.2', svg)
    plot = re.search(r"translate\((\d+), ", svg)
    assert found is not None
    assert plot is not None
    assert float(found[1]) + int(plot[1]) + len(words) * 7 < 900


def test_differences_are_points_around_zero_with_their_margin() -> None:
    rows = [Row("a", 2.0, Interval(1.0, 3.0), tone="bad", margin=0.5), Row("b", -2.0, tone="good", margin=0.5)]
    svg = bars(rows, Axis("difference"), about=".", points=True)
    (worse, _), (better, _) = dots(svg)
    ((left, width), _) = marks(svg, "margin")
    zero = left + width / 2
    assert worse - zero == pytest.approx(zero - better, abs=0.2)
    assert worse > zero
    assert svg.count('class="zero"') == 1


def test_distributions_rise_from_nothing_to_all_and_mark_the_limit() -> None:
    svg = distributions([("first", [100.0, 300.0, 200.0])], Axis("ms"), about=".", limits=[Limit(250, "by 250")])
    assert "by 250" in read(svg).text
    path = re.search(r'<path d="M([\d. L]+)" class="line', svg)
    assert path is not None
    places = [float(number) for number in re.findall(r"[\d.]+", path[1])]
    heights = places[1::2]
    assert heights == sorted(heights, reverse=True)
    assert len(heights) == 6


def test_a_distribution_of_many_values_stays_small() -> None:
    assert len(distributions([("first", [float(i) for i in range(50_000)])], Axis("ms"), about=".")) < 30_000


@pytest.mark.parametrize("kind", [stacked, grouped])
def test_upright_bars_have_a_rectangle_for_each_value(kind: object) -> None:
    assert callable(kind)
    svg = kind(["1", "10"], [("refused", [1, 4]), ("errors", [2, 0])], "sessions", Axis("count", whole=True), about=".")
    seen = checked(svg)
    assert svg.count("<rect") == 4
    assert "refused, 10: 4" in seen.text
    assert "sessions" in seen.text


def test_hostile_names_stay_text_in_every_chart() -> None:
    axis = Axis(HOSTILE, lambda value: f"{value}{HOSTILE}")
    series = [Series(HOSTILE, [(1, 1.0), (2, 3.0)])]
    drawn = [
        lines(series, axis, axis, about=HOSTILE, limits=[Limit(2, HOSTILE)], knee=Limit(1.5, HOSTILE)),
        bars([Row(HOSTILE, 1.0, Interval(0, 2), 1.5, text=HOSTILE)], axis, about=HOSTILE),
        distributions([(HOSTILE, [1.0, 2.0])], axis, about=HOSTILE, limits=[Limit(1, HOSTILE)]),
        stacked([HOSTILE, "b"], [(HOSTILE, [1, 2])], HOSTILE, axis, about=HOSTILE),
    ]
    for svg in drawn:
        assert "<script>" in checked(svg).values("svg", "aria-label")[0]
    whole = figure(HOSTILE, drawn[0], legend=keys([HOSTILE], limit=HOSTILE), about=HOSTILE)
    assert_self_contained(read(whole))


def test_only_shapes_and_places_come_out() -> None:
    chart = pygal.XY(**CONFIG)
    chart.add("s", [(0, 1), (1, 2)])
    with frame(chart):
        draw(chart, "plot", "rect", x=1, width=2, onclick="run()", style="color: red", id="one")
        draw(chart, "plot", "foreignObject", x=1)
        drawn = cut(chart, "drawn", "told")
    assert '<rect x="1" width="2"/>' in drawn
    assert "foreignObject" not in drawn
    assert_self_contained(read(drawn))


@pytest.mark.parametrize(
    "made",
    [
        lines([], Axis("x"), Axis("y"), about="."),
        lines([Series("s", [(1, None)])], Axis("x"), Axis("y"), about="."),
        bars([Row("a", None)], Axis("x"), about="."),
        distributions([("a", [])], Axis("x"), about="."),
        stacked([], [], "x", Axis("y"), about="."),
    ],
)
def test_where_nothing_was_measured_it_says_so(made: Html) -> None:
    assert read(made).text == "Nothing was measured that could be drawn here."


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9, 1e12])
def test_one_single_value_can_be_drawn(value: float) -> None:
    assert len(dots(lines([Series("s", [(value, value)])], Axis("x"), Axis("y"), about="."))) == 1
    checked(bars([Row("a", value)], Axis("x"), about="."))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.07), (3, 4987), (-2.5, 11), (0, 1e-6), (-8, -2)])
@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_few_rising_and_hold_what_is_drawn(low: float, high: float, log: bool) -> None:
    if log:
        low, high = max(low, 1e-3), max(high, 2.0)
    axis = scale(Axis("x", log=log), [low, high])
    assert 2 <= len(axis.ticks) <= 16
    assert list(axis.ticks) == sorted(set(axis.ticks))
    assert axis.low is not None
    assert axis.high is not None
    assert axis.low <= low
    assert axis.high >= high
    assert log or axis.low <= 0


def test_whole_axes_have_whole_ticks() -> None:
    assert list(scale(Axis("x", whole=True), [0, 2]).ticks) == [0, 1, 2]


def test_nothing_at_or_below_zero_lies_on_a_logarithmic_axis() -> None:
    assert place(Axis("x", log=True), 0.0) is None
    assert place(Axis("x", log=True), 100.0) == 2


def test_markup_is_not_escaped_twice_and_text_always_once() -> None:
    assert html("a<b", tag("b", "&"), None, 3) == "a&lt;b<b>&amp;</b>3"
    assert tag("p", class_="x\"y'", hidden=True, title=None, open=False) == '<p class="x&quot;y&#x27;" hidden></p>'
    assert "\x00" not in html(HOSTILE)
    assert html("a\ud800\x7f\tb").encode() == "a\ufffd\ufffd\tb".encode()


def test_tables_name_their_rows_and_columns() -> None:
    made = read(table([Column("Name", False), Column("Count", about="how many")], [("a", 1), ("b", 2)], caption="All"))
    assert made.values("th", "scope") == ["col", "col", "row", "row"]
    assert made.values("abbr", "title") == ["how many"]
    assert made.values("div", "aria-label") == ["All"]


def test_what_is_too_much_for_one_chart_is_said() -> None:
    names = [f"process {n}" for n in range(9)]
    assert "and 3 more, not drawn" in keys(names)
    svg = lines([Series(name, [(0, 1.0), (1, 2.0)]) for name in names], Axis("x"), Axis("y"), about=".")
    assert "process 5" in svg
    assert "process 6" not in svg


def test_a_verdict_is_told_by_a_sign_and_words() -> None:
    assert read(badge("missed", "bad")).text.split() == ["✕", "missed"]


def test_the_page_pins_its_style_and_allows_nothing_else() -> None:
    made = page("Title & more", "sub", [section("S", "text <b>")], verdict=badge("kept", "good"), footer=["end"])
    seen = read(made)
    assert_self_contained(seen)
    (policy,) = [value for value in seen.values("meta", "content") if "default-src" in value]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "Title & more" in seen.text
    assert "text <b>" in seen.text
    assert made.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in seen.style
    assert "@media print" in seen.style
