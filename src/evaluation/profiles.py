"""Limits that a run is held against: which figure, of which conditions, may be how large."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.statistics import Interval


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
        clips: how many it rests on.
        kept: whether it is within the limit.
    """

    rule: Rule
    value: float | None
    interval: Interval | None
    clips: int
    kept: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """A run held against a profile."""

    profile: Profile
    results: tuple[RuleResult, ...]

    @property
    def kept(self) -> bool:
        """Whether every rule was kept."""
        return all(result.kept for result in self.results)
