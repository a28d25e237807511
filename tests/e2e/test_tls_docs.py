"""The commands of docs/tls.md and docs/runbooks/certificates.md, typed as they stand; and the gateway's own."""

from __future__ import annotations

import re
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from authority import Authority
from e2e.command import COMMAND, PATIENCE_S, Shell, wait_for

DOCS = Path(__file__).resolve().parents[2] / "docs"
PORTS = {"PORT": "0", "GRPC_PORT": "0"}


def blocks(page: str) -> list[str]:
    """The commands on that page, block by block."""
    found = re.findall(r"^( *)```bash\n(.*?)^\1```$", (DOCS / page).read_text("utf-8"), re.M | re.S)
    return [textwrap.dedent(text) for _, text in found]


class Typist:
    """Somebody at a shell, who knows the ports and sees one command after the other."""

    def __init__(self, home: Path, **more: str) -> None:
        # The gateway's command is found by its name, as where it is installed.
        self.shell = Shell(home, {"PATH": f"{COMMAND.parent}:{Shell(home).env['PATH']}", **more})
        self.before = ""
        self.ports: dict[str, str] = {}

    def types(self, text: str) -> str:
        for default, port in self.ports.items():
            text = text.replace(f"localhost:{default}", f"localhost:{port}")
        text = text.replace("/etc/riva-gateway/", f"{self.shell.home}/")
        done = subprocess.run(
            ["bash", "-euc", self.before + text],
            cwd=self.shell.home,
            env=self.shell.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def listens(self, gateway: subprocess.Popen[str]) -> None:
        https = wait_for(gateway, r"page, HTTP and WebSocket: https://localhost:(\d+)")[1]
        self.ports = {"8443": https, "50052": wait_for(gateway, r"Riva gRPC: grpcs://localhost:(\d+)")[1]}


def stop(gateway: subprocess.Popen[str]) -> None:
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(PATIENCE_S) == 0


def serials(text: str) -> list[str]:
    return re.findall(r"^serial=0?(\w+)$", text, re.M)  # OpenSSL prints whole bytes


def test_an_authority_for_tests_and_a_gateway_that_asks_for_certificates(tmp_path: Path) -> None:
    typist = Typist(tmp_path)
    make, serve, ask = blocks("tls.md")[-3:]
    assert typist.types(make).count(": OK") == 2
    assert "BEGIN PRIVATE KEY" in (tmp_path / "client.key").read_text()
    settings = dict(word.split("=") for word in serve.split() if "=" in word)
    command = serve.replace("&", "").split("riva-gateway ")[1].split()
    with Shell(tmp_path, {**settings, **PORTS}).start(*command) as gateway:
        typist.listens(gateway)
        told = typist.types(ask)
        assert "refused without a certificate" in told
        assert "Verify return code: 0 (ok)" in told
        assert re.search(r"ready", told)
        stop(gateway)


def test_the_runbook_from_a_certificate_that_ends_to_the_way_back(tmp_path: Path) -> None:
    authority, clients = Authority(), Authority("clients")
    first, second = authority.issue(days=(-1, 3)), authority.issue()
    first.write(tmp_path / "tls.crt", tmp_path / "tls.key")
    second.write(tmp_path / "new.crt", tmp_path / "new.key")
    clients.issue("client").write(tmp_path / "client.crt", tmp_path / "client.key")
    for name, pem in {
        "ca.crt": authority.pem,
        "clients-ca.crt": clients.pem,
        "old-ca.crt": authority.pem,
        "new-ca.crt": clients.pem,
    }.items():
        (tmp_path / name).write_bytes(pem)
    setup, look, metrics, renew, renewed, overlap, compare, back, refused, names, riva = blocks(
        "runbooks/certificates.md"
    )
    files = {"TLS_CERT": str(tmp_path / "tls.crt"), "TLS_KEY": str(tmp_path / "tls.key")}
    with Shell(tmp_path, {**files, **PORTS}).start("serve", "--engine", "mock") as gateway:
        typist = Typist(tmp_path)
        typist.listens(gateway)
        typist.types(setup)
        typist.before = setup.replace("/etc/riva-gateway/", f"{tmp_path}/")
        assert serials(typist.types(look)) == [first.serial] * 3
        found = re.search(r'certificate_expiry_timestamp_seconds\{use="listener"\} ([\d.e+]+)', typist.types(metrics))
        assert found is not None
        assert 2 < (float(found[1]) - time.time()) / 86_400 < 3
        typist.types(renew)
        assert serials(typist.types(renewed)) == [second.serial]
        assert typist.types(overlap).count("subject=") == 2
        sums = [line.split()[0] for line in typist.types(compare).splitlines()[:2]]
        assert sums[0] == sums[1]
        assert serials(typist.types(back)) == [first.serial]
        assert "verify return code: 0 (ok)" in typist.types(refused).lower()
        told = typist.types(names)
        assert "DNS:localhost" in told
        assert "client.crt: OK" in told
        shown = {
            "RIVA": f"localhost:{typist.ports['50052']}",
            "RIVA_SSL_ROOT_CERT": str(tmp_path / "ca.crt"),
            "RIVA_SSL_CLIENT_CERT": str(tmp_path / "client.crt"),
            "RIVA_SSL_CLIENT_KEY": str(tmp_path / "client.key"),
        }
        told = Typist(tmp_path, **shown).types(riva)
        assert "Verification: OK" in told
        assert "alert" not in told
        stop(gateway)
        assert gateway.stderr is not None
        log = gateway.stderr.read()
    assert log.count("certificate loaded") == 2
    assert re.search(r"certificate expires soon .*days_left=2 .*use=listener", log)
    assert "PRIVATE KEY" not in log


def test_every_anchor_that_an_alert_names_is_there() -> None:
    page = (DOCS / "runbooks/certificates.md").read_text("utf-8")
    anchors = {line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("## ")}
    assert {"certificate-expires-soon", "certificate-was-not-loaded"} <= anchors


def test_the_commands_trust_this_machines_gateway_over_grpc_too(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with Shell(tmp_path, {"GRPC_TLS": "on"}).start(
        "serve", "--engine", "mock", "--port", "0", "--grpc-port", "0"
    ) as gateway:
        server = wait_for(gateway, r"Riva gRPC: (grpcs://localhost:\d+)")[1]
        assert shell.run("health", "--server", server).returncode == 0
        stranger = Shell(tmp_path, {"STATE_DIR": str(tmp_path / "elsewhere")})
        assert stranger.run("health", "--server", server).returncode != 0
        stop(gateway)


@pytest.mark.parametrize("setting", ["RIVA_SSL_ROOT_CERT", "TLS_CLIENT_CA"])
def test_a_damaged_file_ends_the_start_with_one_line(tmp_path: Path, setting: str) -> None:
    (tmp_path / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nno\n")
    given = {setting: str(tmp_path / "bad.pem"), "RIVA_ENDPOINTS": "localhost:1", **PORTS}
    done = Shell(tmp_path, given).run("serve")
    said = done.stderr.decode().strip().splitlines()
    assert done.returncode == 2
    assert len(said) == 1
    assert f"{setting} {tmp_path}/bad.pem is not a PEM certificate" in said[0]
