"""A NIM in the same container: its lines, its environment, and the settings that ask for it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asr.engines.mock import MockEngine
from asr.settings import SettingsError, load_settings
from server.nim.build import build_nim, nim_environment
from server.nim.output import CUT, Flow, Lines
from server.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "scripts" / "sagemaker" / "Dockerfile"
KEY = "nvapi-canary"


def settings(env: dict[str, str], cautions: list[str] | None = None) -> ServerSettings:
    told = [] if cautions is None else cautions
    return load_settings(ServerSettings, env=env, env_file=None, caution=told.append)


# --- what it prints


@pytest.mark.parametrize("pieces", [[b"one\ntwo\r\nthree"], [b"on", b"e\ntw", b"o\r", b"\nth", b"ree"]])
def test_lines_are_the_same_however_they_come(pieces: list[bytes]) -> None:
    lines = Lines()
    assert [line for piece in pieces for line in lines.feed(piece)] + lines.end() == ["one", "two", "three"]
    assert lines.end() == []


def test_a_line_is_bounded_and_the_rest_of_it_is_left_out() -> None:
    lines = Lines(max_bytes=10)
    told = [line for _ in range(50) for line in lines.feed(b"x" * 100)]
    assert told == []
    assert lines.feed(b"\nnext\n") == [f"{'x' * 10}{CUT}", "next"]


@pytest.mark.parametrize("before", range(12))
def test_a_secret_is_never_shown_wherever_it_stands(before: int) -> None:
    lines = Lines([KEY], max_bytes=16)
    text = b"." * before + KEY.encode() + b" and more of it\n"
    told = [line for byte in text for line in lines.feed(bytes([byte]))]
    assert len(told) == 1
    assert "nvapi" not in told[0]
    assert KEY not in " ".join(Lines([KEY]).feed(text))


def test_a_flood_of_lines_is_bounded_in_time() -> None:
    flow = Flow(per_s=10, burst=5)
    assert [flow.passes(0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert flow.left_out == 2
    assert [flow.passes(0.2) for _ in range(3)] == [True, True, False]
    assert sum(flow.passes(100.0) for _ in range(9)) == 5


# --- settings


def test_a_nim_that_is_started_here_is_the_recognizer_unless_another_is_named() -> None:
    here = settings({"NIM_COMMAND": "/opt/nim/start"})
    assert (here.nim_host, here.engine) == ("127.0.0.1", "riva")
    assert settings({"NIM_COMMAND": "/opt/nim/start", "RIVA_ENDPOINTS": "riva:1"}).nim_host == ""
    assert settings({"NIM_COMMAND": "/opt/nim/start", "NIM_HOST": "other"}).nim_host == "other"
    assert build_nim(settings({}), MockEngine(), asyncio.Event()) is None


@pytest.mark.parametrize("command", ["start 'nim", "  "])
def test_a_command_that_cannot_be_read_is_told(command: str) -> None:
    with pytest.raises(SettingsError, match=r"^NIM_COMMAND in the environment: "):
        settings({"NIM_COMMAND": command})


def test_variables_of_a_nims_image_are_told_and_not_refused() -> None:
    cautions: list[str] = []
    settings({"NIM_COMMAND": "/opt/nim/start", "RIVA_TRITON_THING": "1", "NIM_HTTP_API_PORT": "9000"}, cautions)
    assert [caution.partition(" ")[0] for caution in cautions] == ["RIVA_TRITON_THING"]
    with pytest.raises(SettingsError, match="RIVA_TRITON_THING"):
        settings({"RIVA_TRITON_THING": "1"})


def test_a_nim_knows_its_own_key_and_ports_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "NIM_COMMAND": "/opt/nim/start",
        "NGC_API_KEY": KEY,
        "RIVA_API_KEY": "other",
        "TOKEN_SECRET": "x" * 40,
        "PORT": "8080",
        "NIM_HTTP_PORT": "9001",
        "CUDA_HOME": "/cuda",
        "NIM_LOG_LEVEL": "2",
    }
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    env = nim_environment(settings(given))
    assert {key: env[key] for key in ("NGC_API_KEY", "NIM_HTTP_API_PORT", "NIM_GRPC_API_PORT", "CUDA_HOME")} == {
        "NGC_API_KEY": KEY,
        "NIM_HTTP_API_PORT": "9001",
        "NIM_GRPC_API_PORT": "50051",
        "CUDA_HOME": "/cuda",
    }
    assert env["NIM_LOG_LEVEL"] == "2"
    assert not {"RIVA_API_KEY", "TOKEN_SECRET", "PORT", "NIM_COMMAND", "GRPC_VERBOSITY"} & env.keys()


# --- the image


def test_the_image_is_well_made_and_says_what_sagemaker_must_know() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    judged = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (judged.returncode, judged.stdout) == (0, "")
    last = DOCKERFILE.read_text("utf-8").rpartition("\nFROM ")[2]
    assert 'com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"' in last
    assert 'com.amazonaws.sagemaker.capabilities.bidirectional-streaming="true"' in last
    assert 'ENTRYPOINT ["/opt/riva-gateway/venv/bin/python", "-I", "-m", "server"]' in last
    assert re.search(r"^USER 0:0$", last, re.M)


def test_the_settings_of_the_image_are_such_that_the_gateway_takes() -> None:
    text = DOCKERFILE.read_text("utf-8").replace("\\\n", " ").replace("${NIM_COMMAND}", "/opt/nim/start_server.sh")
    said = re.findall(r"^ENV (.*)$", text, re.M)[-1]
    env = dict(word.split("=", 1) for word in said.split())
    found = settings(env)
    assert (found.sagemaker_bind_to_port, found.nim_command) == (8080, "/opt/nim/start_server.sh")
    assert (found.grpc_port, found.jobs, found.log_format) == (None, False, "json")
    assert "port" not in found.model_fields_set
