"""A token from a gateway, for a command: `POST /v1/tokens`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2

from asr.config import GatewayConfig
from asr.errors import ASRError, Code
from asr.session.address import address_of, connection_error, one_line, status_error, tls_context
from server.access.grants import Scope
from server.access.own_tokens import Minted
from server.commands.advice import advise

PATH = "/v1/tokens"
MAX_ANSWER_BYTES = 64 * 1024


async def ask_gateway(config: GatewayConfig, asked: dict[str, object]) -> Minted:
    """Let it make a token.

    Args:
        config: the gateway, with the key to ask with.
        asked: any of `scopes`, `ttl_ms`, `subject` and `single_use`.

    Raises:
        ASRError: whatever stood in the way, in words for somebody at a command line.
    """
    try:
        async with asyncio.timeout(config.http_timeout_ms / 1000):
            return _minted(await _post(config, asked))
    except ASRError as error:
        raise advise(error, config) from None
    except (httpx2.HTTPError, OSError) as error:  # TimeoutError is an OSError
        raise advise(connection_error(_cause(error)), config) from None


async def _post(config: GatewayConfig, asked: dict[str, object]) -> Any:
    address = address_of(config.url)
    if not (address.secure or address.loopback):
        text = "ASR_API_KEY would travel unencrypted to another machine. Use https://."
        raise ASRError(Code.BAD_REQUEST, text)
    trust = tls_context(config) if address.secure else False
    headers = {"Authorization": f"Bearer {config.token}"}
    client = httpx2.AsyncClient(verify=trust, trust_env=not address.loopback, follow_redirects=False, timeout=None)
    async with client, client.stream("POST", address.http + PATH, json=asked, headers=headers) as answer:
        content = bytearray()
        async for part in answer.aiter_raw():
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise ASRError(Code.INTERNAL, "The gateway's answer is too long for one with a token.")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if answer.is_success:
        return body
    raise _refusal(answer.status_code, answer.headers.get("Retry-After"), body)


def _refusal(status: int, retry_after: str | None, body: Any) -> ASRError:
    error = body.get("error") if isinstance(body, dict) else None
    told = error.get("message") if isinstance(error, dict) else None
    known = status_error(status, retry_after)
    if not isinstance(told, str) or status == 401:
        return known
    return ASRError(known.code, f"The gateway refuses: {one_line(told)}", retry_after_ms=known.retry_after_ms)


def _minted(body: Any) -> Minted:
    try:
        scopes = frozenset(Scope(name) for name in body["scopes"])
        return Minted(str(body["token"]), int(body["expires_at"]), scopes, bool(body["single_use"]))
    except (KeyError, TypeError, ValueError):
        raise ASRError(Code.INTERNAL, "The gateway's answer holds no token. Is it a riva-gateway?") from None


def _cause(error: BaseException) -> BaseException:
    """The system's own error, which libraries have wrapped, some of them twice."""
    found, seen = error, error.__cause__ or error.__context__
    while seen is not None:
        if isinstance(seen, OSError):
            found = seen
        seen = seen.__cause__ or seen.__context__
    return found
