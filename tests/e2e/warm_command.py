"""`riva-gateway` for tests that type many commands: one process has it loaded, and each command is a fork of that.

What a command is given is the same as ever: its words, its folder, its variables, the three files. Only the half
second that Python takes to load everything is spent once.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

TYPED = """#!{python} -IS
import json, os, socket, sys
there = socket.socket(socket.AF_UNIX)
there.connect({path!r})
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(there, [asked], [0, 1, 2])
status = there.recv(1)
sys.exit(status[0] if status else 70)
"""
MOST_BYTES = 65_536
LOADED = ("server.commands.app", "asr.engines.riva")


@contextlib.contextmanager
def warm_command(folder: Path, *more: str) -> Iterator[Path]:
    """A folder for the PATH, with a `riva-gateway` in it that begins at once; `more` modules are loaded, too."""
    place, found = folder / "warm.sock", folder / "warm"
    found.mkdir()
    typed = found / "riva-gateway"
    typed.write_text(TYPED.format(python=sys.executable, path=str(place)))
    typed.chmod(0o755)
    with subprocess.Popen([sys.executable, __file__, str(place), *LOADED, *more], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"loaded\n"
            yield found
        finally:
            process.kill()


def _serve(place: str, *modules: str) -> None:
    from server.__main__ import main

    for module in modules:
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        os.write(1, b"loaded\n")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for the forks
        while True:
            there, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _be_typed(there, main)
            there.close()


def _be_typed(there: socket.socket, main: Callable[[], object]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, files, _, _ = socket.recv_fds(there, MOST_BYTES, 3)
    arguments, folder, variables = json.loads(data)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["riva-gateway", *arguments]
    status = 70
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        there.sendall(bytes([status]))
        os._exit(status)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
