"""Wrong credentials, counted by address: who tries many is told to wait. Pure.

Only those are slowed who show a wrong one: a good credential is checked first and always works, whoever else sits
behind the same address.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable

from asr.errors import ASRError, Code
from server.access.quotas import Ledger

FREE_FAILURES = 20
"""So many at once are a misconfigured client, not somebody who guesses."""
SECONDS_EACH = 3.0
MAX_ADDRESSES = 10_000
_IPV6_SITE_BITS = 64
TOO_MANY = "Too many wrong credentials came from this address. Wait, then send a good one."


class Attempts:
    """Failures of late.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paid_at = Ledger(MAX_ADDRESSES)

    def failed(self, address: str) -> ASRError | None:
        """Count a wrong credential from this address; an error with `retry_after_ms` where there were too many."""
        site, now = site_of(address), self._clock()
        paid_at = max(self._paid_at.get(site), now) + SECONDS_EACH
        over_s = paid_at - now - FREE_FAILURES * SECONDS_EACH
        if over_s > 1e-9:  # not counted: who is told to wait is not made to wait for longer by trying
            return ASRError(Code.RATE_LIMITED, TOO_MANY, retry_after_ms=math.ceil(over_s * 1000))
        self._paid_at.put(site, paid_at)
        return None


def site_of(address: str) -> str:
    """The address as one holder of addresses: IPv6 by its /64, IPv4 spelled in IPv6 as IPv4.

    >>> site_of("2001:db8::1"), site_of("::ffff:192.0.2.1"), site_of("unix")
    ('2001:db8::/64', '192.0.2.1', 'unix')
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_IPV6_SITE_BITS]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_SITE_BITS), strict=False))
