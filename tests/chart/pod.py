"""A pod without a cluster: starts the container of a rendered Deployment as a kubelet would, and ends it likewise.

`unshare --net --mount --pid --fork --kill-child python pod.py WORK`, as root: a network of its own, so that the ports
of the chart are free, and a copy of this machine's root that is thrown away. WORK/job.json names the pod's spec, the
Secrets, some of them once more as they are renewed meanwhile, and callers' keys; what happened is printed as JSON. The
container sees exactly the environment, the volumes, the user, the capabilities and the read-only root that the spec
asks for; this checkout stands in for the image.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGE_PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
TONE = b"\x00\x20\x00\xe0" * 800
"""100 ms that the mock takes for speech."""
PATIENCE_S = 30.0


def shell(*words: str | Path) -> None:
    """A command that must work."""
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=PATIENCE_S)


File = tuple[str, str, int]
"""Path, text and mode of what a volume brings."""


def lay(volume: Path, files: list[File], group: int) -> None:
    """Put these into a volume, in place of what it has, as a kubelet does: names lead through the link `..data` into a
    dated folder, and the link is moved to a new one when that is whole. No path that is open or looked at is written.
    """
    former = [path for path in volume.glob("..[0-9]*") if path.is_dir()]
    folder = Path(tempfile.mkdtemp(prefix=time.strftime("..%Y_%m_%d_%H_%M_%S."), dir=volume))
    folder.chmod(0o755)
    for path, text, mode in files:
        (folder / path).write_text(text)
        os.chown(folder / path, 0, group)
        (folder / path).chmod(mode)
    (volume / "..data_tmp").symlink_to(folder.name)
    (volume / "..data_tmp").rename(volume / "..data")
    for path, _, _ in files:
        if not (volume / path).is_symlink():
            (volume / path).symlink_to(Path("..data", path))
    for old in former:
        shutil.rmtree(old)


class Container:
    """The one container of the pod.

    Args:
        work: a folder of one's own.
        pod: `spec` of the pod template.
        secrets: name and content of each Secret.
    """

    def __init__(self, work: Path, pod: dict[str, Any], secrets: dict[str, dict[str, str]]) -> None:
        self.pod, self.spec, self.root = pod, pod["containers"][0], work / "root"
        self._secrets, self._work = secrets, work
        self._group = pod["securityContext"]["fsGroup"]
        self._volumes = {volume["name"]: volume for volume in pod["volumes"]}
        self.process: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        """The root, and what the pod mounts into it."""
        layers = self._work / "layers"
        for folder in (layers, self.root):
            folder.mkdir()
        shell("mount", "-t", "tmpfs", "tmpfs", layers)
        for folder in (layers / "upper", layers / "changes"):
            folder.mkdir()
        where = f"lowerdir=/,upperdir={layers / 'upper'},workdir={layers / 'changes'}"
        shell("mount", "-t", "overlay", "overlay", "-o", where, self.root)
        for folder in (CHECKOUT, Path(sys.base_prefix)):
            if folder.stat().st_dev != Path("/").stat().st_dev:  # the lower layer has no other file systems
                shell("mount", "--bind", folder, self.root / folder.relative_to("/"))
        for folder in Path(sys.executable).resolve().parents:  # the image's files are for everybody to read
            (self.root / folder.relative_to("/")).chmod(0o755)
        shell("mount", "-t", "proc", "proc", self.root / "proc")
        shell("mount", "--rbind", "/dev", self.root / "dev")
        for wanted in self.spec["volumeMounts"]:
            place, volume = self.root / wanted["mountPath"].lstrip("/"), self._folder(wanted["name"])
            for folder in (place, volume):
                folder.mkdir(parents=True, exist_ok=True)
            shell("mount", "-t", "tmpfs", "-o", f"mode=2770,gid={self._group}", "tmpfs", volume)
            self._fill(wanted["name"])
            shell("mount", "--bind", volume, place)
            if wanted.get("readOnly"):
                shell("mount", "-o", "remount,bind,ro", place)  # for the container; the kubelet goes on writing
        for folder in (CHECKOUT, Path(sys.prefix)):  # a checkout under /tmp: the pod has a /tmp of its own
            place = self.root / folder.relative_to("/")
            if not place.is_dir():
                place.mkdir(parents=True)
                shell("mount", "--bind", folder, place)
        if self.spec["securityContext"]["readOnlyRootFilesystem"]:
            shell("mount", "-o", "remount,ro", self.root)

    def renew(self, secrets: dict[str, dict[str, str]]) -> None:
        """Secrets have changed: the volumes that show them do, too."""
        self._secrets |= secrets
        for name, volume in self._volumes.items():
            if volume.get("secret", {}).get("secretName") in secrets:
                self._fill(name)

    def _folder(self, volume: str) -> Path:
        """Where a volume is outside the container."""
        return self._work / "volumes" / volume

    def _fill(self, volume: str) -> None:
        if files := self._files(self._volumes[volume]):
            lay(self._folder(volume), files, self._group)

    def _files(self, volume: dict[str, Any]) -> list[File]:
        """What a volume brings; nothing for an empty one."""
        if "secret" in volume:
            mode = volume["secret"]["defaultMode"]
            return [(key, text, mode) for key, text in self._secrets[volume["secret"]["secretName"]].items()]
        if "projected" not in volume:
            return []
        found = []
        for source in volume["projected"]["sources"]:
            content = self._secrets[source["secret"]["name"]]
            items = source["secret"].get("items") or [{"key": key, "path": key} for key in content]
            found += [(item["path"], content[item["key"]], volume["projected"]["defaultMode"]) for item in items]
        return found

    def inside(self, *words: str) -> list[str]:
        """The command line that runs a command inside it."""
        user, context = self.pod["securityContext"], self.spec["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["allowPrivilegeEscalation"] is False
        env = [f"{entry['name']}={entry['value']}" for entry in self.spec["env"]]
        return [
            *("chroot", str(self.root)),
            *("setpriv", f"--reuid={user['runAsUser']}", f"--regid={user['runAsGroup']}", "--clear-groups"),
            *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
            *("env", "--ignore-environment", f"PATH={IMAGE_PATH}", "HOME=/var/lib/riva-gateway", *env, *words),
        ]

    def start(self) -> None:
        """Start it; its output is kept."""
        output = (self._work / "log").open("wb")
        self.process = subprocess.Popen(self.inside("riva-gateway", *self.spec["args"]), stdout=output, stderr=output)

    def probe(self, probe: dict[str, Any]) -> bool:
        """What a kubelet makes of one."""
        if "exec" in probe:
            return (
                subprocess.run(self.inside(*probe["exec"]["command"]), capture_output=True, check=False).returncode == 0
            )
        get = probe["httpGet"]
        port = next(port["containerPort"] for port in self.spec["ports"] if port["name"] == get["port"])
        try:
            gateway = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=probe["timeoutSeconds"], context=ssl._create_unverified_context()
            )
            gateway.request("GET", get["path"])
            return 200 <= gateway.getresponse().status < 400
        except OSError:
            return False

    def started(self) -> bool:
        """Whether the startup probe came through, within what it allows."""
        probe = self.spec["startupProbe"]
        for _ in range(probe["failureThreshold"] * 10):
            if self.probe(probe):
                return True
            assert self.process is not None
            if self.process.poll() is not None:
                return False
            time.sleep(probe["periodSeconds"] / 10)
        return False


class Caller:
    """Speaks all the time, and notes what it hears and when."""

    def __init__(self, headers: dict[str, str], tls: ssl.SSLContext) -> None:
        self.heard: list[tuple[float, str]] = []
        self.socket = connect(
            "wss://127.0.0.1:8443/v1/stream", additional_headers=headers, ssl=tls, subprotocols=["asr.v1"], proxy=None
        )
        self.socket.send('{"type": "start"}')
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._speak, self._listen)]
        for thread in self._threads:
            thread.start()

    def _speak(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.socket.send(TONE)
                time.sleep(0.1)

    def _listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in self.socket:
                self.heard.append((time.monotonic(), json.loads(message)["type"]))

    def after(self, since: float) -> list[str]:
        """What was heard from then on."""
        return [kind for at, kind in list(self.heard) if at >= since]

    def hears(self, kind: str, since: float) -> bool:
        """Whether it hears that from then on; it is waited for."""
        until = time.monotonic() + PATIENCE_S / 3
        while kind not in self.after(since) and time.monotonic() < until:
            time.sleep(0.02)
        return kind in self.after(since)


def status(proc: Path) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = (proc / "status").read_text().splitlines()
    wanted = ("Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs")
    return {
        name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines) if name in wanted
    }


def seen(keys: list[str], tls: ssl.SSLContext) -> list[tuple[int, str]]:
    """What a caller with each key is answered on a connection of its own, and the digest of the certificate it sees."""
    found = []
    for key in keys:
        with tls.wrap_socket(socket.create_connection(("127.0.0.1", 8443), PATIENCE_S)) as line:
            shown = f"Authorization: Bearer {key}\r\n" if key else ""
            line.sendall(f"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n{shown}Connection: close\r\n\r\n".encode())
            status = int(line.recv(64).split()[1])
            found.append((status, hashlib.sha256(line.getpeercert(binary_form=True) or b"").hexdigest()))
    return found


def renewed(container: Container, job: dict[str, Any], tls: ssl.SSLContext) -> list[list[tuple[int, str]]]:
    """What callers see before Secrets are renewed, and after."""
    before = after = seen(job["keys"], tls)
    container.renew(job["renewed"])
    until = time.monotonic() + PATIENCE_S / 3
    while any(now == then for now, then in zip(after, before, strict=True)) and time.monotonic() < until:
        time.sleep(0.1)
        after = seen(job["keys"], tls)
    return [before, after]


def live(container: Container, job: dict[str, Any], tls: ssl.SSLContext) -> dict[str, Any]:
    """From the start to the end of the pod, with a caller in it all the time."""
    spec, process, headers = container.spec, container.process, job["headers"]
    assert process is not None
    told: dict[str, Any] = {"started": container.started()}
    if not told["started"]:
        return told
    told["status"] = status(container.root / "proc" / str(process.pid))
    told["root_is_read_only"] = (
        subprocess.run(container.inside("touch", "/opt/new"), check=False, capture_output=True).returncode != 0
    )
    told["live"], told["ready"] = container.probe(spec["livenessProbe"]), container.probe(spec["readinessProbe"])
    caller = Caller(headers, tls)
    told["served"] = caller.hears("partial", 0)
    told["renewed"] = renewed(container, job, tls)
    told["served_meanwhile"] = caller.hears("partial", time.monotonic())
    begun = time.monotonic()  # the pod is deleted; its endpoint begins to disappear from the cluster
    stopping = subprocess.Popen(container.inside(*spec["lifecycle"]["preStop"]["exec"]["command"]))
    told["ready_in_pre_stop"] = container.probe(spec["readinessProbe"])
    late = Caller(headers, tls)  # whoever has not heard of it is served like everybody
    told["served_in_pre_stop"] = [each.hears("partial", begun) for each in (caller, late)]
    told["pre_stop"] = stopping.wait(PATIENCE_S)
    process.send_signal(signal.SIGTERM)
    ended = time.monotonic()
    told["served_in_drain"] = [each.hears("partial", ended) for each in (caller, late)]
    told["ready_in_drain"], told["live_in_drain"] = (
        container.probe(spec[f"{kind}Probe"]) for kind in ("readiness", "liveness")
    )
    told["exit"] = process.wait(PATIENCE_S)
    told["seconds"] = time.monotonic() - begun
    told["finished"] = [each.hears("final", ended) for each in (caller, late)]
    told["closed"] = [each.socket.protocol.close_code for each in (caller, late)]
    return told


def main(work: Path) -> None:
    job = json.loads((work / "job.json").read_text())
    shell("ip", "link", "set", "lo", "up")
    container = Container(work, job["pod"], job["secrets"])
    container.mount()
    container.start()
    tls = ssl._create_unverified_context()
    if job["client"]:
        tls.load_cert_chain(work / "client.crt", work / "client.key")
    try:
        told = live(container, job, tls)
    finally:
        if container.process is not None and container.process.poll() is None:
            container.process.kill()
            container.process.wait()
    json.dump({**told, "log": (work / "log").read_text()}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
