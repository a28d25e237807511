"""Where the issuer's keys come from, and how they are kept up to date: a file, or an address that publishes a JWKS.

Nobody ever waits for them: the gate asks for the keys known now. They are fetched in the background, every five minutes
and at once for a key that is not known, but no more than every ten seconds whoever asks. Where that fails, the keys
that are known go on.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx2
import structlog

from server.access.files import Signature, read_bounded, signature
from server.access.jwt_keys import MAX_BYTES, BadKeys, KeySet, parse_keys

log = structlog.get_logger("server.access")

REFRESH_S = 300.0
AT_ONCE_S = 10.0
"""The shortest time between two fetches."""
FETCH_TIMEOUT_S = 10.0
START_TIMEOUT_S = 5.0
"""How long a start waits for the first keys; without them it goes on, and tokens are refused as `unavailable`."""


class KeysFromFile:
    """The keys in a file, which may be replaced at any time.

    Attributes:
        keys: those known now.

    Raises:
        BadKeys, OSError: there are none in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: str | None = ""
        self._seen: Signature | None = signature(path)
        self.keys: KeySet | None = parse_keys(_content(path))

    def want(self) -> None:
        """A token names a key that is not known; the file is looked at often enough without."""

    def refresh(self) -> None:
        """Read the file again if it was changed. One that cannot be used changes nothing, and is told once."""
        try:
            seen = signature(self._path)
            if seen == self._seen:
                return
            keys = parse_keys(_content(self._path))
        except (BadKeys, OSError) as error:
            why = str(error) if isinstance(error, BadKeys) else error.strerror
            if why != self._told:
                self._told = why
                log.error("the keys for tokens cannot be used; those read before go on", why=why, file=self._path.name)
            return
        self._seen, self._told, self.keys = seen, "", keys
        log.info("keys for tokens read", keys=len(keys.keys))


class KeysFromUrl:
    """The keys that an address publishes.

    Attributes:
        keys: those known now; None: none were ever fetched.

    Args:
        url: https, or http on this machine.
        ca_cert: PEM of an authority to trust beside those that everybody trusts.
        refresh_s, at_once_s: see `REFRESH_S`, `AT_ONCE_S`.
    """

    def __init__(
        self, url: str, ca_cert: Path | None = None, *, refresh_s: float = REFRESH_S, at_once_s: float = AT_ONCE_S
    ) -> None:
        self.keys: KeySet | None = None
        self._url = url
        self._ca_cert = ca_cert
        self._refresh_s = refresh_s
        self._at_once_s = at_once_s
        self._trust: ssl.SSLContext | None = None
        self._wanted = asyncio.Event()
        self._first = asyncio.Event()
        self._failing = False

    def want(self) -> None:
        """A token names a key that is not known: fetch them soon. Called in the loop."""
        self._wanted.set()

    async def first(self) -> None:
        """Wait until the first fetch has ended, well or not, for `START_TIMEOUT_S` at most."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._first.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Keep the keys up to date until cancelled."""
        while True:
            self._wanted.clear()
            await self._refresh()
            self._first.set()
            await asyncio.sleep(self._at_once_s)
            if self._failing:
                continue
            try:
                async with asyncio.timeout(self._refresh_s - self._at_once_s):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = parse_keys(await self._fetch())
        except Exception as error:  # whatever it is: the keys known go on, and it is tried again
            if not self._failing:
                why = str(error) if isinstance(error, BadKeys) else type(error).__name__
                log.warning(
                    "the keys for tokens cannot be fetched; it is tried again", why=why, known=self.keys is not None
                )
            self._failing = True
            return
        if self._failing or keys != self.keys:
            log.info("keys for tokens fetched", keys=len(keys.keys))
        self._failing = False
        self.keys = keys

    async def _fetch(self) -> bytes:
        if self._trust is None:
            await asyncio.to_thread(self._make_trust)
        assert self._trust is not None
        # As it is: what is unpacked could be a thousand times as long.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "riva-gateway"}
        client = httpx2.AsyncClient(
            verify=self._trust, trust_env=False, follow_redirects=False, timeout=FETCH_TIMEOUT_S
        )
        async with client, client.stream("GET", self._url, headers=headers) as answer:
            if answer.status_code != 200:
                raise BadKeys(f"the address answers with status {answer.status_code}")
            content = bytearray()
            async for part in answer.aiter_raw():
                content += part
                if len(content) > MAX_BYTES:
                    raise BadKeys(f"the answer is longer than {MAX_BYTES} bytes")
            return bytes(content)

    def _make_trust(self) -> None:
        """It takes a while; once made it is kept, even if nobody waited for it."""
        context = httpx2.create_ssl_context(trust_env=False)
        if self._ca_cert is not None:
            context.load_verify_locations(self._ca_cert)
        self._trust = context


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_BYTES)
    except ValueError as error:
        raise BadKeys(str(error)) from None
