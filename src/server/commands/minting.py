"""A token from a gateway, for a command: `POST /v1/tokens`."""

from __future__ import annotations

from typing import Any

from asr.config import GatewayConfig
from asr.errors import ASRError, Code
from server.access.grants import Scope
from server.access.own_tokens import Minted
from server.commands.advice import advise
from server.commands.asking import ask

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
    told = await ask(config, "POST", PATH, asked, max_bytes=MAX_ANSWER_BYTES)
    try:
        return _minted(told)
    except ASRError as error:
        raise advise(error, config) from None


def _minted(body: Any) -> Minted:
    try:
        scopes = frozenset(Scope(name) for name in body["scopes"])
        return Minted(str(body["token"]), int(body["expires_at"]), scopes, bool(body["single_use"]))
    except (KeyError, TypeError, ValueError):
        raise ASRError(Code.INTERNAL, "The gateway's answer holds no token. Is it a riva-gateway?") from None
