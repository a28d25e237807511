"""JSON Web Tokens: which are taken, and that every other one is refused in the same words and about as fast."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from asr.errors import ASRError, Code
from asr.loading import SettingsError
from asr.settings import load_settings
from server.access.gate import WRONG, Gate
from server.access.grants import Allowance, Grant, Scope
from server.access.jwt_keys import BadKeys, KeySet, parse_keys
from server.access.jwt_tokens import LEEWAY_S, JwtVerifier
from server.settings import ServerSettings
from tokens import (
    AUDIENCE,
    CLAIMS,
    ISSUER,
    NOW,
    b64,
    ec_key,
    ed_key,
    jwk,
    jwks,
    private_pem,
    public_pem,
    rsa_key,
    signed,
    token,
    with_mac,
)

HEADER = {"alg": "RS256", "typ": "JWT", "kid": "one"}


def issuer_keys() -> KeySet:
    return parse_keys(jwks(jwk(rsa_key()), jwk(ec_key(), "two"), jwk(ed_key(), "three")))


class Issuer:
    """A verifier of the issuer's tokens, and how often it was asked for keys that it lacks."""

    def __init__(self, keys: KeySet | None = None, *, algorithms: str = "RS256 ES256 EdDSA", claim: str = "scope"):
        self.asked = 0
        self.keys: KeySet | None = issuer_keys() if keys is None else keys
        self.verifier = JwtVerifier(
            lambda: self.keys,
            self._ask,
            issuer=ISSUER,
            audience=AUDIENCE,
            algorithms=algorithms.split(),
            scope_claim=claim,
            unix_time=lambda: NOW,
        )
        self.gate = Gate((self.verifier,), is_open=False, unix_time=lambda: NOW)

    def _ask(self) -> None:
        self.asked += 1

    def enter(self, credential: str) -> Grant:
        return self.gate.enter([("Authorization", f"Bearer {credential}")], "192.0.2.1", Scope.TRANSCRIBE)

    def refusal(self, credential: str) -> ASRError:
        with pytest.raises(ASRError) as refused:
            self.enter(credential)
        return refused.value


@pytest.mark.parametrize(
    "good",
    [
        token(),
        token(kid=None),
        token(ec_key(), kid="two"),
        token(ed_key(), kid="three"),
        token(aud=[AUDIENCE, "another"]),
        token(scope=["jobs", "transcribe"]),
        token(scope="openid profile transcribe"),
        token(nbf=NOW + LEEWAY_S - 1),
        token(exp=NOW - LEEWAY_S + 1),
        token(iat=None),
        signed(rsa_key(), HEADER | {"typ": "at+jwt"}, CLAIMS),
        # what the header points at is not looked at: the key is ours, and the signature is its
        signed(rsa_key(), HEADER | {"jku": "https://evil.example/jwks", "x5u": "https://evil.example/x"}, CLAIMS),
    ],
)
def test_a_good_token_is_taken(good: str) -> None:
    grant = Issuer().enter(good)
    assert Scope.TRANSCRIBE in grant.scopes
    assert grant.expires_at is not None


def test_a_grant_says_what_the_token_says_and_names_nobody() -> None:
    limits = {"streams": 2, "starts_per_minute": 30, "audio_minutes_per_day": 60}
    grant = Issuer().enter(token(riva_gateway=limits, scope="transcribe fly"))
    assert grant.scopes == {Scope.TRANSCRIBE}
    assert grant.expires_at == CLAIMS["exp"] + LEEWAY_S
    assert grant.allowance == Allowance(2, 30, 60)
    assert grant.principal.startswith("key jwt ")
    assert "somebody" not in repr(grant)
    assert grant.principal == Issuer().enter(token(exp=NOW + 5)).principal
    assert grant.principal != Issuer().enter(token(sub="somebody else")).principal


def test_scopes_may_be_in_another_claim() -> None:
    assert Issuer(claim="scp").enter(token(scope=None, scp=["transcribe"])).scopes == {Scope.TRANSCRIBE}
    assert Issuer(claim="scp").refusal(token()).code is Code.FORBIDDEN


def other_rsa(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Signed with a key that is nobody's."""
    return signed(rsa_key(1), header or HEADER, CLAIMS | claims)


def unsigned(header: dict[str, Any], ending: str = "") -> str:
    return f"{b64(json.dumps(header))}.{b64(json.dumps(CLAIMS))}.{ending}"


def cut(characters: int) -> str:
    return token()[:-characters]


def doubled(claim: str, first: object, second: object) -> str:
    rest = json.dumps({name: value for name, value in CLAIMS.items() if name != claim})[1:]
    return signed(rsa_key(), HEADER, f'{{"{claim}": {json.dumps(first)}, "{claim}": {json.dumps(second)}, {rest}')


def with_other_claims(**claims: Any) -> str:
    """A good signature under claims that it was not made for."""
    head, _, tail = token().split(".")
    return f"{head}.{b64(json.dumps(CLAIMS | claims))}.{tail}"


PEM = public_pem(rsa_key())
BAD: dict[str, Callable[[], str]] = {
    "none": lambda: unsigned({"alg": "none", "typ": "JWT"}),
    "None": lambda: unsigned({"alg": "None", "typ": "JWT"}),
    "NONE with a signature": lambda: unsigned({"alg": "NONE", "kid": "one"}, token().rpartition(".")[2]),
    "no alg": lambda: signed(rsa_key(), {"typ": "JWT", "kid": "one"}, CLAIMS),
    "alg null": lambda: signed(rsa_key(), HEADER | {"alg": None}, CLAIMS),
    "alg a list": lambda: signed(rsa_key(), HEADER | {"alg": ["RS256"]}, CLAIMS),
    "alg in small letters": lambda: signed(rsa_key(), HEADER | {"alg": "rs256"}, CLAIMS),
    "alg with a blank": lambda: signed(rsa_key(), HEADER | {"alg": "RS256 "}, CLAIMS),
    "alg of another strength": lambda: signed(rsa_key(), HEADER | {"alg": "RS512"}, CLAIMS),
    "alg of another family": lambda: signed(rsa_key(), HEADER | {"alg": "ES256"}, CLAIMS),
    "alg of another family, its kid": lambda: signed(rsa_key(), HEADER | {"alg": "ES256", "kid": "two"}, CLAIMS),
    "PSS instead": lambda: signed(rsa_key(), HEADER | {"alg": "PS256"}, CLAIMS),
    "HS256 with the public key": lambda: with_mac(PEM, HEADER | {"alg": "HS256"}, CLAIMS),
    "HS256 with the public key, trimmed": lambda: with_mac(PEM.strip(), HEADER | {"alg": "HS256"}, CLAIMS),
    "HS512 with nothing": lambda: with_mac(b"", HEADER | {"alg": "HS512"}, CLAIMS),
    "RS256 with a MAC": lambda: with_mac(PEM, HEADER, CLAIMS),
    "another key": other_rsa,
    "another key, no kid": lambda: other_rsa({"alg": "RS256", "typ": "JWT"}),
    "another key, embedded": lambda: other_rsa(HEADER | {"jwk": jwk(rsa_key(1))}),
    "another key, embedded, no kid": lambda: other_rsa({"alg": "RS256", "jwk": jwk(rsa_key(1))}),
    "another key by jku": lambda: other_rsa(HEADER | {"jku": "https://evil.example/jwks.json", "kid": "evil"}),
    "another key by x5u": lambda: other_rsa(HEADER | {"x5u": "https://evil.example/x.pem"}),
    "another key by x5c": lambda: other_rsa(HEADER | {"x5c": ["MIIB"], "x5t": "AAAA"}),
    "a kid that is unknown": lambda: signed(rsa_key(), HEADER | {"kid": "nine"}, CLAIMS),
    "a kid of another key": lambda: signed(rsa_key(), HEADER | {"kid": "two"}, CLAIMS),
    "a kid that is a path": lambda: signed(rsa_key(), HEADER | {"kid": "../../../../dev/null"}, CLAIMS),
    "a kid that is a statement": lambda: signed(rsa_key(), HEADER | {"kid": "x' UNION SELECT 'one"}, CLAIMS),
    "a kid with a zero": lambda: signed(rsa_key(), HEADER | {"kid": "one\x00"}, CLAIMS),
    "a kid that is a number": lambda: signed(rsa_key(), HEADER | {"kid": 1}, CLAIMS),
    "a kid that is long": lambda: signed(rsa_key(), HEADER | {"kid": "o" * 1_000}, CLAIMS),
    "an empty signature": lambda: f"{token().rpartition('.')[0]}.",
    "a signature of zeros": lambda: f"{token().rpartition('.')[0]}.{b64(bytes(256))}",
    "an ECDSA signature of zeros": lambda: f"{token(ec_key(), kid='two').rpartition('.')[0]}.{b64(bytes(64))}",
    "the signature of another token": lambda: f"{token(exp=NOW + 1).rpartition('.')[0]}.{token().rpartition('.')[2]}",
    "other claims": lambda: with_other_claims(scope="admin"),
    "truncated": lambda: cut(1),
    "truncated by half": lambda: cut(200),
    "without its claims": lambda: "..".join(token().split(".")[::2]),
    "two parts": lambda: token().rpartition(".")[0],
    "four parts": lambda: f"{token()}.{b64('{}')}",
    "five parts, as if encrypted": lambda: ".".join([b64('{"alg":"dir","enc":"A256GCM"}'), "", "", "", ""]),
    "padding": lambda: f"{token()}=",
    "a line end": lambda: f"{token()}\n.",
    "a blank within": lambda: token().replace(".", ". ", 1),
    "standard base64": lambda: f"{b64(json.dumps(HEADER))}+/.{token().split('.', 1)[1]}",
    "another alphabet": lambda: token().replace("e", "е", 1),
    "a base64 with loose ends": lambda: f"{token()[:-1]}{chr(ord(token()[-1]) + 1)}",
    "a header that is no JSON": lambda: signed(rsa_key(), "alg=RS256", CLAIMS),
    "a header that is a list": lambda: signed(rsa_key(), '["RS256"]', CLAIMS),
    "a header with two algs": lambda: signed(rsa_key(), '{"alg":"none","alg":"RS256","kid":"one"}', CLAIMS),
    "a header that is huge": lambda: signed(rsa_key(), HEADER | {"fill": "x" * 3_000}, CLAIMS),
    "a header that is deep": lambda: signed(rsa_key(), f'{{"alg":"RS256","x":{"[" * 700}', CLAIMS),
    "crit": lambda: signed(rsa_key(), HEADER | {"crit": ["exp"]}, CLAIMS),
    "b64 off": lambda: signed(rsa_key(), HEADER | {"b64": False, "crit": ["b64"]}, CLAIMS),
    "compressed": lambda: signed(rsa_key(), HEADER | {"zip": "DEF"}, CLAIMS),
    "a logout token": lambda: signed(rsa_key(), HEADER | {"typ": "logout+jwt"}, CLAIMS),
    "a typ that is a number": lambda: signed(rsa_key(), HEADER | {"typ": 1}, CLAIMS),
    "claims that are no JSON": lambda: signed(rsa_key(), HEADER, "sub=somebody"),
    "claims that are a list": lambda: signed(rsa_key(), HEADER, "[]"),
    "claims that are deep": lambda: signed(rsa_key(), HEADER, "[" * 5_000),
    "claims with NaN": lambda: signed(rsa_key(), HEADER, json.dumps(CLAIMS | {"exp": float("nan")})),
    "a token of a token": lambda: signed(rsa_key(), HEADER | {"cty": "JWT"}, token()),
    "no exp": lambda: token(exp=None),
    "exp null": lambda: signed(rsa_key(), HEADER, CLAIMS | {"exp": None}),
    "exp a text": lambda: token(exp=str(NOW + 600)),
    "exp true": lambda: token(exp=True),
    "exp beyond numbers": lambda: signed(rsa_key(), HEADER, json.dumps(CLAIMS).replace("1800000600.0", "1e999")),
    "exp in a list": lambda: token(exp=[NOW + 600]),
    "exp below nothing": lambda: token(exp=-1),
    "exp twice": lambda: doubled("exp", NOW - 600, NOW + 600),
    "expired": lambda: token(exp=NOW - LEEWAY_S),
    "expired long ago": lambda: token(exp=1),
    "nbf in the future": lambda: token(nbf=NOW + LEEWAY_S + 1),
    "nbf a text": lambda: token(nbf="0"),
    "iat in the future": lambda: token(iat=NOW + LEEWAY_S + 1),
    "iat true": lambda: token(iat=True),
    "nbf true": lambda: token(nbf=True),
    "iat an object": lambda: token(iat={}),
    "no iss": lambda: token(iss=None),
    "another iss": lambda: token(iss="https://issuer.example.evil"),
    "iss with a slash": lambda: token(iss=f"{ISSUER}/"),
    "iss a list": lambda: token(iss=[ISSUER]),
    "iss twice": lambda: doubled("iss", "https://evil.example", ISSUER),
    "no aud": lambda: token(aud=None),
    "another aud": lambda: token(aud="riva-gateway-2"),
    "aud in other letters": lambda: token(aud="Riva-Gateway"),
    "aud empty": lambda: token(aud=[]),
    "aud an object": lambda: token(aud={AUDIENCE: True}),
    "aud with a number": lambda: token(aud=[AUDIENCE, 1]),
    "no sub": lambda: token(sub=None),
    "sub empty": lambda: token(sub=""),
    "sub a number": lambda: token(sub=7),
    "sub long": lambda: token(sub="s" * 2_000),
    "scope a number": lambda: token(scope=1),
    "scope a list of numbers": lambda: token(scope=[1]),
    "an allowance below nothing": lambda: token(riva_gateway={"streams": -1}),
    "an allowance of truth": lambda: token(riva_gateway={"streams": True}),
    "an allowance of another kind": lambda: token(riva_gateway={"seats": 1}),
    "an allowance that is none": lambda: token(riva_gateway="unlimited"),
    "too long": lambda: token(fill="x" * 8_192),
    "words": lambda: "not.a.token",
    "dots": lambda: "..",
    "nothing much": lambda: "x",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_refused_in_the_same_words(kind: str) -> None:
    error = Issuer().refusal(BAD[kind]())
    assert (error.code, error.message, error.retry_after_ms) == (Code.UNAUTHORIZED, WRONG, None)


@pytest.mark.alone
def test_refusals_take_about_as_long() -> None:
    """Where a signature is looked at, what else is wrong cannot be told by the clock."""
    issuer = Issuer()
    kinds = ("another key", "other claims", "expired", "another aud", "no exp", "an allowance that is none")
    bad = {kind: BAD[kind]() for kind in kinds}
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(60):
        for kind, credential in bad.items():
            began = time.perf_counter()
            assert issuer.verifier.verify(credential) is None or kind == "expired"
            took[kind].append(time.perf_counter() - began)
    middles = [statistics.median(times) for times in took.values()]
    assert max(middles) < 5 * min(middles)


def test_an_unknown_kid_asks_for_new_keys_and_other_faults_do_not() -> None:
    issuer = Issuer()
    for kind in ("another key", "expired", "none", "a kid of another key", "words"):
        issuer.refusal(BAD[kind]())
    assert issuer.asked == 1  # the kid of an elliptic key, with RS256: no such key
    issuer.refusal(BAD["a kid that is unknown"]())
    assert issuer.asked == 2


def test_keys_rotate_with_an_overlap() -> None:
    issuer = Issuer(parse_keys(jwks(jwk(rsa_key(), "old"))))
    old, new = token(kid="old"), token(rsa_key(1), kid="new")
    issuer.enter(old)
    issuer.refusal(new)
    issuer.keys = parse_keys(jwks(jwk(rsa_key(), "old"), jwk(rsa_key(1), "new")))
    issuer.enter(old)
    issuer.enter(new)
    issuer.keys = parse_keys(jwks(jwk(rsa_key(1), "new")))
    issuer.refusal(old)
    issuer.enter(new)


def test_without_any_keys_yet_a_token_is_told_to_come_back_and_anything_else_is_wrong() -> None:
    issuer = Issuer()
    issuer.keys = None
    error = issuer.refusal(token())
    assert (error.code, error.retryable) == (Code.UNAVAILABLE, True)
    assert issuer.refusal("rgw_nothing").code is Code.UNAUTHORIZED


def test_only_the_chosen_algorithms_are_taken() -> None:
    issuer = Issuer(algorithms="ES256")
    issuer.enter(token(ec_key(), kid="two"))
    issuer.refusal(token())


@pytest.mark.parametrize("key", [rsa_key(), ec_key(), ed_key()])
def test_keys_may_be_pem(key: Any) -> None:
    issuer = Issuer(parse_keys(public_pem(ed_key(9)) + public_pem(key)))
    issuer.enter(token(key, kid="whatever"))
    issuer.enter(token(key, kid=None))
    issuer.refusal(token(rsa_key(5), kid=None))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no public key"),
        (b"hello", "no public key"),
        (b"{", "no JWKS"),
        (b'{"keys": {}}', "no list"),
        (b'{"keys": [1]}', "no object"),
        (b'{"keys": []}', "no public key"),
        (b'{"keys": ' + b"[" * 100_000, "no JWKS"),
        (private_pem(rsa_key()), "private"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        (jwks(jwk(rsa_key()) | {"d": "AAAA"}), "private"),
        (jwks(jwk(rsa_key(), use="enc")), "no public key"),
        (jwks(jwk(rsa_key(), alg="HS256")), "no public key"),
        (jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "one"}), "no public key"),
        (jwks(jwk(rsa_key()) | {"kid": 5}), "kid"),
        (jwks(*(jwk(ed_key(), str(number)) for number in range(65))), "more than 64"),
        (public_pem(rsa_key(0, 1024)), "1024 bits"),
    ],
)
def test_what_are_no_keys_is_said(content: bytes, why: str) -> None:
    with pytest.raises(BadKeys, match=why):
        parse_keys(content)


def test_what_is_not_understood_beside_a_good_key_is_left_out() -> None:
    curve = {"kty": "EC", "crv": "secp256k1", "x": b64(bytes(32)), "y": b64(bytes(32)), "kid": "k"}
    small = jwk(rsa_key(0, 1024), "small")
    assert [key.kid for key in parse_keys(jwks(curve, small, {"kty": "AKP"}, jwk(ec_key(), "two"))).keys] == ["two"]


def test_a_key_on_another_curve_fits_no_es256() -> None:
    p384 = ec.generate_private_key(ec.SECP384R1())
    issuer = Issuer(parse_keys(public_pem(p384)))
    issuer.refusal(signed(p384, {"alg": "ES256"}, CLAIMS))
    assert issuer.asked == 1


def settings(**keys: str) -> ServerSettings:
    given = {"jwt_keys": "https://issuer.example/jwks", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, **keys}
    return load_settings(ServerSettings, given, env={}, env_file=None)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"jwt_algorithms": "RS256,HS256"}, "HS256"),
        ({"jwt_algorithms": "none"}, "none"),
        ({"jwt_algorithms": " , "}, "names none"),
        ({"jwt_issuer": ""}, "JWT_ISSUER"),
        ({"jwt_audience": ""}, "JWT_AUDIENCE"),
        ({"jwt_keys": "http://issuer.example/jwks"}, "https"),
        ({"jwt_keys": "http://localhost.evil.example/jwks"}, "https"),
        ({"jwt_keys": "ftp://issuer.example/jwks"}, "neither a file"),
        ({"jwt_keys": "https://user:pass@issuer.example/jwks"}, "password"),
        ({"jwt_keys": "https://"}, "neither a file"),
        ({"jwt_scope_claim": ""}, "JWT_SCOPE_CLAIM"),
        ({"token_secret": "short"}, "32 characters"),
    ],
)
def test_settings_that_are_not_safe_are_refused(keys: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        settings(**keys)


@pytest.mark.parametrize(
    "address", ["https://issuer.example:8443/keys?v=2", "http://127.0.0.1:9/jwks", "/etc/keys.pem"]
)
def test_keys_may_come_from_there(address: str) -> None:
    assert settings(jwt_keys=address).auth_wanted
