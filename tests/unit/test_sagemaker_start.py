"""How the command starts in a SageMaker container, and which recognizer a NIM's address means."""

from __future__ import annotations

from typing import Any

import pytest

from asr.loading import load_settings
from server.commands.serve import as_container
from server.settings import ServerSettings


def settings(env: dict[str, str] | None = None, **flags: object) -> ServerSettings:
    return as_container(load_settings(ServerSettings, flags, env=env or {}, env_file=None))


def listens(found: ServerSettings) -> tuple[str, int, bool]:
    return found.host, found.port, found.tls


@pytest.mark.parametrize(
    ("env", "flags", "expected"),
    [
        ({}, {}, ("127.0.0.1", 8443, True)),
        ({"SAGEMAKER_BIND_TO_PORT": "8080"}, {}, ("0.0.0.0", 8080, False)),
        ({"SAGEMAKER_BIND_TO_PORT": "8080", "PORT": "9999"}, {}, ("127.0.0.1", 9999, True)),
        ({"SAGEMAKER_BIND_TO_PORT": "8080"}, {"port": 9999}, ("127.0.0.1", 9999, True)),
        ({"SAGEMAKER_BIND_TO_PORT": "8080", "LISTEN_HOST": "10.0.0.1"}, {}, ("10.0.0.1", 8080, False)),
        ({"SAGEMAKER_BIND_TO_PORT": "8080", "TLS": "on"}, {}, ("0.0.0.0", 8080, True)),
        ({"SAGEMAKER_BIND_TO_PORT": ""}, {}, ("127.0.0.1", 8443, True)),
    ],
)
def test_where_the_command_listens(env: dict[str, str], flags: dict[str, Any], expected: tuple[str, int, bool]) -> None:
    assert listens(settings(env, **flags)) == expected


@pytest.mark.parametrize(
    ("env", "engine", "endpoint"),
    [
        ({"NIM_HOST": "127.0.0.1"}, "riva", "127.0.0.1:50051"),
        ({"NIM_HOST": "nim", "RIVA_GRPC_PORT": "50099"}, "riva", "nim:50099"),
        ({"NIM_HOST": "::1"}, "riva", "[::1]:50051"),
        ({"NIM_HOST": "nim", "RIVA_HOST": "riva", "RIVA_PORT": "1"}, "riva", "riva:1"),
        ({"NIM_HOST": "nim", "RIVA_ENDPOINTS": "riva:2"}, "riva", "riva:2"),
    ],
)
def test_a_nim_is_the_recognizer_where_no_other_is_named(env: dict[str, str], engine: str, endpoint: str) -> None:
    found = settings(env)
    assert found.engine == engine
    assert [riva.endpoint for riva in found.riva_configs()] == [endpoint]


def test_a_nim_beside_another_engine_is_for_the_http_route_alone() -> None:
    found = settings({"NIM_HOST": "nim", "ASR_ENGINE": "local"})
    assert (found.engine, found.nim_host, found.nim_http_port) == ("local", "nim", 9000)
