"""The whole way: up, up again, stopped and started, destroyed; and what it leaves behind."""

from __future__ import annotations

import json

import pytest

from cloud.client import Cloud
from deploy.ec2_steps import KEY, changed, machines

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
    cloud.faults.set(denied=["secretsmanager:DescribeSecret"])
    ran = cloud.run("riva-000-up.sh", "--yes", input="", timeout_s=LONG_S)
    cloud.faults.clear()
    assert ran.status == 1
    assert "030-secret ended with status 1" in ran.err
    assert "riva-000-up.sh --yes" in ran.err
    assert "── 040-launch" not in ran.err


def test_destroyed_nothing_is_left(cloud: Cloud, up: str) -> None:
    gone = cloud.run("riva-190-destroy.sh", "--yes", timeout_s=LONG_S)
    assert (gone.status, "nothing of 'riva' is left" in gone.err) == (0, True), gone.err
    again = cloud.run("riva-190-destroy.sh", "--yes")
    assert (again.status, "there is nothing of it" in again.err) == (0, True), again.err
    assert cloud.leftovers("riva") == []
