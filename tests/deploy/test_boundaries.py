"""What the scripts do not trust: things of other people under names like ours, tags, and what a machine answers."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloud.amis import AMI
from cloud.client import REGION, TREE, Cloud
from deploy.ec2_steps import KEY, launched, machines, surroundings
from deploy.sagemaker_steps import KEY as SAGEMAKER_KEY
from deploy.sagemaker_steps import NAME, Operator

LIBRARY = TREE / "scripts/lib/deploy.sh"
ROOT_LINE = "root:x:0:"
EMPTY_POLICY = '{"Version":"2012-10-17","Statement":[]}'


def _tags(deployment: str, **more: str) -> list[dict[str, str]]:
    said = {"riva:deployment": deployment, "riva:by": "riva-gateway", **more}
    return [{"Key": key, "Value": value} for key, value in said.items()]


def _library(text: str) -> subprocess.CompletedProcess[str]:
    """Runs a piece of shell with the library of the scripts."""
    text = f". {shlex.quote(str(LIBRARY))}\nparse --deployment riva\n{text}"
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=20, check=True)


@pytest.mark.parametrize(
    "value", ["@../../../../../../etc/passwd", "@/etc/passwd", "$(id)", "`id`", "'; id; '", "a\nid"]
)
def test_a_value_is_never_a_file_or_a_command_of_the_far_script(value: str) -> None:
    script = _library(f"far_script mark.sh {shlex.quote('WHAT=' + value)}").stdout
    assert ROOT_LINE not in script
    head = script[: script.index("# shellcheck")]
    told = subprocess.run(["bash", "-c", f'{head}\nprintf %s "$WHAT"'], capture_output=True, text=True, check=True)
    assert told.stdout == value


def test_what_a_machine_answers_steers_neither_the_script_nor_the_terminal() -> None:
    said = "=x\\nPATH=/evil\\na[$(id)]=1\\nwords=good morning\\n"
    ran = _library(f"far() {{ printf '{said}'; }}\nfar_answers x.sh 1\ndeclare -p answer PATH")
    assert 'answer=([words]="good morning" )' in ran.stdout
    assert "/evil" not in ran.stdout
    assert _library(r"printf 'a\033]0;title\007b\r\tc\nü' | printable").stdout == "a]0;titleb\tc\nü"


def test_a_log_that_is_fetched_shows_no_key() -> None:
    """It stays in Systems Manager's history, whatever a recognizer prints."""
    known = f"DEPLOYMENT=riva; . {TREE}/scripts/far/common.sh; without_keys"
    ours = "rgw_0123456789ab_" + "0" * 48
    ran = subprocess.run(["bash", "-c", known], input=f"a {KEY}, {ours}.\n", capture_output=True, text=True, check=True)
    assert ran.stdout == "a [secret], [secret].\n"
    for script in ("common.sh", "nim.sh"):
        lines = (TREE / "scripts/far" / script).read_text().splitlines()
        shown = [line for line in lines if "journalctl -u" in line]
        assert shown
        assert all("without_keys" in line for line in shown)


@pytest.mark.parametrize(("entries", "after"), [(3, ""), (900, ""), (900, "c")])
def test_a_piece_of_a_log_shows_no_key_however_long_it_is(entries: int, after: str) -> None:
    log = f"seq {entries} | sed 's/.*/2026-11-21T10:00:00 unit: a {KEY}/; $ a -- cursor: c'"
    text = f"DEPLOYMENT=riva UNIT=x LINES_WANTED=9 SINCE= AFTER={after}\njournalctl() {{ {log}; }}\n" + "".join(
        (TREE / "scripts/far" / name).read_text() for name in ("common.sh", "journal.sh")
    )
    ran = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=20, check=True)
    assert "a [secret]\n" in ran.stdout
    assert KEY not in ran.stdout + ran.stderr


def test_things_of_other_people_survive_a_destroy(cloud: Cloud) -> None:
    """Those under our names without our tag, and those with the tag that these scripts did not make."""
    secrets, ssm, ec2 = (cloud.client(name) for name in ("secretsmanager", "ssm", "ec2"))
    surroundings(cloud)
    name, certificate = "riva-riva/tls", "of their own"
    secrets.create_secret(Name=name, SecretString=certificate)
    ssm.put_parameter(Name="/riva/riva/theirs", Value="x", Type="String")
    volume = ec2.create_volume(
        AvailabilityZone=f"{REGION}a",
        Size=1,
        TagSpecifications=[{"ResourceType": "volume", "Tags": _tags("riva")[:1]}],
    )["VolumeId"]
    ran = cloud.run("riva-190-destroy.sh", "--yes")
    assert ran.status == 0, ran.err
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == certificate
    assert ssm.get_parameter(Name="/riva/riva/theirs")["Parameter"]["Value"] == "x"
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    cloud.reset()


def test_things_of_other_people_with_the_tag_are_not_taken_up(cloud: Cloud) -> None:
    """A group of theirs does not choose the network, and a machine of theirs is neither gone on with nor stopped."""
    ec2 = cloud.client("ec2")
    theirs = _tags("riva")[:1]
    elsewhere = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    ec2.create_security_group(
        GroupName="riva-riva-gateway",
        Description="-",
        VpcId=elsewhere,
        TagSpecifications=[{"ResourceType": "security-group", "Tags": theirs}],
    )
    surroundings(cloud)
    ours = launched(cloud)
    specification = [{"ResourceType": "instance", "Tags": theirs}]
    made = ec2.run_instances(
        ImageId=AMI, InstanceType="g6.xlarge", MinCount=1, MaxCount=1, TagSpecifications=specification
    )
    machine = made["Instances"][0]["InstanceId"]
    assert launched(cloud) == ours
    stopped = cloud.run("riva-120-stop.sh", "--yes")
    assert stopped.status == 0, stopped.err
    states = {each["InstanceId"]: (each["State"]["Name"], each["VpcId"]) for each in machines(cloud)}
    assert states[machine][0] == "running"
    assert states[ours][0] == "stopped"
    assert states[ours][1] != elsewhere
    cloud.reset()


def test_a_bucket_of_another_deployment_is_neither_used_nor_deleted(cloud: Cloud) -> None:
    s3, bucket = cloud.client("s3"), f"riva-x-sm-123456789012-{REGION}"  # of x on SageMaker, or of x-sm on EC2
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": _tags("x")})
    ran = cloud.run("riva-020-network.sh", "--deployment", "x-sm")
    assert (ran.status, "is another deployment's" in ran.err) == (2, True), ran.err
    assert cloud.run("riva-190-destroy.sh", "--deployment", "x-sm", "--yes").status == 0
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    cloud.reset()


def test_no_machine_gets_the_role_of_somebody_else(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    iam.create_role(RoleName="admin", AssumeRolePolicyDocument=EMPTY_POLICY)
    iam.create_instance_profile(InstanceProfileName="riva-riva")
    iam.add_role_to_instance_profile(InstanceProfileName="riva-riva", RoleName="admin")
    ran = cloud.run("riva-020-network.sh")
    assert (ran.status, "gives a role that these scripts did not make" in ran.err) == (2, True), ran.err
    cloud.reset()


def test_another_region_s_guards_stay(cloud: Cloud) -> None:
    """Roles are the account's: the deployment of this name elsewhere has one under the same name."""
    iam = cloud.client("iam")
    for part, kind in (("scheduler", "150-cost-guard"), ("sagemaker", "390-sagemaker-destroy")):
        role, tags = f"riva-riva-{part}", _tags("riva", **{"riva:region": REGION})
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=EMPTY_POLICY, Tags=tags)
        ran = cloud.run(f"riva-{kind}.sh", "--region", "us-west-2", *(["--off"] if part == "scheduler" else ["--yes"]))
        told = part == "sagemaker"  # where it is instead
        assert (ran.status, f"it is in {REGION}" in ran.err) == ((2, True) if told else (0, False)), ran.err
        assert iam.get_role(RoleName=role)["Role"]["RoleName"] == role
    cloud.reset()


def test_the_ngc_key_stays_while_the_other_of_ec2_and_sagemaker_needs_it(cloud: Cloud) -> None:
    secrets = cloud.client("secretsmanager")

    def kept() -> list[str]:
        return [each["Name"] for each in secrets.list_secrets()["SecretList"]]

    surroundings(cloud)
    assert cloud.run("riva-310-sagemaker-role.sh", "--yes", input=KEY).status == 0
    gone = cloud.run("riva-190-destroy.sh", "--yes")
    assert (gone.status, kept()) == (0, ["riva-riva/ngc"]), gone.err
    surroundings(cloud)  # no machine yet, which comes with the next step
    gone = cloud.run("riva-390-sagemaker-destroy.sh", "--yes")
    assert (gone.status, kept()) == (0, ["riva-riva/ngc"]), gone.err
    assert cloud.run("riva-190-destroy.sh", "--yes").status == 0
    assert kept() == []
    assert cloud.leftovers("riva") == []


def test_a_tag_chooses_neither_files_nor_programs(cloud: Cloud) -> None:
    """Whoever may tag the machine need not be allowed to run commands on it, or to read the operator's files."""
    surroundings(cloud)
    machine = launched(cloud)
    tags = {"riva:profile": "@../../../../../../etc/passwd", "riva:gateway-release": "../../../../tmp/theirs"}
    named = [{"Key": key, "Value": value} for key, value in tags.items()]
    cloud.client("ec2").create_tags(Resources=[machine], Tags=named)
    cloud.run("riva-050-deploy-nim.sh")
    cloud.faults.set(pip_fails=True)  # the release that the tag does not name would be installed now
    assert cloud.run("riva-060-readiness.sh").status == 3
    sent = json.dumps([call.parameters for call in cloud.calls if call.name == "ssm:SendCommand"])
    assert ROOT_LINE not in sent
    assert "tmp/theirs" not in sent
    cloud.faults.clear()
    cloud.reset()


_DOCKER = """#!/bin/bash
# Keeps a login as docker does, and tells of keys that it is shown.
if env | grep -q nvapi-; then echo 'a key in the environment' >>"$DOCKER_LOG"; fi
if [ "$1" = login ]; then cat >"$DOCKER_CONFIG/kept"; fi
if [ "$1" = build ]; then jq -c . "$DOCKER_CONFIG/config.json" >>"$DOCKER_LOG"; exit 1; fi
"""


@pytest.fixture
def operator(cloud: Cloud, tmp_path: Path) -> Operator:
    cloud.reset()
    return Operator(cloud, tmp_path)


def test_a_login_goes_with_the_script_and_a_trace_shows_no_key(operator: Operator, tmp_path: Path) -> None:
    theirs = tmp_path / "docker"
    theirs.mkdir()
    settings: dict[str, Any] = {"credsStore": "keychain", "currentContext": "default", "auths": {"example.com": {}}}
    (theirs / "config.json").write_text(json.dumps(settings))
    docker = tmp_path / "bin/docker"
    docker.write_text(_DOCKER)
    env = {"DOCKER_CONFIG": str(theirs), "NGC_API_KEY": SAGEMAKER_KEY, "SHELLOPTS": "xtrace"}
    ran = operator.run("image", "--yes", **env)
    assert (ran.status, "could not be built" in ran.err) == (1, True), ran.err
    assert [each.name for each in theirs.iterdir()] == ["config.json"]
    assert json.loads((theirs / "config.json").read_text()) == settings
    (told,) = operator.docker
    assert json.loads(told) == {"currentContext": "default", "auths": {"example.com": {}}}
    assert SAGEMAKER_KEY not in ran.out
    assert SAGEMAKER_KEY not in ran.err[ran.err.rindex("set +x") :]


def test_repositories_and_endpoints_of_other_people_are_left_alone(operator: Operator) -> None:
    ecr, sagemaker = (operator.cloud.client(name) for name in ("ecr", "sagemaker"))
    ecr.create_repository(repositoryName=f"riva-{NAME}")
    for what in ("image", "destroy"):
        ran = operator.run(what, "--yes")
        assert (ran.status, "that these scripts did not make" in ran.err) == (2, True), ran.err
    assert ecr.describe_repositories(repositoryNames=[f"riva-{NAME}"])["repositories"]
    ecr.delete_repository(repositoryName=f"riva-{NAME}")
    arn = "arn:aws:iam::123456789012:role/theirs-in-use"
    sagemaker.create_model(ModelName="theirs", ExecutionRoleArn=arn, PrimaryContainer={"Image": "theirs"})
    variant = {"VariantName": "primary", "ModelName": "theirs", "InstanceType": "ml.g6.2xlarge"}
    sagemaker.create_endpoint_config(
        EndpointConfigName="theirs", ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
    )
    sagemaker.create_endpoint(EndpointName=f"riva-{NAME}", EndpointConfigName="theirs")
    for what, words in (("deploy", ["--image", "x@sha256:1"]), ("destroy", [])):
        ran = operator.run(what, "--yes", *words)
        assert (ran.status, "an endpoint riva-speech that these" in ran.err) == (2, True), ran.err
    assert operator.endpoint()["EndpointConfigName"] == "theirs"
