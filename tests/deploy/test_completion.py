"""scripts/completion.bash, asked as bash asks it when somebody presses Tab."""

from __future__ import annotations

import subprocess

import pytest

from cloud.client import TREE

_ASK = """
compopt() { printf '%s ' "compopt $*"; } # bash has it only while a key is pressed
. scripts/completion.bash
complete -p "${1##*/}" >/dev/null
_riva_complete "$1" "$2" "$3"
printf '%s ' "${COMPREPLY[@]}"
"""


def _offered(script: str, word: str, before: str) -> list[str]:
    asked = ["bash", "--norc", "-uc", _ASK, "bash", script, word, before]
    done = subprocess.run(asked, cwd=TREE, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_flags_of_a_script_and_of_no_other() -> None:
    script = "scripts/riva-040-launch.sh"
    assert _offered(script, "--", script)[:2] == ["--type", "--spot"]
    assert _offered(script, "--su", script) == ["--subnet"]
    assert _offered(script, "--allow", script) == []
    assert "--allow-from" in _offered("riva-000-up.sh", "--a", "--spot")
    assert "--region" not in _offered("riva-210-local-up.sh", "--", "--no-gpu")


@pytest.mark.parametrize(
    ("script", "flag", "word", "offered"),
    [
        ("riva-000-up.sh", "--profile", "c", ["ctc", "canary"]),
        ("riva-040-launch.sh", "--type", "g5.x", ["g5.xlarge"]),
        ("riva-320-sagemaker-deploy.sh", "--type", "ml.g5.x", ["ml.g5.xlarge"]),
        ("riva-110-logs.sh", "--unit", "", ["gateway", "nim"]),
        ("riva-020-network.sh", "--allow-from", "m", ["me"]),
        ("riva-150-cost-guard.sh", "--stop-at", "2", []),
        ("riva-030-secret.sh", "--from-file", "", ["compopt", "-o", "default"]),
    ],
)
def test_the_values_of_a_flag(script: str, flag: str, word: str, offered: list[str]) -> None:
    assert _offered(script, word, flag) == offered
