"""riva-070-deploy-gateway.sh and riva-080-smoke-test.sh: this tree's gateway on the machine, its key, its certificate,
and what a client gets.
"""

from __future__ import annotations

import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from cloud.client import TREE, Cloud, Far, Ran
from deploy.far_steps import BUCKET, WORDS, await_online, heard, machine, tags, value
from server.certificates import make_certificate

KEY_SECRET = "riva-riva/gateway-key"
CERTIFICATE = "/riva/riva/gateway-certificate"
# A live stream that goes on until the gateway ends it, and then tries for another. The key comes in through stdin.
STREAM = """
import asyncio, json, ssl, sys
from pathlib import Path
from websockets.asyncio.client import connect

def open_stream():
    trusted = ssl.create_default_context(cafile="/var/lib/riva-gateway/tls/localhost.crt")
    return connect("wss://localhost:8443/v1/stream", ssl=trusted, proxy=None, additional_headers=headers)

headers = {"Authorization": "Bearer " + sys.stdin.read()}

async def main():
    async with open_stream() as stream:
        await stream.send('{"type": "start"}')
        await stream.send((b"\\x00\\x20\\x00\\xe0" * 8000)[:32_000])
        async for text in stream:
            message = json.loads(text)
            if message["type"] == "partial":
                Path("/run/heard").touch()
            elif message["type"] == "status" and message["state"] == "draining":
                try:
                    await open_stream()
                except Exception as error:
                    print("refused", type(error).__name__)
            elif message["type"] == "final":
                print("final", message["text"])
    print("closed", stream.close_code)

asyncio.run(asyncio.wait_for(main(), 40))
"""
OWN_KEY = re.compile(r"rgw_[0-9a-f]{12}_[0-9a-f]{48}")


@pytest.fixture(scope="module")
def far(cloud: Cloud) -> Far:
    """A machine whose recognizer is ready."""
    there = machine(cloud)
    for script in ("riva-050-deploy-nim.sh", "riva-060-readiness.sh"):
        ran = cloud.run(script)
        assert ran.status == 0, ran.err
    return there


def _deploy(cloud: Cloud, *words: str, status: int = 0) -> Ran:
    ran = cloud.run("riva-070-deploy-gateway.sh", *words, env={"DEPLOY_GATEWAY_READY_S": "20"})
    assert ran.status == status, ran.err
    return ran


def _smoke(cloud: Cloud, *words: str, status: int = 0) -> Ran:
    ran = cloud.run("riva-080-smoke-test.sh", *words, env={"DEPLOY_GATEWAY_READY_S": "20"})
    assert ran.status == status, ran.err
    return ran


def _process(far: Far) -> str:
    return far.run("systemctl show -p MainPID --value riva-gateway").out


def _published(cloud: Cloud) -> x509.Certificate:
    text = cloud.client("ssm").get_parameter(Name=CERTIFICATE)["Parameter"]["Value"]
    return x509.load_pem_x509_certificate(text.encode())


def _names(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def _addresses(cloud: Cloud, far: Far) -> tuple[str, str]:
    found = cloud.client("ec2").describe_instances(InstanceIds=[far.id])["Reservations"][0]["Instances"][0]
    return found["PublicIpAddress"], found["PrivateIpAddress"]


def test_the_gateway_takes_streams_at_the_machine_s_address(cloud: Cloud, far: Far) -> None:
    public, private = _addresses(cloud, far)
    assert _deploy(cloud, "--name", "asr.example.com").out == f"{public}\n"
    assert _names(_published(cloud)) >= {public, private, "asr.example.com", "localhost"}
    release = tags(cloud, far)["riva:gateway-release"]
    assert (
        far.run("readlink /opt/riva-gateway/current /opt/riva-gateway/good").out.split()
        == [f"/opt/riva-gateway/releases/{release}"] * 2
    )
    assert far.run("stat -c '%a %U:%G' /etc/riva-gateway/gateway.env").out == "640 root:riva-gateway\n"
    assert far.run("systemctl is-active riva-gateway; systemctl is-enabled riva-gateway").out == "active\nenabled\n"
    assert far.run("systemd-analyze verify riva-gateway.service").err == ""


def test_its_key_is_in_the_secret_and_nowhere_else(cloud: Cloud, far: Far) -> None:
    key = value(cloud, KEY_SECRET)
    assert OWN_KEY.fullmatch(key)
    assert cloud.where_is(key) == []
    assert far.run("ls /run/riva").out == "ngc.env\nnim.running\n"
    described = cloud.client("secretsmanager").describe_secret(SecretId=KEY_SECRET)
    assert {"Key": "riva:deployment", "Value": "riva"} in described["Tags"]


def test_the_machine_s_credentials_are_not_within_the_gateway_s_reach(far: Far) -> None:
    """They read NVIDIA's key."""
    ask = "curl -s -m 5 -o /dev/null -w '%{http_code}' -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "
    ask += "http://169.254.169.254/latest/api/token"
    assert far.run(ask).out == "200"
    refused = far.run(f"runuser -u riva-gateway -- {ask}")
    assert (refused.status, refused.out) == (7, "000")


def test_again_nothing_is_restarted(cloud: Cloud, far: Far) -> None:
    before, key = _process(far), value(cloud, KEY_SECRET)
    uploads = [call for call in cloud.calls if call.name == "s3:PutObject"]
    _deploy(cloud)
    assert (_process(far), value(cloud, KEY_SECRET)) == (before, key)
    assert [call for call in cloud.calls if call.name == "s3:PutObject"] == uploads
    assert "asr.example.com" in far.text("/run/riva-gateway/address.env")  # without --name they stay


def test_a_client_gets_words_from_near_and_far(cloud: Cloud, far: Far) -> None:
    for where in ((), ("--from-here",)):
        ran = _smoke(cloud, "--expect", "good morning you are listening to a scripted recognizer", *where)
        rows = [line.split("\t") for line in ran.out.splitlines()]
        assert [row[0] for row in rows] == ["http", "websocket", "grpc"]
        assert {row[2] for row in rows} == {WORDS}
        assert all(0 < int(row[1]) < 20_000 for row in rows)
        assert "without a key: refused" in ran.err
    assert cloud.where_is(value(cloud, KEY_SECRET)) == []


def test_other_words_than_expected_are_a_failure(cloud: Cloud, far: Far) -> None:
    said = _smoke(cloud, "--expect", "good evening", status=1).err
    assert "other words than expected: Good morning" in said


def test_settings_of_people_stay_and_a_gateway_that_asks_nobody_is_told(cloud: Cloud, far: Far) -> None:
    settings = "/etc/riva-gateway/gateway.env"
    far.run(f"sed -i s/^AUTH=on/AUTH=off/ {settings}; echo MAX_STREAMS=7 >>{settings}")
    before = _process(far)
    _deploy(cloud)
    assert _process(far) != before  # they hold from now on
    assert "is AUTH=off set?" in _smoke(cloud, status=1).err
    far.run(f"sed -i s/^AUTH=off/AUTH=on/ {settings}")
    _deploy(cloud)
    assert "MAX_STREAMS=7" in far.text(settings).splitlines()
    assert heard(cloud, far) == WORDS


def test_a_key_that_got_lost_is_replaced_and_revoked(cloud: Cloud, far: Far) -> None:
    lost = value(cloud, KEY_SECRET)
    cloud.client("secretsmanager").put_secret_value(SecretId=KEY_SECRET, SecretString="something else")
    _deploy(cloud)
    assert OWN_KEY.fullmatch(value(cloud, KEY_SECRET))
    listed = far.run(
        "cd /var/lib/riva-gateway && runuser -u riva-gateway --"
        " env STATE_DIR=. /opt/riva-gateway/current/.venv/bin/riva-gateway key list"
    ).out
    states = {line.split("\t")[0]: line.split("\t")[2] for line in listed.splitlines()}
    assert states[lost.split("_")[1]] == "revoked"
    assert sorted(states.values()) == ["good", "revoked"]


def test_a_machine_that_comes_back_elsewhere_is_found_and_trusted_there(cloud: Cloud, far: Far) -> None:
    old, _ = _addresses(cloud, far)
    ec2 = cloud.client("ec2")
    ec2.stop_instances(InstanceIds=[far.id])
    until = time.monotonic() + 60
    while ec2.describe_instances(InstanceIds=[far.id])["Reservations"][0]["Instances"][0]["State"]["Name"] != "stopped":
        assert time.monotonic() < until
        time.sleep(0.1)
    ec2.start_instances(InstanceIds=[far.id])
    await_online(cloud, far)
    assert cloud.run("riva-060-readiness.sh", env={"DEPLOY_READY_LIMIT_S": "40"}).status == 0
    assert heard(cloud, far) == WORDS  # both came back by themselves
    new, _ = _addresses(cloud, far)
    assert new != old
    assert new in _names(_published(cloud))
    assert old not in _names(_published(cloud))
    _smoke(cloud, "--from-here")


def _secret(cloud: Cloud, name: str, text: str) -> str:
    cloud.client("secretsmanager").create_secret(Name=name, SecretString=text)
    return name


def test_a_certificate_of_one_s_own(cloud: Cloud, far: Far) -> None:
    cert, key = make_certificate(now=datetime.now(UTC), names=("asr.example.com",))
    other = make_certificate(now=datetime.now(UTC))[1]
    good = _secret(cloud, "tls", (cert + key).decode())
    before = _process(far)
    for bad in (
        _secret(cloud, "tls-other", (cert + other).decode()),
        _secret(cloud, "tls-none", "hello"),
        "tls-nowhere",
    ):
        _deploy(cloud, "--tls-secret", bad, status=2)
    assert _process(far) == before
    _deploy(cloud, "--tls-secret", good)
    shown = far.run("openssl s_client -connect localhost:8443 </dev/null 2>/dev/null | openssl x509").out
    assert ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(cert.decode())
    assert far.run("stat -c '%a %U:%G' /etc/riva-gateway/tls.key").out == "640 root:riva-gateway\n"
    assert cloud.where_is(other.decode().splitlines()[2]) == []
    assert len(_smoke(cloud).out.splitlines()) == 2
    _deploy(cloud)  # it stays
    assert "TLS_CERT=" in far.text("/etc/riva-gateway/gateway.env")
    _deploy(cloud, "--tls-secret", "self-made")
    assert "TLS_CERT=" not in far.text("/etc/riva-gateway/gateway.env")


def _becomes(far: Far, unit: str, state: str) -> None:
    line = f"for i in {{1..200}}; do [ $(systemctl is-active {unit}) = {state} ] && break; sleep 0.1; done"
    assert far.run(f"{line}; systemctl is-active {unit}").out == f"{state}\n"


def test_spot_capacity_that_is_taken_back_lets_streams_have_their_last_words(cloud: Cloud, far: Far) -> None:
    _becomes(far, "riva-spot", "inactive")  # this machine is not
    cloud.faults.set(spot="kept")
    assert far.run("systemctl start riva-spot").status == 0
    _becomes(far, "riva-spot", "active")
    python, key = "/opt/riva-gateway/current/.venv/bin/python", value(cloud, KEY_SECRET)
    with ThreadPoolExecutor() as pool:
        told = pool.submit(far.run, python, "-c", STREAM, input=key)
        assert far.run("for i in {1..200}; do [ -e /run/heard ] && exit; sleep 0.1; done; exit 1").status == 0
        cloud.faults.set(spot="taken")
        refused, final, closed = told.result(60).out.splitlines()
    assert (refused, closed) == ("refused ConnectionRefusedError", "closed 1001")
    assert final.startswith("final Good morning"), final
    _becomes(far, "riva-gateway", "inactive")
    _becomes(far, "riva-spot", "inactive")
    ended = far.run("systemctl show -p Result -p NRestarts --value riva-gateway riva-spot").out
    assert sorted(ended.split()) == ["0", "0", "success", "success"]
    assert "AWS takes this machine back" in far.run("journalctl -u riva-gateway -o cat").out
    cloud.faults.set(spot="kept")
    far.run("systemctl start riva-gateway")  # as at a start of the machine
    assert heard(cloud, far) == WORDS
    _becomes(far, "riva-spot", "active")
    cloud.faults.clear()


def test_three_releases_are_kept_those_in_use_among_them(cloud: Cloud, far: Far) -> None:
    far.run(
        "cd /opt/riva-gateway/releases && for i in 1 2 3 4; do mkdir -p old$i; touch -d 2020-01-0$i old$i; done;"
        " ln -sfn /opt/riva-gateway/releases/old1 /opt/riva-gateway/before"
    )
    _deploy(cloud)
    kept = far.run("ls /opt/riva-gateway/releases").out.split()
    assert len(kept) == 3
    assert {"old1", "old4", tags(cloud, far)["riva:gateway-release"]} == set(kept)
    far.run("rm /opt/riva-gateway/before")


def test_an_archive_that_was_tampered_with_is_not_installed(cloud: Cloud, far: Far) -> None:
    release = tags(cloud, far)["riva:gateway-release"]
    cloud.client("s3").put_object(Bucket=BUCKET, Key=f"releases/{release}.tar.gz", Body=b"something else")
    far.run(f"rm /opt/riva-gateway/releases/{release}/complete")
    assert "is something else" in _deploy(cloud, status=1).err
    cloud.client("s3").delete_object(Bucket=BUCKET, Key=f"releases/{release}.tar.gz")
    cloud.faults.set(pip_fails=True)
    assert "the Python packages cannot be installed now" in _deploy(cloud, status=3).err
    cloud.faults.clear()
    _deploy(cloud)
    assert heard(cloud, far) == WORDS


@pytest.mark.parametrize("after", [40, 100])
def test_cut_off_anywhere_and_run_again(cloud: Cloud, far: Far, after: int) -> None:
    script = TREE / "scripts/far"
    helpers = "/usr/local/lib/riva"
    settings = (
        f"DEPLOYMENT=riva REGION=us-east-2 MODE=deploy RELEASE={tags(cloud, far)['riva:gateway-release']} WAIT_S=20\n"
        f"KEY_SECRET={KEY_SECRET} CERT_PARAMETER={CERTIFICATE} TLS_SECRET= NAMES=\n"
        "UNIT=$(</etc/systemd/system/riva-gateway.service)\n"
        "SPOT_UNIT=$(</etc/systemd/system/riva-spot.service)\n"
        f"ADDRESS_HELPER=$(<{helpers}/address) PUBLISH_HELPER=$(<{helpers}/publish-certificate)\n"
        f"SPOT_HELPER=$(<{helpers}/spot-watch)\n"
    )
    kill = f"trap 'if ((++commands == {after})); then kill -9 $BASHPID $$; fi' DEBUG\nset -T\n"
    cloud.client("secretsmanager").put_secret_value(SecretId=KEY_SECRET, SecretString="lost")
    far.run(settings + (script / "common.sh").read_text() + kill + (script / "gateway.sh").read_text())
    _deploy(cloud)
    assert heard(cloud, far) == WORDS
    assert cloud.where_is(value(cloud, KEY_SECRET)) == []


def test_the_same_tree_makes_the_same_archive(cloud: Cloud, tmp_path: Path) -> None:
    build = (
        'cd "$0"; . scripts/lib/deploy.sh; . scripts/lib/release.sh; build_release; echo "$release";'
        ' if [ -n "${1:-}" ]; then tar -xzf "$archive" -C "$1"; fi'
    )
    first = cloud.run("bash", "-c", build, str(TREE), str(tmp_path)).out
    assert not list(tmp_path.rglob("__pycache__"))
    (tmp_path / "scripts").symlink_to(TREE / "scripts")
    again = cloud.run("bash", "-c", build.replace("$LIB", "$0"), str(TREE)).out
    assert re.fullmatch(r"[0-9a-f]{64}\n", first)
    assert again == first
