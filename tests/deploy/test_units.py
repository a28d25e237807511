"""The unit files that are shipped: systemd likes them, and they keep what the documents promise."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

import pytest

from cloud.client import TREE

UNITS = TREE / "scripts/far/units"
PLACES = ("/usr/local/lib/riva", "/opt/riva-gateway", "/usr/bin/docker")


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.iterdir()))
def test_systemd_likes_it(unit: str, tmp_path: Path) -> None:
    # What is only on the far machine is not what is judged here; `true` stands for it.
    lines = (UNITS / unit).read_text().splitlines()
    for place in PLACES:
        lines = [_with_true(line, place) if line.startswith("Exec") else line for line in lines]
    for other in UNITS.iterdir():  # they name each other
        (tmp_path / other.name).write_text("[Service]\nExecStart=/bin/true\n")
    (tmp_path / unit).write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / unit)], capture_output=True, text=True, check=False, timeout=30
    )
    assert [line for line in done.stderr.splitlines() if "docker.service" not in line] == []


def _with_true(line: str, place: str) -> str:
    key, _, command = line.partition("=")
    signs = command[: len(command) - len(command.lstrip("-+!@:"))]
    return f"{key}={signs}/bin/true" if command.lstrip("-+!@:").startswith(place) else line


def _read(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_they_are_read_without_surprises() -> None:
    for path in UNITS.iterdir():
        configparser.ConfigParser(strict=False, interpolation=None).read_string(path.read_text())


def test_the_gateway_is_confined_and_may_let_streams_finish() -> None:
    unit = _read("riva-gateway.service")
    assert unit["User"] == ["riva-gateway"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["SystemCallFilter"] == ["@system-service"]
    for name in ("PrivateDevices", "ProtectKernelTunables", "RestrictNamespaces", "RestrictSUIDSGID"):
        assert unit[name] == ["yes"]
    assert int(unit["TimeoutStopSec"][0]) > 25  # DRAIN_TIMEOUT_MS


def test_the_end_of_spot_capacity_is_watched_as_long_as_the_gateway_runs() -> None:
    unit = _read("riva-spot.service")
    assert "riva-spot.service" in _read("riva-gateway.service")["Wants"][0].split()
    assert (unit["BindsTo"], unit["After"]) == (["riva-gateway.service"], ["riva-gateway.service"])
    assert "User" not in unit  # the gateway's may not ask
    assert (unit["CapabilityBoundingSet"], unit["ProtectSystem"]) == ([""], ["strict"])


def test_systemd_alone_supervises_the_recognizer() -> None:
    unit = _read("riva-nim.service")
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert "--restart" not in (TREE / "scripts/far/helpers/nim-run.sh").read_text()
    assert unit["ExecStart"] == ["/usr/local/lib/riva/nim-run"]
