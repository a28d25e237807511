"""Stand-ins for `docker` and `nvidia-smi` on a machine without them: compose.yaml really runs, as processes here.

They know the words that scripts/riva-2*.sh say, and no other. Every command line is written down, and faults are set.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compose_stack import PORTS, ROOT, Stack, document
from e2e.command import COMMAND
from e2e.monitors import free_port

NGC_KEY = "nvapi-" + "made-up-" * 4
MONITORS = ("prometheus", "alertmanager", "grafana")
_PROGRAM = """#!{python} -IS
import base64, json, os, socket, sys
words = sys.argv[1:]
given = b"" if sys.stdin.isatty() or not ({{"exec", "login"}} & set(words)) else sys.stdin.buffer.read()
asked = [os.path.basename(sys.argv[0]), words, dict(os.environ), base64.b64encode(given).decode()]
there = socket.create_connection(("127.0.0.1", {port}))
there.sendall(json.dumps(asked).encode() + b"\\n")
status, out, err = json.loads(there.makefile().read())
sys.stdout.buffer.write(base64.b64decode(out)); sys.stderr.write(err)
sys.exit(status)
"""


@dataclass
class Faults:
    """What is wrong with this machine."""

    docker_is_down: bool = False
    no_compose: bool = False
    no_buildx: bool = False
    compose_version: str = "2.39.1"
    runtimes: tuple[str, ...] = ("io.containerd.runc.v2", "nvidia", "runc")
    gpu: str = "NVIDIA L4, 560.35.03, 23034, 8.9"
    wrong_key: bool = False
    pull_fails: bool = False
    nim: str = "running healthy 0"
    up_fails: bool = False
    no_prometheus: bool = False
    certificate: str = ""
    drain: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A program that ends with status 1 and this line."""


class Silent(Exception):
    """A program that ends with status 0, an empty line and this complaint, as `docker info --format` does."""


@dataclass
class Machine:
    """A machine with docker on it.

    Attributes:
        folder: for everything.
        env: what a person there has set.
        commands: the folder with the `riva-gateway` of the containers.
        argv: every command line, with the program's name.
        images: that are here.
        volumes: names of those that docker keeps.
        stack: what runs, since the first `up`.
    """

    folder: Path
    env: dict[str, str]
    commands: Path
    faults: Faults = field(default_factory=Faults)
    argv: list[list[str]] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    stack: Stack | None = None
    nim: subprocess.Popen[str] | None = None
    rows: list[str] = field(default_factory=list)
    _logged_in: set[str] = field(default_factory=set)

    def run(self, script: str, *flags: str, given: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """A script of the tree, to its end; never on a terminal."""
        return subprocess.run(
            [ROOT / "scripts" / script, *flags],
            env={**self.env, **env},
            cwd=self.folder,
            input=given,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def answer(self, name: str, words: list[str], env: Mapping[str, str], given: bytes) -> bytes:
        """What a program prints. Refused: it fails."""
        self.argv.append([name, *words])
        if name == "nvidia-smi":
            return self._smi(words)
        match words:
            case ["compose", "version", "--short"]:
                if self.faults.no_compose:
                    raise Refused("docker: 'compose' is not a docker command.")
                return self.faults.compose_version.encode()
            case ["buildx", "version"]:
                if self.faults.no_buildx:
                    raise Refused("docker: 'buildx' is not a docker command.")
                return b"github.com/docker/buildx v0.26.1\n"
            case ["compose", "--project-directory", project, *rest]:
                assert Path(project) == ROOT
                return self._compose(rest, env, given)
            case ["info", "--format", what]:
                return self._info(what)
            case ["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]:
                return b"unix:///var/run/docker.sock\n"
            case ["image", "inspect", image]:
                if image not in self.images:
                    raise Refused(f"Error: No such image: {image}")
                return b"[]"
            case ["login", "nvcr.io", "--username", "$oauthtoken", "--password-stdin"]:
                if self.faults.wrong_key or given.decode().strip() != NGC_KEY:
                    raise Refused("Error response from daemon: unauthorized")
                self._logged_in.add(env["DOCKER_CONFIG"])
                return b"Login Succeeded\n"
            case ["pull", "--quiet", image]:
                assert env["DOCKER_CONFIG"] in self._logged_in
                assert env["DOCKER_HOST"] == "unix:///var/run/docker.sock"
                if self.faults.pull_fails:
                    raise Refused("manifest unknown")
                self.images.add(image)
                return image.encode()
            case ["inspect", "--format", _, service]:
                return (self.faults.nim if service == "nim" else "running healthy 0").encode()
            case ["volume", "ls", "--quiet", "--filter", _, "--filter", kind]:
                assert kind.endswith("volume=nim-cache")
                return "".join(f"{name}\n" for name in self.volumes).encode()
            case ["volume", "rm", "--force", volume]:
                self.volumes.discard(volume)
                return b""
        raise AssertionError(f"no script says {words}")

    def _smi(self, words: list[str]) -> bytes:
        if not self.faults.gpu:
            raise Refused("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
        names = ("name", "driver_version", "memory.total", "compute_cap")
        known = dict(zip(names, self.faults.gpu.split(", "), strict=True))
        known |= {"memory.used": "1200", "utilization.gpu": "3"}
        number, query, form = words
        assert number == "--id=0"
        assert form in ("--format=csv,noheader", "--format=csv,noheader,nounits")
        return ", ".join(known[key] for key in query.removeprefix("--query-gpu=").split(",")).encode() + b"\n"

    def _info(self, what: str) -> bytes:
        if self.faults.docker_is_down:
            raise Silent("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
        told = {
            "{{.ServerVersion}}": "28.2.2",
            "{{.DockerRootDir}}": str(self.folder / "docker" / "not-seen-from-here"),
            "{{json .Runtimes}}": json.dumps({name: {} for name in self.faults.runtimes}),
        }
        return told[what].encode() + b"\n"

    def _compose(self, words: list[str], env: Mapping[str, str], given: bytes) -> bytes:
        match words:
            case ["up", "--detach", "--build", "--remove-orphans", "--quiet-pull"]:
                return self._up(env)
            case ["ps", "--all", "--quiet", *services]:
                there = ["gateway", *MONITORS, *(["nim"] if self.nim else [])] if self.stack else []
                return "".join(f"{name}\n" for name in there if not services or name in services).encode()
            case ["ps", "--all", "--format", "table {{.Service}}\\t{{.Status}}\\t{{.Image}}"]:
                return b"SERVICE   STATUS         IMAGE\ngateway   Up 3 minutes   riva-gateway:laptop\n"
            case ["config", "--format", "json"]:
                services = _published(document(env)["services"])
                services["gateway"]["environment"] = {"TLS_CERT": self.faults.certificate, **self.faults.drain}
                services["gateway"]["stop_grace_period"] = document(env)["services"]["gateway"]["stop_grace_period"]
                return json.dumps({"services": services}).encode()
            case ["port", service, port] if self.stack:
                published = _published(self.stack.services)[service]["ports"]
                found = next(each for each in published if each["target"] == int(port))
                away = service == "prometheus" and self.faults.no_prometheus
                return f"0.0.0.0:{'9' if away else found['published']}\n".encode()
            case ["exec", "-T", "gateway", *command] if self.stack:
                return self._exec(self.stack, command, given)
            case ["restart", *services] if self.stack and services:
                assert set(services) <= set(MONITORS)
                return b""
            case ["logs", *_]:
                return b"Out of memory\n"
            case ["down", "--remove-orphans", *volumes]:
                self.end()
                if volumes:
                    self.rows.append("volumes are gone")
                return b""
        raise Refused('service "gateway" is not running')

    def _up(self, env: Mapping[str, str]) -> bytes:
        if self.faults.up_fails:
            raise Refused("failed to solve: process did not complete successfully")
        if self.stack is None:
            near = {}
            if env["COMPOSE_PROFILES"] == "nim" and self.faults.nim == "running healthy 0":
                near = {"nim:50051": self._start_nim()}
            elif env["COMPOSE_PROFILES"] == "nim":
                self.nim, near = _nobody(), {"nim:50051": f"127.0.0.1:{free_port()}"}
            ours = {key: value for key, value in env.items() if key.startswith(("DEPLOY_", "COMPOSE_"))}
            stack = Stack(self.folder, ours, near, self.commands)
            self.volumes.add(stack.env.get("DEPLOY_NIM_CACHE", "riva_nim-cache"))
            self.rows.append(stack.services["gateway"]["image"])
            if near and self.faults.nim != "running healthy 0":
                self.stack = stack
                return b""
            stack.up()
            self.stack = stack
        return b""

    def _start_nim(self) -> str:
        self.nim = subprocess.Popen(
            [COMMAND, "mock-riva", "--grpc-port", "0", "--http-port", "0"],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.nim.stdout is not None
        while line := self.nim.stdout.readline():
            address = next((word for word in line.split() if word.count(":") == 1 and word[-1].isdigit()), "")
            if address:
                return address.replace("0.0.0.0", "127.0.0.1")
        raise AssertionError("the stand-in of a NIM says no address")

    def _exec(self, stack: Stack, command: list[str], given: bytes) -> bytes:
        match command:
            case ["cat", path]:
                return stack.path("gateway", path).read_bytes()
            case ["riva-gateway", *words]:
                real = [
                    word.replace("localhost:8443", f"localhost:{stack.env['DEPLOY_PORT']}").replace(
                        "localhost:50052", f"localhost:{stack.env['DEPLOY_GRPC_PORT']}"
                    )
                    for word in words
                ]
                typed, environment = [str(self.commands / "riva-gateway"), *real], stack.gateway_env()
                done = subprocess.run(typed, env=environment, input=given, capture_output=True, timeout=60, check=False)
                if done.returncode:
                    raise Refused(done.stderr.decode())
                return done.stdout
        raise AssertionError(f"no script says {command}")

    def end(self) -> None:
        """Nothing runs any more."""
        if self.stack is not None:
            self.stack.close()
            self.stack = None
        if self.nim is not None:
            self.nim.kill()
            self.nim.communicate()
            self.nim = None


def _published(services: Mapping[str, Any]) -> dict[str, Any]:
    """The ports of each service, as `docker compose config` tells them."""
    found = {name: [port.split(":")[1:] for port in service.get("ports", [])] for name, service in services.items()}
    return {
        name: {"ports": [{"published": published, "target": int(target)} for published, target in ports]}
        for name, ports in found.items()
    }


def _nobody() -> subprocess.Popen[str]:
    """A container that is there and serves nothing."""
    return subprocess.Popen(["true"], text=True)


@contextlib.contextmanager
def machine(folder: Path, commands: Path) -> Iterator[Machine]:
    """A machine with both programs on its PATH; what was started there is ended."""
    programs, secrets = folder / "programs", folder / "secrets"
    programs.mkdir()
    secrets.mkdir()
    env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8", "NO_COLOR": "1"}
    env |= {"DEPLOY_SECRETS": str(secrets), "DEPLOY_POLL_S": "0.2", "DEPLOY_LEAST_GB": "0"}
    env["DEPLOY_ENV_FILE"] = str(folder / ".env")
    env |= {name: str(free_port()) for name in PORTS}
    place = Machine(folder, env, commands)

    class Caller(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            name, words, environment, given = json.loads(self.rfile.readline())
            told: list[Any]
            try:
                told = [0, place.answer(name, words, environment, base64.b64decode(given)), ""]
            except Refused as refused:
                told = [1, b"", f"{refused}\n"]
            except Silent as silent:
                told = [0, b"\n", f"{silent}\n"]
            except Exception as error:  # told to the script, whose test then shows it
                told = [70, b"", f"the stand-in failed: {error!r}\n"]
            self.wfile.write(json.dumps([told[0], base64.b64encode(told[1]).decode(), told[2]]).encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Caller) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        for name in ("docker", "nvidia-smi"):
            path = programs / name
            path.write_text(_PROGRAM.format(python=sys.executable, port=server.server_address[1]))
            path.chmod(0o755)
        try:
            yield place
        finally:
            place.end()
            server.shutdown()
            thread.join()
