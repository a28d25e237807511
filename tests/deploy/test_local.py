"""The scripts for a machine without AWS: on stand-ins for docker and nvidia-smi, over what compose.yaml starts."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import rules
from docker_standin import MONITORS, NGC_KEY, Faults, Machine, machine
from e2e.warm_command import warm_command

SCRIPTS = sorted((rules.ROOT / "scripts").glob("riva-2*.sh"))
PREFLIGHT, UP, SMOKE, STATUS, DOWN = (
    f"riva-{name}.sh"
    for name in ("200-local-preflight", "210-local-up", "220-local-smoke-test", "230-local-status", "290-local-down")
)
Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    with warm_command(folder) as commands, machine(folder, commands) as place:
        yield place


@pytest.fixture
def place(one_machine: Machine) -> Iterator[Machine]:
    """The machine as it was delivered, without a stack."""
    yield one_machine
    one_machine.end()
    one_machine.faults = Faults()
    for kept in (one_machine.argv, one_machine.images, one_machine.volumes, one_machine.rows):
        kept.clear()
    for path in Path(one_machine.env["DEPLOY_SECRETS"]).iterdir():
        path.unlink()


def key_file(place: Machine, text: str = NGC_KEY + "\n") -> str:
    path = place.folder / "ngc-key"
    path.write_text(text)
    return str(path)


def ended(done: Ended, status: int, *said: str) -> None:
    assert done.returncode == status, done.stderr
    for words in said:
        assert words in done.stderr, done.stderr
    assert "stand-in failed" not in done.stderr


def restarts(place: Machine) -> list[list[str]]:
    """The services of each `docker compose restart`."""
    return [words[words.index("restart") + 1 :] for words in place.argv if "restart" in words]


# --- what all of them promise


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_says_what_it_does_and_has_no_region(script: Path) -> None:
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("--deployment NAME", "--dry-run", "--yes"):
        assert flag in done.stdout
    assert "--region" not in done.stdout
    assert "AWS region" not in done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_unknown_flags_change_nothing(script: Path, place: Machine) -> None:
    ended(place.run(script.name, "--no-such"), 2, "'--no-such' is not known")
    ended(place.run(script.name, "--region", "us-east-1"), 2, "'--region' is not known")
    assert place.argv == []


def test_the_scripts_are_these() -> None:
    assert [path.name for path in SCRIPTS] == [PREFLIGHT, UP, SMOKE, STATUS, DOWN]


# --- the preflight


def test_a_good_machine_passes(place: Machine) -> None:
    done = place.run(PREFLIGHT, "--from-file", key_file(place))
    ended(done, 0, "NVIDIA L4, 23034 MiB, compute capability 8.9, driver 560.35.03", "nothing stands in the way")


def test_without_a_gpu_none_is_looked_for(place: Machine) -> None:
    place.faults.gpu, place.faults.runtimes = "", ("runc",)
    ended(place.run(PREFLIGHT, "--no-gpu"), 0)
    assert not [words for words in place.argv if words[0] == "nvidia-smi"]


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (Faults(docker_is_down=True), "docker does not answer"),
        (Faults(no_compose=True), "docker has no 'compose'"),
        (Faults(no_buildx=True), "docker has no 'buildx'"),
        (Faults(compose_version="2.20.3"), "docker compose is 2.20.3, and 2.24 or newer is needed"),
        (Faults(gpu=""), "this machine shows no NVIDIA GPU 0"),
        (Faults(gpu="NVIDIA L4, 525.147.05, 23034, 8.9"), "the driver is 525.147.05, and 535 or newer is needed"),
        (Faults(gpu="Tesla T4, 560.35.03, 16384, 7.5"), "has compute capability 7.5"),
        (Faults(gpu="NVIDIA RTX A2000, 560.35.03, 6138, 8.6"), "has 6138 MiB of memory; 'rnnt' wants 16000"),
        (Faults(runtimes=("runc",)), 'it has no runtime "nvidia"'),
    ],
    ids=lambda value: "" if isinstance(value, Faults) else value[:30],
)
def test_what_is_wrong_is_said(faults: Faults, said: str, place: Machine) -> None:
    place.faults = faults
    ended(place.run(PREFLIGHT, "--from-file", key_file(place)), 2, said)


def test_everything_that_is_wrong_is_said_at_once(place: Machine) -> None:
    place.faults = Faults(gpu="Tesla T4, 470.1, 15360, 7.5", runtimes=())
    done = place.run(PREFLIGHT, "--profile", "no-such")
    ended(done, 2, "driver is 470.1", "capability 7.5", "15360 MiB", "no runtime", "no profile 'no-such'", "no NGC key")


@pytest.mark.parametrize("text", ["", "nvapi-with-marks-of-another-kind!\n", "nvapi-short\n"])
def test_a_file_without_a_key_is_refused(text: str, place: Machine) -> None:
    ended(place.run(PREFLIGHT, "--from-file", key_file(place, text)), 2, "does not look like an NGC key")


def test_a_port_that_is_taken_is_named_with_the_variable(place: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended(place.run(PREFLIGHT, "--no-gpu", DEPLOY_GRAFANA_PORT=port), 2, f"port {port} is taken", "DEPLOY_…PORT")


@pytest.mark.parametrize(
    ("grace", "drain", "said"),
    [
        ("", {"DRAIN_TIMEOUT_MS": "120000"}, "after 40 seconds, and its streams may take 130"),
        ("", {"DRAIN_DELAY_MS": "5500", "DRAIN_TIMEOUT_MS": "25000"}, "DEPLOY_STOP_GRACE=41s"),
        ("1m30s", {"DRAIN_TIMEOUT_MS": "90000"}, "after 90 seconds"),
    ],
)
def test_streams_that_docker_would_cut_off_are_said(
    grace: str, drain: dict[str, str], said: str, place: Machine
) -> None:
    place.faults.drain = drain
    ended(place.run(PREFLIGHT, "--no-gpu", DEPLOY_STOP_GRACE=grace), 2, said)
    ended(place.run(PREFLIGHT, "--no-gpu", DEPLOY_STOP_GRACE="2m10s"), 0)


def test_a_full_disk_is_said(place: Machine) -> None:
    ended(place.run(PREFLIGHT, "--no-gpu", DEPLOY_LEAST_GB="999999"), 2, "999999 GB are needed")


def test_the_classic_riva_is_not_for_here(place: Machine) -> None:
    done = place.run(PREFLIGHT, "--profile", "classic", "--from-file", key_file(place))
    ended(done, 2, "for the scripts on AWS alone")


def test_what_the_env_file_says_holds_for_the_scripts_too(place: Machine, tmp_path: Path) -> None:
    lines = tmp_path / "env"
    lines.write_text(
        "DEPLOY_NAME='other' # ours\n#DEPLOY_GPU=7\nexport DEPLOY_LEAST_GB=999998  # much\nLOG_FORMAT=text\n"
    )
    kept = {key: value for key, value in place.env.items() if key != "DEPLOY_LEAST_GB"}
    place.env, before = kept, place.env
    try:
        ended(place.run(STATUS, DEPLOY_ENV_FILE=str(lines)), 3, "nothing of 'other' is here")
        ended(place.run(STATUS, DEPLOY_ENV_FILE=str(lines), DEPLOY_NAME="third"), 3, "nothing of 'third' is here")
        ended(place.run(PREFLIGHT, "--no-gpu", DEPLOY_ENV_FILE=str(lines)), 2, "999998 GB are needed")
    finally:
        place.env = before


# --- up, and what comes after


def test_a_laptop_from_nothing_to_nothing(place: Machine) -> None:
    ended(place.run(STATUS), 3, "nothing of 'riva' is here")
    ended(place.run(SMOKE), 3, "does not run")

    up = place.run(UP, "--no-gpu")
    ended(up, 0, "first key", "riva-220-local-smoke-test.sh")
    assert up.stdout == f"https://localhost:{place.env['DEPLOY_PORT']}\n"
    assert place.rows == ["riva-gateway:laptop"]
    assert restarts(place) == []
    ended(place.run(UP, "--no-gpu"), 0, "the stack runs already", "started again")
    assert restarts(place) == [sorted(MONITORS)]

    smoke = place.run(SMOKE)
    ended(smoke, 0, "HTTP: ", "WebSocket: ", "gRPC: ", "without one: 401", "Prometheus reads the figures", "It works.")
    status = place.run(STATUS)
    ended(status, 0)
    assert "Serving" in status.stdout

    silence = place.folder / "nothing.wav"
    silence.write_bytes(b"no sound at all")
    place.faults.no_prometheus = True
    broken = place.run(SMOKE, "--file", str(silence), DEPLOY_SCRAPE_LIMIT_S="0")
    ended(broken, 1, "a recording over HTTP: 4", "WebSocket: no words", "has no figures", "does not know the alerts")
    ended(place.run(SMOKE, "--file", "/not/there.wav"), 2, "cannot be read")

    assert place.stack is not None
    first = place.stack.path("gateway", "/run/secrets/first-app-key").read_text().strip()
    for done in (up, smoke, status):
        assert first not in done.stdout + done.stderr
    assert first not in str(place.argv)

    ended(place.run(DOWN), 0, "containers and networks are gone")
    assert place.rows[1:] == []
    ended(place.run(DOWN), 0)


def test_a_certificate_of_ones_own_is_not_taken_for_the_gateway_s(place: Machine) -> None:
    place.faults.certificate = "/tls/fullchain.pem"
    ended(place.run(UP, "--no-gpu"), 0, "first key")
    ended(place.run(SMOKE), 2, "a certificate of yours (TLS_CERT)", "transcribe --server")


def test_with_a_gpu_the_words_come_from_the_nim(place: Machine) -> None:
    done = place.run(UP, "--yes", given=NGC_KEY + "\n")
    ended(done, 0, "the NGC key, for the NIM alone", "fetched")
    assert place.images == {"nvcr.io/nim/nvidia/parakeet-1-1b-rnnt-multilingual:1.5.0"}
    assert place.volumes == {"riva_nim-cache_rnnt_1.5.0_8.9"}
    assert place.rows == ["riva-gateway:gateway"]
    kept = Path(place.env["DEPLOY_SECRETS"]) / "ngc.env"
    assert kept.read_text() == f"NGC_API_KEY={NGC_KEY}\n"
    assert kept.stat().st_mode & 0o777 == 0o600

    ended(place.run(SMOKE), 0, "you are listening to a scripted recognizer", "It works.")
    again = place.run(UP, "--yes")
    ended(again, 0, "the NGC key of before", "it is here already")

    assert NGC_KEY not in str(place.argv)
    assert NGC_KEY not in done.stdout + done.stderr + again.stderr
    assert [words[1] for words in place.argv].count("login") == 1

    ended(place.run(DOWN, "--wipe"), 2, "there is no terminal to answer on")
    assert kept.exists()
    ended(place.run(DOWN, "--wipe", "--yes"), 0, "what they kept is gone")
    assert not kept.exists()
    assert place.volumes == set()
    assert place.rows[1:] == ["volumes are gone"]


def test_dry_runs_change_nothing(place: Machine) -> None:
    ended(place.run(UP, "--dry-run", "--from-file", key_file(place)), 0, "docker pull", "docker compose up")
    ended(place.run(SMOKE, "--dry-run"), 0, "would send")
    ended(place.run(DOWN, "--wipe", "--dry-run"), 0, "docker compose down --remove-orphans --volumes")
    assert not {"up", "down", "login", "pull", "rm"} & {word for words in place.argv for word in words}
    assert not list(Path(place.env["DEPLOY_SECRETS"]).iterdir())


def test_a_preflight_that_fails_starts_nothing(place: Machine) -> None:
    place.faults.gpu = ""
    ended(place.run(UP, "--yes", "--from-file", key_file(place)), 2, "--no-gpu")
    assert not {"up", "login"} & {word for words in place.argv for word in words}


def test_a_key_that_the_registry_refuses(place: Machine) -> None:
    place.faults.wrong_key = True
    done = place.run(UP, "--yes", "--from-file", key_file(place))
    ended(done, 2, "registry does not take the key", "unauthorized", "org.ngc.nvidia.com")
    assert NGC_KEY not in done.stderr + str(place.argv)


def test_an_image_that_is_not_there(place: Machine) -> None:
    place.faults.pull_fails = True
    done = place.run(UP, "--yes", "--from-file", key_file(place))
    ended(done, 1, "the image could not be fetched", "manifest unknown")


def test_a_nim_that_is_never_ready(place: Machine) -> None:
    place.faults.nim = "running starting 0"
    done = place.run(UP, "--yes", "--from-file", key_file(place), DEPLOY_NIM_LIMIT_S="1")
    ended(done, 3, "the NIM is not ready within 1 second", "it is running, starting", "Run this again")


@pytest.mark.parametrize("state", ["exited - 0", "restarting unhealthy 3"])
def test_a_nim_that_does_not_stay_up(state: str, place: Machine) -> None:
    place.faults.nim = state
    done = place.run(UP, "--yes", "--from-file", key_file(place))
    ended(done, 1, "nim does not stay up", "Out of memory")


def test_services_that_do_not_start(place: Machine) -> None:
    place.faults.up_fails = True
    ended(place.run(UP, "--no-gpu"), 1, "failed to solve", "could not start them")


def test_nothing_is_left_in_the_folder_for_scratch(place: Machine, tmp_path: Path) -> None:
    place.run(UP, "--dry-run", given=NGC_KEY, TMPDIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
