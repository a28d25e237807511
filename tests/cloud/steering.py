"""What tests ask of the provider, one method `do_…` each. Arguments and answers are JSON."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moto.moto_api._internal.models import moto_api_backend

from cloud.calls import Calls
from cloud.evidence import Watch, everything, forms
from cloud.faults import FAULTS
from cloud.groups import HIERARCHY
from cloud.machines import AGENT_VARIABLES, Machines
from cloud.warm_aws import SOCKET, stub


class Steering:
    calls: Calls

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.machines = Machines(folder)
        self._watch = Watch()
        self._printed: list[tuple[str, str]] = []
        self._typed = folder / "aws-typed"
        place = str(self.machines.shared / SOCKET)
        subprocess.Popen([sys.executable, "-m", "cloud.warm_aws", place, str(self._typed)])
        self._operators = folder / "operator"  # her PATH begins here
        self._operators.mkdir()
        (self._operators / "aws").write_text(stub(place))
        (self._operators / "aws").chmod(0o755)

    def do_ready(self) -> bool:
        return (self.machines.shared / SOCKET).exists()

    def do_faults(self, more: dict[str, Any], clear: bool = False) -> dict[str, Any]:
        if clear:
            FAULTS.clear()
        FAULTS.set(more)
        for machine in self.machines:
            machine.fill(bool(FAULTS.get("disk_full")))
        return FAULTS.all()

    def do_calls(self) -> list[dict[str, Any]]:
        return list(self.calls.all)

    def do_reset(self) -> None:
        self.machines.clear()
        FAULTS.clear()
        moto_api_backend.reset()
        self.calls.all.clear()
        self._printed.clear()
        self._watch.seen.clear()
        self._typed.write_bytes(b"")

    def do_run(
        self, command: list[str], folder: str, env: dict[str, str], typed: str | None, timeout_s: float
    ) -> dict[str, Any]:
        """Runs a command on the operator's side: a session of its own, killed whole when it takes too long."""
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**env, "PATH": env["PATH"].replace(":", f":{self._operators}:", 1)},
            stdin=subprocess.DEVNULL if typed is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        late = False
        try:
            out, err = process.communicate(None if typed is None else typed.encode(), timeout_s)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate(timeout=5)
        self._printed.append((command[0], out.decode(errors="replace") + err.decode(errors="replace")))
        return {
            "status": process.returncode,
            "out": out.decode(errors="replace"),
            "err": err.decode(errors="replace"),
            "seconds": time.monotonic() - began,
            "late": late,
        }

    def do_far_run(self, instance_id: str, command: list[str], typed: str, timeout_s: float) -> dict[str, Any]:
        machine = self.machines[instance_id]
        if not machine.up.wait(60):
            raise RuntimeError(f"{instance_id} is not up: {machine.folder.joinpath('console').read_text()}")
        ran = machine.command(command, timeout_s, {**AGENT_VARIABLES, "HOME": "/root"}, typed.encode())
        return {"status": ran.status, "out": ran.out, "err": ran.err, "seconds": 0.0, "late": ran.timed_out}

    def do_far_bytes(self, instance_id: str, path: str) -> str:
        ran = subprocess.run(self.machines[instance_id].enter("cat", path), capture_output=True, check=True)
        return base64.b64encode(ran.stdout).decode()

    def do_machines(self) -> dict[str, int | None]:
        return {machine.instance.id: machine.first for machine in self.machines}

    def do_group(self) -> str:
        return Path(os.environ[HIERARCHY]).name

    def do_everything(self) -> list[tuple[str, str]]:
        return [(where, base64.b64encode(what).decode()) for where, what in self._everything()]

    def do_where_is(self, secret: str) -> list[str]:
        looks = forms(secret)
        return sorted({where for where, what in self._everything() if any(look in what for look in looks)})

    def _everything(self) -> Iterator[tuple[str, bytes]]:
        yield "the words of an aws command", self._typed.read_bytes()
        yield from everything(self.machines, self._watch, self.calls.all, self._printed)
