"""`docker`: hands its words, its files and its folder to the daemon (`far.dockerd`), and ends as that says."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

from far.common import fail, record


def main() -> None:
    record(sys.argv)
    there = socket.socket(socket.AF_UNIX)
    try:
        there.connect("/run/docker.sock")
    except OSError:
        fail("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
    variables = {name: os.environ.get(name, "") for name in ("DOCKER_CONFIG", "HOME")}
    asked = json.dumps([sys.argv[1:], str(Path.cwd()), variables]).encode()
    # What a container says comes out of this process, as with the real one: the journal asks whose words they are.
    pipes, sent = {}, []
    for number in (1, 2):
        reading, writing = os.pipe()
        pipes[reading] = number
        sent.append(writing)
    socket.send_fds(there, [len(asked).to_bytes(8, "big")], [0, *sent])
    for writing in sent:
        os.close(writing)
    there.sendall(asked)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: there.send(b"T"))  # goes to the container, as with the real one
    os._exit(_relay(there, pipes))


def _relay(there: socket.socket, pipes: dict[int, int]) -> int:
    """Copies until the daemon has said the status and all output is out; returns it, 125 where the daemon is gone."""
    status: int | None = None
    while status is None or pipes:
        waiting: list[object] = [*pipes] if status is not None else [*pipes, there]
        for ready in select.select(waiting, [], [])[0]:
            if ready is there:
                status = (there.recv(1) or b"}")[0]
            elif data := os.read(ready, 65536):
                os.write(pipes[ready], data)
            else:
                del pipes[ready]
    return status
