"""The image's health check, at real gateways and at those that hang."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authority import Authority
from e2e.gateway import running
from server.probe import Door, ask
from timing import in_time
from word_engine import WordEngine


@contextmanager
def listening(answer: bytes = b"") -> Iterator[int]:
    """A port where the kernel takes connections and nobody is at home, or somebody says `answer` and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer:
            server.settimeout(10)

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            yield server.getsockname()[1]
            thread.join()
        else:
            yield server.getsockname()[1]


@pytest.mark.parametrize("tls", [True, False])
async def test_a_gateway_that_answers_is_alive(tmp_path: Path, tls: bool) -> None:
    async with running(WordEngine(), tmp_path, tls=tls) as where:
        assert await asyncio.to_thread(ask, Door("127.0.0.1", where.port, tls, False)) == ""


async def test_so_is_one_that_wants_a_certificate(tmp_path: Path) -> None:
    authority = Authority()
    authority.issue().write(tmp_path / "server.pem", tmp_path / "server.key")
    (tmp_path / "clients.pem").write_bytes(authority.pem)
    files = {"tls_cert": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    async with running(WordEngine(), tmp_path, tls=True, tls_client_ca=tmp_path / "clients.pem", **files) as where:
        assert await asyncio.to_thread(ask, Door("127.0.0.1", where.port, True, True)) == ""


@pytest.mark.parametrize("tls", [True, False])
def test_one_that_hangs_is_not(tls: bool) -> None:
    with listening() as port:
        began = time.monotonic()
        assert "does not answer within 0.3 s" in ask(Door("127.0.0.1", port, tls, tls), 0.3)
        in_time(time.monotonic() - began, 1.0)


def test_nor_is_one_that_is_away_or_answers_something_else() -> None:
    with listening() as port:
        pass
    assert "Connection refused" in ask(Door("127.0.0.1", port, False, False))
    with listening(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") as port:
        assert "503" in ask(Door("127.0.0.1", port, False, False))
    with listening(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert "speaks no TLS" in ask(Door("127.0.0.1", port, True, False))


async def test_the_command_is_light_and_says_why(tmp_path: Path) -> None:
    async with running(WordEngine(), tmp_path, tls=True) as where:

        def probe(port: int) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-I", "-m", "server.probe"]
            env = {"PATH": os.environ["PATH"], "PORT": str(port)}
            return subprocess.run(command, env=env, capture_output=True, text=True, timeout=10, check=False)

        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        good = await asyncio.to_thread(probe, where.port)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (good.returncode, good.stdout, good.stderr) == (0, "healthy\n", "")
        in_time(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 0.3)
    bad = await asyncio.to_thread(probe, where.port)
    assert (bad.returncode, bad.stderr) == (1, "")
    assert bad.stdout.startswith("unhealthy: 127.0.0.1:")
