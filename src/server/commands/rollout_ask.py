"""A gateway's `/admin/rollout` and `/status.json`, asked by a command; and its state file, where it cannot be asked."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from asr.config import GatewayConfig
from asr.errors import ASRError, Code
from asr.session.address import address_of, connection_error, one_line, status_error, tls_context
from server.commands.advice import advise
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
    body = await _ask_in_time(config, ROLLOUT, change)
    if "position" not in body:
        raise ASRError(Code.INTERNAL, "The answer is not that of a gateway's rollout. Is it a riva-gateway?")
    return body


async def ask_status(config: GatewayConfig) -> dict[str, Any]:
    """What the gateway's status page shows.

    Raises:
        ASRError: whatever stood in the way, in words for somebody at a command line.
    """
    body = await _ask_in_time(config, STATUS, None)
    if not isinstance(body.get("state"), dict) or "endpoints" not in body:
        raise ASRError(Code.INTERNAL, "The answer is not that of a gateway's status page. Is it a riva-gateway?")
    return body


async def _ask_in_time(config: GatewayConfig, path: str, change: dict[str, object] | None) -> dict[str, Any]:
    try:
        async with asyncio.timeout(config.http_timeout_ms / 1000):
            return await _ask(config, path, change)
    except ASRError as error:
        raise advise(error, config) from None
    except (httpx2.HTTPError, OSError) as error:  # TimeoutError is an OSError
        raise advise(connection_error(_cause(error)), config) from None


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


async def _ask(config: GatewayConfig, path: str, change: dict[str, object] | None) -> dict[str, Any]:
    address = address_of(config.url)
    headers = {}
    if config.token:
        if not (address.secure or address.loopback):
            text = "ASR_API_KEY would travel unencrypted to another machine. Use https://."
            raise ASRError(Code.BAD_REQUEST, text)
        headers["Authorization"] = f"Bearer {config.token}"
    trust = tls_context(config) if address.secure else False
    client = httpx2.AsyncClient(verify=trust, trust_env=not address.loopback, follow_redirects=False, timeout=None)
    method = "GET" if change is None else "PUT"
    content = bytearray()
    async with client, client.stream(method, address.http + path, json=change, headers=headers) as answer:
        async for part in answer.aiter_bytes():
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise ASRError(Code.INTERNAL, "The gateway's answer is over 4 MiB; it is not read.")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not answer.is_success:
        raise _refusal(answer.status_code, body)
    if not isinstance(body, dict):
        raise ASRError(Code.INTERNAL, "The answer is not that of a gateway. Is it a riva-gateway?")
    return body


def _refusal(status: int, body: Any) -> ASRError:
    known = status_error(status, None)
    error = body.get("error") if isinstance(body, dict) else None
    told = error.get("message") if isinstance(error, dict) else None
    if status == 401 or not isinstance(told, str):
        return known
    return ASRError(known.code, f"The gateway refuses: {one_line(told)}")


def _user() -> str:
    number = os.getuid()
    try:
        return f"{pwd.getpwuid(number).pw_name}, in the file"
    except KeyError:
        return f"user {number}, in the file"


def _cause(error: BaseException) -> BaseException:
    """The system's own error, which libraries have wrapped, some of them twice."""
    found, seen = error, error.__cause__ or error.__context__
    while seen is not None:
        if isinstance(seen, OSError):
            found = seen
        seen = seen.__cause__ or seen.__context__
    return found
