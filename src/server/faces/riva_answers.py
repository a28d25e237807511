"""What the Riva face says beside the results: notes in the metadata, and refusals.

All of it travels in HTTP/2 headers, which clients bound to 8 KiB: more than that, and a client is told of
the bound in place of its mistake. So everything here has a length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import grpc
import structlog
from google.rpc import error_details_pb2, status_pb2

from asr.errors import ASRError, Code
from asr.events import Gap
from asr.riva_codec import FIELDS
from asr.riva_proto import Message
from server.refusals import refusal

log = structlog.get_logger("server.stream")

NOTE_KEY = "riva-gateway-note"
CODE_KEY = "riva-gateway-code"
FIELD_KEY = "riva-gateway-field"
"""Which field of the request is at fault."""
RETRY_KEY = "riva-gateway-retry-after-ms"
MAX_NOTES = 16
MAX_NOTE_CHARS = 300
MAX_MESSAGE_BYTES = 1500
"""Of a refusal as it travels: plain characters count once, all others three times for each byte of UTF-8."""

MAX_DETAILED_BYTES = 400
"""A longer message does not travel a second time, inside the details of the status."""


@dataclass(slots=True)
class Notes:
    """What to tell the client beside the results."""

    said: list[str] = field(default_factory=list)

    def add(self, *sentences: str) -> None:
        """Say these too, each once and no more than `MAX_NOTES` in all."""
        self.said += [s for s in sentences if s not in self.said][: MAX_NOTES - len(self.said)]

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """As gRPC metadata."""
        return tuple((NOTE_KEY, _printable(sentence)) for sentence in self.said)


async def refuse(context: Message, failure: Exception, notes: Notes) -> NoReturn:
    """End a call with the status, message and metadata of `failure`. Always raises."""
    if isinstance(failure, ASRError):
        error = failure
    else:
        log.error("defect", face="riva_grpc", exc_info=failure)
        error = ASRError(Code.INTERNAL, "The gateway failed in an unexpected way; its log says how.")
    status = grpc.StatusCode[refusal(error.code).grpc_status]
    field_name = FIELDS.get(error.param or "", "")
    about: tuple[tuple[str, str], ...] = ((FIELD_KEY, field_name),) if field_name else ()
    message = fitting(error.message)
    if error.code is Code.UNSUPPORTED and field_name:
        message = fitting(f"{field_name}: {error.message}")
    retry = retry_metadata(error, status.value[0], message)
    metadata = (*notes.metadata(), (CODE_KEY, error.code.value), *about, *retry)
    await context.abort(status, message, metadata)
    raise AssertionError("abort always raises")


def retry_metadata(error: ASRError, number: int, message: str) -> tuple[tuple[str, str | bytes], ...]:
    """When to come back, in each of the ways in which gRPC clients and proxies look for it.

    Args:
        error: the refusal; nothing is said for one that names no time.
        number: the gRPC status as a number, and `message`: its text; clients compare them with those in the details.
        message: as above.
    """
    after_ms = error.retry_after_ms
    if after_ms is None:
        return ()
    said: tuple[tuple[str, str | bytes], ...] = (
        (RETRY_KEY, str(after_ms)),
        ("retry-after", str(-(-after_ms // 1000))),
        ("grpc-retry-pushback-ms", str(after_ms)),
    )
    if len(message.encode()) > MAX_DETAILED_BYTES:
        return said
    details = status_pb2.Status(code=number, message=message)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(after_ms)
    details.details.add().Pack(info)
    return (*said, ("grpc-status-details-bin", details.SerializeToString()))


def missing(gap: Gap) -> str:
    """What a client is told of audio that no result covers."""
    return f"Audio from {gap.start_ms} to {gap.end_ms} ms could not be recognized ({gap.cause.value})."


def fitting(message: str) -> str:
    """`message`, cut to what a client's bound on metadata leaves room for.

    >>> fitting("Send audio.")
    'Send audio.'
    """
    left = MAX_MESSAGE_BYTES
    for at, char in enumerate(message):
        # gRPC percent-encodes messages.
        left -= 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode("utf-8", "replace"))
        if left < 0:
            return message[:at] + "..."
    return message


def _printable(sentence: str) -> str:
    # Metadata takes printable ASCII only.
    plain = sentence[:MAX_NOTE_CHARS].encode("ascii", "replace").decode()
    return "".join(char if char.isprintable() else "?" for char in plain)
