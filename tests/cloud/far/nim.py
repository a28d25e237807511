"""What runs in a container: a NIM, or classic Riva. After its time of loading it is `riva-gateway mock-riva`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from far.common import fail, faults, say

LIST = "nim_list_model_profiles"
EARLY = ":1.2.0"  # a release that lists its profiles in another way
# What the images of these recognizers have profiles for, as they would list it.
TAGS = (
    "mode:str|name:parakeet-rnnt-1.1b|type:default|vad:silero",
    "mode:str|name:parakeet-1-1b-ctc-en-us|vad:default",
    "mode:ofl|name:parakeet-tdt-0.6b-v2",
    "bs:64|mode:str|name:nemotron-asr-streaming|type:en-US",
    "mode:ofl|name:canary-1b",
)
BUILDING = {"download_ngc_models": "rmir", "deploy_all_models": "models"}  # of classic Riva: what makes which folder
LOADING = b'{"object":"health.response","message":"Service is not ready","status":"not ready"}'


def main() -> None:
    """argv[1]: command, flags and environment of the container, as JSON."""
    told = json.loads(sys.argv[1])
    command, env, now = told["command"], told["env"], faults()
    ports, volumes = _ports(told["flags"]), [Path(each.split(":")[0]) for each in told["flags"].get("volumes", [])]
    if command and command[0] in BUILDING:
        return _build(command, env, volumes[0])
    if command == [LIST]:
        return _list(prebuilt=not now.get("nim_rmir"), early=told["image"].endswith(EARLY))
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
    if env.get("NIM_EXPORT_PATH"):
        export = _outside(told["flags"], env["NIM_EXPORT_PATH"])
        if env.get("NIM_DISABLE_MODEL_DOWNLOAD") != "true":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            _load(now, None)
            return _export(export, empty=now.get("nim_rmir") == "empty")
        if not list(export.glob("*.tar.gz")):
            fail(f"ERROR: no model in {env['NIM_EXPORT_PATH']}")
    _load(now, ports.get("9000"))
    if now.get("nim_dies_after_s"):
        threading.Timer(now["nim_dies_after_s"], lambda: os._exit(139)).start()
    host, grpc = ports.get("50051", ("127.0.0.1", 0))
    _, http = ports.get("9000", ("", 0))
    from server.__main__ import main as gateway

    sys.argv = ["riva-gateway", "mock-riva", "--host", host, "--grpc-port", str(grpc), "--http-port", str(http)]
    gateway()
    return None


def _list(prebuilt: bool, early: bool) -> None:
    """What fits this machine's GPU: everywhere what is to be built, and what is built, where NVIDIA has built it."""
    say("SYSTEM INFO\n- Free GPUs:\n  -  [27b8:10de] (0) NVIDIA L4 [current utilization: 0%]\nMODEL PROFILES")

    def row(tags: str) -> None:
        pairs = dict(each.split(":", 1) for each in tags.split("|"))
        say(f"    - {hashlib.sha256(tags.encode()).hexdigest()} - {pairs if early else tags}")

    say("- Compatible with system:")
    for tags in TAGS:
        row(f"{tags}|model_type:rmir")
        if prebuilt:
            row(f"gpu_device:27b8|{tags}|model_type:prebuilt")
    say("- Incompatible with system:")
    for tags in TAGS:
        row(f"gpu_device:20b2|{tags}|model_type:prebuilt")


def _export(folder: Path, empty: bool) -> None:
    """Writes down what was built and ends. Such an image ends well even where nothing was, and when it is stopped."""
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        for name in () if empty else ("encoder/config.pbtxt", "encoder/1/model.plan"):
            part = tarfile.TarInfo(name)
            part.size = 4
            archive.addfile(part, io.BytesIO(b"made"))
    say("exported the model")


def _outside(flags: dict[str, Any], place: str) -> Path:
    """The folder that is mounted there."""
    return Path(next(each.split(":")[0] for each in flags.get("volumes", []) if each.split(":")[1] == place))


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
