"""HTML without mishaps: text is escaped unless it says itself that it is markup, and so are attributes.

What clips, transcripts and servers say ends up in reports, so that nothing else may build tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

VOID = frozenset({"br", "meta", "link"})
MANY = 10
"""From so many columns on a table is set more tightly."""

SHAPES = frozenset({"path", "rect", "circle", "line"})
_UNFIT = dict.fromkeys(
    [*(set(range(0x20)) - {0x09, 0x0A}), *range(0x7F, 0xA0), *range(0xD800, 0xE000)], "\N{REPLACEMENT CHARACTER}"
)


class Html(str):
    """Markup that is ready to be shown. Any other string is text."""

    __slots__ = ()


def html(*parts: object) -> Html:
    """Join markup and text; what is not markup is escaped, None is nothing."""
    return Html("".join(part if isinstance(part, Html) else escape(_clean(part)) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element.

    Args:
        name: of the tag.
        children: markup or text; None is nothing.
        attributes: `class_` is `class`, `stroke_width` is `stroke-width`; None and False are left out, True has
            no value.
    """
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(_clean(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in SHAPES:
        return Html(f"<{name}{said}/>")
    return Html(f"<{name}{said}>" if name in VOID else f"<{name}{said}>{html(*children)}</{name}>")


def _clean(value: object) -> str:
    """Text without what neither HTML nor UTF-8 can hold: control characters and halves of surrogate pairs."""
    return str(value).translate(_UNFIT)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        numeric: right-aligned, digits of one width.
        about: what it means, shown when the heading is pointed at.
    """

    title: str
    numeric: bool = True
    about: str = ""


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[object]], *, caption: str, strong_last: bool = False
) -> Html:
    """A table that scrolls inside of itself where the screen is narrow. The first cell of a row names it.

    Args:
        columns: as many as each row has cells.
        rows: cells are text or markup.
        caption: what is shown, for those who cannot see it too.
        strong_last: the last row is the sum of the others.
    """
    head = tag("tr", *(_heading(column, numeric=column.numeric and i > 0) for i, column in enumerate(columns)))
    body = [
        tag(
            "tr",
            *(
                tag("th", cell, scope="row")
                if i == 0
                else tag("td", cell, class_="number" if columns[i].numeric else None)
                for i, cell in enumerate(row)
            ),
            class_="sum" if strong_last and n == len(rows) - 1 else None,
        )
        for n, row in enumerate(rows)
    ]
    many = "many" if len(columns) >= MANY else None
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_=many)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _heading(column: Column, *, numeric: bool) -> Html:
    title: object = tag("abbr", column.title, title=column.about) if column.about else column.title
    return tag("th", title, scope="col", class_="number" if numeric else None)


def badge(words: str, tone: str) -> Html:
    """A verdict in a pill, told by words and a sign and not by colour alone.

    Args:
        words: as "kept".
        tone: `good`, `bad`, `warn` or `plain`.
    """
    sign = {"good": "✓", "bad": "✕", "warn": "!", "plain": "·"}[tone]
    return tag("span", tag("span", sign, class_="sign", aria_hidden="true"), html(words), class_=f"badge {tone}")


def notice(words: object, tone: str) -> Html:
    """A paragraph that must not be missed. Tones as of `badge`."""
    return tag("p", words, class_=f"notice {tone}")


def fold(summary: object, *inside: object, opened: bool = False) -> Html:
    """Something that is opened when it is wanted."""
    return tag("details", tag("summary", summary), *inside, open=opened)


def facts(pairs: Sequence[tuple[str, object]]) -> Html:
    """A list of terms and what they are; pairs whose second is empty are left out."""
    shown = [tag("div", tag("dt", term), tag("dd", value)) for term, value in pairs if value not in (None, "")]
    return tag("dl", *shown, class_="facts")


def section(title: str, *inside: object, about: str = "") -> Html:
    """A card with a heading and, where it helps, a sentence on how to read it."""
    return tag("section", tag("h2", title), tag("p", about, class_="about") if about else None, *inside)
