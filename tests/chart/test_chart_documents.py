"""Every example of values: what Kubernetes would take of it, and what a pod may and may not."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]

from server.settings import ServerSettings

from .chart import CHART, EXAMPLES, LEAST, ROOT, env, notes, pod, rendered, values_of, with_least

VERSIONS = ("1.29", "1.32", "1.37")
CUSTOM = {
    *("Certificate", "ScaledObject", "ServiceMonitor", "PodMonitor", "PrometheusRule"),
    *("HTTPRoute", "GRPCRoute", "BackendTLSPolicy", "GCPBackendPolicy", "HealthCheckPolicy"),
}
examples = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def production() -> dict[str, Any]:
    return values_of(next(path for path in EXAMPLES if path.stem == "production"))


def documents(stem: str) -> dict[str, Any]:
    return rendered(values_of(next(path for path in EXAMPLES if path.stem == stem)))


def pods(of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for document in of.values():
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield document["spec"]["template"]["spec"]


# --- all of them


@examples
def test_kubernetes_takes_every_document(path: Path) -> None:
    checked = 0
    for name, document in rendered(values_of(path)).items():
        if document["kind"] in CUSTOM:
            assert set(document) == {"apiVersion", "kind", "metadata", "spec"}, name
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
        checked += 1
    assert checked >= 5


@examples
def test_helm_finds_nothing_to_say_against_it(path: Path) -> None:
    said = helm_python.lint(CHART, values_of(path), strict=True)
    assert said["errors"] == []
    assert [message["error"] for message in said["messages"]] == ["icon is recommended"]


@examples
def test_every_pod_is_as_restricted_as_it_can_be(path: Path) -> None:
    for spec in pods(rendered(values_of(path))):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False  # RIVA_PORT=tcp://… would be taken for a setting
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any(volume.keys() & {"hostPath"} for volume in spec["volumes"])
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            assert not re.search(r":latest$|^[^:@]+$", container["image"])
            shown = {mount["name"] for mount in container["volumeMounts"] if "subPath" in mount}
            assert shown <= {"cache"}  # a renewed Secret would never arrive there
    gateway = pod(values_of(path))
    assert gateway["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert gateway["securityContext"]["runAsNonRoot"] is True
    if path.stem == "restricted":
        assert not gateway["securityContext"].keys() & {"runAsUser", "runAsGroup", "fsGroup"}
    else:
        assert gateway["securityContext"]["runAsUser"] == gateway["securityContext"]["fsGroup"] == 10001


@examples
def test_a_pod_has_longer_than_its_streams(path: Path) -> None:
    spec = pod(values_of(path))
    said = env(values_of(path))
    pre_stop = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    drain_s = (int(said["DRAIN_DELAY_MS"]) + int(said["DRAIN_TIMEOUT_MS"])) / 1000
    assert spec["terminationGracePeriodSeconds"] >= pre_stop + drain_s + 15


@examples
def test_no_secret_is_among_the_values(path: Path) -> None:
    of = rendered(values_of(path))
    assert not any(name.startswith("Secret/") for name in of)
    secret = {key for key, shape in ServerSettings.model_fields.items() if "SecretStr" in str(shape.annotation)}
    assert len(secret) >= 8
    for spec in pods(of):
        for entry in spec["containers"][0]["env"]:
            assert entry["name"].lower() not in secret or entry.keys() == {"name", "valueFrom"}, entry


@examples
def test_what_is_mounted_is_there_and_what_is_named_is_mounted(path: Path) -> None:
    for spec in pods(rendered(values_of(path))):
        claimed = {"cache"} if spec["containers"][0]["name"] == "nim" else set()
        volumes = [volume["name"] for volume in spec["volumes"]]
        mounts = spec["containers"][0]["volumeMounts"]
        assert sorted({*volumes, *claimed}) == sorted(mount["name"] for mount in mounts)
        folders = [mount["mountPath"] for mount in mounts]
        for entry in spec["containers"][0]["env"]:
            value = entry.get("value", "")
            if value.startswith("/"):
                assert any(f"{value}/".startswith(f"{folder}/") for folder in folders), entry


@examples
def test_labels_lead_to_the_pods(path: Path) -> None:
    of = rendered(values_of(path))
    gateway = of["Deployment/riva-gateway"]["spec"]
    labels = gateway["template"]["metadata"]["labels"]
    assert gateway["selector"]["matchLabels"].items() <= labels.items()
    assert of["Service/riva-gateway"]["spec"]["selector"].items() <= labels.items()
    assert of["PodDisruptionBudget/riva-gateway"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert of["NetworkPolicy/riva-gateway"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    nim = of.get("StatefulSet/riva-gateway-nim")
    if nim is not None:
        nims = nim["spec"]["template"]["metadata"]["labels"]
        assert not of["Service/riva-gateway"]["spec"]["selector"].items() <= nims.items()
        assert of["PodDisruptionBudget/riva-gateway-nim"]["spec"]["selector"]["matchLabels"].items() <= nims.items()


# --- one by one


def test_it_is_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["name"], chart["appVersion"]) == (project["name"], project["version"])


def test_releases_do_not_take_each_others_names() -> None:
    assert "Deployment/speech-riva-gateway" in rendered(LEAST, name="speech")
    assert "Deployment/gw" in rendered(with_least(fullnameOverride="gw"))
    labels = [
        rendered(LEAST, name=name)[f"Deployment/{name}"]["spec"]["selector"]["matchLabels"]
        for name in ("riva-gateway", "riva-gateway-canary")
    ]
    assert labels[0] != labels[1]


def test_probes_ask_the_gateway_over_what_it_speaks() -> None:
    container = pod(LEAST)["containers"][0]
    for kind, path in {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}.items():
        assert container[kind]["httpGet"] == {"path": path, "port": "https", "scheme": "HTTPS"}
    plain = pod(with_least(tls={"mode": "none"}))["containers"][0]
    assert plain["readinessProbe"]["httpGet"]["scheme"] == "HTTP"
    assert env(with_least(tls={"mode": "none"}))["TLS"] == "off"


@pytest.mark.parametrize(
    ("values", "grpc"),
    [
        ({}, "kubernetes.io/h2c"),
        ({"tls": {"mode": "none"}}, "kubernetes.io/h2c"),
        ({"tls": {"mode": "secret", "secret": "own"}}, "https"),
        ({"tls": {"mode": "secret", "secret": "own"}, "settings": {"GRPC_TLS": "off"}}, "kubernetes.io/h2c"),
        ({"settings": {"GRPC_TLS": True}}, "https"),
    ],
)
def test_the_service_says_what_is_spoken(values: dict[str, Any], grpc: str) -> None:
    ports = {port["name"]: port for port in rendered(with_least(**values))["Service/riva-gateway"]["spec"]["ports"]}
    assert (ports["grpc"]["port"], ports["grpc"]["appProtocol"]) == (50052, grpc)
    assert ports["https"]["port"] == 8443


def test_without_grpc_there_is_no_such_port() -> None:
    of = rendered(with_least(grpc={"enabled": False}))
    assert [port["name"] for port in of["Service/riva-gateway"]["spec"]["ports"]] == ["https"]
    assert env(with_least(grpc={"enabled": False}))["GRPC_PORT"] == "off"


def test_an_upgrade_takes_no_gateway_away_before_another_is_ready() -> None:
    strategy = rendered(LEAST)["Deployment/riva-gateway"]["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    alone = rendered(with_least(persistence={"enabled": True}))["Deployment/riva-gateway"]["spec"]["strategy"]
    assert alone == {"type": "Recreate"}


@pytest.mark.parametrize("owner", ["hpa", "keda"])
def test_the_number_of_gateways_has_one_owner(owner: str) -> None:
    assert rendered(LEAST)["Deployment/riva-gateway"]["spec"]["replicas"] == 1
    of = rendered(with_least(autoscaling={owner: {"enabled": True}}))
    assert "replicas" not in of["Deployment/riva-gateway"]["spec"]
    if owner == "hpa":
        scaler = of["HorizontalPodAutoscaler/riva-gateway"]["spec"]
        behavior = scaler["behavior"]
        assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
        assert scaler["metrics"][0]["pods"]["metric"] == {"name": "riva_gateway_streams"}
    else:
        scaler = of["ScaledObject/riva-gateway"]["spec"]
        behavior = scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert (scaler["minReplicaCount"], scaler["maxReplicaCount"]) == (2, 10)
        assert scaler["triggers"][0]["metadata"]["threshold"] == "100"
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 600
    assert [policy["value"] for policy in behavior["scaleDown"]["policies"]] == [1]


def test_ingresses_let_long_streams_and_whole_uploads_through() -> None:
    of = documents("ingress-nginx")
    http, grpc = (of[f"Ingress/{name}"]["metadata"]["annotations"] for name in ("riva-gateway", "riva-gateway-grpc"))
    nginx = "nginx.ingress.kubernetes.io/"
    assert (http[nginx + "backend-protocol"], grpc[nginx + "backend-protocol"]) == ("HTTPS", "GRPCS")
    for said in (http, grpc):
        assert said[nginx + "proxy-read-timeout"] == said[nginx + "proxy-send-timeout"] == "3600"
        assert said["cert-manager.io/cluster-issuer"] == "letsencrypt"
    assert int(http[nginx + "proxy-body-size"]) == 67108864 + 1048576
    assert grpc[nginx + "proxy-body-size"] == "0"
    ingress = {"enabled": True, "host": "speech.example.com"}
    large = rendered(production() | {"gatewayApi": {}, "ingress": ingress})["Ingress/riva-gateway"]
    most = int(env(production())["JOBS_MAX_UPLOAD_BYTES"])
    assert int(large["metadata"]["annotations"][nginx + "proxy-body-size"]) > most


def test_an_annotation_of_ones_own_wins() -> None:
    mine = {"nginx.ingress.kubernetes.io/proxy-read-timeout": "60"}
    values = with_least(ingress={"enabled": True, "host": "speech.example.com", "annotations": mine})
    assert rendered(values)["Ingress/riva-gateway"]["metadata"]["annotations"].items() >= mine.items()


def test_an_aws_load_balancer_is_one_for_both_and_asks_each_for_its_health() -> None:
    of = documents("keda")
    alb = "alb.ingress.kubernetes.io/"
    http, grpc = (of[f"Ingress/{name}"]["metadata"]["annotations"] for name in ("riva-gateway", "riva-gateway-grpc"))
    assert http[alb + "group.name"] == grpc[alb + "group.name"]
    assert (http[alb + "healthcheck-path"], http[alb + "healthcheck-protocol"]) == ("/readyz", "HTTPS")
    assert (grpc[alb + "backend-protocol-version"], grpc[alb + "success-codes"]) == ("GRPC", "0")
    assert "idle_timeout.timeout_seconds=3600" in http[alb + "load-balancer-attributes"]


def test_routes_of_the_gateway_api() -> None:
    hosts = {"hostnames": ["speech.example.com"], "grpcHostnames": ["grpc.example.com"]}
    of = rendered(with_least(gatewayApi={"enabled": True, "parentRefs": [{"name": "edge"}], **hosts}))
    assert of["HTTPRoute/riva-gateway"]["spec"]["rules"][0]["timeouts"] == {"request": "0s"}
    assert of["GRPCRoute/riva-gateway-grpc"]["spec"]["rules"][0]["backendRefs"] == [
        {"name": "riva-gateway", "port": 50052}
    ]


def _ports(rules: list[dict[str, Any]]) -> set[Any]:
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_the_network_is_open_where_it_must_be_and_nowhere_else() -> None:
    least = rendered(LEAST)["NetworkPolicy/riva-gateway"]["spec"]
    assert _ports(least["egress"]) == {53, 5353, 50051}
    assert least["ingress"] == [
        {
            "from": [{"podSelector": {}}],
            "ports": [{"port": "https", "protocol": "TCP"}, {"port": "grpc", "protocol": "TCP"}],
        }
    ]
    full = documents("production")["NetworkPolicy/riva-gateway"]["spec"]
    assert _ports(full["egress"]) == {53, 5353, 50051, 5432, 4318, 443}
    database = next(rule for rule in full["egress"] if rule["ports"][0]["port"] == 5432)
    assert database["to"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "databases"}
    metadata = next(rule for rule in full["egress"] if rule["ports"][0]["port"] == 443)["to"][0]["ipBlock"]
    assert metadata["except"] == ["169.254.0.0/16"]


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"RIVA_API_KEY": "aws-sm:speech/riva"}},
        {"settings": {"JWT_KEYS": "https://issuer.example.com/keys", "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}},
        {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/gateway"}}},
        {"secrets": {"keys": {"JOBS_WEBHOOK_SECRET": {"secret": "hook", "key": "secret"}}}},
    ],
    ids=["secrets manager", "jwks", "role", "webhooks"],
)
def test_the_web_is_open_where_the_values_show_that_it_is_needed(values: dict[str, Any]) -> None:
    assert 443 in _ports(rendered(with_least(**values))["NetworkPolicy/riva-gateway"]["spec"]["egress"])


def test_the_nim_has_a_gpu_its_cache_its_time_and_one_caller() -> None:
    of = documents("nim-gpu")
    spec = of["StatefulSet/riva-gateway-nim"]["spec"]
    inside = spec["template"]["spec"]
    container = inside["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert inside["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert inside["imagePullSecrets"] == [{"name": "ngc-secret"}]
    said = {entry["name"]: entry for entry in container["env"]}
    assert said["NGC_API_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "ngc-api", "key": "NGC_API_KEY"}}
    assert said["NIM_TAGS_SELECTOR"]["value"] == "mode=str,vad=silero,type=default"
    shm = next(volume for volume in inside["volumes"] if volume["name"] == "shm")["emptyDir"]
    assert shm == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/opt/nim/.cache", "/dev/shm"}
    assert spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "100Gi"
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 40 * 60
    assert probe["httpGet"]["path"] == container["readinessProbe"]["httpGet"]["path"] == "/v1/health/ready"
    budget = of["PodDisruptionBudget/riva-gateway-nim"]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    policy = of["NetworkPolicy/riva-gateway-nim"]["spec"]
    gateway = of["Deployment/riva-gateway"]["spec"]["template"]["metadata"]["labels"]
    assert [peer["podSelector"]["matchLabels"] for peer in policy["ingress"][0]["from"]] == [gateway]
    assert len(policy["ingress"]) == 1


def test_the_nim_is_the_one_that_the_scripts_choose_first() -> None:
    lines = (ROOT / "scripts" / "lib" / "nim-profiles.tsv").read_text("utf-8").splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    first = next(row for row in rows if row["name"] == "rnnt")
    nim = helm_python.values_from_yaml((CHART / "values.yaml").read_text("utf-8"))["nim"]
    assert nim["image"] == {"repository": first["image"], "tag": first["tag"], "pullPolicy": "IfNotPresent"}
    assert nim["tagsSelector"] == first["selector"]


def test_what_a_nim_keeps_is_of_one_gpu_and_one_image() -> None:
    image = {"repository": "nvcr.io/nim/nvidia/parakeet-1-1b-ctc-en-us", "tag": "1.5.0"}
    folders = set()
    for more in ({}, {"gpu": "L4"}, {"gpu": "cc8.6"}, {"image": image}, {"image": image | {"tag": "1.6.0"}}):
        of = rendered(with_least(nim={"enabled": True, **more}))
        mounts = of["StatefulSet/riva-gateway-nim"]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        folders |= {mount["subPath"] for mount in mounts if mount["mountPath"] == "/opt/nim/.cache"}
    assert folders == {
        "parakeet-1-1b-rnnt-multilingual-1.5.0",
        "L4/parakeet-1-1b-rnnt-multilingual-1.5.0",
        "cc8.6/parakeet-1-1b-rnnt-multilingual-1.5.0",
        "parakeet-1-1b-ctc-en-us-1.5.0",
        "parakeet-1-1b-ctc-en-us-1.6.0",
    }


def test_each_nim_is_an_endpoint_of_its_own() -> None:
    values = {"nim": {"enabled": True, "replicas": 2}, "settings": {"AUTH": "on"}}
    of = rendered(values)
    name = "riva-gateway-nim"
    assert of[f"Service/{name}"]["spec"]["clusterIP"] == "None"
    nims = of[f"StatefulSet/{name}"]["spec"]
    assert (nims["serviceName"], nims["replicas"], nims["podManagementPolicy"]) == (name, 2, "Parallel")
    assert env(values)["RIVA_ENDPOINTS"] == f"{name}-0.{name}:50051,{name}-1.{name}:50051"


def test_jobs_of_several_share_a_database_and_a_spool() -> None:
    of = documents("production")
    assert of["PersistentVolumeClaim/riva-gateway-spool"]["spec"]["accessModes"] == ["ReadWriteMany"]
    said = env(production())
    assert (said["JOBS"], said["SPOOL_DIR"]) == ("on", "/var/spool/riva-gateway")
    secrets = next(volume for volume in pod(production())["volumes"] if volume["name"] == "secrets")["projected"]
    assert {source["secret"]["name"] for source in secrets["sources"]} == {
        "riva-gateway-secrets",
        "riva-gateway-database",
    }
    assert secrets["defaultMode"] == 0o440


@examples
def test_the_notes_name_what_there_is(path: Path) -> None:
    values = values_of(path)
    said, of = notes(values), rendered(values)
    assert "deployment/riva-gateway" in said
    assert f"port-forward service/riva-gateway 8443:{of['Service/riva-gateway']['spec']['ports'][0]['port']}" in said
    assert ("Nobody is asked for a key" in said) == (env(values).get("AUTH") == "off")
    assert ("is plain text" in said) == (
        of["Service/riva-gateway"]["spec"]["ports"][1]["appProtocol"] == "kubernetes.io/h2c"
    )


def test_a_packaged_chart_has_its_files(tmp_path: Path) -> None:
    archive = helm_python.Chart.load_archive(Path(helm_python.package(CHART, destination=tmp_path)).read_bytes())
    values = with_least(monitoring={"rules": {"enabled": True}, "dashboard": {"enabled": True}})
    texts = archive.render(values, name="riva-gateway", namespace="speech")
    assert "RivaGatewayDown" in texts["riva-gateway/templates/rules.yaml"]
