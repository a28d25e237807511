"""What a refused gRPC call is told of when to come back."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2, status_pb2

from asr.errors import ASRError, Code
from asr.events import Gap, GapCause
from server.faces.riva_answers import MAX_NOTE_CHARS, MAX_NOTES, Notes, fitting, missing, retry_metadata

HEADERS_BYTES = 8 * 1024
"""What clients take; each field counts 32 bytes more than its name and value (RFC 7541 §4.1)."""


def told(error: ASRError) -> dict[str, str | bytes]:
    return dict(retry_metadata(error, 14, fitting(error.message)))


def test_the_time_to_come_back_is_said_in_every_way_that_clients_know() -> None:
    said = told(ASRError(Code.OVERLOADED, "Full.", retry_after_ms=2500))
    details = said.pop("grpc-status-details-bin")
    assert said == {"riva-gateway-retry-after-ms": "2500", "retry-after": "3", "grpc-retry-pushback-ms": "2500"}
    assert isinstance(details, bytes)
    status, info = status_pb2.Status.FromString(details), error_details_pb2.RetryInfo()
    assert (status.code, status.message) == (14, "Full.")
    assert status.details[0].Unpack(info)
    assert (info.retry_delay.seconds, info.retry_delay.nanos) == (2, 500_000_000)


def test_nothing_is_said_of_a_time_that_is_not_known() -> None:
    assert told(ASRError(Code.OVERLOADED, "Full.")) == {}


@pytest.mark.parametrize("message", ["x" * 400, "x" * 5000, "語" * 5000], ids=["short", "long", "percent-encoded"])
def test_everything_together_fits_the_headers(message: str) -> None:
    notes = Notes()
    notes.add(*(f"{number}" * MAX_NOTE_CHARS for number in range(2 * MAX_NOTES)))
    metadata = [
        *notes.metadata(),
        *retry_metadata(ASRError(Code.OVERLOADED, message, retry_after_ms=10**7), 14, message),
    ]
    size = 1500 + 100
    for name, value in metadata:
        size += len(name) + 32 + (len(value) * 4 // 3 + 4 if isinstance(value, bytes) else len(value))
    assert size < HEADERS_BYTES


def test_a_gap_in_words() -> None:
    assert missing(Gap(5, 70, GapCause.DECODE_ERROR)) == "Audio from 5 to 70 ms could not be recognized (decode_error)."
