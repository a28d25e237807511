"""The command line's pure parts: what flags mean, what is printed, what an exit status says."""

from __future__ import annotations

import io
import json
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from typer.testing import CliRunner

from asr.config import GatewayConfig, LocalConfig, MockConfig, ResilientConfig, RivaConfig
from asr.errors import ASRError, Code
from asr.events import Final, Partial, Word
from asr.riva_codec import error_from_status
from asr.session.address import connection_error, plain_text, status_error
from asr.settings import SettingsError
from asr.transcript import Transcript
from server.certificates import ensure_local_certificate
from server.commands import banner
from server.commands.advice import advise, without_name
from server.commands.app import app
from server.commands.connection import Connection, EngineChoice, engine_config, recognizer
from server.commands.exits import Exit, Stop, exit_of
from server.commands.formats import Format, destinations, render, render_error
from server.commands.listen import Screen
from server.commands.progress import Bars, clock
from server.commands.serve import facts_of
from server.commands.target import Target, certificate_to_trust, parse_server
from server.settings import ServerSettings

COMMANDS = (
    "serve",
    "transcribe",
    "listen",
    "models",
    "health",
    "mock-riva",
    "schema",
    "report",
    "golden",
    "load",
    "key",
    "token",
)


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` and no keys but those a test sets."""
    monkeypatch.chdir(tmp_path)
    for key in ServerSettings.known_keys():
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))


def _run(*arguments: str, columns: int = 200) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def _transcript(text: str = "hello there") -> Transcript:
    words = (Word("hello", 0, 400), Word("there", 400, 900))
    finals = (Final(0, 1, text, 0, 900, words=words),) if text else ()
    return Transcript(text, finals, language="en-US", model="m", duration_ms=1000)


# --- help


def test_the_first_help_names_every_command_and_every_status() -> None:
    status, out, _ = _run("--help")
    assert status == 0
    for command in COMMANDS:
        assert f" {command} " in out
    assert "Every flag has a key" not in out  # most of golden and load have none
    for number in ("0 done", "1 failed", "2 wrong", "3 not", "4 bad", "130 Ctrl-C"):
        assert number in " ".join(re.sub(r"[│\s]+", " ", out).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    status, out, _ = _run(command, "--help")
    assert status == 0
    assert f"$ riva-gateway {command}" in out or f"riva-gateway {command}" in out.split("Usage", 1)[1].split("\n", 1)[1]
    assert "[dim]" not in out
    assert "[bold]" not in out


@pytest.mark.parametrize(
    ("command", "flag", "key"),
    [
        ("serve", "--host", "LISTEN_HOST"),
        ("serve", "--port", "PORT"),
        ("serve", "--grpc-port", "GRPC_PORT"),
        ("serve", "--no-tls", "TLS=off"),
        ("serve", "--engine", "ASR_ENGINE"),
        ("serve", "--mock-plan", "ASR_MOCK_PLAN"),
        ("transcribe", "--engine", "ASR_ENGINE"),
        ("transcribe", "--server", "ASR_SERVER"),
        ("transcribe", "--model", "ASR_MODEL"),
        ("transcribe", "--language", "ASR_LANGUAGE"),
        ("transcribe", "--format", "ASR_FORMAT"),
        ("transcribe", "--output-dir", "ASR_OUTPUT_DIR"),
        ("transcribe", "--words", "ASR_WORDS"),
        ("transcribe", "--ca-cert", "ASR_CA_CERT"),
        ("transcribe", "--insecure", "ASR_INSECURE"),
        ("listen", "--device", "ASR_DEVICE"),
        ("mock-riva", "--host", "ASR_MOCK_HOST"),
        ("mock-riva", "--grpc-port", "ASR_MOCK_GRPC_PORT"),
        ("mock-riva", "--http-port", "ASR_MOCK_HTTP_PORT"),
        ("mock-riva", "--plan", "ASR_MOCK_PLAN"),
    ],
)
def test_a_flag_names_its_key(command: str, flag: str, key: str) -> None:
    _, out, _ = _run(command, "--help")
    options = out[out.index("╭") :]
    row = re.split(r"\n│\s+(?:\*\s+)?--", options[options.index(f" {flag} ") :], maxsplit=1)[0]
    assert key in row
    assert key.partition("=")[0] in ServerSettings.known_keys()


def test_without_a_command_it_shows_help() -> None:
    _, out, err = _run()
    assert "Usage: " in out + err


def test_version() -> None:
    status, out, _ = _run("--version")
    assert status == 0
    assert re.fullmatch(r"riva-gateway \d+\.\d+\.\d+\S*\n", out)


def test_schemas_are_json() -> None:
    messages, transcript = json.loads(_run("schema")[1]), json.loads(_run("schema", "transcript")[1])
    assert "$schema" in messages
    assert messages != transcript
    log = json.loads(_run("schema", "log")[1])
    Draft202012Validator.check_schema(log)
    assert "stream_closed" in log["$defs"]


# --- configuration that cannot be


@pytest.mark.parametrize("command", [("serve",), ("transcribe", "a.wav"), ("models",), ("health",), ("mock-riva",)])
def test_a_wrong_setting_is_one_line_with_key_and_fix(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GRPC_PROT=50052\n")
    status, out, err = _run(*command)
    assert (status, out) == (Exit.CONFIGURATION, "")
    assert err.startswith("riva-gateway: GRPC_PROT")
    assert "GRPC_PORT?" in err
    assert err.count("\n") == 1


def test_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVA_API_KEY", "sec ret-value")
    status, _, err = _run("health")
    assert status == Exit.CONFIGURATION
    assert "RIVA_API_KEY" in err
    assert "ret-value" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve", "--port", "70000"), "PORT"),
        (("serve", "--host", "localhost:80"), "LISTEN_HOST"),
        (("transcribe", "a.wav", "b.wav", "--format", "srt"), "--output-dir"),
        (("transcribe", "-", "-"), "once"),
        (("transcribe", "a.wav", "--engine", "mock", "--server", "h:1"), "--engine and --server"),
        (("transcribe", "a.wav", "--mock-plan", "p.toml", "--server", "h:1"), "--mock-plan and --server"),
        (("transcribe", "a.wav", "--mock-plan", "none.toml"), "none.toml"),
        (("transcribe", "a.wav", "--mock-plan", "p.toml", "--engine", "local"), "--mock-plan is for --engine mock"),
        (("serve", "--mock-plan", "p.toml", "--engine", "riva"), "--mock-plan is for --engine mock"),
        (("transcribe", "a.wav", "--insecure"), "--server"),
        (("transcribe", "a.wav", "--insecure", "--server", "h:1"), "--ca-cert"),
        (("transcribe", "a.wav", "--ca-cert", "none.pem", "--server", "https://h"), "none.pem"),
        (("transcribe", "a.wav", "--server", "ftp://h"), "ftp://"),
        (("models", "--server", "localhost"), "port"),
        (("models", "--server", "https://"), "host"),
        (("mock-riva", "--plan", "none.toml"), "none.toml"),
    ],
)
def test_flags_that_cannot_be(arguments: tuple[str, ...], words: str) -> None:
    status, out, err = _run(*arguments)
    assert (status, out) == (Exit.CONFIGURATION, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("serve", "--prot", "1"), ("transcribe",), ("nothing",), ("transcribe", "a", "-f", "x")]
)
def test_usage_errors_have_status_2(arguments: tuple[str, ...]) -> None:
    status, out, err = _run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("riva-gateway: ")
    assert err.rstrip().endswith("--help.")
    assert err.count("\n") == 1


def test_usage_errors_speak_our_language() -> None:
    assert "this is not a whole number" in _run("serve", "--port", "x")[2]
    assert "--format' / '-f': 'x' is not one of 'text'" in _run("transcribe", "a", "-f", "x")[2]


@pytest.mark.parametrize("command", [("serve",), ("transcribe", "a.wav"), ("mock-riva",)])
def test_a_wrong_plan_is_named(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('hears = "speach"\n')
    flag = "--plan" if command == ("mock-riva",) else "--mock-plan"
    status, out, err = _run(*command, flag, "p.toml")
    assert (status, out) == (Exit.CONFIGURATION, "")
    assert err.startswith("riva-gateway: p.toml: Plan key 'hears'")
    assert err.endswith("did you mean 'speech'?\n")


def test_a_plan_alone_asks_for_the_mock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_ENGINE", "local")
    plan = tmp_path / "p.toml"
    plan.touch()
    assert engine_config(Connection(mock_plan=plan)) == MockConfig(plan)


# --- exit statuses


def test_every_code_has_a_status() -> None:
    statuses = {code: exit_of(ASRError(code, "x")) for code in Code}
    assert Exit.OK not in statuses.values()
    assert statuses[Code.BAD_AUDIO] is Exit.BAD_INPUT
    assert statuses[Code.UNAVAILABLE] is Exit.UNAVAILABLE
    assert statuses[Code.UNAUTHORIZED] is Exit.CONFIGURATION
    assert statuses[Code.INTERNAL] is Exit.FAILED


# --- advice


def test_credentials_and_certificates_are_settings() -> None:
    riva = RivaConfig(endpoint="riva.example:443", ssl=True)
    refused = advise(error_from_status("UNAUTHENTICATED", "", "open"), riva)
    assert exit_of(refused) is Exit.CONFIGURATION
    assert all(key in refused.message for key in ("RIVA_API_KEY", "RIVA_FUNCTION_ID", "RIVA_METADATA"))
    gone = advise(error_from_status("NOT_FOUND", "Function x: not found", "open"), riva)
    assert exit_of(gone) is Exit.CONFIGURATION
    assert "RIVA_FUNCTION_ID" in gone.message
    gateway = GatewayConfig(url="https://me:secret@gw:8443/?token=secret")
    why = ssl.SSLCertVerificationError("x")
    why.verify_message = "self-signed certificate"
    untrusted = advise(connection_error(why), gateway)
    assert exit_of(untrusted) is Exit.CONFIGURATION
    assert "--ca-cert FILE" in untrusted.message
    assert "--insecure" in untrusted.message
    assert not any(words in untrusted.message for words in ("ca_cert", "insecure=", "secret"))
    assert untrusted.message.startswith("https://gw:8443: ")


def test_the_address_that_was_tried_is_told() -> None:
    down = error_from_status("UNAVAILABLE", "", "open")
    unset = advise(down, RivaConfig(), named=False)
    assert "RIVA_ENDPOINTS is not set, so localhost:50051 was tried" in unset.message
    named = advise(down, RivaConfig(endpoint="gw:8443"))
    assert "gw:8443" in named.message
    assert "write https://gw:8443" in named.message
    schemed = advise(down, RivaConfig(endpoint="gw:8443"), schemed=True)
    assert schemed.message == "The recognizer cannot be reached at gw:8443. Is it running?"
    assert (exit_of(named), named.retryable) == (Exit.UNAVAILABLE, True)
    assert "host:1" in advise(error_from_status("UNIMPLEMENTED", "", "call"), RivaConfig(endpoint="host:1")).message
    busy = error_from_status("RESOURCE_EXHAUSTED", "", "open")
    assert advise(busy, RivaConfig()) is busy
    pair = ResilientConfig((RivaConfig(endpoint="a:1"), RivaConfig(endpoint="b:2")))
    assert "at a:1 or b:2. Is any of them running?" in advise(down, pair).message
    assert advise(down, ResilientConfig((LocalConfig(),))) is down
    alone = ResilientConfig((RivaConfig(),))
    assert "so localhost:50051 was tried" in advise(down, alone, named=False).message
    assert not recognizer(Connection(engine=EngineChoice.RIVA)).named
    assert recognizer(Connection(server="h:1")).named


def test_a_scheme_that_was_written_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not recognizer(Connection(server="h:1")).schemed
    assert recognizer(Connection(server="grpc://h:1")).schemed
    monkeypatch.setenv("RIVA_ENDPOINTS", "grpcs://riva:1")
    assert recognizer(Connection()).schemed
    assert not recognizer(Connection(server="h:1")).schemed
    monkeypatch.setenv("RIVA_ENDPOINTS", "riva:1")
    monkeypatch.setenv("ASR_SERVER", "grpc://h:1")
    assert recognizer(Connection()).schemed
    assert not recognizer(Connection(engine=EngineChoice.RIVA)).schemed


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        ("text/plain; charset=utf-8", b"The recognizer is down.\n", "The recognizer is down."),
        ("text/plain", b"one\r\n\ttwo\x1b[2J \xff", "one two [2J \ufffd"),
        ("Text/Plain", b"x" * 201, "x" * 199 + "…"),
        ("text/plain", "ä".encode() * 200, "ä" * 200),
        ("text/html", b"<h1>503</h1>", ""),
        ("", b"what", ""),
        ("text/plain", b"", ""),
    ],
)
def test_a_refusal_is_quoted_in_one_short_line(kind: str, body: bytes, told: str) -> None:
    assert plain_text(kind, body) == told
    refused = status_error(503, "7", told, refused="stream")
    why = f"The gateway refuses the stream: {told}" if told else "The gateway is full or not ready."
    assert (refused.code, refused.message, refused.retry_after_ms) == (Code.OVERLOADED, why, 7000)


@pytest.mark.parametrize(
    ("message", "name", "shown"),
    [
        ("a.wav: The file is empty.", "x/a.wav", "The file is empty."),
        ("stdin: The file is empty.", "-", "The file is empty."),
        ("There is no file 'x/a.wav'.", "x/a.wav", "There is no such file."),
        ("'x' is a folder. Name an audio file.", "x/", "This is a folder. Name an audio file."),
        ("The recognizer is full.", "a.wav", "The recognizer is full."),
    ],
)
def test_a_name_is_said_once(message: str, name: str, shown: str) -> None:
    assert without_name(message, name) == shown


# --- which recognizer


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://gw:8443/", Target("gateway", "https://gw:8443", True, "gw")),
        ("wss://gw/base", Target("gateway", "wss://gw/base", True, "gw")),
        ("http://localhost:8080", Target("gateway", "http://localhost:8080", False, "localhost")),
        ("riva.example:50051", Target("riva", "riva.example:50051", None, "riva.example")),
        ("grpc://riva:50051", Target("riva", "riva:50051", False, "riva")),
        ("grpcs://riva:443", Target("riva", "riva:443", True, "riva")),
        ("[::1]:50052", Target("riva", "[::1]:50052", None, "::1")),
    ],
)
def test_server_is_read(text: str, target: Target) -> None:
    assert parse_server(text) == target


@pytest.mark.parametrize(
    "text", ["", "riva", "riva:0", "riva:99999", "https://", "https://h:x", "ftp://h:1", "grpc://h"]
)
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(Stop, match="--server") as caught:
        parse_server(text)
    assert caught.value.status is Exit.CONFIGURATION


def test_flags_choose_the_recognizer(tmp_path: Path) -> None:
    assert engine_config(Connection()) == ResilientConfig((LocalConfig(),))
    assert engine_config(Connection(engine=EngineChoice.RIVA)) == ResilientConfig((RivaConfig(),))
    assert engine_config(Connection(engine=EngineChoice.MOCK)) == MockConfig(plan=None)


def test_the_server_flag_wins_over_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVA_HOST", "other")
    monkeypatch.setenv("RIVA_SSL", "on")
    plain = engine_config(Connection(server="grpc://here:1"))
    assert plain == ResilientConfig((RivaConfig(endpoint="here:1"),))
    unsaid = engine_config(Connection(server="here:1"))
    assert unsaid == ResilientConfig((RivaConfig(endpoint="here:1", ssl=True),))


def test_a_key_does_not_travel_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVA_API_KEY", "key")
    with pytest.raises(SettingsError, match="RIVA_API_KEY"):
        engine_config(Connection(server="grpc://riva.example:1"))


def test_only_this_machines_self_made_certificate_is_trusted_by_itself(tmp_path: Path) -> None:
    state = tmp_path / "state"
    here = parse_server("https://localhost:8443")
    assert certificate_to_trust(here, state) is None
    cert = ensure_local_certificate(state, now=datetime.now(UTC)).cert
    assert certificate_to_trust(here, state) == cert
    assert certificate_to_trust(parse_server("wss://127.0.0.1:1"), state) == cert
    assert certificate_to_trust(parse_server("https://[::1]:1"), state) == cert
    assert certificate_to_trust(parse_server("https://gateway.example"), state) is None
    assert certificate_to_trust(parse_server("https://localhost.example"), state) is None
    assert certificate_to_trust(parse_server("http://localhost:1"), state) is None
    assert certificate_to_trust(parse_server("grpcs://localhost:1"), state) == cert
    assert certificate_to_trust(parse_server("grpcs://riva.example:1"), state) is None
    assert certificate_to_trust(parse_server("localhost:1"), state) is None
    assert certificate_to_trust(parse_server("grpcs://localhost:1"), state, own=cert) == cert
    config = engine_config(Connection(server="https://localhost:8443"))
    assert isinstance(config, GatewayConfig)
    assert config.ca_cert == cert
    insecure = engine_config(Connection(server="https://localhost:8443", insecure=True))
    assert isinstance(insecure, GatewayConfig)
    assert (insecure.ca_cert, insecure.insecure) == (None, True)


def test_the_server_may_come_from_the_settings_and_a_flag_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_SERVER", "https://gateway.example:9443")
    monkeypatch.setenv("ASR_INSECURE", "on")
    assert engine_config(Connection()) == GatewayConfig(url="https://gateway.example:9443", insecure=True)
    other = engine_config(Connection(server="https://other.example"))
    assert isinstance(other, GatewayConfig)
    assert "other.example" in other.url
    assert engine_config(Connection(engine=EngineChoice.LOCAL)) == ResilientConfig((LocalConfig(),))
    monkeypatch.setenv("ASR_CA_CERT", "/none.pem")
    with pytest.raises(SettingsError, match="ASR_CA_CERT"):
        engine_config(Connection())


# --- what is written


def test_text_of_one_file_is_the_words_alone_and_of_several_is_headed() -> None:
    assert render("a.wav", _transcript(), Format.TEXT, several=False) == "hello there\n"
    assert render("a.wav", _transcript(), Format.TEXT, several=True) == "==> a.wav <==\nhello there\n\n"
    assert render("a.wav", _transcript(""), Format.TEXT, several=False) == ""


def test_json_of_several_is_one_line_each() -> None:
    line = render("ä.wav", _transcript(), Format.JSON, several=True)
    assert line.count("\n") == 1
    assert json.loads(line)["file"] == "ä.wav"
    assert json.loads(line)["text"] == "hello there"
    one = json.loads(render("a.wav", _transcript(), Format.JSON, several=False))
    assert "file" not in one
    broken = json.loads(render_error("b.wav", ASRError(Code.BAD_AUDIO, "not audio")))
    assert broken == {"file": "b.wav", "error": {"code": "bad_audio", "message": "not audio"}}


def test_captions() -> None:
    assert render("a.wav", _transcript(), Format.SRT, several=False).startswith("1\n00:00:00,000 --> ")
    assert render("a.wav", _transcript(), Format.VTT, several=False).startswith("WEBVTT\n")


def test_each_input_has_a_file_of_its_own() -> None:
    names = ["x/talk.wav", "talk.flac", "y/talk.wav", "other.mp3", "-"]
    paths = destinations(names, Path("out"), Format.SRT)
    assert [str(paths[name]) for name in names] == [
        "out/talk.wav.srt",
        "out/talk.flac.srt",
        "out/talk.wav-2.srt",
        "out/other.srt",
        "out/stdin.srt",
    ]
    assert str(destinations(["talk.wav"], Path("out"), Format.TEXT)["talk.wav"]) == "out/talk.txt"


def test_bars_are_silent_where_stderr_is_no_terminal() -> None:
    out = io.StringIO()
    with Bars(Console(file=out)) as bars, bars.file("a.wav") as report:
        report(10, 100)
        with bars.aside():
            pass
    assert out.getvalue() == ""


def test_bars_show_the_file_and_how_far_it_is() -> None:
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=100)) as bars, bars.file("dir/a[1].wav") as report:
        report(65_000, 760_000)
        with bars.aside():
            pass
    assert "a[1].wav" in out.getvalue()
    assert "1:05 / 12:40" in out.getvalue()


def test_the_clock_of_a_bar() -> None:
    assert clock(0, None) == "0:00"
    assert clock(65_999, 7_200_000) == "1:05 / 2:00:00"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_words_grow_in_place_and_become_a_line() -> None:
    out = _Terminal()
    screen = Screen(out)
    screen.put(Partial(0, 1, "hello", 0, 400))
    screen.put(Final(0, 2, "hello there", 0, 900))
    screen.put(Partial(1, 1, "and", 900, 1000))
    screen.close()
    assert out.getvalue() == "\r\x1b[Khello\r\x1b[Khello there\n\r\x1b[Kand\r\x1b[K"


def test_a_partial_longer_than_the_terminal_shows_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    out = _Terminal()
    Screen(out).put(Partial(0, 1, "one two three four", 0, 400))
    assert out.getvalue() == "\r\x1b[K…three four"


def test_in_a_pipe_only_finals_with_text_come_out() -> None:
    out = io.StringIO()
    screen = Screen(out)
    for event in (Partial(0, 1, "hel", 0, 300), Final(0, 2, "hello", 0, 400), Final(1, 1, "", 400, 500)):
        screen.put(event)
    screen.close()
    assert out.getvalue() == "hello\n"


def test_as_json_every_event_is_a_line() -> None:
    out = io.StringIO()
    screen = Screen(out, as_json=True)
    screen.put(Partial(0, 1, "hel", 0, 300))
    screen.put(Final(0, 2, "hello", 0, 400))
    assert [json.loads(line)["type"] for line in out.getvalue().splitlines()] == ["partial", "final"]


# --- what serve says


def _facts(**changes: object) -> banner.Facts:
    facts = {
        "url": "https://localhost:8443",
        "grpc": "127.0.0.1:50052",
        "engine": "local",
        "endpoint": "",
        "self_made": "/state/tls/localhost.crt",
        "open_to_others": False,
        "asks": "",
        "clear": "",
        "sample": "tests/fixtures/a.wav",
        "version": "1.2.3",
    }
    return banner.Facts(**{**facts, **changes})  # type: ignore[arg-type]


def test_the_log_form_is_a_fact_to_a_line() -> None:
    lines = banner.plain(_facts())
    assert lines[0] == "riva-gateway 1.2.3"
    assert any(line.endswith(" https://localhost:8443") for line in lines)
    assert any(line == "Riva gRPC: 127.0.0.1:50052" for line in lines)
    assert any(line.endswith(" /state/tls/localhost.crt") for line in lines)
    assert not any("[" in line or "warning" in line for line in lines)
    assert not any("gRPC" in line for line in banner.plain(_facts(grpc="")))
    secure = _facts(grpc="grpcs://localhost:50052")
    assert "Riva gRPC: grpcs://localhost:50052" in banner.plain(secure)
    assert any("(no TLS)" in line for line in banner.friendly(_facts()))
    assert not any("(no TLS)" in line for line in banner.friendly(secure))
    assert any("warning" in line for line in banner.plain(_facts(open_to_others=True)))


def test_the_terminal_form_says_what_to_open_and_to_try() -> None:
    out = io.StringIO()
    facts = _facts(command=".venv/bin/riva-gateway", sample="tests/fixtures/greeting.wav")
    Console(file=out, width=300).print("\n".join(banner.friendly(facts)))
    text = out.getvalue()
    assert "https://localhost:8443" in text
    assert "The browser warns" in text
    assert "English" in text
    assert " .venv/bin/riva-gateway transcribe tests/fixtures/greeting.wav --server https://localhost:8443\n" in text
    assert " .venv/bin/riva-gateway transcribe tests/fixtures/greeting.wav --server 127.0.0.1:50052\n" in text
    assert " .venv/bin/riva-gateway transcribe tests/fixtures/greeting.wav\n" in text
    assert "--ca-cert /state/tls/localhost.crt" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "[bold]" not in text


def test_no_warning_is_promised_where_none_comes() -> None:
    assert not any("warns" in line for line in banner.friendly(_facts(self_made="")))


@pytest.mark.parametrize(("engine", "words"), [("riva", "riva.example:50051"), ("mock", "does not listen")])
def test_the_engine_is_said_in_words(engine: str, words: str) -> None:
    assert words in banner.describe_engine(_facts(engine=engine, endpoint="riva.example:50051"))


def test_the_facts_come_from_the_settings(tmp_path: Path) -> None:
    (tmp_path / "tests/fixtures").mkdir(parents=True)
    (tmp_path / "tests/fixtures/greeting.wav").touch()
    facts = facts_of(ServerSettings(host="0.0.0.0"), "https://localhost:1", 2)
    assert facts.open_to_others
    assert (facts.grpc, facts.engine) == ("localhost:2", "local")
    assert facts.self_made.endswith("/tls/localhost.crt")
    secure = facts_of(ServerSettings(grpc_tls=True), "https://localhost:1", 2)
    assert secure.grpc == "grpcs://localhost:2"
    assert facts.sample == "tests/fixtures/greeting.wav"
    plain = facts_of(ServerSettings(tls=False, asr_engine="riva", riva_endpoints="r:1"), "http://localhost:1", None)
    assert (plain.grpc, plain.self_made, plain.endpoint, plain.open_to_others) == ("", "", "r:1", False)
