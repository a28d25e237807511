"""What of a deployment still exists: asked service by service, by tag and by name, so that neither hides the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloud.client import Cloud

# service, operation, the list in its answer, the name in an item
BY_NAME = (
    ("iam", "list_roles", "Roles", "RoleName"),
    ("iam", "list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
    ("iam", "list_policies", "Policies", "PolicyName"),
    ("iam", "list_users", "Users", "UserName"),
    ("secretsmanager", "list_secrets", "SecretList", "Name"),
    ("ssm", "describe_parameters", "Parameters", "Name"),
    ("s3", "list_buckets", "Buckets", "Name"),
    ("scheduler", "list_schedules", "Schedules", "Name"),
    ("scheduler", "list_schedule_groups", "ScheduleGroups", "Name"),
    ("logs", "describe_log_groups", "logGroups", "logGroupName"),
    ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    ("ecr", "describe_repositories", "repositories", "repositoryName"),
    ("sagemaker", "list_models", "Models", "ModelName"),
    ("sagemaker", "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
    ("sagemaker", "list_endpoints", "Endpoints", "EndpointName"),
    ("sns", "list_topics", "Topics", "TopicArn"),
    ("ec2", "describe_key_pairs", "KeyPairs", "KeyName"),
    ("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateName"),
)


def leftovers(cloud: Cloud, deployment: str, region: str) -> list[str]:
    """Lines "service thing"; a name of the deployment is riva-NAME, with more after a - or a /."""
    tag = {"Name": "tag:riva:deployment", "Values": [deployment]}
    found = set(_ec2(cloud.client("ec2", region), tag, _of(deployment)))
    for service, operation, items, name in BY_NAME:
        answer = getattr(cloud.client(service, region), operation)(
            **({"Scope": "Local"} if operation == "list_policies" else {})
        )
        found |= {f"{service} {item[name]}" for item in answer[items] if _of(deployment)(item[name])}
    tagged = cloud.client("resourcegroupstaggingapi", region).get_resources(
        TagFilters=[{"Key": "riva:deployment", "Values": [deployment]}]
    )
    found |= {f"tagged {resource['ResourceARN']}" for resource in tagged["ResourceTagMappingList"]}
    return sorted(found)


def _of(deployment: str) -> Callable[[str], bool]:
    def is_its(name: str) -> bool:
        last = name.rsplit(":", 1)[-1].lstrip("/").replace("riva/", "riva-", 1)
        last = last.removeprefix("aws/sagemaker/Endpoints/")
        return last == f"riva-{deployment}" or last.startswith((f"riva-{deployment}-", f"riva-{deployment}/"))

    return is_its


def _ec2(ec2: Any, tag: dict[str, Any], is_its: Callable[[str], bool]) -> Iterator[str]:
    for reservation in ec2.describe_instances(Filters=[tag])["Reservations"]:
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] != "terminated":
                yield f"ec2 {instance['InstanceId']} {instance['State']['Name']}"
    for group in ec2.describe_security_groups()["SecurityGroups"]:
        if is_its(group["GroupName"]) or {"Key": "riva:deployment", "Value": tag["Values"][0]} in group.get("Tags", []):
            yield f"ec2 {group['GroupName']}"
    for operation, items, key in (
        ("describe_volumes", "Volumes", "VolumeId"),
        ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
        ("describe_addresses", "Addresses", "PublicIp"),
        ("describe_snapshots", "Snapshots", "SnapshotId"),
    ):
        for item in getattr(ec2, operation)(Filters=[tag])[items]:
            yield f"ec2 {item[key]}"
    return
