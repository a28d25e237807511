"""A base image as python:3.11-slim-bookworm is one, made from Debian's packages where no registry can be asked.

Like the original it has Python under /usr/local, which dpkg knows nothing of, with pip and setuptools beside it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

RELEASE = "bookworm"
_PYTHON = "python3.11"
_DEBIAN = "http://deb.debian.org/debian"
_LIBRARY = f"usr/local/lib/{_PYTHON}"


def mirror(sources: Path = Path("/etc/apt")) -> str:
    """Where this machine gets Debian from; the general address on another system."""
    for file in [sources / "sources.list", *sorted(sources.glob("sources.list.d/*"))]:
        found = re.search(r"^(?:URIs:|deb(?: \[.*\])?)\s*(\S+/debian/?)(?:\s|$)", _read(file), re.MULTILINE)
        if found:
            return found[1]
    return _DEBIAN


def make(root: Path) -> None:
    """Fill `root`; takes a minute, as root."""
    shutil.rmtree(root, ignore_errors=True)
    include = "ca-certificates,netbase,tzdata,python3,python3-venv"
    _run("debootstrap", "--variant=minbase", f"--include={include}", RELEASE, str(root), mirror())
    wheels = root / "usr/share/python-wheels"
    library = root / _LIBRARY
    shutil.copytree(root / "usr/lib" / _PYTHON, library, symlinks=True, dirs_exist_ok=True)
    shutil.copytree(wheels, library / "ensurepip/_bundled")
    (library / "EXTERNALLY-MANAGED").unlink()
    programs = root / "usr/local/bin"
    shutil.copy2(root / "usr/bin" / _PYTHON, programs)
    for name in ("python3", "python"):
        (programs / name).symlink_to(_PYTHON)
    owned = _run("chroot", str(root), "dpkg-query", "--show", "--showformat=${Package}\\n").split()
    pythons = [name for name in owned if re.match(r"(lib)?python3", name)]
    _run("chroot", str(root), "dpkg", "--purge", "--force-all", *pythons)
    bundled = [f"/{_LIBRARY}/ensurepip/_bundled/{wheel.name}" for wheel in (library / "ensurepip/_bundled").iterdir()]
    (pip,) = [wheel for wheel in bundled if "/pip-" in wheel]
    _run(
        *("chroot", str(root), f"/usr/local/bin/{_PYTHON}", f"{pip}/pip", "install", "--quiet", "--no-index"),
        *("--target", f"/{_LIBRARY}/dist-packages", *bundled),
    )
    shutil.copytree(library / "dist-packages/bin", programs, dirs_exist_ok=True)
    shutil.rmtree(library / "dist-packages/bin")
    (programs / f"{_PYTHON}-config").write_text("#!/bin/sh\n", encoding="utf-8")  # as the original has it
    # A package index behind this machine's own authority is trusted, as it is here.
    shutil.copy2("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    (root / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n", encoding="utf-8")
    for leftover in (*root.glob("var/cache/apt/*"), *root.glob("var/lib/apt/lists/*"), *root.glob("var/log/*")):
        _remove(leftover)
    for cache in root.rglob("__pycache__"):
        shutil.rmtree(cache)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}):\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
