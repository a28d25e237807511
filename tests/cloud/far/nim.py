"""What runs in a container: a NIM, or classic Riva. After its time of loading it is `riva-gateway mock-riva`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from far.common import fail, faults, say

BUILDING = {"download_ngc_models": "rmir", "deploy_all_models": "models"}  # of classic Riva: what makes which folder
LOADING = b'{"object":"health.response","message":"Service is not ready","status":"not ready"}'


def main() -> None:
    """argv[1]: command, flags and environment of the container, as JSON."""
    told = json.loads(sys.argv[1])
    command, env, now = told["command"], told["env"], faults()
    ports, volumes = _ports(told["flags"]), [Path(each.split(":")[0]) for each in told["flags"].get("volumes", [])]
    if command and command[0] in BUILDING:
        return _build(command, env, volumes[0])
    classic = bool(command) and command[0] == "start-riva"
    if command and not classic:
        fail(f"the stand-in of the image does not know: {command}", 127)
    if not classic:
        say("== NVIDIA Speech NIM ==")
        if not env.get("NGC_API_KEY"):
            fail("Error: NGC_API_KEY is not set. Get one at https://org.ngc.nvidia.com/setup/api-keys")
    if now.get("nim_profile_missing"):
        fail(f"ERROR: No matching profile found for selector {env.get('NIM_TAGS_SELECTOR')!r} on this GPU. Exiting.")
    say(f"Selected profile for {env.get('NIM_TAGS_SELECTOR', 'classic Riva')}")
    for folder in volumes:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.stand-in").write_text("engine\n")
    _load(now, ports.get("9000"))
    if now.get("nim_dies_after_s"):
        threading.Timer(now["nim_dies_after_s"], lambda: os._exit(139)).start()
    host, grpc = ports.get("50051", ("127.0.0.1", 0))
    _, http = ports.get("9000", ("", 0))
    from server.__main__ import main as gateway

    sys.argv = ["riva-gateway", "mock-riva", "--host", host, "--grpc-port", str(grpc), "--http-port", str(http)]
    gateway()
    return None


def _ports(flags: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Port in the container to address and port outside."""
    if flags.get("network") == "host":
        return {"9000": ("0.0.0.0", 9000), "50051": ("0.0.0.0", 50051)}
    found = {}
    for port in flags.get("ports", []):
        *address, outside, inside = port.split(":")
        found[inside] = (address[0] if address else "0.0.0.0", int(outside))
    return found


def _build(command: list[str], env: dict[str, str], volume: Path) -> None:
    if command[0] == "download_ngc_models" and not env.get("NGC_CLI_API_KEY") and not env.get("NGC_API_KEY"):
        fail("Error: NGC_CLI_API_KEY is not set")
    (volume / BUILDING[command[0]]).mkdir(parents=True, exist_ok=True)
    say(" ".join(command))


def _load(now: dict[str, Any], address: tuple[str, int] | None) -> None:
    """Until it would be ready: its port answers that it is not."""
    end = time.monotonic() + float(now.get("nim_ready_after_s") or 0)
    loading: Callable[[], bool] = lambda: time.monotonic() < end  # noqa: E731
    if now.get("nim_never_ready"):
        loading = lambda: bool(faults().get("nim_never_ready"))  # noqa: E731
    if address is None or not loading():
        while loading():
            time.sleep(0.1)
        return
    with HTTPServer(address, _NotReady) as server:
        server.timeout = 0.05
        while loading():
            server.handle_request()


class _NotReady(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", str(len(LOADING)))
        self.end_headers()
        self.wfile.write(LOADING)

    def log_message(self, *_: object) -> None:
        pass
