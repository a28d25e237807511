"""The test cloud as tests use it: `Cloud`, which is the fixture `cloud` of tests/deploy.

Patched moto, far machines that really run what Systems Manager tells them to, and an operator's shell, in namespaces of
their own: ports and addresses are real and clash with nothing. See `cloud.faults` for what can be made to go wrong.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from cloud.calls import QUESTIONS
from cloud.leftovers import leftovers

TREE = Path(__file__).resolve().parents[2]
REGION = "us-east-2"
START_S = 60.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("unshare", "nsenter", "mount", "ip", "jq", "curl")


class Unavailable(Exception):
    """There can be no test cloud on this machine; the text says why, in a line."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended."""

    status: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    """One call of AWS; `far`: by a far machine, with its role."""

    service: str
    operation: str
    parameters: dict[str, Any]
    status: int
    far: bool

    @property
    def name(self) -> str:
        return f"{self.service}:{self.operation}"


class Faults:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def set(self, **faults: Any) -> None:
        """From now on; see `cloud.faults`. What was set before under other names stays."""
        self._cloud.ask("faults", more=faults)

    def clear(self) -> None:
        self._cloud.ask("faults", more={}, clear=True)


class Far:
    """A far machine."""

    def __init__(self, cloud: Cloud, instance_id: str) -> None:
        self._cloud, self.id = cloud, instance_id

    def run(self, *command: str, input: str = "", timeout_s: float = 60) -> Ran:
        """Runs a command there, as root, and waits for it; one word is a line for bash."""
        words = ["bash", "-c", command[0]] if len(command) == 1 else list(command)
        return _ran(self._cloud.ask("far_run", instance_id=self.id, command=words, typed=input, timeout_s=timeout_s))

    def text(self, path: str) -> str:
        """A file's text."""
        return base64.b64decode(self._cloud.ask("far_bytes", instance_id=self.id, path=path)).decode()

    @property
    def argv(self) -> list[list[str]]:
        """The words of all commands that stand-ins were there: docker, aws, nvidia-smi, python3, pip; in order."""
        return [json.loads(line) for line in self.text("/var/lib/stand-in/argv").splitlines()]

    def units(self) -> dict[str, str]:
        """The services that are not of the image itself, with their state: active, inactive, failed, activating."""
        line = (
            "cd /etc/systemd/system && ls -d *.service *.timer 2>/dev/null | xargs -r systemctl show -p Id,ActiveState"
        )
        parts = [part.splitlines() for part in self.run(line).out.strip().split("\n\n") if part]
        pairs = [dict(line.split("=", 1) for line in part) for part in parts]
        return {pair["Id"]: pair["ActiveState"] for pair in pairs}


class Cloud:
    """`with Cloud.started(folder) as cloud`."""

    def __init__(self, place: str, port: int, home: Path) -> None:
        self._place, self._port, self._home = place, port, home
        self.bin = home / "bin"  # comes first on the operator's PATH: tests may put programs there
        self.group = ""  # the name of its control group
        self.faults = Faults(self)

    def ask(self, do: str, **more: Any) -> Any:
        """Asks the provider: a method of `cloud.steering`."""
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(self._place)
            there.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
            answer = json.loads(b"".join(iter(lambda: there.recv(1 << 16), b"")))
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer["done"]

    def variables(self) -> dict[str, str]:
        """The operator's environment."""
        return {
            "PATH": f"{self.bin}:{Path(sys.executable).parent}:{SYSTEM_PATH}",
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
            "AWS_ACCESS_KEY_ID": "AKIAOPERATOR00000000",
            "AWS_SECRET_ACCESS_KEY": "of-the-operator",
            "AWS_DEFAULT_REGION": REGION,
            "DEPLOY_POLL_S": "0.2",
        }

    def run(
        self,
        name: str,
        *words: str,
        env: dict[str, str] | None = None,
        input: str | None = None,
        timeout_s: float = 120,
    ) -> Ran:
        """Runs scripts/`name` of this tree, or a program, as the operator. An empty value in `env` unsets."""
        program = str(TREE / "scripts" / name) if name.endswith(".sh") and "/" not in name else name
        variables = {key: value for key, value in {**self.variables(), **(env or {})}.items() if value}
        asked = {"command": [program, *words], "folder": str(TREE), "env": variables, "typed": input}
        answer = self.ask("run", timeout_s=timeout_s, **asked)
        assert not answer["late"], f"{name} took more than {timeout_s} s:\n{answer['out']}\n{answer['err']}"
        return _ran(answer)

    def client(self, service: str, region: str = REGION) -> Any:
        """A boto3 client of the same cloud."""
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self._port}",
            aws_access_key_id="AKIATHETESTS00000000",
            aws_secret_access_key="of-the-tests",
        )

    @property
    def calls(self) -> list[Call]:
        """Every call since the last reset but the tests' own."""
        return [
            Call(each["service"], each["operation"], each["parameters"], each["status"], each["key"].startswith("ASIA"))
            for each in self.ask("calls")
            if each["key"] != "AKIATHETESTS00000000"
        ]

    def changes(self) -> list[Call]:
        """Those that changed something, or tried to."""
        return [call for call in self.calls if not QUESTIONS.match(call.operation) and call.service != "sts"]

    def reset(self) -> None:
        """An empty account, no machine, no fault, no call."""
        self.ask("reset")

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """(where, what) of all places where no secret may be: see `cloud.evidence`."""
        for where, what in self.ask("everything"):
            yield where, base64.b64decode(what)

    def where_is(self, secret: str) -> list[str]:
        """The places among `everything` that hold it, as it is or in base64. It has 8 characters or more."""
        return list(self.ask("where_is", secret=secret))

    def leftovers(self, deployment: str, region: str = REGION) -> list[str]:
        """What of a deployment still exists in a region, found by its tag and by its name."""
        return leftovers(self, deployment, region)

    def far(self, instance_id: str) -> Far:
        return Far(self, instance_id)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path) -> Iterator[Cloud]:
        """Starts one below `folder`, which should be short and is left empty."""
        _may_be()
        inside, home = folder / "world", folder / "home"
        inside.mkdir()
        (home / "bin").mkdir(parents=True)
        place = str(folder / "cloud.sock")
        with socket.socket() as listener, (folder / "world.log").open("w+b") as log:
            listener.bind(("127.0.0.1", 0))
            listener.listen(64)
            fd = listener.fileno()
            command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
            process = subprocess.Popen(
                [*command, sys.executable, "-m", "cloud.world", str(inside), str(fd)],
                cwd=TREE / "tests",
                env={**os.environ, "CLOUD_SOCKET": place, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[fd],
                start_new_session=True,
            )
            cloud = cls(place, listener.getsockname()[1], home)
            try:
                cloud._await(process, folder / "world.log")
                cloud.group = cloud.ask("group")
                yield cloud
            finally:
                assert process.stdin is not None
                process.stdin.close()
                try:
                    process.wait(30)
                finally:
                    process.kill()

    def _await(self, process: subprocess.Popen[bytes], log: Path) -> None:
        until = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                if self.ask("ready"):
                    return
            time.sleep(0.05)
        raise AssertionError(f"the test cloud did not start:\n{log.read_text()[-4000:]}")


def _ran(answer: dict[str, Any]) -> Ran:
    return Ran(answer["status"], answer["out"], answer["err"], answer["seconds"])


def _may_be() -> None:
    """Raises `Unavailable` with one line where this machine cannot have a cloud."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if not Path("/lib/systemd/systemd").exists():
        missing.append("systemd")
    if missing:
        raise Unavailable(f"the test cloud needs {', '.join(missing)}: scripts/dev/system-packages.sh machines")
    command = ["unshare", "--cgroup", "--net", "--mount", "--pid", "--fork", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or tried.returncode:
        why = tried.stderr.strip() or f"this is user {os.geteuid()}"
        raise Unavailable(f"the test cloud needs root and namespaces of its own: {why}")
