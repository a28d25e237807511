"""What is run again is a time that was missed, a few times, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from timing import TRIES, Late, in_time

TESTS = Path(__file__).resolve().parents[1]
SUITE = """
from timing import in_time

runs = {}

def again(name):
    runs[name] = runs.get(name, 0) + 1
    return runs[name]

def test_disturbed_once():
    in_time(2.0 if again("once") == 1 else 0.5, 1.0)

def test_slow():
    in_time(0.5 + again("slow"), 1.0)

def test_wrong_at_first():
    assert again("wrong") > 1
"""


def test_it_says_what_took_how_long() -> None:
    in_time(0.99, 1)
    with pytest.raises(Late, match=r"a drain 1\.25, the bound is 1"):
        in_time(1.25, 1, "a drain")


def test_only_a_time_is_measured_again(tmp_path: Path) -> None:
    options = tomllib.loads((TESTS.parent / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = (
        sys.executable,
        "-m",
        "pytest",
        "--rootdir",
        tmp_path,
        "-c",
        os.devnull,
        "-v",
        *options["addopts"].split(),
    )
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert f"2 failed, 1 passed, {TRIES} rerun" in done.stdout, done.stdout
    assert "test_slow - timing.Late: it took 3.5, the bound is 1" in done.stdout, done.stdout
    assert "test_wrong_at_first - AssertionError: assert 1 > 1" in done.stdout, done.stdout
