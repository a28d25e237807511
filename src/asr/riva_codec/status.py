"""A failed call to Riva → `ASRError`: one table over status names and the texts that real servers send.

The texts matter: a stream that Riva lost after a minute of silence fails as INVALID_ARGUMENT and is worth a new
try, a missing model fails as the same and is not.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from asr.errors import Action, ASRError, Code

Phase = Literal["open", "stream", "call"]
"""When it failed: before the server said anything on a stream, after it had, or in a unary call."""


class _Row(NamedTuple):
    status: str
    details: str
    """A pattern searched in the details, case ignored; "" matches all."""
    code: Code
    message: str
    retryable: bool
    param: str | None = None
    quote: bool = False
    """Whether the server's own words help the caller."""


_CREDENTIALS = "The recognizer refused the credentials that this program is set up with. The operator must correct them"

_TABLE = (
    _Row(
        "INVALID_ARGUMENT",
        "START flag",
        Code.UNAVAILABLE,
        "The recognizer gave the stream up, as it does after a minute without audio. Open a new stream",
        True,
    ),
    _Row(
        "INVALID_ARGUMENT|NOT_FOUND",
        "unavailable model|model not found|model is not available|unknown model",
        Code.NOT_FOUND,
        "The recognizer has no model for this language, sample rate and kind of request",
        False,
        "model",
        True,
    ),
    _Row(
        "INVALID_ARGUMENT",
        r"header format|mono audio|channel|encoding|sample.?rate",
        Code.BAD_AUDIO,
        "The recognizer does not accept this audio",
        False,
        "audio",
        True,
    ),
    _Row(
        "INVALID_ARGUMENT|OUT_OF_RANGE|FAILED_PRECONDITION",
        "",
        Code.BAD_REQUEST,
        "The recognizer did not accept the request",
        False,
        None,
        True,
    ),
    _Row(
        "NOT_FOUND",
        "function",
        Code.UNAVAILABLE,
        "The recognizer's cloud function is not there any more. The operator must set its current function-id",
        False,
    ),
    _Row("NOT_FOUND", "", Code.NOT_FOUND, "The recognizer does not have what was asked for", False, None, True),
    _Row("UNAUTHENTICATED|PERMISSION_DENIED", "", Code.UNAVAILABLE, _CREDENTIALS, False),
    _Row(
        "RESOURCE_EXHAUSTED",
        "larger than max",
        Code.TOO_LARGE,
        "A message is over the size that the recognizer takes. Stream the audio, or send less of it",
        False,
        "audio",
    ),
    _Row("RESOURCE_EXHAUSTED", "", Code.OVERLOADED, "The recognizer is full. Try again shortly", True),
    _Row("", r"\b429\b|too many requests", Code.OVERLOADED, "The recognizer limits its callers. Wait a little", True),
    _Row("DEADLINE_EXCEEDED", "", Code.TIMEOUT, "The recognizer did not answer in time. Try again", True),
    _Row("INTERNAL|CANCELLED", "deadline", Code.TIMEOUT, "The recognizer did not answer in time. Try again", True),
    _Row(
        "INTERNAL|UNKNOWN|CANCELLED",
        "RST_STREAM|GOAWAY|stream removed|socket closed|connection reset",
        Code.UNAVAILABLE,
        "The recognizer dropped the stream. Open a new one",
        True,
    ),
    _Row("INTERNAL", "", Code.INTERNAL, "The recognizer failed while it worked on the audio. Try again", True),
    _Row("CANCELLED|ABORTED", "", Code.UNAVAILABLE, "The recognizer dropped the stream. Open a new one", True),
    _Row(
        "UNIMPLEMENTED",
        "",
        Code.UNAVAILABLE,
        "What answers at the recognizer's address is no Riva speech recognition. The operator must check the address",
        False,
    ),
)

_UNAVAILABLE: dict[Phase, str] = {
    "open": "The recognizer cannot be reached. Try again shortly",
    "stream": "The connection to the recognizer broke off. Open a new stream",
    "call": "The recognizer cannot be reached. Try again shortly",
}

_ADDRESS = re.compile(
    r"\w+://\S+"  # a URL
    r"|\bipv[46]:\S+"  # gRPC's peer names
    r"|\[[0-9a-f:]+\](?::\d+)?"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"
    r"|\b[\w.-]+:\d{2,5}\b"  # host:port
    r"|\b(?:[a-z0-9-]+\.)+[a-z]{2,}\b(?![\w-])",  # a dotted name; model names carry digits after the dot
    re.IGNORECASE,
)
_MAX_QUOTE = 200


def error_from_status(status: str, details: str, phase: Phase) -> ASRError:
    """The failure that a gRPC status means.

    Args:
        status: the status name, such as `UNAVAILABLE`.
        details: the server's (or gRPC's) text; quoted only where it helps the caller, without addresses.
        phase: when it happened.
    """
    if status == "UNAVAILABLE" and not re.search(r"\b429\b|too many requests", details, re.IGNORECASE):
        return ASRError(Code.UNAVAILABLE, _UNAVAILABLE[phase] + ".")
    for row in _TABLE:
        if row.status and status not in row.status.split("|"):
            continue
        if row.details and not re.search(row.details, details, re.IGNORECASE):
            continue
        said = scrub(details) if row.quote else ""
        message = f'{row.message}. It says: "{said}"' if said else row.message + "."
        return ASRError(
            row.code,
            message,
            retryable=row.retryable,
            action=Action.NONE if row.code is Code.UNAVAILABLE and not row.retryable else None,
            param=row.param,
        )
    return ASRError(Code.INTERNAL, f"The recognizer failed in an unknown way ({status}).")


def scrub(details: str) -> str:
    """The text in one line of at most 200 characters, without anything that looks like an address."""
    line = " ".join(_ADDRESS.sub("…", details).split())
    return line if len(line) <= _MAX_QUOTE else line[: _MAX_QUOTE - 1] + "…"
