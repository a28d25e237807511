"""What goes wrong on request. Set by a test through `cloud.faults.set(…)`, asked by the patches and the stand-ins.

    no_capacity={"us-east-2a": 99}   RunInstances in that zone is refused so many times; "*" is every zone
    start_no_capacity=1              StartInstances is refused so many times
    profile_late=2                   RunInstances says so many times that the instance profile is not valid yet; the
                                     last time, that it has no role yet
    agent_late=3                     Systems Manager has not heard of the instance so many times
    agent_never=True                 … and never does
    send_command="TimedOut"          every command ends so, without having run: TimedOut, Undeliverable, Cancelled
    send_command={"readiness": …}    … only a command whose comment has that word
    throttled={"ec2:DescribeInstances": 2}   so many calls are answered by RequestLimitExceeded
    aborted={"s3:CreateBucket": 2}   … by OperationAborted: S3 is still at work on a bucket of that name
    denied=["iam:CreateRole"]        the operator may not do that
    quota=0.0                        vCPUs of each kind of instance with a GPU; None: the service does not answer;
                                     "default": none was ever set for the account, AWS's own is 0
    spot="kept"                      the machines are spot capacity, says their metadata service; "taken": and AWS takes
                                     them back in two minutes
    quickly_gone=True                a launched instance is terminated by EC2 at once (state reason in its description)
    pull_fails="1.5.0"               the registry has trouble with images whose name has that text
    login_fails=True                 the registry refuses the key
    nim_ready_after_s=1.0            the NIM's port answers "not ready" for so long
    nim_never_ready=True, nim_profile_missing=True (it ends with an error), nim_dies_after_s=2.0
    nim_rmir=True                    NVIDIA has built no model for this GPU; "empty": and building it writes nothing
    disk_full=True                   nothing more fits on the far machines' disks
    no_gpu=True                      nvidia-smi fails
    pip_fails=True                   the package index does not answer
    endpoint_fails=True              a SageMaker endpoint does not come up; an update is rolled back by SageMaker
    endpoint_slow=3                  it is Creating or Updating so many times
    endpoint_deaf=True               it answers, and with an error
    endpoint_asleep=True             what it reads from S3 it does not answer: it has no instance yet
    endpoint_busy=1                  it is taken for in progress so many times: its load began a change a moment ago

A number counts down with each time it was the reason; what is not listed here is refused.
"""

from __future__ import annotations

import threading
from typing import Any

KNOWN = frozenset(
    [
        "no_capacity",
        "start_no_capacity",
        "profile_late",
        "agent_late",
        "agent_never",
        "send_command",
        "throttled",
        "aborted",
        "spot",
        "denied",
        "quota",
        "quickly_gone",
        "pull_fails",
        "login_fails",
        "nim_ready_after_s",
        "nim_never_ready",
        "nim_profile_missing",
        "nim_dies_after_s",
        "nim_rmir",
        "disk_full",
        "no_gpu",
        "pip_fails",
        "endpoint_fails",
        "endpoint_slow",
        "endpoint_deaf",
        "endpoint_asleep",
        "endpoint_busy",
    ]
)


class Faults:
    def __init__(self) -> None:
        self._set: dict[str, Any] = {}
        self._lock = threading.Lock()

    def set(self, more: dict[str, Any]) -> None:
        if unknown := set(more) - KNOWN:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}. There are: {', '.join(sorted(KNOWN))}")
        self._set.update(more)

    def clear(self) -> None:
        self._set.clear()

    def get(self, name: str, default: Any = None) -> Any:
        return self._set.get(name, default)

    def all(self) -> dict[str, Any]:
        return dict(self._set)

    def counts(self, name: str, *keys: str) -> bool:
        """Whether it goes wrong this time; with `keys`, the first of them that has a number left counts down."""
        with self._lock:
            left = self._set.get(name, 0)
            if not isinstance(left, dict):
                self._set[name] = left - 1 if left is not True else left
                return bool(left and left > 0)
            for key in keys:
                if left.get(key, 0) > 0:
                    left[key] -= 1
                    return True
        return False


FAULTS = Faults()
