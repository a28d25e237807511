"""riva-060-readiness.sh: ready is what gives words; what never will be is told at once, what takes long in time."""

from __future__ import annotations

import pytest

from cloud.client import Cloud, Far, Ran
from deploy.far_steps import BUCKET, WORDS, machine, tags


@pytest.fixture(scope="module")
def far(cloud: Cloud) -> Far:
    return machine(cloud)


def _ready(cloud: Cloud, *words: str, within_s: int = 40, status: int = 0) -> Ran:
    ran = cloud.run("riva-060-readiness.sh", *words, env={"DEPLOY_READY_LIMIT_S": str(within_s)})
    assert ran.status == status, ran.err
    return ran


def test_without_a_recognizer_it_says_what_is_missing(cloud: Cloud, far: Far) -> None:
    said = _ready(cloud, status=2).err
    assert "there is no recognizer on this machine" in said
    assert "riva-050-deploy-nim.sh" in said
    (release,) = cloud.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    name = release["Key"].removeprefix("releases/").removesuffix(".tar.gz")
    assert far.run(f"/opt/riva-gateway/releases/{name}/.venv/bin/riva-gateway --version").out.startswith("riva-gateway")


def test_one_that_does_not_become_ready_is_told_in_time(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(nim_never_ready=True)
    assert cloud.run("riva-050-deploy-nim.sh").status == 0
    said = _ready(cloud, within_s=2, status=3).err
    assert "the recognizer: it loads its model" in said
    assert "the recognizer is not ready after 2 seconds: it loads its model" in said
    assert "riva-gateway" not in " ".join(tags(cloud, far))
    assert far.run("test -e /etc/riva/nim.env.good").status == 1


def test_a_machine_that_takes_no_commands(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(send_command={"probe": "Undeliverable"})
    said = _ready(cloud, within_s=1, status=3).err
    cloud.faults.set(send_command={})
    assert "its machine takes no commands" in said


def test_words_make_it_ready(cloud: Cloud, far: Far) -> None:
    cloud.faults.clear()
    assert cloud.run("riva-050-deploy-nim.sh").status == 0
    ran = _ready(cloud)
    assert ran.out.strip() == WORDS
    assert "mock-en-US-asr-streaming" in ran.err
    assert far.text("/etc/riva/nim.env.good") == far.text("/etc/riva/nim.env")
    assert "riva:nim-image-before" not in tags(cloud, far)
    assert _ready(cloud).out.strip() == WORDS


def _says(far: Far, answer: str) -> None:
    """What the recognizer answers when it is asked whether it is ready."""
    far.run("cat >/usr/local/sbin/curl && chmod +x /usr/local/sbin/curl", input=f"#!/bin/bash\necho '{answer}'\n")


def test_the_older_word_for_ready_is_understood_too(cloud: Cloud, far: Far) -> None:
    assert cloud.run("riva-050-deploy-nim.sh").status == 0
    _says(far, '{ "ready" : true }')
    assert _ready(cloud, "--trial").out.strip() == WORDS
    _says(far, '{"status":"not ready"}')
    assert "it loads its model" in _ready(cloud, within_s=1, status=3).err
    far.run("rm /usr/local/sbin/curl")


def test_one_that_ends_again_and_again_is_told_at_once(cloud: Cloud, far: Far) -> None:
    far.run(
        "mkdir -p /etc/systemd/system/riva-nim.service.d &&"
        " printf '[Service]\\nRestartSec=50ms\\n' >/etc/systemd/system/riva-nim.service.d/fast.conf &&"
        " systemctl daemon-reload"
    )
    cloud.faults.set(nim_profile_missing=True)
    assert cloud.run("riva-050-deploy-nim.sh", "--profile", "ctc").status == 0
    ran = _ready(cloud, status=1)
    assert "the recognizer ends again and again" in ran.err
    assert "No matching profile found" in ran.err  # its own last words
    assert "nim-image-before" not in " ".join(tags(cloud, far))
    cloud.faults.clear()
    assert _ready(cloud, status=1)  # it is told until somebody does something
    assert cloud.run("riva-050-deploy-nim.sh", "--restart").status == 0
    assert _ready(cloud).out.strip() == WORDS
    assert tags(cloud, far)["riva:nim-image-before"].endswith("rnnt-multilingual:1.5.0")
