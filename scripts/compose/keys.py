"""What the services of compose.yaml need from each other, where it is missing. The service `keys` runs it and ends.

Each service sees a folder (a volume) of its own, readable by its user alone:

    state       the gateway's STATE_DIR: the keys' hashes, and its self-made certificate
    gateway     its ASR_SECRETS_DIR: a key for `docker compose exec gateway riva-gateway …`, one for the first
                application, and a copy of what people put into the folder `given`
    prometheus  a key with the scope `metrics`, and the certificate to trust
    grafana     the password of its administrator, and the key that its database is encrypted with

A key that was revoked, or whose hash is gone, is made anew. Nothing secret is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from server.certificates import parse_names
from server.settings import ServerSettings

KEYS = {
    "gateway/ASR_API_KEY": ("ops", "admin", "metrics", "jobs", "transcribe"),
    "gateway/first-app-key": ("first-app", "transcribe", "jobs"),
    "prometheus/metrics-key": ("prometheus", "metrics"),
}
"""Where each API key lies; its name, and its scopes."""
OURS = {"ASR_API_KEY", "first-app-key"}
PASSWORDS = ("grafana/admin-password", "grafana/secret-key")
_CERTIFICATE = (
    "import sys; from pathlib import Path; from server.certificates import localhost_certificate as made;"
    "made(Path(sys.argv[1]), sys.argv[2:])"
)
PATIENCE_S = 60


class Problem(Exception):
    """A line for the person who reads `docker compose logs keys`."""


class Folders:
    """The volumes, and whose they are.

    Args:
        root: holds `state`, `gateway`, `prometheus`, `grafana` and `given`.
        users: the user id of each service.
    """

    def __init__(self, root: Path, users: dict[str, int]) -> None:
        self._root = root
        self._users = {**users, "state": users["gateway"]}

    def prepare(self) -> None:
        """Each folder is its service's own."""
        for name, user in self._users.items():
            (self._root / name).mkdir(exist_ok=True)
            self._hand_over(self._root / name, user, 0o700)

    def path(self, name: str) -> Path:
        """Of a folder, or of a file in one."""
        return self._root / name

    def keep(self, name: str, content: bytes) -> None:
        """Write `folder/file` whole, for the user of that folder alone."""
        path = self._root / name
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        beside.touch(0o600, exist_ok=False)
        beside.write_bytes(content)
        self._hand_over(beside, self._users[name.partition("/")[0]], 0o400)
        beside.rename(path)

    def as_gateway(self, *command: str) -> str:
        """What a command says that runs as the gateway's user, with its STATE_DIR. Problem: it failed."""
        user = self._users["gateway"]
        them = {"user": user, "group": user, "extra_groups": []} if os.geteuid() == 0 and user else {}
        done = subprocess.run(
            command,
            cwd=self._root / "state",
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "STATE_DIR": str(self._root / "state")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            **them,  # type: ignore[call-overload]
        )
        if done.returncode:
            raise Problem(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
        return str(done.stdout)

    def _hand_over(self, path: Path, user: int, mode: int) -> None:
        if path.stat().st_uid != user:
            os.chown(path, user, user)
        path.chmod(mode)


def make_keys(folders: Folders, say: Callable[[str], None]) -> None:
    """The API keys that services show to the gateway."""
    listed = json.loads(folders.as_gateway("riva-gateway", "key", "list", "--json"))
    known = {key["id"] for key in listed if key["state"] == "good"}
    for file, (name, *scopes) in KEYS.items():
        path = folders.path(file)
        if path.exists() and _id_of(path.read_text("utf-8")) in known:
            continue
        flags = [word for scope in scopes for word in ("--scope", scope)]
        folders.keep(file, folders.as_gateway("riva-gateway", "key", "create", name, *flags).encode())
        say(f"made the key {name}")


def _id_of(key: str) -> str:
    return key.strip().split("_")[1] if key.count("_") >= 2 else ""


def make_passwords(folders: Folders, say: Callable[[str], None]) -> None:
    """What only one service knows."""
    for file in PASSWORDS:
        if not folders.path(file).exists():
            folders.keep(file, secrets.token_urlsafe(24).encode())
            say(f"made {file}")


def make_certificate(folders: Folders, names: tuple[str, ...]) -> None:
    """The gateway's own certificate, as it would make it itself, and Prometheus' copy."""
    state = folders.path("state")
    folders.as_gateway(sys.executable, "-c", _CERTIFICATE, str(state), *names)
    folders.keep("prometheus/gateway-ca.pem", (state / "tls" / "localhost.crt").read_bytes())


def hand_on(folders: Folders, say: Callable[[str], None]) -> None:
    """Copy what people have put into `given`, and take away what they have taken away. Problem: not a secret's name."""
    given = folders.path("given")
    files = [path for path in given.iterdir() if "." not in path.name] if given.is_dir() else []
    wanted = set(ServerSettings.secret_keys()) - OURS
    for path in files:
        if path.name not in wanted:
            raise Problem(f"{path.name} is no secret setting. A file there is named as one of: {', '.join(wanted)}")
        folders.keep(f"gateway/{path.name}", path.read_bytes())
        say(f"handed on {path.name}")
    kept = OURS | {path.name for path in files}
    for path in folders.path("gateway").iterdir():
        if path.name not in kept:
            path.unlink()


def main() -> int:
    """Status 0: everything is there."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("root", type=Path)
    for service, user in (("gateway", 10001), ("prometheus", 65534), ("grafana", 472)):
        parser.add_argument(f"--{service}-user", type=int, default=user, metavar="UID")
    flags = parser.parse_args()
    users = {name: getattr(flags, f"{name}_user") for name in ("gateway", "prometheus", "grafana")}
    folders = Folders(flags.root, users)
    try:
        folders.prepare()
        make_keys(folders, print)
        make_passwords(folders, print)
        make_certificate(folders, parse_names(os.environ.get("TLS_NAMES", "")))
        hand_on(folders, print)
    except (Problem, ValueError, OSError, subprocess.TimeoutExpired) as problem:
        print(f"keys: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
