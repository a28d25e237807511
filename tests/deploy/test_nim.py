"""riva-050-deploy-nim.sh: a recognizer on the machine, once, with a key that nobody sees; and what is told where it
cannot be.
"""

from __future__ import annotations

import csv
import json
import re
import time

import pytest

from cloud.client import TREE, Cloud, Far, Ran
from deploy.ec2_steps import KEY, changed
from deploy.far_steps import containers, machine, tags

NVCR = "nvcr.io/nim/nvidia/"
RNNT = NVCR + "parakeet-1-1b-rnnt-multilingual:1.5.0"
CTC = NVCR + "parakeet-1-1b-ctc-en-us:1.5.0"
STARTED_S = 30.0


@pytest.fixture(scope="module")
def far(cloud: Cloud) -> Far:
    """A machine with the recognizer of the default profile."""
    there = machine(cloud)
    dry = _deploy(cloud, "--dry-run")
    assert "would run on" in dry.err
    assert not cloud.changes()
    assert _deploy(cloud).out == f"{RNNT}\tchanged\n"
    return there


def _runs(cloud: Cloud) -> list[list[str]]:
    """All that was run by docker on the machine."""
    found = cloud.client("ec2").describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
    (one,) = (instance for group in found["Reservations"] for instance in group["Instances"])
    argv = cloud.far(one["InstanceId"]).run("cat /var/lib/stand-in/argv 2>/dev/null || true").out
    return [words for line in argv.splitlines() if (words := json.loads(line))[:2] == ["docker", "run"]]


def _deploy(cloud: Cloud, *words: str, status: int = 0) -> Ran:
    before = _runs(cloud)
    ran = cloud.run("riva-050-deploy-nim.sh", *words)
    assert ran.status == status, ran.err
    until = time.monotonic() + 20  # the service first asks the image for its profiles
    while ran.out.endswith("\tchanged\n") and ((now := _runs(cloud)) == before or "riva-nim" not in now[-1]):
        assert time.monotonic() < until, now
        time.sleep(0.1)
    return ran


def _gpu(far: Far, line: str) -> None:
    """Another GPU than the type's."""
    far.run(f"printf '#!/bin/sh\\necho \"{line}\"\\n' >/usr/local/bin/nvidia-smi; chmod +x /usr/local/bin/nvidia-smi")


def test_the_table_of_profiles_is_whole_and_pinned() -> None:
    rows = list(csv.DictReader((TREE / "scripts/lib/nim-profiles.tsv").open(), delimiter="\t"))
    assert [row["name"] for row in rows] == ["rnnt", "ctc", "tdt", "nemotron", "canary", "classic"]
    for row in rows:
        assert row["image"].startswith("nvcr.io/")
        assert row["tag"].replace(".", "").isdigit()
        assert row["selector"]
        assert int(row["min_gpu_mib"]) >= 16000
        assert (row["streams"] == "no") == ("mode=ofl" in row["selector"])


def test_the_recognizer_runs_as_a_service_for_this_machine_alone(cloud: Cloud, far: Far) -> None:
    asked, command = (words for words in far.argv if words[:2] == ["docker", "run"])
    assert asked[-3:] == ["--entrypoint", "nim_list_model_profiles", RNNT]
    line = " ".join(command)
    assert command[-1] == RNNT
    assert "--publish 127.0.0.1:9000:9000 --publish 127.0.0.1:50051:50051" in line
    assert "NIM_TAGS_SELECTOR=mode=str,vad=silero,type=default" in line
    assert "/var/lib/riva/nim-cache/8.9/parakeet-1-1b-rnnt-multilingual-1.5.0:/opt/nim/.cache" in line
    assert "--restart" not in line
    assert far.run("systemctl is-active riva-nim; systemctl is-enabled riva-nim").out == "active\nenabled\n"
    assert tags(cloud, far)["riva:nim-image"] == RNNT
    assert tags(cloud, far)["riva:profile"] == "rnnt"


def test_the_key_is_in_memory_for_root_and_nowhere_else(cloud: Cloud, far: Far) -> None:
    assert far.run("stat -c '%a %U' /run/riva /run/riva/ngc.env; ls /run/riva").out == (
        "700 root\n600 root\nngc.env\nnim.running\n"
    )
    assert f"NGC_API_KEY={KEY}\n" in far.text("/run/riva/ngc.env")
    assert cloud.where_is(KEY) == []
    assert far.run("test -e ~root/.docker").status == 1  # docker keeps a login there if it may
    logins = [words for words in far.argv if words[:2] == ["docker", "login"]]
    assert logins == [["docker", "login", "nvcr.io", "--username", "$oauthtoken", "--password-stdin"]]


def test_the_unit_is_one_that_systemd_likes(far: Far) -> None:
    assert far.run("systemd-analyze verify riva-nim.service").err == ""


def test_again_nothing_is_restarted_and_nothing_changes(cloud: Cloud, far: Far) -> None:
    started, before = len(containers(far)), len(cloud.changes())
    assert _deploy(cloud).out == f"{RNNT}\tunchanged\n"
    assert _deploy(cloud, "--profile", "rnnt").out == f"{RNNT}\tunchanged\n"
    assert len(containers(far)) == started
    assert changed(cloud, before) == []


def test_another_profile_is_fetched_before_the_former_stops(cloud: Cloud, far: Far) -> None:
    assert _deploy(cloud, "--profile", "ctc").out == f"{CTC}\tchanged\n"
    words = [word[:2] + word[-1:] for word in far.argv if word[0] == "docker"]
    assert words.index(["docker", "pull", CTC]) < words.index(["docker", "run", CTC])
    stops = [at for at, word in enumerate(words) if word[1] == "stop"]
    assert words.index(["docker", "pull", CTC]) < stops[-1] < words.index(["docker", "run", CTC])
    assert _deploy(cloud).out == f"{CTC}\tunchanged\n"  # without a profile it stays what it is
    assert tags(cloud, far)["riva:profile"] == "ctc"


def _started(cloud: Cloud, far: Far, *words: str) -> list[str]:
    """Deploys it, and returns the command lines of the containers that this took, down to the one that serves."""
    before, until, lines = len(far.argv), time.monotonic() + STARTED_S, [""]
    _deploy(cloud, *words)
    while "--publish" not in lines[-1]:
        assert time.monotonic() < until, lines
        time.sleep(0.05)
        lines = ["", *(" ".join(each) for each in far.argv[before:] if each[:2] == ["docker", "run"])]
    return lines[1:]


def test_a_model_that_nvidia_has_built_is_served_from_its_cache(cloud: Cloud, far: Far) -> None:
    (served,) = _started(cloud, far, "--restart")  # what there is was asked at the first start
    assert "NIM_EXPORT_PATH" not in served


def test_a_model_that_is_built_here_is_built_once(cloud: Cloud, far: Far) -> None:
    """NVIDIA's cache would not keep it: each start would take half an hour."""
    cloud.faults.set(nim_rmir=True)
    _, exporting, served = _started(cloud, far, "--profile", "canary")
    assert "NIM_EXPORT_PATH=/opt/nim/export" in exporting
    assert "--publish" not in exporting
    place = re.search(r"/var/lib/riva/nim-cache/8.9/canary-1b-1.0.0/export-[0-9a-f]{12}(?=:/opt/nim/export)", served)
    assert place
    assert "--env NIM_DISABLE_MODEL_DOWNLOAD=true" in served
    other = _started(cloud, far, "--selector", "mode=ofl,name=canary-1b", "--profile", "canary")
    assert len(other) == 3
    assert place[0] not in other[-1]
    cloud.faults.clear()
    assert _started(cloud, far, "--profile", "canary") == [served]


def test_an_image_that_exports_nothing_serves_all_the_same(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(nim_rmir="empty")
    _, exporting, served = _started(cloud, far, "--profile", "tdt", "--selector", "mode=ofl")
    cloud.faults.clear()
    assert "NIM_EXPORT_PATH" in exporting
    assert "NIM_EXPORT_PATH" not in served
    assert "it will be built anew at every start" in far.run("journalctl -u riva-nim -o cat --no-pager").out
    assert _started(cloud, far, "--restart") == [served]


def test_a_build_that_is_broken_off_begins_again(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(nim_rmir=True, nim_never_ready=True)
    _deploy(cloud, "--profile", "nemotron")
    until = time.monotonic() + STARTED_S
    while "NIM_EXPORT_PATH=/opt/nim/export" not in containers(far)[-1]:
        assert time.monotonic() < until
        time.sleep(0.05)
    far.run("systemctl stop riva-nim")
    assert (
        far.run("cd /var/lib/riva/nim-cache/8.9/nemotron-asr-streaming-1.3.1 && ls -d cached-* export-*[^w]").out == ""
    )
    cloud.faults.set(nim_never_ready=False)
    assert len(_started(cloud, far)) == 3
    cloud.faults.clear()


def test_one_that_takes_no_streams_says_so(cloud: Cloud, far: Far) -> None:
    assert "hears whole recordings only" in _deploy(cloud, "--profile", "tdt", "--dry-run").err


def test_the_quickstart_builds_its_model_once_and_then_serves(cloud: Cloud, far: Far) -> None:
    _deploy(cloud, "--classic")
    far.run(
        "for i in {1..50}; do [ -e /var/lib/riva/nim-cache/8.9/riva-speech-2.19.0/built ] && break; sleep 0.1; done"
    )
    _deploy(cloud, "--classic", "--restart")
    far.run("for i in {1..50}; do systemctl is-active riva-nim && break; sleep 0.1; done; sleep 0.3")
    steps = [
        word for words in containers(far) for word in words if word in {"download_ngc_models", "deploy_all_models"}
    ]
    assert steps == ["download_ngc_models", "deploy_all_models"]
    last = " ".join(containers(far)[-1])
    assert "start-riva --riva-uri=0.0.0.0:50051 --asr_service=true" in last
    assert "env-file" not in last
    assert "-p" not in last.replace("--publish 127.0.0.1:50051:50051", "").split()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--profile", "nonsense"), "there is no profile 'nonsense'"),
        (("--tag", "latest", "--profile", "ctc"), "none to go back to"),
        (("--tag", "1; reboot"), "cannot be a tag"),
        (("--image", "nvcr.io/nim/$(reboot)"), "cannot be the name of an image"),
        (("--profile", "ctc", "--selector", "$(reboot)"), "cannot be a selector"),
        (("--profile", "ctc", "--classic"), "goes with no --profile"),
        (("--back-to", "yesterday"), "--back-to is good or before"),
    ],
)
def test_what_cannot_be_meant_is_refused(cloud: Cloud, far: Far, words: tuple[str, ...], said: str) -> None:
    assert said in _deploy(cloud, *words, status=2).err


def _untouched(cloud: Cloud, far: Far, *words: str, status: int) -> str:
    """What is said by a deployment that fails; what served before serves on."""
    before = containers(far), far.text("/etc/riva/nim.env"), tags(cloud, far)
    said = _deploy(cloud, *words, status=status).err
    assert (containers(far), far.text("/etc/riva/nim.env"), tags(cloud, far)) == before
    assert far.run("systemctl is-active riva-nim").out == "active\n"
    return said


def test_a_tag_that_the_registry_does_not_know(cloud: Cloud, far: Far) -> None:
    said = _untouched(cloud, far, "--tag", "9.9.9", status=2)
    assert "the registry does not know the image" in said
    assert "give one with --tag" in said


def test_a_key_that_the_registry_refuses(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(login_fails=True)
    said = _untouched(cloud, far, "--profile", "nemotron", status=2)
    cloud.faults.clear()
    assert "the registry refuses the key" in said
    assert "riva-030-secret.sh" in said


def test_a_registry_in_trouble_is_worth_another_try(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(pull_fails="nemotron")
    assert "cannot be fetched now" in _untouched(cloud, far, "--profile", "nemotron", status=3)
    cloud.faults.clear()


def test_a_disk_without_room(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(disk_full=True)
    said = _untouched(cloud, far, "--profile", "nemotron", status=2)
    cloud.faults.clear()
    assert "the disk is too full" in said
    assert "Nothing was stopped" in said


@pytest.mark.parametrize(
    ("ending", "said"),
    [("TimedOut", "ExecutionTimedOut"), ("Undeliverable", "Undeliverable"), ("Cancelled", "Cancelled")],
)
def test_a_command_that_is_ended_from_outside(cloud: Cloud, far: Far, ending: str, said: str) -> None:
    cloud.faults.set(send_command=ending)
    told = _untouched(cloud, far, "--profile", "nemotron", status=3)
    cloud.faults.clear()
    assert f"did not run to its end on {far.id}: {said}" in told
    assert "run this again" in told


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        ("Tesla T4, 15360, 7.5, 595.45.04", "the GPU is too small: Tesla T4 has 15360 MiB, 'rnnt' needs 16000"),
        ("Tesla V100, 32768, 7.0, 595.45.04", "compute capability 7.0, recognizers need 8.0"),
        ("NVIDIA L4, 23034, 8.9, 470.256.02", "NVIDIA's driver is too old: 470.256.02"),
        ("", "there is no GPU"),
    ],
)
def test_a_gpu_that_does_not_do(cloud: Cloud, far: Far, gpu: str, said: str) -> None:
    _gpu(far, gpu)
    try:
        assert said in _deploy(cloud, "--profile", "rnnt", status=2).err
        if "T4" in gpu:
            _deploy(cloud, "--profile", "rnnt", "--allow-unsupported-gpu")
            assert "/nim-cache/7.5/" in " ".join(containers(far)[-1])
    finally:
        far.run("rm /usr/local/bin/nvidia-smi")


def test_images_that_nobody_needs_go_and_the_former_one_stays(cloud: Cloud, far: Far) -> None:
    _deploy(cloud, "--profile", "ctc")
    far.run("cp /etc/riva/nim.env /etc/riva/nim.env.good")  # it was seen working
    _deploy(cloud, "--profile", "rnnt", "--tag", "1.6.0")
    _deploy(cloud, "--profile", "nemotron")
    images = far.run("docker image ls --format '{{.Repository}}:{{.Tag}}'").out.split()
    assert CTC in images
    assert RNNT not in images
    assert far.run("cd /var/lib/riva/nim-cache && ls -d */*").out.split() == [
        "8.9/nemotron-asr-streaming-1.3.1",
        "8.9/parakeet-1-1b-ctc-en-us-1.5.0",
        "8.9/parakeet-1-1b-rnnt-multilingual-1.6.0",
    ]


@pytest.mark.parametrize(("after", "profile", "image"), [(25, "ctc", CTC), (60, "rnnt", RNNT), (95, "ctc", CTC)])
def test_cut_off_anywhere_and_run_again(cloud: Cloud, far: Far, after: int, profile: str, image: str) -> None:
    script = TREE / "scripts/far"
    kill = f"trap 'if ((++commands == {after})); then kill -9 $BASHPID $$; fi' DEBUG\nset -T\n"
    settings = (
        "DEPLOYMENT=riva REGION=us-east-2 SECRET=riva-riva/ngc MODE=deploy KIND=nim\n"
        f"PROFILE={profile} IMAGE={image} SELECTOR=mode=str MIN_GPU_MIB=16000\n"
        "UNIT=$(</etc/systemd/system/riva-nim.service) RUN_HELPER=$(</usr/local/lib/riva/nim-run)\n"
        "KEY_HELPER=$(</usr/local/lib/riva/ngc-key)\n"
    )
    far.run(settings + (script / "common.sh").read_text() + kill + (script / "nim.sh").read_text())
    _deploy(cloud, "--profile", profile)
    assert containers(far)[-1][-1] == image
    assert far.run("systemctl is-active riva-nim; ls -A /etc/riva /usr/local/lib/riva").out == (
        "active\n/etc/riva:\nnim.env\nnim.env.good\n\n/usr/local/lib/riva:\nngc-key\nnim-run\n"
    )
    assert cloud.where_is(KEY) == []


def test_docker_without_the_runtime_that_gives_containers_the_gpu(cloud: Cloud, far: Far) -> None:
    far.run("mkdir -p /etc/docker && echo {} >/etc/docker/daemon.json && systemctl restart docker")
    before = len(far.argv)
    said = _deploy(cloud, "--profile", "nemotron", status=2).err
    assert "docker has no NVIDIA runtime on this machine" in said
    assert ["docker", "pull"] not in [words[:2] for words in far.argv[before:]]
    toolkit = """#!/bin/sh
[ "$*" = "runtime configure --runtime=docker" ] && echo '{"runtimes": {"nvidia": {}}}' >/etc/docker/daemon.json"""
    far.run("cat >/usr/local/bin/nvidia-ctk; chmod +x /usr/local/bin/nvidia-ctk", input=toolkit)
    assert "setting it up" in _deploy(cloud, "--profile", "nemotron").err
    assert containers(far)[-1][-1].endswith("nemotron-asr-streaming:1.3.1")
