"""Small things of other services that moto lacks or does otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import moto.resourcegroupstaggingapi.models as tagging
import moto.s3.models as s3
import moto.servicequotas.models as quotas
import moto.servicequotas.responses as quota_answers
from moto.iam.access_control import IAMPolicy, PermissionResult

from cloud.faults import FAULTS
from cloud.patches_ec2 import all_instances

QUOTAS = {
    "L-DB2E81BA": "Running On-Demand G and VT instances",
    "L-3819A6DF": "All G and VT Spot Instance Requests",
    "L-417A185B": "Running On-Demand P instances",
    "L-7212CCBC": "All P4, P3 and P2 Spot Instance Requests",
    "L-C4BD4855": "All P5 Spot Instance Requests",
}
DEFAULT_QUOTA = 64.0  # vCPUs


def patch_others() -> None:
    _gone_is_gone()
    _quotas_of_ec2()
    _policies_of_buckets()


def _gone_is_gone() -> None:
    """moto's tagging service goes on listing instances that have been terminated, with their tags."""
    original = tagging.ResourceGroupsTaggingAPIBackend._get_resources_generator

    def resources(self: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        ended = {instance.id for instance in all_instances() if instance.state == "terminated"}
        for resource in original(self, *arguments, **options):
            if resource.arn.rsplit("/", 1)[-1] not in ended:
                yield resource

    tagging.ResourceGroupsTaggingAPIBackend._get_resources_generator = resources


def _quotas_of_ec2() -> None:
    """moto knows the quotas of VPC alone. FAULTS' `quota` sets the value; see there for what is none."""
    original = quotas.ServiceQuotasBackend.get_service_quota

    def get_service_quota(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
        value = FAULTS.get("quota", DEFAULT_QUOTA)
        if service_code != "ec2" or quota_code not in QUOTAS or value in {None, "default"}:
            return original(self, service_code, quota_code)
        return quota(quota_code, value)

    def get_aws_default_service_quota(self: Any) -> str:
        if FAULTS.get("quota", DEFAULT_QUOTA) is None:
            raise quotas.NoSuchResource
        return json.dumps({"Quota": quota(json.loads(self.body)["QuotaCode"], 0.0)})

    def quota(quota_code: str, value: float) -> dict[str, Any]:
        return {
            "ServiceCode": "ec2",
            "QuotaCode": quota_code,
            "QuotaName": QUOTAS[quota_code],
            "Value": value,
            "Unit": "None",
            "Adjustable": True,
        }

    quotas.ServiceQuotasBackend.get_service_quota = get_service_quota
    quota_answers.ServiceQuotasResponse.get_aws_default_service_quota = get_aws_default_service_quota


def _policies_of_buckets() -> None:
    """moto reads no conditions: a refusal of what comes without TLS would refuse everything. Here all counts as TLS."""

    def get_permission(self: Any, action: str, resource: str) -> Any:
        if self.policy is None:
            return PermissionResult.NEUTRAL
        policy = json.loads(self.policy)
        policy["Statement"] = [one for one in policy["Statement"] if "SecureTransport" not in json.dumps(one)]
        if not policy["Statement"]:
            return PermissionResult.NEUTRAL
        return IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource)

    s3.FakeBucket.get_permission = get_permission
