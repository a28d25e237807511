"""The chart as Helm renders it, without a cluster."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "scripts" / "kubernetes" / "riva-gateway"
EXAMPLES = sorted((ROOT / "scripts" / "kubernetes" / "values").glob("*.yaml"))
LEAST: dict[str, Any] = {"riva": {"endpoints": ["riva:50051"]}, "settings": {"AUTH": "on"}}
"""What has to be said."""


@cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def values_of(path: Path) -> dict[str, Any]:
    """A file of values as Helm reads it: `on` and `off` are true and false there."""
    return helm_python.values_from_yaml(path.read_text("utf-8"))


def with_least(**more: Any) -> dict[str, Any]:
    """The least, and more: a mapping is added to one that is there."""
    found = {key: dict(value) for key, value in LEAST.items()}
    for key, value in more.items():
        found[key] = found[key] | value if key in found else value
    return found


def checked(values: dict[str, Any]) -> None:
    """Raises where the schema refuses the values."""
    _chart().validate_schema(values)


def rendered(values: dict[str, Any], *, name: str = "riva-gateway", namespace: str = "speech") -> dict[str, Any]:
    """Every document, as `Kind/name`. Values that the schema refuses are refused here as by `helm install`."""
    return _documents(json.dumps(values), name, namespace)


@cache
def _documents(values: str, name: str, namespace: str) -> dict[str, Any]:
    given = json.loads(values)
    checked(given)
    found = {}
    for path, text in _chart().render(given, name=name, namespace=namespace).items():
        if not path.endswith(".txt"):
            for document in filter(None, yaml.load_all(text, yaml.CSafeLoader)):  # fifty times as fast as Python's own
                found[f"{document['kind']}/{document['metadata']['name']}"] = document
    return found


def notes(values: dict[str, Any]) -> str:
    """What is said after the installation."""
    return _chart().render(values, name="riva-gateway", namespace="speech")["riva-gateway/templates/NOTES.txt"]


def pod(values: dict[str, Any]) -> dict[str, Any]:
    """`spec` of the gateway's pods."""
    spec: dict[str, Any] = rendered(values)["Deployment/riva-gateway"]["spec"]["template"]["spec"]
    return spec


def env(values: dict[str, Any]) -> dict[str, str]:
    """The gateway's environment."""
    return {entry["name"]: entry.get("value", "") for entry in pod(values)["containers"][0]["env"]}
