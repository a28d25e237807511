"""The scans of `make check`: each is quiet about this project, and each catches what is planted for it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from timing import in_time

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "dev"

# In pieces, so that this file is none of the finds.
PLANTED = {
    "AWS Access Key": 'key = "AKIA' + 'QYLPMN5HHHFPZAM2"',
    "Private Key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "Base64 High Entropy String": 'blob = "c3VwZXIgbG9uZyBzdHJp' + 'bmcgc2hvdWxkIGNhdXNlIGVub3VnaCBlbnRyb3B5"',
    "Hex High Entropy String": 'digest = "2b00042f7481c7b0' + '56c4b410d28f33cf"',
    "JSON Web Token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    + "eyJzdWIiOiIxMjM0NTY3"
    + "ODkwIn0.Gfx6VO9tcxwk6xqx9yYzSfebfeakZp5J",
    "Basic Auth Credentials": "postgresql://speech:" + "h4rdt0gu3ss@db.example/jobs",
    "Secret Keyword": 'webhook_secret = "' + 'xkcd-Tr0ub4dor"',
    "GitHub Token": "ghp_" + "wWPw5k4aXcaT4fNP0U" + "cnZwJUVFk6LO0pINUx",
}


def run(*command: str | Path, cwd: Path = ROOT) -> tuple[int, str]:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


# --- secrets


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A small project with a secret of each kind, and a baseline that knows none."""
    baseline = tmp_path / "scripts" / "dev" / "secrets-baseline.json"
    baseline.parent.mkdir(parents=True)
    baseline.write_text("[]")
    for number, line in enumerate(PLANTED.values()):
        (tmp_path / f"planted_{number}.py").write_text(f"# one\n# two\n{line}\n")
    (tmp_path / "waived.py").write_text(f"{PLANTED['AWS Access Key']}  # pragma: allowlist secret\n")
    (tmp_path / ".env").write_text(f"{PLANTED['Secret Keyword']}\n")  # is nobody's but its owner's
    return tmp_path


def test_planted_secrets_are_found_by_file_and_line_and_not_repeated(planted: Path) -> None:
    status, told = run(sys.executable, SCRIPTS / "scan_secrets.py", planted)
    assert status == 1
    for number, (kind, line) in enumerate(PLANTED.items()):
        assert f"planted_{number}.py:3: looks like a secret ({kind}; " in told
        assert line not in told
    assert "waived.py:1: looks like a secret (AWS Access Key" in told
    assert ".env" not in told


def test_an_accepted_finding_has_a_reason_and_ends_with_its_cause(planted: Path) -> None:
    scan = (sys.executable, SCRIPTS / "scan_secrets.py", planted)
    for path in planted.glob("planted_[!01].py"):
        path.unlink()
    for path in sorted(planted.glob("*.py")):
        assert run(*scan, "--accept", path.name, "planted by a test") == (0, "")
    assert run(*scan) == (0, "")
    baseline = planted / "scripts" / "dev" / "secrets-baseline.json"
    entries = json.loads(baseline.read_text())
    entries[0]["reason"] = ""
    baseline.write_text(json.dumps(entries))
    (planted / "waived.py").unlink()
    status, told = run(*scan)
    assert status == 1
    assert "no reason is given" in told
    assert "waived.py: the AWS Access Key is gone; remove the entry" in told


def test_the_baseline_of_this_project_names_files_that_exist_and_reasons() -> None:
    for entry in json.loads((SCRIPTS / "secrets-baseline.json").read_text()):
        assert (ROOT / entry["path"]).is_file(), entry
        assert len(entry["reason"]) > 10, entry


# --- code


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("import subprocess\nsubprocess.run(input(), shell=True)", "B602"),
        ("eval(input())", "B307"),
        ("import yaml\nyaml.load(input())", "B506"),
        ("import requests\nrequests.get('https://example', verify=False, timeout=1)", "B501"),
        ("import hashlib\nhashlib.md5(b'')", "B324"),
        ("import pickle\npickle.loads(b'')", "B301"),
    ],
)
def test_dangerous_code_is_found(tmp_path: Path, line: str, code: str) -> None:
    (tmp_path / "planted.py").write_text(f"{line}\n")
    bandit = Path(sys.executable).with_name("bandit")
    status, told = run(bandit, "--quiet", "-c", ROOT / "pyproject.toml", "--severity-level", "medium", "-r", tmp_path)
    assert (status, code in told) == (1, True), told


# --- dependencies


@contextmanager
def advisories(vulnerable: dict[str, str], *, knows_the_known: bool = True) -> Iterator[str]:
    """A service that speaks OSV's query and knows these pins to be bad."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = asked["package"]["name"]
            bad = {**vulnerable, **({"jinja2": "2.4.1"} if knows_the_known else {})}
            answer: dict[str, Any] = {}
            if bad.get(name) == asked["version"]:
                answer = {"vulns": [{"id": f"PYSEC-{name}", "summary": "planted", "affected": [_affected(name)]}]}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def _affected(name: str) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "9.9"}]
    return {"package": {"name": name, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "pins.txt"
    path.write_text("".join(f"{name}==1.0 \\\n    --hash=sha256:{'0' * 64}\n" for name in ("good", "bad")))
    return path


def audit(url: str, pins: Path) -> tuple[int, str]:
    return run(sys.executable, SCRIPTS / "audit.py", "--osv-url", url, "--pins", pins)


def test_a_vulnerable_pin_is_named(pins: Path) -> None:
    with advisories({"bad": "1.0"}) as url:
        assert audit(url, pins) == (1, "bad 1.0: PYSEC-bad; mended in 9.9\n")
    with advisories({"bad": "0.9"}) as url:
        assert audit(url, pins) == (0, "")


def test_a_pin_without_a_hash_is_no_good_news(pins: Path) -> None:
    pins.write_text("good==1.0\n")
    with advisories({}) as url:
        status, told = audit(url, pins)
    assert status == 1
    assert "hash" in told


def test_silence_is_no_good_news(pins: Path) -> None:
    with socket.socket() as closed, socket.socket() as silent:
        for one in (closed, silent):
            one.bind(("127.0.0.1", 0))
        silent.listen()
        for one in (closed, silent):
            begun = time.monotonic()
            status, told = audit(f"http://127.0.0.1:{one.getsockname()[1]}", pins)
            assert (status, told) == (3, "dependency audit: NOT CHECKED (no advisory service reachable)\n")
            in_time(time.monotonic() - begun, 15)


def test_somebody_who_knows_of_no_vulnerability_at_all_is_not_asked(pins: Path) -> None:
    with advisories({}, knows_the_known=False) as url:
        assert audit(url, pins)[0] == 3


def test_every_scan_is_a_part_of_make_check() -> None:
    steps = (SCRIPTS / "check.sh").read_text()
    for scan in ("own_rules.py", "scan_secrets.py", "audit.py", "bandit"):
        assert f".venv/bin/python scripts/dev/{scan}" in steps or f".venv/bin/{scan}" in steps
