"""A container of the docker stand-in: a process with a name."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from far.docker_call import Call, Refused


@dataclass
class Container:
    name: str
    image: str
    command: list[str]
    flags: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> Path:
        return Path(f"/run/docker/{self.name}.log")

    def record(self) -> dict[str, Any]:
        """As `docker inspect` shows it."""
        status = self.process.poll() if self.process else 0
        return {
            "Id": "5f0c" + self.name,
            "Name": "/" + self.name,
            "State": {
                "Running": self.running,
                "Status": "running" if self.running else "exited",
                "ExitCode": code(status or 0),
            },
            "Config": {"Image": self.image, "Cmd": self.command, "Env": [f"{k}={v}" for k, v in self.env.items()]},
            "HostConfig": {
                "RestartPolicy": {"Name": self.flags.get("restart", "no")},
                "Binds": self.flags.get("volumes", []),
            },
            "RestartCount": 0,
        }


def code(status: int) -> int:
    """As a shell says it: 128 and more for a signal."""
    return status if status >= 0 else 128 - status


def environment(call: Call, flags: dict[str, Any]) -> dict[str, str]:
    """What --env-file and --env say."""
    found: dict[str, str] = {}
    for place in flags.get("env_files", []):
        try:
            lines = Path(call.folder, place).read_text().splitlines()
        except OSError as error:
            raise Refused(f"docker: open {place}: {str(error.strerror).lower()}.", 125) from None
        found.update(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))  # type: ignore[misc]
    found.update(pair.split("=", 1) for pair in flags.get("env", []) if "=" in pair)
    return found


def end(container: Container, limit_s: float) -> None:
    """Ends its process: politely, and after `limit_s` seconds not."""
    process = container.process
    if process is None:
        return
    process.terminate()
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
