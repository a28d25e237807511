"""Ask for known vulnerabilities of the pinned dependencies: `python scripts/dev/audit.py`, with pip-audit.

The exit status is 0 where the advisory service knows of none, 1 where it knows of one (or the list of pins is broken),
and 3 where nobody could be asked: pip-audit alone takes silence for good news. Whether the service is one, it shows
first with a package that is known to be vulnerable. Nothing is installed or resolved: every pin has its hash.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import requests

SERVICE = "https://api.osv.dev/v1/query"
KNOWN = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.4.1"}
"""A release whose holes have been public for ten years."""
ANSWER_S = 4.0
PROBE_S = 8.0
AUDIT_S = 240.0
ACCEPTED: dict[str, str] = {}
"""Advisories that do not concern this project: id → why."""


def is_advisory_service(url: str) -> bool:
    """Whether somebody answers there, within `PROBE_S`, who knows what everybody knows."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(requests.post(url, json=KNOWN, timeout=ANSWER_S).json())
        except (requests.RequestException, ValueError):
            answer.append(None)

    # A thread that nobody waits for at the end: a name server cannot be told to hurry.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_S)
    return bool(answer) and isinstance(answer[0], dict) and bool(answer[0].get("vulns"))


def audit(url: str, pins: Path) -> tuple[int, str]:
    """pip-audit's verdict on a file of pins: an exit status and what to print."""
    command = [sys.executable, "-m", "pip_audit", "--strict", "--require-hashes", "--disable-pip", "-r", str(pins)]
    command += ["-s", "osv", "--osv-url", url, "-f", "json", "--desc", "off", "--progress-spinner", "off"]
    command += [word for advisory in ACCEPTED for word in ("--ignore-vuln", advisory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_S, check=False)
    except subprocess.TimeoutExpired:
        return 3, f"no verdict within {AUDIT_S:g} s"
    if done.returncode == 0:
        return 0, ""
    try:
        found = json.loads(done.stdout)
    except ValueError:
        # No verdict: the service went away meanwhile, or the file is none that pip-audit reads.
        gone = "Connection" in done.stderr or "ServiceError" in done.stderr
        last = done.stderr.strip().rpartition("\n")[2]
        return (3 if gone else 1), last or f"pip-audit ended with {done.returncode} and said nothing"
    return 1, "\n".join(_told(found))


def _told(found: dict[str, Any]) -> list[str]:
    return [
        f"{package['name']} {package['version']}: {hole['id']} {' '.join(hole.get('aliases', []))}".rstrip()
        + (f"; mended in {', '.join(hole['fix_versions'])}" if hole["fix_versions"] else "; not mended yet")
        for package in found["dependencies"]
        for hole in package.get("vulns", [])
    ]


def main() -> int:
    """Print what is known; see above for the exit status."""
    parser = argparse.ArgumentParser(description="Ask for known vulnerabilities of the pinned dependencies.")
    parser.add_argument("--osv-url", default=SERVICE, help="an advisory service that speaks OSV's query")
    parser.add_argument("--pins", type=Path, default=Path("requirements/runtime.txt"))
    given = parser.parse_args()
    if not is_advisory_service(given.osv_url):
        status, told = 3, "no advisory service reachable"
    else:
        status, told = audit(given.osv_url, given.pins)
    print(f"dependency audit: NOT CHECKED ({told})" if status == 3 else told, end="\n" if told else "")
    return status


if __name__ == "__main__":
    sys.exit(main())
