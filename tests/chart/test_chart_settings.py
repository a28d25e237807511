"""The chart knows the gateway's settings: all of them, and no others."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import helm_python
import pytest

from asr.settings import load_settings
from server.settings import ServerSettings

from .chart import CHART, LEAST, ROOT, env, values_of, with_least

EXAMPLE = dict(re.findall(r"^#([A-Z][A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.M))
_TEMPLATE = (CHART / "templates" / "_checks.tpl").read_text("utf-8").partition('define "gateway.owned"')[2]
OWNED = dict(re.findall(r"^([A-Z][A-Z0-9_]+): (.*)$", _TEMPLATE, re.M))
"""Settings that other values decide, and which."""
_TYPES = {
    key: str(field.annotation)
    for key, field in zip(ServerSettings.known_keys(), ServerSettings.model_fields.values(), strict=True)
}
REFERENCE = "aws-sm:speech/gateway#field"


def written(key: str) -> str:
    """A value for it as somebody would write it into a file of values: its default, or anything that fits."""
    if "SecretStr" in _TYPES[key]:
        return REFERENCE
    fits = "on" if "bool" in _TYPES[key] else "8000" if "int" in _TYPES[key] else "something"
    choices = re.search(r"Literal\['(\w+)'", _TYPES[key])
    return EXAMPLE[key] or (choices[1] if choices else fits)


def as_yaml(key: str) -> Any:
    """The same as YAML takes it: a truth, a number, a text."""
    return helm_python.values_from_yaml(f"value: {written(key)}")["value"]


def test_the_generated_files_are_as_the_settings_are() -> None:
    words = [sys.executable, str(ROOT / "scripts" / "dev" / "chart_settings.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "run python scripts/dev/chart_settings.py"


def test_every_key_arrives_as_it_is_written() -> None:
    assert set(EXAMPLE) == set(ServerSettings.known_keys())
    free = [key for key in EXAMPLE if key not in OWNED]
    assert len(free) > 100
    told = env({"riva": LEAST["riva"], "settings": {key: as_yaml(key) for key in free}})
    assert told["OTEL_TRACES_SAMPLER_ARG"] == "1"  # 1.0 in the example
    same = [key for key in free if key != "OTEL_TRACES_SAMPLER_ARG"]
    assert {key: told[key] for key in same} == {key: written(key) for key in same}


@pytest.mark.parametrize("key", sorted(OWNED))
def test_what_the_chart_decides_is_refused_with_the_value_to_use(key: str) -> None:
    assert key in EXAMPLE
    with pytest.raises(
        helm_python.HelmRenderError, match=re.escape(f"settings.{key}: the chart sets it. {OWNED[key]}")
    ):
        env(with_least(settings={key: as_yaml(key)}))


@pytest.mark.parametrize(
    "values",
    [LEAST, *(values_of(ROOT / "scripts" / "kubernetes" / "values" / f"{name}.yaml") for name in ("laptop", "keda"))],
    ids=["least", "laptop", "keda"],
)
def test_the_gateway_understands_its_environment(values: dict[str, Any]) -> None:
    said = env(values)
    files = {key for key, value in said.items() if value.startswith(("/etc/", "/run/"))}  # they are in pods alone
    settings = load_settings(ServerSettings, {}, env={key: said[key] for key in said.keys() - files}, env_file=None)
    assert (settings.host, settings.port, settings.grpc_port) == ("0.0.0.0", 8443, 50052)
    assert settings.drain_delay_ms == 5000
    assert not settings.jobs


@pytest.mark.parametrize(("value", "told"), [(4294967296, "4294967296"), (1024, "1024")])
def test_large_numbers_stay_whole(value: int, told: str) -> None:
    assert env(with_least(settings={"MAX_UPLOAD_BYTES": value}))["MAX_UPLOAD_BYTES"] == told
    assert env(with_least(settings={"OTEL_TRACES_SAMPLER_ARG": 0.25}))["OTEL_TRACES_SAMPLER_ARG"] == "0.25"


def test_others_variables_are_passed_on() -> None:
    assert env(with_least(extraEnv=[{"name": "AWS_REGION", "value": "eu-west-1"}]))["AWS_REGION"] == "eu-west-1"
