"""Where the image's health check looks: where `serve` listens with the same settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.settings import load_settings
from server.commands.serve import as_container
from server.probe import Door, door
from server.settings import ServerSettings

MADE_UP = Path(__file__)
"""Any file that is there: who listens does not read it yet."""


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"PORT": "9443"},
        {"PORT": ""},
        {"port": "9443"},
        {"TLS": "off"},
        {"TLS": "False"},
        {"TLS": "0"},
        {"TLS": "on"},
        {"SAGEMAKER_BIND_TO_PORT": "8080"},
        {"SAGEMAKER_BIND_TO_PORT": "8080", "PORT": "9443"},
        {"SAGEMAKER_BIND_TO_PORT": "8080", "TLS": "on"},
        {"SAGEMAKER_BIND_TO_PORT": "8080", "PORT": "9443", "TLS": "off"},
        {"TLS_CLIENT_CA": str(MADE_UP)},
        {"TLS_CLIENT_CA": str(MADE_UP), "TLS": "off"},
    ],
    ids=str,
)
def test_it_looks_where_the_gateway_listens(env: dict[str, str]) -> None:
    settings = as_container(load_settings(ServerSettings, env=env, env_file=None))
    found = door(env)
    assert (found.port, found.tls) == (settings.port, settings.tls)
    assert found.asks_certificates == (settings.tls and settings.tls_client_ca is not None)


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("[::]", "::1"),
        ("10.1.2.3", "10.1.2.3"),
        ("localhost", "localhost"),
    ],
)
def test_an_address_for_everybody_is_asked_from_inside(said: str, asked: str) -> None:
    assert door({"LISTEN_HOST": said}).host == asked


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ("riva-gateway serve --port 9000", Door("127.0.0.1", 9000, True, False)),
        ("riva-gateway serve --port=9000 --no-tls", Door("127.0.0.1", 9000, False, False)),
        ("tini -- riva-gateway serve -p 9000 --host 10.1.2.3", Door("10.1.2.3", 9000, True, False)),
        ("riva-gateway serve --grpc-port 1", Door("127.0.0.1", 7000, True, False)),
    ],
)
def test_a_flag_wins(argv: str, found: Door) -> None:
    assert door({"PORT": "7000", "SAGEMAKER_BIND_TO_PORT": "8080"}, argv.split()) == found


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match="web"):
        door({"PORT": "web"})
