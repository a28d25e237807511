"""What SECURITY.md and docs/secrets.md promise: the tests that they name are there, and so is every secret."""

from __future__ import annotations

import re
from pathlib import Path

from server.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[2]
SECURITY = (ROOT / "SECURITY.md").read_text("utf-8")
SECRETS = (ROOT / "docs" / "secrets.md").read_text("utf-8")


def test_every_threat_names_tests_that_exist() -> None:
    rows = [row for row in SECURITY.splitlines() if re.match(r"\| [STRIDE] \|", row)]
    assert {row[2] for row in rows} == set("STRIDE")
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", row.split("|")[4])
        assert named, row
        for path in named:
            assert "def test_" in (ROOT / path).read_text("utf-8"), path


def test_every_key_that_is_named_exists() -> None:
    known = {*ServerSettings.known_keys(), "DEPENDENCY_AUDIT"}
    for text in (SECURITY, SECRETS):
        named = re.findall(r"`([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", text)
        assert {key for key in named if not key.startswith("AWS_")} <= known


def test_every_secret_key_is_listed_and_can_be_changed() -> None:
    listed = re.findall(r"^\| `([A-Z0-9_]+)` \|", SECRETS.partition("## Where to put them")[0], re.M)
    assert len(listed) == len(set(listed))
    assert set(listed) == set(ServerSettings.secret_keys())


def test_every_secret_key_is_marked_in_the_table_of_settings_and_in_the_example() -> None:
    table = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([A-Z0-9_]+)` \|[^|]*\| \*secret\*", table, re.M)) == set(ServerSettings.secret_keys())
