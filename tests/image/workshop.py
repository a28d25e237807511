"""Where the images are built and run: buildah and podman with a store of their own, and what is kept between two runs.

`scripts/dev/test-image.sh ready` makes what is missing: the base (once), and the images (where what goes in has
changed); `clean` removes it all. Everything lies in one folder outside the checkout, `RIVA_IMAGE_CACHE` or
`~/.cache/riva-gateway-image`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from canaries import Canaries
from image import base
from server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
NAME = "localhost/riva-gateway"
TARGETS = ("gateway", "laptop")
EPOCH = "1700000000"
SOURCE, REVISION = "https://example.com/riva-gateway", "c0ffee1" * 5
_TOOLS = ("buildah", "podman", "runc", "debootstrap")
_GOES_IN = ("Dockerfile", ".dockerignore", "LICENSE", "README.md", "pyproject.toml", "requirements", "scripts/image")
_GOES_IN_WHOLE = ("src", "static", "load")

CANARY = "image build"
PLANTED = (
    *(".env", ".env.production", ".git/config", "secrets/ngc", "scripts/deploy.env", "id_rsa", "notes.txt"),
    *("src/.env", "src/server/.env", "src/server/private.key", "src/asr/ca.pem", "src/server/keystore.p12"),
    *("static/.htpasswd", "static/backup.pem", "requirements/.netrc", "requirements/own.txt", "load/run.log"),
    *("src/server/__pycache__/canary.cpython-311.pyc", "scripts/image/.env", "scripts/image/token", "tests/secret.py"),
)
"""Where the secret lies in the folder that is built from; none of it may get in."""


def canaries() -> Canaries:
    """The secret that lies about and is in the environment while the images are built."""
    made = Canaries()
    made.secret(CANARY)
    return made


class Workshop:
    """One store of images, and the tools that work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        storage = folder / "storage.conf"
        if not storage.is_file():
            storage.write_text(
                f'[storage]\ndriver = "{driver(folder)}"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n',
                encoding="utf-8",
            )
        (folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=1000:1000"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n',
            encoding="utf-8",
        )
        self.env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }

    def run(self, *command: str, timeout_s: float = 60, env: dict[str, str] | None = None) -> str:
        """What a command says on stdout.

        Raises:
            RuntimeError: it failed; with the end of what it said.
        """
        done = self.tried(*command, timeout_s=timeout_s, env=env)
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(command[:3])} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-3000:]}"
            )
        return done.stdout

    def tried(
        self, *command: str, timeout_s: float = 60, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same, whatever comes of it."""
        return subprocess.run(
            command, env={**self.env, **(env or {})}, capture_output=True, text=True, check=False, timeout=timeout_s
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One builds at a time; the second finds it done."""
        with (self.folder / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def ready(self) -> dict[str, str]:
        """The names of the images by target, built now where what goes in has changed."""
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing or os.geteuid():
            who = f"{', '.join(missing)}: run scripts/dev/system-packages.sh containers" if missing else "root"
            raise RuntimeError(f"The image's tests build and run containers, and that needs {who}.")
        images = {target: f"{NAME}:{target}-{fingerprint()}" for target in TARGETS}
        with self.locked():
            if all(self.archive(image).is_file() for image in images.values()) and self.has(*images.values()):
                return images
            self._base()
            self._forget_images()
            context = self.folder / "context"
            furnish(context)
            for target, image in images.items():
                self._build(context, target, image)
            shutil.rmtree(context)
        return images

    def archive(self, image: str) -> Path:
        """Where an image lies as a file, with its layers."""
        return self.folder / f"{image.rpartition(':')[2]}.tar"

    def has(self, *images: str) -> bool:
        """Whether they are in the store."""
        return all(self.tried("podman", "image", "exists", image).returncode == 0 for image in images)

    def inspect(self, image: str) -> dict[str, Any]:
        """What podman knows of an image."""
        (told,) = json.loads(self.run("podman", "image", "inspect", image))
        return dict(told)

    def clean(self) -> None:
        """Remove everything."""
        with self.locked():
            self.run("podman", "system", "reset", "--force", timeout_s=180)
        shutil.rmtree(self.folder)

    def _base(self) -> None:
        made, marker = hashlib.sha256(Path(base.__file__).read_bytes()).hexdigest(), self.folder / "base"
        if marker.is_file() and marker.read_text("utf-8") == made and self.has(PYTHON_IMAGE):
            return
        root, packed = self.folder / "root", self.folder / "base.tar"
        sys.stderr.write("making a base from Debian's packages; this takes a minute, once\n")
        base.make(root)
        self.run("tar", "--directory", str(root), "--create", "--file", str(packed), ".")
        shutil.rmtree(root)
        path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.run(
            "podman",
            "import",
            "--change",
            'CMD ["python3"]',
            "--change",
            path,
            str(packed),
            PYTHON_IMAGE,
            timeout_s=120,
        )
        packed.unlink()
        marker.write_text(made, encoding="utf-8")

    def _build(self, context: Path, target: str, image: str) -> None:
        sys.stderr.write(f"building the image {target}\n")
        secret = canaries().secret(CANARY)
        # The default target is built as people build it, by naming none.
        chosen = () if target == "gateway" else ("--target", target)
        arguments = [f"SOURCE_DATE_EPOCH={EPOCH}", f"SOURCE={SOURCE}", f"REVISION={REVISION}"]
        self.run(
            *("buildah", "bud", "--format", "docker", "--pull-never", "--timestamp", EPOCH, *chosen, "--tag", image),
            *(word for argument in arguments for word in ("--build-arg", argument)),
            str(context),
            timeout_s=600,
            env={**dict.fromkeys(ServerSettings.secret_keys(), secret), "NGC_API_KEY": secret, "TOKEN": secret},
        )
        self.run(
            "podman", "save", "--format", "docker-archive", "--output", str(self.archive(image)), image, timeout_s=120
        )

    def _forget_images(self) -> None:
        for name in self.run("podman", "images", "--format", "{{.Repository}}:{{.Tag}}").split():
            if name.startswith(f"{NAME}:"):
                self.tried("podman", "rmi", "--force", name)
        self.tried("podman", "image", "prune", "--force", timeout_s=120)
        for archive in self.folder.glob("*.tar"):
            archive.unlink()


def driver(folder: Path) -> str:
    """How images are stored there: in layers where the kernel lays them over each other, else as copies, slowly."""
    with TemporaryDirectory(dir=folder) as scratch:
        lower, upper, work, merged = (Path(scratch, name) for name in ("lower", "upper", "work", "merged"))
        for part in (lower, upper, work, merged):
            part.mkdir()
        layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount = ["mount", "--types", "overlay", "overlay", "--options", layers, str(merged)]
        if subprocess.run(mount, capture_output=True, check=False, timeout=10).returncode:
            return "vfs"
        subprocess.run(["umount", str(merged)], check=True, timeout=10)
    return "overlay"


def workshop() -> Workshop:
    """The one of this user."""
    named = os.environ.get("RIVA_IMAGE_CACHE", "")
    return Workshop(Path(named) if named else Path.home() / ".cache" / "riva-gateway-image")


def goes_in() -> list[Path]:
    """Every file that an image is made of, and the two that say how."""
    found = [ROOT / name for name in _GOES_IN if (ROOT / name).is_file()]
    found += [path for name in (*_GOES_IN, *_GOES_IN_WHOLE) for path in (ROOT / name).rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def fingerprint() -> str:
    """Changes with what goes in, and with how it is built here."""
    digest = hashlib.sha256()
    for path in [*goes_in(), Path(__file__), Path(base.__file__)]:
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_mode}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def furnish(context: Path) -> None:
    """A folder to build from, with the secret lying about in it as secrets do."""
    shutil.rmtree(context, ignore_errors=True)
    for path in goes_in():
        copy = context / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    for name in PLANTED:
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(f"TOKEN={canaries().secret(CANARY)}\n", encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ready"]:
            sys.stdout.writelines(f"{image}\n" for image in workshop().ready().values())
        case ["clean"]:
            workshop().clean()
        case _:
            sys.exit("usage: test-image.sh ready|clean")
