"""riva-190-destroy.sh: everything goes, in the right order, and what stays is named."""

from __future__ import annotations

import pytest

from cloud.client import REGION, Cloud
from deploy.ec2_steps import KEY, launched, machines, surroundings

BUCKET = f"riva-riva-123456789012-{REGION}"


@pytest.fixture(scope="module")
def machine(cloud: Cloud) -> str:
    surroundings(cloud)
    assert cloud.run("riva-030-secret.sh", input=KEY).status == 0
    found = launched(cloud, "--protect")
    (asked,) = [call.parameters for call in cloud.calls if call.name == "ec2:RunInstances"]
    assert asked["DisableApiTermination"] == "true"
    # The stand-in hears that only in this way.
    cloud.client("ec2").modify_instance_attribute(InstanceId=found, DisableApiTermination={"Value": True})
    cloud.client("s3").put_object(Bucket=BUCKET, Key="releases/one.tar.gz", Body=b"1")
    cloud.client("ssm").put_parameter(Name="/riva/riva/gateway-certificate", Value="public", Type="String")
    assert cloud.run("riva-150-cost-guard.sh", "--stop-at", "20:00").status == 0
    return found


def test_it_wants_to_be_agreed_with(cloud: Cloud, machine: str) -> None:
    before = len(cloud.changes())
    ran = cloud.run("riva-190-destroy.sh", "--unprotect", input="riva\n")
    assert (ran.status, "no terminal" in ran.err, len(cloud.changes())) == (2, True, before), ran.err
    assert machine in ran.err
    typed = cloud.run("script", "-qec", "scripts/riva-190-destroy.sh --unprotect", "/dev/null", input="no\n")
    assert (typed.status, "that is not its name" in typed.out, len(cloud.changes())) == (2, True, before), typed.out


def test_a_dry_run_says_what_would_go(cloud: Cloud, machine: str) -> None:
    before = len(cloud.changes())
    ran = cloud.run("riva-190-destroy.sh", "--dry-run", "--unprotect")
    assert (ran.status, len(cloud.changes())) == (0, before), ran.err
    for words in (
        f"terminate-instances --instance-ids {machine}",
        "delete-security-group",
        "delete-secret",
        "delete-bucket",
    ):
        assert words in ran.err


def test_a_protected_machine_stays(cloud: Cloud, machine: str) -> None:
    before = len(cloud.changes())
    ran = cloud.run("riva-190-destroy.sh", "--yes")
    assert (ran.status, "is protected; nothing was changed" in ran.err) == (2, True), ran.err
    assert len(cloud.changes()) == before


def test_what_another_script_made_is_not_left_alone_in_the_dark(cloud: Cloud, machine: str) -> None:
    made = cloud.client("sns").create_topic(Name="other", Tags=[{"Key": "riva:deployment", "Value": "riva"}])[
        "TopicArn"
    ]
    before = len(cloud.changes())
    ran = cloud.run("riva-190-destroy.sh", "--yes", "--unprotect")
    cloud.client("sns").delete_topic(TopicArn=made)
    assert (ran.status, made in ran.err, len(cloud.changes())) == (2, True, before), ran.err


def test_in_another_region_it_says_where_it_is(cloud: Cloud, machine: str) -> None:
    before = len(cloud.changes())
    ran = cloud.run("riva-190-destroy.sh", "--yes", "--region", "eu-west-1")
    assert (ran.status, f"in eu-west-1; it is in {REGION}" in ran.err, len(cloud.changes())) == (2, True, before), (
        ran.err
    )
    ran = cloud.run("riva-190-destroy.sh", "--yes", "--deployment", "rivva")
    assert (ran.status, "there is nothing of 'rivva' in us-east-2" in ran.err) == (0, True), ran.err
    assert ran.err.splitlines()[-1].split() == ["other", "deployments", "there:", "riva"]


def test_what_cannot_go_is_named_and_a_second_time_takes_it(cloud: Cloud, machine: str) -> None:
    cloud.faults.set(denied=["secretsmanager:DeleteSecret"])
    ran = cloud.run("riva-190-destroy.sh", "--yes", "--unprotect", env={"DEPLOY_PROOF_LIMIT_S": "1"})
    assert (ran.status, "not everything is gone" in ran.err) == (1, True), ran.err
    assert "secret     riva-riva/ngc" in ran.err[ran.err.index("not everything is gone") :]
    assert machines(cloud) == []
    cloud.faults.clear()
    again = cloud.run("riva-190-destroy.sh", "--yes")
    assert (again.status, "nothing of 'riva' is left" in again.err) == (0, True), again.err


def test_nothing_is_left(cloud: Cloud, machine: str) -> None:
    before = len(cloud.changes())
    ran = cloud.run("riva-190-destroy.sh", "--yes")
    assert (ran.status, "there is nothing of 'riva' in us-east-2" in ran.err, len(cloud.changes())) == (0, True, before)
    assert cloud.leftovers("riva") == []
