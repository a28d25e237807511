"""Run other people's clients, unmodified, each in a process of its own.

Python clients live in `.venv-clients` (`requirements/clients.txt`), apart from what the gateway itself uses.
`make test` names the other programs: NODE. Elsewhere the one on the path is taken.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-clients"
PYTHON = VENV / "bin" / "python"
PATIENCE_S = 60.0
SYSTEMS = "the system's"
"""The version of a program that the system provides."""
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True)
class Ran:
    """What a client left behind."""

    code: int
    out: str
    err: str

    def ok(self) -> str:
        """Its standard output; fails the test with what it said where it did not end well."""
        assert self.code == 0, f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
        return self.out


async def run(*command: str | Path, env: dict[str, str] | None = None, patience_s: float = PATIENCE_S) -> Ran:
    """A program with nothing of our own environment but what every program needs."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *map(str, command), env={**kept, "PYTHONUNBUFFERED": "1", **(env or {})}, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(patience_s):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def run_client(
    script: str, *args: str | Path, env: dict[str, str] | None = None, patience_s: float = PATIENCE_S
) -> str:
    """Run Python source among the clients; returns what it printed."""
    assert PYTHON.exists(), "the clients are not installed: scripts/dev/environment.sh clients"
    return (await run(PYTHON, "-c", script, *args, env=env, patience_s=patience_s)).ok()


def version_of(distribution: str, folder: Path = VENV) -> str:
    """The version of a Python client that is installed."""
    site = next((folder / "lib").glob("python3*/site-packages"))
    name = distribution.lower().replace("_", "-")
    return next(d.version for d in distributions(path=[str(site)]) if d.name.lower().replace("_", "-") == name)


def node() -> str:
    """Where Node.js is."""
    found = os.environ.get("NODE") or shutil.which("node")
    assert found, "there is no Node.js: scripts/dev/system-packages.sh node"
    return found
