"""TLS handshakes for tests, most of them made by `openssl s_client`: it knows what no library offers any more."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

OLD_VERSIONS = ("-tls1", "-tls1_1")
"""Debian's OpenSSL speaks nothing older."""


@dataclass(frozen=True)
class Answer:
    """What both sides agreed to, "" where they did not, and all that openssl said: also what went wrong later."""

    version: str = ""
    cipher: str = ""
    alpn: str = ""
    told: str = ""

    @property
    def made(self) -> bool:
        return bool(self.cipher)


async def shake(port: int, *arguments: str | Path, say: bytes = b"") -> Answer:
    """One handshake with 127.0.0.1; `say` is typed afterwards."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost"),
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(10):
        out, _ = await process.communicate(say)
    text = out.decode("utf-8", "replace")
    shaken = re.search(r"New, (\S+), Cipher is (?!\(NONE\))(\S+)", text)
    if shaken is None:
        return Answer(told=text)
    alpn = re.search(r"ALPN protocol: (\S+)", text)
    return Answer(shaken[1], shaken[2], alpn[1] if alpn else "", text)


async def serial_shown(port: int, pair: tuple[Path, Path] | None = None) -> str:
    """The number of the certificate that a new handshake sees, whoever signed it; `pair` is shown in return."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1", "h2"])
    if pair is not None:
        context.load_cert_chain(*pair)
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return f"{x509.load_der_x509_certificate(shown).serial_number:X}"


async def ciphers_known() -> list[str]:
    """Every cipher of TLS 1.2 and older that this machine's OpenSSL can offer."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip().split(":")
