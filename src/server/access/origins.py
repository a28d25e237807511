"""Which web pages may talk to this gateway, and by which names it may be called. Pure.

A browser adds `Origin` to what a page of another site sends, and to every WebSocket; nobody else needs to. A gateway on
localhost that asks for no credential can be reached by every page that its user opens: so an origin is checked
whether or not credentials are, and so is the name in `Host`, which a page that had its own name point here (DNS
rebinding) cannot choose.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

ANY = "*"
_PORTS = {"http": 80, "https": 443}
_LOCAL = "localhost"


def parse_origins(text: str) -> frozenset[str]:
    """The origins in a list with commas, as browsers spell them; `*` for all.

    Raises:
        ValueError: one is no origin; it says which.

    >>> sorted(parse_origins("https://a.example, http://b.example:8080"))
    ['http://b.example:8080', 'https://a.example']
    """
    found = set[str]()
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part != ANY and (part != part.lower() or _split(part) is None or not part.isascii()):
            raise ValueError(
                f"{part!r} is not an origin. Write scheme and host as a browser does: https://app.example, in lower "
                "case, with a port only where it is not the usual one, and without a path."
            )
        found.add(part)
    return frozenset(found)


class OriginPolicy:
    """Who may call from a web page, and by which name.

    Args:
        allowed: origins, as `parse_origins` gives them.
        is_tls: whether the port speaks TLS. Where it does not, TLS may end at a proxy in front, so a page that was
            loaded over either comes from here.
        own_hosts: the only names that the gateway may be called by; none: any. Loopback addresses and `localhost` are
            always among them, and so are the hosts of `allowed`.
    """

    def __init__(self, allowed: frozenset[str], *, is_tls: bool, own_hosts: Iterable[str] = ()) -> None:
        self.allowed = allowed
        self._schemes = ("https",) if is_tls else ("http", "https")
        named = frozenset(host.lower() for host in own_hosts)
        self._hosts = named | {parts[1] for parts in map(_split, allowed) if parts} if named else frozenset()

    def admits(self, origins: list[str], hosts: list[str]) -> bool:
        """Whether a request may come from there.

        Args:
            origins: its `Origin` headers; none: no web page sent it.
            hosts: its `Host` headers.
        """
        if not origins:
            return True
        if len(origins) > 1 or origins[0] == "null":
            return False
        return self.is_listed(origins[0]) or self._is_own(origins[0], hosts)

    def is_listed(self, origin: str) -> bool:
        """Whether an origin other than our own was allowed by name, or all were."""
        return origin in self.allowed or (ANY in self.allowed and origin != "null")

    def knows(self, hosts: list[str]) -> bool:
        """Whether the gateway goes by the name in these `Host` headers; who names none is no browser."""
        if not self._hosts or not hosts or ANY in self.allowed:
            return True
        parts = _split(f"http://{hosts[0].lower()}", exact=False) if len(hosts) == 1 else None
        return parts is not None and (parts[1] in self._hosts or is_loopback(parts[1]))

    def _is_own(self, origin: str, hosts: list[str]) -> bool:
        shown = _split(origin)
        if shown is None or len(hosts) != 1 or shown[0] not in self._schemes:
            return False
        here = _split(f"{shown[0]}://{hosts[0].lower()}", exact=False)
        return here is not None and here == shown


def is_loopback(host: str) -> bool:
    """Whether a host's name or address (without brackets) stays on this machine.

    >>> is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("localhost"), is_loopback("localhost.example")
    (True, True, True, False)
    """
    if host == _LOCAL:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(origin: str, *, exact: bool = True) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin in the only spelling that a browser gives it; None for anything else.

    `exact`: the usual port must not be named, as in an `Origin`; a `Host` may name it.
    """
    try:
        parts = urlsplit(origin)
        port, host = parts.port, parts.hostname
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host:
        return None
    usual = _PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    plain, named = f"{parts.scheme}://{shown}", f"{parts.scheme}://{shown}:{port}"
    fits = origin == named and port != usual if port is not None else origin == plain
    if not fits and not (not exact and origin in (plain, named)):
        return None
    return parts.scheme, host, usual if port is None else port
