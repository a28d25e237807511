"""Horizontal charts, one line per name: bars with intervals and limits, or differences as points around zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pygal

from evaluation.drawing import CONFIG, Axis, along, cut, draw, frame, place, positions, scale, short
from evaluation.markup import Html, tag
from evaluation.statistics import Interval

LETTER = 7.6
"""Width of a letter, generously."""

Tone = Literal["plain", "good", "bad"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a horizontal chart.

    Attributes:
        name: on the left.
        value: in the unit of the axis; None draws nothing.
        interval: its whisker.
        limit: drawn as a mark across the row.
        tone: colour of the mark: `plain`, `good` or `bad`.
        text: written beside it.
        margin: a band of this half-width around zero (for differences).
    """

    name: str
    value: float | None
    interval: Interval | None = None
    limit: float | None = None
    tone: Tone = "plain"
    text: str = ""
    margin: float | None = None


def bars(rows: Sequence[Row], x: Axis, *, about: str, points: bool = False) -> Html:
    """Horizontal bars (or points around a marked zero), each with its interval and limit.

    Args:
        rows: from top to bottom.
        x: the axis of their values.
        about: what is to be seen, for those who cannot see it.
        points: draw points and a line at zero in place of bars: for differences.
    """
    known = [row for row in rows if row.value is not None]
    if not known:
        return tag("p", "Nothing was measured that could be drawn here.", class_="about")
    ends = [e for row in known for e in (row.value, row.limit, *_ends(row.interval)) if e is not None]
    if points:
        ends += [sign * row.margin for row in known if row.margin is not None for sign in (-1, 1)]
    x = scale(x, [*ends, 0, *_room_for_texts(known, x, min(0.0, *ends), max(len(short(row.name)) for row in rows))])
    names = [{"value": float(len(rows) - 1 - n), "label": short(row.name)} for n, row in enumerate(rows)]
    chart = pygal.XY(
        **CONFIG,
        height=88 + (34 if points else 30) * len(rows),
        x_title=x.title,
        x_labels=positions(x),
        y_labels=names,
        xrange=along(x),
        range=(-0.6, len(rows) - 0.4),
        stroke=False,
        show_dots=False,
        show_x_guides=True,
    )
    chart.add("values", [(place(x, row.value), float(len(rows) - 1 - n)) for n, row in enumerate(rows) if row in known])
    with frame(chart) as view:
        zero = view.x(0)
        if points:
            draw(chart, "plot", "path", d=f"M{zero:.1f} 0 v{view.height:.1f}", class_="zero")
        for n, row in enumerate(rows):
            if row.value is None:
                continue
            at, middle = view.x(row.value), view.y(len(rows) - 1 - n)
            words = f"{row.name}: {row.text or x.say(row.value)}"
            if points and row.margin is not None:
                left, right = view.x(-row.margin), view.x(row.margin)
                draw(chart, "plot", "rect", x=left, y=middle - 11, width=right - left, height=22, class_="margin")
            if not points:
                width = max(at - zero, 1)
                draw(
                    chart,
                    "plot",
                    "rect",
                    words,
                    x=zero,
                    y=middle - 9,
                    width=width,
                    height=18,
                    rx=3,
                    class_=f"{row.tone}-mark",
                )
            if row.limit is not None:  # its mark stays apart from a bar of its colour
                draw(chart, "plot", "path", d=f"M{view.x(row.limit):.1f} {middle - 12:.1f} v24", class_="halo")
            farthest = at
            if row.interval is not None:
                low, high = view.x(max(row.interval.low, x.low or row.interval.low)), view.x(row.interval.high)
                path = f"M{low:.1f} {middle:.1f} H{high:.1f} m0 -5 v10 M{low:.1f} {middle - 5:.1f} v10"
                draw(chart, "plot", "path", d=path, class_="whisker")
                farthest = max(at, high)
            if points:
                draw(chart, "plot", "circle", words, cx=at, cy=middle, r=6, class_=f"point {row.tone}-mark")
            if row.limit is not None:
                limit = view.x(row.limit)
                draw(chart, "plot", "path", d=f"M{limit:.1f} {middle - 12:.1f} v24", class_="tick")
                farthest = limit if -4 < limit - farthest < 56 else farthest
            draw(
                chart,
                "text_overlay",
                "text",
                text=row.text or x.say(row.value),
                x=farthest + 8,
                y=middle + 4,
                class_="value",
            )
        return cut(chart, "drawn rows", about)


def _room_for_texts(rows: Sequence[Row], x: Axis, low: float, letters: int) -> list[float]:
    """How far the axis must reach so that the text beside each row stays inside of the chart."""
    wide = CONFIG["width"] - LETTER * letters - 60
    reach = []
    for row in rows:
        farthest = max(e for e in (row.value, row.limit, *_ends(row.interval)) if e is not None)
        text = min((len(row.text or x.say(farthest)) * LETTER + 12) / wide, 0.5)
        reach.append(low + (farthest - low) / (1 - text))
    return reach


def _ends(interval: Interval | None) -> tuple[float, ...]:
    return () if interval is None else (interval.low, interval.high)
