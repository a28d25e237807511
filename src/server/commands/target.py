"""What `--server` names: a gateway by its URL, or a Riva server by its gRPC address."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from asr.settings import parse_endpoint
from server.certificates import local_certificate
from server.commands.exits import Exit, Stop


@dataclass(frozen=True, slots=True)
class Target:
    """Where audio is to be sent.

    Attributes:
        kind: `gateway` (another riva-gateway, spoken to with asr.v1) or `riva` (Riva's gRPC).
        address: a URL for a gateway, `host:port` for Riva.
        tls: whether the connection is encrypted; None where the settings decide (Riva without a scheme).
        host: the machine named.
    """

    kind: Literal["gateway", "riva"]
    address: str
    tls: bool | None
    host: str


def parse_server(text: str, *, flag: str = "--server") -> Target:
    """Read `--server`, or the flag that names a server in another command.

    Raises:
        Stop: it is neither a URL of a known kind nor `host:port`.
    """
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme in ("", "grpc", "grpcs"):
        try:
            address, tls = parse_endpoint(text)
        except ValueError as error:
            raise _not_understood(flag, text, str(error)) from None
        return Target("riva", address, tls, address.rpartition(":")[0].strip("[]"))
    if scheme not in ("https", "wss", "http", "ws"):
        raise _not_understood(flag, text, f"{scheme}:// is not known.")
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        host = None
    if not host:
        raise _not_understood(flag, text, "the URL has no host, or a port that is none.")
    return Target("gateway", text.rstrip("/"), scheme in ("https", "wss"), host)


def _not_understood(flag: str, text: str, why: str) -> Stop:
    return Stop(
        f"{flag} {text!r}: {why} A gateway is named as https://host:port, a Riva server as host:port "
        "(grpcs://host:port with TLS).",
        Exit.CONFIGURATION,
    )


def certificate_to_trust(target: Target, state_dir: Path, *, own: Path | None = None) -> Path | None:
    """The certificate of a gateway on this machine, when that is where `target` points: `own`, or the self-made one.

    It lies in this user's own state directory with its key, so trusting it for localhost gives
    nobody else anything. Over HTTPS it is trusted beside the system's roots; gRPC trusts it alone, and no public
    authority vouches for localhost.

    Args:
        target: what `--server` names.
        state_dir: where the self-made certificate lies.
        own: TLS_CERT, where the settings name one.
    """
    if not target.tls or not _is_this_machine(target.host):
        return None
    cert = own if own is not None else local_certificate(state_dir).cert
    return cert if cert.is_file() else None


def _is_this_machine(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
