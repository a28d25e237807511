"""Limits that a run is held against: which figure, of which conditions, may be how large."""

from __future__ import annotations

import glob
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from asr.errors import ASRError, Code, quoted
from evaluation.results import ClipResult, GoldenRun
from evaluation.samples import margin_of
from evaluation.statistics import Interval
from evaluation.summary import Figure, Row, pool, summarize, tells

METRICS = (
    "wer",
    "cer",
    "first_partial_p50_ms",
    "first_partial_p95_ms",
    "first_text_p50_ms",
    "first_text_p95_ms",
    "word_partial_p50_ms",
    "word_partial_p95_ms",
    "final_p50_ms",
    "final_p95_ms",
    "partial_gap_p50_ms",
    "revised",
    "failed",
    "false_finals",
)
"""What a rule can limit: the figures of a row of which less is better."""

GUARD_UNKNOWN = 1.25
"""What a figure without an interval is multiplied by in a regression guard."""

GUARDED = (
    "wer",
    "first_partial_p50_ms",
    "first_partial_p95_ms",
    "final_p50_ms",
    "final_p95_ms",
    "revised",
    "failed",
    "false_finals",
)
"""What a regression guard limits over all conditions."""

BUILT_IN = ("riva", "local")
"""Profiles that come with the package."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit, on one figure pooled over the conditions that match.

    Attributes:
        metric: an attribute of `evaluation.summary.Row`: `wer`, `cer`, `first_partial_p95_ms`, `false_finals` …
        conditions: names or patterns (`noise_*`); `*` is all.
        limit: the figure may be as large as this (rates as fractions, times in milliseconds).
    """

    metric: str
    conditions: tuple[str, ...]
    limit: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Named limits (`riva`, `local`, or a TOML file of one's own)."""

    name: str
    about: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class RuleResult:
    """How a run did by one rule.

    Attributes:
        rule: the rule.
        value: the pooled figure; None where the set has nothing to measure it on, and then nothing is missed.
        interval: its 95 % confidence interval, where there is one.
        clips: how many it rests on: those that match and tell this figure.
        kept: whether it is within the limit; also where nothing was measured, see `measured`.
    """

    rule: Rule
    value: float | None
    interval: Interval | None
    clips: int
    kept: bool

    @property
    def measured(self) -> bool:
        """Whether there was anything to hold against the limit: one that nothing was held against was not kept."""
        return self.value is not None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A run held against a profile."""

    profile: Profile
    results: tuple[RuleResult, ...]

    @property
    def kept(self) -> bool:
        """Whether no rule was missed. Those that were not measured are not missed: look at `measured`, too."""
        return all(result.kept for result in self.results)

    @property
    def measured(self) -> bool:
        """Whether there was anything to hold against every limit."""
        return all(result.measured for result in self.results)


def load_profile(name_or_path: str) -> Profile:
    """A profile that comes with the package, by its name, or one's own, by the path of its TOML file.

    Raises:
        ASRError: `not_found`, or `bad_request` when it cannot be understood.
    """
    if name_or_path in BUILT_IN:
        text = (resources.files("evaluation") / "profiles_data" / f"{name_or_path}.toml").read_text("utf-8")
        return parse_profile(text, name_or_path)
    path = Path(name_or_path)
    try:
        return parse_profile(path.read_text("utf-8"), path.stem)
    except FileNotFoundError:
        raise ASRError(
            Code.NOT_FOUND,
            f"There is no profile {quoted(name_or_path)}: neither a built-in one ({', '.join(BUILT_IN)}) nor a file.",
            param="profile",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path.stem, f"cannot be read ({error})") from None


def parse_profile(text: str, name: str) -> Profile:
    """A profile from TOML: `about`, optionally `name`, and `[[rules]]` with `metric`, `conditions` and `limit`.

    Raises:
        ASRError: `bad_request`, naming the rule and the key that cannot be.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad(name, f"is no TOML: {error}") from None
    _only(name, "", document, ("name", "about", "rules"))
    for key in ("name", "about"):
        if not isinstance(document.get(key, ""), str):
            raise _bad(name, f"has a {key} that is no text")
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        raise _bad(name, "has no rules, so every run would keep it: add a [[rules]] table")
    made = tuple(_rule(name, number, rule) for number, rule in enumerate(rules, 1))
    return Profile(document.get("name", name), document.get("about", ""), made)


def judge(run: GoldenRun, profile: Profile) -> Judgement:
    """Hold a run against a profile: each rule on the figure pooled over all clips whose condition matches."""
    pooled: dict[tuple[str, ...], tuple[list[ClipResult], Row]] = {}
    for rule in profile.rules:
        if rule.conditions not in pooled:
            clips = [clip for clip in run.clips if any(fnmatchcase(clip.condition, each) for each in rule.conditions)]
            pooled[rule.conditions] = clips, pool(clips, ", ".join(rule.conditions))
    return Judgement(profile, tuple(_held(*pooled[rule.conditions], rule) for rule in profile.rules))


def guard_limits(run: GoldenRun, name: str = "guard") -> str:
    """A profile, as TOML, that this run keeps and a worse one does not: a regression guard. Read it before you use it.

    The limit of a measured figure is the upper end of its 95 % interval (where the sample is too small for one: the
    figure times `GUARD_UNKNOWN`) and the margin that `evaluation.compare` allows (half a point of error rate; 20 ms or
    a tenth). The interval covers other sentences of the kind, so a second run of the same set on the same machine stays
    well within. Counts (failed clips, false finals) are limited to what was measured. Word error rates are limited for
    each condition and over all, the rest over all.
    """
    summary, info = summarize(run), run.info
    head = [
        f"# Regression guard, from a run of {_said(info.set_name)} on {_said(info.target)} at {_said(info.started_at)}",
        f"# ({_said(info.engine)} {_said(info.model)}; {_said(info.machine)}).",
        "# Each limit: the upper end of the measured 95 % interval, and a margin.",
        "",
        f"name = {json.dumps(name)}",
        f"about = {json.dumps(f'Regression guard: {_said(info.engine)} on {_said(info.machine)}')}",
    ]
    rules = [_guard(row, "wer", [glob.escape(row.condition)]) for row in summary.conditions]
    rules += [_guard(summary.all, metric, ["*"]) for metric in GUARDED]
    return "\n".join(head) + "\n" + "".join(rules)


def _guard(row: Row, metric: str, conditions: Sequence[str]) -> str:
    """One `[[rules]]` table; nothing where nothing was measured."""
    figure = figure_of(row, metric)
    if figure.value is None:
        return ""
    digits = 0 if metric.endswith("_ms") else 3
    if isinstance(getattr(row, metric), int):
        limit = measured = f"{figure.value:.0f}"
    else:
        high = figure.interval.high if figure.interval else figure.value * GUARD_UNKNOWN
        highest = high + margin_of(metric, figure.value)
        limit = f"{math.ceil(highest * 10**digits) / 10**digits:.{digits}f}"
        measured = f"{figure.value:.{digits}f}, " + (
            f"95 % interval {figure.interval.low:.{digits}f} to {figure.interval.high:.{digits}f}"
            if figure.interval
            else "too few for an interval"
        )
    return (
        f"\n[[rules]]  # measured: {measured}; {row.clips} clips\n"
        f"metric = {json.dumps(metric)}\nconditions = {json.dumps(list(conditions))}\nlimit = {limit}\n"
    )


def _said(text: str) -> str:
    """Somebody else's words on one line of a comment."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _held(clips: Sequence[ClipResult], row: Row, rule: Rule) -> RuleResult:
    telling = sum(tells(clip, rule.metric) for clip in clips)
    figure = figure_of(row, rule.metric) if telling else Figure(None)
    kept = figure.value is None or figure.value <= rule.limit
    return RuleResult(rule, figure.value, figure.interval, telling, kept)


def figure_of(row: Row, metric: str) -> Figure:
    """One figure of a row by its name; counts (`failed`, `false_finals`) become figures too."""
    value: Figure | int = getattr(row, metric)
    return value if isinstance(value, Figure) else Figure(float(value), None, row.clips)


def _rule(profile: str, number: int, rule: Any) -> Rule:
    where = f"rule {number}"
    if not isinstance(rule, dict):
        raise _bad(profile, f"has a {where} that is no table: write [[rules]] and its keys")
    _only(profile, f" in {where}", rule, ("metric", "conditions", "limit"))
    metric, limit = rule.get("metric"), rule.get("limit")
    if metric not in METRICS:
        raise _bad(profile, f"limits {quoted(str(metric))} in {where}; what can be limited is {', '.join(METRICS)}")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < float("inf"):
        raise _bad(profile, f"has the limit {quoted(str(limit))} in {where}; a limit is a number of 0 or more")
    conditions = rule.get("conditions", ["*"])
    if not isinstance(conditions, list) or not conditions or not all(isinstance(each, str) for each in conditions):
        raise _bad(profile, f'has conditions in {where} that are no list of names or patterns, as ["clean", "noise_*"]')
    return Rule(metric, tuple(conditions), float(limit))


def _only(profile: str, where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := next((key for key in table if key not in known), None):
        raise _bad(profile, f"has an unknown key {quoted(unknown)}{where}; there are {', '.join(known)}")


def _bad(profile: str, what: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, f"The profile {quoted(profile)} {what}.", param="profile")
