"""What the reports have in common: who was measured and when, the large figures, the limits, the line at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from operator import itemgetter

from evaluation.figures import counted
from evaluation.markup import Html, tag
from evaluation.profiles import Judgement, RuleResult
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


def kept(judgement: Judgement) -> str:
    """How many limits were kept, of those for which there was anything to measure."""
    looked_at = [result for result in judgement.results if result.measured]
    missed = sum(not result.kept for result in looked_at)
    profile = f"of the profile “{judgement.profile.name}”"
    if not looked_at:
        return f"No clip tells anything about the {counted(len(judgement.results), 'limit')} {profile}."
    limits = counted(len(looked_at), "limit")
    idle = len(judgement.results) - len(looked_at)
    rest = f"; {idle} could not be measured" if idle else ""
    if missed:
        return f"{missed} of the {limits} {profile} {'was' if missed == 1 else 'were'} missed{rest}."
    all_ = "The one limit" if len(looked_at) == 1 else f"All {limits}"
    return f"{all_} {profile} {'was' if len(looked_at) == 1 else 'were'} kept{rest}."


def rule_of(judgement: Judgement | None, metric: str, condition: str) -> RuleResult | None:
    """The rule that is most about a condition; a rule about all of them is about none."""
    found = [
        (_closeness(result.rule.conditions, condition), -result.rule.limit, result)
        for result in (judgement.results if judgement else ())
        if result.rule.metric == metric and "*" not in result.rule.conditions
    ]
    fitting = [one for one in found if one[0] is not None]
    return max(fitting, key=itemgetter(0, 1))[2] if fitting else None


def _closeness(patterns: Sequence[str], condition: str) -> tuple[bool, bool, int] | None:
    """How near a rule's conditions are: named, named alone, by the longest pattern; None where it is not among them."""
    fitting = [pattern for pattern in patterns if fnmatchcase(condition, pattern)]
    if not fitting:
        return None
    return condition in patterns, len(patterns) == 1, max(map(len, fitting))


def rule_of_all(judgement: Judgement | None, metric: str) -> RuleResult | None:
    """The strictest rule about all clips together."""
    results = judgement.results if judgement else ()
    found = [result for result in results if result.rule.metric == metric and "*" in result.rule.conditions]
    return min(found, key=lambda result: result.rule.limit, default=None)
