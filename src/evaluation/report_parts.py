"""What the reports have in common: who was measured and when, the large figures, the line at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.markup import Html, tag
from evaluation.results import RunInfo


def subtitle(info: RunInfo) -> str:
    """Who was measured, and when."""
    asked = " · ".join(part for part in (info.engine, info.model) if part)
    return f"{info.target}{f' ({asked})' if asked else ''} · {moment(info.started_at)}"


def moment(iso: str) -> str:
    """An ISO 8601 moment in UTC as people write it, or what was there."""
    found = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", iso)
    return f"{found[1]} {found[2]} UTC" if found else iso


def run_facts(info: RunInfo) -> list[tuple[str, object]]:
    """What a reader needs to measure the same again."""
    labels = ", ".join(f"{key}: {value}" for key, value in sorted(info.labels.items()))
    return [
        ("Asked", info.target),
        ("Recognizer", info.engine),
        ("Model", info.model),
        ("Set", f"{info.set_name} ({info.set_fingerprint})"),
        ("Begun", moment(info.started_at)),
        ("Chunks", f"{info.chunk_ms} ms of audio"),
        ("Silence after each clip", f"{info.tail_ms} ms"),
        ("Clips at a time", info.concurrency),
        ("Normalizer", info.normalizer),
        ("Machine that streamed", info.machine),
        ("riva-gateway", info.version),
        ("Labels", labels),
    ]


def key_figures(figures: Sequence[tuple[str, str, str]]) -> Html:
    """The few that matter, large: (name, figure, detail)."""
    items = [
        tag(
            "li",
            tag("span", name, class_="name"),
            tag("span", value, class_="figure"),
            tag("span", detail, class_="detail"),
        )
        for name, value, detail in figures
    ]
    return tag("ul", *items, class_="key-figures")


def footer(version: str, started_at: str, machine: str) -> list[str]:
    """The last line of a report."""
    return [f"riva-gateway {version}", moment(started_at), machine]
