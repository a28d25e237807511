"""One question of a command to a gateway over HTTP: with the key, within a time, and with an answer of bounded size."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2

from asr.config import GatewayConfig
from asr.errors import ASRError, Code
from asr.session.address import address_of, connection_error, one_line, status_error, tls_context
from server.commands.advice import advise

KIB = 1024


async def ask(
    config: GatewayConfig, method: str, path: str, body: dict[str, object] | None = None, *, max_bytes: int
) -> Any:
    """The JSON that the gateway answers with, or None where it is none.

    Args:
        config: the gateway, with the key to ask with and the time that it has.
        method: of the request.
        path: what is asked.
        body: sent as JSON.
        max_bytes: of the answer.

    Raises:
        ASRError: whatever stood in the way, in words for somebody at a command line.
    """
    try:
        async with asyncio.timeout(config.http_timeout_ms / 1000):
            return await _ask(config, method, path, body, max_bytes)
    except ASRError as error:
        raise advise(error, config) from None
    except (httpx2.HTTPError, OSError) as error:  # TimeoutError is an OSError
        raise advise(connection_error(_cause(error)), config) from None


async def _ask(config: GatewayConfig, method: str, path: str, body: dict[str, object] | None, max_bytes: int) -> Any:
    address = address_of(config.url)
    headers = {}
    if config.token:
        if not (address.secure or address.loopback):
            text = "ASR_API_KEY would travel unencrypted to another machine. Use https://."
            raise ASRError(Code.BAD_REQUEST, text)
        headers["Authorization"] = f"Bearer {config.token}"
    trust = tls_context(config) if address.secure else False
    client = httpx2.AsyncClient(verify=trust, trust_env=not address.loopback, follow_redirects=False, timeout=None)
    content = bytearray()
    async with client, client.stream(method, address.http + path, json=body, headers=headers) as answer:
        async for part in answer.aiter_bytes():
            content += part
            if len(content) > max_bytes:
                raise ASRError(Code.INTERNAL, f"The gateway's answer is over {max_bytes // KIB} KiB; it is not read.")
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        told = None
    if not answer.is_success:
        raise _refusal(answer.status_code, answer.headers.get("Retry-After"), told)
    return told


def _refusal(status: int, retry_after: str | None, body: Any) -> ASRError:
    error = body.get("error") if isinstance(body, dict) else None
    told = error.get("message") if isinstance(error, dict) else None
    known = status_error(status, retry_after)
    if status == 401 or not isinstance(told, str):
        return known
    return ASRError(known.code, f"The gateway refuses: {one_line(told)}", retry_after_ms=known.retry_after_ms)


def _cause(error: BaseException) -> BaseException:
    """The system's own error, which libraries have wrapped, some of them twice."""
    found, seen = error, error.__cause__ or error.__context__
    while seen is not None:
        if isinstance(seen, OSError):
            found = seen
        seen = seen.__cause__ or seen.__context__
    return found
