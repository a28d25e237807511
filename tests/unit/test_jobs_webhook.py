"""What a webhook says, how it is signed, and where it may go."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asr.errors import ASRError, Code
from server.jobs.model import JobView, Status
from server.jobs.webhook import body_of, checked_url, delivery_id, is_public, sign, verify

NOW = 1_800_000_000


def test_the_signature_is_what_the_documents_say() -> None:
    digest = hmac.new(b"secret", f"{NOW}.".encode() + b"{}", hashlib.sha256).hexdigest()
    assert sign("secret", b"{}", NOW) == f"t={NOW},v1={digest}"


def test_a_signature_holds_for_its_secret_body_and_time_alone() -> None:
    signature = sign("secret", b"{}", NOW)
    assert verify("secret", b"{}", signature, NOW + 300)
    assert verify("secret", b"{}", signature, NOW - 300)
    assert not verify("secret", b"{}", signature, NOW + 301)
    assert not verify("secret", b"{}", signature, NOW - 301)
    assert verify("secret", b"{}", signature, NOW + 301, tolerance_s=301)
    assert not verify("other", b"{}", signature, NOW)
    assert not verify("secret", b"{ }", signature, NOW)
    assert not verify("secret", b"{}", signature.replace(str(NOW), str(NOW + 1)), NOW)
    assert verify("secret", b"{}", f"{signature},v1=00", NOW)
    assert verify("secret", b"{}", f"t={NOW}, v1=00, {signature.split(',')[1]}", NOW)


@pytest.mark.parametrize("broken", ["", "t=,v1=", "v1=00", f"t={NOW}", "t=x,v1=00", f"t={NOW},t=1,v1=0", "t=²,v1=é"])
def test_what_is_no_signature_is_refused(broken: str) -> None:
    assert not verify("secret", b"{}", broken, NOW)


def test_the_body_is_the_same_every_time_and_holds_no_transcript() -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    job = JobView("j", Status.FAILED, "ä.wav", at, at, at, "It is broken.", "bad_audio", labels={"a": "b"})
    assert body_of(job) == body_of(job)
    message = json.loads(body_of(job))
    assert message["id"] == delivery_id("j") == "job-j"
    assert message["type"] == "job.failed"
    assert message["job"] == {
        "job_id": "j",
        "status": "failed",
        "filename": "ä.wav",
        "created_at": "2030-01-02T03:04:05+00:00",
        "completed_at": "2030-01-02T03:04:05+00:00",
        "audio_ms": 0,
        "error": "It is broken.",
        "error_code": "bad_audio",
        "labels": {"a": "b"},
    }


@pytest.mark.parametrize("url", ["https://example.com/a?b=c", "http://192.0.2.1:8080/", "https://[2001:db8::1]/x"])
def test_plain_urls_are_taken(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "ftp://example.com/", "file:///etc/passwd", "https:///path", "https://user@example.com/"),
        *("https://u:p@example.com/", "https://example.com:0/", "https://example.com:99999/", "https://exämple.com/"),
        *(
            "https://example.com/a b",
            "https://example.com/" + "a" * 2100,
            "https://[::1/",
            "https://example.com/\n",
            "https://example.com/\0",
        ),
    ],
)
def test_others_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ASRError) as caught:
        checked_url(url)
    assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, "webhook_url")
    assert "example" not in caught.value.message


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
        ),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
        *("224.0.0.1", "ff02::1", "255.255.255.255", "192.0.2.1", "2001:db8::1"),
    ],
)
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public(address)


def test_the_check_in_the_documents_agrees() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "jobs.md").read_text("utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    scope: dict[str, Any] = {}
    exec(found.group(1), scope)
    is_ours = scope["is_ours"]
    now = int(time.time())
    assert is_ours("secret", b"{}", sign("secret", b"{}", now))
    assert not is_ours("secret", b"{}", sign("secret", b"{}", now - 301))
    assert not is_ours("secret", b"{}", sign("other", b"{}", now))
    for odd in ("", "t=²,v1=00", f"t={'9' * 5_000},v1=00", f"t={now},v1=é"):
        assert not is_ours("secret", b"{}", odd)
