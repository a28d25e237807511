"""What the documents type at Helm and kubectl names things that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import helm_python
import pytest

from .chart import CHART, ROOT, rendered, values_of

DOCUMENTS = [ROOT / "docs" / "kubernetes.md", CHART / "README.md"]
_TAKES_NO_VALUE = {"--wait", "--atomic", "--create-namespace"}


def _lines(path: Path, program: str) -> list[str]:
    return re.findall(rf"^ *({program} .+)$", path.read_text("utf-8"), re.M)


INSTALLED = [line for path in DOCUMENTS for line in _lines(path, "helm (?:install|upgrade)")]


def _merged(into: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(into[key], more[key]) for key in into.keys() & more if isinstance(more[key], dict)}
    return into | more | both


def _given(line: str) -> tuple[str, dict[str, Any]]:
    """Name of the release, and all values that the line gives."""
    _, _, name, chart, *flags = shlex.split(line)
    assert (ROOT / chart).resolve() == CHART
    values: dict[str, Any] = {}
    words = iter(flags)
    for flag in words:
        if flag in _TAKES_NO_VALUE:
            continue
        value = next(words)
        if flag == "--values":
            values = _merged(values, values_of(ROOT / value))
        elif flag == "--set":
            values = _merged(values, helm_python.parse_set_string(value))
        elif flag == "--set-string":
            values = _merged(values, helm_python.parse_set_string_values(value))
        else:
            assert flag in ("--namespace", "--timeout"), flag
    return name, values


@pytest.mark.parametrize("line", INSTALLED)
def test_every_installation_that_is_shown_can_be_rendered(line: str) -> None:
    name, values = _given(line)
    assert f"Deployment/{name}" in rendered(values, name=name)


def test_all_are_seen() -> None:
    assert len(INSTALLED) >= 7
    assert {"riva-gateway", "riva-gateway-canary"} == {_given(line)[0] for line in INSTALLED}


def test_kubectl_names_what_there_is() -> None:
    there = {name.lower() for name in rendered(values_of(ROOT / "scripts" / "kubernetes" / "values" / "nim-gpu.yaml"))}
    text = DOCUMENTS[0].read_text("utf-8")
    named = {
        word.replace(" ", "/")
        for word in re.findall(r"\b(?:deployment/|service/|statefulset )riva-gateway[\w-]*", text)
    }
    assert named == {"deployment/riva-gateway", "service/riva-gateway", "statefulset/riva-gateway-nim"}
    assert named <= there


def test_every_value_that_the_documents_name_exists() -> None:
    values = helm_python.values_from_yaml((CHART / "values.yaml").read_text("utf-8"))
    schema = (CHART / "values.schema.json").read_text("utf-8")
    seen = 0
    for path in DOCUMENTS:
        for word in re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z_]+)+)[`:]", path.read_text("utf-8")):
            head, *rest = word.split(".")
            if head not in values:
                continue
            assert rest[-1] in values[head] or f'"{rest[-1]}"' in schema, f"{path}: {word}"
            seen += 1
    assert seen > 15


def test_the_defaults_of_the_drain_are_told_as_they_are() -> None:
    values = helm_python.values_from_yaml((CHART / "values.yaml").read_text("utf-8"))
    pre_stop, settings = values["drain"]["preStopSeconds"], values["settings"]
    closed = pre_stop + settings["DRAIN_DELAY_MS"] // 1000
    told = re.findall(r"^\| (\d+) \| ", DOCUMENTS[0].read_text("utf-8"), re.M)
    assert [int(second) for second in told] == [0, pre_stop, closed, closed + settings["DRAIN_TIMEOUT_MS"] // 1000 + 15]
