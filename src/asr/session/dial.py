"""Connections to a gateway: opened and closed within bounds, without redirects and without compression."""

from __future__ import annotations

import asyncio
import ssl

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from asr import wire
from asr.config import GatewayConfig
from asr.errors import ASRError, Code
from asr.session.address import Address, address_of, connection_error, hung_up, plain_text, status_error, tls_context

CLOSE_TIMEOUT_S = 2.0
MAX_MESSAGE_BYTES = 4 << 20
PING_INTERVAL_S = 15.0

_CLOSE_CODES = {
    1009: Code.TOO_LARGE,
    1011: Code.INTERNAL,
    1013: Code.OVERLOADED,
    4400: Code.BAD_REQUEST,
    4401: Code.UNAUTHORIZED,
    4403: Code.FORBIDDEN,
    4404: Code.NOT_FOUND,
    4408: Code.IDLE_TIMEOUT,
    4409: Code.SUPERSEDED,
    4410: Code.EXPIRED,
    4413: Code.TOO_LARGE,
    4415: Code.BAD_AUDIO,
    4429: Code.RATE_LIMITED,
    4499: Code.SLOW_READER,
    4502: Code.UNAVAILABLE,
    4503: Code.OVERLOADED,
    4504: Code.TIMEOUT,
}


class Dialer:
    """Opens connections to one gateway."""

    def __init__(self, config: GatewayConfig) -> None:
        """Nothing is connected yet.

        Raises:
            ASRError: `bad_request`, for an address, token or certificate file that cannot be used.
        """
        self.config = config
        self.address: Address = address_of(config.url)
        if config.token and not (self.address.secure or self.address.loopback):
            raise ASRError(
                Code.BAD_REQUEST,
                "The token would travel unencrypted to another machine. Use https://, or leave the token out.",
                param="token",
            )
        self.tls: ssl.SSLContext | None = tls_context(config) if self.address.secure else None

    async def connect(self, session_hint: str, timeout_s: float, traceparent: str = "") -> ClientConnection:
        """A new connection, meant to resume the session of that id where it is not "", within the caller's trace.

        Raises:
            ASRError: whatever stood in the way.
        """
        url = self.address.stream + (f"?session={session_hint}" if session_hint else "")
        headers = {"Authorization": f"Bearer {self.config.token}"} if self.config.token else {}
        if traceparent:
            headers["traceparent"] = traceparent
        try:
            return await _Connect(
                url,
                subprotocols=[wire.PROTOCOL],  # type: ignore[list-item]  # a NewType of str
                additional_headers=headers,
                ssl=self.tls,
                proxy=None if self.address.loopback else True,
                compression=None,
                open_timeout=timeout_s,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                ping_timeout=None,  # an answer may wait behind audio; acks are the sign of life
                max_size=MAX_MESSAGE_BYTES,
            )
        except InvalidStatus as error:
            response = error.response
            told = plain_text("".join(response.headers.get_all("Content-Type")), response.body or b"")
            wait = response.headers.get("Retry-After")
            raise status_error(response.status_code, wait, told, refused="stream") from error
        except InvalidMessage as error:
            cause = error.__cause__
            if isinstance(cause, EOFError) and self.tls is not None:
                raise hung_up() from error
            raise connection_error(cause if isinstance(cause, OSError) else ConnectionError()) from error
        except (OSError, InvalidHandshake, EOFError) as error:
            raise connection_error(error) from error


class _Connect(connect):
    """Follows no redirects: a gateway sends none, and one could carry the token to another machine."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def hang_up(socket: ClientConnection) -> None:
    """Close, within a bound: a far side that does not read cannot be told so."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()
    except TimeoutError:
        socket.transport.abort()


def closed_early(closed: ConnectionClosed) -> ASRError:
    """What it means that the gateway closed the connection before the summary."""
    number = closed.rcvd.code if closed.rcvd is not None else None
    code = _CLOSE_CODES.get(number, Code.UNAVAILABLE) if number is not None else Code.UNAVAILABLE
    how = f" (close code {number})" if number is not None else ""
    return ASRError(
        code,
        f"The gateway closed the connection before the last result{how}. Begin the stream anew.",
        retryable=True if code is Code.INTERNAL else None,  # its defect need not come again
    )
