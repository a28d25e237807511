"""Riva's float32 numbers as Python's."""

from __future__ import annotations


def short(number: float) -> float:
    """The six digits that a float32 holds, so that 0.1 reads as 0.1 and not as 0.10000000149."""
    return float(f"{number:.6g}")


def short_or_none(number: float) -> float | None:
    """As `short`; 0.0 is what Riva sends for "not set"."""
    return short(number) if number else None


def to_ms(seconds: float) -> int:
    """Riva's seconds as whole milliseconds."""
    return round(seconds * 1000)
