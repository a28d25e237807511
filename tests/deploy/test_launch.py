"""riva-040-launch.sh: one machine, wherever there is room, as closed as it should be; a run that broke off goes on."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from cloud.client import Cloud
from deploy.ec2_steps import KEY, changed, launched, machines, surroundings

ZONES = ("us-east-2a", "us-east-2b", "us-east-2c")


@pytest.fixture(scope="module")
def prepared(cloud: Cloud) -> Cloud:
    surroundings(cloud)
    assert cloud.run("riva-030-secret.sh", input=KEY).status == 0
    return cloud


@pytest.fixture
def ready(prepared: Cloud) -> Iterator[Cloud]:
    """No machine, no fault."""
    yield prepared
    prepared.faults.clear()
    if ids := [each["InstanceId"] for each in machines(prepared)]:
        prepared.client("ec2").terminate_instances(InstanceIds=ids)


def _asked(cloud: Cloud, since: int = 0) -> list[dict[str, Any]]:
    return [call.parameters for call in cloud.calls[since:] if call.name == "ec2:RunInstances"]


def test_the_machine_is_as_closed_as_it_should_be_and_is_not_made_twice(ready: Cloud) -> None:
    found = launched(ready)
    before = len(ready.changes())
    assert launched(ready) == found
    assert changed(ready, before) == []
    (machine,) = machines(ready)
    ec2 = ready.client("ec2")
    assert machine["InstanceType"] == "g6.xlarge"
    options = machine["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
    assert not machine.get("KeyName")
    assert {group["GroupName"] for group in machine["SecurityGroups"]} == {"riva-riva-gateway", "riva-riva-nim"}
    assert machine["IamInstanceProfile"]["Arn"].endswith("/riva-riva")
    (volume,) = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [found]}])["Volumes"]
    assert (volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (200, "gp3", True)
    assert {"Key": "riva:deployment", "Value": "riva"} in volume["Tags"]
    data = ec2.describe_instance_attribute(InstanceId=found, Attribute="userData")["UserData"]["Value"]
    assert (
        base64.b64decode(data).decode().split("\n")[1]
        == "mkdir -p /var/lib/riva && date -u +%FT%TZ >/var/lib/riva/first-boot"
    )
    behaviour = ec2.describe_instance_attribute(InstanceId=found, Attribute="instanceInitiatedShutdownBehavior")
    assert behaviour["InstanceInitiatedShutdownBehavior"]["Value"] == "stop"
    everything = repr([(call.name, call.parameters) for call in ready.calls if call.service != "secretsmanager"])
    assert KEY not in everything
    assert KEY not in base64.b64decode(data).decode()


def test_no_room_in_one_zone(ready: Cloud) -> None:
    ready.faults.set(no_capacity={"us-east-2a": 99})
    launched(ready)
    (machine,) = machines(ready)
    assert machine["Placement"]["AvailabilityZone"] == "us-east-2b"


def test_no_room_anywhere_then_the_same_again(ready: Cloud) -> None:
    ready.faults.set(no_capacity={"*": 99})
    since = len(ready.calls)
    ran = ready.run("riva-040-launch.sh", "--rounds", "2")
    assert (ran.status, machines(ready)) == (3, [])
    assert f"no zone of us-east-2 has room for g6.xlarge now ({' '.join(ZONES)})" in ran.err
    first = [each["ClientToken"] for each in _asked(ready, since)]
    assert len(first) == len(set(first)) == 6
    since = len(ready.calls)
    assert ready.run("riva-040-launch.sh", "--rounds", "1").status == 3
    # The same request again is the same request for AWS, too: had an answer been lost, there would be one machine.
    assert [each["ClientToken"] for each in _asked(ready, since)] == first[:3]
    ready.faults.clear()
    launched(ready)
    assert len(machines(ready)) == 1


def test_a_profile_that_is_not_known_everywhere_yet_and_an_agent_that_is_late(ready: Cloud) -> None:
    ready.faults.set(profile_late=2, agent_late=3)
    launched(ready)
    assert len(machines(ready)) == 1


def test_an_agent_that_does_not_come_and_going_on_from_there(ready: Cloud) -> None:
    ready.faults.set(agent_never=True)
    ran = ready.run("riva-040-launch.sh", env={"DEPLOY_AGENT_LIMIT_S": "1"})
    assert (ran.status, "its Systems Manager agent has not come online" in ran.err) == (3, True), ran.err
    (machine,) = machines(ready)
    ready.faults.set(agent_never=False)
    assert launched(ready) == machine["InstanceId"]


def test_a_machine_that_is_taken_away_at_once(ready: Cloud) -> None:
    ready.faults.set(quickly_gone=True)
    ran = ready.run("riva-040-launch.sh")
    assert (ran.status, "ended while it was waited for" in ran.err, machines(ready)) == (3, True, []), ran.err


def test_what_the_operator_may_not_do(ready: Cloud) -> None:
    ready.faults.set(denied=["ec2:RunInstances"])
    ran = ready.run("riva-040-launch.sh")
    assert (ran.status, "may not start machines" in ran.err) == (2, True), ran.err


def test_spot_capacity(ready: Cloud) -> None:
    launched(ready, "--spot", "--type", "g5.xlarge", "--disk-gb", "150")
    (machine,) = machines(ready)
    assert (machine["InstanceLifecycle"], machine["InstanceType"]) == ("spot", "g5.xlarge")
    ran = ready.run("riva-120-stop.sh")
    assert (ran.status, "cannot be stopped, only given back" in ran.err) == (2, True), ran.err


def test_without_what_surrounds_it(cloud: Cloud) -> None:
    ran = cloud.run("riva-040-launch.sh", "--deployment", "bare")
    assert (ran.status, "Run riva-020-network.sh --deployment bare first" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("words", [("--disk-gb", "big"), ("--rounds", "0"), ("--spot", "--protect")])
def test_flags_that_make_no_sense(cloud: Cloud, words: tuple[str, ...]) -> None:
    before = len(cloud.calls)
    assert cloud.run("riva-040-launch.sh", *words).status == 2
    assert len(cloud.calls) == before
