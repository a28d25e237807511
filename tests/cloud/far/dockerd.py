"""The docker stand-in's daemon: a container is a process, and that process is a mock Riva (`far.nim`).

Like the real one it keeps containers out of the caller's control group, and knows one of a name at a time. What it does
not know it refuses.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from far.common import STAND_IN, faults
from far.docker_call import Call, Refused, formatted, parse, show
from far.docker_container import Container, code, end, environment
from far.docker_images import (
    FORMAT,
    QUIET,
    fetch,
    full,
    images,
    inspect_images,
    list_images,
    login,
    pull,
    remove_images,
)

SOCKET = Path("/run/docker.sock")
SETTINGS = Path("/etc/docker/daemon.json")
FORCE = {"--force": "force", "-f": "force"}
WITH_VALUE = {
    "--name": "name",
    "--runtime": "runtime",
    "--gpus": "gpus",
    "--log-driver": "log",
    "--env-file": "env_files",
    "--env": "env",
    "-e": "env",
    "--shm-size": "shm",
    "--ulimit": "ulimits",
    "--publish": "ports",
    "-p": "ports",
    "--volume": "volumes",
    "-v": "volumes",
    "--network": "network",
    "--entrypoint": "entrypoint",
    "--user": "user",
    "--restart": "restart",
    "--label": "labels",
    "--memory": "memory",
    "--stop-timeout": "stop_timeout",
    "--cap-drop": "caps",
    "--security-opt": "security",
    "--pids-limit": "pids",
    "--tmpfs": "tmpfs",
}
SWITCHES = {"--rm": "rm", "--init": "init", "--detach": "detach", "-d": "detach", "--read-only": "read_only"}
VARIABLES = {
    "PATH": "/usr/bin:/bin",
    "PYTHONPATH": f"{STAND_IN}:{STAND_IN}/tree/src",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/",
}


class Daemon:
    def __init__(self) -> None:
        self._all: dict[str, Container] = {}
        self._lock = threading.Lock()
        self._runtimes = runtimes()
        self._commands: dict[str, Callable[[Call, list[str]], int | None]] = {
            "pull": pull,
            "login": login,
            "images": list_images,
            "image": self.image,
            "rmi": self.remove_images,
            "run": self.run,
            "stop": self.stop,
            "rm": self.rm,
            "inspect": self.inspect,
            "ps": self.ps,
            "logs": self.logs,
            "info": self.info,
            "version": self.version,
            "--version": self.version,
        }

    def answer(self, there: socket.socket) -> None:
        """Does what one call asks, and says how it ended."""
        call = Call(there)
        try:
            name, *words = call.words or ["--help"]
            if name not in self._commands:
                raise Refused(f"docker: '{name}' is not a docker command that the stand-in knows", 125)
            status = self._commands[name](call, words) or 0
        except Refused as refused:
            status = refused.status
            call.complain(str(refused))
        except Exception as error:
            status = 125
            call.complain(f"the docker stand-in failed: {type(error).__name__}: {error}")
        with contextlib.suppress(OSError):  # whoever asked is gone
            there.sendall(bytes([status & 255]))
            call.close()

    def run(self, call: Call, words: list[str]) -> int:
        flags, rest = parse(words, WITH_VALUE, SWITCHES)
        image, command = full(rest[0]), rest[1:]
        container = Container(flags.get("name") or f"stand-in-{time.monotonic_ns()}", image, command, flags)
        with self._lock:
            if container.name in self._all:
                raise Refused(
                    "docker: Error response from daemon: Conflict. "
                    f'The container name "/{container.name}" is already in use by container "5f0c".',
                    125,
                )
            self._all[container.name] = container
        try:
            if image not in images():
                call.complain(f"Unable to find image '{image}' locally")
                fetch(call, image)
            if flags.get("runtime", "runc") not in self._runtimes:
                text = f"unknown or invalid runtime name: {flags['runtime']}."
                raise Refused(f"docker: Error response from daemon: {text}", 125)
            if flags.get("gpus") and faults().get("no_gpu"):
                text = 'could not select device driver "" with capabilities: [[gpu]].'
                raise Refused(f"docker: Error response from daemon: {text}", 125)
            container.env = environment(call, flags)
            process = self._start(call, container)
        except BaseException:
            self._all.pop(container.name, None)
            raise
        if flags.get("detach"):
            call.say("5f0c" + container.name)
            threading.Thread(target=self._ended, args=(container, process), daemon=True).start()
            return 0
        threading.Thread(target=_forward, args=(call, process), daemon=True).start()
        return self._ended(container, process)

    def _start(self, call: Call, container: Container) -> subprocess.Popen[bytes]:
        """The image's program, in a session of its own; of a key it learns that it is there."""
        env = {name: "set" if "KEY" in name and value else value for name, value in container.env.items()}
        command = [word for word in (container.flags.get("entrypoint"), *container.command) if word]
        told = {"image": container.image, "command": command, "flags": container.flags, "env": env}
        out: Any = call.out
        err: Any = call.err
        if container.flags.get("detach"):
            container.log.parent.mkdir(exist_ok=True)
            out = err = container.log.open("ab")
        container.process = subprocess.Popen(
            [sys.executable, "-c", "from far.nim import main; main()", json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            cwd="/",
            env=VARIABLES,
        )
        return container.process

    def _ended(self, container: Container, process: subprocess.Popen[bytes]) -> int:
        status = code(process.wait())
        if container.flags.get("rm") and self._all.get(container.name) is container:
            del self._all[container.name]
        return status

    def _named(self, name: str) -> Container:
        if name not in self._all:
            raise Refused(f"Error response from daemon: No such container: {name}")
        return self._all[name]

    def stop(self, call: Call, words: list[str]) -> None:
        flags, names = parse(words, {"-t": "time", "--time": "time", "--timeout": "time"}, {})
        for container in map(self._named, names):
            end(container, float(flags.get("time", 10)))
            call.say(container.name)
            until = time.monotonic() + 1
            while container.flags.get("rm") and container.name in self._all and time.monotonic() < until:
                time.sleep(0.01)  # until who waits for it has seen it, too

    def rm(self, call: Call, words: list[str]) -> None:
        flags, names = parse(words, {}, {**FORCE, "--volumes": "volumes", "-v": "volumes"})
        for name in names:
            if name not in self._all and flags.get("force"):
                call.complain(f"Error response from daemon: No such container: {name}")
                continue
            container = self._named(name)
            if container.running and not flags.get("force"):
                raise Refused(f'Error response from daemon: cannot remove container "/{name}": container is running')
            end(container, 0)
            self._all.pop(name, None)
            call.say(name)

    def inspect(self, call: Call, words: list[str]) -> None:
        flags, names = parse(words, {**FORMAT, "--type": "type"}, {})
        show(call, flags.get("format"), [self._named(name).record() for name in names])

    def image(self, call: Call, words: list[str]) -> None:
        what, *rest = words
        known: dict[str, Callable[[Call, list[str]], None]] = {
            "ls": list_images,
            "list": list_images,
            "inspect": inspect_images,
            "rm": self.remove_images,
        }
        if what not in known:
            raise Refused(f"the stand-in does not know: docker image {what}", 125)
        known[what](call, rest)

    def remove_images(self, call: Call, words: list[str]) -> None:
        remove_images(call, words, {container.image for container in self._all.values()})

    def ps(self, call: Call, words: list[str]) -> None:
        flags, _ = parse(words, {**FORMAT, "--filter": "filter"}, {**QUIET, "--all": "all", "-a": "all"})
        wanted = flags.get("filter", "name=").removeprefix("name=").strip("^/$")
        for container in list(self._all.values()):
            if (container.running or flags.get("all")) and wanted in container.name:
                state = container.record()["State"]["Status"]
                fields = {"Names": container.name, "Image": container.image, "Status": state, "ID": "5f0c"}
                form = "{{.Names}}" if flags.get("quiet") else "{{.ID}} {{.Image}} {{.Status}} {{.Names}}"
                call.say(formatted(flags.get("format", form), fields))

    def logs(self, call: Call, words: list[str]) -> None:
        flags, (name,) = parse(words, {"--tail": "tail", "-n": "tail", "--since": "since"}, {"-t": "stamps"})
        container = self._named(name)
        if not container.log.exists():
            raise Refused("Error response from daemon: configured logging driver does not support reading")
        lines = container.log.read_text().splitlines()
        call.say("\n".join(lines[-int(flags["tail"]) :] if "tail" in flags else lines))

    def info(self, call: Call, words: list[str]) -> None:
        flags, _ = parse(words, FORMAT, {})
        known = {"DockerRootDir": "/var/lib/docker", "ServerVersion": "28.5.1", "Runtimes": self._runtimes}
        show(call, flags.get("format"), [known])

    def version(self, call: Call, words: list[str]) -> None:
        call.say("Docker version 28.5.1, build stand-in")

    def end(self, *_: object) -> None:
        """Takes its containers with it."""
        for container in list(self._all.values()):
            if container.process is not None:
                container.process.terminate()
        os._exit(0)


def runtimes() -> dict[str, Any]:
    """Those that docker knows: the machine image comes with NVIDIA's, unless a file of settings says otherwise."""
    settings = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {"runtimes": {"nvidia": {}}}
    return {"runc": {}, **settings.get("runtimes", {})}


def _forward(call: Call, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        while call.there.recv(1):
            process.terminate()


def main() -> None:
    daemon = Daemon()
    signal.signal(signal.SIGTERM, daemon.end)
    Path("/var/lib/docker").mkdir(mode=0o710, parents=True, exist_ok=True)
    SOCKET.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(SOCKET))
        SOCKET.chmod(0o660)
        listener.listen(64)
        if place := os.environ.get("NOTIFY_SOCKET"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
                telling.sendto(b"READY=1", place.replace("@", "\0", 1))
        while True:
            there, _ = listener.accept()
            threading.Thread(target=daemon.answer, args=(there,), daemon=True).start()
