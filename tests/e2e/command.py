"""The command as a process of its own, with nothing of this machine's settings: pipes, a terminal, signals."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

COMMAND = Path(sys.executable).with_name("riva-gateway")
PATIENCE_S = 60.0
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@dataclass(frozen=True)
class Shell:
    """A directory of one's own to run commands in; `command` is what `run` runs."""

    home: Path
    more: dict[str, str] = field(default_factory=dict)
    command: Path = COMMAND

    @property
    def env(self) -> dict[str, str]:
        plain = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "STATE_DIR": str(self.home / "state"),
        }
        return plain | self.more

    def run(self, *arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """To its end, through pipes."""
        return subprocess.run(
            [self.command, *map(str, arguments)],
            cwd=self.home,
            env=self.env,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )

    @contextmanager
    def start(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """Left running; it must be gone at the end, and is killed if it is not."""
        process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            cwd=self.home,
            env=self.env | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def on_terminal(self, *arguments: str | Path, until: str = "", columns: int = 120) -> tuple[int, str]:
        """On a terminal; Ctrl-C is typed when the pattern `until` has appeared. Status and all that was shown."""
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(self.home)
            os.execve(
                COMMAND,
                [str(COMMAND), *map(str, arguments)],
                self.env | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "50"},
            )
        shown, typed, deadline = b"", False, time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < deadline:
                if not select.select([master], [], [], 0.2)[0]:
                    continue
                try:
                    piece = os.read(master, 65536)
                except OSError:  # Linux says so when the other end is gone
                    break
                if not piece:
                    break
                shown += piece
                if until and not typed and re.search(until, plain(shown.decode("utf-8", "replace"))):
                    os.write(master, b"\x03")
                    typed = True
            else:
                os.kill(pid, signal.SIGKILL)
        finally:
            os.close(master)
            _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), shown.decode("utf-8", "replace")


def plain(text: str) -> str:
    """Without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b\x07]*(?:\x1b\\|\x07)", "", text)


def sound(path: Path, seconds: float = 1.0, rate_hz: int = 16_000, *, loud: int = 8000) -> Path:
    """A WAV file with a tone in it, for recognizers that do not listen."""
    samples = (loud * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(samples.tobytes())
    return path


def wait_for(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read the process's stdout until a line matches."""
    assert process.stdout is not None
    seen = ""
    while line := process.stdout.readline():
        seen += line
        if match := re.search(pattern, line):
            return match
    assert process.stderr is not None
    raise AssertionError(f"{pattern!r} never came; stdout: {seen!r}, stderr: {process.stderr.read()!r}")
