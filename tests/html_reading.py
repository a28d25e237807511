"""Reads a page as strictly as a reviewer would: every tag closed, nothing from outside, nothing that runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "meta", "link"}
SHAPES = {"path", "rect", "circle", "line"}
KNOWN = {
    "html", "head", "title", "style", "body", "header", "main", "footer", "section", "div", "span", "p", "h1", "h2",
    "h3", "ul", "li", "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tr", "th", "td", "abbr", "details",
    "summary", "figure", "figcaption", "svg", "g", "text", "del", "ins", "mark", *VOID, *SHAPES,
}  # fmt: skip


@dataclass
class Read:
    """What is in a page."""

    text: str
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    style: str = ""

    def values(self, tag: str, name: str) -> list[str]:
        return [value for at, key, value in self.attributes if (at, key) == (tag, name)]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.read = Read("")
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        assert tag not in SHAPES, f"<{tag}> is not closed"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        assert tag in SHAPES

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.read.style += data
        else:
            self.said.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.read.tags.append(tag)
        self.read.attributes += [(tag, name, value or "") for name, value in attrs]


def read(markup: str) -> Read:
    """What is in it; AssertionError where it is not well-formed."""
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    assert reader.open == []
    reader.read.text = re.sub(r"\s+", " ", " ".join(reader.said))
    return reader.read


def assert_self_contained(seen: Read) -> None:
    """Nothing is loaded, linked or run, and no element came in that no report uses."""
    assert set(seen.tags) <= KNOWN
    for tag, name, value in seen.attributes:
        assert name not in ("src", "srcset", "action", "style", "xmlns", "xlink:href"), (tag, name)
        assert name != "href" or value == "data:,", value
        assert not name.startswith("on"), (tag, name)
    assert "http" not in seen.style
    assert "url(" not in seen.style
    assert "@import" not in seen.style
    ids = [value for _, name, value in seen.attributes if name == "id"]
    assert len(ids) == len(set(ids))
