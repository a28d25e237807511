"""Keys for gateways in tests: a file of them, written as the command writes it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from server.access.grants import ALL_SCOPES, Allowance, Scope
from server.access.key_file import KeyRecord, make_key, write_keys


class Keyring:
    """A file of keys that can be added to and taken from while a gateway runs.

    Attributes:
        path: where it is, for `API_KEYS_FILE`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.json"
        self._records: dict[str, KeyRecord] = {}
        self._write()

    def key(self, name: str, scopes: Iterable[Scope] = ALL_SCOPES, allowance: Allowance | None = None) -> str:
        """A new key of that caller."""
        now = datetime.now(UTC)
        key, record = make_key(name, token_hex=secrets.token_hex, now=now, scopes=scopes, allowance=allowance)
        self._records[record.id] = record
        self._write()
        return key

    def take_back(self, name: str) -> None:
        """Revoke the keys of a caller, by forgetting them."""
        self._records = {key_id: record for key_id, record in self._records.items() if record.name != name}
        self._write()

    def _write(self) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_bytes(write_keys(self._records))
        beside.chmod(0o600)
        beside.replace(self.path)


def bearer(credential: str) -> dict[str, str]:
    """The header that shows it."""
    return {"Authorization": f"Bearer {credential}"}
