"""Our own short-lived tokens: never more than what they were made with, and never taken for anything else."""

from __future__ import annotations

import base64
import hmac
import json
from itertools import count
from typing import Any

import pytest

from asr.errors import ASRError, Code
from server.access import own_tokens
from server.access.gate import WRONG, Gate
from server.access.grants import ALL_SCOPES, CLIENT_SCOPES, Allowance, Grant, Scope, payer_of
from server.access.own_tokens import PREFIX, OwnTokens, read_secrets
from tokens import CLAIMS, b64, rsa_key, token, with_mac

SECRET, OTHER = b"s" * 32, b"o" * 32
NOW = 1_800_000_000.0
MINTER = Grant("key app", ALL_SCOPES, None, Allowance(2, 3, 4), "key:0123456789ab")


class Mint:
    """Tokens on a clock that is set by hand."""

    def __init__(self, *secrets: bytes) -> None:
        self.now = NOW
        numbers = count()
        self.tokens = OwnTokens(
            secrets or (SECRET,),
            max_ttl_ms=300_000,
            unix_time=lambda: self.now,
            token_hex=lambda size: f"{next(numbers):0{2 * size}x}",
        )
        self.gate = Gate((self.tokens,), is_open=False, unix_time=lambda: self.now)

    def make(self, minter: Grant = MINTER, **asked: Any) -> str:
        return self.tokens.mint(minter, **asked).token

    def enter(self, credential: str) -> Grant:
        return self.gate.enter([("sec-websocket-protocol", f"asr.v1, token.{credential}")], "::1", Scope.TRANSCRIBE)

    def refused(self, credential: str) -> bool:
        with pytest.raises(ASRError) as refused:
            self.enter(credential)
        return refused.value.message == WRONG


def test_a_token_is_its_minter_with_less() -> None:
    mint = Mint()
    made = mint.tokens.mint(MINTER)
    assert (made.expires_at, made.scopes, made.single_use) == (int(NOW) + 300, CLIENT_SCOPES, False)
    grant = mint.enter(made.token)
    assert (grant.principal, grant.scopes, grant.allowance) == ("key app", CLIENT_SCOPES, MINTER.allowance)
    assert grant.expires_at == made.expires_at
    assert grant.serial.startswith("key:0123456789ab/token:")
    mint.now += 300
    assert mint.refused(made.token)
    assert mint.gate.refused == {"expired": 1}


def test_a_subject_is_a_caller_of_its_own_whose_quotas_are_the_minters() -> None:
    mint = Mint()
    one, two = (mint.enter(mint.make(subject=subject)).principal for subject in ("ann@example.com", "bob"))
    assert one != two
    assert payer_of(one) == payer_of(two) == "key app"
    assert "ann" not in one
    assert mint.enter(mint.make(subject="bob")).principal == two
    other = Grant("key other", ALL_SCOPES)
    assert mint.enter(mint.make(other, subject="bob")).principal != two


def test_a_token_made_with_a_token_stays_with_the_first_key() -> None:
    mint = Mint()
    first = mint.enter(mint.make(scopes=[Scope.MINT, Scope.TRANSCRIBE], subject="ann", ttl_ms=60_000))
    second = mint.tokens.mint(first, subject="bob")
    grant = mint.enter(second.token)
    assert payer_of(grant.principal) == "key app"
    assert grant.principal.count(" for ") == 1
    assert grant.principal != mint.enter(mint.make(subject="bob")).principal
    assert grant.serial.startswith("key:0123456789ab/")
    assert second.scopes == {Scope.TRANSCRIBE}
    assert second.expires_at == int(NOW) + 60


def test_a_token_never_outlives_its_key() -> None:
    made = Mint().tokens.mint(Grant("key app", expires_at=NOW + 10.9))
    assert made.expires_at == int(NOW) + 10


@pytest.mark.parametrize(
    ("minter", "asked", "code"),
    [
        (Grant("key app", CLIENT_SCOPES), {"scopes": [Scope.ADMIN]}, Code.FORBIDDEN),
        (Grant("key app", CLIENT_SCOPES), {"scopes": [Scope.TRANSCRIBE, Scope.MINT]}, Code.FORBIDDEN),
        (Grant("key app", frozenset({Scope.MINT})), {}, Code.BAD_REQUEST),
        (MINTER, {"scopes": []}, Code.BAD_REQUEST),
        (MINTER, {"ttl_ms": 300_001}, Code.BAD_REQUEST),
        (MINTER, {"ttl_ms": 999}, Code.BAD_REQUEST),
        (MINTER, {"ttl_ms": -1}, Code.BAD_REQUEST),
        (MINTER, {"subject": "s" * 257}, Code.BAD_REQUEST),
        (Grant("key " + "n" * 3_000), {}, Code.BAD_REQUEST),
    ],
)
def test_more_than_there_is_cannot_be_had(minter: Grant, asked: dict[str, Any], code: Code) -> None:
    with pytest.raises(ASRError) as refused:
        Mint().make(minter, **asked)
    assert refused.value.code is code


def test_a_single_use_token_opens_one_connection() -> None:
    mint = Mint()
    made = mint.make(single_use=True)
    mint.enter(made)
    assert mint.refused(made)
    assert mint.enter(mint.make())
    mint.now += 301
    assert mint.refused(made)


def test_used_tokens_are_remembered_within_bounds_and_none_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_tokens, "MAX_REMEMBERED", 3)
    monkeypatch.setattr(own_tokens, "SHARE", 1)
    mint = Mint()
    made = [mint.make(single_use=True) for _ in range(4)]
    for one in made[:3]:
        mint.enter(one)
    with pytest.raises(ASRError) as refused:
        mint.enter(made[3])
    assert refused.value.code is Code.OVERLOADED
    assert all(mint.refused(one) for one in made[:3])
    mint.now += 301
    mint.enter(mint.make(single_use=True))


def test_one_caller_uses_up_its_own_share_of_single_use_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_tokens, "MAX_REMEMBERED", 8)
    mint = Mint()
    made = [mint.make(single_use=True, subject=f"user {number}") for number in range(3)]
    for one in made[:2]:
        mint.enter(one)
    with pytest.raises(ASRError) as refused:
        mint.enter(made[2])
    assert refused.value.code is Code.OVERLOADED
    assert mint.enter(mint.make(Grant("key other", ALL_SCOPES), single_use=True))
    mint.now += 301
    assert mint.enter(mint.make(single_use=True))


def test_a_secret_is_rotated_with_an_overlap() -> None:
    old = Mint(SECRET).make()
    both = Mint(OTHER, SECRET)
    assert both.enter(old)
    assert Mint(OTHER).enter(both.make())
    assert Mint(OTHER).refused(old)


def _signed(body: bytes, secret: bytes = SECRET, domain: bytes = b"riva-gateway token 1\n") -> str:
    text = b64(body)
    return f"{PREFIX}{text}.{b64(hmac.digest(secret, domain + text.encode(), 'sha256'))}"


def test_what_was_tampered_with_is_refused() -> None:
    mint = Mint()
    good = mint.make(scopes=[Scope.TRANSCRIBE])
    body, mac = good.removeprefix(PREFIX).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    more = b64(json.dumps(claims | {"s": ["admin", "transcribe"]}))
    bad = [
        f"{PREFIX}{more}.{mac}",
        f"{PREFIX}{body}.",
        f"{PREFIX}{body}",
        f"{PREFIX}.{mac}",
        f"{PREFIX}{body}.{mac}=",
        f"{PREFIX}{body}.{mac[:-1]}",
        f"{PREFIX}{body}.{mac}.{mac}",
        f"{PREFIX}{body} .{mac}",
        f"{PREFIX}{body}é.{mac}",
        f"{PREFIX}{body}.{'A' * 43}",
        f"{PREFIX.upper()}{body}.{mac}",
        f"{body}.{mac}",
        f"{good}{'x' * 3_000}",
        _signed(b"{}"),
        _signed(b"[]"),
        _signed(b"[" * 1_000),
        _signed(b"not json"),
        _signed(json.dumps(claims | {"more": 1}).encode()),
        _signed(json.dumps(claims).encode(), OTHER),
        _signed(json.dumps(claims).encode(), domain=b""),
    ]
    assert [one for one in bad if not mint.refused(one)] == []
    assert mint.enter(_signed(json.dumps(claims).encode()))


def test_a_token_is_no_jwt_and_a_jwt_is_no_token() -> None:
    mint = Mint()
    assert mint.make().count(".") == 1
    for credential in (token(), token(rsa_key(), kid=None), with_mac(SECRET, {"alg": "HS256"}, CLAIMS)):
        assert mint.refused(credential)
        assert mint.refused(PREFIX + credential)


def test_scopes_of_a_later_version_are_left_out() -> None:
    mint = Mint()
    body = mint.make().removeprefix(PREFIX).partition(".")[0]
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert mint.enter(_signed(json.dumps(claims | {"s": ["fly", "transcribe"]}).encode())).scopes == {Scope.TRANSCRIBE}


@pytest.mark.parametrize("text", ["", " , ", "s" * 31, f"{'s' * 32},short", ",".join(["s" * 32] * 9)])
def test_secrets_that_are_none_are_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="secret") as refused:
        read_secrets(text)
    assert "sss" not in str(refused.value)


def test_secrets_may_be_several() -> None:
    assert read_secrets(f"{'a' * 32}, {'b' * 40}\n{'c' * 32}\n") == (b"a" * 32, b"b" * 40, b"c" * 32)
