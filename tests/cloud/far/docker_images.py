"""The docker stand-in's images, which are names, and its registry, which wants a login and has troubles on request."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from far.common import faults
from far.docker_call import Call, Refused, formatted, parse, show

KEPT = Path("/var/lib/docker/stand-in.json")
UNKNOWN_TAGS = ("latest", "9.9.9", "0.0.0", "no-such")
QUIET = {"--quiet": "quiet", "-q": "quiet"}
FORMAT = {"--format": "format", "-f": "format"}


def images() -> list[str]:
    """Those that are here."""
    return list(json.loads(KEPT.read_text())) if KEPT.exists() else []


def keep(names: list[str]) -> None:
    KEPT.write_text(json.dumps(sorted(set(names))))


def full(name: str) -> str:
    """With its tag."""
    return name if ":" in name.rsplit("/", 1)[-1] or "@" in name else name + ":latest"


def pull(call: Call, words: list[str]) -> None:
    _, (name,) = parse(words, {}, QUIET)
    fetch(call, full(name))
    call.say(full(name))


def fetch(call: Call, name: str) -> None:
    """Pulls it, or refuses as docker does."""
    host, now = name.split("/")[0], faults()
    error = "Error response from daemon: "
    if host == "nvcr.io" and not _logged_in(call, host):
        raise Refused(f"{error}unauthorized: <html><head><title>401 Authorization Required</title></head>: {name}")
    if now.get("pull_fails") and str(now["pull_fails"]) in name:
        raise Refused(f'{error}Get "https://{host}/v2/": net/http: TLS handshake timeout')
    if now.get("disk_full"):
        raise Refused("failed to register layer: write /opt/nim/model.bin: no space left on device")
    if name.rsplit(":", 1)[-1].startswith(UNKNOWN_TAGS):
        raise Refused(f"{error}manifest for {name} not found: manifest unknown: manifest unknown")
    keep([*images(), name])


def login(call: Call, words: list[str]) -> None:
    host = words.pop(0) if words and not words[0].startswith("-") else ""
    flags, rest = parse(words, {"--username": "user", "-u": "user"}, {"--password-stdin": "stdin"})
    host = host or (rest or [""])[0]
    if not flags.get("stdin"):
        raise Refused("the stand-in takes a password by --password-stdin alone")
    key = call.typed.read().strip()
    if flags.get("user") != "$oauthtoken" or not _is_good(key) or faults().get("login_fails"):
        text = "unauthorized: authentication required"
        raise Refused(f'Error response from daemon: Get "https://{host}/v2/": {text}')
    place = _config(call)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    auth = base64.b64encode(f"$oauthtoken:{key}".encode()).decode()
    place.touch(0o600)
    place.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    call.say("Login Succeeded")


def _is_good(key: str) -> bool:
    return key.startswith("nvapi-") and "wrong" not in key


def _config(call: Call) -> Path:
    home = call.variables["HOME"] or "/"
    return Path(call.variables["DOCKER_CONFIG"] or os.path.join(home, ".docker"), "config.json")  # noqa: PTH118


def _logged_in(call: Call, host: str) -> bool:
    try:
        auth = json.loads(_config(call).read_text())["auths"][host]["auth"]
    except (OSError, KeyError):
        return False
    return _is_good(base64.b64decode(auth).decode().removeprefix("$oauthtoken:"))


def inspect_images(call: Call, words: list[str]) -> None:
    flags, names = parse(words, FORMAT, {})
    for name in names:
        if full(name) not in images():
            call.say("[]")
            raise Refused(f"Error response from daemon: No such image: {full(name)}")
    records = [{"Id": "sha256:1a2b", "RepoTags": [full(name)], "Size": 7_000_000_000} for name in names]
    show(call, flags.get("format"), records)


def list_images(call: Call, words: list[str]) -> None:
    flags, _ = parse(words, FORMAT, QUIET)
    for name in images():
        repository, tag = name.rsplit(":", 1)
        form = flags.get("format", "{{.Repository}} {{.Tag}}")
        call.say(formatted(form, {"Repository": repository, "Tag": tag, "ID": "1a2b", "Size": "7GB"}))


def remove_images(call: Call, words: list[str], used: set[str]) -> None:
    _, names = parse(words, {}, {"--force": "force", "-f": "force"})
    for name in map(full, names):
        if name in used:
            raise Refused(f'Error response from daemon: conflict: unable to remove repository reference "{name}"')
        if name not in images():
            raise Refused(f"Error response from daemon: No such image: {name}")
        keep([each for each in images() if each != name])
        call.say(f"Untagged: {name}")
