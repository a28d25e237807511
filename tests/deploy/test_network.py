"""riva-020-network.sh: groups, role and bucket, made once, put right where they differ, open to nobody by mistake."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud.client import REGION, Cloud
from deploy.ec2_steps import BOTH_PORTS, changed, surroundings

BUCKET = f"riva-riva-123456789012-{REGION}"


@pytest.fixture(scope="module")
def made(cloud: Cloud) -> Cloud:
    surroundings(cloud, "--allow-from", "203.0.113.7,10.1.2.3/8")
    return cloud


def _group(cloud: Cloud, part: str) -> dict[str, Any]:
    (group,) = cloud.client("ec2").describe_security_groups(
        Filters=[{"Name": "group-name", "Values": [f"riva-riva-{part}"]}]
    )["SecurityGroups"]
    found: dict[str, Any] = group
    return found


def _open(cloud: Cloud, part: str) -> set[tuple[int, str]]:
    found = set()
    for rule in _group(cloud, part)["IpPermissions"]:
        assert rule["FromPort"] == rule["ToPort"]
        sources = [each["CidrIp"] for each in rule["IpRanges"]] + [each["CidrIpv6"] for each in rule["Ipv6Ranges"]]
        found |= {
            (rule["FromPort"], source) for source in [*sources, *(pair["GroupId"] for pair in rule["UserIdGroupPairs"])]
        }
    return found


def test_the_gateway_is_open_to_those_named_and_the_recognizer_to_the_gateway(made: Cloud) -> None:
    assert _open(made, "gateway") == {
        (port, source) for port in BOTH_PORTS for source in ("203.0.113.7/32", "10.0.0.0/8")
    }
    gateway = _group(made, "gateway")["GroupId"]
    assert _open(made, "nim") == {(9000, gateway), (50051, gateway)}


def test_a_bucket_s_name_that_s3_is_still_at_work_on_is_waited_for_within_bounds(made: Cloud) -> None:
    made.client("s3").delete_bucket(Bucket=BUCKET)
    made.faults.set(aborted={"s3:CreateBucket": 99})
    ran = made.run("riva-020-network.sh", "--yes", env={"DEPLOY_BUCKET_LIMIT_S": "1"})
    assert (ran.status, "S3 is still at work on a bucket of that name" in ran.err) == (3, True), ran.err
    made.faults.set(aborted={"s3:CreateBucket": 2, "s3:PutBucketTagging": 1})
    surroundings(made)
    made.faults.clear()
    assert "Contents" not in made.client("s3").list_objects_v2(Bucket=BUCKET)


def test_a_second_time_changes_nothing(made: Cloud) -> None:
    before = len(made.changes())
    surroundings(made)
    assert changed(made, before) == []


def test_the_role_may_do_what_it_needs_and_no_more(made: Cloud) -> None:
    iam = made.client("iam")
    (attached,) = iam.list_attached_role_policies(RoleName="riva-riva")["AttachedPolicies"]
    assert attached["PolicyName"] == "AmazonSSMManagedInstanceCore"
    (name,) = iam.list_role_policies(RoleName="riva-riva")["PolicyNames"]
    document = iam.get_role_policy(RoleName="riva-riva", PolicyName=name)["PolicyDocument"]
    secret = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:riva-riva"
    certificate = f"arn:aws:ssm:{REGION}:123456789012:parameter/riva/riva/gateway-certificate"
    *allowed, denied = document["Statement"]
    assert [(each["Action"], each["Resource"]) for each in allowed] == [
        ("secretsmanager:GetSecretValue", [f"{secret}/ngc-??????", f"{secret}/gateway-key-??????"]),
        ("secretsmanager:PutSecretValue", f"{secret}/gateway-key-??????"),
        ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/releases/*"),
        (["ssm:GetParameter", "ssm:PutParameter"], certificate),
    ]
    # AWS's own policy for agents lets them read every parameter of the account.
    assert (denied["Effect"], denied["NotResource"]) == ("Deny", certificate)
    assert {"ssm:GetParameter", "ssm:GetParameters"} <= set(denied["Action"])
    profile = iam.get_instance_profile(InstanceProfileName="riva-riva")["InstanceProfile"]
    assert [role["RoleName"] for role in profile["Roles"]] == ["riva-riva"]


def test_the_bucket_is_private_encrypted_and_over_tls_only(made: Cloud) -> None:
    s3 = made.client("s3")
    assert set(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    (statement,) = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    tags = {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"]}
    assert tags == {"riva:by": "riva-gateway", "riva:deployment": "riva"}


def test_what_differs_is_put_right(made: Cloud) -> None:
    """Rules that nobody asked for go, those that are missing come back; so do the bucket's settings and the role's."""
    ec2, s3, iam = (made.client(name) for name in ("ec2", "s3", "iam"))
    gateway, nim = _group(made, "gateway")["GroupId"], _group(made, "nim")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=gateway, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0")
    ec2.authorize_security_group_ingress(GroupId=nim, IpProtocol="tcp", FromPort=9000, ToPort=9000, CidrIp="0.0.0.0/0")
    s3.delete_public_access_block(Bucket=BUCKET)
    too_much = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_role_policy(RoleName="riva-riva", PolicyName="deployment", PolicyDocument=json.dumps(too_much))
    surroundings(made, "--allow-from", "198.51.100.0/24,2001:db8::/32")
    assert _open(made, "gateway") == {
        (port, source) for port in BOTH_PORTS for source in ("198.51.100.0/24", "2001:db8::/32")
    }
    assert _open(made, "nim") == {(9000, gateway), (50051, gateway)}
    assert s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"]
    document = iam.get_role_policy(RoleName="riva-riva", PolicyName="deployment")["PolicyDocument"]
    assert len(document["Statement"]) == 5


@pytest.mark.parametrize("source", ["0.0.0.0/0", "203.0.113.7,::/0", "128.0.0.0/1"])
def test_nobody_opens_it_to_the_world_by_mistake(cloud: Cloud, source: str) -> None:
    before = len(cloud.changes())
    ran = cloud.run("riva-020-network.sh", "--allow-from", source)
    assert (ran.status, "would let anybody in" in ran.err, cloud.changes()[before:]) == (2, True, [])


@pytest.mark.parametrize("source", ["256.1.1.1", "10.0.0.0/33", "example.com", "1.2.3", "; id"])
def test_what_is_no_address(cloud: Cloud, source: str) -> None:
    ran = cloud.run("riva-020-network.sh", "--allow-from", source)
    assert (ran.status, "is not an address or a network" in ran.err) == (2, True), ran.err


def test_the_world_when_it_is_meant_and_a_network_that_is_named(made: Cloud) -> None:
    vpc = _group(made, "gateway")["VpcId"]
    surroundings(made, "--public", "--vpc", vpc)
    assert _open(made, "gateway") == {(port, "0.0.0.0/0") for port in BOTH_PORTS}
    other = made.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    ran = made.run("riva-020-network.sh", "--vpc", other)
    assert (ran.status, f"is in {vpc} already" in ran.err) == (2, True), ran.err


def test_a_role_of_somebody_else_is_left_alone(cloud: Cloud) -> None:
    cloud.client("iam").create_role(RoleName="riva-theirs", AssumeRolePolicyDocument="{}")
    ran = cloud.run("riva-020-network.sh", "--deployment", "theirs")
    assert (ran.status, "that these scripts did not make" in ran.err) == (2, True), ran.err
    assert not cloud.client("iam").list_role_policies(RoleName="riva-theirs")["PolicyNames"]


def test_two_regions_do_not_share_a_role(made: Cloud) -> None:
    ran = made.run("riva-020-network.sh", "--region", "us-west-2")
    assert (ran.status, f"has its role in use in {REGION}" in ran.err) == (2, True), ran.err
