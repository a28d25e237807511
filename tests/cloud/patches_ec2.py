"""Where moto's EC2 is kinder than Amazon's, or does nothing: one function each, with its reason."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import moto.ec2.models.elastic_network_interfaces as enis
import moto.ec2.models.instances as instances
import moto.ec2.models.security_groups as security_groups
import moto.ec2.responses.instances as responses
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.iam.exceptions import NotFoundException

from cloud.faults import FAULTS
from cloud.machines import Machines

_addresses = itertools.count(1)


def patch_ec2(machines: Machines) -> None:
    for patch in (
        _refuse_groups_in_use,
        _one_instance_per_client_token,
        _unknown_profiles_in_amazons_words,
        _new_public_address_at_start,
    ):
        patch()
    _machines_live_with_their_instances(machines)


def all_instances() -> Iterator[Any]:
    """Every instance of every region, whatever its state."""
    for account in list(ec2_backends.values()):
        for backend in list(account.values()):
            for reservation in list(backend.reservations.values()):
                yield from list(reservation.instances)


def _refuse_groups_in_use() -> None:
    """moto deletes a group that an instance or another group's rule still needs."""
    original = security_groups.SecurityGroupBackend.delete_security_group

    def delete_security_group(self: Any, name: str | None = None, group_id: str | None = None) -> None:
        for instance in all_instances():
            for nic in instance.nics.values():
                if instance.state != "terminated" and group_id in {group.id for group in nic.group_set}:
                    raise EC2ClientError("DependencyViolation", f"resource {group_id} has a dependent object")
        for group in [group for groups in self.groups.values() for group in groups.values()]:
            for rule in [*group.ingress_rules, *group.egress_rules]:
                if group.id != group_id and group_id == (rule.source_group or {}).get("GroupId"):
                    raise EC2ClientError("DependencyViolation", f"resource {group_id} has a dependent object")
        return original(self, name, group_id)

    security_groups.SecurityGroupBackend.delete_security_group = delete_security_group


def _one_instance_per_client_token() -> None:
    """moto launches again for a token that it has seen; Amazon answers with the instances of the first time. The
    faults of a launch are here, too, because a refused launch must not remember its token.
    """
    original = instances.InstanceBackend.run_instances

    def run_instances(self: Any, *arguments: Any, **options: Any) -> Any:
        token = options.get("client_token")
        for reservation in self.reservations.values():
            for instance in reservation.instances:
                if token and token != "ABCDE" and instance.client_token == token:
                    return reservation
        _refuse_by_fault(self, options)
        return original(self, *arguments, **options)

    instances.InstanceBackend.run_instances = run_instances


def _refuse_by_fault(backend: Any, options: dict[str, Any]) -> None:
    if options.get("iam_instance_profile_name") and FAULTS.counts("profile_late"):
        profile = options["iam_instance_profile_name"]
        raise _unknown(profile) if FAULTS.get("profile_late") else _without_role(profile)
    zone = options.get("placement")
    for nic in [*options.get("nics", []), {"SubnetId": options.get("subnet_id")}]:
        if nic.get("SubnetId"):
            zone = backend.get_subnet(nic["SubnetId"]).availability_zone
    if FAULTS.counts("no_capacity", zone or "", "*"):
        raise EC2ClientError(
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {options.get('instance_type')} capacity in the Availability Zone you"
            f" requested ({zone}). Our system will be working on provisioning additional capacity.",
        )


def _unknown_profiles_in_amazons_words() -> None:
    """moto answers a launch with an unknown profile in IAM's words."""
    original = responses.filter_iam_instance_profiles

    def find(account: str, partition: str, **named: Any) -> Any:
        try:
            return original(account, partition, **named)
        except NotFoundException:
            raise _unknown(named["iam_instance_profile_name"] or named["iam_instance_profile_arn"]) from None

    responses.filter_iam_instance_profiles = find


def _unknown(profile: str) -> EC2ClientError:
    text = f"Value ({profile}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
    return EC2ClientError("InvalidParameterValue", text)


def _without_role(profile: str) -> EC2ClientError:
    text = f'IAM Instance Profile "arn:aws:iam::123456789012:instance-profile/{profile}" has no associated IAM Roles'
    return EC2ClientError("InvalidParameterValue", text)


def _new_public_address_at_start() -> None:
    """moto's stopped instance gets a random address; Amazon's gets another one than before, and has none meanwhile."""

    def check_auto_public_ip(self: Any) -> None:
        if self.public_ip_auto_assign and not getattr(self, "public_ip", None):
            number = next(_addresses)
            self.public_ip = f"54.214.{number // 250 % 250}.{number % 250 + 1}"

    def stop(self: Any) -> None:
        if self.public_ip_auto_assign:
            self.public_ip = None

    enis.NetworkInterface.check_auto_public_ip = check_auto_public_ip
    enis.NetworkInterface.stop = stop


def _machines_live_with_their_instances(machines: Machines) -> None:
    """An instance is a machine here: it boots, runs, stops, and its disk stays until it is terminated."""
    launched = instances.InstanceBackend.run_instances

    def run_instances(self: Any, *arguments: Any, **options: Any) -> Any:
        reservation = launched(self, *arguments, **options)
        for instance in reservation.instances:
            if FAULTS.get("quickly_gone"):
                instance.terminate()
                instance.state_reason = instances.StateReason(
                    "Server.InternalError", "Server.InternalError: Internal error on launch"
                )
            elif instance.state == "running" and instance.id not in machines:
                machines.boot(instance)
        return reservation

    def start(self: Any, original: Any = instances.Instance.start) -> Any:
        if self.state == "running":
            return original(self)
        if FAULTS.counts("start_no_capacity"):
            raise EC2ClientError("InsufficientInstanceCapacity", "Insufficient capacity. (The instance stays stopped.)")
        previous = original(self)
        machines.boot(self)
        return previous

    def stop(self: Any, original: Any = instances.Instance.stop) -> Any:
        machines.halt(self.id)
        return original(self)

    def terminate(self: Any, original: Any = instances.Instance.terminate) -> Any:
        machines.remove(self.id)
        with contextlib.suppress(KeyError):  # terminated twice
            return original(self)

    instances.InstanceBackend.run_instances = run_instances
    instances.Instance.start = start
    instances.Instance.stop = stop
    instances.Instance.terminate = terminate
