"""Who a client is."""

from __future__ import annotations

import doctest

import pytest

import server.principal
from server.principal import grpc_address, principal_of

ADDRESS = "192.0.2.1"
ANYBODY = f"address {ADDRESS}"


@pytest.mark.parametrize(
    "fields",
    [
        [("Authorization", "Bearer k1")],
        [("authorization", "bearer  k1 ")],
        [("authorization", b"Bearer k1")],
        [("Sec-WebSocket-Protocol", "asr.v1, token.k1")],
        [("Sec-WebSocket-Protocol", "asr.v1"), ("sec-websocket-protocol", "token.k1,token.k2")],
        [("X-API-Key", "k1")],
        [("x-api-key", "k2"), ("authorization", "Bearer k1")],
        [("x-api-key", "k2"), ("sec-websocket-protocol", "token.k1")],
        [("sec-websocket-protocol", "token.k2"), ("authorization", "Bearer k1")],
        # A client library that delivers its metadata twice.
        [("authorization", "Bearer k1"), ("authorization", "Bearer k1")],
    ],
)
def test_one_credential_is_one_principal_however_it_comes(fields: list[tuple[str, str]]) -> None:
    who = principal_of(fields, ADDRESS)
    assert who == principal_of([("authorization", "Bearer k1")], "198.51.100.7")
    assert who != principal_of([("authorization", "Bearer k2")], ADDRESS)
    assert "k1" not in who


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("authorization", "Basic dTpw")],
        [("authorization", "Bearer ")],
        [("sec-websocket-protocol", "asr.v1, token.")],
        [("x-api-key", " ")],
        [("cookie", "token.k1")],
    ],
)
def test_without_a_credential_the_address_counts(fields: list[tuple[str, str]]) -> None:
    assert principal_of(fields, ADDRESS) == ANYBODY


def test_an_address_is_the_same_in_both_families() -> None:
    assert principal_of([], f"::ffff:{ADDRESS}") == ANYBODY


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (f"ipv4:{ADDRESS}:41234", ADDRESS),
        ("ipv6:%5B::1%5D:41234", "::1"),
        ("ipv6:[2001:db8::1]:41234", "2001:db8::1"),
        ("unix:/run/gateway.sock", "unix"),
        ("", "unknown"),
    ],
)
def test_grpc_peers(peer: str, address: str) -> None:
    assert grpc_address(peer) == address


def test_examples() -> None:
    assert doctest.testmod(server.principal).failed == 0


def test_a_credential_that_is_no_text_is_a_credential_like_any_other() -> None:
    torn = principal_of([("Authorization", "Bearer \udcff\udc80")], "192.0.2.1")
    assert torn.startswith("key ")
    assert torn != principal_of([("Authorization", "Bearer x")], "192.0.2.1")
