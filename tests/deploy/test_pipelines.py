"""scripts/pipelines: right by their schemas, each line of shell, script and flag; the scripts at a real gateway."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import rules
from chart.chart import pod, with_least
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
    assert len(scripts[0]) == 5


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
        assert ("environment" in job) == (name in ("staging", "kubernetes", "production")), name
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


STEPS = ["show", "1", "5", "25", "50", "100", "abort", "promote", "rollback"]
AT_ONCE = {"show", "abort"}


def evaluated(expression: str, *, event: str = "workflow_dispatch", stage: str = "", run: str = "4711") -> str:
    """What GitHub makes of an expression, where it is one of those that stand in this file."""
    names = {
        "github.workflow": "riva-gateway",
        "github.event_name": event,
        "github.ref": "refs/heads/main",
        "github.run_id": run,
        "inputs.stage": stage,
    }

    def value(found: re.Match[str]) -> str:
        text = re.sub(r"contains\(fromJSON\('(.*?)'\), ([\w.]+)\)", r"(\2 in \1)", found[1])
        for name, known in names.items():
            text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", repr(known), text)
        return str(eval(text.replace("&&", " and ").replace("||", " or "), {"__builtins__": {}}))

    return re.sub(r"\$\{\{ (.*?) \}\}", value, expression)


def test_at_github_looking_and_aborting_wait_for_nobody() -> None:
    group, environment = github()["concurrency"]["group"], github()["jobs"]["production"]["environment"]
    assert evaluated(group, event="push") == "riva-gateway-refs/heads/main"
    for stage in STEPS:
        at_once = stage in AT_ONCE
        assert evaluated(group, stage=stage) == f"riva-gateway-{'4711' if at_once else 'production'}", stage
        assert evaluated(environment, stage=stage) == f"production{'-abort' if at_once else ''}", stage


def test_at_gitlab_they_wait_for_nobody_either() -> None:
    jobs = {job["variables"].get("STEP"): job for name, job in gitlab().items() if name not in RESERVED}
    for step in STEPS:
        job = jobs[step]
        assert ("resource_group" in job) == (step not in AT_ONCE), step
        assert job["environment"]["name"] == f"production{'-abort' if step in AT_ONCE else ''}", step
        # Without it a pipeline whose staging failed has no way back.
        assert (job.get("needs") == []) == (step in AT_ONCE | {"rollback"}), step
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert "`production-abort` has the same variables and no reviewer" in readme


def typed(text: str, folder: Path, programs: Mapping[str, str], **env: str) -> tuple[int, list[str]]:
    """A job's shell, as its host runs it, in a folder where every program only writes down how it was called.

    Args:
        programs: what each does then, in shell, by its path in the folder; those in bin/ are on the PATH.
    """
    for name, does in programs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name.split("/")[-1]} $*" >> {folder}/calls\n{does}\n')
        path.chmod(0o755)
    ended = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text],
        cwd=folder,
        env={"PATH": f"{folder}/bin:/usr/bin:/bin", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return ended.returncode, (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("worse", ["", "riva-080-smoke-test.sh", "release-gate.sh", "riva-140-upgrade.sh", "make"])
def test_gitlab_takes_staging_back_where_something_after_the_upgrade_fails(worse: str, tmp_path: Path) -> None:
    text = "\n".join(gitlab()["staging"]["script"])
    paths = ["bin/make", *(script for script, _ in called(text))]
    status, calls = typed(text, tmp_path, dict.fromkeys(paths, f'[ "${{0##*/}}" != "{worse}" ]'))
    assert (status == 0) == (worse == "")
    back = "riva-140-upgrade.sh --rollback gateway --yes" in calls
    assert back == (worse in ("riva-080-smoke-test.sh", "release-gate.sh"))
    assert calls[0] == "make setup"  # which may fail, too: before anything is changed


def test_github_takes_staging_back_where_something_after_the_upgrade_fails() -> None:
    steps = github()["jobs"]["staging"]["steps"]
    names = [step.get("name") for step in steps]
    deploy, back = names.index("Deploy"), names.index("Back")
    assert names[deploy + 1 : back] == ["Smoke test", "Release gate"]
    assert steps[deploy]["id"] == "deploy"
    assert steps[back]["if"] == "failure() && steps.deploy.outcome == 'success'"
    assert any("make setup" in step.get("run", "") for step in steps[:deploy])


@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_the_cluster_gets_the_image_by_its_digest(host: str, tmp_path: Path) -> None:
    digest = f"sha256:{'0123456789abcdef' * 4}"
    env = {"IMAGE": "registry/gateway", "CLUSTER": "speech", "NAMESPACE": "talk", "VALUES": "mine.yaml"}
    env |= {"ECR_REGISTRY": "registry", "ECR_REPOSITORY": "gateway", "EKS_CLUSTER": "speech"}
    env |= {"HELM_NAMESPACE": "talk", "HELM_VALUES": "mine.yaml", "DIGEST": digest}
    job = github()["jobs"]["kubernetes"] if host == "github" else gitlab()["kubernetes"]
    text = job["steps"][-1]["run"] if host == "github" else "\n".join(job["script"])
    status, calls = typed(text, tmp_path, {"bin/aws": "", "bin/helm": ""}, **env)
    assert (status, calls[0]) == (0, "aws eks update-kubeconfig --name speech")
    chart = "helm upgrade --install riva-gateway scripts/kubernetes/riva-gateway --namespace talk --values mine.yaml "
    image = f"--set image.repository=registry/gateway --set image.digest={digest} "
    assert calls[1:] == [f"{chart}{image}--atomic --timeout 15m"]
    values = dict(pair.split("=") for pair in re.findall(r"--set image\.(\S+)", calls[1]))
    assert pod(with_least(image=values))["containers"][0]["image"] == f"registry/gateway@{digest}"


ECR = """
case "$2" in
describe-images)
    [ -e pushed ] || { echo 'An error occurred (ImageNotFoundException) when calling DescribeImages' >&2; exit 254; }
    echo sha256:1 ;;
get-login-password) echo of-an-hour ;;
esac
"""


def test_an_image_is_pushed_once(tmp_path: Path) -> None:
    script = str(FOLDER / "release-image.sh")
    env = {"ECR_REGISTRY": "1234.dkr.ecr.test", "ECR_REPOSITORY": "gateway", "AWS_REGION": "us-east-1"}
    programs = {"bin/aws": ECR, "bin/docker": 'case "$1" in login) cat ;; push) touch pushed ;; esac'}
    text = f"{script} --tag abc > digest; {script} --tag abc > again; {script} --tag abc --dry-run"
    status, calls = typed(text, tmp_path, programs, **env)
    assert (status, (tmp_path / "digest").read_text(), (tmp_path / "again").read_text()) == (
        0,
        "sha256:1\n",
        "sha256:1\n",
    )
    assert calls.count("docker push 1234.dkr.ecr.test/gateway:abc") == 1
    assert sum("docker build" in call for call in calls) == 1
    assert "of-an-hour" not in str(calls)


@pytest.mark.parametrize(
    ("aws", "given", "wanted"),
    [
        ("echo 'An error occurred (AccessDeniedException)' >&2; exit 254", ["--tag", "abc"], 1),
        ("", [], 2),
    ],
)
def test_an_image_that_nobody_knows_of_is_not_pushed(aws: str, given: list[str], wanted: int, tmp_path: Path) -> None:
    (tmp_path / "calls").touch()
    env = {"ECR_REGISTRY": "1234.dkr.ecr.test", "ECR_REPOSITORY": "gateway"}
    text = " ".join([str(FOLDER / "release-image.sh"), *given])
    status, calls = typed(text, tmp_path, {"bin/aws": aws, "bin/docker": ""}, **env)
    assert status == wanted
    assert not any(call.startswith("docker") for call in calls)


def test_the_steps_are_those_of_the_plan() -> None:
    offered = github()["on"]["workflow_dispatch"]["inputs"]["stage"]["options"]
    variables = [job["variables"] for name, job in gitlab().items() if name not in RESERVED]
    jobs = [each["STEP"] for each in variables if "STEP" in each]
    said = (FOLDER / "canary.sh").read_text("utf-8")
    known = re.findall(r"One of: ([^\"]*)\"", said)
    assert set(offered) == set(jobs) == set(known[0].split())
    assert offered == STEPS


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


@pytest.mark.parametrize(
    ("percents", "step", "status"),
    [
        ((0, 0), "5", 0),  # the plan: where streams are few
        ((5, 25), "25", 0),  # one gateway did not answer the last time
        ((1, 1), "100", 2),
        ((0, 5), "25", 2),
        ((25, 25), "100", 2),
        ((25, 25), "5", 2),
    ],
)
def test_steps_are_taken_in_their_order(percents: tuple[int, int], step: str, status: int, place: Place) -> None:
    told = [json.dumps({"canary_percent": percent, "canary": {"verdict": "good"}}) for percent in percents]
    program = place.root / "programs" / "says-its-percent"
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in *canary*) ;; *first*) echo '{told[0]}' ;; *) echo '{told[1]}' ;; esac\n"
    )
    program.chmod(0o755)
    both = ("--gateways", "https://first, https://second")
    done = place.run("canary.sh", step, "--reason", "x", *both, DEPLOY_GATEWAY_COMMAND=str(program))
    assert done.returncode == status, done.stderr
    assert ("% of the streams" in done.stderr) == bool(status)


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


def test_the_former_nim_comes_back_whoever_does_not_answer(place: Place) -> None:
    program = place.root / "programs" / "one-is-gone"
    program.write_text('#!/bin/sh\ncase "$*" in *gone*) exit 3 ;; esac\n')
    program.chmod(0o755)
    both = ("--gateways", "https://gone,https://here")
    gone = {"DEPLOY_GATEWAY_COMMAND": str(program)}
    done = place.run("canary.sh", "rollback", "--reason", "x", *both, **gone)
    assert (done.returncode, place.upgraded()) == (1, ["--rollback nim --deployment prod --yes"])
    assert "not done at https://gone" in done.stderr
    done = place.run("canary.sh", "rollback", "--reason", "x", *both, **gone, DEPLOY_STATUS="2")
    assert (done.returncode, len(place.upgraded())) == (2, 1)


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


def test_the_release_gate_is_open_where_every_gateway_passes(place: Place) -> None:
    program = place.root / "programs" / "hears"
    program.write_text('#!/bin/sh\necho "$3 $9"\n[ "$3" != https://deaf:8443 ]\n')
    program.chmod(0o755)
    gate = {"DEPLOY_GATEWAY_COMMAND": str(program)}
    done = place.run("release-gate.sh", "--server", "https://one:8443,https://two:8443", **gate)
    assert (done.returncode, done.stdout) == (
        0,
        "https://one:8443 ./golden-one-8443.json\nhttps://two:8443 ./golden-two-8443.json\n",
    )
    done = place.run("release-gate.sh", "--server", "https://deaf:8443,https://two:8443", **gate)
    assert (done.returncode, done.stdout.count("\n")) == (1, 2)
    assert "the release gate is shut: https://deaf:8443" in done.stderr
    for path in (GITHUB, GITLAB):
        assert "golden*" in path.read_text("utf-8")
