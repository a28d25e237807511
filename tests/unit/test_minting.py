"""The register of minted sessions: who may make them, what they open, and when they are over."""

from __future__ import annotations

import itertools

import pytest

from asr.errors import ASRError, Code
from server.access.grants import CLIENT_SCOPES, Grant
from server.faces.realtime.dialect import Dialect, Handshake
from server.faces.realtime.minting import MAX_KEPT_BYTES, Json, Minting

FLAT = frozenset({Dialect.NIM, Dialect.OPENAI_BETA})


class Clock:
    now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


def register(clock: Clock, key: str = "", max_secrets: int = 10) -> Minting:
    numbers = itertools.count(1)
    return Minting(
        key=key,
        ttl_ms=60_000,
        unix_time=clock,
        new_secret=lambda: f"secret{next(numbers)}",
        new_id=lambda prefix: f"{prefix}_1",
        max_secrets=max_secrets,
    )


@pytest.mark.parametrize(
    "headers", [{"authorization": "Bearer k"}, {"authorization": "bearer  k "}, {"x-api-key": "k"}]
)
def test_key_opens_the_mint(headers: dict[str, str]) -> None:
    register(Clock(), "k").check_key(headers)


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer kk"}, {"authorization": "Basic k"}, {"x-api-key": ""}]
)
def test_without_the_key_nobody_mints(headers: dict[str, str]) -> None:
    with pytest.raises(ASRError) as caught:
        register(Clock(), "k").check_key(headers)
    assert caught.value.code is Code.UNAUTHORIZED
    register(Clock()).check_key(headers)


def test_secret_stands_for_its_settings_until_it_expires() -> None:
    clock = Clock()
    mint = register(clock, "k")
    minted = mint.mint({"a": 1}, FLAT)
    assert minted.expires_at == 1_700_000_060
    assert mint.admit(Handshake(Dialect.NIM, token=minted.value)) == {"a": 1}
    assert mint.admit(Handshake(Dialect.OPENAI_BETA, key=minted.value)) == {"a": 1}
    assert mint.admit(Handshake(Dialect.OPENAI, key=minted.value)) is None
    clock.now += 60
    with pytest.raises(ASRError, match="expired") as caught:
        mint.admit(Handshake(Dialect.NIM, token=minted.value))
    assert caught.value.code is Code.UNAUTHORIZED


def test_with_a_key_connections_need_it_or_a_secret() -> None:
    mint = register(Clock(), "k")
    assert mint.admit(Handshake(Dialect.OPENAI, key="k")) is None
    assert mint.admit(Handshake(Dialect.NIM, key="k")) is None  # ?dialect=nim with a Bearer key
    for shown in (
        Handshake(Dialect.NIM),
        Handshake(Dialect.NIM, token="k"),
        Handshake(Dialect.NIM, token="secret1"),
        Handshake(Dialect.OPENAI, key="wrong"),
        Handshake(Dialect.OPENAI_BETA),
    ):
        with pytest.raises(ASRError) as caught:
            mint.admit(shown)
        assert caught.value.code is Code.UNAUTHORIZED


def test_without_a_key_everybody_comes_in_and_a_secret_still_counts() -> None:
    mint = register(Clock())
    assert mint.admit(Handshake(Dialect.NIM)) is None
    assert mint.admit(Handshake(Dialect.OPENAI, key="anything")) is None
    minted = mint.mint({"a": 1}, frozenset({Dialect.OPENAI}), prefix="ek_", ttl_s=5)
    assert minted.value.startswith("ek_")
    assert minted.expires_at == 1_700_000_005
    assert mint.admit(Handshake(Dialect.OPENAI, key=minted.value)) == {"a": 1}


def test_nobody_gets_a_longer_life_than_the_server_allows() -> None:
    assert register(Clock()).mint({}, FLAT, ttl_s=7200).expires_at == 1_700_000_060


def test_secrets_are_bounded_by_number_and_by_what_they_hold() -> None:
    clock = Clock()
    mint = register(clock, max_secrets=2)
    first = mint.mint({}, FLAT)
    mint.mint({}, FLAT)
    with pytest.raises(ASRError) as caught:
        mint.mint({}, FLAT)
    assert caught.value.code is Code.RATE_LIMITED
    clock.now += 61
    assert mint.mint({}, FLAT).value != first.value
    big = {"prompt": "x" * (MAX_KEPT_BYTES // 2)}
    other = register(clock)
    other.mint(big, FLAT)
    with pytest.raises(ASRError):
        other.mint(big, FLAT)
    clock.now += 61
    other.mint(big, FLAT)


@pytest.mark.parametrize(
    ("session", "max_secrets", "fits"), [({}, 8, 2), ({"prompt": "x" * (MAX_KEPT_BYTES // 9)}, 99, 2)]
)
def test_one_caller_does_not_take_what_there_is_for_all(session: Json, max_secrets: int, fits: int) -> None:
    clock = Clock()
    mint = register(clock, max_secrets=max_secrets)
    greedy = [Grant(f"key app for {number}", CLIENT_SCOPES) for number in range(3)]
    for minter in greedy[:fits]:
        mint.mint(session, FLAT, minter=minter)
    with pytest.raises(ASRError) as caught:
        mint.mint(session, FLAT, minter=greedy[2])
    assert caught.value.code is Code.RATE_LIMITED
    mint.mint(session, FLAT, minter=Grant("key other", CLIENT_SCOPES))
    clock.now += 61
    mint.mint(session, FLAT, minter=greedy[2])


@pytest.mark.parametrize("credential", ["\udcff", "k\udcc3\udca9"])
def test_credential_of_odd_bytes_is_wrong_and_not_a_failure(credential: str) -> None:
    with pytest.raises(ASRError) as caught:
        register(Clock(), "k").admit(Handshake(Dialect.OPENAI, key=credential))
    assert caught.value.code is Code.UNAUTHORIZED
