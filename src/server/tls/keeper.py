"""Looks after all certificates of a running gateway: loads renewed files, counts the days, renews the self-made one.

Streams that run notice nothing: a connection keeps what it was opened with, and new handshakes see what is new. What
cannot be used is told once and not used.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final as Const

import grpc
import structlog

from asr.config import RivaConfig
from asr.engines.riva_tls import client_files, load_client, wants_tls
from asr.tls_files import CertificateError, Watched
from server.certificates import RENEW_BEFORE, localhost_certificate, parse_names
from server.settings import ServerSettings
from server.tls.material import ListenerFiles, ListenerMaterial, load_listener
from server.tls.policy import LiveContext

LOOK_EVERY_S: Const = 1.0
"""How often the files are looked at."""
WARN_BEFORE: Const = timedelta(days=14)
"""A certificate with less left is worth a line a day."""
WARN_EVERY_S: Const = 86_400.0
FORGET_EVERY_S: Const = 300.0
"""How often sessions are forgotten where clients show certificates: who resumes one does not show his again."""
RENEW_EVERY_S: Const = 3_600.0
"""How often a new self-made certificate is tried for, where the disk does not take it."""

log = structlog.get_logger("server.tls")


class Certificates:
    """The certificates of one gateway. `start`, then `aclose`.

    Attributes:
        https: for the HTTP listener; None where it speaks plain text.
        ends: when what is loaded expires, in seconds since 1970, by its use: `listener`, `listener_client_ca`,
            `riva_client`, `riva_ca`, those there are. Kept up to date.
    """

    def __init__(
        self,
        files: ListenerFiles | None,
        *,
        https: bool,
        self_made_in: Path | None = None,
        riva: RivaConfig | None = None,
        clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        renew: Callable[[Path], object] = localhost_certificate,
    ) -> None:
        """Read everything.

        Args:
            files: of the listeners; None where neither speaks TLS.
            https: whether the HTTP listener does.
            self_made_in: the state directory, where the listener's certificate is the self-made one.
            riva: a recognizer's endpoint, whose files are only counted here: its engine loads them itself.
            clock: monotonic, in seconds.
            now: the time, with a time zone.
            renew: makes a self-made certificate anew where it is due.

        Raises:
            CertificateError: a file cannot be used.
        """
        self._clock, self._now, self._renew = clock, now, renew
        self._self_made_in = self_made_in
        self._listener: Watched[ListenerMaterial] | None = None
        self.https: LiveContext | None = None
        if files is not None:
            self._listener = Watched(files.paths, lambda: load_listener(files, now=now()))
            self.https = LiveContext(self._listener.current.context) if https else None
        self._asks_clients = files is not None and files.client_ca is not None
        self._riva = (
            Watched(client_files(riva), lambda: load_client(riva, now=now()))
            if riva is not None and wants_tls(riva)
            else None
        )
        self._shown_by_grpc: ListenerMaterial | None = None
        self._grpc_forgot_s = self._https_forgot_s = clock()
        self._warned_at: dict[str, float] = {}
        self._renew_after = clock()
        self.ends = self._expiries()
        self._task: asyncio.Task[None] | None = None

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For the gRPC listener: each handshake is done with what was loaded last. Not without files."""
        assert self._listener is not None, "this gateway has no certificate"
        self._shown_by_grpc = self._listener.current
        return grpc.dynamic_ssl_server_credentials(
            self._shown_by_grpc.grpc,
            self._newer_for_grpc,  # type: ignore[arg-type]  # the stubs do not know that it may be None
            require_client_authentication=self._asks_clients,
        )

    def start(self) -> None:
        """Look after them from now on, in a task."""
        if self._listener is not None or self._riva is not None:
            self._task = asyncio.create_task(self._watch(), name="certificates")

    async def aclose(self) -> None:
        """Stop looking."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def look(self) -> None:
        """Look once: what `start` does every second, off the loop's thread."""
        if self._listener is not None:
            self._renew_self_made(self._listener.current)
            change = self._listener.look(self._clock())
            if isinstance(change, CertificateError):
                log.error("certificate was not loaded, the former stays in use", error=change.message)
            elif change is not None:
                if self.https is not None:
                    self.https.newest = change.context
                log.info("certificate loaded", serial=change.serial, expires=change.expires.isoformat())
            else:
                self._forget(self._listener)
        if self._riva is not None:
            self._riva.look(self._clock())
        self.ends.update(self._expiries())
        self._warn()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await asyncio.to_thread(self.look)
            except Exception:
                log.exception("certificates cannot be looked at")

    def _forget(self, listener: Watched[ListenerMaterial]) -> None:
        # The memory of sessions goes with its context.
        if self.https is None or not self._due(self._https_forgot_s):
            return
        self._https_forgot_s = self._clock()
        anew = listener.again()
        if anew is not None:
            self.https.newest = anew.context

    def _due(self, forgot_s: float) -> bool:
        return self._asks_clients and self._clock() - forgot_s >= FORGET_EVERY_S

    def _newer_for_grpc(self) -> grpc.ServerCertificateConfiguration | None:
        # Called in gRPC's own thread, for each handshake; None: go on with what you have, sessions among it.
        assert self._listener is not None, "only asked where there is a certificate"
        newest = self._listener.current
        if newest is self._shown_by_grpc and not self._due(self._grpc_forgot_s):
            return None
        self._shown_by_grpc = newest
        self._grpc_forgot_s = self._clock()
        return newest.grpc

    def _renew_self_made(self, current: ListenerMaterial) -> None:
        if self._self_made_in is None or current.expires - self._now() >= RENEW_BEFORE:
            return
        if self._clock() < self._renew_after:
            return
        self._renew_after = self._clock() + RENEW_EVERY_S
        try:
            self._renew(self._self_made_in)
        except CertificateError as error:
            log.error("the self-made certificate cannot be renewed", error=error.message)

    def _expiries(self) -> dict[str, float]:
        ends: dict[str, datetime | None] = {}
        if self._listener is not None:
            ends["listener"] = self._listener.current.expires
            ends["listener_client_ca"] = self._listener.current.client_ca_expires
        if self._riva is not None:
            ends["riva_client"] = self._riva.current.cert_expires
            ends["riva_ca"] = self._riva.current.root_expires
        return {use: end.timestamp() for use, end in ends.items() if end is not None}

    def _warn(self) -> None:
        for use, end in self.ends.items():
            left_s = end - self._now().timestamp()
            if left_s >= WARN_BEFORE.total_seconds():
                self._warned_at.pop(use, None)
                continue
            last = self._warned_at.get(use)
            if last is not None and self._clock() - last < WARN_EVERY_S:
                continue
            self._warned_at[use] = self._clock()
            log.warning(
                "certificate expires soon" if left_s > 0 else "certificate has expired",
                use=use,
                expires=datetime.fromtimestamp(end, UTC).isoformat(),
                days_left=int(left_s // 86_400),
            )


def build_certificates(settings: ServerSettings) -> Certificates:
    """The certificates that settings ask for; the self-made one is made where it is needed.

    Raises:
        CertificateError: a file cannot be used, or clients are to show certificates on no port.
    """
    riva = settings.riva_configs()[0] if settings.engine == "riva" else None
    wants_grpc = settings.grpc_port is not None and settings.grpc_secure
    if not (settings.tls or wants_grpc):
        if settings.tls_client_ca is not None:
            raise CertificateError(
                "TLS_CLIENT_CA asks clients for certificates, and no port speaks TLS: leave it out, or switch TLS on.",
                "TLS_CLIENT_CA",
            )
        return Certificates(None, https=False, riva=riva)
    self_made_in: Path | None = None
    cert, key = settings.tls_cert, settings.tls_key
    make = partial(localhost_certificate, names=parse_names(settings.tls_names))
    if cert is None or key is None:
        self_made_in = settings.state_dir
        cert, key = make(self_made_in)
    if settings.tls_client_ca is not None and settings.grpc_port is not None and not wants_grpc:
        log.warning("clients of the gRPC port are asked for no certificate: GRPC_TLS=off")
    return Certificates(
        ListenerFiles(cert, key, settings.tls_client_ca),
        https=settings.tls,
        self_made_in=self_made_in,
        riva=riva,
        renew=make,
    )
