"""riva-030-secret.sh: the NGC key gets into Secrets Manager, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.client import Cloud
from deploy.ec2_steps import KEY

NAME = "riva-riva/ngc"


def _stored(cloud: Cloud) -> str:
    return str(cloud.client("secretsmanager").get_secret_value(SecretId=NAME)["SecretString"])


def test_a_key_from_stdin_then_the_same_then_another_then_none(cloud: Cloud, tmp_path: Path) -> None:
    first = cloud.run("riva-030-secret.sh", input=KEY + "\n")
    assert (first.status, _stored(cloud)) == (0, KEY)
    made = len(cloud.changes())
    again = cloud.run("riva-030-secret.sh", input=f"  {KEY}\r\n")
    assert (again.status, "the same key" in again.err, len(cloud.changes())) == (0, True, made)
    other = KEY[:-1] + "y"
    (tmp_path / "key").write_text(other + "\n")
    changed = cloud.run("riva-030-secret.sh", "--from-file", str(tmp_path / "key"))
    assert (changed.status, _stored(cloud)) == (0, other)
    none = cloud.run("riva-030-secret.sh", input="")
    assert (none.status, _stored(cloud)) == (0, other)
    for ran in (first, again, changed, none):
        assert KEY[:-1] not in ran.out + ran.err
    (tags,) = [each["Tags"] for each in cloud.client("secretsmanager").list_secrets()["SecretList"]]
    assert {"Key": "riva:deployment", "Value": "riva"} in tags


def test_one_that_waits_to_be_deleted_comes_back(cloud: Cloud) -> None:
    cloud.client("secretsmanager").delete_secret(SecretId=NAME, RecoveryWindowInDays=7)
    assert cloud.run("riva-030-secret.sh", input="").status == 2
    assert cloud.run("riva-030-secret.sh", input=KEY).status == 0
    assert _stored(cloud) == KEY


@pytest.mark.parametrize("key", ["hello", "nvapi-short", KEY + " and more!", "-----BEGIN PRIVATE KEY-----"])
def test_what_is_no_key(cloud: Cloud, key: str) -> None:
    before = len(cloud.changes())
    ran = cloud.run("riva-030-secret.sh", input=key)
    assert (ran.status, "does not look like an NGC key" in ran.err, len(cloud.changes())) == (2, True, before)
    assert key not in ran.err


def test_no_key_at_all(cloud: Cloud) -> None:
    ran = cloud.run("riva-030-secret.sh", "--deployment", "another", input="")
    assert (ran.status, "the NGC key is missing" in ran.err) == (2, True)


def test_a_trace_does_not_show_it(cloud: Cloud, tmp_path: Path) -> None:
    """`bash -x`, and the command lines of every program that it starts."""
    tree = Path(__file__).resolve().parents[2] / "scripts" / "riva-030-secret.sh"
    spy = tmp_path / "spy"
    spy.mkdir()
    seen = tmp_path / "seen"
    for name in ("aws", "jq", "tr", "cat"):
        (spy / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "$0 $*" >>{seen}\nPATH=${{PATH#*:}} exec {name} "$@"\n')
        (spy / name).chmod(0o755)
    path = f"{spy}:{cloud.variables()['PATH']}"
    ran = cloud.run("bash", "-x", str(tree), "--deployment", "traced", input=KEY, env={"PATH": path})
    assert ran.status == 0, ran.err
    assert "secretsmanager create-secret" in seen.read_text()
    assert KEY not in ran.err + ran.out + seen.read_text()
