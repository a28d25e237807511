"""API keys at rest: what the file of keys says, and how a key is made and recognized. Pure.

A key reads `rgw_<id>_<secret>`. The file keeps its SHA-256. A slow hash, as for passwords, would buy nothing: it makes
guessing dear where secrets are short, and nobody guesses 192 random bits; it would only let strangers burn our CPU. The
id is part of what is hashed, so it salts it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from server.access.grants import CLIENT_SCOPES, Allowance, Scope

PREFIX = "rgw_"
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_KEYS = 20_000
VERSION = 1
ID_BYTES = 6
SECRET_BYTES = 24
DIGEST_BYTES = 32
NAME_RULE = "1 to 64 letters, digits, dots, hyphens or underscores, beginning with a letter or digit"

_KEY = re.compile(r"rgw_([0-9a-f]{12})_([0-9a-f]{48})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HASH = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_BOUNDS = {"streams": 100_000, "starts_per_minute": 1_000_000, "audio_minutes_per_day": 10_000_000}


class BadKeyFile(ValueError):
    """The file of keys says something that is not understood; the message never holds its content."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is kept.

    Attributes:
        id: its public part.
        name: whose it is; keys of one name are one caller, so that a key can be replaced by a new one.
        digest: SHA-256 of the whole key.
        scopes: what it may do.
        allowance: how much of it.
        created, expires, revoked: moments; `expires` and `revoked` None for never.
        last_used: the day, in UTC.
    """

    id: str
    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
    allowance: Allowance
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: date | None = None


def make_key(
    name: str,
    *,
    token_hex: Callable[[int], str],
    now: datetime,
    scopes: Iterable[Scope] = CLIENT_SCOPES,
    allowance: Allowance | None = None,
    lifetime: timedelta | None = None,
) -> tuple[str, KeyRecord]:
    """A new key, and what is kept of it.

    Args:
        name: see `NAME_RULE`.
        token_hex: random bytes in hexadecimal, from a source fit for secrets.
        now: the time, in UTC.
        scopes: what it may do.
        allowance: how much of it; none: no bounds of its own.
        lifetime: for ever where it is left out.

    Raises:
        ValueError: the name cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"A key's name is {NAME_RULE}.")
    key_id = token_hex(ID_BYTES)
    key = f"{PREFIX}{key_id}_{token_hex(SECRET_BYTES)}"
    created = now.replace(microsecond=0)
    expires = None if lifetime is None else created + lifetime
    record = KeyRecord(key_id, name, digest_of(key), frozenset(scopes), allowance or Allowance(), created, expires)
    return key, record


def id_of(credential: str) -> str | None:
    """The id in what is spelled like a key; None for anything else."""
    match = _KEY.fullmatch(credential)
    return None if match is None else match[1]


def digest_of(credential: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(credential.encode()).digest()


def read_keys(content: bytes) -> dict[str, KeyRecord]:
    """What a file of keys says, by id.

    Raises:
        BadKeyFile: with the reason, in words for its owner.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise BadKeyFile("it is not JSON") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise BadKeyFile(f'it is not {{"version": {VERSION}, "keys": […]}}')
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise BadKeyFile(f"it holds no list of at most {MAX_KEYS} keys")
    found: dict[str, KeyRecord] = {}
    for number, entry in enumerate(entries, 1):
        try:
            record = _record(entry)
        except (KeyError, TypeError, ValueError) as error:
            field_name = f" ({error.args[0]})" if isinstance(error, KeyError) else ""
            raise BadKeyFile(f"key {number} of {len(entries)} is not understood{field_name}") from None
        if record.id in found:
            raise BadKeyFile(f"key {number} has the id of another")
        found[record.id] = record
    return found


def write_keys(records: Mapping[str, KeyRecord]) -> bytes:
    """The file that says so."""
    entries = [_entry(record) for record in records.values()]
    return (json.dumps({"version": VERSION, "keys": entries}, indent=2) + "\n").encode()


def _record(entry: Any) -> KeyRecord:
    if not isinstance(entry, dict):
        raise TypeError
    key_id, name, spelled = entry["id"], entry["name"], _HASH.fullmatch(entry["hash"])
    if not _ID.fullmatch(key_id) or not _NAME.fullmatch(name) or spelled is None:
        raise ValueError
    scopes = entry["scopes"]
    if not isinstance(scopes, list):
        raise TypeError
    created = _moment(entry["created"])
    if created is None:
        raise ValueError
    used = entry.get("last_used")
    return KeyRecord(
        key_id,
        name,
        bytes.fromhex(spelled[1]),
        frozenset(Scope(scope) for scope in scopes),
        _allowance(entry.get("allowance", {})),
        created,
        _moment(entry.get("expires")),
        _moment(entry.get("revoked")),
        None if used is None else date.fromisoformat(used),
    )


def _allowance(given: Any) -> Allowance:
    if not isinstance(given, dict) or not given.keys() <= _BOUNDS.keys():
        raise ValueError
    for name, value in given.items():
        if type(value) is not int or not 0 <= value <= _BOUNDS[name]:
            raise ValueError
    return Allowance(**given)


def _moment(text: Any) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _entry(record: KeyRecord) -> dict[str, Any]:
    bounds = {name: getattr(record.allowance, name) for name in _BOUNDS if getattr(record.allowance, name)}
    return {
        "id": record.id,
        "name": record.name,
        "hash": f"sha256:{record.digest.hex()}",
        "scopes": sorted(record.scopes),
        "allowance": bounds,
        "created": _spelled(record.created),
        "expires": _spelled(record.expires),
        "revoked": _spelled(record.revoked),
        "last_used": None if record.last_used is None else record.last_used.isoformat(),
    }


def _spelled(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
