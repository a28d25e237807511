"""What the documents type at Helm and kubectl names things that are there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python
import pytest

from .chart import CHART, ROOT, rendered, values_of

DOCUMENTS = [ROOT / "docs" / "kubernetes.md", CHART / "README.md"]
EVERYBODY = re.findall(r"^for pod in .*?^done$", DOCUMENTS[0].read_text("utf-8"), re.M | re.S)
"""What each gateway is told by itself."""
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


_KUBECTL = """#!/bin/sh
case " $* " in
*" get pods "*) printf 'pod/one\\npod/two\\n' ;;
*" exec "*)
    while [ "$1" != exec ]; do shift; done
    mkdir -p "${2#pod/}" && cd "${2#pod/}" && [ "$3" = -- ] && shift 3 && exec "$@"
    ;;
esac
"""


@pytest.mark.parametrize("line", INSTALLED)
def test_every_installation_that_is_shown_can_be_rendered(line: str) -> None:
    name, values = _given(line)
    assert f"Deployment/{name}" in rendered(values, name=name)


def test_all_are_seen() -> None:
    assert len(INSTALLED) >= 7
    releases = {"riva-gateway", "riva-gateway-canary", "riva-gateway-next"}
    assert releases == {_given(line)[0] for line in INSTALLED}


def test_nobody_waits_shorter_than_a_nim_takes() -> None:
    """A NIM that is new, or of another tag: `--atomic` would take it away again in the middle."""
    seen = 0
    for line in INSTALLED:
        nims = _given(line)[1].get("nim", {})
        if nims.get("enabled") and (" install " in line or "tag" in nims.get("image", {})):
            waits = re.search(r"--timeout (\d+)m", line)
            assert waits is not None, line
            default = helm_python.values_from_yaml((CHART / "values.yaml").read_text("utf-8"))["nim"]["startupSeconds"]
            assert "--wait" in line
            assert int(waits[1]) * 60 > nims.get("startupSeconds", default), line
            seen += 1
    assert seen >= 3


def test_a_nim_of_another_release_is_reached_and_lets_in() -> None:
    """The way to another NIM without a gap: what the first release names is what the second one has."""
    installed = {name: values for name, values in map(_given, INSTALLED) if name == "riva-gateway-next"}
    of = rendered(installed["riva-gateway-next"], name="riva-gateway-next")
    entries = of["Deployment/riva-gateway-next"]["spec"]["template"]["spec"]["containers"][0]["env"]
    has = next(entry["value"] for entry in entries if entry["name"] == "RIVA_ENDPOINTS")
    named = [
        address
        for _, values in map(_given, INSTALLED)
        for where in ("canaryEndpoints", "endpoints")
        for address in values.get("riva", {}).get(where, [])
        if "next" in address
    ]
    assert named == [has] * 3  # on trial, beside the first NIM, and in its place
    lines = [values for _, values in map(_given, INSTALLED) if values.get("riva", {}).get("endpoints") == [has]]
    own = [values["nim"]["enabled"] for values in lines]
    assert own == [True, False]  # a NIM goes when the gateways know another
    (rule,) = of["NetworkPolicy/riva-gateway-next-nim"]["spec"]["ingress"]
    first = rendered(_given(INSTALLED[0])[1])["Deployment/riva-gateway"]["spec"]["template"]["metadata"]["labels"]
    assert any(peer["podSelector"]["matchLabels"].items() <= first.items() for peer in rule["from"])


def test_what_all_gateways_are_told_they_understand(tmp_path: Path) -> None:
    """`kubectl` stands for two pods here; the gateway's own command is real."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(_KUBECTL)
    kubectl.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin", "ASR_CANARY_PERCENT": "5"}
    running: dict[Path, subprocess.Popen[bytes]] = {}
    for loop in EVERYBODY:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        words = ["bash", "-euo", "pipefail", "-c", loop.replace("/var/lib/riva-gateway/", "")]
        running[folder] = subprocess.Popen(words, env=env, cwd=folder, stdout=subprocess.DEVNULL)
    assert [each.wait(60) for each in running.values()] == [0, 0, 0]
    told = []
    for folder in running:
        files = [json.loads((folder / pod / "rollout.json").read_text("utf-8")) for pod in ("one", "two")]
        told.append([(file["position"], file["canary_percent"]) for file in files])
    assert told == [[("former", 5)] * 2, [("on", 25)] * 2, [("on", 0)] * 2]


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
