"""What every script promises: --help, --dry-run, --yes, no unknown flag; and what none of them does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cloud.client import TREE, Cloud

SCRIPTS = sorted((TREE / "scripts").glob("riva-*.sh"))
SHELL = [*SCRIPTS, *sorted((TREE / "scripts" / "lib").glob("*.sh")), *sorted((TREE / "scripts" / "far").rglob("*.sh"))]
NEVER = ("StrictHostKeyChecking", "set -x", "eval ", "curl -k ", "--key-name", "sudo docker")


def _run(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}  # no aws there: neither of these may want one
    return subprocess.run([script, *words], capture_output=True, text=True, env=env, timeout=20, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_and_unknown_flags(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert re.fullmatch(r"riva-\d{3}-[a-z-]+\.sh", script.name)
    help_ = _run(script, "--help")
    assert help_.returncode == 0, help_.stderr
    assert help_.stdout.startswith(f"{script.name}: ")
    for words in ("Usage:", "--deployment NAME", "--dry-run", "--yes", "Exit status:"):
        assert words in help_.stdout
    unknown = _run(script, "--no-such-flag")
    assert (unknown.returncode, "'--no-such-flag' is not known" in unknown.stderr) == (2, True), unknown.stderr
    assert not unknown.stdout


def test_numbers_are_not_used_twice() -> None:
    numbers = [script.name[5:8] for script in SCRIPTS]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("script", SHELL, ids=lambda script: f"{script.parent.name}/{script.stem}")
def test_what_no_script_does(script: Path) -> None:
    for line in script.read_text().splitlines():
        if not line.lstrip().startswith("#"):
            assert not [words for words in NEVER if words in line], line


def test_a_name_that_cannot_be_one() -> None:
    for name in ("Upper", "../etc", "a" * 24, "1st", ""):
        ran = _run(SCRIPTS[0], "--deployment", name)
        assert (ran.returncode, "cannot be a name" in ran.stderr) == (2, True), ran.stderr


def test_a_dry_run_of_everything_changes_nothing(cloud: Cloud) -> None:
    """On an empty account, where each step has to imagine what the one before would have made."""
    ran = cloud.run("riva-000-up.sh", "--dry-run", "--max-hours", "9", input="", timeout_s=180)
    assert ran.status == 0, ran.err
    for words in ("would: aws ec2 create-security-group", "would: aws iam create-role", "would: aws ec2 run-instances"):
        assert words in ran.err
    for number in (100, 110, 120, 130, 150, 190):
        (script,) = (each for each in SCRIPTS if each.name.startswith(f"riva-{number}"))
        assert cloud.run(script.name, "--dry-run").status == 0
    assert [call for call in cloud.calls if call.name == "ssm:SendCommand"] == []
    assert cloud.changes() == []
