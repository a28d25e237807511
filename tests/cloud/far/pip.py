"""`python -m pip`: takes packages from the tests' own environment instead of an index; a folder it installs for real.

Only what the requirements name gets there, in just that version; without hashes they are refused.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

from far.common import STAND_IN, fail, faults, record, say
from far.places import PACKAGES

SAID_LESS = {"--quiet", "-q", "--no-input", "--disable-pip-version-check"}
REAL = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pip._internal.cli.main import main; sys.exit(main())"
NO_INDEX = "ERROR: Could not find a version that satisfies the requirement (from versions: none)"


def main() -> None:
    record(["pip", *sys.argv[1:]])
    words = [word for word in sys.argv[1:] if word not in SAID_LESS]
    if words[:1] != ["install"] or "-r" not in words:
        if words[:1] == ["install"] and not {"--no-index", "--no-deps"} & set(words):
            fail("ERROR: the stand-in of pip installs from a requirements file, or a folder with --no-deps")
        os.execv(sys.executable, [sys.executable, "-c", REAL, STAND_IN + "/real-pip", *sys.argv[1:]])
    if "--require-hashes" not in words:
        fail("ERROR: the stand-in of pip wants --require-hashes")
    if faults().get("pip_fails"):
        fail(NO_INDEX + "\nERROR: No matching distribution found")
    _install(_wanted(Path(words[words.index("-r") + 1]).read_text()))


def _wanted(text: str) -> dict[str, str]:
    """Name and version of what a requirements file wants here."""
    sys.path.append(PACKAGES)
    from packaging.requirements import Requirement

    wanted = {}
    for joined in text.replace("\\\n", " ").splitlines():
        line, _, hashes = joined.split(" #")[0].partition(" --hash=sha256:")
        if not line.strip() or line.startswith("#"):
            continue
        requirement = Requirement(line.strip())
        pinned = re.fullmatch(r"==([^\s*]+)", str(requirement.specifier))
        if not pinned or not hashes:
            fail(f"ERROR: In --require-hashes mode, all requirements must be pinned with == and have hashes: {line}")
        if requirement.marker is None or requirement.marker.evaluate():
            wanted[_normal(requirement.name)] = pinned[1]
    return wanted


def _install(wanted: dict[str, str]) -> None:
    there = {}
    for place in Path(PACKAGES).glob("*.dist-info"):
        distribution = PathDistribution(place)
        there[_normal(distribution.metadata["Name"])] = distribution
    target = Path(next(path for path in sys.path if path.endswith("site-packages")))
    for name, version in wanted.items():
        found = there.get(name)
        if found is None or found.version != version:
            has = found.version if found else "none"
            fail(f"ERROR: No matching distribution found for {name}=={version} (the tests' environment has {has})")
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (target / top).exists():
                (target / top).symlink_to(Path(PACKAGES) / top)
    say(f"Successfully installed {len(wanted)} packages")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
