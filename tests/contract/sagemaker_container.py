"""The gateway's container as SageMaker runs it, with a NIM inside: `serve`, a port, and a stand-in for the NIM.

The stand-in prints its key, as a careless program would, waits until it is told to go on, and becomes `mock-riva`.
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from e2e.command import COMMAND, Shell, wait_for
from timing import in_time

KEY = "nvapi-canary-7d1f"
LIMIT_S = 30.0
PLAN: dict[str, Any] = {"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]}

_NIM = """#!/bin/sh
echo "NIM: loading with $NGC_API_KEY and $NIM_TAGS_SELECTOR"
if [ -n "$STUBBORN" ]; then trap '' TERM; fi
(sleep 0.3 &)
while [ ! -e {folder}/go ]; do sleep 0.05; done
if [ -n "$STUBBORN" ]; then while :; do sleep 0.2; done; fi
exec {command} mock-riva --grpc-port "$NIM_GRPC_API_PORT" --http-port "$NIM_HTTP_API_PORT" --plan {folder}/plan.json
"""


class Ping(NamedTuple):
    """What `/ping` said, with the seconds until the connection was taken, and until all of it was there."""

    status: int
    accept_s: float
    answer_s: float
    text: str


def assert_in_time(pings: Sequence[Ping]) -> None:
    """SageMaker wants a connection taken within 250 ms and an answer in 2 s; ours is quicker, as a rule."""
    in_time(max(one.accept_s for one in pings), 0.25)
    assert max(one.answer_s for one in pings) < 2.0
    assert statistics.median(one.answer_s for one in pings) < 0.25


@dataclass
class Container:
    """A running container.

    Attributes:
        process: what `docker run` would have started.
        gateway: the gateway, seen from outside.
        port: where SageMaker calls it.
    """

    process: subprocess.Popen[str]
    gateway: psutil.Process
    port: int
    folder: Path
    said: str = ""
    argv: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def go(self) -> None:
        """The NIM has loaded its models now."""
        (self.folder / "go").touch()

    def ping(self) -> Ping:
        """What `/ping` says, on a connection of its own."""
        said = b""
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), LIMIT_S) as talk:
            accepted = time.monotonic()
            talk.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while piece := talk.recv(65_536):
                said += piece
        return Ping(int(said.split(b" ", 2)[1]), accepted - started, time.monotonic() - started, said.decode())

    def serving(self) -> None:
        """Wait until it may be sent requests."""
        self.go()
        due = time.monotonic() + LIMIT_S
        while self.ping().status != 200:
            assert time.monotonic() < due, self.ping()
            time.sleep(0.05)

    def nim(self) -> psutil.Process:
        """The NIM's process."""
        (found,) = [one for one in self.gateway.children() if one.status() != psutil.STATUS_ZOMBIE and _is_nim(one)]
        return found

    def look_at_argv(self) -> None:
        """Remember the command lines of everything in it."""
        for one in [self.gateway, *self.gateway.children(recursive=True)]:
            self.argv.add(" ".join(one.cmdline()))

    def ended(self, limit_s: float = LIMIT_S) -> tuple[int, float]:
        """Its exit status, and after how many seconds; everything it has printed is in `said`, nothing of it runs."""
        family = [self.gateway, *self.gateway.children(recursive=True)] if self.gateway.is_running() else []
        started = time.monotonic()
        out, _ = self.process.communicate(timeout=limit_s)
        took_s = time.monotonic() - started
        self.said = out + (self.folder / "log").read_text("utf-8")
        _, alive = psutil.wait_procs(family, timeout=2)
        assert not alive, [one.cmdline() for one in alive]
        return self.process.returncode, took_s

    def terminate(self) -> None:
        """What SageMaker does first."""
        self.gateway.send_signal(signal.SIGTERM)


@contextmanager
def container(
    folder: Path, *, plan: Mapping[str, Any] | None = None, within: tuple[str, ...] = (), **env: str
) -> Iterator[Container]:
    """Start one, as SageMaker starts it; `within`: a command that runs it, such as one that makes it PID 1."""
    (folder / "plan.json").write_text(json.dumps({**PLAN, **(plan or {})}), "utf-8")
    program = folder / "start-nim.sh"
    program.write_text(_NIM.format(folder=folder, command=COMMAND), "utf-8")
    program.chmod(0o755)
    grpc_port, http_port = free_ports(2)
    shell = Shell(
        folder,
        {
            "SAGEMAKER_BIND_TO_PORT": "0",
            "GRPC_PORT": "off",
            "NIM_COMMAND": str(program),
            "NIM_TAGS_SELECTOR": "mode=str",
            "NGC_API_KEY": KEY,
            "RIVA_GRPC_PORT": str(grpc_port),
            "NIM_HTTP_PORT": str(http_port),
            "RIVA_HEALTH_INTERVAL_MS": "500",
            **env,
        },
    )
    process = subprocess.Popen(
        [*within, str(COMMAND), "serve"],
        cwd=folder,
        env=shell.env | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("w"),
        text=True,
    )
    try:
        port = int(wait_for(process, r"http://localhost:(\d+)")[1])
        gateway = psutil.Process(process.pid)
        if within:
            (gateway,) = gateway.children()
        yield Container(process, gateway, port, folder)
    finally:
        if process.poll() is None:
            for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                one.kill()
        process.communicate()
        for one in psutil.process_iter(["cmdline"]):  # what a gateway that fails its test may have left behind
            if str(program) in (one.info["cmdline"] or []):
                one.kill()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in taken]
    finally:
        for one in taken:
            one.close()


def _is_nim(process: psutil.Process) -> bool:
    return any("start-nim.sh" in word or word == "mock-riva" for word in process.cmdline())
