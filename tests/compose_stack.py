"""compose.yaml as tests use it: read as docker compose reads it, and run without docker, on loopback.

What a service is given there (its command, variables, mounted files, volumes) it is given here; what differs is where:
container paths lie under a folder, and the neighbours' names are this machine's ports.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

import rules
from e2e.command import COMMAND
from e2e.monitors import Prometheus, free_port, program

ROOT = rules.ROOT
FILE = ROOT / "compose.yaml"
PATIENCE_S = 40.0
PORTS = ("DEPLOY_PORT", "DEPLOY_GRPC_PORT", "DEPLOY_PROMETHEUS_PORT", "DEPLOY_ALERTMANAGER_PORT", "DEPLOY_GRAFANA_PORT")
_CONFIGURATION = {".yml", ".yaml"}


def interpolated(text: str, env: Mapping[str, str]) -> str:
    """`${A}`, `${A:-b}`, `${A-b}`, `${A:+b}`, within each other too, as the Compose Specification says.

    >>> interpolated("${A:-${B:+nim:${C-1}}}", {"B": "x"})
    'nim:1'
    """
    pattern = re.compile(r"\$\{(\w+)(?:(:?[-+])((?:[^{}]|\$\{[^{}]*\})*))?\}")

    def value(found: re.Match[str]) -> str:
        name, operator, other = found[1], found[2] or "", found[3] or ""
        there = bool(env.get(name)) if operator.startswith(":") else name in env
        if operator.endswith("+"):
            return other if there else ""
        return env[name] if there else other if operator else ""

    while "${" in text:
        text, changed = pattern.subn(value, text)
        assert changed, f"not understood: {text}"
    return text


def document(env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The whole file, with everything put in."""

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        if isinstance(part, list):
            return [filled(each) for each in part]
        return interpolated(part, env or {}) if isinstance(part, str) else part

    found: dict[str, Any] = filled(yaml.safe_load(FILE.read_text("utf-8")))
    return found


def mounts(service: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Each volume's source and target, and whether it can only be read."""
    found = []
    for entry in service.get("volumes", []):
        if isinstance(entry, dict):
            assert (entry["type"], entry["bind"]) == ("bind", {"create_host_path": False})
            found.append((entry["source"], entry["target"], entry["read_only"]))
            continue
        source, target, *mode = entry.split(":")
        found.append((source, target, mode == ["ro"]))
    return found


class Stack:
    """The services that can run here, from `up` to `close`; volumes stay in between.

    Args:
        folder: for volumes and what each service sees.
        env: what the caller of docker compose has set. Ports that it lacks are free ones.
        near: host and port of what stands in for a neighbour, by the name of the service.
        commands: the folder with the `riva-gateway` that is typed; `serve` is always a process of its own.
    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        near: Mapping[str, str] | None = None,
        commands: Path = COMMAND.parent,
    ) -> None:
        self.folder = folder
        self.commands = commands
        self.env = {**{name: str(free_port()) for name in PORTS}, **env}
        self.services = document(self.env)["services"]
        self._near = {**self._addresses(), **(near or {})}
        self._running = contextlib.ExitStack()
        self.prometheus = Prometheus(f"http://127.0.0.1:{self.env['DEPLOY_PROMETHEUS_PORT']}")

    def _addresses(self) -> dict[str, str]:
        return {
            "gateway:8443": f"127.0.0.1:{self.env['DEPLOY_PORT']}",
            "alertmanager:9093": f"127.0.0.1:{self.env['DEPLOY_ALERTMANAGER_PORT']}",
        }

    def up(self) -> None:
        """Start them in their order. AssertionError: the gateway takes no streams in time."""
        self.make_keys()
        self._running.enter_context(self._gateway())
        due = time.monotonic() + PATIENCE_S
        while self.asked("/readyz") != 200:
            assert time.monotonic() < due, self.log("gateway")
            time.sleep(0.1)
        self._running.enter_context(self._monitor("alertmanager", "prometheus-alertmanager"))
        self._running.enter_context(self._monitor("prometheus", "prometheus"))

    def close(self) -> None:
        """End them all."""
        self._running.close()

    def path(self, service: str, target: str) -> Path:
        """Where a path of a container lies here. AssertionError: nothing is mounted there."""
        for source, mounted, _ in sorted(mounts(self.services[service]), key=lambda each: -len(each[1])):
            if target == mounted or target.startswith(mounted + "/"):
                place = ROOT / source if source.startswith("./") else self.folder / "volumes" / source
                return (Path(source) if source.startswith("/") else place) / target[len(mounted) :].lstrip("/")
        raise AssertionError(f"{service} has nothing at {target}")

    def make_keys(self) -> str:
        """The service `keys`, as this user; what it has printed."""
        service = self.services["keys"]
        assert service["entrypoint"] == ["python", "/compose/keys.py"]
        place = self.folder / "seen-by-keys"
        place.mkdir(exist_ok=True)
        for source, target, _ in mounts(service):
            if target.startswith("/volumes/"):
                there = self.path("keys", target)
                if not source.startswith((".", "/")):
                    there.mkdir(parents=True, exist_ok=True)
                link = place / Path(target).name
                link.unlink(missing_ok=True)
                link.symlink_to(there)
        users = [word for name in ("gateway", "prometheus", "grafana") for word in (f"--{name}-user", str(os.getuid()))]
        done = subprocess.run(
            [sys.executable, self.path("keys", "/compose/keys.py"), str(place), *users],
            env={**service["environment"], "PATH": f"{self.commands}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def gateway_env(self) -> dict[str, str]:
        """What the gateway's container is given, and the paths that these are here."""
        given = {key: str(value) for key, value in self.services["gateway"]["environment"].items()}
        for name in ("STATE_DIR", "ASR_SECRETS_DIR"):
            given[name] = str(self.path("gateway", given[name]))
        for name, address in self._near.items():
            given["RIVA_ENDPOINTS"] = given["RIVA_ENDPOINTS"].replace(name, address)
        assert (given["LISTEN_HOST"], given["PORT"], given["GRPC_PORT"]) == ("0.0.0.0", "8443", "50052")
        given |= {"LISTEN_HOST": "127.0.0.1", "PORT": self.env["DEPLOY_PORT"]}
        given |= {"GRPC_PORT": self.env["DEPLOY_GRPC_PORT"], "LOCAL_WORKERS": "1"}
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", **given}

    @contextlib.contextmanager
    def _gateway(self) -> Iterator[None]:
        with (self.folder / "gateway.log").open("ab") as log:
            process = subprocess.Popen(
                [COMMAND, "serve"], env=self.gateway_env(), cwd=self.folder, stdout=log, stderr=log
            )
            try:
                yield
            finally:
                process.terminate()
                assert process.wait(PATIENCE_S) == 0

    def asked(self, path: str, key: str = "") -> int:
        """The status of a GET; 0 where nobody answers. The certificate is checked."""
        trusted = ssl.create_default_context(cafile=str(self.path("prometheus", "/run/secrets/gateway-ca.pem")))
        request = urllib.request.Request(f"https://localhost:{self.env['DEPLOY_PORT']}{path}")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, context=trusted, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def log(self, service: str) -> str:
        """All that it has written."""
        return (self.folder / f"{service}.log").read_text("utf-8", "replace")

    @contextlib.contextmanager
    def _monitor(self, service: str, command: str) -> Iterator[None]:
        """A program of Debian's with the service's command line and files."""
        place = self.folder / service
        place.mkdir(exist_ok=True)
        inner = {}
        for source, target, _ in mounts(self.services[service]):
            here = self.path(service, target)
            if source.startswith((".", "/")):
                copy = place / Path(target).name
                shutil.copy(here, copy)
                inner[target] = copy
            else:
                here.mkdir(parents=True, exist_ok=True)
                inner[target] = here
        for path in inner.values():
            if path.suffix in _CONFIGURATION:
                path.write_text(self._here(path.read_text("utf-8"), inner), "utf-8")
        port = self.services[service]["ports"][0].split(":")[1]
        words = [self._here(word, inner) for word in self.services[service]["command"]]
        with program(place, command, *words, f"--web.listen-address=127.0.0.1:{port}"):
            yield

    def _here(self, text: str, inner: Mapping[str, Path]) -> str:
        for target in sorted(inner, key=len, reverse=True):
            text = re.sub(rf"(?<=[= ]){re.escape(target)}(?=/|$)", str(inner[target]), text, flags=re.M)
        for name, address in self._near.items():
            text = text.replace(f'"{name}"', f'"{address}"')
        # By the name that it has there, as the certificate must.
        text = re.sub(r"^( *)(ca_file: .*)$", r"\1\2\n\1server_name: gateway", text, flags=re.M)
        return rules.shortened(text) if "scrape_interval" in text or "group_wait" in text else text
