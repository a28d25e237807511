"""What a failed call to Riva means, row by row, in the words that real servers and gRPC use."""

from __future__ import annotations

import pytest

from asr.errors import Action, ASRError, Code
from asr.riva_codec import Phase, error_from_status

PHASES: tuple[Phase, ...] = ("open", "stream", "call")
CONNECT = "failed to connect to all addresses; last error: "
PEER = "ipv4:10.1.2.3:50051: "
TLS = f"{CONNECT}UNKNOWN: {PEER}Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: "
VERIFY = f"{TLS}error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: "


def rst(code: int) -> str:
    return f"Stream removed (RST_STREAM (Received RST_STREAM with error code {code}))"


@pytest.mark.parametrize(
    ("status", "details", "code", "retryable", "words"),
    [
        # A lost sequence, under each status that carries it.
        *(
            (
                status,
                "in ensemble 'e', inference request for sequence 429 to model 'x' must specify the START flag on the "
                "first request of the sequence",
                "unavailable",
                True,
                "after a minute without audio",
            )
            for status in ("INVALID_ARGUMENT", "UNKNOWN", "INTERNAL")
        ),
        # What was asked for.
        (
            "INVALID_ARGUMENT",
            "Error: Unavailable model requested given these parameters: language_code=en; sample_rate=16000; "
            "type=online; ",
            "not_found",
            False,
            "language_code=en",
        ),
        (
            "INVALID_ARGUMENT",
            "Error: Unavailable model requested. Lang: en-US, Type: offline",
            "not_found",
            False,
            "no model",
        ),
        ("INVALID_ARGUMENT", "Model not found for language xx", "not_found", False, "no model"),
        ("NOT_FOUND", "Model not found for language xx", "not_found", False, "no model"),
        ("INVALID_ARGUMENT", "Error: config format doesn't match with header format", "bad_audio", False, "this audio"),
        ("INVALID_ARGUMENT", "Only mono audio supported", "bad_audio", False, "this audio"),
        ("INVALID_ARGUMENT", "unsupported sample rate limit", "bad_audio", False, "this audio"),
        ("INVALID_ARGUMENT", "no", "bad_request", False, 'It says: "no"'),
        ("FAILED_PRECONDITION", "no", "bad_request", False, "did not accept"),
        ("OUT_OF_RANGE", "no", "bad_request", False, "did not accept"),
        ("NOT_FOUND", "nothing here", "not_found", False, "nothing here"),
        # Loading.
        (
            "UNAVAILABLE",
            "Request for unknown model: 'x' has no available versions",
            "unavailable",
            True,
            "not finished loading",
        ),
        # NVIDIA Cloud Functions.
        ("NOT_FOUND", "Function 'a': Not found for account 'b'", "unavailable", False, "current function-id"),
        ("UNAUTHENTICATED", "bad key nvapi-123", "unavailable", False, "credentials"),
        ("PERMISSION_DENIED", "", "unavailable", False, "credentials"),
        ("UNAUTHENTICATED", "Received http2 header with status: 401", "unavailable", False, "credentials"),
        ("PERMISSION_DENIED", "Received http2 header with status: 403", "unavailable", False, "credentials"),
        ("UNKNOWN", "Unauthorized", "unavailable", False, "credentials"),
        ("PERMISSION_DENIED", "Cloud credits expired - contact us", "unavailable", False, "no credits left"),
        ("UNKNOWN", "Received http2 header with status: 402", "unavailable", False, "no credits left"),
        ("UNAVAILABLE", "Received http2 header with status: 429", "overloaded", True, "limits its callers"),
        ("UNKNOWN", "429 Too Many Requests", "overloaded", True, "limits its callers"),
        ("RESOURCE_EXHAUSTED", "rate limit exceeded", "overloaded", True, "limits its callers"),
        # Full.
        ("UNAVAILABLE", "Exceeds maximum queue size", "overloaded", True, "is full"),
        ("INTERNAL", "Error: Exceeds maximum queue size", "overloaded", True, "is full"),
        ("UNAVAILABLE", "Request timeout expired", "overloaded", True, "is full"),
        ("INTERNAL", "sequence batcher: maximum number of sequences reached", "overloaded", True, "is full"),
        ("INTERNAL", "CUDA error: out of memory", "overloaded", True, "is full"),
        ("RESOURCE_EXHAUSTED", "too many streams", "overloaded", True, "is full"),
        ("RESOURCE_EXHAUSTED", "Bandwidth exhausted or memory limit exceeded", "overloaded", True, "is full"),
        ("RESOURCE_EXHAUSTED", rst(11), "overloaded", True, "is full"),
        # Size.
        (
            "RESOURCE_EXHAUSTED",
            "SERVER: Received message larger than max (5242887 vs. 4194304)",
            "too_large",
            False,
            "over the size",
        ),
        (
            "RESOURCE_EXHAUSTED",
            "Received message larger than max (5242887 vs. 4194304)",
            "too_large",
            False,
            "over the",
        ),
        ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 4)", "too_large", False, "over the size"),
        (
            "RESOURCE_EXHAUSTED",
            "Stream removed (CLIENT: Received message larger than max (4294967295 vs. 1048576))",
            "internal",
            True,
            "cannot be read",
        ),
        ("INTERNAL", "Exception deserializing response!", "internal", True, "cannot be read"),
        # TLS.
        ("UNAVAILABLE", f"{VERIFY}certificate has expired: OK", "unavailable", False, "has expired"),
        ("UNAVAILABLE", f"{VERIFY}certificate is not yet valid: OK", "unavailable", False, "not valid yet"),
        ("UNAVAILABLE", f"{VERIFY}unable to get local issuer certificate: OK", "unavailable", False, "not trust"),
        ("UNAVAILABLE", f"{VERIFY}self signed certificate in certificate chain", "unavailable", False, "not trust"),
        (
            "UNAVAILABLE",
            f"{TLS}error:1a000064:ECDSA routines:OPENSSL_internal:BAD_SIGNATURE: certificate signature failure: OK",
            "unavailable",
            False,
            "not trust",
        ),
        (
            "UNAVAILABLE",
            f"{CONNECT}UNKNOWN: {PEER}Custom verification check failed with error: UNAUTHENTICATED: Hostname "
            "Verification Check failed.",
            "unavailable",
            False,
            "for another name",
        ),
        (
            "UNAVAILABLE",
            f"{CONNECT}UNKNOWN: {PEER}Peer name riva.example is not in peer certificate",
            "unavailable",
            False,
            "for another name",
        ),
        (
            "UNAVAILABLE",
            f"{TLS}error:100000f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate "
            "verification context: OK",
            "unavailable",
            False,
            "do not agree on TLS",
        ),
        ("UNAVAILABLE", f"{CONNECT}UNKNOWN: {PEER}Ssl handshake failed: Socket closed", "unavailable", True, "reached"),
        ("PERMISSION_DENIED", rst(12), "unavailable", False, "do not agree on TLS"),
        # The way there.
        ("UNAVAILABLE", f"{CONNECT}UNKNOWN: {PEER}Connection refused", "unavailable", True, "cannot be reached"),
        (
            "UNAVAILABLE",
            f"{CONNECT}UNKNOWN: {PEER}connection attempt timed out before receiving SETTINGS frame",
            "unavailable",
            True,
            "cannot be reached",
        ),
        (
            "UNAVAILABLE",
            "errors resolving riva.example:50051: [field:hostname lookup error:address lookup failed for "
            "riva.example:50051: Domain name not found]",
            "unavailable",
            True,
            "its name leads to no address",
        ),
        ("UNAVAILABLE", "DNS resolution failed for riva.example:50051", "unavailable", True, "its name leads"),
        (
            "UNAVAILABLE",
            f"{CONNECT}INTERNAL: {PEER}Failed parsing HTTP/2 (Expected SETTINGS frame as the first frame, got frame "
            "type 80) (Trying to connect an http1.x server (HTTP status 400))",
            "unavailable",
            True,
            "speaks no gRPC",
        ),
        ("UNAVAILABLE", "Received http2 header with status: 502", "unavailable", True, "A proxy answers"),
        ("UNKNOWN", "Received http2 header with status: 500", "unavailable", True, "A proxy answers"),
        ("UNIMPLEMENTED", "Received http2 header with status: 404", "unavailable", False, "no Riva"),
        ("UNIMPLEMENTED", "Method not found!", "unavailable", False, "no Riva"),
        # The connection.
        *(
            ("UNAVAILABLE", details, "unavailable", True, "when it restarts")
            for details in (
                "Stream removed (GOAWAY received; Error code: 0; Debug Text: )",
                "Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: session_timed_out))",
                "max connection age",
                "Cancelling all calls",
            )
        ),
        (
            "UNAVAILABLE",
            "Stream removed (GOAWAY received; Error code: 11; Debug Text: too_many_pings)",
            "unavailable",
            True,
            "keepalive pings",
        ),
        ("UNAVAILABLE", "ping timeout", "unavailable", True, "answer pings"),
        ("UNAVAILABLE", "keepalive watchdog timeout", "unavailable", True, "answer pings"),
        ("UNAVAILABLE", "recvmsg:Connection timed out (110)", "unavailable", True, "answer pings"),
        ("UNAVAILABLE", "Stream removed (recvmsg:Connection reset by peer (104))", "unavailable", True, "broke off"),
        ("UNAVAILABLE", "Stream removed (Socket closed)", "unavailable", True, "broke off"),
        ("UNAVAILABLE", rst(7), "unavailable", True, "dropped the stream"),
        *(("INTERNAL", rst(code), "unavailable", True, "dropped") for code in (0, 1, 2, 3, 4, 5, 6, 9, 10, 13)),
        ("INTERNAL", "Received RST_STREAM with error code 2", "unavailable", True, "dropped the stream"),
        ("CANCELLED", rst(8), "unavailable", True, "dropped the stream"),
        ("CANCELLED", "", "unavailable", True, "dropped the stream"),
        ("ABORTED", "", "unavailable", True, "dropped the stream"),
        ("UNKNOWN", "Stream removed (Data frame with END_STREAM flag received)", "unavailable", True, "dropped"),
        ("INTERNAL", "Internal error from Core", "unavailable", True, "did not get through"),
        # Time, and defects.
        ("DEADLINE_EXCEEDED", "", "timeout", True, "in time"),
        ("DEADLINE_EXCEEDED", "Stream removed (Deadline Exceeded)", "timeout", True, "in time"),
        ("INTERNAL", "Deadline Exceeded", "timeout", True, "in time"),
        ("INTERNAL", "Internal error while making inference request", "internal", True, "worked on the audio"),
        ("DATA_LOSS", "", "internal", True, "worked on the audio"),
        ("UNKNOWN", "Exception iterating requests!", "internal", False, "could not be sent"),
        ("UNKNOWN", "Unexpected <class 'ValueError'>: boom", "internal", True, "an unknown way (UNKNOWN)"),
        ("ALREADY_EXISTS", "", "internal", True, "an unknown way"),
    ],
)
def test_what_a_status_means(status: str, details: str, code: str, retryable: bool, words: str) -> None:
    error = error_from_status(status, details, "stream" if "broke off" in words else "open")
    assert (error.code.value, error.retryable) == (code, retryable)
    assert words in error.message
    assert not any(secret in error.message for secret in ("nvapi", "10.1.2.3", "riva.example", "ipv4"))
    if error.code is Code.UNAVAILABLE and not retryable:
        assert error.action is Action.NONE
    assert (error.retry_after_ms is not None) == (error.code is Code.OVERLOADED or "loading" in error.message)


def test_where_it_failed_is_said() -> None:
    def said(phase: Phase) -> str:
        return error_from_status("UNAVAILABLE", "Socket closed", phase).message

    assert "cannot be reached" in said("open")
    assert "cannot be reached" in said("call")
    assert "broke off" in said("stream")


def pushed(*trailers: tuple[str, str | bytes], status: str = "RESOURCE_EXHAUSTED") -> ASRError:
    return error_from_status(status, "", "open", trailers)


def test_a_pause_that_the_server_asks_for_goes_before_our_guess() -> None:
    assert pushed().retry_after_ms == 1_000
    assert pushed(("grpc-retry-pushback-ms", "250")).retry_after_ms == 250
    assert pushed(("Retry-After", "7")).retry_after_ms == 7_000
    assert pushed(("retry-after", "7"), ("grpc-retry-pushback-ms", "250")).retry_after_ms == 250
    assert pushed(("retry-after", "3"), status="UNAVAILABLE").retry_after_ms == 3_000
    assert pushed(("retry-after", "99999999")).retry_after_ms == 600_000


def test_a_server_may_forbid_to_try_again() -> None:
    error = pushed(("grpc-retry-pushback-ms", "-1"), status="UNAVAILABLE")
    assert (error.retryable, error.retry_after_ms, error.action) == (False, None, Action.NONE)


@pytest.mark.parametrize("value", ["soon", "Wed, 21 Oct 2026 07:28:00 GMT", "1.5", "", b"7", "٣"])
def test_a_pause_that_cannot_be_read_changes_nothing(value: str | bytes) -> None:
    assert pushed(("retry-after", value)).retry_after_ms == 1_000
    assert pushed(("grpc-retry-pushback-ms", value)).retryable


def test_no_push_back_makes_a_hopeless_request_worth_a_try() -> None:
    error = pushed(("retry-after", "1"), status="UNAUTHENTICATED")
    assert (error.retryable, error.retry_after_ms) == (False, None)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.3.7:50051",
        "riva.internal.example.com",
        "riva-asr:50051",
        "ipv4:10.0.0.1:443",
        "https://h/x",
        "[::1]:50051",
    ],
)
def test_addresses_stay_inside(address: str) -> None:
    message = error_from_status("INVALID_ARGUMENT", f"refused by {address} for parakeet-0.6b-en-US", "call").message
    assert address not in message
    assert "parakeet-0.6b-en-US" in message


def test_long_texts_are_cut() -> None:
    assert len(error_from_status("INVALID_ARGUMENT", "no " * 500, "call").message) < 300


@pytest.mark.parametrize("phase", PHASES)
def test_every_status_ends_in_a_sentence_or_a_quote(phase: Phase) -> None:
    for status in ("CANCELLED", "UNKNOWN", "NOT_FOUND", "UNAVAILABLE", "INTERNAL", "SOMETHING_NEW"):
        assert error_from_status(status, "odd", phase).message.endswith((".", '"'))


@pytest.mark.parametrize(
    "host",
    [
        *("asr_host.internal", "riva-asr-0", "riva1.corp2", "2001:db8::1", "fd00::12", "localhost", "node-7.k8s"),
        *("triton", "unix:/run/riva/secret.sock", "10.1.2.3", "riva-en-us.corp", "riva-en-US.corp.local"),
    ],
)
def test_a_host_of_any_form_stays_inside(host: str) -> None:
    message = error_from_status("INVALID_ARGUMENT", f"Error: request failed at {host}, port 50051", "stream").message
    assert host not in message
    assert "50051" not in message
    assert "request failed at" in message


def test_words_of_which_little_would_be_left_are_not_quoted() -> None:
    message = error_from_status("INVALID_ARGUMENT", "triton backend riva1.corp2 died", "stream").message
    assert message == "The recognizer did not accept the request."
