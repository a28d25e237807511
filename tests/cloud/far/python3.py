"""`python3`: this machine's own Python, which makes environments without a download."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from far.common import STAND_IN, record
from far.places import BASE

PIP = '#!/bin/sh\nexec "${0%/*}/python" -m pip "$@"\n'


def main() -> None:
    record(sys.argv)
    words = sys.argv[1:]
    if words[:2] != ["-m", "venv"]:
        os.execv(BASE, [BASE, *words])  # by its full name: it looks for its library from there
    status = subprocess.call([BASE, "-m", "venv", "--without-pip", *words[2:]])
    if status == 0:
        folder = Path(words[-1])
        (packages,) = folder.glob("lib/python3*/site-packages")
        shutil.copytree(STAND_IN + "/pip", packages / "pip")
        for name in ("pip", "pip3"):
            (folder / "bin" / name).write_text(PIP)
            (folder / "bin" / name).chmod(0o755)
    sys.exit(status)
