"""The whole way: up, up again, stopped and started, destroyed; and what it leaves behind."""

from __future__ import annotations

import json

import pytest

from cloud.client import Cloud
from deploy.ec2_steps import KEY, changed, machines, stops_another

LONG_S = 300

pytestmark = pytest.mark.timeout(LONG_S + 60)


@pytest.fixture(scope="module")
def up(cloud: Cloud) -> str:
    """What the first run said, as an operator would type it."""
    ran = cloud.run(
        "riva-000-up.sh", "--yes", "--allow-from", "203.0.113.0/24", "--max-hours", "999", input=KEY, timeout_s=LONG_S
    )
    assert ran.status == 0, ran.err
    return ran.out + ran.err


def test_all_of_it_serves(cloud: Cloud, up: str) -> None:
    facts = json.loads(cloud.run("riva-100-status.sh", "--json").out)
    assert (facts["state"], facts["agent"]) == ("running", "Online")
    assert (facts["nim"]["state"], facts["nim"]["profile"]) == ("ready", "rnnt")
    assert (facts["gateway"]["state"], facts["max_hours"]) == ("ready", "999")
    assert f"https://{facts['address']}:8443" in up
    assert "080-smoke-test" in up


def test_up_again_changes_nothing(cloud: Cloud, up: str) -> None:
    (machine,) = machines(cloud)
    before = len(cloud.changes())
    again = cloud.run("riva-000-up.sh", "--yes", input="", timeout_s=LONG_S)
    assert again.status == 0, again.err
    assert changed(cloud, before) == []
    assert [each["InstanceId"] for each in machines(cloud)] == [machine["InstanceId"]]


def test_the_key_is_nowhere_but_where_it_belongs(cloud: Cloud, up: str) -> None:
    """Command lines of both sides, user data, Systems Manager's history, logs, unit files, settings of containers."""
    assert cloud.where_is(KEY) == []
    assert KEY not in up


def test_stopped_and_started_it_serves_at_its_new_address(cloud: Cloud, up: str) -> None:
    (before,) = machines(cloud)
    assert cloud.run("riva-120-stop.sh").status == 0
    started = cloud.run("riva-130-start.sh", timeout_s=LONG_S)
    assert started.status == 0, started.err
    address = started.out.split()[1]
    assert address != before["PublicIpAddress"]
    asked = cloud.run(
        "curl", "-sk", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", f"https://{address}:8443/readyz"
    )
    assert asked.out == "200", asked.err


def test_a_step_that_fails_ends_it_and_says_how_to_go_on(cloud: Cloud, up: str) -> None:
    """The machine is guarded by then, and a nightly stop of a former machine is for this one."""
    assert cloud.run("riva-150-cost-guard.sh", "--stop-at", "20:00", "--timezone", "UTC").status == 0
    stops_another(cloud)
    cloud.faults.set(send_command={"nim.sh": "TimedOut"})
    ran = cloud.run("riva-000-up.sh", "--yes", "--max-hours", "998", input="", timeout_s=LONG_S)
    cloud.faults.clear()
    assert ran.status == 3
    assert "050-deploy-nim ended with status 3" in ran.err
    assert "riva-000-up.sh --yes" in ran.err
    assert "── 060-readiness" not in ran.err
    (machine,) = machines(cloud)
    schedule = cloud.client("scheduler").get_schedule(GroupName="riva-riva", Name="nightly-stop")
    assert schedule["ScheduleExpression"] == "cron(0 20 * * ? *)"
    assert json.loads(schedule["Target"]["Input"]) == {"InstanceIds": [machine["InstanceId"]]}
    assert "OnBootSec=998h" in cloud.far(machine["InstanceId"]).text("/etc/systemd/system/riva-max-hours.timer")


@pytest.mark.parametrize(
    "words",
    [
        "--spot --stop-at 20:00",
        "--stop-at 25:00",
        "--max-hours 0",
        "--timezone a:b",
        "--profile typo",
        "--tag latest",
        "--image nvcr.io/nim/x:latest",
        "--selector a;b",
        "--minutes soon",
        "--name a;b",
        "--rounds 0",
        "--spot --protect",
        "--allow-from 1.2.3",
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_is_made(cloud: Cloud, words: str) -> None:
    before = len(cloud.calls)
    ran = cloud.run("riva-000-up.sh", "--yes", *words.split(), input="")
    assert (ran.status, "──" in ran.err, len(cloud.calls)) == (2, False, before), ran.err
    assert words.split()[-1].rpartition(":")[2] in ran.err or words.split()[-2] in ran.err


def test_destroyed_nothing_is_left(cloud: Cloud, up: str) -> None:
    gone = cloud.run("riva-190-destroy.sh", "--yes", timeout_s=LONG_S)
    assert (gone.status, "nothing of 'riva' is left" in gone.err) == (0, True), gone.err
    again = cloud.run("riva-190-destroy.sh", "--yes")
    assert (again.status, "there is nothing of 'riva' in us-east-2" in again.err) == (0, True), again.err
    assert cloud.leftovers("riva") == []
