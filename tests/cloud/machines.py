"""The far machines: each an overlay of this machine's files with processes, network and addresses of its own.

A disk (the overlay's upper layer) lives until the instance is terminated, as an EBS root does; /run and the processes
live until it stops. `Machine.execute` is what Systems Manager's agent does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.groups import Group
from cloud.image import make_image
from cloud.imds import Imds, user_data

DISK_GIB = 200
BOOT_S = 60.0
ROUTER = "10.200.0.1"  # the operator's side of every far machine's cable
AGENT_VARIABLES = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}  # no HOME
BOOT = Path(__file__).parent / "boot.sh"
TREE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Executed:
    status: int
    out: str
    err: str
    timed_out: bool = False


class Machine:
    def __init__(self, folder: Path, image: Path, shared: Path, instance: Any, number: int) -> None:
        self.folder, self.instance, self.number = folder, instance, number
        self.up = threading.Event()
        self._ordered = False  # its end was AWS's wish, not its own
        self.was_up = False
        self.first: int | None = None  # its first process, as seen from the cloud's own namespace
        self._image, self._shared = image, shared
        self._group = Group(f"far{number}")
        self.starting = threading.Lock()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._imds: Imds | None = None
        (folder / "disk").mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK_GIB}g", "disk", str(folder / "disk"))
        for name in ("upper", "work", "root"):
            (folder / "disk" / name).mkdir()
        (folder / "disk/upper/etc").mkdir()
        (folder / "disk/upper/etc/machine-id").write_text(uuid.uuid4().hex + "\n")

    @property
    def cable(self) -> str:
        return f"far{self.number}"

    def live(self) -> None:
        """From boot to end; `starting` is held by who calls it, and let go as soon as it can be switched off."""
        try:
            process = self._begin()
        except Exception:
            (self.folder / "console").open("a").write(traceback.format_exc())
            raise
        finally:
            self.starting.release()
        self._await_systemd(process)
        process.wait()
        self._off(process)
        if not self._ordered:
            self._switched_itself_off()

    def _begin(self) -> subprocess.Popen[bytes]:
        """Starts its first process, plugs the cable in, answers for the metadata service."""
        command = ["unshare", "--cgroup", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        command += ["/bin/bash", str(BOOT), str(self.folder / "disk"), str(self._image), str(self._shared)]
        command += [str(TREE), sys.prefix, sys.base_prefix, self.instance.private_dns_name]
        with (self.folder / "console").open("ab") as console:
            process = subprocess.Popen(
                ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self._group.made()), *command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console, start_new_session=True,
            )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._ordered = process, False
        self.first = _child(process.pid, process.stdout)
        self._plug_in()
        self._imds = Imds(self.first, self.instance)
        process.stdin.write(b"go\n")
        process.stdin.close()
        return process

    def _switched_itself_off(self) -> None:
        if self.instance.instance_initiated_shutdown_behavior == "terminate":
            self.instance.terminate()
        else:
            self.instance.stop()

    def _await_systemd(self, process: subprocess.Popen[bytes]) -> None:
        """The agent is one of the services that systemd starts: from then on."""
        asked = self.enter("/bin/systemctl", "is-system-running", "--wait")
        until = time.monotonic() + BOOT_S
        while process.poll() is None and time.monotonic() < until:
            ran = subprocess.run(asked, capture_output=True, text=True, check=False)
            if ran.stdout.strip() in {"running", "degraded"}:
                if not self.was_up:
                    self._first_boot()
                self.was_up = True
                self.up.set()
                return
            time.sleep(0.02)  # it does not listen yet

    def _first_boot(self) -> None:
        """What cloud-init does: runs the user-data, and leaves its mark."""
        if (script := user_data(self.instance)).startswith("#!"):
            self.execute(script, "user-data", BOOT_S)
        self.command(["install", "-D", "/dev/null", "/var/lib/cloud/instance/boot-finished"], BOOT_S, AGENT_VARIABLES)

    def _plug_in(self) -> None:
        there = ["nsenter", "--target", str(self.first), "--net", "ip"]
        addresses = [address for address in (self.instance.private_ip, self.instance.public_ip) if address]
        _run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "ens5", "netns", str(self.first))
        _run("ip", "addr", "add", f"{ROUTER}/32", "dev", self.cable)
        _run("ip", "link", "set", self.cable, "up")
        lines = ["link set lo up", "link set ens5 up", "addr add 169.254.169.254/32 dev lo"]
        lines += [f"addr add {address}/32 dev ens5" for address in addresses]
        lines += [f"route add {ROUTER} dev ens5 src {self.instance.private_ip}"]  # what is elsewhere is refused at once
        subprocess.run([*there, "-batch", "-"], input="\n".join(lines).encode(), check=True)
        for address in addresses:
            _run("ip", "route", "replace", address, "dev", self.cable)

    def halt(self, politely_s: float = 0) -> None:
        """Switches it off; with `politely_s`, systemd gets so long to stop its services before."""
        with self.starting:
            process, first, self._ordered = self._process, self.first, True
        if process is None or first is None:
            return
        if politely_s and self.up.is_set():
            os.kill(first, signal.SIGRTMIN + 4)  # systemd: power off
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(politely_s)
        process.kill()
        process.wait(10)
        self._off(process)

    def _off(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._process is not process:
                return
            self.up.clear()
            self._process = self.first = None
            if self._imds is not None:
                self._imds.close()
            subprocess.run(["ip", "link", "del", self.cable], capture_output=True, check=False)  # it may be gone
            self._group.remove()

    def remove(self) -> None:
        self.halt()
        _run("umount", "--lazy", str(self.folder / "disk"))

    def fill(self, full: bool) -> None:
        """Leaves next to nothing free on its disk, or all of it again."""
        disk = str(self.folder / "disk")
        used = int(
            subprocess.run(["df", "--output=used", "-B1", disk], capture_output=True, check=True).stdout.split()[1]
        )
        _run("mount", "-o", f"remount,size={used + (4 << 20) if full else DISK_GIB << 30}", disk)

    def enter(self, *command: str) -> list[str]:
        """`command` as it is typed to have it run inside."""
        assert self.first is not None
        return [
            "nsenter",
            "--target",
            str(self.first),
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--ipc",
            "--root",
            "--wd",
            *command,
        ]

    def execute(self, script: str, name: str, limit_s: float) -> Executed:
        """Runs a script as the agent does: written to a file, by root, without HOME, its output kept."""
        folder = f"/var/lib/amazon/ssm/{self.instance.id}/document/orchestration/{name}"
        place = f"{folder}/awsrunShellScript/0.awsrunShellScript"
        keep = f'mkdir -p "{place}" && cat >"{place}/_script.sh" && chmod 700 "{place}/_script.sh"'
        subprocess.run(self.enter("/bin/sh", "-c", keep), input=script.encode(), check=True, env=AGENT_VARIABLES)
        return self.command([f"{place}/_script.sh"], limit_s, AGENT_VARIABLES)

    def command(self, command: list[str], limit_s: float, variables: dict[str, str], typed: bytes = b"") -> Executed:
        """Runs a command inside; past `limit_s` its whole session is killed. What it leaves running goes on."""
        out, err = (self.folder / f"out-{threading.get_ident()}", self.folder / f"err-{threading.get_ident()}")
        with out.open("w+b") as out_file, err.open("w+b") as err_file:
            process = subprocess.Popen(
                self.enter(*command),
                stdin=subprocess.PIPE, stdout=out_file, stderr=err_file, env=variables, start_new_session=True,
            )  # fmt: skip
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(typed)
                process.stdin.close()
            try:
                status, late = process.wait(limit_s), False
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                status, late = process.wait(), True
            out_file.seek(0)
            err_file.seek(0)
            texts = [file.read().decode(errors="replace") for file in (out_file, err_file)]
        out.unlink()
        err.unlink()
        return Executed(status if status >= 0 else 128 - status, *texts, timed_out=late)


class Machines:
    """All of them, by instance id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: dict[str, Machine] = {}
        self._lock = threading.Lock()
        self._count = 0
        self._image = make_image(folder / "image")
        self.shared = folder / "shared"  # what the far machines see of the cloud itself
        self.shared.mkdir()

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._all

    def __getitem__(self, instance_id: str) -> Machine:
        return self._all[instance_id]

    def __iter__(self) -> Iterator[Machine]:
        return iter(list(self._all.values()))

    def boot(self, instance: Any) -> None:
        with self._lock:
            if instance.id not in self._all:
                self._count += 1
                self._all[instance.id] = Machine(
                    self._folder / "machines" / instance.id, self._image, self.shared, instance, self._count
                )
            machine = self._all[instance.id]
        machine.starting.acquire()
        threading.Thread(target=machine.live, daemon=True).start()

    def halt(self, instance_id: str) -> None:
        if instance_id in self._all:
            self._all[instance_id].halt(politely_s=10)

    def remove(self, instance_id: str) -> None:
        if machine := self._all.pop(instance_id, None):
            machine.remove()

    def clear(self) -> None:
        for instance_id in list(self._all):
            self.remove(instance_id)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _child(parent: int, ready: Any) -> int:
    """The first process of the new namespace: `unshare`'s only child, which says so when it runs."""
    assert ready.readline() == b"there\n", "the far machine did not begin: see its console"
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
