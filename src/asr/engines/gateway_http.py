"""What is asked of another gateway besides streams: its models, its readiness."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from asr.config import GatewayConfig
from asr.engine import Model, Readiness
from asr.errors import ASRError, Code
from asr.session.address import Address, connection_error, hung_up, one_line, status_error

MAX_ANSWER_BYTES = 4 << 20


async def fetch_models(config: GatewayConfig, address: Address, context: ssl.SSLContext | None) -> Sequence[Model]:
    """`GET /v1/models` as the domain's words.

    Raises:
        ASRError: whatever stood in the way.
    """
    status, body, retry_after = await _get(config, address, context, "/v1/models")
    if status != 200:
        raise status_error(status, retry_after, _reason(body))
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise ASRError(Code.INTERNAL, "The gateway's list of models is not one. Is it a riva-gateway?")
    return tuple(_model(row) for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str))


async def fetch_readiness(config: GatewayConfig, address: Address, context: ssl.SSLContext | None) -> Readiness:
    """`GET /readyz`. Never raises for a gateway that cannot be asked."""
    try:
        status, body, retry_after = await _get(config, address, context, "/readyz")
    except ASRError as error:
        return Readiness(False, error.message)
    if isinstance(body, dict) and isinstance(body.get("ready"), bool):
        return Readiness(body["ready"], str(body.get("detail") or ""), str(body.get("engine") or ""))
    return Readiness(False, status_error(status, retry_after).message)


def _reason(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return one_line(message) if isinstance(message, str) else ""


def _model(row: dict[str, Any]) -> Model:
    languages = row.get("languages")
    return Model(
        name=row["id"],
        languages=tuple(str(name) for name in languages) if isinstance(languages, list) else (),
        streaming=bool(row.get("streaming", True)),
        offline=bool(row.get("offline", True)),
    )


async def _get(
    config: GatewayConfig, address: Address, context: ssl.SSLContext | None, path: str
) -> tuple[int, Any, str | None]:
    timeout_s = config.http_timeout_ms / 1000
    try:
        return await asyncio.wait_for(
            asyncio.to_thread(_get_blocking, config, address, context, path, timeout_s), timeout_s + 0.5
        )
    except (OSError, http.client.HTTPException) as error:  # TimeoutError is an OSError
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, http.client.RemoteDisconnected) and address.secure:
            raise hung_up() from error
        raise connection_error(cause if isinstance(cause, BaseException) else error) from error


def _get_blocking(
    config: GatewayConfig, address: Address, context: ssl.SSLContext | None, path: str, timeout_s: float
) -> tuple[int, Any, str | None]:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    if address.loopback:
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy's own localhost is not ours
    request = urllib.request.Request(address.http + path, headers={"Accept": "application/json"})  # noqa: S310  # http(s)
    if config.token:
        request.add_unredirected_header("Authorization", f"Bearer {config.token}")
    deadline = time.monotonic() + timeout_s
    try:
        answer: Any = urllib.request.build_opener(*handlers).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = bytearray()
        while piece := answer.read1(65_536):
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise ASRError(Code.INTERNAL, "The gateway's answer is over 4 MiB; it is not read.")
            if time.monotonic() > deadline:
                raise TimeoutError
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        return answer.status, content, answer.headers.get("Retry-After")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A gateway does not redirect; following one could carry the token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Treat every redirect as the answer that it is."""
        return
