"""compose.yaml: right by its schema, confined, without secrets; and what it starts works together, really started."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from cryptography import x509

import compose_stack
import rules
from compose_stack import Stack, document, interpolated, mounts
from e2e.monitors import until
from e2e.warm_command import warm_command
from server.serve import ENGINE_CLOSE_TIMEOUT_S
from server.settings import ServerSettings

GLUE = rules.ROOT / "scripts" / "compose"
SERVICES: dict[str, Any] = document()["services"]
ENDLESS = {name: service for name, service in SERVICES.items() if name != "keys"}
NIM = {"COMPOSE_PROFILES": "nim", "DEPLOY_TARGET": "gateway"}


# --- the file


def test_it_is_what_the_specification_says() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [str(checker), "--builtin-schema", "vendor.compose-spec", str(compose_stack.FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("text", "env", "wanted"),
    [
        ("${A:-b}:1", {}, "b:1"),
        ("${A:-b}", {"A": ""}, "b"),
        ("${A-b}", {"A": ""}, ""),
        ("${A:+x}${A+y}", {"A": ""}, "y"),
        ("${A:-${B:+nim:50051}}", {"B": "nim"}, "nim:50051"),
    ],
)
def test_variables_are_put_in(text: str, env: dict[str, str], wanted: str) -> None:
    assert interpolated(text, env) == wanted


def test_without_a_word_it_is_the_laptop() -> None:
    assert "profiles" not in SERVICES["gateway"]
    assert SERVICES["nim"]["profiles"] == ["nim"]
    assert SERVICES["gateway"]["build"]["target"] == "laptop"
    assert SERVICES["gateway"]["environment"]["RIVA_ENDPOINTS"] == ""
    assert SERVICES["keys"]["image"] == SERVICES["gateway"]["image"] == "riva-gateway:laptop"
    assert SERVICES["keys"]["pull_policy"] == SERVICES["gateway"]["pull_policy"] == "never"
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (rules.ROOT / "Dockerfile").read_text("utf-8"), re.M)
    assert {"laptop", "gateway"} <= set(targets)


def test_one_line_makes_it_a_nim() -> None:
    gateway = document({"COMPOSE_PROFILES": "nim"})["services"]["gateway"]
    assert gateway["environment"]["RIVA_ENDPOINTS"] == "nim:50051"
    elsewhere = document(NIM | {"RIVA_ENDPOINTS": "riva-1.example.com:50051"})["services"]["gateway"]
    assert elsewhere["environment"]["RIVA_ENDPOINTS"] == "riva-1.example.com:50051"
    assert elsewhere["build"]["target"] == "gateway"


def test_every_mounted_file_is_there_and_every_volume_is_declared() -> None:
    declared = set(document()["volumes"])
    used = set()
    for name, service in SERVICES.items():
        for source, target, read_only in mounts(service):
            if source.startswith("./"):
                assert (rules.ROOT / source).exists(), f"{name}: {source}"
                assert read_only, f"{name}: {source}"
            else:
                used.add(source)
            assert target.startswith("/")
    assert used == declared


def test_what_runs_is_confined() -> None:
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"] == {"driver": "json-file", "options": {"max-size": "50m", "max-file": "5"}}, name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert "privileged" not in service
        assert not any("docker.sock" in source for source, _, _ in mounts(service)), name
        if name != "nim":  # NVIDIA's image writes where it likes
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
    assert {name for name, service in SERVICES.items() if "cap_add" in service} == {"keys"}
    assert SERVICES["keys"]["network_mode"] == "none"
    assert SERVICES["keys"]["restart"] == "no"


def test_images_are_pinned_and_all_are_looked_after() -> None:
    for name, service in ENDLESS.items():
        tag = service["image"].rpartition(":")[2]
        assert tag != "latest", name
        assert re.search(r"\d", tag) or name == "gateway", name
        assert service["restart"] == "unless-stopped", name
        assert name == "gateway" or service["healthcheck"]["test"][0] == "CMD", name
    assert "HEALTHCHECK" in (rules.ROOT / "Dockerfile").read_text("utf-8")
    assert "healthcheck" not in SERVICES["gateway"]


def test_only_the_gateway_can_be_reached_from_elsewhere() -> None:
    for name, service in SERVICES.items():
        hosts = {port.split(":")[0] for port in service.get("ports", [])}
        assert hosts == {"gateway": {"0.0.0.0"}, "keys": set(), "nim": set()}.get(name, {"127.0.0.1"}), name
    assert SERVICES["nim"]["networks"] == ["speech"]
    assert SERVICES["gateway"]["environment"]["AUTH"] == "on"
    assert SERVICES["gateway"]["environment"]["GRPC_TLS"] == "on"


def test_the_gateway_may_finish_its_streams() -> None:
    seconds = int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
    default = ServerSettings()
    assert seconds * 1000 > default.drain_delay_ms + default.drain_timeout_ms + ENGINE_CLOSE_TIMEOUT_S * 1000
    longer = document({"DEPLOY_STOP_GRACE": "135s"})["services"]["gateway"]
    assert longer["stop_grace_period"] == "135s"
    image = (rules.ROOT / "docs" / "image.md").read_text("utf-8")
    assert f"--stop-timeout {seconds} " in image
    assert f"say {seconds}." in image


def test_every_setting_exists() -> None:
    known = set(ServerSettings.known_keys())
    assert set(SERVICES["gateway"]["environment"]) <= known
    assert set(SERVICES["keys"]["environment"]) <= known
    assert SERVICES["keys"]["environment"]["TLS_NAMES"] == SERVICES["gateway"]["environment"]["TLS_NAMES"]


def test_nothing_secret_stands_in_it() -> None:
    text = compose_stack.FILE.read_text("utf-8")
    for key in ServerSettings.secret_keys():
        assert not re.search(rf"^ *-? *{key}[:=]", text, re.M), key
    assert SERVICES["nim"]["env_file"] == [{"path": "./scripts/compose/secrets/ngc.env", "required": False}]
    assert "*\n" in (GLUE / "secrets" / ".gitignore").read_text("utf-8")
    assert [path.name for path in (GLUE / "secrets").iterdir() if path.name != "ngc.env"] == [".gitignore"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [('{"ready": true}', 0), ('{"status": "ready"}', 0), ('{"ready": false}', 1), ('{"status": "loading"}', 1)],
)
def test_the_nim_s_health_is_understood_in_both_forms(answer: str, status: int) -> None:
    kind, python, flag, script = SERVICES["nim"]["healthcheck"]["test"]
    assert (kind, python, flag) == ("CMD", "python3", "-c")
    assert SERVICES["nim"]["healthcheck"]["start_period"] == "2400s"
    heard = f"import io, urllib.request; urllib.request.urlopen = lambda url, timeout: io.StringIO('{answer}')\n"
    done = subprocess.run([sys.executable, "-c", heard + script], timeout=20, check=False)
    assert done.returncode == status


def test_the_gpu_is_asked_for() -> None:
    nim = SERVICES["nim"]
    (device,) = nim["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    assert nim["shm_size"] == "8gb"
    default = document({"DEPLOY_NIM_TAGS_SELECTOR": ""})["services"]["nim"]["environment"]["NIM_TAGS_SELECTOR"]
    assert default == ""  # some images have one model and want no selector


def test_the_default_nim_is_that_of_the_table() -> None:
    header, *rows = (rules.ROOT / "scripts/lib/nim-profiles.tsv").read_text("utf-8").splitlines()
    row = dict(zip(header.split("\t"), rows[0].split("\t"), strict=True))
    assert SERVICES["nim"]["image"] == f"{row['image']}:{row['tag']}"
    assert SERVICES["nim"]["environment"]["NIM_TAGS_SELECTOR"] == row["selector"]


# --- no drift from scripts/monitoring


def test_prometheus_differs_from_the_example_in_addresses_and_files_alone() -> None:
    mine = yaml.safe_load((GLUE / "prometheus.yml").read_text("utf-8"))
    example = rules.document("prometheus.yml")
    for config in (mine, example):
        config["alerting"]["alertmanagers"][0]["static_configs"][0].pop("targets")
        scrape = config["scrape_configs"][0]
        scrape["static_configs"][0].pop("targets")
        scrape["authorization"].pop("credentials_file")
        scrape["tls_config"].pop("ca_file")
    assert mine == example
    mounted = {Path(target).name for _, target, _ in mounts(SERVICES["prometheus"])}
    assert set(mine["rule_files"]) <= mounted


def test_alertmanager_differs_from_the_example_in_whom_it_tells() -> None:
    mine = yaml.safe_load((GLUE / "alertmanager.yml").read_text("utf-8"))
    example = rules.document("alertmanager.yml")
    receivers = mine.pop("receivers")
    assert receivers == [{"name": each["name"]} for each in example.pop("receivers")]
    assert mine == example


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    mine = yaml.safe_load((GLUE / "grafana" / "datasource.yml").read_text("utf-8"))
    example = rules.document("grafana/datasource.yml")
    assert mine["datasources"][0].pop("url") == "http://prometheus:9090"
    example["datasources"][0].pop("url")
    assert mine == example
    targets = {target for _, target, _ in mounts(SERVICES["grafana"])}
    folder = rules.document("grafana/dashboards.yml")["providers"][0]["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in targets
    assert home.startswith(folder + "/")
    assert "/etc/grafana/provisioning/datasources/datasource.yml" in targets
    assert "/etc/grafana/provisioning/dashboards/dashboards.yml" in targets
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert not {"GF_SECURITY_ADMIN_PASSWORD", "GF_SECURITY_SECRET_KEY"} & set(environment)


# --- the document


def test_the_document_tells_of_every_variable_and_of_no_other() -> None:
    text = (rules.ROOT / "docs" / "docker.md").read_text("utf-8")
    used = set(re.findall(r"\$\{(DEPLOY_\w+)", compose_stack.FILE.read_text("utf-8")))
    assert set(re.findall(r"`(DEPLOY_\w+)`", text)) == used
    assert set(re.findall(r"(DEPLOY_\w+)", text)) == used
    given = set(SERVICES["gateway"]["environment"]) - {"TLS_NAMES", "RIVA_ENDPOINTS", "LOG_FORMAT"}
    sentence = re.search(r"Those of the container itself \((.*?)\) are given", text)
    assert sentence
    assert set(re.findall(r"`(\w+)`", sentence[1])) == given


def test_what_the_document_reads_in_containers_is_there() -> None:
    text = (rules.ROOT / "docs" / "docker.md").read_text("utf-8")
    found = re.findall(r"docker compose exec (?:--no-TTY )?(\w+) (\S+)(?: (/\S+))?", text)
    assert len(found) >= 7
    for service, program, path in found:
        assert program in ("cat", "riva-gateway")
        if path:
            mounted = [target for _, target, _ in mounts(SERVICES[service])]
            assert any(path.strip("`").startswith(target + "/") for target in mounted), path
    for name in re.findall(r"docker compose (?:logs|up)[^`\n]*? (keys|gateway|nim)\b", text):
        assert name in SERVICES


def test_the_document_starts_again_what_does_not_see_new_files() -> None:
    text = (rules.ROOT / "docs" / "docker.md").read_text("utf-8")
    blind = [
        name
        for name, service in SERVICES.items()
        if name != "keys" and any(source.startswith("./") for source, _, _ in mounts(service))
    ]
    restart = f"`docker compose restart {' '.join(blind)}`"
    (update,) = (line for line in text.splitlines() if "`git pull`" in line)
    assert restart in update
    assert "`docker compose restart alertmanager`" in text


def test_what_is_copied_is_not_written_to_meanwhile() -> None:
    text = (rules.ROOT / "docs" / "docker.md").read_text("utf-8")
    (row,) = (line for line in text.splitlines() if "a copy of what it keeps" in line)
    commands = re.findall(r"`(docker [^`]*)`", row)
    assert [command.split(" ")[1:3] for command in commands] == [
        ["compose", "stop"],
        ["run", "--rm"],
        ["compose", "start"],
    ]


# --- really started


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    given = folder / "given"
    given.mkdir()
    (given / "JOBS_WEBHOOK_SECRET").write_text("signs-what-webhooks-are-sent\n")
    (given / "ngc.env").write_text("NGC_API_KEY=made-up\n")
    with warm_command(folder) as commands:
        stack = Stack(folder, {"DEPLOY_SECRETS": str(given), "TLS_NAMES": "speech.example.com"}, commands=commands)
        with closing(stack):
            stack.up()
            yield stack


def test_keys_open_what_they_are_for_and_nothing_else(stack: Stack) -> None:
    first = stack.path("gateway", "/run/secrets/first-app-key").read_text()
    ops = stack.path("gateway", "/run/secrets/ASR_API_KEY").read_text()
    metrics = stack.path("prometheus", "/run/secrets/metrics-key").read_text()
    assert stack.asked("/v1/models") == 401
    assert [stack.asked("/v1/models", key.strip()) for key in (first, ops, metrics)] == [200, 200, 403]
    assert [stack.asked("/metrics", key.strip()) for key in (first, ops, metrics)] == [403, 200, 200]
    assert [stack.asked("/admin/rollout", key.strip()) for key in (first, ops, metrics)] == [403, 200, 403]


async def test_prometheus_has_figures_rules_and_an_alertmanager(stack: Stack) -> None:
    prometheus = stack.prometheus

    async def scraped() -> bool:
        try:
            return [value for _, value in await prometheus.values('up{job="riva-gateway"}')] == [1]
        except OSError:
            return False

    await until("Prometheus has figures", scraped)
    assert await prometheus.values("riva_gateway_info")
    groups = (await prometheus.ask("/api/v1/rules"))["groups"]
    names = {rule["name"] for group in groups for rule in group["rules"]}
    assert {alert.name for alert in rules.alerts()} | set(rules.recorded()) <= names

    async def found() -> bool:
        return bool((await prometheus.ask("/api/v1/alertmanagers"))["activeAlertmanagers"])

    await until("Prometheus knows Alertmanager", found)
    url = f"http://127.0.0.1:{stack.env['DEPLOY_ALERTMANAGER_PORT']}"
    added = ["amtool", f"--alertmanager.url={url}", "alert", "add", "alertname=Test", "severity=page", "job=x"]
    subprocess.run(added, check=True, capture_output=True, timeout=20)
    asked = subprocess.run(["amtool", f"--alertmanager.url={url}", "alert"], capture_output=True, text=True, timeout=20)
    assert "Test" in asked.stdout


def test_what_lies_in_the_volumes_is_private(stack: Stack) -> None:
    for name in ("gateway-secrets", "prometheus-secrets", "grafana-secrets"):
        folder = stack.folder / "volumes" / name
        assert folder.stat().st_mode & 0o077 == 0
        assert list(folder.iterdir())
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o777 == 0o400, path
    passwords = {path.read_text() for path in (stack.folder / "volumes" / "grafana-secrets").iterdir()}
    assert len(passwords) == 2
    assert min(map(len, passwords)) >= 32
    for variable, value in SERVICES["grafana"]["environment"].items():
        if variable.endswith("__FILE"):
            assert stack.path("grafana", value).is_file()


def test_the_certificate_is_for_its_neighbours_and_for_the_names_that_were_given(stack: Stack) -> None:
    content = stack.path("prometheus", "/run/secrets/gateway-ca.pem").read_bytes()
    assert b"PRIVATE" not in content
    certificate = x509.load_pem_x509_certificate(content)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "gateway", "speech.example.com"} <= set(names.get_values_for_type(x509.DNSName))


def test_once_more_nothing_is_made_anew(stack: Stack) -> None:
    def contents() -> dict[str, bytes]:
        found = (path for path in (stack.folder / "volumes").glob("*-secrets/*"))
        return {str(path): path.read_bytes() for path in found}

    before = contents()
    assert any(path.endswith("/JOBS_WEBHOOK_SECRET") for path in before)
    assert not any("ngc" in path for path in before)
    assert stack.make_keys() == "handed on JOBS_WEBHOOK_SECRET\n"
    assert contents() == before


def test_a_key_that_was_revoked_is_made_anew_and_what_is_taken_away_is_gone(stack: Stack) -> None:
    metrics = stack.path("prometheus", "/run/secrets/metrics-key")
    before = metrics.read_text()
    environment = stack.gateway_env()
    command = [str(stack.commands / "riva-gateway"), "key", "revoke", "prometheus"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=30)
    (stack.folder / "given" / "JOBS_WEBHOOK_SECRET").unlink()
    said = stack.make_keys()
    assert said == "made the key prometheus\n"
    assert metrics.read_text() != before
    assert not stack.path("gateway", "/run/secrets/JOBS_WEBHOOK_SECRET").exists()


def test_a_file_that_is_no_secret_is_told_by_its_name(stack: Stack) -> None:
    wrong = stack.folder / "given" / "RIVA_API_KEI"
    wrong.write_text("hidden-value")
    try:
        with pytest.raises(AssertionError, match=r"RIVA_API_KEI is no secret setting") as told:
            stack.make_keys()
    finally:
        wrong.unlink()
    assert "hidden-value" not in str(told.value)


def test_no_secret_is_logged(stack: Stack) -> None:
    said = stack.make_keys() + "".join(path.read_text("utf-8", "replace") for path in stack.folder.rglob("*.log"))
    for path in (stack.folder / "volumes").glob("*-secrets/*"):
        if path.suffix != ".pem":
            assert path.read_text().strip() not in said, path
    assert json.loads(stack.log("gateway").splitlines()[-1])
