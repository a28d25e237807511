"""The commands of docs/access.md, typed as they stand at a gateway of their own."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from .command import COMMAND, PATIENCE_S, Shell, wait_for

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "access.md").read_text("utf-8")
SETTINGS = {"ASR_ENGINE": "mock", "PORT": "0", "GRPC_PORT": "0"}


def test_the_commands_do_what_the_page_says(tmp_path: Path) -> None:
    create, ask, recording, command, keys, shop, issuer = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    # The gateway's command is found by its name, as where it is installed.
    shell = Shell(tmp_path, SETTINGS | {"PATH": f"{COMMAND.parent}:{Shell(tmp_path).env['PATH']}"})
    port = "8443"

    def types(text: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", text.replace("localhost:8443", f"localhost:{port}")],
            cwd=tmp_path,
            env=shell.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    make, serve = create.strip().splitlines()
    types(make)
    setting, _, words = serve.partition(" riva-gateway ")
    at = Shell(tmp_path, shell.more | {setting.partition("=")[0]: "127.0.0.1"})
    with at.start(*words.split()) as gateway:
        port = wait_for(gateway, r"page, HTTP and WebSocket: https://localhost:(\d+)")[1]
        assert json.loads(types(ask))["data"]
        assert "unauthorized" in types(ask.partition(" -H ")[0])
        assert json.loads(types(recording))["text"]
        assert types(command).strip()
        listed, revoked = types(keys).strip().splitlines()[-2:]
        assert "dashboard" in listed
        assert revoked.startswith("revoked ")
        token = json.loads(types(shop).strip())
        assert (token["token"][:4], token["single_use"]) == ("rgt_", True)
        gateway.terminate()
        assert gateway.wait(PATIENCE_S) == 0
    types(f"{issuer}\nriva-gateway key list")
