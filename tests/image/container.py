"""Containers of the images: locked down as a cluster would, on this machine's loopback, gone at the end."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from image.workshop import Workshop

PATIENCE_S = 30.0
LOCKED_DOWN = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "400m", "--pids-limit", "100"),
)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@dataclass
class Container:
    """A running one."""

    shop: Workshop
    name: str
    port: int
    tls: bool

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts."""
        return int(self._podman("inspect", "--format", "{{.State.Pid}}", self.name))

    @property
    def log(self) -> str:
        done = self.shop.tried("podman", "logs", self.name)
        return done.stdout + done.stderr

    @property
    def context(self) -> ssl.SSLContext | None:
        """For clients: whoever is there is taken for the right one."""
        if not self.tls:
            return None
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 where nobody answers."""
        url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5, context=self.context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until(self, path: str, status: int = 200) -> str:
        """The body, once `path` is answered with `status`."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.get(path))[0] != status:
            assert time.monotonic() < deadline, f"{path}: {found}\n{self.log}"
            time.sleep(0.05)
        return found[1]

    def check(self) -> int:
        """Run the health check: 0 healthy, 1 not."""
        return self.shop.tried("podman", "healthcheck", "run", self.name).returncode

    @property
    def health(self) -> dict[str, Any]:
        """What podman has come to know by that."""
        return dict(json.loads(self._podman("inspect", "--format", "{{json .State.Health}}", self.name)))

    def run(self, *command: str) -> str:
        """What a command inside says."""
        return self._podman("exec", self.name, *command)

    def terminate(self) -> None:
        """What `docker stop` begins with."""
        self._podman("kill", "--signal", "TERM", self.name)

    def ended(self, within_s: float = PATIENCE_S) -> int:
        """The exit status."""
        return int(self.shop.run("podman", "wait", self.name, timeout_s=within_s))

    def _podman(self, *words: str) -> str:
        return self.shop.run("podman", *words).strip()


@dataclass
class Containers:
    """Starts them; all are gone on the way out."""

    shop: Workshop
    images: Mapping[str, str]
    _made: list[str] = field(default_factory=list)

    def __enter__(self) -> Containers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._made:
            self.shop.tried("podman", "rm", "--force", "--volumes", "--time", "0", *self._made)

    def start(
        self, target: str = "gateway", *words: str, options: tuple[str, ...] = LOCKED_DOWN, **env: str
    ) -> Container:
        """Started in the background with these settings; `words` stand behind the image's name."""
        port = free_port()
        bound = "SAGEMAKER_BIND_TO_PORT" if "SAGEMAKER_BIND_TO_PORT" in env else "PORT"
        settings = {"GRPC_PORT": "off", "LISTEN_HOST": "127.0.0.1", **env, bound: str(port)}
        given = [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
        name = self.shop.run(
            "podman", "run", "--detach", "--network", "host", *options, *given, self.images[target], *words
        ).strip()
        self._made.append(name)
        return Container(self.shop, name, port, settings.get("TLS") != "off" and bound == "PORT")

    def to_the_end(
        self, target: str = "gateway", *words: str, options: tuple[str, ...] = LOCKED_DOWN, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run in the foreground, and removed."""
        given = [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
        return self.shop.tried(
            "podman", "run", "--rm", "--network", "host", *options, *given, self.images[target], *words
        )


def fixture(name: str) -> Path:
    """A recording of the test tree."""
    return Path(__file__).parents[1] / "fixtures" / name
