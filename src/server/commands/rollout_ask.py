"""A gateway's `/admin/rollout` and `/status.json`, asked by a command; and its state file, where it cannot be asked."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asr.config import GatewayConfig
from asr.errors import ASRError, Code
from server.commands.advice import advise
from server.commands.asking import ask
from server.commands.exits import Exit, Stop
from server.rollout.control import read_file, write_file
from server.rollout.state import MAX_REASON_CHARS, Position, Wanted, clean

ROLLOUT = "/admin/rollout"
STATUS = "/status.json"
MAX_ANSWER_BYTES = 4 << 20


async def ask_gateway(config: GatewayConfig, change: dict[str, object] | None) -> dict[str, Any]:
    """The gateway's rollout, after `change`, if there is one.

    Raises:
        ASRError: whatever stood in the way, in words for somebody at a command line.
    """
    body = await _told(config, "GET" if change is None else "PUT", ROLLOUT, change)
    if "position" not in body:
        raise ASRError(Code.INTERNAL, "The answer is not that of a gateway's rollout. Is it a riva-gateway?")
    return body


async def ask_status(config: GatewayConfig) -> dict[str, Any]:
    """What the gateway's status page shows.

    Raises:
        ASRError: whatever stood in the way, in words for somebody at a command line.
    """
    body = await _told(config, "GET", STATUS)
    if not isinstance(body.get("state"), dict) or "endpoints" not in body:
        raise ASRError(Code.INTERNAL, "The answer is not that of a gateway's status page. Is it a riva-gateway?")
    return body


async def _told(
    config: GatewayConfig, method: str, path: str, change: dict[str, object] | None = None
) -> dict[str, Any]:
    body = await ask(config, method, path, change, max_bytes=MAX_ANSWER_BYTES)
    if not isinstance(body, dict):
        raise advise(ASRError(Code.INTERNAL, "The answer is not that of a gateway. Is it a riva-gateway?"), config)
    return body


def change_file(path: Path, configured: Wanted, change: dict[str, Any]) -> Wanted:
    """Write what is wanted into a state file; gateways that watch it obey within two seconds.

    Raises:
        ASRError: `bad_request`, for a file that cannot be understood.
        Stop: it cannot be written.
    """
    if not path.parent.is_dir():  # nobody would look there
        raise Stop(
            f"There is no folder {path.parent}. Name rollout.json in the STATE_DIR of the gateway.", Exit.BAD_INPUT
        )
    wanted = read_file(path, configured)
    wanted = replace(
        wanted,
        position=Position(change.get("position", wanted.position)),
        canary_percent=change.get("canary_percent", wanted.canary_percent),
        changed_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        by=_user(),
        reason=clean(change["reason"], MAX_REASON_CHARS),
    )
    try:
        write_file(path, wanted)
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error.strerror}.", Exit.FAILED) from None
    return wanted


def _user() -> str:
    number = os.getuid()
    try:
        return f"{pwd.getpwuid(number).pw_name}, in the file"
    except KeyError:
        return f"user {number}, in the file"
