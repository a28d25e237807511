"""Systems Manager as the scripts use it: the parameter that names the AMI, the agent, and commands that really run."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import moto.ssm.models as models
import moto.ssm.responses as responses
from moto.core.responses import ActionResult
from moto.ssm.exceptions import SSMException

from cloud.amis import AMI
from cloud.faults import FAULTS
from cloud.machines import Machines
from cloud.patches_ec2 import all_instances

PUBLIC = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
MOST_OUTPUT, MOST_ERRORS = 24_000, 8_000  # characters that Systems Manager keeps
ANSWER_S = 5.0
# Status and details of a command that did not run: Amazon's statuses are few, its details tell more.
ENDINGS = {
    "TimedOut": ("TimedOut", "ExecutionTimedOut"),
    "Undeliverable": ("Failed", "Undeliverable"),
    "Cancelled": ("Cancelled", "Cancelled"),
}


def patch_ssm(machines: Machines) -> None:
    _public_ami()
    _agents(machines)
    _commands(machines)


def _public_ami() -> None:
    """moto lacks Amazon's parameters for GPU images, and refuses to have them put there."""
    original = models.ParameterDict._check_loading_status

    def check(self: Any, key: str) -> None:
        original(self, key)
        if key == PUBLIC and not dict.__contains__(self, key):
            parameter = models.Parameter(
                account_id=self.account_id,
                name=key,
                value=AMI,
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=models.utcnow(),
                version=1,
                data_type="text",
            )
            dict.setdefault(self, key, []).append(parameter)

    models.ParameterDict._check_loading_status = check


def _online(machines: Machines, instance_id: str) -> bool:
    return not FAULTS.get("agent_never") and instance_id in machines and machines[instance_id].up.is_set()


def _agents(machines: Machines) -> None:
    """moto does not know describe-instance-information."""

    def describe_instance_information(self: Any) -> ActionResult:
        wanted = {value for part in self._get_param("Filters", []) for value in part["Values"]}
        found = []
        for instance in all_instances():
            if (wanted and instance.id not in wanted) or instance.id not in machines:
                continue
            if FAULTS.counts("agent_late"):
                continue
            if _online(machines, instance.id):
                found.append(
                    {
                        "InstanceId": instance.id,
                        "PingStatus": "Online",
                        "PlatformType": "Linux",
                        "AgentVersion": "3.3.1142.0",
                        "ResourceType": "EC2Instance",
                        "IPAddress": instance.private_ip,
                        "ComputerName": instance.private_dns_name,
                    }
                )
            elif not FAULTS.get("agent_never") and machines[instance.id].was_up:
                found.append({"InstanceId": instance.id, "PingStatus": "ConnectionLost", "PlatformType": "Linux"})
        return ActionResult({"InstanceInformationList": found})

    responses.SimpleSystemManagerResponse.describe_instance_information = describe_instance_information


def _commands(machines: Machines) -> None:
    """moto's commands succeed without having run. Here they run on the machine, and take their time."""
    original = models.SimpleSystemManagerBackend.send_command

    def send_command(self: Any, **options: Any) -> Any:
        for instance_id in options["instance_ids"]:
            if not _online(machines, instance_id):
                raise SSMException("InvalidInstanceId", f"Instances [[{instance_id}]] not in a valid state for account")
        return original(self, **options)

    def invocation_response(
        self: Any, instance_id: str, plugin_name: str, answer: Any = models.Command.invocation_response
    ) -> dict[str, Any]:
        invocation: dict[str, Any] = answer(self, instance_id, plugin_name)
        invocation.update(Status="InProgress", StatusDetails="InProgress", ResponseCode=-1)
        self.asked, self.ended = False, threading.Event()
        threading.Thread(target=_run, args=(machines, self, invocation), daemon=True).start()
        return invocation

    def get_command_invocation(self: Any, command_id: str, instance_id: str, plugin_name: str | None) -> dict[str, Any]:
        """The first answer comes at once. The next waits for the end, for a while: asking is what costs time here."""
        command = self.get_command_by_id(command_id)
        if command.asked:
            command.ended.wait(ANSWER_S)
        command.asked = True
        return dict(command.get_invocation(instance_id, plugin_name))

    models.SimpleSystemManagerBackend.send_command = send_command
    models.SimpleSystemManagerBackend.get_command_invocation = get_command_invocation
    models.Command.invocation_response = invocation_response


def _run(machines: Machines, command: Any, invocation: dict[str, Any]) -> None:
    try:
        _ran(machines, command, invocation)
    finally:
        command.ended.set()


def _ran(machines: Machines, command: Any, invocation: dict[str, Any]) -> None:
    if ended := _fault(command.comment or ""):
        status, details = ENDINGS[ended]
        invocation.update(Status=status, StatusDetails=details, ResponseCode=-1)
        command.status = status
        return
    began = datetime.datetime.now(datetime.UTC)
    limit_s = float((command.parameters.get("executionTimeout") or ["3600"])[0])
    script = "\n".join(command.parameters["commands"]) + "\n"
    ran = machines[invocation["InstanceId"]].execute(script, command.command_id, limit_s)
    status = "TimedOut" if ran.timed_out else "Failed" if ran.status else "Success"
    invocation.update(
        ResponseCode=ran.status,
        StandardOutputContent=ran.out[:MOST_OUTPUT],
        StandardErrorContent=ran.err[:MOST_ERRORS],
        ExecutionElapsedTime=f"PT{(datetime.datetime.now(datetime.UTC) - began).total_seconds():.3f}S",
        StatusDetails="ExecutionTimedOut" if ran.timed_out else status,
        Status=status,
    )
    command.status = status


def _fault(comment: str) -> str | None:
    wanted = FAULTS.get("send_command")
    if isinstance(wanted, dict):
        return next((ending for word, ending in wanted.items() if word in comment), None)
    return wanted
