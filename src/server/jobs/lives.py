"""Which gateways live: so that the jobs of one that died are done by another, or by its next life. Blocking.

A process has an id of its own for each life. While it lives it holds a lock on a file in its state folder; the system
gives that lock up with the process, however that ends, so a successor with the same folder knows at once. Gateways on
other machines go by a lease in the database, which a living gateway renews; on SQLite there are no others.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from server.jobs.database import GATEWAYS, Database

LEASE_MS = 10_000
"""A gateway that has not renewed for so long is dead to the others."""
RENEW_S = 2.0


class Lives:
    """The living of one database.

    Args:
        database: with its tables made.
        folder: of the lock files, on this machine.
        gateway_id: of this life.
        now_ms: the time that all gateways share.

    Attributes:
        gateway_id: as given.
    """

    def __init__(
        self, database: Database, folder: Path, gateway_id: str, now_ms: Callable[[sa.Connection], int]
    ) -> None:
        self._database = database
        self._folder = folder
        self.gateway_id = gateway_id
        self._now_ms = now_ms
        self._lock: int | None = None
        self._graves: dict[str, int] = {}  # locks of the dead, while their work is taken over

    def enter(self) -> None:
        """Begin to live. From now on this gateway's work is its own."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(self._path(self.gateway_id), create=True)
        self.renew()

    def renew(self) -> None:
        """Say that this gateway still lives. On SQLite its lock says so."""
        with self._database.engine.begin() as conn:
            now_ms = self._now_ms(conn)
            known = conn.execute(sa.update(GATEWAYS).where(GATEWAYS.c.id == self.gateway_id).values(seen_ms=now_ms))
            if not known.rowcount:
                conn.execute(sa.insert(GATEWAYS).values(id=self.gateway_id, seen_ms=now_ms))

    def dead(self) -> list[str]:
        """Gateways that are dead, and whose work nobody else is taking over. Call `bury` when it is taken over;
        until then they come again.

        A gateway that comes back from a long sleep finds its work in others' hands: the store and the workflow engine
        refuse what it still writes.
        """
        with self._database.engine.connect() as conn:
            rows = conn.execute(sa.select(GATEWAYS).where(GATEWAYS.c.id != self.gateway_id)).all()
            now_ms = self._now_ms(conn)
        found = []
        for row in rows:
            expired = not self._database.is_sqlite and now_ms - row.seen_ms > LEASE_MS
            if row.id in self._graves or ((self._gone(row.id) or expired) and self._take(row.id, row.seen_ms)):
                found.append(row.id)
        return found

    def bury(self, gateway_id: str) -> None:
        """All that a dead gateway had is in other hands."""
        with self._database.engine.begin() as conn:
            conn.execute(sa.delete(GATEWAYS).where(GATEWAYS.c.id == gateway_id))
        self._path(gateway_id).unlink(missing_ok=True)
        _close(self._graves.pop(gateway_id, None))

    def leave(self) -> None:
        """End this life. What is left of its work is for others at once: on the same machine by the lock that is
        free, elsewhere by a lease that ended long ago."""
        try:
            with self._database.engine.begin() as conn:
                conn.execute(sa.update(GATEWAYS).where(GATEWAYS.c.id == self.gateway_id).values(seen_ms=0))
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Give up the locks, and nothing else."""
        while self._graves:
            _close(self._graves.popitem()[1])
        lock, self._lock = self._lock, None
        _close(lock)

    def _gone(self, gateway_id: str) -> bool:
        """Whether its lock shows that it is dead; it is ours then. Without a lock here it may live elsewhere."""
        path = self._path(gateway_id)
        if not path.exists():
            return self._database.is_sqlite
        lock = _locked(path, create=False)
        if lock is None:
            return False
        self._graves[gateway_id] = lock
        return True

    def _take(self, gateway_id: str, seen_ms: int) -> bool:
        """Of several that find it dead, one: its lease is renewed for as long as the taking over may last."""
        with self._database.engine.begin() as conn:
            # A lease must differ from the one that was seen, or two could renew it to the same time.
            lease_ms = max(self._now_ms(conn), seen_ms + 1)
            taken = conn.execute(
                sa.update(GATEWAYS)
                .where(GATEWAYS.c.id == gateway_id, GATEWAYS.c.seen_ms == seen_ms)
                .values(seen_ms=lease_ms)
            )
        if taken.rowcount == 1:
            return True
        _close(self._graves.pop(gateway_id, None))
        return False

    def _path(self, gateway_id: str) -> Path:
        return self._folder / f"{gateway_id}.lock"


def _close(number: int | None) -> None:
    if number is not None:
        os.close(number)


def _locked(path: Path, *, create: bool) -> int | None:
    """The file, open and locked; None where another process has it, or it is gone."""
    try:
        number = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number
