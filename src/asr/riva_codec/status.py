"""A failed call to Riva → `ASRError`: one table over status names, texts and phases.

The texts matter. A stream that Riva lost after a minute of silence fails as INVALID_ARGUMENT and is worth a new
try; a missing model fails as the same and is not. The first row that fits decides. Whether to try again is said for
the same request on any recognizer of the same kind: what only an operator can correct is not retried, and the
caller is told no more than that. The texts are those of Riva, Triton, NVIDIA Cloud Functions and gRPC 1.85.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final as Const
from typing import Literal, NamedTuple

from asr.errors import Action, ASRError, Code
from asr.riva_codec.quote import scrub

Phase = Literal["open", "stream", "call"]
"""When it failed: before the server said anything on a stream, after it had, or in a unary call."""

MAX_RETRY_AFTER_MS: Const = 600_000
"""The longest pause that a server's push-back is taken for."""
BUSY_MS: Const = 1_000
"""The pause after a refusal by a full server that does not say how long."""
LIMITED_MS: Const = 5_000
"""The same after a refusal by one that counts its callers' requests."""


class _Row(NamedTuple):
    status: str
    """Names, separated by `|`; "" is any."""
    details: str
    """A pattern searched in the details, case ignored; "" fits all."""
    code: Code
    message: str
    retryable: bool
    param: str | None = None
    quote: bool = False
    """Whether the server's own words help the caller."""
    retry_after_ms: int | None = None
    phase: Phase | None = None
    """None is any."""


_CREDENTIALS = "The recognizer refused the credentials that this program is set up with. The operator must correct them"
_UNTRUSTED = "The recognizer's TLS certificate {}. The operator must correct it"
_NO_TLS = "The recognizer and this program do not agree on TLS. The operator must correct one of them"
_NO_RIVA = "What answers at the recognizer's address is no Riva speech recognition. The operator must check the address"
_CLOUD = "The recognizer's cloud function is not there any more. The operator must set its current function-id"
_CREDITS = (
    "The account that this program is set up with has no credits left for the recognizer. The operator must see to it"
)
_AWAY = "The recognizer cannot be reached. Try again shortly"
_NO_NAME = "The recognizer cannot be reached: its name leads to no address. Try again shortly"
_NO_HTTP2 = "The recognizer cannot be reached: what answers at its address speaks no gRPC. Try again shortly"
_BALANCER = "A proxy answers in the recognizer's place, and finds none behind it. Try again shortly"
_BROKE = "The connection to the recognizer broke off. Open a new stream"
_ENDED = "The recognizer ended the connection, as it does when it restarts. Open a new stream"
_PINGS = "The recognizer ended the connection because of too many keepalive pings. Open a new stream"
_FROZEN = "The recognizer does not answer pings any more. Open a new stream"
_DROPPED = "The recognizer dropped the stream. Open a new one"
_IDLE = "The recognizer gave the stream up, as it does after a minute without audio. Open a new stream"
_FULL = "The recognizer is full. Try again shortly"
_LIMITED = "The recognizer limits its callers. Wait a little"
_LOADING = "The recognizer has not finished loading its model. Try again shortly"
_LATE = "The recognizer did not answer in time. Try again"
_FAILED = "The recognizer failed while it worked on the audio. Try again"
_MASKED = "The recognizer ended the stream for a reason that did not get through. Open a new one"
_UNREADABLE = "The recognizer's answer cannot be read. Try again"
_TOO_LARGE = "A message is over the size that the recognizer takes. Stream the audio, or send less of it"
_AUDIO_FAILED = "The audio could not be sent, because reading it failed"

_BAD = "INVALID_ARGUMENT|OUT_OF_RANGE|FAILED_PRECONDITION"
_TLS = "tls handshake|ssl handshake|ssl_error"

_TABLE = (
    # Texts that mean the same under every status.
    _Row("", "START flag", Code.UNAVAILABLE, _IDLE, True),
    _Row("", r"status:? 429|\b429 |too many requests", Code.OVERLOADED, _LIMITED, True, retry_after_ms=LIMITED_MS),
    _Row("", r"(?<!sample )rate.?limit|quota", Code.OVERLOADED, _LIMITED, True, retry_after_ms=LIMITED_MS),
    _Row("", r"credits? (?:has |have )?(?:expired|exhausted)|out of credits", Code.UNAVAILABLE, _CREDITS, False),
    _Row("", "payment.required|status: 402", Code.UNAVAILABLE, _CREDITS, False),
    _Row("", "Exceeds maximum queue size", Code.OVERLOADED, _FULL, True, retry_after_ms=BUSY_MS),
    _Row("", "sequence slot|max(?:imum)?.* sequences", Code.OVERLOADED, _FULL, True, retry_after_ms=BUSY_MS),
    _Row("", "Request timeout expired", Code.OVERLOADED, _FULL, True, retry_after_ms=BUSY_MS),
    _Row("", "out of memory|memory limit exceeded", Code.OVERLOADED, _FULL, True, retry_after_ms=BUSY_MS),
    _Row("", "no available versions|not ready|still loading", Code.UNAVAILABLE, _LOADING, True, retry_after_ms=BUSY_MS),
    _Row("", "function.*not found|function.*inactive", Code.UNAVAILABLE, _CLOUD, False),
    # gRPC for asyncio says this when a write fails as the call ends, whatever the server's own status was.
    _Row("INTERNAL", "Internal error from Core", Code.UNAVAILABLE, _MASKED, True),
    _Row("INTERNAL", "deserializing response", Code.INTERNAL, _UNREADABLE, True),
    # What was asked for.
    _Row(
        "INVALID_ARGUMENT|NOT_FOUND",
        "unavailable model|model not found|model is not available|unknown model",
        Code.NOT_FOUND,
        "The recognizer has no model for this language, sample rate and kind of request",
        False,
        "model",
        quote=True,
    ),
    _Row(
        "INVALID_ARGUMENT",
        r"header format|mono audio|channel|encoding|sample.?rate",
        Code.BAD_AUDIO,
        "The recognizer does not accept this audio",
        False,
        "audio",
        quote=True,
    ),
    _Row(_BAD, "", Code.BAD_REQUEST, "The recognizer did not accept the request", False, quote=True),
    _Row("NOT_FOUND", "", Code.NOT_FOUND, "The recognizer does not have what was asked for", False, quote=True),
    # Size and number. "CLIENT: Received" is an answer of the server's, and none that a transcript could need.
    _Row("RESOURCE_EXHAUSTED", "CLIENT: Received message larger", Code.INTERNAL, _UNREADABLE, True),
    _Row("RESOURCE_EXHAUSTED", "larger than max", Code.TOO_LARGE, _TOO_LARGE, False, "audio"),
    _Row("RESOURCE_EXHAUSTED", "", Code.OVERLOADED, _FULL, True, retry_after_ms=BUSY_MS),
    # TLS, as gRPC puts it. A server that wants a certificate of ours just closes the connection.
    _Row("UNAVAILABLE", "certificate has expired", Code.UNAVAILABLE, _UNTRUSTED.format("has expired"), False),
    _Row("UNAVAILABLE", "not yet valid", Code.UNAVAILABLE, _UNTRUSTED.format("is not valid yet"), False),
    _Row(
        "UNAVAILABLE",
        "hostname verification|peer name .* not in peer certificate",
        Code.UNAVAILABLE,
        _UNTRUSTED.format("is for another name"),
        False,
    ),
    _Row(
        "UNAVAILABLE",
        "CERTIFICATE_VERIFY_FAILED|certificate signature failure|self.signed",
        Code.UNAVAILABLE,
        _UNTRUSTED.format("is of an authority that this program does not trust"),
        False,
    ),
    _Row("UNAVAILABLE", f"(?:{_TLS}).*(?:socket closed|recvmsg|reset)", Code.UNAVAILABLE, _AWAY, True),
    _Row("UNAVAILABLE", f"(?:{_TLS}).*WRONG_VERSION_NUMBER", Code.UNAVAILABLE, _NO_TLS, False),
    # Bits that flipped on the way: worth a new try, unlike a certificate that is wrong.
    _Row("UNAVAILABLE", _TLS, Code.UNAVAILABLE, "The connection to the recognizer was damaged. Try again", True),
    _Row("PERMISSION_DENIED", "RST_STREAM", Code.UNAVAILABLE, _NO_TLS, False),
    _Row("UNAUTHENTICATED|PERMISSION_DENIED", "", Code.UNAVAILABLE, _CREDENTIALS, False),
    _Row(
        "UNKNOWN|INTERNAL|UNAVAILABLE",
        "unauthorized|authentication failed|invalid api.?key",
        Code.UNAVAILABLE,
        _CREDENTIALS,
        False,
    ),
    # The way there.
    _Row("UNAVAILABLE", "errors? resolving|DNS|name resolution|lookup", Code.UNAVAILABLE, _NO_NAME, True),
    _Row("UNAVAILABLE", r"parsing HTTP/2|http1\.x", Code.UNAVAILABLE, _NO_HTTP2, True),
    _Row("UNAVAILABLE|UNKNOWN|INTERNAL", "http2 header with status: 5", Code.UNAVAILABLE, _BALANCER, True),
    _Row("UNIMPLEMENTED", "", Code.UNAVAILABLE, _NO_RIVA, False),
    _Row("", "too_many_pings", Code.UNAVAILABLE, _PINGS, True),
    _Row("UNAVAILABLE", "ping timeout|keepalive watchdog|timed out \\(110\\)", Code.UNAVAILABLE, _FROZEN, True),
    _Row("UNAVAILABLE", "GOAWAY|max connection age|Cancelling all calls", Code.UNAVAILABLE, _ENDED, True),
    _Row("UNAVAILABLE", "RST_STREAM", Code.UNAVAILABLE, _DROPPED, True),
    _Row("UNAVAILABLE", "", Code.UNAVAILABLE, _BROKE, True, phase="stream"),
    _Row("UNAVAILABLE", "", Code.UNAVAILABLE, _AWAY, True),
    # The rest: time, breaks that are not called UNAVAILABLE, and defects.
    _Row("DEADLINE_EXCEEDED", "", Code.TIMEOUT, _LATE, True),
    _Row("INTERNAL|CANCELLED", "deadline", Code.TIMEOUT, _LATE, True),
    _Row("UNKNOWN", "Exception iterating requests", Code.INTERNAL, _AUDIO_FAILED, False),
    _Row(
        "INTERNAL|UNKNOWN|CANCELLED",
        "RST_STREAM|GOAWAY|stream removed|socket closed|connection reset",
        Code.UNAVAILABLE,
        _DROPPED,
        True,
    ),
    _Row("CANCELLED|ABORTED", "", Code.UNAVAILABLE, _DROPPED, True),
    _Row("INTERNAL|DATA_LOSS", "", Code.INTERNAL, _FAILED, True),
)

Trailers = Sequence[tuple[str, str | bytes]]
"""Trailing metadata of a call."""


def error_from_status(status: str, details: str, phase: Phase, trailers: Trailers = ()) -> ASRError:
    """The failure that a gRPC status means.

    Args:
        status: the status name, such as `UNAVAILABLE`.
        details: the server's (or gRPC's) text; quoted only where it helps the caller, see `scrub`.
        phase: when it happened.
        trailers: the call's trailing metadata: a pause that the server asks for in `grpc-retry-pushback-ms`
            (negative: do not try again) or `retry-after` (seconds) goes before the table's own.
    """
    row = next((row for row in _TABLE if _fits(row, status, details, phase)), None)
    if row is None:
        row = _Row("", "", Code.INTERNAL, f"The recognizer failed in an unknown way ({status})", True)
    said = scrub(details) if row.quote else ""
    retryable, retry_after_ms = row.retryable, row.retry_after_ms
    pushed_ms = _pushback_ms(trailers)
    if retryable and pushed_ms is not None:
        retryable, retry_after_ms = pushed_ms >= 0, max(pushed_ms, 0) or None
    return ASRError(
        row.code,
        f'{row.message}. It says: "{said}"' if said else row.message + ".",
        retryable=retryable,
        retry_after_ms=retry_after_ms if retryable else None,
        action=Action.NONE if row.code is Code.UNAVAILABLE and not retryable else None,
        param=row.param,
    )


def _fits(row: _Row, status: str, details: str, phase: Phase) -> bool:
    if row.status and status not in row.status.split("|"):
        return False
    if row.phase is not None and row.phase != phase:
        return False
    return not row.details or re.search(row.details, details, re.IGNORECASE) is not None


def _pushback_ms(trailers: Trailers) -> int | None:
    said = {key.lower(): value for key, value in trailers}
    for key, unit_ms in (("grpc-retry-pushback-ms", 1), ("retry-after", 1000)):
        value = said.get(key)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}", value.strip()):
            return min(int(value) * unit_ms, MAX_RETRY_AFTER_MS)
    return None
