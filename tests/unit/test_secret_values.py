"""Secrets that are named instead of given: read where they are, and told of without a value."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from asr.aws_secrets import PATIENCE_S, secret_text
from asr.environment import plain_environment
from asr.secret_values import MAX_SECRET_BYTES, NamedSecrets, SecretProblem
from asr.settings import SettingsError, load_settings
from server.settings import ServerSettings

CANARY = "canary-1c9d-0123456789-0123456789"


class _Manager:
    def __init__(self, answer: Mapping[str, Any]) -> None:
        self._answer = answer

    def get_secret_value(self, *, SecretId: str) -> Mapping[str, Any]:  # noqa: N803 - boto3's spelling
        return self._answer


def load(env: Mapping[str, str], secrets: NamedSecrets | None = None) -> tuple[ServerSettings, list[str]]:
    cautions: list[str] = []
    return load_settings(ServerSettings, {}, env, None, secrets=secrets, caution=cautions.append), cautions


def refusal(env: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(env)
    told = "".join(traceback.format_exception(caught.value))
    assert CANARY not in told
    assert "\n" not in str(caught.value)
    return str(caught.value)


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("key", ServerSettings.secret_keys())
def test_every_secret_key_may_name_a_file(tmp_path: Path, key: str) -> None:
    value = f"a={CANARY}" if key in ("RIVA_METADATA", "OTEL_EXPORTER_OTLP_HEADERS") else CANARY
    path = private(tmp_path / "secret", value + "\r\n")
    settings, cautions = load({key: f"file:{path}"})
    field = next(name for name, known in _names().items() if known == key)
    assert getattr(settings, field).get_secret_value() == value
    assert cautions == []
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings.model_dump())


def _names() -> dict[str, str]:
    return dict(zip(ServerSettings.model_fields, ServerSettings.known_keys(), strict=True))


def test_a_file_is_named_as_a_path_or_as_an_address(tmp_path: Path) -> None:
    path = private(tmp_path / "secret", f"{CANARY}\n\n")
    for reference in (f"file:{path}", f"file://{path}"):
        assert NamedSecrets().value_of(reference) == CANARY


def test_what_is_wrong_with_a_file_is_told_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert "cannot be read (No such file" in refusal({"RIVA_API_KEY": f"file:{path}"})
    path.write_bytes(CANARY.encode() + b"\xff")
    assert "is not UTF-8" in refusal({"RIVA_API_KEY": f"file:{path}"})
    path.write_text("\n")
    assert "is empty" in refusal({"RIVA_API_KEY": f"file:{path}"})
    path.write_text(CANARY * MAX_SECRET_BYTES)
    assert f"more than {MAX_SECRET_BYTES} bytes" in refusal({"RIVA_API_KEY": f"file:{path}"})
    assert "Is a directory" in refusal({"RIVA_API_KEY": f"file:{tmp_path}"})


def test_a_file_that_everybody_may_read_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    private(folder / "riva_api_key", f"{CANARY}\n")
    private(folder / "PORT", "1\n").chmod(0o644)  # no secret
    elsewhere = private(tmp_path / "token", CANARY)
    env = {"ASR_SECRETS_DIR": str(folder), "TOKEN_SECRET": f"file:{elsewhere}"}
    settings, cautions = load(env)
    assert settings.riva_api_key is not None
    assert settings.riva_api_key.get_secret_value() == CANARY
    assert cautions == []
    (folder / "riva_api_key").chmod(0o604)
    elsewhere.chmod(0o644)
    _, cautions = load(env)
    assert [line.partition(":")[0] for line in sorted(cautions)] == ["RIVA_API_KEY", "TOKEN_SECRET"]
    assert all("chmod o-r" in line and CANARY not in line for line in cautions)


def test_only_secret_keys_name_secrets() -> None:
    assert "is for secret keys" in refusal({"RIVA_MODEL": "aws-sm:model"})
    assert load({"RIVA_MODEL": "file:x"})[0].riva_model == "file:x"


def test_a_reference_may_come_from_every_source(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return '{"key": "k-1", "mint": "m-1"}'

    folder = tmp_path / "secrets"
    folder.mkdir()
    private(folder / "riva_api_key", "aws-sm:speech#key\n")
    env_file = tmp_path / ".env"
    env_file.write_text(f"ASR_SECRETS_DIR={folder}\nREALTIME_AUTH_MINT_API_KEY=aws-sm:speech#mint\n")
    settings = load_settings(
        ServerSettings, {"jobs_webhook_secret": "aws-sm:speech#key"}, {}, env_file, secrets=NamedSecrets(ask)
    )
    found = (settings.riva_api_key, settings.realtime_auth_mint_api_key, settings.jobs_webhook_secret)
    assert [value.get_secret_value() for value in found if value is not None] == ["k-1", "m-1", "k-1"]
    assert asked == ["speech"], "one secret is asked for once"


def test_a_value_from_elsewhere_is_judged_like_any_other(tmp_path: Path) -> None:
    path = private(tmp_path / "secret", f"{CANARY} with blanks")
    assert "holds a blank" in refusal({"RIVA_API_KEY": f"file:{path}"})


def test_aws_without_boto3_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "Install riva-gateway[aws]" in refusal({"RIVA_API_KEY": "aws-sm:speech/riva"})


def test_boto3_is_loaded_for_a_reference_alone() -> None:
    code = (
        "import sys\n"
        "from asr.settings import load_settings\n"
        "from server.settings import ServerSettings\n"
        "load_settings(ServerSettings, {'riva_api_key': 'k'}, {}, None)\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_client_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.aws_secrets.PATIENCE_S", 0.05)
    never = threading.Event()

    def connect() -> _Manager:
        never.wait()
        return _Manager({"SecretString": CANARY})

    with pytest.raises(SecretProblem, match=r"out of reach \(no answer within 0\.05 s\)"):
        secret_text("speech", connect)
    never.set()
    assert PATIENCE_S < 8


def test_a_client_that_breaks_is_told_by_its_kind_alone() -> None:
    def connect() -> _Manager:
        raise RuntimeError(CANARY)

    with pytest.raises(SecretProblem, match=r"\(RuntimeError\)") as caught:
        secret_text("speech", connect)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_an_absurd_name_is_cut_in_the_message() -> None:
    with pytest.raises(SecretProblem) as caught:
        secret_text("x" * 5_000, lambda: _Manager({"SecretBinary": b""}))
    assert len(str(caught.value)) < 400


def test_children_are_given_no_secret() -> None:
    env = dict.fromkeys(ServerSettings.known_keys(), CANARY)
    env |= {"AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": CANARY, "PATH": "/bin", "LC_ALL": "C"}
    assert plain_environment(env) == {"PATH": "/bin", "LC_ALL": "C"}


def test_a_crash_leaves_no_image_of_the_memory() -> None:
    code = (
        "import resource\n"
        "from server.hardening import no_core_dumps\n"
        "no_core_dumps()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2),
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
