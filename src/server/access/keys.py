"""API keys: the file of them, followed as it changes, and the verifier that knows them."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType

import structlog

from server.access.files import Signature, locked, read_bounded, signature, write_private
from server.access.grants import Grant
from server.access.key_file import (
    DIGEST_BYTES,
    MAX_FILE_BYTES,
    MAX_KEYS,
    BadKeyFile,
    KeyRecord,
    digest_of,
    id_of,
    read_keys,
    write_keys,
)

log = structlog.get_logger("server.access")

SERIAL_PREFIX = "key:"
_NOBODY = bytes(DIGEST_BYTES)
"""What an unknown id is compared with, so that it costs what a known one costs. No key has this digest."""


class Keys:
    """The keys of a gateway, as a `Verifier`.

    Args:
        path: the file; it need not exist, and may come, change and go at any time.
        unix_time: the wall clock, in seconds.
    """

    def __init__(self, path: Path, unix_time: Callable[[], float]) -> None:
        self._path = path
        self._unix_time = unix_time
        self._records: Mapping[str, KeyRecord] = {}
        self._seen: Signature | None = None
        self._used: dict[str, date] = {}
        self._writable = True
        self._told: str | None = ""

    @property
    def records(self) -> Mapping[str, KeyRecord]:
        """The keys there are, by id."""
        return MappingProxyType(dict(self._records))

    def load(self) -> None:
        """Read the file for the first time.

        Raises:
            BadKeyFile, OSError: it is there and cannot be used.
        """
        self._seen = signature(self._path)
        self._records = {} if self._seen is None else load_keys(self._path)

    def refresh(self) -> None:
        """Read the file again if it was changed. One that cannot be used changes nothing, and is told once."""
        try:
            seen = signature(self._path)
            if seen == self._seen:
                return
            records = {} if seen is None else load_keys(self._path)
        except (BadKeyFile, OSError) as error:
            self._complain(str(error) if isinstance(error, BadKeyFile) else error.strerror)
            return
        self._seen, self._told = seen, ""
        self._records = records
        log.info("API keys read", keys=len(records))

    def _complain(self, why: str | None) -> None:
        if why != self._told:
            self._told = why
            log.error("the file of API keys cannot be used; those read before go on", why=why, file=self._path.name)

    def verify(self, credential: str) -> Grant | None:
        """See `Verifier`. A key that has expired gives a grant that has."""
        key_id = id_of(credential)
        if key_id is None:
            return None
        record = self._records.get(key_id)
        same = hmac.compare_digest(digest_of(credential), _NOBODY if record is None else record.digest)
        if record is None or not same or record.revoked is not None:
            return None
        today = datetime.fromtimestamp(self._unix_time(), UTC).date()
        if record.last_used != today:
            self._used[key_id] = today
        expires_at = None if record.expires is None else record.expires.timestamp()
        return Grant(f"key {record.name}", record.scopes, expires_at, record.allowance, f"{SERIAL_PREFIX}{key_id}")

    def still_good(self, grant: Grant) -> bool:
        """See `Verifier`: for keys, and for tokens that were made with one."""
        if not grant.serial.startswith(SERIAL_PREFIX):
            return True
        record = self._records.get(grant.serial.removeprefix(SERIAL_PREFIX).partition("/")[0])
        if record is None or record.revoked is not None:
            return False
        return record.expires is None or record.expires.timestamp() > self._unix_time()

    def take_used(self) -> dict[str, date]:
        """The keys that were used, with the day, since this was asked last; for `note_used`."""
        used, self._used = self._used, {}
        return used

    def note_used(self, used: Mapping[str, date]) -> None:
        """Write down when keys were used. A file that cannot be written is left alone from then on.

        It waits for the disk, so it belongs into a thread.
        """
        if not used or not self._writable:
            return
        try:
            with changing(self._path) as records:
                for key_id, day in used.items():
                    record = records.get(key_id)
                    if record is not None and (record.last_used is None or record.last_used < day):
                        records[key_id] = replace(record, last_used=day)
        except OSError:
            self._writable = False
            log.info("the file of API keys is read-only: the days of last use are not kept", file=self._path.name)
        except BadKeyFile:
            return  # `refresh` tells it


def load_keys(path: Path) -> dict[str, KeyRecord]:
    """The keys in that file; it must exist.

    Raises:
        BadKeyFile, OSError: it cannot be used.
    """
    try:
        return read_keys(read_bounded(path, MAX_FILE_BYTES))
    except BadKeyFile:
        raise
    except ValueError as error:
        raise BadKeyFile(str(error)) from None


@contextmanager
def changing(path: Path) -> Iterator[dict[str, KeyRecord]]:
    """The keys in that file, to be changed: what is in the mapping at the end of the block is written.

    Several processes may do this at once; each sees what the one before has done.

    Raises:
        BadKeyFile, OSError: it cannot be used, or not be written.
    """
    with locked(path):
        try:
            records = load_keys(path)
        except FileNotFoundError:
            records = {}
        before = write_keys(records)
        yield records
        if len(records) > MAX_KEYS:
            raise BadKeyFile(f"more than {MAX_KEYS} keys are too many. Take revoked ones out of the file")
        content = write_keys(records)
        if content != before:
            write_private(path, content)
