"""What the stand-ins of a far machine share."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

ROUTER = "http://10.200.0.1:4566"
STAND_IN = "/usr/local/lib/stand-in"
RECORD = "/var/lib/stand-in/argv"


def record(words: list[str]) -> None:
    """Writes the command line down, for `Far.argv`."""
    line = json.dumps([Path(words[0]).name, *words[1:]]) + "\n"
    file = os.open(RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, line.encode())
    os.close(file)


def faults() -> dict[str, Any]:
    """What goes wrong just now: see cloud.faults."""
    with urllib.request.urlopen(ROUTER + "/cloud/faults", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(text: str, status: int = 1) -> NoReturn:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
    sys.exit(status)


def ask_imds(path: str) -> str:
    """What the metadata service says."""
    place = "http://169.254.169.254/latest/"
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    with urllib.request.urlopen(
        urllib.request.Request(place + "api/token", method="PUT", headers=ttl), timeout=5
    ) as answer:
        token = answer.read().decode()
    asked = urllib.request.Request(place + "meta-data/" + path, headers={"X-aws-ec2-metadata-token": token})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        text: str = answer.read().decode()
    return text
