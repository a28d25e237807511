"""riva-140-upgrade.sh: another version of the recognizer or of the gateway, and back to the former one by itself."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud.client import TREE, Cloud, Far, Ran
from deploy.far_steps import WORDS, containers, heard, machine, tags
from timing import in_time

IMAGE = "nvcr.io/nim/nvidia/parakeet-1-1b-rnnt-multilingual:"
LIMITS = {"DEPLOY_READY_LIMIT_S": "20", "DEPLOY_GATEWAY_READY_S": "15"}
PARTS = ("LICENSE", "README.md", "load", "pyproject.toml", "requirements/runtime.txt", "scripts", "src", "static")


@pytest.fixture(scope="module")
def far(cloud: Cloud) -> Far:
    """A machine that serves."""
    there = machine(cloud)
    for script in ("riva-050-deploy-nim.sh", "riva-060-readiness.sh", "riva-070-deploy-gateway.sh"):
        ran = cloud.run(script)
        assert ran.status == 0, ran.err
    return there


def _upgrade(cloud: Cloud, *words: str, status: int = 0, tree: Path = TREE, **env: str) -> Ran:
    script = "riva-140-upgrade.sh" if tree == TREE else str(tree / "scripts/riva-140-upgrade.sh")
    ran = cloud.run(script, "--yes", *words, env={**LIMITS, **env})
    assert ran.status == status, ran.err
    return ran


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive of this tree, which tests may change."""
    place = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        source, to = TREE / part, place / part
        to.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to)
    (place / "tests/fixtures").mkdir(parents=True)
    shutil.copy(TREE / "tests/fixtures/greeting.wav", place / "tests/fixtures")
    return place


def test_nothing_named_is_nothing_done(cloud: Cloud, far: Far) -> None:
    assert "nothing to change was named" in _upgrade(cloud, status=2).err
    assert "is nim or gateway" in _upgrade(cloud, "--rollback", "all", status=2).err
    assert "no former recognizer" in _upgrade(cloud, "--rollback", "nim", status=2).err
    ran = cloud.run("riva-140-upgrade.sh", "--nim", "1.6.0")
    assert ran.status == 2
    assert "Say --yes" in ran.err


def test_another_version_of_the_recognizer(cloud: Cloud, far: Far) -> None:
    _upgrade(cloud, "--nim", "1.6.0", "--expect", WORDS)
    assert containers(far)[-1][-1] == IMAGE + "1.6.0"
    assert tags(cloud, far)["riva:nim-image"] == IMAGE + "1.6.0"
    assert tags(cloud, far)["riva:nim-image-before"] == IMAGE + "1.5.0"
    commands = [word[1:2] + word[-1:] for word in far.argv if word[0] == "docker"]
    assert commands.index(["pull", IMAGE + "1.6.0"]) < commands.index(["run", IMAGE + "1.6.0"])
    assert "Deactivated successfully" in far.run("journalctl -u riva-gateway --no-pager").out  # drained, not killed


def test_a_version_that_there_is_not_changes_nothing(cloud: Cloud, far: Far) -> None:
    before = containers(far)
    said = _upgrade(cloud, "--nim", "9.9.9", status=2).err
    assert "nothing was changed: the recognizer that is there goes on" in said
    assert "the registry does not know the image" in said
    assert containers(far) == before
    assert heard(cloud, far) == WORDS


@contextmanager
def _well_again_when_back(cloud: Cloud, far: Far, image: str) -> Iterator[None]:
    """Faults end when a container of the image is started anew."""
    count, over = len(containers(far)), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if any(words[-1] == image for words in containers(far)[count:]):
                cloud.faults.clear()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        cloud.faults.clear()


def test_one_that_never_becomes_ready_is_taken_back(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(nim_never_ready=True)
    with _well_again_when_back(cloud, far, IMAGE + "1.6.0"):
        said = _upgrade(cloud, "--nim", "1.7.0", status=4, DEPLOY_READY_LIMIT_S="5").err
    assert "the former recognizer serves again" in said
    assert "the new one: riva-060-readiness.sh: the recognizer is not ready after 5 seconds" in said
    assert containers(far)[-1][-1] == IMAGE + "1.6.0"
    assert tags(cloud, far)["riva:nim-image"] == IMAGE + "1.6.0"
    assert tags(cloud, far)["riva:nim-image-before"] == IMAGE + "1.5.0"
    assert heard(cloud, far) == WORDS


def test_where_the_former_one_fails_too_both_reasons_are_told(cloud: Cloud, far: Far) -> None:
    cloud.faults.set(nim_never_ready=True)
    said = _upgrade(cloud, "--nim", "1.7.0", status=1, DEPLOY_READY_LIMIT_S="2").err
    assert "neither the new recognizer nor the former one works" in said
    assert said.count("is not ready after 2 seconds") >= 2
    assert "--back-to good" in said
    cloud.faults.clear()
    assert cloud.run("riva-050-deploy-nim.sh", "--back-to", "good").status == 0
    assert cloud.run("riva-060-readiness.sh", env=LIMITS).status == 0
    assert heard(cloud, far) == WORDS


def test_back_by_hand_and_forth_again(cloud: Cloud, far: Far) -> None:
    _upgrade(cloud, "--rollback", "nim")
    assert tags(cloud, far)["riva:nim-image"] == IMAGE + "1.5.0"
    assert tags(cloud, far)["riva:nim-image-before"] == IMAGE + "1.6.0"
    assert containers(far)[-1][-1] == IMAGE + "1.5.0"


def test_another_release_of_the_gateway_and_back_by_hand(cloud: Cloud, far: Far, tree: Path) -> None:
    first = tags(cloud, far)["riva:gateway-release"]
    (tree / "README.md").write_text("# Another release\n")
    _upgrade(cloud, "--gateway", tree=tree)
    second = tags(cloud, far)["riva:gateway-release"]
    assert second != first
    assert tags(cloud, far)["riva:gateway-release-before"] == first
    _upgrade(cloud, "--rollback", "gateway")
    assert tags(cloud, far)["riva:gateway-release"] == first
    assert tags(cloud, far)["riva:gateway-release-before"] == second
    assert heard(cloud, far) == WORDS


def test_a_release_that_does_not_run_is_taken_back(cloud: Cloud, far: Far, tree: Path) -> None:
    before = tags(cloud, far)
    serve = tree / "src/server/serve.py"
    whole = serve.read_text()
    serve.write_text('raise SystemExit("this release is broken")\n')
    ran = _upgrade(cloud, "--gateway", status=4, tree=tree)
    in_time(ran.seconds, 45, "with the former one serving again")  # of these about 15 without a gateway
    said = ran.err
    serve.write_text(whole)
    assert "the former gateway serves again" in said
    assert "does not run" in said
    assert "this release is broken" in said
    assert tags(cloud, far) == before
    assert heard(cloud, far) == WORDS


def test_a_release_that_cannot_be_installed_changes_nothing(cloud: Cloud, far: Far, tree: Path) -> None:
    process = far.run("systemctl show -p MainPID --value riva-gateway").out
    (tree / "README.md").write_text("# One more\n")
    cloud.faults.set(pip_fails=True)
    said = _upgrade(cloud, "--gateway", status=3, tree=tree).err
    cloud.faults.clear()
    assert "nothing was changed: the gateway that is there goes on" in said
    assert far.run("systemctl show -p MainPID --value riva-gateway").out == process
