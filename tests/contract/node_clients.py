"""The clients from npm, in `tests/contract/node/node_modules`, exactly as its lock file names them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "node"
PATIENCE_S = 180.0


def install() -> Path:
    """Install what the lock file names, where it is not there yet; returns the folder whose scripts find it."""
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm = os.environ.get("NPM") or shutil.which("npm")
        assert npm, "there is no npm: scripts/dev/system-packages.sh node"
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        ran = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert ran.returncode == 0, f"npm ci failed:\n{ran.stdout}\n{ran.stderr}"
    return FOLDER


def version_of(package: str) -> str:
    """The version of an installed client."""
    return str(json.loads((FOLDER / "node_modules" / package / "package.json").read_text("utf-8"))["version"])
