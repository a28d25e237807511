"""One request of a webhook: bounded, without redirects, and to public addresses only unless the operator wants others.

The addresses of a host are asked for once, checked, and then called by number, so that a name cannot mean one address
to the check and another to the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from asr.errors import ASRError
from server.jobs.webhook import checked_url, is_public

MAX_ADDRESSES = 4


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be sent.

    Attributes:
        url: where; it may hold a secret, and appears in no message.
        headers, body: as they are sent.
        timeout_ms: for all of it.
        allow_private: whether the address may be one that is not public.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout_ms: int
    allow_private: bool


def public_trust() -> ssl.SSLContext:
    """Trust in the authorities that browsers trust. It takes a while to make."""
    return httpx2.create_ssl_context(trust_env=False)


async def deliver(delivery: Delivery, trust: ssl.SSLContext) -> str:
    """Send it once. "" where the receiver took it (2xx), else why not, for the log: without addresses."""
    try:
        async with asyncio.timeout(delivery.timeout_ms / 1000):
            addresses = await _addresses(delivery)
            if not addresses:
                return "its host has no address that may be called (JOBS_WEBHOOK_PRIVATE=on allows private ones)"
            return await _send(delivery, addresses, trust)
    except TimeoutError:
        return f"no answer within {delivery.timeout_ms} ms"
    except ASRError as error:
        return error.message
    except socket.gaierror:
        return "its host has no address"
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return type(error).__name__


async def _addresses(delivery: Delivery) -> list[str]:
    parts = urlsplit(checked_url(delivery.url))
    assert parts.hostname is not None
    unique = dict.fromkeys(await _looked_up(parts.hostname, parts.port or 0))
    return [one for one in unique if delivery.allow_private or is_public(one)][:MAX_ADDRESSES]


async def _looked_up(host: str, port: int) -> list[str]:
    # On a thread of its own that nobody waits for: a name server that never answers would keep one of the loop's few.
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def tell(addresses: list[str] | OSError | UnicodeError) -> None:
        if found.done():
            return
        if isinstance(addresses, list):
            found.set_result(addresses)
        else:
            found.set_exception(addresses if isinstance(addresses, OSError) else socket.gaierror(str(addresses)))

    def look() -> None:
        try:
            told: list[str] | OSError | UnicodeError = [
                str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            ]
        except (OSError, UnicodeError) as error:
            told = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, told)

    threading.Thread(target=look, name="webhook-lookup", daemon=True).start()
    return await found


async def _send(delivery: Delivery, addresses: list[str], trust: ssl.SSLContext) -> str:
    url = httpx2.URL(delivery.url)
    headers = {**delivery.headers, "Host": url.netloc.decode("ascii"), "User-Agent": "riva-gateway"}
    # A proxy would look the name up anew, and past the check.
    async with httpx2.AsyncClient(verify=trust, trust_env=False, follow_redirects=False, timeout=None) as client:
        for number, address in enumerate(addresses, 1):
            request = client.build_request(
                "POST",
                url.copy_with(host=address),
                content=delivery.body,
                headers=headers,
                extensions={"sni_hostname": url.host},
            )
            try:
                answer = await client.send(request, stream=True)
            except httpx2.ConnectError:
                if number == len(addresses):
                    raise
                continue
            # Its body says nothing that is needed, and may be endless.
            await answer.aclose()
            return "" if answer.is_success else f"answered {answer.status_code}"
    raise AssertionError("a delivery has at least one address")
