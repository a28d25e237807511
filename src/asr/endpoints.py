"""What names a recognizer's address and what goes with it, read from text: `host:port` and gRPC metadata. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import ip_address

_METADATA_KEY = re.compile(r"^[0-9a-z_.-]+$")
PRINTABLE = re.compile(r"^[\x20-\x7e]*$")
"""What may travel in a header."""


def parse_endpoint(text: str) -> tuple[str, bool | None]:
    """`host:port`, `grpc://host:port` or `grpcs://host:port` → (`host:port`, whether TLS is meant).

    The second is None where no scheme says. Raises ValueError, in a sentence.
    """
    scheme, mark, rest = text.strip().rpartition("://")
    if mark and scheme.lower() not in ("grpc", "grpcs"):
        raise ValueError(f"{scheme}:// is not how a Riva server is spoken to. Give host:port, or grpcs://host:port.")
    host, colon, port = rest.rstrip("/").rpartition(":")
    if "@" in rest or "/" in host or " " in rest:
        raise ValueError("an endpoint is only a host and a port. Give host:port, such as riva.example:50051.")
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("an endpoint needs a host and a port. Give host:port, such as riva.example:50051.")
    if ":" in host and not (host.startswith("[") and host.endswith("]") and is_ipv6(host[1:-1])):
        raise ValueError("an IPv6 address stands in brackets before its port. Give [::1]:50051.")
    return f"{host}:{int(port)}", scheme.lower() == "grpcs" if mark else None


def parse_metadata(text: str) -> tuple[tuple[str, str], ...]:
    """gRPC metadata from a JSON object of texts, or from `key=value,key=value`.

    Raises ValueError, in a sentence that repeats no value.
    """
    pairs: Mapping[str, object]
    if text.lstrip().startswith("{"):
        pairs = _json_object(text)
    else:
        parts = [part.partition("=") for part in text.split(",") if part.strip()]
        if not all(mark for _, mark, _ in parts):
            raise ValueError("a part of it has no '='. Write key=value,key=value, or a JSON object.")
        pairs = {key.strip(): value.strip() for key, _, value in parts}
    for key, value in pairs.items():
        if not _METADATA_KEY.match(key.lower()) or key.lower().endswith("-bin") or key.lower().startswith("grpc-"):
            raise ValueError("one of its keys is not a gRPC metadata key. Use letters, digits, '-', '_' and '.'.")
        if not isinstance(value, str) or not PRINTABLE.match(value):
            raise ValueError("one of its values is not printable ASCII text. Quote numbers; drop line ends.")
    return tuple((key.lower(), str(value)) for key, value in pairs.items())


def _json_object(text: str) -> Mapping[str, object]:
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise ValueError('it begins like JSON and is not a JSON object. Write {"key": "value"}, or key=value.')
    return loaded


def is_ipv6(text: str) -> bool:
    """Whether it is an IPv6 address, without brackets."""
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def is_loopback(endpoint: str) -> bool:
    """Whether `host:port` is on this machine."""
    host = endpoint.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
