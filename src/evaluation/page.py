"""The page that every report is: no script, no address, and one block of style that its own policy pins."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from evaluation.markup import Html, html, tag

MARK = Html(
    '<svg class="mark" viewBox="0 0 32 32" width="40" height="40" aria-hidden="true">'
    '<rect width="32" height="32" rx="9"/><path d="M7 13.5v5M11.5 9.5v13M16 6.5v19M20.5 11v10M25 14v4"/></svg>'
)


def page(
    title: str,
    subtitle: Html | str,
    sections: Sequence[Html],
    *,
    verdict: Html | None = None,
    footer: Sequence[str] = (),
) -> str:
    """The whole document.

    Args:
        title: the headline.
        subtitle: what was measured, when; text or markup.
        sections: of `evaluation.markup.section`, in order.
        verdict: a badge beside the headline.
        footer: short facts at the end.

    Returns:
        HTML that needs nothing but itself, reads in light and dark, on a phone and on paper.
    """
    style = files("evaluation").joinpath("report.css").read_text(encoding="utf-8")
    pinned = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{pinned}'; img-src data:; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title, " · riva-gateway"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(style)),
    )
    top = tag(
        "header",
        MARK,
        tag("div", tag("h1", title), tag("p", subtitle, class_="subtitle"), class_="title"),
        verdict,
        class_="top",
    )
    end = tag("footer", *(tag("span", words) for words in footer)) if footer else None
    body = tag("body", top, tag("main", *sections), end)
    return f"<!doctype html>\n{html(tag('html', head, body, lang='en'))}\n"
