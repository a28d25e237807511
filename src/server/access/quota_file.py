"""The day's minutes over a restart: a small file, written now and then and at the end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import structlog

from server.access.files import locked, read_bounded, write_private
from server.access.quotas import Quotas

log = structlog.get_logger("server.access")

_MAX_BYTES = 32 * 1024 * 1024


class QuotaFile:
    """Keeps what callers have used today. A disk that does not let it is told about once, and the gateway goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: dict[str, Any] = {}
        self._told = False

    async def restore(self, quotas: Quotas) -> None:
        """Go on from where the last run ended."""
        try:
            quotas.restore(await asyncio.to_thread(self._read))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            self._tell("the minutes used today are not known from before", error)
        self._saved = quotas.snapshot()

    async def save(self, quotas: Quotas) -> None:
        """Write it down, if there is anything new."""
        snapshot = quotas.snapshot()
        if snapshot == self._saved or not (snapshot["spent_ms"] or self._saved):
            return
        try:
            await asyncio.to_thread(self._write, snapshot)
        except OSError as error:
            self._tell("the minutes used today cannot be kept for the next run", error)
        else:
            self._saved = snapshot

    def _read(self) -> Any:
        return json.loads(read_bounded(self._path, _MAX_BYTES))

    def _write(self, snapshot: dict[str, Any]) -> None:
        with locked(self._path):
            write_private(self._path, json.dumps(snapshot).encode())

    def _tell(self, what: str, error: Exception) -> None:
        if not self._told:
            self._told = True
            log.warning(what, file=self._path.name, why=type(error).__name__)
