"""How a gateway is, in one word and one sentence, for whoever opens the status page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asr.engine import Readiness
from server.telemetry.recent import Summary

ENOUGH = 50
"""Fewer latencies than this within five minutes say nothing."""
NEEDED_IN_TIME = 0.95
_LATE = {"partial": "words appear late", "final": "final texts come late"}


class Level(StrEnum):
    """What there is to worry about; each has a colour."""

    SERVING = "serving"
    DEGRADED = "degraded"
    """Streams are served, and something is wrong."""
    REFUSING = "refusing"
    """New streams are turned away."""
    DRAINING = "draining"
    OFF = "off"
    """Somebody switched recognition off."""


@dataclass(frozen=True, slots=True)
class State:
    """How it is.

    Attributes:
        level: in one word.
        words: in one sentence.
    """

    level: Level
    words: str


def state_of(
    ready: Readiness,
    *,
    draining: bool,
    position: str,
    in_use: int,
    limit: int,
    endpoints: Sequence[Mapping[str, Any]],
    latencies: Mapping[str, Summary],
) -> State:
    """What matters most, first.

    Args:
        ready: whether the recognizer would take a stream, and why not.
        draining: whether the gateway was told to end.
        position: of the rollout: `on`, `off`, `former`, or "" where there is none.
        in_use: streams that are open.
        limit: streams that may be.
        endpoints: as an engine tells of them: `name`, `state`, `breaker`. The former ones (`former-1` …) matter while
            they serve, and the others then do not.
        latencies: of the last minutes, by name.
    """
    if draining:
        return State(Level.DRAINING, "Draining: open streams finish, new ones are refused")
    if position == "off":
        return State(Level.OFF, "Switched off: all streams are refused until somebody switches recognition on")
    if not ready.ready:
        return State(Level.REFUSING, f"Refusing: {_inner(ready.detail) or 'the recognizer is not ready'}")
    if in_use >= limit:
        return State(Level.REFUSING, f"Refusing: all {limit} streams are in use")
    is_former = position == "former"
    wrong = [
        words
        for endpoint in endpoints
        if str(endpoint["name"]).startswith("former-") == is_former and (words := _wrong(endpoint))
    ]
    late = [words for name, words in _LATE.items() if _is_late(latencies.get(name, Summary()))]
    if wrong or late:
        return State(Level.DEGRADED, f"Degraded: {_listed([*wrong, *late])}")
    if is_former:
        return State(Level.SERVING, "Serving, from the former endpoints")
    return State(Level.SERVING, "Serving")


def _wrong(endpoint: Mapping[str, Any]) -> str:
    """What is wrong with an endpoint, or "". One that nobody has looked at yet is innocent."""
    name, health = f"endpoint {endpoint['name']}", endpoint["state"]
    if health == "down":
        return f"{name} is down"
    if health == "loading":
        return f"{name} is loading"
    if endpoint["breaker"] == "half_open":
        return f"{name} waits for a stream that tries it"
    if endpoint["breaker"] != "closed":
        return f"streams fail at {name}"
    return ""


def _is_late(summary: Summary) -> bool:
    return summary.count >= ENOUGH and summary.in_time is not None and summary.in_time < NEEDED_IN_TIME


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _inner(sentences: str) -> str:
    """The first sentence, as it stands within another."""
    first = sentences.split(". ", 1)[0].rstrip(".")
    return first[:1].lower() + first[1:]
