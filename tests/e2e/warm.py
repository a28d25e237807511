"""`riva-gateway` without the second that a Python takes to load it: a process that has it loaded forks for each call.

A page of runbooks calls the command forty times. What runs is the command's own code in a process of its own, with the
caller's arguments, environment, folder and files; only the loading was done before.

    python -m e2e.warm SOCKET
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20.0
MAX_CALL_BYTES = 1 << 16
_CLIENT = """#!{python} -ISE
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as there:
    there.connect({path!r})
    call = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(there, [call], [0, 1, 2])
    told = there.recv(16)
sys.exit(int(told) if told else 70)
"""


@contextmanager
def warm(folder: Path) -> Iterator[Path]:
    """A program to be called in place of the command; its loaded half is ended on the way out."""
    path, client = folder / "warm.socket", folder / "warm-riva-gateway"
    client.write_text(_CLIENT.format(python=sys.executable, path=str(path)))
    client.chmod(0o700)
    process = subprocess.Popen(
        [sys.executable, "-m", "e2e.warm", str(path)], cwd=Path(__file__).resolve().parents[1], env={"PATH": "/usr/bin"}
    )
    try:
        due = time.monotonic() + PATIENCE_S
        while not path.exists():
            assert process.poll() is None, "it cannot be loaded"
            assert time.monotonic() < due, "it is not loaded in time"
            time.sleep(0.05)
        yield client
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _serve(path: str) -> None:
    import server.commands.app  # loaded here, once

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path + ".new")
        door.listen(8)
        Path(path + ".new").rename(path)
        while True:
            there, _ = door.accept()
            if os.fork() == 0:
                door.close()
                os._exit(_watched(there, server.commands.app.app))
            there.close()
            _reap()


def _watched(there: socket.socket, app: object) -> int:
    """Run the call in a further process, and tell its status."""
    content, files, _, _ = socket.recv_fds(there, MAX_CALL_BYTES, 3)
    pid = os.fork()
    if pid == 0:
        there.close()
        words, environment, folder = json.loads(content)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = ["riva-gateway", *words]
        os._exit(_run(app))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    there.sendall(str(status if status >= 0 else 128 - status).encode())
    return 0


def _run(app: object) -> int:
    try:
        app()  # type: ignore[operator]
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    _serve(sys.argv[1])
