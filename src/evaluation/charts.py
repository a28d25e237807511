"""Charts as inline `<svg>`: pygal lays out axes and lines, a few marks are drawn over it, the page's style colours it.

What comes out holds no script, style, id or address, so that any number of charts live in one page under a
strict policy.
Colours are classes (`color-0` …): the page gives them a shade for light and one for dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pygal

from evaluation.drawing import CONFIG, Axis, along, cut, draw, frame, place, positions, scale, short, tip
from evaluation.figures import axis_percent
from evaluation.markup import Html, html, tag
from evaluation.page import page
from evaluation.row_charts import Row, Tone, bars
from evaluation.statistics import Interval

__all__ = [
    "Axis", "Limit", "Row", "Series", "Tone", "bars", "distributions", "figure", "grouped", "keys", "lines", "page",
    "stacked",
]  # fmt: skip

Spot = tuple[float, float, str]
"""Where a label may stand: x, y, and which end of it is there (`start` or `end`)."""

CLEAR = 24.0
"""Farther than this from a label a curve does not disturb it."""

WIDTH_OF_A_LETTER = 7.6
MOST_STEPS = 300
SERIES = 6


@dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        name: in the legend.
        points: x and y in the units of their axes; a y of None interrupts the line.
        intervals: of the points, drawn as whiskers; as many as points, or none.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    intervals: Sequence[Interval | None] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    """A value not to be passed, drawn as a dashed line with its name."""

    value: float
    label: str


def lines(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    about: str,
    limits: Sequence[Limit] = (),
    upright: Sequence[Limit] = (),
    knee: Limit | None = None,
    dots: bool = True,
    height: int = 360,
) -> Html:
    """Lines over x.

    Args:
        series: at most six, told apart by colour and dash.
        x: its axis.
        y: its axis.
        about: what is to be seen, for those who cannot see it.
        limits: values of y that are marked across the chart.
        upright: values of x that are marked.
        knee: an x beyond which the chart is shaded.
        dots: whether points are marked, with their values told when pointed at.
        height: of the chart, where 900 is its width.
    """
    ys = [v for s in series for _, v in s.points if v is not None]
    ys += [limit.value * (1.6 if y.log else 1.12) for limit in limits]
    ys += [end for s in series for i in s.intervals if i for end in (i.low, i.high)]
    xs = [v for s in series for v, _ in s.points] + [limit.value for limit in upright]
    if not [v for s in series for _, v in s.points if v is not None]:
        return tag("p", "Nothing was measured that could be drawn here.", class_="about")
    x, y = scale(x, xs), scale(y, ys)
    chart = pygal.XY(
        **CONFIG,
        height=height,
        x_title=x.title,
        y_title=y.title,
        x_labels=positions(x),
        y_labels=positions(y),
        xrange=along(x),
        range=along(y),
        show_dots=dots,
        dots_size=4.5,
        allow_interruptions=True,
    )
    for one in series[:SERIES]:
        points = [(place(x, at), place(y, v)) for at, v in one.points]
        told = [f"{one.name}, {x.say(at)}: {y.say(v) if v is not None else ''}" for at, v in one.points]
        chart.add(
            one.name, [tip(point, words) for point, words in zip(points, told, strict=True) if point[0] is not None]
        )
    with frame(chart) as view:
        placed = [[(place(x, at), place(y, v)) for at, v in one.points] for one in series]
        curves = [[(view.x(at), view.y(v)) for at, v in points if None not in (at, v)] for points in placed]
        if knee is not None:
            at = view.x(place(x, knee.value))
            draw(chart, "plot", "rect", x=at, y=0, width=max(view.width - at, 0), height=view.height, class_="beyond")
            draw(chart, "plot", "path", d=f"M{at:.1f} 0 v{view.height:.1f}", class_="limit")
            spots = [(at - 8, 14, "end"), (at + 8, 14, "start"), (at - 8, view.height - 10, "end")]
            _label(chart, knee.label, spots, curves)
        for limit in limits:
            at = view.y(place(y, limit.value))
            draw(chart, "plot", "path", d=f"M0 {at:.1f} h{view.width:.1f}", class_="limit")
            spots = [
                (8, at - 6, "start"),
                (view.width - 8, at - 6, "end"),
                (8, at + 16, "start"),
                (view.width - 8, at + 16, "end"),
            ]
            _label(chart, limit.label, spots, curves)
        for limit in upright:
            at = view.x(place(x, limit.value))
            draw(chart, "plot", "path", d=f"M{at:.1f} 0 v{view.height:.1f}", class_="limit")
            spots = [(at + 8, view.height - 12, "start"), (at - 8, view.height - 12, "end"), (at - 8, 14, "end")]
            _label(chart, limit.label, spots, curves)
        for n, one in enumerate(series[:SERIES]):
            for (at_x, _), interval in zip(one.points, one.intervals, strict=False):
                if interval is not None:
                    ends = [view.y(place(y, max(end, y.low or 0))) for end in (interval.low, interval.high)]
                    at = view.x(place(x, at_x))
                    path = f"M{at:.1f} {ends[0]:.1f} V{ends[1]:.1f} m-5 0 h10 M{at - 5:.1f} {ends[0]:.1f} h10"
                    draw(chart, "plot", "path", d=path, class_=f"whisker of-{n}")
        return cut(chart, "drawn", about)


def distributions(
    samples: Sequence[tuple[str, Sequence[float]]],
    x: Axis,
    *,
    about: str,
    limits: Sequence[Limit] = (),
    height: int = 340,
) -> Html:
    """Cumulative distributions: for each x, the share of the values that are at most as large.

    Args:
        samples: names with their values; those without values are left out.
        x: the axis of the values.
        about: what is to be seen, for those who cannot see it.
        limits: values of x that are marked.
        height: of the chart, where 900 is its width.
    """
    series = [Series(name, _steps(values)) for name, values in samples if values]
    y = Axis("share that came by then", axis_percent, low=0, high=1, ticks=(0, 0.25, 0.5, 0.75, 0.95))
    return lines(series, x, y, about=about, upright=limits, dots=False, height=height)


def _steps(values: Sequence[float]) -> list[tuple[float, float | None]]:
    ordered = sorted(values)
    count = len(ordered)
    picked = range(count) if count <= MOST_STEPS else [i * (count - 1) // (MOST_STEPS - 1) for i in range(MOST_STEPS)]
    points: list[tuple[float, float | None]] = []
    before = 0.0
    for i in picked:
        points += [(ordered[i], before), (ordered[i], (i + 1) / count)]
        before = (i + 1) / count
    return points


def stacked(
    names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], x: str, y: Axis, *, about: str
) -> Html:
    """Bars of several parts, one on top of the other.

    Args:
        names: of the bars.
        series: the parts' names, with a value for each bar.
        x: title of the axis of the bars.
        y: axis of the values.
        about: what is to be seen, for those who cannot see it.
    """
    sums = [sum(values[i] for _, values in series) for i in range(len(names))]
    return _upright(pygal.StackedBar, names, series, x, scale(y, [0, *sums]), about)


def grouped(
    names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], x: str, y: Axis, *, about: str
) -> Html:
    """Bars side by side, in groups. Arguments as of `stacked`."""
    return _upright(pygal.Bar, names, series, x, scale(y, [0, *(v for _, values in series for v in values)]), about)


def _upright(
    kind: type[pygal.Bar],
    names: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    x: str,
    y: Axis,
    about: str,
) -> Html:
    if not names or not series:
        return tag("p", "Nothing was measured that could be drawn here.", class_="about")
    chart = kind(
        **CONFIG,
        height=320,
        x_title=x,
        y_title=y.title,
        x_labels=[short(name, 14) for name in names],
        y_labels=positions(y),
        range=along(y),
    )
    for name, values in series[:SERIES]:
        told = [f"{name}, {bar}: {y.say(v)}" for bar, v in zip(names, values, strict=True)]
        chart.add(name, [tip(v, words) for v, words in zip(values, told, strict=True)])
    with frame(chart):
        return cut(chart, "drawn", about)


def keys(names: Sequence[str], *, blocks: bool = False, limit: str = "") -> Html:
    """The legend, as a list above the chart.

    Args:
        names: of the series, in their order.
        blocks: bars in place of lines.
        limit: what a mark across a row means, where there is one.
    """
    sign = Html('<rect x="8" y="1" width="14" height="12" rx="2" class="color-{}"/>')
    dash = Html('<path d="M1 7h28" class="color-{}"/>')
    drawn = [
        tag("li", tag("svg", Html((sign if blocks else dash).format(n)), viewBox="0 0 30 14", aria_hidden="true"), name)
        for n, name in enumerate(names[:SERIES])
    ]
    if len(names) > SERIES:
        drawn.append(tag("li", f"and {len(names) - SERIES} more, not drawn"))
    if limit:
        mark = Html('<path d="M15 0v14" class="tick"/>')
        drawn.append(tag("li", tag("svg", mark, viewBox="0 0 30 14", aria_hidden="true"), limit))
    return tag("ul", *drawn, class_="keys")


def figure(title: str, chart: Html, *, legend: Html | None = None, about: str = "") -> Html:
    """A chart with its title, its legend and a sentence on how to read it; it scrolls where the screen is narrow."""
    explained = tag("p", about, class_="about") if about else None
    scrolling = tag("div", chart, class_="scroll", tabindex="0", role="group", aria_label=title)
    return tag("figure", tag("figcaption", title), html(explained, legend, scrolling), class_="chart")


def _label(chart: pygal.XY, words: str, spots: Sequence[Spot], curves: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Write the name of a mark at the spot that is farthest from all curves; the first of equal ones."""
    wide = len(words) * WIDTH_OF_A_LETTER

    def room(spot: Spot) -> float:
        at, height, anchor = spot
        left = at - wide if anchor == "end" else at
        if left < 0 or left + wide > chart.view.width:
            return -1.0
        middle = height - 4
        return min((_distance(curve, left, left + wide, middle) for curve in curves), default=CLEAR)

    at, height, anchor = max(spots, key=lambda spot: min(room(spot), CLEAR))
    draw(chart, "text_overlay", "text", text=words, x=at, y=max(height, 12), class_="label", text_anchor=anchor)


def _distance(curve: Sequence[tuple[float, float]], left: float, right: float, height: float) -> float:
    """How far a curve stays above or below a height between two places; all of `CLEAR` where it is not."""
    nearest = CLEAR
    for (x1, y1), (x2, y2) in zip(curve, [*curve[1:], *curve[-1:]], strict=True):
        low, high = max(min(x1, x2), left), min(max(x1, x2), right)
        if low > high:
            continue
        ends = [y1 + (y2 - y1) * (x - x1) / (x2 - x1) if x2 != x1 else y for x, y in ((low, y1), (high, y2))]
        between = min(ends) <= height <= max(ends)
        nearest = min(nearest, 0.0 if between else min(abs(end - height) for end in ends))
    return nearest
