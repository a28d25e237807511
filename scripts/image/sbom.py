"""What is in the image, as CycloneDX 1.6: `sbom.py --environment FOLDER --wheels FOLDER … --output FILE`.

It runs in the image's build: the packages of the virtual environment with the hashes of the wheels that they came from,
Python itself, and the packages of Debian. Who depends on whom is written down for the Python packages. The same input
gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path
from uuid import UUID, uuid5

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

OURS = "riva-gateway"
EXTRAS = ("aws", "vad")
"""What the image is installed with."""
_NAMESPACE = UUID("6ad1ef43-63f0-5b25-8dc2-3c4f6e1c1d5a")
_LICENSES = LicenseFactory()


def licenses_of(distribution: Distribution) -> list[License]:
    """What a Python package says of its license: an SPDX expression, classifiers, its words, or its file's title."""
    metadata = distribution.metadata
    classifiers = [c.rsplit(" :: ", 1)[-1] for c in metadata.get_all("Classifier") or () if c.startswith("License ::")]
    words = (metadata.get("License") or "").strip()
    files = [distribution.read_text(f"licenses/{name}") or "" for name in metadata.get_all("License-File") or ()]
    titles = [next(filter(None, map(str.strip, text.splitlines())), "") for text in files]
    if expression := metadata.get("License-Expression"):
        said = [expression]
    elif classifiers:
        said = classifiers
    else:
        said = [words] if words and "\n" not in words else titles[:1]
    return [_LICENSES.make_from_string(text) for text in said if text]


def python_package(distribution: Distribution, digests: dict[tuple[str, str], str]) -> Component:
    """One installed package; its hash is that of its wheel."""
    name, version = canonicalize_name(distribution.name), distribution.version
    digest = digests[(name, version)]
    return Component(
        type=ComponentType.APPLICATION if name == OURS else ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=PackageURL("pypi", name=name, version=version),
        bom_ref=f"pypi/{name}",
        licenses=licenses_of(distribution),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


def wheel_digests(folder: Path) -> dict[tuple[str, str], str]:
    """SHA-256 of every wheel, by name and version."""
    found: dict[tuple[str, str], str] = {}
    for wheel in sorted(folder.glob("*.whl")):
        name, version, _, _ = parse_wheel_filename(wheel.name)
        found[(name, str(version))] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return found


def debian_packages(status: str, distro: str) -> Iterator[Component]:
    """What dpkg has installed, from the text of its status file."""
    for paragraph in status.split("\n\n"):
        package = HeaderParser().parsestr(paragraph)
        if package.get("Status") != "install ok installed":
            continue
        name, version, architecture = package["Package"], package["Version"], package["Architecture"]
        where = {"arch": architecture, "distro": distro}
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            purl=PackageURL("deb", namespace="debian", name=name, version=version, qualifiers=where),
            bom_ref=f"deb/{name}:{architecture}",
        )


def needed(distribution: Distribution, extras: Iterable[str]) -> Iterator[str]:
    """The canonical names of what a package asks for on this platform."""
    for text in distribution.requires or ():
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(requirement.marker.evaluate(e) for e in environments):
            yield canonicalize_name(requirement.name)


def distro_of(os_release: str) -> str:
    """`debian-12`, from the text of /etc/os-release."""
    said = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', os_release, re.MULTILINE))
    return f"{said['ID']}-{said['VERSION_ID']}"


def bill(environment: Path, wheels: Path, dpkg: Path, version: str, epoch: int) -> Bom:
    """The whole document."""
    (site,) = environment.glob("lib/python3.*/site-packages")
    installed = {canonicalize_name(d.name): d for d in distributions(path=[str(site)])}
    digests = wheel_digests(wheels)
    components = {name: python_package(installed[name], digests) for name in sorted(installed)}
    gateway = components.pop(OURS)
    if gateway.version != version:
        sys.exit(f"sbom.py: the gateway is {gateway.version}, and the build says {version}")
    python = Component(
        type=ComponentType.APPLICATION,
        name="python",
        version=platform.python_version(),
        purl=PackageURL("generic", name="python", version=platform.python_version()),
        bom_ref="python",
        licenses=[_LICENSES.make_from_string("PSF-2.0")],
    )
    debian = [*debian_packages(dpkg.read_text(encoding="utf-8"), distro_of(Path("/etc/os-release").read_text()))]
    document = Bom(components=[python, *components.values(), *debian])
    document.metadata.component = gateway
    document.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    told = "\n".join(f"{c.purl} {[h.content for h in c.hashes]}" for c in (gateway, *document.components))
    document.serial_number = uuid5(_NAMESPACE, f"{epoch}\n{told}")
    for name, component in {OURS: gateway, **components}.items():
        asks = set(needed(installed[name], EXTRAS if name == OURS else ()))
        extra = [python] if name == OURS else []
        document.register_dependency(component, [*extra, *(components[n] for n in sorted(asks & components.keys()))])
    return document


def main() -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    for flag in ("--environment", "--wheels", "--dpkg", "--output"):
        parser.add_argument(flag, type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--epoch", type=int, required=True)
    given = parser.parse_args()
    document = bill(given.environment, given.wheels, given.dpkg, given.version, given.epoch)
    given.output.write_text(JsonV1Dot6(document).output_as_string(indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
