"""Percentiles, confidence intervals, paired tests and their power. Pure; randomness comes in as a seed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
