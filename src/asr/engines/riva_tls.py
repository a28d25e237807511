"""TLS towards Riva: whom the gateway trusts, what it shows of itself, and how renewed files come into use.

The name in the server's certificate is always checked, and there is no setting that would leave it out; nor is there a
way back to plain text from a file that cannot be used.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final as Const

import grpc

from asr.config import RivaConfig
from asr.errors import ASRError, Code
from asr.tls_files import CertificateError, PairNames, Watched, read_authorities, read_pair

LOOK_EVERY_S: Const = 1.0
"""How often the files are looked at, at most: whoever opens a stream or asks for health does it."""
TELL_EVERY_S: Const = 60.0
"""How often it is said, at most, that the server hangs up in the handshake."""
RIVA_NAMES: Const = PairNames("RIVA_SSL_CLIENT_CERT", "RIVA_SSL_CLIENT_KEY")

log = logging.getLogger("asr.riva")


@dataclass(frozen=True, slots=True)
class ClientMaterial:
    """What was read from the files.

    Attributes:
        credentials: for a channel.
        root_expires: the end of the last authority trusted; None where gRPC's own are.
        cert_expires: the end of our certificate; None without one.
    """

    credentials: grpc.ChannelCredentials
    root_expires: datetime | None = None
    cert_expires: datetime | None = None


def wants_tls(config: RivaConfig) -> bool:
    """Whether that endpoint is spoken to with TLS."""
    return bool(config.ssl or config.root_cert or config.client_cert)


def client_files(config: RivaConfig) -> tuple[Path, ...]:
    """The files of its TLS, none where gRPC's own authorities are trusted and no certificate is shown."""
    return tuple(path for path in (config.root_cert, config.client_cert, config.client_key) if path is not None)


def load_client(config: RivaConfig, *, now: datetime) -> ClientMaterial:
    """Read the files.

    Raises:
        CertificateError: one cannot be used, or they do not fit together.
    """
    root: bytes | None = None
    root_expires: datetime | None = None
    if config.root_cert is not None:
        root, root_expires = read_authorities(config.root_cert, "RIVA_SSL_ROOT_CERT")
    if config.client_cert is None or config.client_key is None:
        return ClientMaterial(grpc.ssl_channel_credentials(root), root_expires)
    pair = read_pair(config.client_cert, config.client_key, RIVA_NAMES, now=now)
    try:  # gRPC would find out with each connection that a certificate further on in the chain is damaged
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            config.client_cert.expanduser(), config.client_key.expanduser()
        )
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(
            f"RIVA_SSL_CLIENT_CERT {config.client_cert} cannot be used: {error}.", RIVA_NAMES.cert
        ) from error
    credentials = grpc.ssl_channel_credentials(root, pair.key_pem, pair.cert_pem)
    return ClientMaterial(credentials, root_expires, pair.certificate.not_valid_after_utc)


class ClientTls:
    """The credentials of one endpoint's connections, renewed when the files are."""

    def __init__(
        self,
        config: RivaConfig,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read the files.

        Args:
            config: an endpoint with TLS.
            clock: monotonic, in seconds.
            now: the time, with a time zone.

        Raises:
            CertificateError: they cannot be used.
        """
        self._endpoint = config.endpoint
        self._shows = config.client_cert
        self._told_s = -TELL_EVERY_S
        self._clock = clock
        self._files = Watched(client_files(config), lambda: load_client(config, now=now()))
        self._next_look_s = clock() + LOOK_EVERY_S

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        """What was loaded last."""
        return self._files.current.credentials

    def renewed(self) -> bool:
        """Whether `credentials` are others than at the last call. Costs a look at the files once a second."""
        now_s = self._clock()
        if now_s < self._next_look_s:
            return False
        self._next_look_s = now_s + LOOK_EVERY_S
        change = self._files.look(now_s)
        if isinstance(change, CertificateError):
            log.error(
                "a new certificate towards the recognizer %s was not loaded, the former stays in use: %s",
                self._endpoint,
                change.message,
            )
            return False
        if change is None:
            return False
        log.info("certificates towards the recognizer %s were renewed: new connections use them", self._endpoint)
        return True

    def hung_up(self) -> None:
        """The server closed a connection before it said anything: say to the operator what that often means."""
        now_s = self._clock()
        if now_s - self._told_s < TELL_EVERY_S:
            return
        self._told_s = now_s
        shown = f"it may not accept RIVA_SSL_CLIENT_CERT {self._shows}"
        asked = "it may ask for a certificate of ours, and RIVA_SSL_CLIENT_CERT is not set"
        log.warning(
            "the recognizer %s closes connections in the TLS handshake: %s, or it is restarting",
            self._endpoint,
            asked if self._shows is None else shown,
        )


def client_tls(config: RivaConfig, *, clock: Callable[[], float]) -> ClientTls | None:
    """The TLS of that endpoint; None where it is spoken to in plain text.

    Raises:
        ASRError: `bad_request`, when a file cannot be used.
    """
    if bool(config.client_cert) != bool(config.client_key):
        raise ASRError(
            Code.BAD_REQUEST,
            "Mutual TLS needs the client's certificate and its key; only one of the two is set.",
            param="client_cert" if config.client_key else "client_key",
        )
    return ClientTls(config, clock=clock) if wants_tls(config) else None
