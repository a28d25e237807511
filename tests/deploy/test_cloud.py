"""The test cloud keeps its promises: what the tests of the deployment scripts stand on."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloud.amis import AMI
from cloud.client import Cloud, Far

KEY = "nvapi-of-the-test-cloud-0123456789"
IMAGE = "nvcr.io/nim/nvidia/parakeet-1-1b-ctc-en-us:1.5.0"
ROLE = '{"Version":"2012-10-17","Statement":[]}'


@pytest.fixture(autouse=True)
def _no_fault(cloud: Cloud) -> Iterator[None]:
    yield
    cloud.faults.clear()


@pytest.fixture(scope="module")
def machine(cloud: Cloud) -> Far:
    """A running one, with a role."""
    iam = cloud.client("iam")
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=ROLE)
    iam.create_instance_profile(InstanceProfileName="r")
    iam.add_role_to_instance_profile(InstanceProfileName="r", RoleName="r")
    return cloud.far(_launch(cloud, IamInstanceProfile={"Name": "r"})["InstanceId"])


def _launch(cloud: Cloud, **more: Any) -> dict[str, Any]:
    asked = {"ImageId": AMI, "InstanceType": "g6.xlarge", "MinCount": 1, "MaxCount": 1, **more}
    found: dict[str, Any] = cloud.client("ec2").run_instances(**asked)["Instances"][0]
    return found


def _until(true: Callable[[], object], limit_s: float = 20) -> None:
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def _online(cloud: Cloud, machine: Far) -> bool:
    found = cloud.client("ssm").describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [machine.id]}])
    return [each["PingStatus"] for each in found["InstanceInformationList"]] == ["Online"]


def _send(cloud: Cloud, machine: Far, script: str, limit_s: int = 60, comment: str = "") -> dict[str, Any]:
    ssm = cloud.client("ssm")
    _until(lambda: _online(cloud, machine))
    asked = {"commands": [script], "executionTimeout": [str(limit_s)]}
    sent = ssm.send_command(
        InstanceIds=[machine.id], DocumentName="AWS-RunShellScript", Parameters=asked, Comment=comment
    )
    answer: dict[str, Any] = {}

    def ended() -> bool:
        answer.update(ssm.get_command_invocation(CommandId=sent["Command"]["CommandId"], InstanceId=machine.id))
        return answer["Status"] not in ("Pending", "InProgress")

    _until(ended)
    return answer


def _refused(call: Callable[..., Any], **asked: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(**asked)
    return str(refused.value.response["Error"]["Code"])


def test_a_command_runs_on_the_machine(cloud: Cloud, machine: Far) -> None:
    failed = _send(cloud, machine, "#!/bin/bash\necho out; echo err >&2; [[ -v HOME ]] || exit 3")
    assert (failed["Status"], failed["ResponseCode"]) == ("Failed", 3)
    assert (failed["StandardOutputContent"], failed["StandardErrorContent"]) == ("out\n", "err\n")
    done = _send(cloud, machine, "echo here >/etc/marker; hostname")
    assert (done["Status"], done["ResponseCode"]) == ("Success", 0)
    assert machine.text("/etc/marker") == "here\n"
    assert not Path("/etc/marker").exists()
    late = _send(cloud, machine, "sleep 30", limit_s=1)
    assert (late["Status"], late["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")


def test_commands_that_never_run(cloud: Cloud, machine: Far) -> None:
    cloud.faults.set(send_command={"probe": "TimedOut"})
    assert _send(cloud, machine, "echo", comment="riva: probe.sh")["Status"] == "TimedOut"
    assert _send(cloud, machine, "echo", comment="riva: nim.sh")["Status"] == "Success"
    cloud.faults.set(send_command="Undeliverable")
    never = _send(cloud, machine, "echo")
    assert (never["Status"], never["StatusDetails"], never["ResponseCode"]) == ("Failed", "Undeliverable", -1)
    cloud.faults.clear()
    cloud.faults.set(agent_never=True)
    asked = {"InstanceIds": [machine.id], "DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}
    assert _refused(cloud.client("ssm").send_command, **asked) == "InvalidInstanceId"


def test_the_agent_is_late(cloud: Cloud, machine: Far) -> None:
    _until(lambda: _online(cloud, machine))
    cloud.faults.set(agent_late=2)
    assert [_online(cloud, machine) for _ in range(3)] == [False, False, True]


def test_launches_that_are_refused(cloud: Cloud, machine: Far) -> None:
    cloud.faults.set(no_capacity={"us-east-2a": 1})
    a, b = ({"Placement": {"AvailabilityZone": f"us-east-2{letter}"}} for letter in "ab")
    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        _launch(cloud, **a)
    first = _launch(cloud, **a, ClientToken="t")
    assert _launch(cloud, **b, ClientToken="t")["InstanceId"] == first["InstanceId"]
    cloud.faults.set(profile_late=2)
    for said in ("Invalid IAM Instance Profile", "has no associated IAM Roles"):
        with pytest.raises(ClientError, match=said):
            _launch(cloud, IamInstanceProfile={"Name": "r"})
    with pytest.raises(ClientError, match="Invalid IAM Instance Profile"):
        _launch(cloud, IamInstanceProfile={"Name": "unknown"})
    with pytest.raises(ClientError, match="InvalidAMIID"):
        _launch(cloud, ImageId="ami-00000000000000000")
    with pytest.raises(ClientError, match="InvalidInstanceType"):
        _launch(cloud, InstanceType="g6.tiny")
    cloud.client("ec2").terminate_instances(InstanceIds=[first["InstanceId"]])


def test_groups_in_use_stay(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    nim, gateway = (
        ec2.create_security_group(GroupName=name, Description="-")["GroupId"] for name in ("nim", "gateway")
    )
    pair = [{"IpProtocol": "tcp", "FromPort": 9000, "ToPort": 9000, "UserIdGroupPairs": [{"GroupId": gateway}]}]
    ec2.authorize_security_group_ingress(GroupId=nim, IpPermissions=pair)
    launched = _launch(cloud, SecurityGroupIds=[nim])
    assert _refused(ec2.delete_security_group, GroupId=nim) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    assert _refused(ec2.delete_security_group, GroupId=gateway) == "DependencyViolation"
    ec2.delete_security_group(GroupId=nim)
    ec2.delete_security_group(GroupId=gateway)


def test_stop_and_start(cloud: Cloud, machine: Far) -> None:
    ec2 = cloud.client("ec2")

    def seen() -> dict[str, Any]:
        found: dict[str, Any] = ec2.describe_instances(InstanceIds=[machine.id])["Reservations"][0]["Instances"][0]
        return found

    before = seen()
    machine.run("echo stays >/etc/stays; echo goes >/run/goes; systemd-run --quiet sleep 600")
    ec2.stop_instances(InstanceIds=[machine.id])
    assert "PublicIpAddress" not in seen()
    ec2.start_instances(InstanceIds=[machine.id])
    after = seen()
    assert after["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert after["PublicIpAddress"] != before["PublicIpAddress"]
    there = machine.run("cat /etc/stays; ls /run/goes; pgrep -x sleep")
    assert (there.out, there.status) == ("stays\n", 1)
    # its own word for it: IMDSv2, and only with a token
    ask = 'curl -sf http://169.254.169.254/latest/meta-data/public-ipv4 -H "X-aws-ec2-metadata-token: $(cat)"'
    token = "curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 9' http://169.254.169.254/latest/api/token"
    assert machine.run(f"{token} | {ask}").out == after["PublicIpAddress"]
    assert machine.run(f"echo | {ask}").status != 0
    # and the operator reaches it there
    machine.run("systemd-run --quiet python3 -m http.server 8000 --directory /etc")
    _until(lambda: cloud.run("curl", "-s", f"http://{after['PublicIpAddress']}:8000/stays").out == "stays\n")


def test_a_machine_that_switches_itself_off(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    for behaviour, state in (("stop", "stopped"), ("terminate", "terminated")):
        far = cloud.far(_launch(cloud, InstanceInitiatedShutdownBehavior=behaviour)["InstanceId"])
        far.run("systemctl poweroff")

        def seen(far: Far = far) -> str:
            found = ec2.describe_instances(InstanceIds=[far.id])["Reservations"][0]["Instances"][0]["State"]["Name"]
            return str(found)

        _until(lambda seen=seen, state=state: seen() == state)  # type: ignore[misc]
        ec2.terminate_instances(InstanceIds=[far.id])


def test_a_recognizer_in_a_container(cloud: Cloud, machine: Far) -> None:
    pull = machine.run("docker", "pull", IMAGE)
    assert (pull.status, "unauthorized" in pull.err) == (1, True)
    login = "docker login nvcr.io --username '$oauthtoken' --password-stdin"
    assert machine.run(login, input="nvapi-wrong-one").status == 1
    assert machine.run(f"{login} && docker pull --quiet {IMAGE}", input=KEY).status == 0
    cloud.faults.set(nim_ready_after_s=0.5)
    ports = "--publish 127.0.0.1:9000:9000 --publish 127.0.0.1:50051:50051"
    machine.run("umask 077; cat >/run/ngc.env", input=f"NGC_API_KEY={KEY}\n")
    machine.run(f"systemd-run --quiet --unit nim docker run --rm --name nim --env-file /run/ngc.env {ports} {IMAGE}")
    ask = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9000/v1/health/ready"
    codes = []
    _until(lambda: codes.append(machine.run(ask).out) or codes[-1] == "200")  # type: ignore[func-returns-value]
    assert "503" in codes
    assert machine.run("docker", "inspect", "--format", "{{.State.Running}}", "nim").out == "true\n"
    assert machine.run("docker stop nim && docker ps -q").out == "nim\n"
    assert machine.run("docker", "run", "--rocket", IMAGE).status == 125
    assert machine.run("nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader").out == "NVIDIA L4, 8.9\n"


def test_a_secret_is_found_where_it_leaked(cloud: Cloud, machine: Far) -> None:
    asked = "secretsmanager", "create-secret", "--name", "s", "--secret-string", "file:///dev/stdin"
    assert cloud.run("aws", *asked, input="canary-0123456789").status == 0
    far = "aws --region us-east-2 secretsmanager get-secret-value --secret-id s --query SecretString --output text"
    assert machine.run(far).out == "canary-0123456789\n"
    assert cloud.where_is("canary-0123456789") == []
    machine.run(
        "logger canary-0123456789; aws s3 ls canary-0123456789; base64 >/etc/encoded", input="canary-0123456789"
    )
    _send(cloud, machine, "echo 9876543210-yranac | rev")
    assert cloud.where_is("canary-0123456789") == [
        "a command line",
        f"{machine.id}:/etc/encoded",
        f"{machine.id}:/var/lib/stand-in/argv",
        "the call s3:ListObjectsV2",
        f"the journal of {machine.id}",
        "the output of the command ''",
        "the words of an aws command",
    ]


def test_leftovers_are_found(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    group = ec2.create_security_group(GroupName="riva-x-nim", Description="-")["GroupId"]
    cloud.client("secretsmanager").create_secret(Name="riva-x/ngc", SecretString="-")
    cloud.client("ssm").put_parameter(Name="/riva/x/gateway-certificate", Type="String", Value="-")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "riva:deployment", "Value": "x"}]}]
    instance = _launch(cloud, TagSpecifications=tags)["InstanceId"]
    found = cloud.leftovers("x")
    assert [line for line in found if not line.startswith("tagged")] == [
        f"ec2 {instance} running",
        "ec2 riva-x-nim",
        "secretsmanager riva-x/ngc",
        "ssm /riva/x/gateway-certificate",
    ]
    assert cloud.leftovers("y") == []
    ec2.terminate_instances(InstanceIds=[instance])
    ec2.delete_security_group(GroupId=group)
    assert cloud.leftovers("x") == ["secretsmanager riva-x/ngc", "ssm /riva/x/gateway-certificate"]


def test_calls_are_written_down(cloud: Cloud, machine: Far) -> None:
    before = len(cloud.calls)
    cloud.faults.set(throttled={"ec2:DescribeVpcs": 1}, denied=["iam:CreateRole"])
    assert cloud.run("aws", "ec2", "describe-vpcs").status == 0
    denied = cloud.run("aws", "iam", "create-role", "--role-name", "q", "--assume-role-policy-document", ROLE)
    assert "(AccessDenied)" in denied.err
    cloud.run("aws", "ec2", "describe-vpcs", env={"COLD_AWS": "1"})
    machine.run("aws s3 mb s3://from-there --region us-east-2")
    calls = cloud.calls[before:]
    assert [(call.name, call.status, call.far) for call in calls] == [
        ("ec2:DescribeVpcs", 503, False),
        ("ec2:DescribeVpcs", 200, False),
        ("iam:CreateRole", 403, False),
        ("ec2:DescribeVpcs", 200, False),
        ("s3:CreateBucket", 200, True),
    ]
    assert [call.name for call in cloud.changes()[-2:]] == ["iam:CreateRole", "s3:CreateBucket"]


def test_a_machine_may_do_what_its_role_may(cloud: Cloud, machine: Far) -> None:
    iam, secrets = cloud.client("iam"), cloud.client("secretsmanager")
    may = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue"}
    own = secrets.create_secret(Name="own", SecretString="own")["ARN"]
    secrets.create_secret(Name="other", SecretString="other")
    document = json.dumps({"Version": "2012-10-17", "Statement": [{**may, "Resource": own[:-6] + "??????"}]})
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=document)
    get = "aws --region us-east-2 secretsmanager get-secret-value --query SecretString --output text --secret-id "
    assert machine.run(get + "own").out == "own\n"
    assert "(AccessDenied" in machine.run(get + "other").err
    assert machine.run("aws s3 ls").status != 0
    iam.delete_role_policy(RoleName="r", PolicyName="p")


def test_nothing_stays_behind(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    with Cloud.started(folder) as cloud:
        far = cloud.far(_launch(cloud)["InstanceId"])
        far.run("systemd-run --quiet --unit stays sleep 86399")
        cloud.run("bash", "-c", "setsid sleep 86398 >/dev/null 2>&1 &")
        assert _processes("sleep 8639") != []
    assert _processes("sleep 8639") == []
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert list((folder / "world").iterdir()) == []
    groups = subprocess.run(
        ["find", "/sys/fs/cgroup", "-name", cloud.group], capture_output=True, text=True, check=False
    )
    assert groups.stdout == ""


def _processes(words: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", words], capture_output=True, text=True, check=False)
    return found.stdout.split()
