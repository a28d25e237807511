"""What the tests of the EC2 scripts share: a key like those of NVIDIA, and the steps before the one that is tested."""

from __future__ import annotations

import json
from typing import Any

from cloud.client import Cloud

KEY = "nvapi-" + "Kq7" * 21 + "x"
BOTH_PORTS = (8443, 50052)


def surroundings(cloud: Cloud, *more: str) -> None:
    """Groups, role and bucket."""
    ran = cloud.run("riva-020-network.sh", "--yes", *more)
    assert ran.status == 0, ran.err


def launched(cloud: Cloud, *more: str) -> str:
    """The id of a machine that takes commands."""
    ran = cloud.run("riva-040-launch.sh", "--yes", *more)
    assert ran.status == 0, ran.err
    return ran.out.split("\t")[0]


def machines(cloud: Cloud) -> list[dict[str, Any]]:
    """Every instance that has not ended."""
    found = cloud.client("ec2").describe_instances()["Reservations"]
    every = [instance for each in found for instance in each["Instances"]]
    return [instance for instance in every if instance["State"]["Name"] not in {"terminated", "shutting-down"}]


def changed(cloud: Cloud, since: int = 0) -> list[str]:
    """What changed something after the first `since` changes, by name. A command to a machine is none by itself."""
    return [call.name for call in cloud.changes()[since:] if call.name != "ssm:SendCommand"]


def stops_another(cloud: Cloud) -> None:
    """The nightly stop is for a machine that is gone, as after one was terminated by hand."""
    scheduler = cloud.client("scheduler")
    there = scheduler.get_schedule(GroupName="riva-riva", Name="nightly-stop")
    names = ("Name", "GroupName", "ScheduleExpression", "ScheduleExpressionTimezone", "FlexibleTimeWindow")
    target = {**there["Target"], "Input": json.dumps({"InstanceIds": ["i-0123456789abcdef0"]})}
    scheduler.update_schedule(**{name: there[name] for name in names}, Target=target)
