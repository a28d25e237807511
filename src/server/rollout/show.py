"""The rollout as `/admin/rollout` and `riva-gateway rollout` show it. Pure."""

from __future__ import annotations

import math
from typing import Any

from server.rollout.engine import RolloutEngine
from server.rollout.state import in_words
from server.rollout.verdict import ArmTally, Compared, Comparison

Json = dict[str, Any]


def shown(engine: RolloutEngine) -> Json:
    """All that is known, as JSON."""
    wanted = engine.wanted
    comparison = engine.comparison
    return {
        "position": wanted.position.value,
        "canary_percent": wanted.canary_percent,
        "changed_at": wanted.changed_at,
        "by": wanted.by,
        "reason": wanted.reason,
        "in_words": in_words(wanted),
        "has_former": engine.has_former,
        "has_canary": engine.has_canary,
        "aborts": engine.tallies.canary_aborts,
        "endpoints": engine.endpoints(),
        "canary": None if comparison is None else _canary(comparison, engine.left_out, engine.canary_models),
    }


def _canary(comparison: Comparison, left_out: int, models: tuple[str, ...]) -> Json:
    verdict = comparison.verdict()
    return {
        "verdict": verdict.state.value,
        "in_words": verdict.words,
        "step": comparison.step + 1,
        "not_compared": left_out,
        "models": list(models),
        "arms": {"base": _arm(comparison.base), "canary": _arm(comparison.canary)},
        "figures": [_figure(each) for each in verdict.figures],
    }


def _arm(arm: ArmTally) -> Json:
    return {
        "streams": arm.streams,
        "errors": arm.errors,
        "errors_before_words": arm.errors_before_words,
        "without_words": arm.empty,
        "final_latency_s": _rounded(math.exp(arm.latency.mean)) if arm.latency.n else None,
        "words_per_minute": _rounded(arm.words.mean) if arm.words.n else None,
        "confidence": _rounded(arm.confidence.mean) if arm.confidence.n else None,
    }


def _figure(row: Compared) -> Json:
    return {
        "figure": row.figure.value,
        "base": _rounded(row.base),
        "canary": _rounded(row.canary),
        "difference": _rounded(row.difference),
        "low": _rounded(row.low),
        "high": _rounded(row.high),
        "evidence": _rounded(min(row.evidence, 1e6)),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
