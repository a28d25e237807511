"""What a far machine has that this one has not: a layer below its disk and above this machine's files.

The stand-ins are in it, and a systemd that starts nothing of what this machine would start: the folders that name such
units are opaque here, that is, empty but for what is put there.
"""

from __future__ import annotations

import compileall
import os
import shutil
import stat
import sys
import sysconfig
from pathlib import Path

from cloud.warm_aws import SOCKET, stub

FAR = Path(__file__).parent / "far"
STAND_IN = "/usr/local/lib/stand-in"
# place on the machine: the module of `far` whose main it runs
PROGRAMS = {
    "usr/bin/docker": "docker",
    "usr/bin/nvidia-smi": "nvidia_smi",
    "usr/local/bin/python3": "python3",
    STAND_IN[1:] + "/dockerd": "dockerd",
    STAND_IN[1:] + "/pip/__main__.py": "pip",
}
LAUNCH = """#!{python} -IS
import sys

sys.path.insert(0, "{stand_in}")
from far.{module} import main

main()
"""
DOCKER = f"""[Unit]
Description=Docker Application Container Engine

[Service]
Type=notify
ExecStart={STAND_IN}/dockerd
Restart=always

[Install]
WantedBy=multi-user.target
"""
UNITS = "lib/systemd/system"
# What starts at boot, by the folder that says so.
STARTS = {
    "sysinit.target.wants": ("systemd-journald.service", "systemd-journal-flush.service"),
    "sockets.target.wants": ("systemd-journald.socket", "systemd-journald-dev-log.socket"),
    "multi-user.target.wants": ("docker.service",),
    "timers.target.wants": (),
    "graphical.target.wants": (),
    "local-fs.target.wants": (),
    "getty.target.wants": (),
    "default.target.wants": (),
}
EMPTY = (
    "root",
    "home",
    "opt",
    "srv",
    "etc/systemd/system",
    "etc/systemd/system-generators",
    "lib/systemd/system-generators",
    "var/log/journal",
)
JOURNAL = "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nForwardToConsole=no\n"


def make_image(folder: Path) -> Path:
    """Writes the layer and returns `folder`."""
    lib = folder / str(Path("/lib").resolve())[1:]  # where /lib is a link to usr/lib, it stays one
    _stand_ins(folder)
    for name in EMPTY:
        _opaque(_below(folder, lib, name))
    for wants, names in STARTS.items():
        place = lib / "systemd/system" / wants
        _opaque(place)
        for name in names:
            (place / name).symlink_to(f"/{UNITS}/{name}")
    (folder / "etc/systemd/system/default.target").symlink_to(f"/{UNITS}/multi-user.target")
    (lib / "systemd/system/docker.service").write_text(DOCKER)
    (folder / "etc/fstab").write_text("")
    (folder / "etc/systemd/journald.conf.d").mkdir(parents=True)
    (folder / "etc/systemd/journald.conf.d/stand-in.conf").write_text(JOURNAL)
    return folder


def _stand_ins(folder: Path) -> None:
    stand_in = folder / STAND_IN[1:]
    stand_in.mkdir(parents=True)
    packages = sysconfig.get_path("purelib")
    shutil.copytree(FAR, stand_in / "far", ignore=shutil.ignore_patterns("__pycache__"))
    seen = Path(STAND_IN, "prefix", Path(packages).relative_to(sys.prefix))
    (stand_in / "far/places.py").write_text(f'BASE = "{sys.base_prefix}/bin/python3"\nPACKAGES = "{seen}"\n')
    compileall.compile_dir(stand_in / "far", quiet=1)
    for name, module in PROGRAMS.items():
        _program(folder / name, LAUNCH.format(python=sys.executable, stand_in=STAND_IN, module=module))
    _program(folder / "usr/local/bin/aws", stub(f"{STAND_IN}/shared/{SOCKET}", endpoint="http://10.200.0.1:4566"))
    (stand_in / "pip/__init__.py").write_text("")
    (stand_in / "real-pip").mkdir()
    (stand_in / "real-pip/pip").symlink_to(f"{packages}/pip")
    os.mknod(folder / "usr/local/bin/docker", stat.S_IFCHR, os.makedev(0, 0))  # overlay's word for "is not there"
    (folder / "var/lib/stand-in").mkdir(parents=True)
    (folder / "var/lib/stand-in").chmod(0o1777)


def _program(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o755)


def _below(folder: Path, lib: Path, name: str) -> Path:
    return lib / name.removeprefix("lib/") if name.startswith("lib/") else folder / name


def _opaque(place: Path) -> None:
    """A folder through which nothing of the layers below is seen."""
    place.mkdir(parents=True, exist_ok=True)
    os.setxattr(place, "trusted.overlay.opaque", b"y")
