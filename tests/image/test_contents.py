"""What the images are made of: who runs what, how large they are, and what is not in them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from image.archive import Archive
from image.workshop import CANARY, PLANTED, REVISION, ROOT, SOURCE, canaries

pytestmark = pytest.mark.timeout(120, func_only=True)  # the first to come may have to build
MIB = 1024 * 1024
PACKAGES = "opt/riva-gateway/lib/python3.11/site-packages"
MODEL = f"{PACKAGES}/pocketsphinx/model"
NOT_THERE = re.compile(
    r"^(pip|pip3|easy_install|wheel)[\d.]*$"
    r"|^((x86_64-linux-gnu-)?(gcc|g\+\+|cpp|cc|c\+\+|ld|as|gold|ar|ranlib|strip|objdump)[-.\d]*|c89|c99|clang.*|rustc|go)$"
    r"|^(make|cmake|ninja|hatch|hatchling|uv|git|hg|patch|gdb|strace|python.*-config)$"
    r"|^(curl|wget|nc|ncat|netcat|socat|telnet|ftp|ssh|scp|rsync|nmap|tcpdump|sudo|docker|kubectl|aws|busybox|vi|nano)$"
)


def programs(archive: Archive) -> set[str]:
    folders = re.compile(r"(usr/(local/)?)?s?bin|opt/riva-gateway/bin")
    return {PurePosixPath(p).name for p in archive.files if folders.fullmatch(str(PurePosixPath(p).parent))}


def test_it_starts_as_a_user_of_its_own_and_says_what_it_is(gateway: Archive, laptop: Archive) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for archive in (gateway, laptop):
        config = archive.config
        assert config["User"] == "10001:10001"
        assert config["Entrypoint"] == ["riva-gateway"]
        assert config["Cmd"] == ["serve"]
        assert config["StopSignal"] in ("SIGTERM", "15")
        assert set(config["ExposedPorts"]) == {"8443/tcp", "50052/tcp"}
        assert set(config["Volumes"]) == {"/var/lib/riva-gateway"}
        assert config["Healthcheck"]["Test"] == ["CMD", "/opt/riva-gateway/bin/python", "-I", "-m", "server.probe"]
        assert (
            config["Labels"]
            | {
                "org.opencontainers.image.title": "riva-gateway",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.source": SOURCE,
                "org.opencontainers.image.revision": REVISION,
                "org.opencontainers.image.licenses": "Apache-2.0",
                "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
                "com.amazonaws.sagemaker.capabilities.bidirectional-streaming": "true",
            }
            == config["Labels"]
        )
        assert "riva:x:10001:10001::/var/lib/riva-gateway:/usr/sbin/nologin" in archive.text("etc/passwd").splitlines()
        state = archive.files["var/lib/riva-gateway"].info
        assert (state.uid, state.gid, state.mode & 0o7777) == (10001, 0, 0o770)


def test_it_is_small(gateway: Archive, laptop: Archive) -> None:
    added = sum(gateway.layer_bytes[1:])
    assert added < 350 * MIB, [f"{size / MIB:.1f}" for size in gateway.layer_bytes]
    assert 30 * MIB < sum(laptop.layer_bytes[1:]) - added < 45 * MIB


def test_nothing_builds_or_downloads_there(gateway: Archive) -> None:
    assert not [name for name in programs(gateway) if NOT_THERE.match(name)]
    gone = re.compile(r"(^|/)(pip|setuptools|wheel|hatchling|grpc_tools|ensurepip)(-[\d.]+\.dist-info)?$")
    assert not [path for path in gateway.files if gone.search(path)]
    assert not [path for path in gateway.files if path.startswith(("root/.cache", "build", "var/cache/apt/archives/"))]
    assert "python3.11" in programs(gateway)  # so the folders are the right ones


def test_nobody_becomes_another_user(gateway: Archive) -> None:
    assert not [path for path, entry in gateway.files.items() if entry.info.isfile() and entry.info.mode & 0o6000]


def test_what_runs_cannot_be_changed_by_who_runs_it(gateway: Archive) -> None:
    ours = {path: entry.info for path, entry in gateway.files.items() if path.startswith("opt/riva-gateway")}
    assert len(ours) > 1000
    assert not [path for path, info in ours.items() if info.uid or (info.mode & 0o022 and not info.issym())]


def test_only_the_laptops_image_has_the_model(gateway: Archive, laptop: Archive) -> None:
    assert not [path for path, _ in gateway.everything() if path.startswith(MODEL)]
    assert f"{MODEL}/en-us/en-us.lm.bin" in laptop.files


def test_only_what_runs_is_in_it(gateway: Archive) -> None:
    ours = [path.removeprefix(f"{PACKAGES}/") for path in gateway.files if path.startswith(f"{PACKAGES}/")]
    assert not [path for path in ours if re.search(r"(^|/)tests/|\.(pyi|pyx|pxd|c|h|a|o)$", path)]
    services = {match[1] for path in ours if (match := re.match(r"botocore/data/([^/.]+)/", path))}
    assert services == {"secretsmanager", "signin", "sso", "sso-oidc", "sts"}


def test_python_is_compiled_once_and_for_all(gateway: Archive) -> None:
    sources = [path for path in gateway.files if path.startswith(f"{PACKAGES}/server/") and path.endswith(".py")]
    assert len(sources) > 100
    for path in sources:
        source = PurePosixPath(path)
        compiled = gateway.files[str(source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc")].content()
        assert int.from_bytes(compiled[4:8], "little") == 0b01, f"{path}: by hash, and not looked at again"
        assert compiled[8:16] == importlib.util.source_hash(gateway.files[path].content())


@pytest.mark.parametrize("target", ["gateway", "laptop"])
def test_no_secret_gets_in(target: str, request: pytest.FixtureRequest) -> None:
    archive: Archive = request.getfixturevalue(target)
    wanted = canaries()
    found = wanted.found_in("config", archive.config_text)
    # What the base brings was there before the secret; the laptop's layers are the gateway's and the model.
    layers = archive.layers[1:] if target == "gateway" else archive.layers[-1:]
    for layer in layers:
        for info in layer:
            opened = layer.extractfile(info) if info.isreg() else None
            found += wanted.found_in(info.name, info.name) + wanted.found_in(
                info.name, opened.read() if opened else b""
            )
    assert not found
    added = {info.name for layer in archive.layers[1:] for info in layer}
    names = {PurePosixPath(path).name for path in PLANTED}
    assert not [path for path in added if PurePosixPath(path).name in names - {"config", "token"}]


def test_the_search_finds_a_secret() -> None:
    made = canaries()
    assert made.found_in("a layer", b"TOKEN=" + made.secret(CANARY).encode())


def test_the_same_input_gives_the_same_files(gateway: Archive, laptop: Archive) -> None:
    """The two were built one after the other, each from the beginning."""
    other = {path: entry for path, entry in laptop.files.items() if not path.startswith(MODEL)}
    assert other.keys() == gateway.files.keys()
    assert not [path for path, entry in gateway.files.items() if entry.signature != other[path].signature]


def test_the_dockerfile_is_as_it_should_be() -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (checked.stdout + checked.stderr, checked.returncode) == ("", 0)
