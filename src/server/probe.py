"""Is the gateway in this container alive? `python -m server.probe`: exit status 0 or 1, and one line that says why.

The image's health check. It runs every half minute beside the streams, so it is the standard library alone. It asks the
gateway's own port for `/healthz`, which a gateway answers by itself: a recognizer that is away is no reason to restart
the one who waits for it. A process whose loop hangs still takes connections, but answers none in time.

The settings are read the way `serve` reads them, from the environment and from the flags of the container's first
process. A `.env` file is not read: containers are given their settings.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 2.0
"""For everything together; the image's health check gives up after 3 s."""
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ALIVE = b"HTTP/1.1 200"
_EVERY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_OFF = ("off", "false", "f", "no", "n", "0")


class Door(NamedTuple):
    """Where a gateway can be asked.

    Attributes:
        host: its address, seen from inside.
        port: its HTTP port; 0 where only the gateway knows it.
        tls: whether it speaks TLS there.
        asks_certificates: whether clients must show one.
    """

    host: str
    port: int
    tls: bool
    asks_certificates: bool


def door(env: Mapping[str, str], argv: Sequence[str] = ()) -> Door:
    """Where `serve` listens with these settings.

    Args:
        env: the container's environment.
        argv: the command line of its first process; the flags of `serve` win over the environment.

    Raises:
        ValueError: a port is no number.
    """
    said = {key.lower(): value for key, value in env.items() if value}
    said |= _flags(argv)
    in_sagemaker = "port" not in said and "sagemaker_bind_to_port" in said
    port = said["sagemaker_bind_to_port"] if in_sagemaker else said.get("port", "8443")
    tls = said.get("tls", "off" if in_sagemaker else "on").lower() not in _OFF
    host = said.get("listen_host", "").strip("[]")
    return Door(_EVERY.get(host, host), int(port), tls, tls and "tls_client_ca" in said)


def _flags(argv: Sequence[str]) -> dict[str, str]:
    """The flags of `serve` that move the door, by the keys that they stand for."""
    keys = {"--port": "port", "-p": "port", "--host": "listen_host"}
    found: dict[str, str] = {}
    for number, word in enumerate(argv):
        name, sign, value = word.partition("=")
        if word == "--no-tls":
            found["tls"] = "off"
        elif name in keys:
            found[keys[name]] = value if sign else "".join(argv[number + 1 : number + 2])
    return found


def ask(where: Door, patience_s: float = PATIENCE_S) -> str:
    """Nothing where the gateway is alive, else what is wrong, in one line."""
    until = time.monotonic() + patience_s
    address = f"{where.host}:{where.port}"
    try:
        with (
            socket.create_connection((where.host, where.port), timeout=patience_s) as plain,
            _secured(plain) if where.tls else plain as line,
        ):
            # Who wants to see a certificate has read our greeting and answered it; without one it says no more.
            answer = _ALIVE if where.asks_certificates else _answer(line, until)
    except TimeoutError:
        return f"{address} takes connections and does not answer within {patience_s:g} s"
    except ssl.SSLError as error:
        return f"{address} speaks no TLS that we know: {error.reason}"
    except OSError as error:
        return f"{address} cannot be reached: {error.strerror or error}"
    return "" if answer.startswith(_ALIVE) else f"{address} answers /healthz with {answer[:40]!r}"


def _answer(line: socket.socket, until: float) -> bytes:
    """The beginning of what `/healthz` says, or as much as came before the other side closed."""
    answer = b""
    line.sendall(_REQUEST)
    while len(answer) < len(_ALIVE):
        line.settimeout(max(until - time.monotonic(), 0.001))
        piece = line.recv(4096)
        if not piece:
            break
        answer += piece
    return answer


def _secured(plain: socket.socket) -> ssl.SSLSocket:
    # Our own port on our own address: the question is whether somebody answers, and nothing secret is said.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # rule(unverified-tls): the certificate may be for any name, and made by the gateway itself
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


def main() -> int:
    """Ask, say it, and give the exit status."""
    try:
        argv = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        argv = []
    try:
        where = door(os.environ, argv)
        wrong = ask(where) if where.port else "PORT=0 lets the system choose, and only the gateway knows: name a port"
    except ValueError as error:
        wrong = f"a port is no number: {error}"
    sys.stdout.write(f"unhealthy: {wrong}\n" if wrong else "healthy\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
