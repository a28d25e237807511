"""What a far machine may do: its role's policies decide, as they do on AWS.

A role without any policy may do everything: tests of the far side alone make one like that. Who the operator is, and
what she may, is not AWS's business here; see the fault `denied`.
"""

from __future__ import annotations

import re
from typing import Any

from moto.iam.access_control import IAMPolicy, IAMPolicyStatement, PermissionResult
from moto.secretsmanager.models import secretsmanager_backends

from cloud.imds import key_of, role_of
from cloud.patches_ec2 import all_instances

ACCOUNT = "123456789012"
# Calls whose permission has another name.
ACTIONS = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
}


def patch_iam() -> None:
    """moto takes a policy's `?` and `.` for those of a regular expression."""

    def match(pattern: str, text: str) -> re.Match[str] | None:
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text)

    IAMPolicyStatement._match = staticmethod(match)
    decide = IAMPolicyStatement.is_action_permitted

    def is_action_permitted(self: Any, action: str, resource: str = "*", *more: Any, **named: Any) -> PermissionResult:
        """moto knows no NotResource."""
        statement = self._statement
        if "NotResource" not in statement:
            return decide(self, action, resource, *more, **named)
        if self._check_element_matches("NotResource", resource):
            return PermissionResult.NEUTRAL
        everywhere = {key: value for key, value in statement.items() if key != "NotResource"} | {"Resource": "*"}
        return decide(IAMPolicyStatement(everywhere), action, resource, *more, **named)

    IAMPolicyStatement.is_action_permitted = is_action_permitted


def may(call: dict[str, Any]) -> bool:
    """Whether the far machine that made the call may make it; others may all."""
    machine = next((each for each in all_instances() if key_of(each) == call["key"]), None)
    role = role_of(machine) if machine is not None else None
    if role is None or call["service"] == "sts":
        return True
    policies = [IAMPolicy(text) for text in role.policies.values()]
    policies += [IAMPolicy(policy) for policy in role.managed_policies.values()]
    if not policies:
        return True
    name = f"{call['service']}:{call['operation']}"
    answers = [policy.is_action_permitted(ACTIONS.get(name, name), resource_of(call)) for policy in policies]
    return PermissionResult.DENIED not in answers and PermissionResult.PERMITTED in answers


def resource_of(call: dict[str, Any]) -> str:
    """The ARN that the call is about, "*" where it is about none."""
    service, asked, region = call["service"], call["parameters"], call["region"]
    if service == "secretsmanager" and (wanted := asked.get("SecretId")):
        for secret in secretsmanager_backends[ACCOUNT][region].secrets.values():
            if wanted in (secret.name, secret.arn):
                return str(secret.arn)
        return f"arn:aws:secretsmanager:{region}:{ACCOUNT}:secret:{wanted}"
    if service == "ssm" and (wanted := asked.get("Name")):
        return f"arn:aws:ssm:{region}:{ACCOUNT}:parameter/{wanted.lstrip('/')}"
    if service == "s3" and (bucket := asked.get("Bucket")):
        return f"arn:aws:s3:::{bucket}" + (f"/{asked['Key']}" if asked.get("Key") else "")
    return "*"
