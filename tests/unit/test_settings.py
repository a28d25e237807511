"""Settings: every source, every refusal in one line, and no secret in sight."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import opentelemetry.sdk.environment_variables
import pytest

from asr.config import LocalConfig, MockConfig, ResilienceConfig, ResilientConfig, RivaConfig
from asr.errors import ASRError, Code
from asr.settings import EngineSettings, SettingsError, load_settings, parse_endpoint, parse_metadata
from server.settings import ServerSettings, default_state_dir

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-7f3a"


def load(env: Mapping[str, str] | None = None, **overrides: object) -> ServerSettings:
    return load_settings(ServerSettings, overrides, env or {}, None)


def refusal(env: Mapping[str, str], **overrides: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load(env, **overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- which engine


@pytest.mark.parametrize(
    ("env", "engine"),
    [
        ({}, "local"),
        ({"RIVA_HOST": "riva"}, "riva"),
        ({"RIVA_ENDPOINTS": "riva:50051"}, "riva"),
        ({"RIVA_PORT": "50051"}, "local"),
        ({"RIVA_HOST": ""}, "local"),
        ({"RIVA_HOST": "riva", "ASR_ENGINE": "mock"}, "mock"),
        ({"ASR_ENGINE": "riva"}, "riva"),
    ],
)
def test_the_engine_follows_what_is_set(env: dict[str, str], engine: str) -> None:
    assert load(env).engine == engine


def test_local_settings_mirror_the_config_record() -> None:
    assert load().engine_config() == ResilientConfig((LocalConfig(),))
    for each in fields(LocalConfig):
        assert f"local_{each.name}" in EngineSettings.model_fields
    env = {"LOCAL_WORKERS": "3", "LOCAL_MAX_STREAMS": "5", "LOCAL_SILENCE_MS": "700"}
    assert load(env).engine_config() == ResilientConfig((LocalConfig(workers=3, max_streams=5, silence_ms=700),))


def test_riva_settings_become_the_config_record(tmp_path: Path) -> None:
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).touch()
    env = {
        "RIVA_ENDPOINTS": "riva.example:443",
        "RIVA_SSL": "on",
        "RIVA_SSL_ROOT_CERT": str(tmp_path / "ca.pem"),
        "RIVA_SSL_CLIENT_CERT": str(tmp_path / "client.pem"),
        "RIVA_SSL_CLIENT_KEY": str(tmp_path / "client.key"),
        "RIVA_METADATA": '{"X-Team": "speech"}',
        "RIVA_API_KEY": "key",
        "RIVA_FUNCTION_ID": "f-1",
        "RIVA_MODEL": "parakeet",
        "RIVA_FORCE_EOU": "off",
        "RIVA_CONNECT_TIMEOUT_MS": "1",
        "RIVA_FIRST_RESPONSE_TIMEOUT_MS": "2",
        "RIVA_CALL_TIMEOUT_MS": "3",
        "RIVA_FINALIZE_TIMEOUT_MS": "4",
        "RIVA_STALL_TIMEOUT_MS": "5",
        "RIVA_DEGRADED_AFTER_MS": "6",
        "RIVA_IDLE_SILENCE_MS": "7",
        "RIVA_QUIET_FINAL_MS": "8",
        "RIVA_DRAIN_TIMEOUT_MS": "9",
        "RIVA_KEEPALIVE_TIME_MS": "10",
        "RIVA_KEEPALIVE_TIMEOUT_MS": "11",
        "RIVA_STREAMS_PER_CHANNEL": "12",
        "RIVA_MAX_MESSAGE_BYTES": "65536",
    }
    riva = RivaConfig(
        endpoint="riva.example:443",
        ssl=True,
        root_cert=tmp_path / "ca.pem",
        client_cert=tmp_path / "client.pem",
        client_key=tmp_path / "client.key",
        metadata=(("x-team", "speech"), ("function-id", "f-1"), ("authorization", "Bearer key")),
        model="parakeet",
        force_eou="off",
        connect_timeout_ms=1,
        first_response_timeout_ms=2,
        call_timeout_ms=3,
        finalize_timeout_ms=4,
        stall_timeout_ms=5,
        degraded_after_ms=6,
        idle_silence_ms=7,
        quiet_final_ms=8,
        drain_timeout_ms=9,
        keepalive_time_ms=10,
        keepalive_timeout_ms=11,
        streams_per_channel=12,
        max_message_bytes=65536,
    )
    assert load(env).engine_config() == ResilientConfig((riva,))
    told = {name.removeprefix("riva_") for name in EngineSettings.model_fields}
    told |= {name.removeprefix("ssl_") for name in told}
    assert {each.name for each in fields(RivaConfig)} - told == {"endpoint"}


_SURVIVAL = {
    "ASR_FAILOVER_TIMEOUT_MS": "1",
    "ASR_START_TIMEOUT_MS": "2",
    "ASR_RETRY_BASE_MS": "3",
    "ASR_RETRY_CAP_MS": "4",
    "ASR_RETRY_BUDGET_PERCENT": "5",
    "ASR_BREAKER_FAILURES": "6",
    "ASR_BREAKER_OPEN_MS": "7",
    "ASR_BREAKER_PROBE_MS": "8",
    "ASR_REPLAY_MAX_MS": "9000",
    "ASR_REPLAY_TOTAL_MB": "10",
}
_SURVIVED = ResilienceConfig(1, 2, 3, 4, 5, 6, 7, 8, 9000, 10 * 1024 * 1024)


def test_what_survives_a_failure_is_set_for_every_engine() -> None:
    assert load(_SURVIVAL).engine_config() == ResilientConfig((LocalConfig(),), _SURVIVED)
    assert load({**_SURVIVAL, "ASR_ENGINE": "mock"}).engine_config() == MockConfig()


def test_limits_of_an_endpoint_are_for_riva_only() -> None:
    env = {
        "RIVA_MAX_STREAMS": "1",
        "RIVA_ADAPTIVE_LIMIT": "off",
        "RIVA_MAX_LAG_MS": "2",
        "RIVA_MAX_STREAM_MS": "3",
        "RIVA_HEALTH_INTERVAL_MS": "400",
    }
    assert load(env).engine_config() == ResilientConfig((LocalConfig(),))
    expected = replace(_SURVIVED, max_streams=1, adaptive=False, max_lag_ms=2, max_stream_ms=3, health_interval_ms=400)
    assert load({**env, **_SURVIVAL, "ASR_ENGINE": "riva"}).engine_config() == ResilientConfig(
        (RivaConfig(),), expected
    )


def test_several_endpoints_stand_in_for_each_other() -> None:
    env = {"RIVA_ENDPOINTS": "grpcs://a:1, grpc://b:2,", "RIVA_MODEL": "m"}
    config = load(env).engine_config()
    assert config == ResilientConfig(
        (RivaConfig(endpoint="a:1", ssl=True, model="m"), RivaConfig(endpoint="b:2", model="m"))
    )


@pytest.mark.parametrize(
    ("env", "endpoint", "ssl"),
    [
        ({"RIVA_HOST": "riva"}, "riva:50051", False),
        ({"RIVA_HOST": "riva", "RIVA_PORT": "443"}, "riva:443", False),
        ({"RIVA_HOST": "::1"}, "[::1]:50051", False),
        ({"RIVA_HOST": "[::1]"}, "[::1]:50051", False),
        ({"ASR_ENGINE": "riva"}, "localhost:50051", False),
        ({"RIVA_ENDPOINTS": "grpcs://riva:443/"}, "riva:443", True),
        ({"RIVA_ENDPOINTS": "grpcs://riva:443", "RIVA_SSL": "on"}, "riva:443", True),
        ({"RIVA_ENDPOINTS": " riva:443 ,"}, "riva:443", False),
    ],
)
def test_where_riva_is(env: dict[str, str], endpoint: str, ssl: bool) -> None:
    (config,) = load(env).riva_configs()
    assert (config.endpoint, config.ssl) == (endpoint, ssl)


def test_the_mock_takes_a_plan(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.touch()
    assert load({"ASR_ENGINE": "mock", "ASR_MOCK_PLAN": str(plan)}).engine_config() == MockConfig(plan)


# --- sources


def test_the_first_source_that_has_a_key_wins(tmp_path: Path) -> None:
    secrets, env_file = tmp_path / "secrets", tmp_path / ".env"
    secrets.mkdir()
    (secrets / "PORT").write_text("1\n")
    (secrets / "riva_api_key").write_text("key\n")
    env_file.write_text(f"ASR_SECRETS_DIR={secrets}\n")

    def port(env: dict[str, str], **overrides: object) -> int:
        return load_settings(ServerSettings, overrides, env, env_file).port

    assert port({}) == 1
    env_file.write_text(f"ASR_SECRETS_DIR={secrets}\nPORT=2\n")
    assert port({}) == 2
    assert port({"PORT": "3"}) == 3
    assert port({"PORT": "3"}, port=4) == 4
    assert port({"PORT": "3"}, PORT=4) == 4
    assert port({"PORT": "3"}, port=None) == 3
    key = load_settings(ServerSettings, {}, {}, env_file).riva_api_key
    assert key is not None
    assert key.get_secret_value() == "key"


def test_constructing_settings_reads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORT", "1234")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PORT=1235\n")
    assert ServerSettings().port == 8443
    assert load_settings(ServerSettings, {}).port == 1234
    monkeypatch.delenv("PORT")
    assert load_settings(ServerSettings, {}).port == 1235


def test_an_empty_value_is_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=\nTLS_CERT=\n")
    assert load_settings(ServerSettings, {}, {"GRPC_PORT": ""}, tmp_path / ".env").port == 8443


@pytest.mark.parametrize(
    ("text", "line"),
    [("just words\n", 1), ("# note\n\n\nPORT=1\n\nPORT 8080\n", 6), ("\nRIVA_API_KEY\n", 2), ("PORT='1\n", 1)],
)
def test_a_line_that_sets_nothing_is_refused(tmp_path: Path, text: str, line: int) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(text)
    with pytest.raises(SettingsError, match=rf"\.env line {line}: ") as caught:
        load_settings(ServerSettings, {}, {}, env_file)
    assert "8080" not in caught.value.message


def test_docker_compose_and_the_scripts_share_the_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("COMPOSE_PROFILES=nim\nDEPLOY_TARGET=gateway\nPORT=2\n")
    assert load_settings(ServerSettings, {}, {}, env_file).port == 2


def test_comments_exports_and_quotes_are_no_mistakes(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('# note\n\n  # more\nexport PORT = 1 # one\nRIVA_METADATA="a=b\n"\n')
    assert load_settings(ServerSettings, {}, {}, tmp_path / ".env").port == 1


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe\n")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_settings(ServerSettings, {}, {}, tmp_path / ".env")
    assert "not a directory" in refusal({"ASR_SECRETS_DIR": str(tmp_path / "none")})


# --- unknown keys


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("RIVA_HSOT", "RIVA_HOST"),
        ("ASR_ENGIN", "ASR_ENGINE"),
        ("LOCAL_MAX_STREAM", "LOCAL_MAX_STREAMS"),
        ("TLS_CRT", "TLS_CERT"),
        ("IDLE_TIMEOUT", "IDLE_TIMEOUT_MS"),
        ("GRPC_PROT", "GRPC_PORT"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(key: str, near: str) -> None:
    text = refusal({key: CANARY})
    assert text == f"{key} in the environment: there is no such setting. Did you mean {near}?"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("LOCAL_RANK", "0"),
        ("TLS_VERSION", "1.3"),
        ("GRPC_VERBOSITY", "debug"),
        ("HOST", "x86_64-conda-linux-gnu"),
        ("PATH", "/bin"),
        ("RIVA_GRPC_PORT", "50051"),
        ("RIVA_SERVICE_HOST", "10.0.0.1"),
        ("RIVA_SERVICE_PORT_GRPC", "50051"),
        ("RIVA_PORT", "tcp://10.0.0.1:50051"),
        ("RIVA_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("RIVA_GATEWAY_PORT", "tcp://10.0.0.1:8443"),
    ],
)
def test_other_programs_variables_are_left_alone(key: str, value: str) -> None:
    assert load({key: value}) == load()


def test_every_unknown_key_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL={CANARY}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(ServerSettings, {}, {}, tmp_path / ".env")
    assert str(caught.value).startswith("DATABASE_URL in ")
    assert CANARY not in str(caught.value)
    assert caught.value.param == "DATABASE_URL"


def test_an_unknown_override_is_refused() -> None:
    assert refusal({}, prot=1).startswith("PROT: there is no such setting.")


# --- bad values


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"PORT": "abc"}, "PORT in the environment: 'abc' is not a whole number. Set it to a port number."),
        ({"PORT": "65536"}, "PORT in the environment: '65536' is too large. Set it to a port number of at most 65535."),
        (
            {"START_TIMEOUT_MS": "0"},
            "START_TIMEOUT_MS in the environment: '0' is too small. Set it to a whole number of milliseconds of at "
            "least 1.",
        ),
        ({"TLS": "maybe"}, "TLS in the environment: 'maybe' is neither yes nor no. Set it to on or off."),
        (
            {"ASR_ENGINE": "rvia"},
            "ASR_ENGINE in the environment: 'rvia' is not a choice. Set it to local, riva or mock.",
        ),
        (
            {"RIVA_HOST": "a", "RIVA_ENDPOINTS": "b:1"},
            "RIVA_HOST: RIVA_ENDPOINTS is set too, and both name the server. Keep one of them.",
        ),
        (
            {"GRPC_PORT": "8443"},
            "GRPC_PORT: 8443 is PORT already. Give the gRPC face a port of its own.",
        ),
    ],
)
def test_a_bad_value_is_one_line_with_key_problem_and_fix(env: dict[str, str], text: str) -> None:
    assert refusal(env) == text


@pytest.mark.parametrize(
    ("env", "key", "words"),
    [
        ({"RIVA_ENDPOINTS": "a:1,b"}, "RIVA_ENDPOINTS", "endpoint 2: an endpoint needs a host and a port"),
        ({"RIVA_ENDPOINTS": "a:1,b:2,grpc://A:1"}, "RIVA_ENDPOINTS", "endpoint 3: a:1 is named before"),
        ({"RIVA_IDLE_SILENCE_MS": "50000"}, "RIVA_IDLE_SILENCE_MS", "gives a stream up after 60 s"),
        ({"RIVA_IDLE_SILENCE_MS": "-1"}, "RIVA_IDLE_SILENCE_MS", "too small"),
        ({"RIVA_STREAMS_PER_CHANNEL": "0"}, "RIVA_STREAMS_PER_CHANNEL", "at least 1"),
        ({"RIVA_HEALTH_INTERVAL_MS": "99"}, "RIVA_HEALTH_INTERVAL_MS", "at least 100"),
        ({"ASR_REPLAY_MAX_MS": "999"}, "ASR_REPLAY_MAX_MS", "at least 1000"),
        ({"ASR_RETRY_BUDGET_PERCENT": "101"}, "ASR_RETRY_BUDGET_PERCENT", "at most 100"),
        ({"RIVA_ENDPOINTS": "riva"}, "RIVA_ENDPOINTS", "needs a host and a port"),
        ({"RIVA_ENDPOINTS": "https://riva:443"}, "RIVA_ENDPOINTS", "grpcs://host:port"),
        ({"RIVA_HOST": "riva:50051"}, "RIVA_HOST", "RIVA_PORT"),
        ({"RIVA_HOST": "a/b"}, "RIVA_HOST", "not a host name"),
        ({"RIVA_SSL_ROOT_CERT": "/none.pem"}, "RIVA_SSL_ROOT_CERT", "no file /none.pem"),
        ({"ASR_MOCK_PLAN": "/none.toml"}, "ASR_MOCK_PLAN", "no file"),
        ({"TLS_CERT": "/none.pem"}, "TLS_CERT", "no file"),
        ({"RIVA_FUNCTION_ID": "a\nb"}, "RIVA_FUNCTION_ID", "cannot travel"),
        ({"LISTEN_HOST": "localhost:8443"}, "LISTEN_HOST", "PORT"),
        ({"LOG_FORMAT": "text"}, "LOG_FORMAT", "console or json"),
    ],
)
def test_what_a_bad_value_is_told(env: dict[str, str], key: str, words: str) -> None:
    text = refusal(env)
    assert text.startswith(f"{key} in the environment: ")
    assert words in text


@pytest.mark.parametrize(
    ("env", "text"),
    [
        (
            {"RIVA_ENDPOINTS": "grpcs://a:1", "RIVA_SSL": "off"},
            "RIVA_SSL: it is off, and RIVA_ENDPOINTS has a grpcs://. Change one of the two.",
        ),
        (
            {"RIVA_ENDPOINTS": "a:1,grpc://b:1", "RIVA_SSL": "on"},
            "RIVA_SSL: it is on, and RIVA_ENDPOINTS has a grpc://. Change one of the two.",
        ),
        ({"RIVA_ENDPOINTS": "grpcs://a:1,b:1"}, "RIVA_ENDPOINTS: some endpoints say grpc:// or grpcs://, others do"),
        ({"ASR_RETRY_BASE_MS": "5000"}, "ASR_RETRY_CAP_MS: 2000 is below ASR_RETRY_BASE_MS"),
    ],
)
def test_settings_that_contradict_each_other(env: dict[str, str], text: str) -> None:
    assert refusal(env).startswith(text)


def test_certificates_go_with_their_keys(tmp_path: Path) -> None:
    (tmp_path / "a.pem").touch()
    file = str(tmp_path / "a.pem")
    assert refusal({"TLS_CERT": file}).startswith("TLS_KEY: ")
    assert refusal({"TLS_KEY": file}).startswith("TLS_CERT: ")
    assert refusal({"RIVA_SSL_CLIENT_CERT": file}).startswith("RIVA_SSL_CLIENT_KEY: ")
    assert refusal({"RIVA_SSL_CLIENT_KEY": file}).startswith("RIVA_SSL_CLIENT_CERT: ")


def test_a_key_is_never_sent_in_the_clear() -> None:
    env = {"RIVA_HOST": "riva.example", "RIVA_API_KEY": CANARY}
    assert refusal(env).startswith("RIVA_API_KEY: it would travel unencrypted")
    assert load({**env, "RIVA_SSL": "on"}).riva_configs()[0].ssl
    several = {"RIVA_ENDPOINTS": "localhost:1,riva.example:1", "RIVA_API_KEY": CANARY}
    assert refusal(several).startswith("RIVA_API_KEY: it would travel unencrypted")
    assert load({**env, "RIVA_HOST": "127.0.0.1"}).engine == "riva"


def test_a_settings_error_is_both_families() -> None:
    with pytest.raises(ASRError) as caught:
        load({"PORT": "x"})
    assert isinstance(caught.value, ValueError)
    assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, "PORT")


def test_words_for_off() -> None:
    assert load({"GRPC_PORT": "off"}).grpc_port is None
    assert load(grpc_port="off").grpc_port is None
    assert load({"LOG_LEVEL": "WARN"}).log_level == "warning"
    assert load({"TLS": "off"}).tls is False
    assert load({"LISTEN_HOST": "[::1]"}).host == "::1"
    assert load(host="::1").host == "::1"


def test_the_state_directory_follows_xdg() -> None:
    assert default_state_dir({"XDG_STATE_HOME": "/state"}) == Path("/state/riva-gateway")
    assert default_state_dir({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/riva-gateway"
    assert load({"STATE_DIR": "~/x"}).state_dir == Path.home() / "x"


# --- secrets


def test_secrets_are_never_shown() -> None:
    env = {"RIVA_API_KEY": CANARY, "RIVA_METADATA": f"x-key={CANARY}", "RIVA_HOST": "localhost"}
    settings = load(env)
    shown = [repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())]
    shown += [repr(settings.engine_config()), str(settings.riva_configs())]
    assert not any(CANARY in text for text in shown)


@pytest.mark.parametrize(
    "env",
    [
        {"RIVA_API_KEY": f"{CANARY} with a blank"},
        {"RIVA_API_KEY": f"{CANARY}\n"},
        {"RIVA_METADATA": CANARY},
        {"RIVA_METADATA": f'{{"a": {CANARY}'},
        {"RIVA_METADATA": f"{CANARY} x=b"},
        {"RIVA_METADATA": f"a={CANARY}\x01"},
        {"RIVA_METADATA": f"authorization={CANARY}", "RIVA_API_KEY": CANARY, "RIVA_HOST": "localhost"},
        {"RIVA_METADATA": f"function-id={CANARY}", "RIVA_FUNCTION_ID": "a"},
        {"RIVA_API_KEY": CANARY, "PORT": "x"},
        {"RIVA_API_KYE": CANARY},
        {"RIVA_HOST": "riva.example", "RIVA_API_KEY": CANARY},
        {"RIVA_ENDPOINTS": f"user:{CANARY}@riva:443"},
        {"RIVA_ENDPOINTS": f"a:1,user:{CANARY}@riva:443"},
    ],
)
def test_no_error_repeats_a_secret(env: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(env)
    whole = "".join(traceback.format_exception(caught.value))
    assert CANARY not in str(caught.value) + repr(caught.value)
    assert CANARY not in whole
    assert caught.value.__context__ is None


def test_nor_does_one_about_an_override() -> None:
    text = refusal({}, riva_api_key=[CANARY])
    assert text.startswith("RIVA_API_KEY: the value ")
    assert CANARY not in text


def test_pydantic_itself_hides_the_input() -> None:
    with pytest.raises(ValueError, match="riva_api_key") as caught:
        ServerSettings(riva_api_key=[CANARY])  # type: ignore[arg-type]
    assert CANARY not in str(caught.value)


# --- the small parsers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("riva:50051", ("riva:50051", None)),
        ("[::1]:1", ("[::1]:1", None)),
        ("grpc://riva:1", ("riva:1", False)),
        ("GRPCS://riva:1/", ("riva:1", True)),
    ],
)
def test_parse_endpoint(text: str, expected: tuple[str, bool | None]) -> None:
    assert parse_endpoint(text) == expected


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:0", "a:70000", "a:1x", "::1:5", "a b:1", "u@h:1", "http://a:1"])
def test_parse_endpoint_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"Give .*host:port|Give \[::1\]:50051"):
        parse_endpoint(text)


def test_parse_metadata() -> None:
    assert parse_metadata("a=b, C=d=e") == (("a", "b"), ("c", "d=e"))
    assert parse_metadata('{"a": "b,c"}') == (("a", "b,c"),)
    for bad in ("a", "a b=c", "x-bin=c", "grpc-x=1", '{"a": 1}', "{", "a=\x07"):
        with pytest.raises(ValueError, match=r"\."):
            parse_metadata(bad)


# --- .env.example


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    pairs = [line[1:].partition("=") for line in lines if re.match(r"#[A-Z_]+=", line)]
    assert not [line for line in lines if line and not line.startswith("#")], "everything is commented out"
    assert len({key for key, _, _ in pairs}) == len(pairs)
    return {key: value for key, _, value in pairs}


def test_the_example_has_every_key_with_its_default() -> None:
    assert set(example()) == set(ServerSettings.known_keys())
    assert load(example()) == load()


def test_the_example_spells_out_the_defaults() -> None:
    keys = dict(zip(ServerSettings.known_keys(), ServerSettings.model_fields.values(), strict=True))
    for key, value in example().items():
        default: Any = keys[key].default
        has_default = isinstance(default, bool | int | float) or (isinstance(default, str) and default != "")
        assert bool(value) == has_default, key


def test_the_library_puts_up_with_keys_of_the_command() -> None:
    # It refuses unknown keys with its prefixes, and may run in a shell that is set up for the command.
    own = set(ServerSettings.known_keys()) - set(EngineSettings.known_keys())
    with_prefix = {key for key in own if key.startswith(EngineSettings.own_prefixes)}
    assert with_prefix
    assert with_prefix <= EngineSettings.foreign_keys
    assert load_settings(EngineSettings, {}, {"ASR_LANGUAGE": "en-US"}, None).engine == "local"


# --- OpenTelemetry's variables are many programs'


@pytest.mark.parametrize("name", sorted(vars(opentelemetry.sdk.environment_variables)))
def test_opentelemetrys_own_variables_keep_nobody_from_starting(name: str) -> None:
    if name.startswith("OTEL_") and name not in ServerSettings.known_keys():
        load_settings(ServerSettings, env={name: "x"}, env_file=None)


def test_one_of_ours_misspelt_is_still_told() -> None:
    with pytest.raises(SettingsError, match="Did you mean OTEL_EXPORTER_OTLP_ENDPOINT"):
        load_settings(ServerSettings, env={"OTEL_EXPORTER_OTLP_ENDPONT": "x"}, env_file=None)


@pytest.mark.parametrize("address", ["http://localhost:4318", "https://otel.example/base/", " http://[::1]:4318 ", ""])
def test_a_collectors_address(address: str) -> None:
    read = load_settings(ServerSettings, env={"OTEL_EXPORTER_OTLP_ENDPOINT": address}, env_file=None)
    assert read.otel_exporter_otlp_endpoint == address.strip()


@pytest.mark.parametrize(
    "address",
    [
        *("localhost:4318", "grpc://localhost:4317", "http://", "http://host:99999", "http://host:0", "//host"),
        *("http://user:hunter2@host", "http://host/?token=hunter2", "http://host/a b", "http://[::1", "file:///etc"),
    ],
)
def test_what_is_no_collectors_address_is_told_without_secrets(address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(ServerSettings, env={"OTEL_EXPORTER_OTLP_ENDPOINT": address}, env_file=None)
    assert caught.value.param == "OTEL_EXPORTER_OTLP_ENDPOINT"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("headers", ["hunter2", "a=b,hunter2", "a b=hunter2", "=hunter2", "a=hunter2%0d%0ab: c"])
def test_headers_that_are_none_are_told_without_their_text(headers: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(ServerSettings, env={"OTEL_EXPORTER_OTLP_HEADERS": headers}, env_file=None)
    assert "hunter2" not in str(caught.value)
    assert "key=value" in str(caught.value)
