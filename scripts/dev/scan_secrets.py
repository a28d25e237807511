"""Look for secrets in every file of the project, with detect-secrets; `python scripts/dev/scan_secrets.py`.

`secrets-baseline.json` beside this file lists what only looks like one: a file, a kind, the SHA-1 of the text, and why
it is none; `--accept FILE REASON` writes such entries. Nothing else is let pass: no comment in a line does it. Entries
that no longer match anything are findings too. A finding is told by file, line and kind; the text itself is not shown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import default_settings, transient_settings

BASELINE = "scripts/dev/secrets-baseline.json"
_LEFT_OUT = {".git", ".venv", ".venv-clients", "__pycache__", "node_modules", "dist", "build", "var", "test-results"}
_SOUNDS_AND_PICTURES = {
    ".wav",
    ".flac",
    ".ogg",
    ".opus",
    ".webm",
    ".mp3",
    ".mp4",
    ".m4a",
    ".png",
    ".ico",
    ".jpg",
    ".woff2",
}
_DIGESTS = re.compile(r'"sha1": "[0-9a-f]{40}"|"sha256": "[0-9a-f]{64}"|"integrity": "sha512-[A-Za-z0-9+/]{86}=="')
"""Checksums of clips, of packages and of the baseline: random by nature, and many. Only the text itself is let pass."""
_MADE_UP_IN = ("docs/", "tests/")
_FILTERS = (
    "heuristic.is_indirect_reference",
    "heuristic.is_likely_id_string",
    "heuristic.is_not_alphanumeric_string",
    "heuristic.is_potential_uuid",
    "heuristic.is_prefixed_with_dollar_sign",
    "heuristic.is_sequential_string",
    "heuristic.is_templated_secret",
)


@dataclass(frozen=True, order=True)
class Finding:
    """Something that looks like a secret. `sha1` is of its text."""

    path: str
    line: int
    kind: str
    sha1: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: looks like a secret ({self.kind}; {self.sha1})"


def files_of(root: Path) -> Iterator[str]:
    """Every file that may be handed to somebody else, relative to `root`."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(
            name
            for name in names
            if name not in _LEFT_OUT and not name.endswith(("_cache", ".egg-info", ".hypothesis"))
        )
        for name in sorted(files):
            if name != ".env" and Path(name).suffix.lower() not in _SOUNDS_AND_PICTURES:
                yield (Path(folder) / name).relative_to(root).as_posix()


def scan(root: Path, paths: list[str]) -> list[Finding]:
    """What looks like a secret in these files; they are shared out among the cores."""
    cores = min(os.cpu_count() or 1, len(paths) // 50 + 1)
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        shares = [paths[number::cores] for number in range(cores)]
        return sorted(finding for found in pool.map(_scan, [root] * cores, shares) for finding in found)


def _scan(root: Path, paths: list[str]) -> set[Finding]:
    with default_settings() as defaults:
        plugins = defaults.json()["plugins_used"]
    settings = {
        "plugins_used": plugins,
        "filters_used": [{"path": f"detect_secrets.filters.{name}"} for name in _FILTERS],
    }
    with transient_settings(settings):
        collection = SecretsCollection(root=str(root))
        for path in paths:
            collection.scan_file(path)
    found = {
        Finding(path, secret.line_number, secret.type, secret.secret_hash)
        for path, secrets in collection.data.items()
        for secret in secrets
        if not _is_made_up(path, secret.type, secret.secret_value or "")
    }
    return {finding for finding in found if not _is_digest(root, finding)}


def _is_made_up(path: str, kind: str, text: str) -> bool:
    """Whether it is a name or a word that an example or a test calls a secret; real ones are longer, with digits."""
    wordy = len(text) < 12 or not re.search("[0-9]", text) or not re.search("[A-Za-z]", text)
    return kind == "Secret Keyword" and path.startswith(_MADE_UP_IN) and wordy


def _is_digest(root: Path, finding: Finding) -> bool:
    line = (root / finding.path).read_text("utf-8").splitlines()[finding.line - 1]
    return any(_sha1(quoted) == finding.sha1 for quoted in _quoted_digests(line))


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()  # as detect-secrets names its finds


def _quoted_digests(line: str) -> Iterator[str]:
    for digest in _DIGESTS.findall(line):
        yield digest.split('"')[3]


def compare(found: list[Finding], accepted: list[dict[str, Any]]) -> list[str]:
    """What to tell: findings that nobody has accepted, entries without a reason, and entries that match nothing."""
    known = {_key(entry) for entry in accepted}
    told = [str(finding) for finding in found if (finding.path, finding.kind, finding.sha1) not in known]
    told += [f"{BASELINE}: {entry['path']}: no reason is given" for entry in accepted if not entry.get("reason", "")]
    present = {(finding.path, finding.kind, finding.sha1) for finding in found}
    told += [f"{BASELINE}: {path}: the {kind} is gone; remove the entry" for path, kind, _ in sorted(known - present)]
    return told


def accept(found: list[Finding], accepted: list[dict[str, Any]], path: str, reason: str) -> list[dict[str, Any]]:
    """The baseline with what was found in `path`, and without what is there no more."""
    kept = [entry for entry in accepted if _key(entry) in {(each.path, each.kind, each.sha1) for each in found}]
    known = {_key(entry) for entry in kept}
    new = {(each.path, each.kind, each.sha1) for each in found if each.path == path} - known
    kept += [{"path": path, "kind": kind, "sha1": sha1, "reason": reason} for _, kind, sha1 in new]
    return sorted(kept, key=_key)


def _key(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["path"], entry["kind"], entry["sha1"]


def main() -> int:
    """Print what was found; the exit status is 1 where there is something."""
    parser = argparse.ArgumentParser(description="Look for secrets in every file of the project.")
    parser.add_argument("root", nargs="?", type=Path, default=Path())
    words = ("FILE", "REASON")
    parser.add_argument("--accept", nargs=2, metavar=words, help="what is found in FILE is none, for this REASON")
    given = parser.parse_args()
    baseline: Path = given.root / BASELINE
    accepted = json.loads(baseline.read_text("utf-8"))
    found = scan(given.root, list(files_of(given.root)))
    if given.accept:
        lines = [json.dumps(entry, ensure_ascii=False) for entry in accept(found, accepted, *given.accept)]
        baseline.write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")
        return 0
    told = compare(found, accepted)
    for line in told:
        print(line)
    if told:
        print("A real one: revoke it, then remove it. Only looks like one: scan_secrets.py --accept FILE REASON")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
