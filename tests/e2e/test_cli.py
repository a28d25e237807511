"""The command `riva-gateway` as people and scripts meet it: pipes, terminals, signals, statuses."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import termios
import time
from pathlib import Path

import pytest

from e2e.command import COMMAND, FIXTURES, PATIENCE_S, Shell, plain, sound, wait_for

MOCK = ("--engine", "mock")


@pytest.fixture
def shell(tmp_path: Path, warm: Path) -> Shell:
    return Shell(tmp_path, command=warm)


@pytest.fixture
def words(shell: Shell, tmp_path: Path) -> str:
    """What the mock says about the tone."""
    done = shell.run("transcribe", sound(tmp_path / "words.wav"), *MOCK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return done.stdout.decode()


# --- transcribe


def test_a_pipe_gets_the_words_and_nothing_else(tmp_path: Path) -> None:
    done = Shell(tmp_path).run("transcribe", sound(tmp_path / "a.wav"), *MOCK)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().endswith("\n")
    assert b"\x1b" not in done.stdout
    assert b"a.wav" not in done.stdout


def test_stdin_is_a_file_like_any_other(shell: Shell, tmp_path: Path, words: str) -> None:
    done = shell.run("transcribe", "-", *MOCK, stdin=(tmp_path / "words.wav").read_bytes())
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, words, b"")


def test_several_files_come_in_the_order_given(shell: Shell, tmp_path: Path, words: str) -> None:
    names = ["long.wav", "short.wav", "mid.wav", "tiny.wav", "last.wav"]
    for name, seconds in zip(names, (8, 1, 3, 0.5, 1), strict=True):
        sound(tmp_path / name, seconds)
    done = shell.run("transcribe", *names, *MOCK)
    assert done.returncode == 0, done.stderr
    headers = [line for line in done.stdout.decode().splitlines() if line.startswith("==>")]
    assert headers == [f"==> {name} <==" for name in names]
    lines = shell.run("transcribe", *names, *MOCK, "--format", "json").stdout.decode().splitlines()
    assert [json.loads(line)["file"] for line in lines] == names
    assert json.loads(lines[1])["text"] + "\n" == words


def test_a_bad_file_does_not_stop_the_others(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"this is not audio at all, whatever its name says")
    (tmp_path / "empty.wav").touch()
    good = sound(tmp_path / "good.wav").name
    names = ["bad.wav", "none.wav", "empty.wav", good]
    done = shell.run("transcribe", *names, *MOCK, "--format", "json")
    assert done.returncode == 4
    complaints = done.stderr.decode().splitlines()
    assert [line.split(":")[1].strip() for line in complaints] == ["bad.wav", "none.wav", "empty.wav"]
    assert all(line.startswith("riva-gateway: ") for line in complaints)
    bodies = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [body["file"] for body in bodies] == names
    assert [("error" in body) for body in bodies] == [True, True, True, False]


@pytest.mark.parametrize("name", ["none.wav", ".", "empty.wav"])
def test_what_cannot_be_read_is_one_line_and_status_4(shell: Shell, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.wav").touch()
    done = shell.run("transcribe", name, *MOCK)
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.decode().startswith(f"riva-gateway: {name}: ")
    assert done.stderr.count(b"\n") == 1


def test_an_unknown_model_or_language_names_those_there_are(shell: Shell, tmp_path: Path) -> None:
    file = sound(tmp_path / "a.wav")
    for flag, value in (("--model", "nobody"), ("--language", "tlh")):
        done = shell.run("transcribe", file, *MOCK, flag, value)
        assert done.returncode == 4
        assert value in done.stderr.decode()
        assert b": " in done.stderr


def test_captions_go_to_a_directory(shell: Shell, tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav")
    done = shell.run("transcribe", "a.wav", "b.wav", *MOCK, "-f", "srt", "-o", "out/captions")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode().split() == ["out/captions/a.srt", "out/captions/b.srt"]
    assert " --> " in (tmp_path / "out/captions/a.srt").read_text()


def test_a_terminal_sees_a_bar_and_then_the_words(shell: Shell, tmp_path: Path, words: str) -> None:
    status, shown = shell.on_terminal("transcribe", tmp_path / "words.wav", *MOCK)
    assert status == 0
    assert "━" in shown
    assert "words.wav" in shown
    assert plain(shown).replace("\r", "").rstrip().endswith(words.strip().splitlines()[-1])


def test_a_reader_that_goes_away_is_no_crash(shell: Shell, tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    pipe = f"'{COMMAND}' transcribe a.wav a.wav --engine mock | true"
    done = subprocess.run(
        ["bash", "-c", pipe], cwd=tmp_path, env=shell.env, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.stderr == b""


@pytest.mark.parametrize("words", [("transcribe", "a.wav", *MOCK), ("models", *MOCK), ("--help",)])
def test_a_full_disk_behind_stdout_is_one_line(shell: Shell, tmp_path: Path, words: tuple[str, ...]) -> None:
    sound(tmp_path / "a.wav")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [COMMAND, *words], cwd=tmp_path, env=shell.env, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE_S
        )
    assert done.returncode == 1
    assert done.stderr == b"riva-gateway: cannot write the output: No space left on device\n"


def test_ctrl_c_ends_it_with_status_130_and_no_traceback(shell: Shell) -> None:
    with shell.start("transcribe", "-", *MOCK) as process:
        assert process.stdin is not None
        process.stdin.write("RIFF")  # and no more: it waits for the rest
        process.stdin.flush()
        _wait_until_interruptible(process)
        process.send_signal(signal.SIGINT)  # stdin stays open: nothing else can end the wait
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_the_same_file_gives_the_same_words(shell: Shell) -> None:
    clip = FIXTURES / "greeting.wav"
    first, second = shell.run("transcribe", clip), shell.run("transcribe", clip)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout == second.stdout
    assert len(first.stdout.split()) >= 2
    as_json = json.loads(shell.run("transcribe", clip, "--format", "json").stdout)
    assert as_json["text"] == " ".join(first.stdout.decode().split("\n")).strip()
    assert all(word["end_ms"] > word["start_ms"] for final in as_json["finals"] for word in final["words"])


# --- models, health, schema


def test_models_and_health_in_pipes_and_as_json(shell: Shell) -> None:
    models = shell.run("models", *MOCK)
    assert models.returncode == 0
    rows = json.loads(shell.run("models", *MOCK, "--json").stdout)
    assert [line.split("\t")[0] for line in models.stdout.decode().splitlines()] == [row["name"] for row in rows]
    health = shell.run("health", *MOCK, "--json")
    assert health.returncode == 0
    assert json.loads(health.stdout)["ready"] is True
    assert shell.run("health", *MOCK).stdout.startswith(b"mock\tready")


def test_a_terminal_sees_tables(shell: Shell) -> None:
    status, shown = shell.on_terminal("models", *MOCK)
    assert status == 0
    assert "languages" in shown
    assert "┃" in shown


def test_nobody_there_is_status_3(shell: Shell, tmp_path: Path) -> None:
    with socket.socket() as held:  # bound and not listening: refused at once
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        file = sound(tmp_path / "a.wav")
        for server in (address, f"https://{address}"):
            health = shell.run("health", "--server", server)
            assert health.returncode == 3, health
            assert b"not ready" in health.stdout
            for words in (("models",), ("transcribe", file)):
                done = shell.run(*words, "--server", server)
                assert (done.returncode, done.stdout) == (3, b""), done
                assert done.stderr.startswith(b"riva-gateway: ")
                assert done.stderr.count(b"\n") == 1


def test_configuration_is_judged_first(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RIVA_ENDPOINT=somewhere:1\n")
    for words in (("serve",), ("transcribe", "a.wav"), ("listen",), ("models",), ("health",), ("mock-riva",)):
        done = shell.run(*words)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.startswith(b"riva-gateway: RIVA_ENDPOINT")
        assert done.stderr.count(b"\n") == 1


# --- serve


def test_a_gateway_is_found_through_every_door(shell: Shell, tmp_path: Path, warm: Path, words: str) -> None:
    file = tmp_path / "words.wav"
    with shell.start("serve", "--port", "0", "--grpc-port", "0", *MOCK) as gateway:
        url = wait_for(gateway, r"page, HTTP and WebSocket: (https://localhost:\d+)")[1]
        grpc = wait_for(gateway, r"Riva gRPC: (\S+:\d+)")[1]
        for server in (url, url.replace("https", "wss"), grpc, f"grpc://{grpc}"):
            done = shell.run("transcribe", file, "--server", server)
            assert (done.returncode, done.stdout.decode(), done.stderr) == (0, words, b""), server
        stranger = Shell(tmp_path, {"STATE_DIR": str(tmp_path / "elsewhere")}, warm)
        refused = stranger.run("transcribe", file, "--server", url)
        assert refused.returncode == 2
        assert b"--ca-cert FILE" in refused.stderr
        assert stranger.run("health", "--server", url).returncode == 2
        cert = tmp_path / "state/tls/localhost.crt"
        for flags in (("--ca-cert", cert), ("--insecure",)):
            assert stranger.run("transcribe", file, "--server", url, *flags).stdout.decode() == words
        assert shell.run("health", "--server", url).returncode == 0
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(PATIENCE_S) == 0


def test_a_terminal_is_told_what_to_open_and_ctrl_c_ends_it(shell: Shell) -> None:
    status, shown = shell.on_terminal("serve", "--port", "0", "--grpc-port", "0", *MOCK, until="Ctrl-C ends")
    assert status == 0
    text = plain(shown)
    assert "https://localhost:" in text
    assert "browser warns" in text
    assert "riva-gateway transcribe" in text
    assert "Traceback" not in text


def test_a_second_ctrl_c_ends_it_at_once_and_quietly(shell: Shell) -> None:
    with shell.start("serve", "--port", "0", "--grpc-port", "0", *MOCK) as gateway:
        wait_for(gateway, r"Riva gRPC: ")
        assert gateway.stderr is not None
        gateway.send_signal(signal.SIGINT)
        assert "draining" in gateway.stderr.readline()
        gateway.send_signal(signal.SIGINT)
        # 0: it was done already. By the signal itself: the shell calls that 130 too.
        assert gateway.wait(PATIENCE_S) in (0, 130, -signal.SIGINT)
        assert "Traceback" not in gateway.stderr.read()


def test_an_address_of_another_machine_is_one_line(shell: Shell) -> None:
    for port in ("--port", "--grpc-port"):
        done = shell.run("serve", "--auth", "off", "--host", "192.0.2.1", port, "0", *MOCK)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"LISTEN_HOST" in done.stderr
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("flag", ["--grpc-port", "--http-port"])
def test_the_stand_in_names_the_port_that_is_taken(tmp_path: Path, flag: str) -> None:
    other = "--grpc-port" if flag == "--http-port" else "--http-port"
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = Shell(tmp_path).run("mock-riva", flag, str(port), other, "0")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f":{port}: " in done.stderr.decode()
    assert f"with {flag} or " in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("flag", ["--port", "--grpc-port"])
def test_a_port_in_use_is_one_line(tmp_path: Path, flag: str) -> None:
    other = "--grpc-port" if flag == "--port" else "--port"
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = Shell(tmp_path).run("serve", flag, str(port), other, "0", *MOCK)
    assert (done.returncode, done.stdout) == (2, b"")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert f"{flag} or " in lines[0]
    assert ".." not in lines[0]
    assert str(port) in lines[0]
    assert ("GRPC_PORT" if flag == "--grpc-port" else "PORT") in lines[0]
    assert b"Traceback" not in done.stderr


# --- mock-riva


def test_the_stand_in_answers_as_riva_does(shell: Shell, tmp_path: Path) -> None:
    with shell.start("mock-riva", "--grpc-port", "0", "--http-port", "0") as standin:
        grpc = wait_for(standin, r"Riva gRPC: (\S+:\d+)")[1]
        done = shell.run("transcribe", sound(tmp_path / "a.wav", 2), "--server", grpc)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        standin.send_signal(signal.SIGINT)
        assert standin.wait(PATIENCE_S) == 0
        assert standin.stderr is not None
        assert "Traceback" not in standin.stderr.read()


# --- listen

_MICROPHONE = '''
"""A microphone that plays a file, in the shape of the real module."""
import os, threading, wave

class PortAudioError(Exception): pass

def query_devices():
    return [{"name": "speaker", "max_input_channels": 0}, {"name": "tape", "max_input_channels": 1}]

class RawInputStream:
    def __init__(self, samplerate, blocksize, channels, dtype, device, callback):
        assert (samplerate, channels, dtype) == (16000, 1, "int16")
        if device not in (None, 1, "tape"):
            raise ValueError(f"No input device matching {device!r}")
        self.args, self.over = (blocksize, callback), threading.Event()
        self.thread = threading.Thread(target=self.play, daemon=True)
    def play(self):
        blocksize, callback = self.args
        with wave.open(os.environ["TAPE"]) as tape:
            while not self.over.wait(0.01):
                callback(tape.readframes(blocksize) or bytes(blocksize * 2), blocksize, None, None)
    def __enter__(self): self.thread.start()
    def __exit__(self, *_): self.over.set(); self.thread.join()
'''


@pytest.fixture
def microphone(tmp_path: Path) -> Shell:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/sounddevice.py").write_text(_MICROPHONE)
    tape = sound(tmp_path / "tape.wav", 4)
    return Shell(tmp_path, {"PYTHONPATH": str(tmp_path / "modules"), "TAPE": str(tape)})


def test_listening_ends_with_ctrl_c_and_keeps_the_last_words(microphone: Shell) -> None:
    status, shown = microphone.on_terminal("listen", *MOCK, until=r"listening[^\n]*\n\s*\S")
    assert status == 0, shown
    assert "\r\x1b[K" in shown
    last = plain(shown).replace("\r", "\n").rstrip().splitlines()[-1]
    assert last.strip()
    assert "Traceback" not in shown


def test_listening_in_a_pipe_gives_lines_of_json(microphone: Shell) -> None:
    with microphone.start("listen", *MOCK, "--json") as process:
        wait_for(process, '"partial"')
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, err) == (0, "")
        assert json.loads(out.splitlines()[-1])["type"] in {"final", "progress", "speech_ended"}
        assert any(json.loads(line)["type"] == "final" for line in out.splitlines())


def test_microphones_are_listed_and_a_wrong_one_is_refused(microphone: Shell) -> None:
    assert microphone.run("listen", "--list").stdout == b"1\ttape\n"
    done = microphone.run("listen", *MOCK, "--device", "violin")
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"1: tape" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_no_portaudio_is_said_in_one_line(microphone: Shell, tmp_path: Path) -> None:
    (tmp_path / "modules/sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    done = microphone.run("listen", *MOCK)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"libportaudio2" in done.stderr
    assert done.stderr.count(b"\n") == 1


def _wait_until_interruptible(process: subprocess.Popen[str]) -> None:
    """Until the command reads its stdin: its pipe is empty again."""
    assert process.stdin is not None
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        waiting = fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, b"\0\0\0\0")
        if int.from_bytes(waiting, "little") == 0:
            return
        time.sleep(0.02)
    raise AssertionError(f"{os.fspath(COMMAND)} never read its stdin")
