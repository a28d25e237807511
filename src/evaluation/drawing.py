"""Under the charts: scales and ticks, marks in pygal's coordinates, and what is kept of the tree that pygal draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pygal
from pygal.style import Style

from evaluation.figures import plain
from evaluation.markup import Html, tag

FONT = 13
CONFIG: dict[str, Any] = {
    "width": 900,
    "style": Style(
        font_family="sans-serif",
        label_font_size=FONT,
        major_label_font_size=FONT,
        title_font_size=FONT,
        value_font_size=FONT,
        legend_font_size=FONT,
    ),
    "css": [],
    "js": [],
    "show_legend": False,
    "truncate_label": -1,
    "margin": 6,
    "margin_right": 14,
    "spacing": 9,
}
KEPT = frozenset({"class", "d", "x", "y", "cx", "cy", "r", "rx", "ry", "width", "height", "transform", "text-anchor"})
"""Attributes that are kept. No id, style, href or event can come through."""
SHAPES = frozenset({"g", "path", "rect", "circle", "line", "text", "title"})


@dataclass(frozen=True, slots=True)
class Axis:
    """How values of one direction are shown.

    Attributes:
        title: with the unit.
        say: writes a value, with its unit where the title does not say it.
        low, high: ends; None: what the data needs, from zero on where it is linear.
        log: logarithmic; what is not above zero is then not drawn.
        ticks: where to write values; empty: at round ones.
        whole: whether only whole numbers make sense as ticks.
    """

    title: str
    say: Callable[[float], str] = plain
    low: float | None = None
    high: float | None = None
    log: bool = False
    ticks: Sequence[float] = ()
    whole: bool = False


def scale(axis: Axis, values: Sequence[float]) -> Axis:
    """The axis with both ends and its ticks."""
    seen = [v for v in values if v > 0 or not axis.log] or [1.0]
    low = axis.low if axis.low is not None else (min(seen) if axis.log else min(0.0, *seen, 0.0))
    high = axis.high if axis.high is not None else max(seen)
    if high <= low:
        high = low * 10 if axis.log else low + (abs(low) or 1.0)
    if axis.ticks:
        inside = [tick for tick in axis.ticks if low <= tick <= high]
        return replace(axis, low=low, high=high, ticks=inside)
    ticks = _decades(low, high) if axis.log else _round(low, high, whole=axis.whole)
    if axis.high is None:
        high = max(high, ticks[-1])
    return replace(axis, low=min(low, ticks[0]) if axis.low is None else low, high=high, ticks=ticks)


def _round(low: float, high: float, *, whole: bool) -> list[float]:
    """Five or so round values that hold both ends."""
    rough = max((high - low) / 5, 1.0 if whole else 0.0)
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in ((1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 … that hold both ends; only powers of ten where there would be too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 4 else (1,)
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in steps]
    below = [t for t in ticks if t <= low * 1.001]
    above = [t for t in ticks if t >= high * 0.999]
    return [t for t in ticks if (below[-1] if below else low) <= t <= (above[0] if above else high)]


def place(axis: Axis, value: float | None) -> float | None:
    """Where a value lies for pygal, that draws straight scales only."""
    if value is None or not axis.log:
        return value
    return math.log10(value) if value > 0 else None


def positions(axis: Axis) -> list[dict[str, Any]]:
    """The ticks, as pygal takes them."""
    return [{"value": place(axis, tick), "label": axis.say(tick)} for tick in axis.ticks]


def along(axis: Axis) -> tuple[float | None, float | None]:
    """Both ends, as pygal takes them."""
    return place(axis, axis.low), place(axis, axis.high)


def tip(value: object, words: str) -> dict[str, Any]:
    """A value of a series with what is said when it is pointed at."""
    return {"value": value, "formatter": lambda _: words}


def short(name: str, most: int = 34) -> str:
    """A name that fits beside its axis."""
    return name if len(name) <= most else name[: most - 1] + "…"


@contextmanager
def frame(chart: pygal.Graph) -> Iterator[Any]:
    """The chart, laid out: pygal's view, that turns values into places. Marks may be drawn inside."""
    chart.setup()
    try:
        yield chart.view
    finally:
        chart.teardown()


def draw(
    chart: pygal.Graph, layer: str, shape: str, hint: str = "", *, text: str | None = None, **attributes: Any
) -> None:
    """Add a mark.

    Args:
        chart: inside of its `frame`.
        layer: `plot`, `overlay` or `text_overlay`: below, among or above pygal's own dots.
        shape: `path`, `rect`, `circle` or `text`.
        hint: what is said when it is pointed at.
        text: of a text.
        attributes: as `d`, `x`, `class_`, `text_anchor`; lengths in pygal's units.
    """
    said = {
        k.rstrip("_").replace("_", "-"): f"{v:.1f}" if isinstance(v, float) else str(v) for k, v in attributes.items()
    }
    node = chart.svg.node(chart.nodes[layer], shape, said)
    if text is not None:
        node.text = text
    if hint:
        chart.svg.node(node, "title").text = hint


def cut(chart: pygal.Graph, classes: str, about: str) -> Html:
    """What is kept of the tree: shapes, places, classes, texts. The rest is pygal's script, style and addresses."""
    inside = [kept for node in chart.svg.root if node.tag == "g" and (kept := _kept(node)) is not None]
    return tag(
        "svg", *inside, class_=classes, viewBox=f"0 0 {chart.width} {chart.height}", role="img", aria_label=about
    )


def _kept(node: Any) -> Html | None:
    if node.tag not in SHAPES or node.get("class") in ("background", "tooltip", "plot tooltip-overlay"):
        return None
    inside: list[object] = [node.text or ""]
    inside += [kept for child in node if child.tag != "title" and (kept := _kept(child)) is not None]
    hint = next((child for child in node if child.tag == "title" or child.get("class") == "value"), None)
    if hint is not None and node.get("class") != "guides":
        inside.insert(0, tag("title", hint.text or ""))
    attributes = {
        key.replace("-", "_") if key != "class" else "class_": value
        for key, value in node.attrib.items()
        if key in KEPT
    }
    if node.tag == "g" and not any(part for part in inside):
        return None
    if node.tag in ("rect", "path", "circle") and len(inside) > 1:
        return tag("g", *inside[:1], tag(node.tag, **attributes))
    return tag(node.tag, *inside, **attributes)
