"""A rendered pod, really started: its environment, its probes, and the way that Kubernetes ends it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from authority import Authority
from keyring import Keyring, bearer

from .chart import pod

SHORT = {"ASR_ENGINE": "mock", "DRAIN_DELAY_MS": 1500, "DRAIN_TIMEOUT_MS": 1000, "LOG_FORMAT": "json"}
NO_CAPABILITIES = "0" * 16


@dataclass(frozen=True)
class Pod:
    """One that lives beside this process, in a network of its own; `told` waits for its end."""

    grace_s: int
    process: subprocess.Popen[str]

    def told(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err[-3000:]
        told: dict[str, Any] = json.loads(out)
        return told


def begin(work: Path, values: dict[str, Any], secrets: dict[str, dict[str, str]], **more: Any) -> Pod:
    """A pod of that Deployment; `pod.py` says what happens in it."""
    spec = pod({**values, "settings": SHORT, "drain": {"preStopSeconds": 1}})
    (work / "job.json").write_text(
        json.dumps({"pod": spec, "secrets": secrets, "headers": {}, "client": False, "keys": [""], **more})
    )
    own = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child")
    words = [*own, sys.executable, str(Path(__file__).with_name("pod.py")), str(work)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return Pod(spec["terminationGracePeriodSeconds"], process)


def with_keys(work: Path) -> Pod:
    """The usual one: API keys, of which one is taken back and one added while it runs, and secrets of two Secrets."""
    keyring = Keyring(work)
    headers = bearer(keyring.key("caller"))
    former = keyring.key("leaver")
    before = keyring.path.read_text()
    keyring.take_back("leaver")
    keys = [former, keyring.key("newcomer")]
    values = {
        "apiKeys": {"secret": "keys"},
        "secrets": {"name": "gateway", "keys": {"RIVA_API_KEY": {"secret": "riva", "key": "password"}}},
    }
    secrets = {
        "keys": {"keys.json": before},
        "gateway": {"TOKEN_SECRET": "one-for-all-gateways-" * 2},
        "riva": {"password": "of-another-key"},
    }
    renewed = {"keys": {"keys.json": keyring.path.read_text()}}
    return begin(work, values, secrets, headers=headers, keys=keys, renewed=renewed)


def with_certificates(work: Path) -> Pod:
    """One that nobody reaches without a certificate; its own is renewed while it runs."""
    authority = Authority()
    server, client, probe, later = (authority.issue(name) for name in ("gateway", "caller", "probe", "gateway"))
    client.write(work / "client.crt", work / "client.key")
    tls = {
        "mode": "secret",
        "secret": "own",
        "clientCA": {"secret": "clients"},
        "probeCertificate": {"secret": "probe"},
    }
    secrets = {
        "own": {"tls.crt": server.cert.decode(), "tls.key": server.key.decode()},
        "probe": {"tls.crt": probe.cert.decode(), "tls.key": probe.key.decode()},
        "clients": {"ca.crt": authority.pem.decode()},
    }
    renewed = {"own": {"tls.crt": later.cert.decode(), "tls.key": later.key.decode()}}
    return begin(work, {"tls": tls}, secrets, client=True, renewed=renewed)


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pod]]:
    """Both at once: most of their time is waiting."""
    begun = {make.__name__: make(tmp_path_factory.mktemp("pod")) for make in (with_keys, with_certificates)}
    yield begun
    for each in begun.values():
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def ended_well(told: dict[str, Any], grace_s: int) -> None:
    """No word is lost: served in preStop, served but not ready in the drain, then finished and gone in time."""
    assert told["started"], told["log"]
    assert (told["live"], told["ready"], told["served"]) == (True, True, True), told["log"]
    assert told["served_meanwhile"]
    assert (told["ready_in_pre_stop"], told["served_in_pre_stop"], told["pre_stop"]) == (True, [True, True], 0)
    assert (told["ready_in_drain"], told["live_in_drain"], told["served_in_drain"]) == (False, True, [True, True])
    assert (told["finished"], told["closed"], told["exit"]) == ([True, True], [1001, 1001], 0)
    assert told["seconds"] < grace_s


def test_a_pod_lives_and_ends_as_the_chart_says(pods: dict[str, Pod]) -> None:
    one = pods["with_keys"]
    told = one.told()
    ended_well(told, one.grace_s)
    assert told["status"]["Uid"] == "10001 10001 10001 10001"
    assert told["status"]["Gid"] == "10001 10001 10001 10001"
    assert told["status"]["CapEff"] == told["status"]["CapBnd"] == NO_CAPABILITIES
    assert told["status"]["NoNewPrivs"] == "1"
    assert told["root_is_read_only"]
    before, after = told["renewed"]  # the Secret of the API keys
    assert [[status for status, _ in view] for view in (before, after)] == [[200, 401], [401, 200]]
    assert '"level": "info"' in told["log"]
    assert not re.search('"level": "(warning|error|critical)"', told["log"]), told["log"]


def test_probes_show_a_certificate_where_everybody_has_to(pods: dict[str, Pod]) -> None:
    one = pods["with_certificates"]
    told = one.told()
    ended_well(told, one.grace_s)
    before, after = told["renewed"]  # the Secret of its own certificate
    assert [status for status, _ in (*before, *after)] == [200, 200]
    assert before != after
