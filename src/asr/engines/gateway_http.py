"""What is asked of another gateway besides streams: its address, its certificate, its models, its readiness."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from asr.config import GatewayConfig
from asr.engine import Model, Readiness
from asr.errors import ASRError, Code

MAX_ANSWER_BYTES = 4 << 20
STREAM_PATH = "/v1/stream"

_STATUS_CODES = {
    400: Code.BAD_REQUEST,
    401: Code.UNAUTHORIZED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    408: Code.TIMEOUT,
    413: Code.TOO_LARGE,
    429: Code.RATE_LIMITED,
    503: Code.OVERLOADED,
    504: Code.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway is.

    Attributes:
        http: the base URL of its HTTP side, without a slash at the end.
        stream: the URL of its WebSocket.
        secure: whether TLS is spoken.
        loopback: it is on this machine.
    """

    http: str
    stream: str
    secure: bool
    loopback: bool


def address_of(url: str) -> Address:
    """Read the URL of a gateway: `https`, `wss`, `http` or `ws`, host, port, and a path before `/v1`.

    Raises:
        ASRError: `bad_request`.
    """
    problem = ""
    port: int | None = None
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        problem = "its port is not a number from 0 to 65535"
    secure = parts.scheme.lower() in ("https", "wss")
    if parts.scheme.lower() not in ("https", "wss", "http", "ws"):
        problem = "it does not begin with https:// or wss://"
    elif not parts.hostname:
        problem = "it names no host"
    elif parts.username or parts.password or parts.query or parts.fragment:
        problem = "it holds more than a host, a port and a path; give a token with token="
    if problem:
        raise ASRError(
            Code.BAD_REQUEST,
            f"This is not the address of a gateway: {problem}. Write it as https://host:8443.",
            param="endpoint",
        )
    assert parts.hostname is not None, "checked above"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    path = parts.path.rstrip("/").removesuffix(STREAM_PATH).removesuffix("/v1")
    return Address(
        http=f"{'https' if secure else 'http'}://{place}{path}",
        stream=f"{'wss' if secure else 'ws'}://{place}{path}{STREAM_PATH}",
        secure=secure,
        loopback=parts.hostname == "localhost" or parts.hostname == "::1" or parts.hostname.startswith("127."),
    )


def tls_context(config: GatewayConfig) -> ssl.SSLContext:
    """Trust the system's roots and `ca_cert`, or anything at all where `insecure`.

    Raises:
        ASRError: `bad_request`, when `ca_cert` is not a certificate file.
    """
    context = ssl.create_default_context()
    if config.ca_cert is not None:
        try:
            context.load_verify_locations(config.ca_cert)
        except OSError as error:  # also ssl.SSLError
            raise ASRError(
                Code.BAD_REQUEST,
                f"{config.ca_cert} is not a readable PEM certificate. Give the gateway's own cert.pem.",
                param="ca_cert",
            ) from error
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def connection_error(error: BaseException) -> ASRError:
    """What a failed connection means, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ASRError(
            Code.UNAVAILABLE,
            f"The gateway's certificate is not trusted ({error.verify_message}). If it made its certificate "
            "itself, trust that one with ca_cert=… (its path is in the gateway's first lines), or switch the check off "
            "with insecure=True on your own machine.",
            retryable=False,
            param="ca_cert",
        )
    if isinstance(error, ssl.SSLError):
        return ASRError(
            Code.UNAVAILABLE,
            "TLS with the gateway failed. Does it speak plain HTTP? Then write http:// instead of https://.",
            retryable=False,
        )
    if isinstance(error, TimeoutError):
        return ASRError(Code.TIMEOUT, "The gateway did not answer in time. Is it running, and is this its port?")
    if isinstance(error, ConnectionRefusedError):
        return ASRError(Code.UNAVAILABLE, "No gateway listens there. Start it, or correct host and port.")
    if isinstance(error, http.client.HTTPException):
        return ASRError(
            Code.UNAVAILABLE,
            "What listens there does not answer in HTTP. Does it speak TLS? Then write https:// instead of http://.",
            retryable=False,
        )
    if isinstance(error, OSError):
        return ASRError(Code.UNAVAILABLE, f"The gateway cannot be reached: {error.strerror or type(error).__name__}.")
    return ASRError(Code.UNAVAILABLE, f"The connection to the gateway failed: {type(error).__name__}.")


def status_error(status: int, retry_after: str | None) -> ASRError:
    """What an HTTP status other than the one awaited means."""
    code = _STATUS_CODES.get(status, Code.UNAVAILABLE if status >= 500 else Code.BAD_REQUEST)
    sentences = {
        401: "The gateway asks for a credential, or refuses the one it got. Give token=….",
        403: "The gateway does not allow this.",
        404: "There is no gateway at this address (HTTP 404). Check its port and path.",
        429: "The gateway refuses further requests for now.",
        503: "The gateway is full or not ready.",
    }
    message = sentences.get(status, f"The gateway answered with HTTP status {status}.")
    wait = (
        int(retry_after) * 1000 if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else None
    )
    return ASRError(code, message, retry_after_ms=wait)


async def fetch_models(config: GatewayConfig, address: Address, context: ssl.SSLContext | None) -> Sequence[Model]:
    """`GET /v1/models` as the domain's words.

    Raises:
        ASRError: whatever stood in the way.
    """
    status, body, retry_after = await _get(config, address, context, "/v1/models")
    if status != 200:
        raise status_error(status, retry_after)
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
        return Readiness(body["ready"], str(body.get("detail") or ""))
    return Readiness(False, status_error(status, retry_after).message)


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
