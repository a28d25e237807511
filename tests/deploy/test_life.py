"""Status, logs, stop and start of a machine: riva-100, -110, -120, -130."""

from __future__ import annotations

import json
import re

import pytest

from cloud.client import Cloud
from deploy.ec2_steps import changed, launched, surroundings


@pytest.fixture(scope="module")
def machine(cloud: Cloud) -> str:
    surroundings(cloud)
    return launched(cloud)


def test_the_status_for_people_and_for_programs(cloud: Cloud, machine: str) -> None:
    before = len(cloud.changes())
    table = cloud.run("riva-100-status.sh")
    assert table.status == 0, table.err
    rows = dict(line.split(maxsplit=1) for line in table.out.splitlines())
    assert rows["deployment"] == "riva (us-east-2)"
    assert rows["instance"] == f"{machine}  g6.xlarge  us-east-2a"
    assert (rows["state"], rows["agent"], rows["recognizer"], rows["gateway"]) == (
        "running",
        "Online",
        "absent",
        "absent",
    )
    assert rows["GPU"].startswith("NVIDIA L4")
    assert rows["cost"].startswith("about $0")
    assert rows["exists"] == "1 bucket, 2 groups, 1 instance, 1 profile, 1 role, 1 volume"
    facts = json.loads(cloud.run("riva-100-status.sh", "--json", "--quick").out)
    assert (facts["instance"], facts["state"], facts["nim"]["state"]) == (machine, "running", None)
    assert facts["address"] == rows["address"]
    assert changed(cloud, before) == []


def test_logs_and_what_comes_after(cloud: Cloud, machine: str) -> None:
    far = cloud.far(machine)
    unit = "[Service]\nType=oneshot\nExecStart=/bin/echo first words\n"
    written = far.run("cat >/etc/systemd/system/talker.service && systemctl daemon-reload", input=unit)
    assert written.status == far.run("systemctl", "start", "talker").status == 0
    ran = cloud.run("riva-110-logs.sh", "--unit", "talker")
    assert (ran.status, "first words" in ran.out, "cursor" in ran.out) == (0, True, False), ran.err
    # The piece that --follow asks for next has what is new, and nothing twice.
    script = '. "$0/lib/deploy.sh"; opt=([deployment]=riva [dry_run]=no [yes]=yes); far_instance=$1; ' + (
        'piece() { far journal.sh 60 REGION=us-east-2 DEPLOYMENT=riva UNIT=talker LINES_WANTED=9 SINCE= "AFTER=$1"; }; '
        'one=$(piece ""); piece "$(sed -n s/^cursor=//p <<<"$one")"'
    )
    nothing_new = cloud.run("bash", "-c", script, "scripts", machine)
    assert (nothing_new.status, re.fullmatch("cursor=.*\n", nothing_new.out) is not None) == (0, True), nothing_new.err
    # More than one piece can carry comes in several, without gaps.
    burst = "[Service]\nType=oneshot\nExecStart=/usr/bin/seq -f 'number %%.0f' 1 700\n"
    written = far.run("cat >/etc/systemd/system/talker.service && systemctl daemon-reload", input=burst)
    assert written.status == far.run("systemctl", "start", "talker").status == 0
    script = script.rpartition("one=")[0] + (
        'cursor=$2 more=yes; while [ -n "$more" ]; do said=$(piece "$cursor"); printf "%s\\n" "$said"; '
        'cursor=$(sed -n s/^cursor=//p <<<"$said"); more=$(sed -n s/^more=//p <<<"$said"); done'
    )
    pieces = cloud.run("bash", "-c", script, "scripts", machine, nothing_new.out.strip().removeprefix("cursor="))
    assert re.findall("number ([0-9]+)$", pieces.out, re.M) == [str(number) for number in range(1, 701)], pieces.err
    assert pieces.out.count("cursor=") > 1


@pytest.mark.parametrize("words", [("--unit", "a;id"), ("--lines", "0"), ("--since", "$(id)")])
def test_what_is_no_unit_no_number_no_time(cloud: Cloud, words: tuple[str, str]) -> None:
    assert cloud.run("riva-110-logs.sh", *words).status == 2


def test_the_console_where_the_agent_does_not_answer(cloud: Cloud, machine: str) -> None:
    cloud.faults.set(agent_never=True)
    ran = cloud.run("riva-110-logs.sh")
    cloud.faults.set(agent_never=False)
    assert (ran.status, "takes no commands" in ran.err, "Linux version" in ran.out) == (3, True, True)


def test_stop_twice_and_start_at_another_address(cloud: Cloud, machine: str) -> None:
    before = json.loads(cloud.run("riva-100-status.sh", "--json", "--quick").out)["address"]
    assert cloud.run("riva-120-stop.sh").status == 0
    since = len(cloud.changes())
    again = cloud.run("riva-120-stop.sh")
    assert (again.status, "is stopped" in again.err, changed(cloud, since)) == (0, True, [])
    stopped = cloud.run("riva-100-status.sh").out
    assert "stopped" in stopped
    assert before not in stopped
    cloud.faults.set(start_no_capacity=1)
    full = cloud.run("riva-130-start.sh")
    assert (full.status, "its zone has no room" in full.err) == (3, True), full.err
    started = cloud.run("riva-130-start.sh")
    assert started.status == 0, started.err
    found, address = started.out.split()
    assert found == machine
    assert address != before


def test_launching_a_stopped_machine_starts_it(cloud: Cloud, machine: str) -> None:
    cloud.client("ec2").stop_instances(InstanceIds=[machine])
    assert launched(cloud) == machine


def test_there_is_no_machine(cloud: Cloud) -> None:
    for script in ("110-logs", "120-stop", "130-start"):
        ran = cloud.run(f"riva-{script}.sh", "--deployment", "absent")
        assert (ran.status, "has no instance" in ran.err) == (2, True), ran.err
    ran = cloud.run("riva-100-status.sh", "--deployment", "absent")
    assert (ran.status, "nothing" in ran.out) == (0, True), ran.err
