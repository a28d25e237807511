"""The database of the jobs: where it is, how it is opened, and the tables beside those of the workflow engine.

An SQLite file by default; PostgreSQL where several gateways share their jobs.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

POOL_SIZE = 10
POOL_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
_NETWORK = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""A network that swallows everything is noticed within half a minute, not within a quarter of an hour."""
BUSY_TIMEOUT_MS = 15_000
"""How long SQLite waits for another writer."""
_SCHEMA_LOCK = 6_141_727_350_219_044

AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.TimeoutError)
"""What is raised where the database fails, and not what it was asked."""

_metadata = sa.MetaData()

JOBS = sa.Table(
    "gateway_jobs",
    _metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("spool", sa.String(64), nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("warnings", sa.Text, nullable=False),
    sa.Column("parts", sa.Integer, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("started_ms", sa.BigInteger),
    sa.Column("completed_ms", sa.BigInteger),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("error_code", sa.String(32), nullable=False, default=""),
    sa.Column("audio_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("audio_total_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("transcript", sa.Text),
    sa.Column("idempotency", sa.String(64), unique=True),
    sa.Column("fingerprint", sa.String(64), nullable=False, default=""),
    sa.Column("webhook_url", sa.Text, nullable=False, default=""),
    # Who does it now: a word of that attempt alone, so that an attempt that was taken over can no longer write.
    sa.Column("runner", sa.String(64), nullable=False, default=""),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("stuck_ms", sa.BigInteger),
    sa.Index("gateway_jobs_by_age", "created_ms", "id"),
    sa.Index("gateway_jobs_by_owner", "owner", "created_ms"),
    sa.Index("gateway_jobs_by_status", "status", "completed_ms"),
)

PARTS = sa.Table(
    "gateway_job_parts",
    _metadata,
    sa.Column("job_id", sa.String(64), sa.ForeignKey("gateway_jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("result", sa.Text, nullable=False),
)

GATEWAYS = sa.Table(
    "gateway_lives",
    _metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("seen_ms", sa.BigInteger, nullable=False),
)


class Database:
    """An engine that can be shut for good: whoever waits in it then gets an error instead.

    Args:
        url: of SQLAlchemy, from `sqlite_url` or `postgres_url`.
    """

    def __init__(self, url: sa.URL) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._shut = threading.Event()
        self._connections: WeakSet[Any] = WeakSet()
        if self.is_sqlite:
            _make_private(Path(url.database or ""))
            self.engine = sa.create_engine(
                url, pool_size=POOL_SIZE, max_overflow=0, pool_timeout=POOL_TIMEOUT_S, connect_args={"timeout": 15}
            )
            sa.event.listen(self.engine, "connect", _set_up_sqlite)
        else:
            self.engine = sa.create_engine(
                url,
                pool_size=POOL_SIZE,
                max_overflow=0,
                pool_timeout=POOL_TIMEOUT_S,
                pool_pre_ping=True,
                connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "riva-gateway", **_NETWORK},
            )
            sa.event.listen(self.engine, "connect", self._met)
        sa.event.listen(self.engine, "do_connect", self._refuse)
        sa.event.listen(self.engine, "checkout", self._refuse)

    @property
    def url(self) -> sa.URL:
        """Of SQLAlchemy; it may hold a password."""
        return self.engine.url

    def create(self) -> None:
        """Make the tables where they are missing."""
        with self.engine.begin() as conn:
            if self.is_sqlite:
                conn.execute(sa.text("BEGIN IMMEDIATE"))
            else:
                conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            _metadata.create_all(conn)

    def shut(self) -> None:
        """Refuse every further use, and let nobody wait for an answer any more."""
        self._shut.set()
        for connection in list(self._connections):
            # Closing would wait for the thread that waits.
            # rule(swallowed): a connection that is gone, in whatever way, is what is wanted
            with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as link:
                link.shutdown(socket.SHUT_RDWR)

    def dispose(self) -> None:
        """Close the connections."""
        self.shut()
        self.engine.dispose()

    def _met(self, connection: DBAPIConnection, _: object) -> None:
        self._connections.add(connection)

    def _refuse(self, *_: Any) -> None:
        # No error of a database: the workflow engine repeats those without an end.
        if self._shut.is_set():
            raise RuntimeError("The job database is closed: the gateway is going down.")


def sqlite_url(path: Path) -> sa.URL:
    """The URL of an SQLite file."""
    return sa.URL.create("sqlite", database=str(path))


def postgres_url(text: str) -> sa.URL:
    """The URL of a PostgreSQL database (`check_database_url`), for the driver that is installed."""
    return sa.make_url(text).set(drivername="postgresql+psycopg")


def _make_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _set_up_sqlite(connection: DBAPIConnection, _: object) -> None:
    # Writers take their lock at once; a reader that turns writer in mid-transaction could fail.
    connection.isolation_level = "IMMEDIATE"
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
