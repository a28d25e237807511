"""A command's own credential: where it goes, where it does not, and what is said when it is no good."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.config import GatewayConfig, ResilientConfig, RivaConfig
from asr.errors import Action, ASRError, Code
from asr.loading import SettingsError
from server.commands.advice import advise
from server.commands.connection import Connection, engine_config, read_settings
from server.commands.exits import Exit, Stop, exit_of
from server.commands.lengths import seconds
from server.commands.load_run import _watched, door_of
from server.settings import ServerSettings

KEY = "rgw_canary"


@pytest.fixture(autouse=True)
def _with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ServerSettings.known_keys():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ASR_API_KEY", KEY)


def test_a_gateway_gets_the_key_in_its_header_and_nobody_sees_it() -> None:
    config = engine_config(Connection(server="https://gateway.example:8443"))
    assert isinstance(config, GatewayConfig)
    assert config.token == KEY
    door = door_of(config)
    assert door.metadata == (("Authorization", f"Bearer {KEY}"),)
    assert KEY not in f"{config!r} {door!r} {read_settings({})!r}"


def test_over_grpc_it_is_metadata_and_wins_over_that_of_the_recognizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVA_API_KEY", "nvapi-other")
    monkeypatch.setenv("RIVA_SSL", "on")
    config = engine_config(Connection(server="grpcs://gateway.example:50052"))
    assert isinstance(config, ResilientConfig)
    (riva,) = config.members
    assert isinstance(riva, RivaConfig)
    assert ("authorization", f"Bearer {KEY}") in riva.metadata
    own = engine_config(Connection())
    assert isinstance(own, ResilientConfig)
    assert KEY not in str([getattr(member, "metadata", ()) for member in own.members])


def test_in_plain_text_to_another_machine_it_is_not_sent() -> None:
    with pytest.raises(Stop, match="ASR_API_KEY: it would travel unencrypted"):
        engine_config(Connection(server="grpc://gateway.example:50052"))
    assert _watched("http://gateway.example:8080", None).token == ""
    assert _watched("http://localhost:8080", None).token == KEY
    assert _watched("https://gateway.example:8443", None).token == KEY


@pytest.mark.parametrize("value", ["canary canary", "canary\n", "ключ", ""])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_API_KEY", value)
    if value:
        with pytest.raises(SettingsError, match="ASR_API_KEY") as refused:
            read_settings({})
        assert value.strip() not in str(refused.value)
    else:
        assert engine_config(Connection(server="https://gateway.example")) is not None


@pytest.mark.parametrize(
    ("error", "config", "told"),
    [
        (
            ASRError(Code.UNAUTHORIZED, "The gateway asks for a credential. Give token=…."),
            GatewayConfig("https://gateway.example"),
            "https://gateway.example: The gateway asks for a credential. Set ASR_API_KEY to a key or token of it.",
        ),
        (
            ASRError(Code.INTERNAL, "The recognizer refused the credentials that this program is set up with."),
            RivaConfig("gateway.example:50052"),
            "The recognizer at gateway.example:50052 refused the credentials. ASR_API_KEY, RIVA_API_KEY",
        ),
    ],
)
def test_a_credential_that_is_no_good_is_a_mistake_in_a_setting(
    error: ASRError, config: GatewayConfig | RivaConfig, told: str
) -> None:
    advised = advise(error, config)
    assert advised.message.startswith(told)
    assert advised.action is Action.NONE
    assert exit_of(advised) is Exit.CONFIGURATION


def test_lengths_of_time() -> None:
    assert [seconds(text, "--ttl") for text in ("30s", "5m", "12h", "90D")] == [30, 300, 43_200, 7_776_000]
    for text in ("", "5", "m", "0s", "-1d", "1w", "1.5h", "9999999d", "٣d", "999999d"):
        with pytest.raises(Stop, match="--ttl"):
            seconds(text, "--ttl")
