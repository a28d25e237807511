"""What the tests of the far side share: a machine made without the scripts before, which are tested elsewhere."""

from __future__ import annotations

import time

from botocore.exceptions import ClientError

from cloud.amis import AMI
from cloud.client import Cloud, Far
from deploy.ec2_steps import KEY

NAME = "riva-riva"
BUCKET = "riva-riva-123456789012-us-east-2"
WORDS = "Good morning, you are listening to a scripted recognizer."
ONLINE_S = 30.0


def machine(cloud: Cloud, kind: str = "g6.xlarge") -> Far:
    """A machine of the deployment `riva` that takes commands, with its role, its bucket and NVIDIA's key."""
    iam, tags = (
        cloud.client("iam"),
        [
            {"Key": "riva:deployment", "Value": "riva"},
            {"Key": "riva:by", "Value": "riva-gateway"},
        ],
    )
    iam.create_role(RoleName=NAME, AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName=NAME)
    iam.add_role_to_instance_profile(InstanceProfileName=NAME, RoleName=NAME)
    cloud.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "us-east-2"})
    cloud.client("secretsmanager").create_secret(Name="riva-riva/ngc", SecretString=KEY, Tags=tags)
    made = cloud.client("ec2").run_instances(
        ImageId=AMI,
        InstanceType=kind,
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": NAME},
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    far = cloud.far(made["Instances"][0]["InstanceId"])
    await_online(cloud, far)
    return far


def await_online(cloud: Cloud, far: Far) -> None:
    """Until it takes commands."""
    until = time.monotonic() + ONLINE_S
    filters = [{"Key": "InstanceIds", "Values": [far.id]}]
    while time.monotonic() < until:
        found = cloud.client("ssm").describe_instance_information(Filters=filters)["InstanceInformationList"]
        if [each["PingStatus"] for each in found] == ["Online"]:
            return
        time.sleep(0.05)
    raise AssertionError("the machine takes no commands")


def tags(cloud: Cloud, far: Far) -> dict[str, str]:
    """The tags of the machine."""
    found = cloud.client("ec2").describe_tags(Filters=[{"Name": "resource-id", "Values": [far.id]}])["Tags"]
    return {tag["Key"]: tag["Value"] for tag in found}


def containers(far: Far) -> list[list[str]]:
    """The command lines of all recognizers that were started there, in order."""
    return [words for words in far.argv if words[:2] == ["docker", "run"] and "riva-nim" in words]


def heard(cloud: Cloud, far: Far) -> str:
    """The words that a client with the key gets over HTTP; it waits for a gateway that is about to be ready."""
    line = (
        "for i in {1..200}; do curl -skf -o /dev/null https://localhost:8443/readyz && break; sleep 0.1; done;"
        " curl -sk -m 20 -K - -F file=@/opt/riva-gateway/current/tests/fixtures/greeting.wav -F response_format=text"
        " https://localhost:8443/v1/audio/transcriptions"
    )
    key = value(cloud, "riva-riva/gateway-key")
    return " ".join(far.run(line, input=f'header = "Authorization: Bearer {key}"').out.split())


def value(cloud: Cloud, secret: str) -> str:
    """What a secret holds; nothing where it is not there, or empty."""
    try:
        text: str = cloud.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]
    except ClientError:
        return ""
    return text
