"""scripts/README.md, typed by somebody who has never seen it: from nothing to words, and to nothing again.

Upgrades, stop and start, and another certificate have tests of their own; that their flags are right is looked at with
all other documents' (tests/unit/test_repo.py). SageMaker, and a machine without AWS: test_documents.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloud.client import TREE, Cloud, Ran
from deploy.ec2_steps import KEY
from deploy.far_steps import WORDS

REGION = "us-east-1"
ADDRESS = "203.0.113.7"
"""Where the operator comes from."""
ON_ITS_OWN = ("riva-120-", "riva-130-", "riva-140-", "riva-070-", "riva-2", "riva-3")
NOT_THERE = ("aws service-quotas request", "docker ", "export ")
"""Asking for a quota is not played by the stand-in; the others belong to what is left out, or set what is set here."""


def commands() -> list[str]:
    """What the document shows after `$ `, without its remarks; a line that goes on is one line."""
    text = (TREE / "scripts" / "README.md").read_text("utf-8")
    found: list[str] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        found += [
            line.partition("  # ")[0].strip() for line in re.findall(r"^\$ (.+)$", block.replace("\\\n", " "), re.M)
        ]
    return [line for line in found if not line.startswith(NOT_THERE) and not any(name in line for name in ON_ITS_OWN)]


class Operator:
    """Types commands, and remembers what the document says to remember."""

    def __init__(self, cloud: Cloud, home: Path) -> None:
        self.cloud, self.home, self.address = cloud, home, ""
        (home / "me").write_text(ADDRESS)
        self.env = {"AWS_DEFAULT_REGION": REGION, "DEPLOY_WHOAMI_URL": f"file://{home}/me"}

    def type(self, line: str) -> Ran:
        typed = re.sub(r"\b(gateway\.(crt|pem))", rf"{self.home}/\1", line)
        typed = typed.replace("ADDRESS", self.address).replace(" --follow", "")
        # A far machine has been up for as long as this one.
        typed = typed.replace("--max-hours 8", "--max-hours 999")
        typed = re.sub(r"(riva-\d{3}-[a-z-]+\.sh)", r"\1 --yes", typed)
        key = f"{KEY}\n" if "riva-000-up.sh" in line else None
        ran = self.cloud.run("bash", "-c", typed, env=self.env, input=key, timeout_s=240)
        assert ran.status == 0, f"{typed}\n{ran.err[-2000:]}"
        if "riva-100-status.sh" in line or "riva-000-up.sh" in line:
            self.address = "".join(re.findall(r"serves at +https://([0-9.]+):8443", ran.out + ran.err)[-1:])
        if "gateway-key" in line:
            self.env["ASR_API_KEY"] = ran.out.strip()
        return ran


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_nothing_to_words_and_to_nothing_again(cloud: Cloud, tmp_path: Path) -> None:
    operator = Operator(cloud, tmp_path)
    (tmp_path / "gateway.pem").write_text("a certificate, those between it and its authority, and a key")
    typed = commands()
    assert len(typed) > 14
    out = {line: operator.type(line).out for line in typed}
    assert [text for line, text in out.items() if "transcribe" in line] == [f"{WORDS}\n"]
    assert "nothing" in next(text for line, text in out.items() if "100-status.sh --quick" in line)
    assert cloud.leftovers("riva", REGION) == []
