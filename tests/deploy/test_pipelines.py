"""scripts/pipelines: right by their schemas, each line of shell, script and flag; the scripts at a real gateway."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import rules
from e2e.command import sound
from e2e.test_runbook_rollout import Typist, gateway

FOLDER = rules.ROOT / "scripts" / "pipelines"
GITHUB, GITLAB = FOLDER / "github-actions.yml", FOLDER / "gitlab-ci.yml"
CHECKER = str(Path(sys.executable).with_name("check-jsonschema"))
RESERVED = {"stages", "default", "workflow"}


def github() -> dict[str, Any]:
    found = yaml.safe_load(GITHUB.read_text("utf-8"))
    return {"on" if key is True else key: part for key, part in found.items()}  # YAML 1.1 takes `on` for a yes


def gitlab() -> dict[str, Any]:
    """With what each job extends put in."""
    document = yaml.safe_load(GITLAB.read_text("utf-8"))

    def whole(job: dict[str, Any]) -> dict[str, Any]:
        if "extends" not in job:
            return {"variables": {}, **job}
        below = whole(document[job["extends"]])
        return {**below, **job, "variables": {**below["variables"], **job.get("variables", {})}}

    return {name: job if name in RESERVED else whole(job) for name, job in document.items()}


def shell() -> Iterator[tuple[str, str]]:
    """Every piece of shell, with where it stands."""
    for name, job in github()["jobs"].items():
        for step in job["steps"]:
            if "run" in step:
                yield f"github: {name}: {step['name']}", step["run"]
    for name, job in gitlab().items():
        if name not in RESERVED and not name.startswith("."):
            lines = [*job.get("before_script", []), *job["script"], *job.get("after_script", [])]
            yield f"gitlab: {name}", "\n".join(lines)


PIECES = dict(shell())


# --- the two files


@pytest.mark.parametrize(
    "command",
    [
        ["--builtin-schema", "vendor.github-workflows", str(GITHUB)],
        ["--builtin-schema", "custom.github-workflows-require-timeout", str(GITHUB)],
        ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(GITLAB)],
    ],
    ids=lambda command: command[1],
)
def test_they_are_what_the_schema_says(command: list[str]) -> None:
    done = subprocess.run([CHECKER, *command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("where", PIECES)
def test_every_line_of_shell_is_clean(where: str) -> None:
    command = ["shellcheck", "--shell=bash", "--external-sources", "-"]
    done = subprocess.run(command, input=PIECES[where], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def called(text: str) -> list[tuple[str, list[str]]]:
    """The scripts of this tree that a piece of shell calls, with their flags."""
    found = re.findall(r"(scripts/\S+\.sh)([^\n|&;}]*)", text.replace("\\\n", " "))
    return [(script, re.findall(r"(?<=\s)--([a-z-]+)", words)) for script, words in found]


CALLS = sorted({(script, *flags) for text in PIECES.values() for script, flags in called(text)})


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_script_and_flag_exists(call: tuple[str, ...]) -> None:
    script, *flags = call
    done = subprocess.run([rules.ROOT / script, "--help"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"^  --([a-z-]+)", done.stdout, re.M))
    assert set(flags) <= known


def test_both_call_the_same_scripts() -> None:
    scripts = [
        {script for where, text in PIECES.items() if where.startswith(host) for script, _ in called(text)}
        for host in ("github", "gitlab")
    ]
    assert scripts[0] == scripts[1]
    assert len(scripts[0]) == 4


def test_the_documents_show_flags_that_exist() -> None:
    shown = called((FOLDER / "README.md").read_text("utf-8"))
    assert len(shown) >= 5
    for script, flags in shown:
        test_every_script_and_flag_exists((script, *flags))


def test_every_make_word_exists() -> None:
    words = set(re.findall(r"^([a-z]+):.*## ", (rules.ROOT / "Makefile").read_text("utf-8"), re.M))
    used = {word for text in PIECES.values() for word in re.findall(r"\bmake ([a-z]+)", text)}
    assert {"check", "test", "setup"} <= used <= words


def test_other_peoples_actions_are_pinned() -> None:
    text = GITHUB.read_text("utf-8")
    used = re.findall(r"uses: (.*)$", text, re.M)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    readme = (FOLDER / "README.md").read_text("utf-8")
    for name in {action.split("@")[0].split("/")[1] for action in used}:
        assert name in readme
    for image in re.findall(r"(?:image: |name: \")([\w.:-]+)", GITLAB.read_text("utf-8")):
        if ":" in image:
            assert re.search(r":\d", image), image


def test_what_people_type_is_no_part_of_a_script() -> None:
    for where, text in PIECES.items():
        assert "${{" not in text, where


def test_rights_are_given_where_they_are_needed_and_no_secret_is_kept() -> None:
    document = github()
    assert document["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in document["on"]
    for name, job in document["jobs"].items():
        enters = any("aws-actions/" in step.get("uses", "") for step in job["steps"])
        assert (job.get("permissions", {}).get("id-token") == "write") == enters, name
        assert ("environment" in job) == (name in ("staging", "production")), name
        checkout = job["steps"][0]
        assert checkout["with"] == {"persist-credentials": False}, name
    for path in (GITHUB, GITLAB):
        text = path.read_text("utf-8")
        assert "secrets." not in text
        assert not re.search(r"AWS_(SECRET_)?ACCESS_KEY|aws_secret|rgw_|nvapi-|AKIA", text)


def test_production_is_entered_from_the_main_branch_and_tests_run_as_root() -> None:
    jobs = github()["jobs"]
    assert jobs["production"]["if"].endswith("&& github.ref_name == github.event.repository.default_branch")
    for step in jobs["test"]["steps"][1:]:  # they make namespaces, which GitHub's user may not
        assert all(line.startswith("sudo ") for line in step["run"].splitlines()), step["name"]


def test_the_steps_are_those_of_the_plan() -> None:
    offered = github()["on"]["workflow_dispatch"]["inputs"]["stage"]["options"]
    variables = [job["variables"] for name, job in gitlab().items() if name not in RESERVED]
    jobs = [each["STEP"] for each in variables if "STEP" in each]
    said = (FOLDER / "canary.sh").read_text("utf-8")
    known = re.findall(r"One of: ([^\"]*)\"", said)
    assert set(offered) == set(jobs) == set(known[0].split())
    assert {"1", "5", "25", "50", "100"} < set(offered)


# --- the scripts, at a gateway


@dataclass
class Place:
    """A checkout with the scripts, whose upgrade only writes down how it was called."""

    typist: Typist
    root: Path
    env: dict[str, str]

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        name, *flags = words
        return subprocess.run(
            [self.root / "scripts" / "pipelines" / name, *flags],
            env={**self.env, **env},
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def upgraded(self) -> list[str]:
        path = self.root / "upgraded"
        told = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return told

    def percent(self) -> int:
        told = self.typist.types(f"riva-gateway rollout show --json --server {self.env['ASR_SERVER']}")
        return int(json.loads(told)["canary_percent"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("checkout")
    for name in ("lib", "pipelines"):
        shutil.copytree(rules.ROOT / "scripts" / name, root / "scripts" / name)
    programs = root / "programs"
    programs.mkdir()
    for path, text in (
        (programs / "aws", "#!/bin/sh\necho 'An error occurred (ParameterNotFound)' >&2\nexit 254\n"),
        (
            root / "scripts/riva-140-upgrade.sh",
            f'#!/bin/sh\necho "$*" > {root}/upgraded\nexit "${{DEPLOY_STATUS:-0}}"\n',
        ),
    ):
        path.write_text(text)
        path.chmod(0o755)
    with gateway(root) as typist:
        env = {**typist._shell.env, "DEPLOY_NAME": "prod", "NO_COLOR": "1", "ASR_API_KEY": "unused"}
        commands = env["PATH"].split(":")[0]
        env |= {"PATH": f"{programs}:{env['PATH']}", "DEPLOY_GATEWAY_COMMAND": f"{commands}/riva-gateway"}
        yield Place(typist, root, env)


def test_a_step_is_refused_where_the_verdict_is_not_good(place: Place) -> None:
    done = place.run("canary.sh", "1", "--reason", "stage 1")
    assert done.returncode == 0, done.stderr
    assert place.percent() == 1
    assert place.run("canary.sh", "5", "--reason", "stage 2").returncode == 0
    done = place.run("canary.sh", "25", "--reason", "stage 3")
    assert done.returncode == 3, done.stderr
    assert 'is not "good" yet' in done.stderr
    assert place.percent() == 5
    shown = place.run("canary.sh", "show")
    assert (shown.returncode, "going" in shown.stdout) == (0, True)
    assert place.run("canary.sh", "abort", "--reason", "enough").returncode == 0
    assert place.percent() == 0


def test_worse_somewhere_stops_it_everywhere(place: Place) -> None:
    told = json.dumps({"canary_percent": 5, "canary": {"verdict": "worse"}})
    program = place.root / "programs" / "worse"
    program.write_text(f"#!/bin/sh\necho '{told}'\n")
    program.chmod(0o755)
    done = place.run("canary.sh", "5", "--reason", "x", DEPLOY_GATEWAY_COMMAND=str(program))
    assert (done.returncode, "has found the canary worse" in done.stderr) == (1, True)


def test_promotion_wants_all_streams_at_the_canary(place: Place) -> None:
    done = place.run("canary.sh", "promote", "--reason", "x", "--nim", "1.5.1")
    assert (done.returncode, place.upgraded()) == (2, [])
    assert "0 % of the streams" in done.stderr
    place.typist.types(f"riva-gateway rollout canary 100 --reason x --server {place.env['ASR_SERVER']}")
    assert place.run("canary.sh", "promote", "--reason", "x").returncode == 2

    failed = place.run("canary.sh", "promote", "--reason", "x", "--nim", "1.5.1", DEPLOY_STATUS="4")
    assert (failed.returncode, place.percent()) == (4, 100)
    assert place.upgraded() == ["--nim 1.5.1 --deployment prod --yes"]

    done = place.run("canary.sh", "promote", "--reason", "x", "--nim", "1.5.1")
    assert (done.returncode, place.percent()) == (0, 0), done.stderr
    assert place.upgraded() == ["--nim 1.5.1 --deployment prod --yes"]


def test_back_is_abort_and_the_former_nim(place: Place) -> None:
    done = place.run("canary.sh", "rollback", "--reason", "words are missing")
    assert done.returncode == 0, done.stderr
    assert place.upgraded() == ["--rollback nim --deployment prod --yes"]


def test_one_gateway_that_is_gone_does_not_keep_the_others_from_going_back(place: Place) -> None:
    both = f"https://localhost:9,{place.env['ASR_SERVER']}"
    place.typist.types(f"riva-gateway rollout canary 5 --reason x --server {place.env['ASR_SERVER']}")
    done = place.run("canary.sh", "abort", "--reason", "x", "--gateways", both)
    assert done.returncode == 1
    assert "not done at https://localhost:9" in done.stderr
    assert place.percent() == 0


def test_the_key_is_where_it_is_said_to_be(place: Place) -> None:
    program = place.root / "programs" / "shows-its-key"
    program.write_text('#!/bin/sh\necho "$ASR_API_KEY"\n')
    program.chmod(0o755)
    done = place.run("canary.sh", "show", ADMIN_KEY="speech/admin", DEPLOY_GATEWAY_COMMAND=str(program))
    assert done.stdout == "aws-sm:speech/admin\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one step is wanted"),
        (["2", "--reason", "x"], "'2' is no step"),
        (["5"], "no reason is given"),
        (["show", "--gateways", ""], "no gateway is named"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str, place: Place) -> None:
    done = place.run("canary.sh", *words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_dry_runs_change_nothing(place: Place) -> None:
    done = place.run("canary.sh", "1", "--reason", "x", "--dry-run")
    assert (done.returncode, "would: riva-gateway rollout canary 1" in done.stderr) == (0, True), done.stderr
    assert place.percent() == 0
    assert place.run("release-gate.sh", "--dry-run").returncode == 0


def test_the_release_gate_opens_and_shuts(place: Place) -> None:
    clips = place.root / "clips"
    clips.mkdir()
    sound(clips / "tone.wav")
    (clips / "tone.txt").write_text("good morning\n")
    gate = ("release-gate.sh", "--set", str(clips), "--output", str(place.root))
    done = place.run(*gate, "--profile", "none")
    assert (done.returncode, "is open" in done.stderr) == (0, True), done.stderr
    assert json.loads((place.root / "golden.json").read_text())
    limits = place.root / "limits.toml"
    limits.write_text('name = "strict"\nabout = "cannot be kept"\n[[rules]]\nmetric = "wer"\nlimit = 0.0\n')
    shut = place.run(*gate, "--profile", str(limits))
    assert (shut.returncode, "the release gate is shut" in shut.stderr) == (1, True), shut.stderr
    assert "wer" in (shut.stdout + shut.stderr).lower()
    assert (place.root / "golden.html").stat().st_size > 1000
