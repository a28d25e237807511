"""Control groups, which systemd needs to know whose process is whose: one for each far machine.

They are the only thing that would outlive the cloud's namespaces, so `cloud.world` removes them before it ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

NAME = "riva-test-cloud-"
HIERARCHY = "CLOUD_GROUPS"  # the variable that tells the provider where they are
LIMIT_S = 5.0


def make_groups(folder: Path) -> None:
    """Mounts the hierarchy below `folder`, which nobody else sees, and makes this cloud's own group in it."""
    mounted = folder / "groups"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(mounted)], check=True)
    ours = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    parent = mounted / ours.lstrip("/")
    made = parent / f"{NAME}{Path('/proc/self/ns/pid').stat().st_ino}"
    made.mkdir()
    os.environ[HIERARCHY] = str(made)


def remove_groups() -> None:
    """This cloud's groups; its processes have been killed."""
    if made := os.environ.get(HIERARCHY):
        _remove(Path(made), LIMIT_S)


class Group:
    def __init__(self, name: str) -> None:
        self._place = Path(os.environ[HIERARCHY]) / name

    def made(self) -> Path:
        self._place.mkdir(exist_ok=True)
        return self._place

    def remove(self) -> None:
        _remove(self._place, LIMIT_S)


def _remove(place: Path, limit_s: float) -> None:
    """Removes a group and those in it; a process that was killed may stay in one for a moment."""
    until = time.monotonic() + limit_s
    while place.exists():
        for folder, _, _ in os.walk(place, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if time.monotonic() >= until:
            return
        time.sleep(0.01)
