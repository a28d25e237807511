"""Which pages may call, and by which names the gateway goes."""

from __future__ import annotations

import pytest

from server.access.origins import OriginPolicy, parse_origins

ALLOWED = "https://app.example"
HERE = "gw.example:8443"

LOOK_ALIKES = [
    "https://app.example.evil.example",
    "https://evilapp.example",
    "https://app.example:444",
    "https://app.example:443",
    "https://app.example/",
    "https://app.example/page",
    "https://app.example.",
    "https://APP.example",
    "HTTPS://app.example",
    "http://app.example",
    "https://app.example@evil.example",
    "https://evil.example#https://app.example",
    "https://evil.example?https://app.example",
    "https://app.example,https://evil.example",
    "https://app.example https://evil.example",
    " https://app.example",
    "https:app.example",
    "https://аpp.example",
    "https://xn--pp-7kc.example",
    "ftp://app.example",
    "chrome-extension://app.example",
    "null",
    "",
    "*",
    "https://",
    "https://app.example\x00",
    "https://gw.example",
    "https://gw.example:8444",
    "http://gw.example:8443",
    "https://gw.example:8443.evil.example",
    "https://gw.example:8443/",
    "https://gw.example:08443",
]


@pytest.mark.parametrize("origin", LOOK_ALIKES)
def test_what_only_looks_like_an_origin_that_is_allowed(origin: str) -> None:
    assert not OriginPolicy(parse_origins(ALLOWED), is_tls=True).admits([origin], [HERE])


@pytest.mark.parametrize(
    ("origins", "hosts", "is_tls"),
    [
        ([], [HERE], True),
        ([ALLOWED], [HERE], True),
        (["https://gw.example:8443"], [HERE], True),
        (["https://gw.example"], ["gw.example"], True),
        (["https://gw.example"], ["GW.example:443"], True),
        (["http://localhost:8080"], ["localhost:8080"], False),
        (["http://[::1]:8080"], ["[::1]:8080"], False),
        (["https://gw.example"], ["gw.example"], False),  # TLS ends in front
    ],
)
def test_who_may_come(origins: list[str], hosts: list[str], is_tls: bool) -> None:
    assert OriginPolicy(parse_origins(ALLOWED), is_tls=is_tls).admits(origins, hosts)


@pytest.mark.parametrize(
    ("origins", "hosts"),
    [
        ([ALLOWED, ALLOWED], [HERE]),
        (["https://a", "https://gw.example:8443"], [HERE]),
        (["https://gw.example:8443"], []),
    ],
    ids=["two", "two, one of them ours", "without a host"],
)
def test_what_no_browser_sends(origins: list[str], hosts: list[str]) -> None:
    assert not OriginPolicy(parse_origins(ALLOWED), is_tls=True).admits(origins, hosts)


def test_all_of_them_are_let_in_but_the_one_without_a_name() -> None:
    policy = OriginPolicy(parse_origins("*"), is_tls=True)
    assert policy.admits(["https://anybody.example"], [HERE])
    assert not policy.admits(["null"], [HERE])


@pytest.mark.parametrize(
    "wrong", ["app.example", "https://app.example/", "https://App.example", "https://a:443", "ws://a"]
)
def test_a_list_that_no_browser_would_fit(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        parse_origins(f"https://fine.example, {wrong}")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("localhost:8443", True),
        ("127.0.0.1:8443", True),
        ("127.9.9.9", True),
        ("[::1]:8443", True),
        ("gateway.internal", True),
        ("app.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.", False),
        ("2130706433", False),
        ("127.1", False),
        ("0.0.0.0", False),
        ("[::ffff:10.0.0.1]", False),
        ("localhost@evil.example", False),
        ("evil.example:80:80", False),
        ("", False),
    ],
)
def test_the_names_of_a_gateway_on_this_machine(host: str, known: bool) -> None:
    policy = OriginPolicy(parse_origins(ALLOWED), is_tls=False, own_hosts=["gateway.internal"])
    assert policy.knows([host]) is known


def test_names_that_are_not_looked_at() -> None:
    assert OriginPolicy(frozenset(), is_tls=False).knows(["anything"])
    assert OriginPolicy(parse_origins("*"), is_tls=False, own_hosts=["127.0.0.1"]).knows(["anything"])
    assert OriginPolicy(frozenset(), is_tls=False, own_hosts=["127.0.0.1"]).knows([])
    assert not OriginPolicy(frozenset(), is_tls=False, own_hosts=["127.0.0.1"]).knows(["localhost", "localhost"])
