"""What tests know of `scripts/monitoring`: its rules and expressions, and a copy of the rules for drills."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "scripts" / "monitoring"
RULE_FILES = ("recording-rules.yml", "alerts.yml")
DRILL = 60
"""A drill's minutes take a second."""
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = r"(\d+)(ms|s|m|h|d)\b"


@dataclass(frozen=True)
class Alert:
    name: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]


def document(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


def alerts() -> list[Alert]:
    rules = [rule for group in document("alerts.yml")["groups"] for rule in group["rules"]]
    return [Alert(rule["alert"], rule["expr"], rule["labels"], rule["annotations"]) for rule in rules]


def recorded() -> dict[str, str]:
    """The expressions of the recording rules, by the names that they are kept under."""
    rules = [rule for group in document("recording-rules.yml")["groups"] for rule in group["rules"]]
    return {rule["record"]: rule["expr"] for rule in rules}


def dashboard() -> Any:
    return json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))


def panels() -> list[Any]:
    """Those that show something: not the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def filled(expr: str, *, interval: str = "10s", over: str = "30s") -> str:
    """An expression of the dashboard as Grafana sends it, with everything chosen."""
    for name, value in {"$__rate_interval": interval, "$__range": over, "$job": ".+", "$instance": ".+"}.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """Each panel's title with each of its expressions, and the dashboard's own (annotations)."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def shortened(text: str, factor: int = DRILL) -> str:
    """Rules, or a configuration, whose times are shorter by `factor`: `for`, windows, offsets, waits.

    The expressions stay what they are otherwise: names, bounds, numbers. So a drill tries the rules that are shipped.

    >>> shortened("expr: rate(x_rate5m[5m]) unless y offset 10m\\nfor: 2m\\ngroup_wait: 30s")
    'expr: rate(x_rate5m[5000ms]) unless y offset 10000ms\\nfor: 2000ms\\ngroup_wait: 500ms'
    """
    where = r"(\[|\boffset |\bfor: |_wait: |_interval: )" + _DURATION
    return re.sub(where, lambda found: f"{found[1]}{_in_ms(found[2], found[3]) // factor}ms", text)


def _in_ms(number: str, unit: str) -> int:
    return int(number) * _UNITS_MS[unit]
