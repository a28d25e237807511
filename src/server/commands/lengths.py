"""Lengths of time as people write them at a command line. Pure."""

from __future__ import annotations

import re

from server.commands.exits import Exit, Stop

_LENGTH = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(text: str, flag: str) -> int:
    """`30s`, `5m`, `12h`, `90d` in seconds.

    Raises:
        Stop: it is none of these.
    """
    match = _LENGTH.fullmatch(text.strip().lower())
    found = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < found <= 100 * 366 * 86_400:
        raise Stop(f"{flag} {text!r} is no length of time. Write 30s, 5m, 12h or 90d.", Exit.CONFIGURATION)
    return found
