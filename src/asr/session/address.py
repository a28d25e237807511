"""Where a gateway is, what is trusted there, and what it means when it cannot be reached."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from asr.config import GatewayConfig
from asr.errors import ASRError, Code

STREAM_PATH = "/v1/stream"
MAX_QUOTE = 200  # characters

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


# OpenSSL's numbers; its own texts name the host.
_CERTIFICATE_FAULTS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "its chain ends in one that is self-signed",
    20: "its issuer is not known here",
    21: "its issuer is not known here",
    62: "it is for another host name",
    64: "it is for another IP address",
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
        # rule(unverified-tls): the caller asked for it, in so many words
        context.verify_mode = ssl.CERT_NONE
    return context


def connection_error(error: BaseException) -> ASRError:
    """What a failed connection means, for people. No address or name from `error` is in it: a client may read it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _CERTIFICATE_FAULTS.get(getattr(error, "verify_code", 0))
        why = f" ({fault})" if fault else ""
        return ASRError(
            Code.UNAVAILABLE,
            f"The gateway's certificate is not trusted{why}. If it made its certificate "
            "itself, trust that one with ca_cert=… (its path is in the gateway's first lines), or switch the check off "
            "with insecure=True on your own machine.",
            retryable=False,
            param="ca_cert",
        )
    if isinstance(error, ssl.SSLError):
        return ASRError(
            Code.UNAVAILABLE,
            "TLS with the gateway failed. Does it speak plain HTTP? Then write http:// instead of https://.",
            retryable=isinstance(error, ssl.SSLEOFError),  # cut off, as by a gateway that goes down
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
    if isinstance(error, socket.gaierror):
        return ASRError(Code.UNAVAILABLE, "The gateway cannot be reached: its name leads to no address.")
    if isinstance(error, OSError):
        # Never `strerror`: asyncio writes the address into it.
        why = f": {os.strerror(error.errno)}" if error.errno else ""
        return ASRError(Code.UNAVAILABLE, f"The gateway cannot be reached{why}.")
    return ASRError(Code.UNAVAILABLE, f"The connection to the gateway failed: {type(error).__name__}.")


def hung_up() -> ASRError:
    """The far side took the TLS handshake, as it seemed, and closed the connection without an answer."""
    return ASRError(
        Code.UNAVAILABLE,
        "The gateway closed the connection before it answered. Where it asks clients for certificates, "
        "its gRPC port takes one, and this client shows none.",
    )


def plain_text(content_type: str, body: bytes) -> str:
    """A plain text as `one_line`; "" for anything else, such as a page."""
    if content_type.partition(";")[0].strip().lower() != "text/plain":
        return ""
    return one_line(body[: 8 * MAX_QUOTE].decode(errors="replace"))


def one_line(text: str) -> str:
    """The first 200 characters in one printable line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_QUOTE else line[: MAX_QUOTE - 1] + "…"


def status_error(status: int, retry_after: str | None, told: str = "", *, refused: str = "request") -> ASRError:
    """What an HTTP status other than the one awaited means.

    Args:
        status: the number.
        retry_after: that header.
        told: the gateway's own reason, as `one_line` gives it.
        refused: what it was asked for.
    """
    code = _STATUS_CODES.get(status, Code.UNAVAILABLE if status >= 500 else Code.BAD_REQUEST)
    sentences = {
        401: "The gateway asks for a credential, or refuses the one it got. Give token=….",
        403: "The gateway does not allow this.",
        404: "There is no gateway at this address (HTTP 404). Check its port and path.",
        429: "The gateway refuses further requests for now.",
        503: f"The gateway refuses the {refused}: {told}" if told else "The gateway is full or not ready.",
    }
    message = sentences.get(status, f"The gateway answered with HTTP status {status}.")
    wait = (
        int(retry_after) * 1000 if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else None
    )
    return ASRError(code, message, retry_after_ms=wait)
