"""Access for a gateway: the gate with everything it asks, and what keeps that up to date while the gateway runs."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from asr.loading import SettingsError
from server.access.attempts import Attempts
from server.access.gate import Gate, Verifier
from server.access.grants import Allowance
from server.access.jwks import KeysFromFile, KeysFromUrl
from server.access.jwt_keys import BadKeys
from server.access.jwt_settings import parse_algorithms
from server.access.jwt_tokens import JwtVerifier
from server.access.key_file import BadKeyFile
from server.access.keys import Keys
from server.access.own_tokens import OwnTokens
from server.access.quota_file import QuotaFile
from server.access.quotas import Quotas
from server.access.token_secret import token_secrets
from server.settings import ServerSettings

log = structlog.get_logger("server.access")

REFRESH_S = 0.5
"""How often files are looked at; whoever ends streams needs most of the 5 s in which a revoked key must be gone."""
QUOTA_SAVE_S = 60.0
USE_NOTED_S = 600.0


class Access:
    """Who may come in, and how much of it; `start` it in the loop, and `aclose` it at the end.

    Attributes:
        gate: for every face.
        quotas: what callers have used.
        tokens: makes short-lived tokens.
    """

    def __init__(
        self,
        gate: Gate,
        quotas: Quotas,
        tokens: OwnTokens,
        quota_file: QuotaFile,
        keys: Keys | None = None,
        jwt_keys: KeysFromFile | KeysFromUrl | None = None,
    ) -> None:
        self.gate = gate
        self.quotas = quotas
        self.tokens = tokens
        self._keys = keys
        self._jwt_keys = jwt_keys
        self._quota_file = quota_file
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to follow what keys and tokens are checked with, and to keep the day's minutes."""
        await self._quota_file.restore(self.quotas)
        self._run(QUOTA_SAVE_S, self._save)
        if self._keys is not None:
            self._run(REFRESH_S, self._follow)
            self._run(USE_NOTED_S, self._note_used)
        if isinstance(self._jwt_keys, KeysFromUrl):
            self._tasks.append(asyncio.create_task(self._jwt_keys.run()))
            await self._jwt_keys.first()

    async def aclose(self) -> None:
        """Stop, and write down what is to be kept."""
        if not self._tasks:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._note_used()
        await self._save()

    def _run(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(_every(seconds, step)))

    async def _follow(self) -> None:
        if self._keys is not None:
            await asyncio.to_thread(self._keys.refresh)
        if isinstance(self._jwt_keys, KeysFromFile):
            await asyncio.to_thread(self._jwt_keys.refresh)

    async def _note_used(self) -> None:
        if self._keys is not None:
            await asyncio.to_thread(self._keys.note_used, self._keys.take_used())

    async def _save(self) -> None:
        await self._quota_file.save(self.quotas)


def build_access(
    settings: ServerSettings,
    *,
    unix_time: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
    token_hex: Callable[[int], str] = secrets.token_hex,
    more: Sequence[Verifier] = (),
) -> Access:
    """The access that the settings describe. Files are read; nothing runs before `Access.start`.

    Args:
        settings: of the server.
        unix_time: the wall clock, in seconds.
        clock: seconds, for rates.
        token_hex: random bytes in hexadecimal, from a source fit for secrets.
        more: credentials of other kinds, where clients must show one.

    Raises:
        SettingsError: keys or secrets cannot be used.
    """
    default = Allowance(0, settings.quota_starts_per_minute, settings.quota_audio_minutes_per_day)
    quotas = Quotas(default, clock=clock, unix_time=unix_time)
    quota_file = QuotaFile(settings.state_dir / f"quota-{settings.port}.json")
    is_on = settings.auth_is_on
    # An open gate asks for no token, so one that is made there is good for nothing elsewhere either.
    signing = token_secrets(settings) if is_on or settings.token_secret is not None else (token_hex(32).encode(),)
    tokens = OwnTokens(signing, max_ttl_ms=settings.token_ttl_ms, unix_time=unix_time, token_hex=token_hex)
    if not is_on:
        return Access(Gate((), is_open=True, unix_time=unix_time), quotas, tokens, quota_file)
    keys = Keys(settings.keys_file, unix_time)
    try:
        keys.load()
    except (BadKeyFile, OSError) as error:
        why = str(error) if isinstance(error, BadKeyFile) else error.strerror
        text = f"The file of API keys, {settings.keys_file}, cannot be used: {why}. Correct it, or set AUTH=off."
        raise SettingsError("API_KEYS_FILE", text) from None
    verifiers: list[Verifier] = [keys, tokens]
    jwt_keys = _jwt_keys(settings)
    if jwt_keys is not None:
        verifiers.append(_jwt_verifier(settings, jwt_keys, unix_time))
    verifiers += more
    gate = Gate(verifiers, is_open=False, unix_time=unix_time, attempts=Attempts(clock))
    return Access(gate, quotas, tokens, quota_file, keys, jwt_keys)


def _jwt_keys(settings: ServerSettings) -> KeysFromFile | KeysFromUrl | None:
    if not settings.jwt_keys:
        return None
    if "://" in settings.jwt_keys:
        return KeysFromUrl(settings.jwt_keys, settings.jwt_ca_cert)
    path = Path(settings.jwt_keys).expanduser()
    try:
        return KeysFromFile(path)
    except (BadKeys, OSError) as error:
        why = str(error) if isinstance(error, BadKeys) else error.strerror
        text = f"JWT_KEYS: {path} cannot be used: {why}. Give a PEM file of public keys, or a JWKS."
        raise SettingsError("JWT_KEYS", text) from None


def _jwt_verifier(
    settings: ServerSettings, keys: KeysFromFile | KeysFromUrl, unix_time: Callable[[], float]
) -> JwtVerifier:
    return JwtVerifier(
        lambda: keys.keys,
        keys.want,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        algorithms=parse_algorithms(settings.jwt_algorithms),
        scope_claim=settings.jwt_scope_claim,
        unix_time=unix_time,
    )


async def _every(seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await step()
        except Exception:  # what keeps keys up to date must not end with one bad moment
            log.exception("keeping access up to date failed; it is tried again")
