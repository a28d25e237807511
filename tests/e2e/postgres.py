"""A PostgreSQL server of the tests' own: made in a temporary folder, on a loopback port, gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
PASSWORD = "a password that no log may hold"


class Postgres:
    """A server that runs."""

    def __init__(self, port: int) -> None:
        self.port = port

    def database(self) -> str:
        """A new, empty database; its URL."""
        name = f"jobs_{secrets.token_hex(4)}"
        with closing(psycopg.connect(self._dsn("postgres"), autocommit=True)) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://gateway:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/{name}"

    def _dsn(self, name: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=gateway password='{PASSWORD}' dbname={name} connect_timeout=5"

    def answers(self) -> bool:
        try:
            psycopg.connect(self._dsn("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server, from its first file to its last."""
    found = subprocess.run(
        [ROOT / "scripts/dev/system-packages.sh", "postgres"], stdout=subprocess.PIPE, text=True, check=True
    )
    programs = Path(found.stdout.strip())
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        if user is not None:
            for path in (folder, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        subprocess.run(
            [
                *(programs / "initdb", "-D", folder / "data", "-U", "gateway", "--pwfile", password),
                *("-A", "scram-sha-256", "-E", "UTF8", "--no-sync", "--locale=C"),
            ],
            **_as(user),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        port = _free_port()
        given = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "port": port}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", *(f"--{key}={value}" for key, value in given.items())],
                **_as(user),
                stdout=log,
                stderr=log,
            )
        server = Postgres(port)
        until = time.monotonic() + PATIENCE_S
        while not server.answers():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        yield server
    finally:
        if process is not None:
            process.send_signal(2)  # a fast end: connections are closed by the server
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE_S)
        shutil.rmtree(folder)


def _user() -> pwd.struct_passwd | None:
    """Who runs it: PostgreSQL refuses root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _as(user: pwd.struct_passwd | None) -> dict[str, object]:
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
