"""What a webhook says, and how its receiver knows that it comes from here.

Pure. The signature covers the time and the bytes of the body, so that neither can be changed and an old request cannot
be played again later than the receiver's tolerance.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
from urllib.parse import urlsplit

from asr.errors import ASRError, Code
from server.jobs.model import MAX_URL_CHARS, JobView

SIGNATURE = "Riva-Gateway-Signature"
DELIVERY = "Riva-Gateway-Delivery"
EVENT = "Riva-Gateway-Event"
TOLERANCE_S = 300

_PREFIX_64 = ipaddress.ip_network("64:ff9b::/96")


def sign(secret: str, body: bytes, unix_s: int) -> str:
    """The value of `Riva-Gateway-Signature`: `t=<unix seconds>,v1=<hex of HMAC-SHA256 over "t.body">`."""
    return f"t={unix_s},v1={_digest(secret, body, unix_s)}"


def verify(secret: str, body: bytes, signature: str, unix_s: int, *, tolerance_s: int = TOLERANCE_S) -> bool:
    """Whether a request was signed with `secret`, not longer than `tolerance_s` away from now (`unix_s`).

    Several `v1` may stand in one signature; one that fits is enough.

    >>> verify("s", b"{}", sign("s", b"{}", 1000), 1010), verify("s", b"{}", sign("s", b"{}", 1000), 9999)
    (True, False)
    """
    parts = [part.strip().partition("=") for part in signature.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit()) or len(times[0]) > 15:
        return False
    if abs(unix_s - int(times[0])) > tolerance_s:
        return False
    wanted = _digest(secret, body, int(times[0]))
    return any(hmac.compare_digest(wanted, value) for name, _, value in parts if name == "v1" and value.isascii())


def _digest(secret: str, body: bytes, unix_s: int) -> str:
    return hmac.new(secret.encode(), f"{unix_s}.".encode() + body, hashlib.sha256).hexdigest()


def delivery_id(job_id: str) -> str:
    """The same for every attempt to tell of one job: receivers drop what they have seen."""
    return f"job-{job_id}"


def event_of(job: JobView) -> str:
    """`job.completed`, `job.failed` or `job.cancelled`."""
    return f"job.{job.status.value}"


def body_of(job: JobView) -> bytes:
    """The same bytes for every attempt. The transcript is not among them: its receiver fetches it."""
    message = {
        "id": delivery_id(job.id),
        "type": event_of(job),
        "created_at": None if job.completed_at is None else job.completed_at.isoformat(),
        "job": {
            "job_id": job.id,
            "status": job.status.value,
            "filename": job.filename,
            "created_at": job.created_at.isoformat(),
            "completed_at": None if job.completed_at is None else job.completed_at.isoformat(),
            "audio_ms": job.audio_ms,
            "error": job.error or None,
            "error_code": job.error_code or None,
            "labels": dict(job.labels),
        },
    }
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def checked_url(url: str) -> str:
    """A URL that a webhook may go to, as far as can be told without asking anyone.

    Raises:
        ASRError: `bad_request`, without the URL: it may hold a credential.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _bad("must begin with https:// (or http://) and name a host")
    if parts.username is not None or parts.password is not None:
        raise _bad("must not hold a user or a password; its requests are signed instead")
    if port == 0 or len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise _bad(f"must be plain ASCII without blanks, with at most {MAX_URL_CHARS} characters")
    return url


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet may be asked to call.

    >>> is_public("8.8.8.8"), is_public("10.0.0.1"), is_public("::ffff:127.0.0.1"), is_public("169.254.169.254")
    (True, False, False, False)
    """
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour
        if inside is None and found in _PREFIX_64:
            inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inside or found
    return found.is_global and not found.is_multicast


def _bad(what: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, f"The webhook's URL {what}.", param="webhook_url")
