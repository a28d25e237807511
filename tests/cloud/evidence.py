"""Every place where a secret could have ended up though it must not: gathered for tests that search for one.

In: the command lines of all processes of both sides, what the operator's commands printed, what AWS was told (but for
the one service that keeps secrets), user-data, Systems Manager's commands with their output and its plain parameters,
the far machines' disks and journals. Not in: Secrets Manager itself, and the far machines' memory (/run), where
credentials belong.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moto.ssm.models import ssm_backends

from cloud.imds import user_data
from cloud.machines import Machine, Machines
from cloud.patches_ec2 import all_instances

LOOK_EVERY_S = 0.05
MOST_FILE_BYTES = 4_000_000
UNINTERESTING = ("site-packages", "journal", "__pycache__")
SECRET_CALLS = frozenset({"CreateSecret", "PutSecretValue", "UpdateSecret"})


class Watch:
    """Sees the command lines of all processes in the cloud, again and again; one that is over quickly may escape it,
    which is why the stand-ins write down theirs themselves.
    """

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            for place in Path("/proc").iterdir():
                if place.name.isdigit():
                    with contextlib.suppress(OSError):  # it has ended
                        self.seen.add((place / "cmdline").read_bytes())
            time.sleep(LOOK_EVERY_S)


def everything(
    machines: Machines, watch: Watch, calls: list[dict[str, Any]], printed: list[tuple[str, str]]
) -> Iterator[tuple[str, bytes]]:
    """(where, what)."""
    for line in list(watch.seen):
        yield "a command line", line.replace(b"\0", b" ")
    for name, text in printed:
        yield f"what {name} printed", text.encode()
    for call in list(calls):
        if call["operation"] not in SECRET_CALLS:
            yield (
                f"the call {call['service']}:{call['operation']}",
                json.dumps(call["parameters"], default=str).encode(),
            )
    for instance in all_instances():
        yield f"user-data of {instance.id}", user_data(instance).encode()
        yield f"tags of {instance.id}", json.dumps(instance.get_tags()).encode()
    yield from _systems_manager()
    for machine in machines:
        yield from _machine(machine)


def _systems_manager() -> Iterator[tuple[str, bytes]]:
    for account in list(ssm_backends.values()):
        for backend in list(account.values()):
            for command in list(backend._commands):
                name = f"the command {command.comment!r}"
                yield f"{name} in Systems Manager", json.dumps(command.parameters).encode()
                for invocation in command.invocations:
                    texts = invocation["StandardOutputContent"] + "\n" + invocation["StandardErrorContent"]
                    yield f"the output of {name}", texts.encode()
            for key, versions in list(dict.items(backend._parameters)):
                for version in versions:
                    if version.parameter_type != "SecureString":
                        yield f"the parameter {key}", str(version.value).encode()


def _machine(machine: Machine) -> Iterator[tuple[str, bytes]]:
    name, disk = machine.instance.id, machine.folder / "disk/upper"
    for place in disk.rglob("*"):
        if place.is_symlink() or not place.is_file() or place.stat().st_size > MOST_FILE_BYTES:
            continue
        if not any(part in UNINTERESTING for part in place.parts):
            yield f"{name}:/{place.relative_to(disk)}", place.read_bytes()
    journal = ["journalctl", "--directory", str(disk / "var/log/journal"), "--output", "cat", "--all", "--no-pager"]
    yield f"the journal of {name}", subprocess.run(journal, capture_output=True, check=False).stdout
    yield f"the console of {name}", (machine.folder / "console").read_bytes()


def forms(secret: str) -> list[bytes]:
    """How a secret may look: as it is, and inside of base64 at each of its three offsets."""
    raw = secret.encode()
    found = [raw]
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + raw)
        found.append(text[4 if offset else 0 : -4])  # without what its neighbours have a say in
    return [form for form in found if len(form) >= 8]
