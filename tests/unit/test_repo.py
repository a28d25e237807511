"""Promises about the tree itself: which way imports point, that documents and commands agree, nothing foreign in it."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from server.commands.app import app
from server.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = [*sorted((ROOT / "scripts").rglob("*.sh")), ROOT / ".ci" / "run"]
LOCKS = tuple(ROOT / "requirements" / f"{name}.txt" for name in ("runtime", "dev", "clients"))
READS_THE_ENVIRONMENT = {"asr/environment.py", "asr/loading.py", "server/settings.py", "server/probe.py"}
_LEFT_OUT = {
    ".git",
    ".hypothesis",
    ".venv",
    ".venv-clients",
    "__pycache__",
    "node_modules",
    "dist",
    "build",
    "var",
    "test-results",
}
_TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".sh",
    ".json",
    ".js",
    ".css",
    ".html",
    ".yaml",
    ".yml",
    ".example",
    ".cfg",
    ".ini",
    "",
}


@cache
def _texts() -> dict[Path, str]:
    """Every text file of the project."""
    found: dict[Path, str] = {}
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in _LEFT_OUT and not name.endswith(("_cache", ".egg-info"))]
        for name in files:
            path = Path(folder) / name
            if path.suffix in _TEXT and name != ".env":
                try:
                    found[path.relative_to(ROOT)] = path.read_text("utf-8")
                except UnicodeDecodeError:
                    continue
    return found


def _documents() -> dict[Path, str]:
    return {path: text for path, text in _texts().items() if path.suffix == ".md"}


def _shell_lines() -> Iterator[tuple[Path, str]]:
    """The command lines that documents show: indented by four, or fenced."""
    for path, text in _documents().items():
        fenced = False
        for line in text.splitlines():
            if line.lstrip().startswith("```"):
                fenced = not fenced
            elif fenced or line.startswith("    "):
                yield path, line.strip().removeprefix("$ ").partition(" #")[0]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots; name the whole module"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# --- code


def test_the_library_imports_no_server_and_no_web_framework() -> None:
    for path in (ROOT / "src" / "asr").rglob("*.py"):
        for name in _imports(path):
            assert name.split(".")[0] not in {"server", "fastapi", "starlette", "uvicorn", "typer"}, f"{path}: {name}"


def test_a_face_imports_no_engine() -> None:
    for path in (ROOT / "src" / "server" / "faces").rglob("*.py"):
        for name in _imports(path):
            assert not name.startswith(("asr.engines", "asr.build", "asr.client", "server.build")), f"{path}: {name}"


def test_the_environment_is_read_in_the_settings_alone() -> None:
    # `__main__` writes defaults for gRPC there, and reads nothing.
    main = (ROOT / "src/server/__main__.py").read_text("utf-8")
    assert re.findall(r"os\.environ\S*", main) == [
        'os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT",',
        'os.environ.setdefault("GRPC_VERBOSITY",',
    ]
    for path in SOURCES:
        if path.name == "__main__.py":
            continue
        if path.relative_to(ROOT / "src").as_posix() not in READS_THE_ENVIRONMENT:
            assert not re.search(r"os\.environ|os\.getenv|import environ", path.read_text("utf-8")), path


def test_every_module_says_what_lives_there() -> None:
    for path in SOURCES:
        source = path.read_text("utf-8")
        assert not source.strip() or ast.get_docstring(ast.parse(source)), path


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|raise NotImplemented" + r"Error)\b")
    for path in [*SOURCES, *TESTS, *SCRIPTS]:
        assert not marks.search(path.read_text("utf-8")), path


def test_no_test_is_skipped() -> None:
    marks = re.compile(r"pytest\.(skip|xfail|importor" + r"skip)|mark\.(skip|xfail|skip" + r"if)|unittest\.sk" + r"ip")
    for path in TESTS:
        assert not marks.search(path.read_text("utf-8")), path


def test_importing_does_nothing() -> None:
    """No thread, no output, no heavy engine: `import asr` and the table of contents of the commands stay light."""
    code = (
        "import sys, threading, asr, server.commands.app\n"
        "heavy = {'pocketsphinx', 'uvicorn', 'fastapi', 'sounddevice', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert threading.active_count() == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- what is shipped


def test_no_file_names_a_package_registry() -> None:
    registry = re.compile(
        r"pypi\.org|pythonhosted|--(extra-)?index-url(?!\b.*no-emit)|registry\.npmjs|npmjs\.(com|org)/", re.I
    )
    for path, text in _texts().items():
        for line in text.splitlines():
            if "no-emit-index-url" not in line and path != Path("tests/unit/test_repo.py"):
                assert not registry.search(line), f"{path}: {line}"


def test_no_file_names_somebodys_home() -> None:
    home = re.compile(r"(?<![\w.])/(home|Users)/\w+|(?<![\w.])/root/")
    for path, text in _texts().items():
        if path != Path("tests/unit/test_repo.py"):
            assert not home.search(text), path


def test_every_dependency_is_pinned_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    asked = project["project"]["dependencies"] + project["dependency-groups"]["build"]
    groups = project["dependency-groups"]
    for lock, wanted in zip(LOCKS, (asked, asked + groups["dev"], groups["clients"]), strict=True):
        text = lock.read_text("utf-8")
        pinned = re.findall(
            r"^([a-z0-9._-]+)(?:\[[^]]*\])?==[^\s;]+.*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.M
        )
        assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.M)), f"{lock.name} has a line without a hash"
        names = {name for name, _ in pinned}
        for requirement in wanted:
            name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower().replace("_", "-")
            assert name in names, f"{requirement} is not in {lock.name}: run make lock"


_STRICT_BY_LIBRARY = r'\. "\$\(dirname "\$\{BASH_SOURCE\[0\]\}"\)/(\.\./)?lib/deploy\.sh"'


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_scripts_are_strict_and_can_be_run(script: Path) -> None:
    lines = script.read_text("utf-8").splitlines()
    place = script.parent.relative_to(ROOT).as_posix()
    strict = any(re.fullmatch(r"set -e?uo pipefail", line) for line in lines)
    if lines[0].startswith("# shellcheck shell=bash"):  # a part: of a script that sources it, or of one that is shipped
        assert place in ("scripts/lib", "scripts/far")
        assert strict or script.name not in ("deploy.sh", "common.sh"), "the part that is strict for all others"
        return
    # What is installed on a machine of ours names the shell that is there.
    assert lines[0] == ("#!/bin/bash" if place == "scripts/far/helpers" else "#!/usr/bin/env bash")
    assert strict or any(re.fullmatch(_STRICT_BY_LIBRARY, line) for line in lines[:5])
    assert os.access(script, os.X_OK) or place == "scripts/far/helpers"


# --- documents


def test_every_make_word_in_the_documents_exists() -> None:
    words = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert {"setup", "run", "test", "check", "bench", "lock", "screenshots", "help"} <= words
    for path, text in _documents().items():
        for word in re.findall(r"(?:^    |`|\$ )make ([a-z]+)", text, re.M):
            assert word in words, f"{path}: make {word}"


def _flags() -> dict[str, set[str]]:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    return {name: set(_flags_of(command)) for name, command in commands.items()}


def _flags_of(command: Any) -> Iterator[str]:
    """A command's flags, and those of the words below it."""
    for parameter in command.params:
        yield from (option for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("-"))
    for word in getattr(command, "commands", {}).values():
        yield from _flags_of(word)


def test_every_command_line_in_the_documents_can_be_typed() -> None:
    flags, seen = _flags(), 0
    for path, line in _shell_lines():
        for part in re.split(r"\s(?:\||&&|&|>)(?:\s|$)", line):
            match = re.match(r"(?:[A-Z_]+=\S+\s+)*(?:\S*/)?riva-gateway\s+(.*)", part.strip())
            if match is None or match[1].startswith("-"):
                continue
            words = shlex.split(match[1])
            assert words[0] in flags or words[0].isupper(), f"{path}: {line}"
            for word in words[1:]:
                if word.startswith("-") and word != "-" and words[0] in flags:
                    assert word.partition("=")[0] in flags[words[0]] | {"--help"}, f"{path}: {line}"
            seen += 1
    assert seen > 10


@cache
def _helps() -> dict[str, str]:
    """What each deployment script says of itself."""
    folder = ROOT / "scripts"
    helps = {}
    for script in sorted(folder.glob("riva-[0-9][0-9][0-9]-*.sh")):
        done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=30, check=False, env=_BARE)
        assert (done.returncode, done.stderr) == (0, ""), f"{script.name} --help: {done.stderr}"
        helps[script.name] = done.stdout
    return helps


_BARE = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
"""An environment of nobody's: no account, no region, no name of a deployment."""
_TYPED_SCRIPT = re.compile(r"\b(riva-\d{3}-[a-z-]+\.sh)((?:\\\n|(?!\. )[^`|;&>#\n])*)")


def test_every_deployment_script_in_the_documents_can_be_typed() -> None:
    knows = {name: set(re.findall(r"^  (--[a-z][a-z-]*)", said, re.M)) for name, said in _helps().items()}
    assert len(knows) > 20
    seen = 0
    for path, text in {**_documents(), **{Path(name): said for name, said in _helps().items()}}.items():
        for name, rest in _TYPED_SCRIPT.findall(text):
            assert name in knows, f"{path}: {name}"
            flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) - {"--help"}
            assert flags <= knows[name], f"{path}: {name} {flags - knows[name]}"
            seen += len(flags)
    assert seen > 20


def test_the_document_of_the_scripts_names_them_all() -> None:
    text = (ROOT / "scripts" / "README.md").read_text("utf-8")
    named = set(re.findall(r"^\| `(riva-\d{3}-[a-z-]+\.sh)` \|", text, re.M))
    assert named == set(_helps())


def test_the_command_line_document_names_every_command_and_flag() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for command, options in _flags().items():
        assert f"riva-gateway {command}" in text
        for option in options - {"--help", "-h", "--no-words", "--words"}:
            assert re.search(rf"`{re.escape(option)}[ `]|\s{re.escape(option)}\s", text), f"{command} {option}"


def test_every_key_is_in_the_example_and_in_the_table() -> None:
    keys = set(ServerSettings.known_keys())
    example = (ROOT / ".env.example").read_text("utf-8")
    assert set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", example, re.M)) == keys
    table = re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", (ROOT / "docs" / "configuration.md").read_text("utf-8"), re.M)
    assert set(table) == keys
    assert len(table) == len(keys)


def test_the_table_tells_the_true_defaults() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    told = {key: value.strip() for key, value in re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|([^|]*)\|", text, re.M)}
    settings = ServerSettings()
    for key, name in zip(ServerSettings.known_keys(), ServerSettings.model_fields, strict=True):
        if key != "STATE_DIR":  # depends on who runs it
            assert told[key] == _shown(getattr(settings, name)), key


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None else str(value)


def test_links_between_documents_lead_somewhere() -> None:
    for path, text in _documents().items():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not target.startswith("mailto:"):
                assert (ROOT / path.parent / target).exists(), f"{path} → {target}"


def test_the_sounds_that_the_documents_name_exist() -> None:
    for path, text in _documents().items():
        for clip in re.findall(r"tests/fixtures/[\w.-]+\.(?:wav|flac)", text):
            assert (ROOT / clip).is_file(), f"{path}: {clip}"
