"""riva-150-cost-guard.sh: the nightly stop, the most of hours, and neither."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud.client import Cloud
from deploy.ec2_steps import changed, launched, stops_another, surroundings


@pytest.fixture(scope="module")
def machine(cloud: Cloud) -> str:
    surroundings(cloud)
    return launched(cloud)


def _guard(cloud: Cloud, *words: str) -> tuple[int, str]:
    ran = cloud.run("riva-150-cost-guard.sh", *words)
    return ran.status, ran.err


def _schedule(cloud: Cloud) -> dict[str, Any]:
    return dict(cloud.client("scheduler").get_schedule(GroupName="riva-riva", Name="nightly-stop"))


def test_a_nightly_stop_and_another_time(cloud: Cloud, machine: str) -> None:
    status, said = _guard(cloud, "--stop-at", "20:30", "--timezone", "Europe/Berlin")
    assert (status, "every day at 20:30, Europe/Berlin" in said, "a month" in said) == (0, True, True), said
    schedule = _schedule(cloud)
    assert schedule["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:ec2:stopInstances"
    assert json.loads(schedule["Target"]["Input"]) == {"InstanceIds": [machine]}
    before = len(cloud.changes())
    assert _guard(cloud, "--stop-at", "20:30", "--timezone", "Europe/Berlin")[0] == 0
    assert changed(cloud, before) == []
    assert _guard(cloud, "--stop-at", "0 19 ? * MON-FRI *", "--timezone", "UTC")[0] == 0
    assert _schedule(cloud)["ScheduleExpression"] == "cron(0 19 ? * MON-FRI *)"


def test_a_stop_of_another_machine_is_not_shown_as_a_guard(cloud: Cloud, machine: str) -> None:
    stops_another(cloud)
    facts = json.loads(cloud.run("riva-100-status.sh", "--json", "--quick").out)
    assert (facts["nightly_stop"], facts["nightly_stop_of_another"]) == (None, "cron(0 19 ? * MON-FRI *) UTC")
    table = cloud.run("riva-100-status.sh", "--quick")
    assert ("MON-FRI" in table.out, "is for another machine than this one" in table.err) == (False, True)


def test_the_schedule_may_stop_this_deployment_and_nothing_else(cloud: Cloud, machine: str) -> None:
    iam = cloud.client("iam")
    (statement,) = iam.get_role_policy(RoleName="riva-riva-scheduler", PolicyName="stop")["PolicyDocument"]["Statement"]
    assert statement["Action"] == "ec2:StopInstances"
    assert statement["Condition"] == {"StringEquals": {"aws:ResourceTag/riva:deployment": "riva"}}
    (trust,) = iam.get_role(RoleName="riva-riva-scheduler")["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_a_limit_of_hours_and_no_guards_any_more(cloud: Cloud, machine: str) -> None:
    far = cloud.far(machine)
    status, said = _guard(cloud, "--max-hours", "999")
    assert (status, "stops 999 hours after each start" in said) == (0, True), said
    assert far.run("systemctl", "is-active", "riva-max-hours.timer").status == 0
    assert far.run("systemctl", "is-enabled", "riva-max-hours.timer").status == 0
    assert far.run("systemd-analyze verify /etc/systemd/system/riva-max-hours.*").status == 0
    assert "OnBootSec=999h" in far.text("/etc/systemd/system/riva-max-hours.timer")
    status, said = _guard(cloud, "--off")
    assert (status, "no nightly stop" in said, "no limit of hours" in said) == (0, True, True), said
    assert far.run("systemctl", "is-active", "riva-max-hours.timer").status != 0
    assert not cloud.client("scheduler").list_schedules()["Schedules"]
    roles = [role["RoleName"] for role in cloud.client("iam").list_roles()["Roles"]]
    assert "riva-riva-scheduler" not in roles
    assert _guard(cloud, "--off")[0] == 0


def test_a_machine_that_is_over_it_already_is_not_shut_down_at_once(cloud: Cloud, machine: str) -> None:
    far = cloud.far(machine)
    assert far.run("echo 36000.0 1.0 >/run/uptime && mount --bind /run/uptime /proc/uptime").status == 0
    status, said = _guard(cloud, "--max-hours", "9")
    assert (status, "has been up for 10 hours already" in said) == (2, True), said
    assert far.run("test ! -e /etc/systemd/system/riva-max-hours.timer && umount /proc/uptime").status == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--stop-at", "25:00"),
        ("--stop-at", "0 20 * *"),
        ("--max-hours", "0"),
        ("--timezone", "a b"),
        ("--off", "--max-hours=3"),
    ],
)
def test_what_makes_no_sense(cloud: Cloud, words: tuple[str, ...]) -> None:
    before = len(cloud.changes())
    assert (_guard(cloud, *words)[0], len(cloud.changes())) == (2, before)
